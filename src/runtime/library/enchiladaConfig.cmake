# find_package(enchilada): the target enchilada::enchilada.
include("${CMAKE_CURRENT_LIST_DIR}/enchiladaTargets.cmake")
