# CPack runs this on each component's files before it packs them: adds what Debian wants in every package, compresses the
# man pages, and takes search paths out that only other prefixes need. Invariant: the same input gives the same bytes (gzip -n).
set(source ${CMAKE_CURRENT_LIST_DIR}/..)
foreach(component ${CPACK_COMPONENTS_ALL})
  set(root ${CPACK_TEMPORARY_DIRECTORY}/${component}${CPACK_PACKAGING_INSTALL_PREFIX})
  string(TOUPPER ${component} upper)
  set(documents ${root}/share/doc/${CPACK_DEBIAN_${upper}_PACKAGE_NAME})
  file(READ ${source}/LICENSE license)
  file(WRITE ${documents}/copyright "Enchilada\n\nLicense: ${license}")
  file(WRITE ${documents}/changelog
       "enchilada (${CPACK_PACKAGE_VERSION}) unstable; urgency=medium\n\n  * Built from the project's own source tree.\n\n"
       " -- ${CPACK_PACKAGE_CONTACT}  Fri, 27 Nov 2026 00:00:00 +0000\n")
  file(GLOB modules ${root}/lib/python3/dist-packages/*.so)
  foreach(module ${modules})
    file(RPATH_REMOVE FILE ${module})  # below /usr the loader finds the library by itself
  endforeach()
  if(component STREQUAL command)  # static on purpose: src/cli/CMakeLists.txt says why
    file(WRITE ${root}/share/lintian/overrides/enchilada "enchilada: statically-linked-binary\nenchilada: embedded-library\n")
  endif()
  file(GLOB pages ${root}/share/man/man*/*.[0-9])
  execute_process(COMMAND gzip -9nf ${documents}/changelog ${pages} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
