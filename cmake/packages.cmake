# Debian packages: `cpack -G DEB` in the build folder. Four, as Debian divides such things: the command with the preload
# library under it, the shared library, what one needs to build against it, and the Python module.
# Invariant: every install() names its component, so each file is in exactly one package.
set(CPACK_COMPONENTS_ALL command library development)
if(TARGET enchilada-python)
  list(APPEND CPACK_COMPONENTS_ALL python)
endif()
set(CPACK_PACKAGE_VENDOR "Enchilada")
set(CPACK_PACKAGE_CONTACT "The Enchilada developers <enchilada@localhost>")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})  # libenchilada is no package's yet
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
# Copyright, changelog and compressed man pages: Debian's, so they are added to its packages alone.
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/debian_documents.cmake)

set(runtime_package libenchilada${PROJECT_VERSION_MAJOR})
set(same_version "${runtime_package} (= ${PROJECT_VERSION})")

set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME enchilada)
set(CPACK_DEBIAN_COMMAND_PACKAGE_SECTION utils)
set(CPACK_DEBIAN_COMMAND_DESCRIPTION "run programs in less memory than they need
The FreeBSD virtual memory system in user space. `enchilada run` runs an
unmodified program, and what it starts, within a budget of memory; what does
not fit goes to a swap file or is compressed. Needs neither root nor a kernel
module.")

set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${runtime_package})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_CONTROL_EXTRA ${PROJECT_SOURCE_DIR}/cmake/debian/triggers)
set(CPACK_DEBIAN_LIBRARY_DESCRIPTION "memory larger than RAM that forks and rolls back - library
Regions of memory that may be larger than their budget of RAM, and that are
forked, marked and rolled back at the same addresses without copying.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libenchilada-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${same_version}")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION "memory larger than RAM that forks and rolls back - headers
Headers for C++ and C, the CMake package, the pkg-config file and the manual
of libenchilada: regions of memory that may be larger than their budget of
RAM, and that are forked, marked and rolled back without copying.")

if(TARGET enchilada-python)
  string(REGEX MATCH "^([0-9]+)\\.([0-9]+)" python_version ${ENCHILADA_PYTHON_VERSION})
  math(EXPR python_next "${CMAKE_MATCH_2} + 1")
  set(CPACK_DEBIAN_PYTHON_PACKAGE_NAME python3-enchilada)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_SECTION python)
  set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS
      "${same_version}, python3 (>= ${python_version}), python3 (<< ${CMAKE_MATCH_1}.${python_next})")
  set(CPACK_DEBIAN_PYTHON_PACKAGE_RECOMMENDS python3-numpy)
  set(CPACK_DEBIAN_PYTHON_DESCRIPTION "memory larger than RAM that forks and rolls back - Python 3
Regions of memory as buffers, for NumPy arrays and others: they may be larger
than their budget of RAM, and are forked, marked and rolled back without
copying.")
endif()

include(CPack)
