# What the laboratory's HTML report is made of: src/lab/web, and uPlot from npm. With tests also playwright-core.
#
# npm puts its packages into the build folder, once for all presets; package-lock.json says which. Without npm or its
# registry the build goes on, and reports draw with their own plain SVG.

# Where node_modules is: build/npm for the presets, otherwise the build folder's own.
cmake_path(IS_PREFIX PROJECT_SOURCE_DIR "${CMAKE_BINARY_DIR}" NORMALIZE in_source)
cmake_path(GET CMAKE_BINARY_DIR PARENT_PATH ENCHILADA_NPM)
cmake_path(GET ENCHILADA_NPM FILENAME above)
if(in_source AND above STREQUAL build)
  string(APPEND ENCHILADA_NPM "/npm")
else()
  set(ENCHILADA_NPM "${CMAKE_BINARY_DIR}/npm")
endif()

function(enchilada_fetch_npm)
  set(web ${PROJECT_SOURCE_DIR}/src/lab/web)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${web}/package-lock.json)
  file(MAKE_DIRECTORY ${ENCHILADA_NPM})
  file(LOCK ${ENCHILADA_NPM}/lock GUARD FUNCTION)
  file(SHA256 ${web}/package-lock.json wanted)
  set(have "")
  if(EXISTS ${ENCHILADA_NPM}/fetched)
    file(READ ${ENCHILADA_NPM}/fetched have)
  endif()
  if(have STREQUAL wanted)
    return()
  endif()
  find_program(ENCHILADA_NPM_PROGRAM npm)
  if(NOT ENCHILADA_NPM_PROGRAM)
    message(STATUS "enchilada: no npm here: the laboratory's reports draw without uPlot, and their test is skipped")
    return()
  endif()
  configure_file(${web}/package.json ${ENCHILADA_NPM}/package.json COPYONLY)
  configure_file(${web}/package-lock.json ${ENCHILADA_NPM}/package-lock.json COPYONLY)
  execute_process(COMMAND ${ENCHILADA_NPM_PROGRAM} ci --ignore-scripts --no-audit --no-fund --fetch-retries=1
                          --fetch-retry-mintimeout=1000 --fetch-timeout=20000
                  WORKING_DIRECTORY ${ENCHILADA_NPM} RESULT_VARIABLE failed OUTPUT_QUIET ERROR_VARIABLE words TIMEOUT 90)
  if(failed)
    string(REGEX REPLACE "\n.*" "" words "${words}")
    message(STATUS "enchilada: npm could not fetch uPlot (${words}): the laboratory's reports draw without it, and "
                   "their test is skipped")
    return()
  endif()
  file(WRITE ${ENCHILADA_NPM}/fetched ${wanted})
endfunction()

# Adds the texts to the sources of `target`; they are read when it is built.
function(enchilada_embed_web target)
  enchilada_fetch_npm()
  set(web ${PROJECT_SOURCE_DIR}/src/lab/web)
  set(uplot ${ENCHILADA_NPM}/node_modules/uplot)
  set(texts kReportCss=${web}/report.css kReportJs=${web}/report.js kChartJs=${web}/chart.js
            kUplotJs=${uplot}/dist/uPlot.iife.min.js kUplotCss=${uplot}/dist/uPlot.min.css kUplotLicense=${uplot}/LICENSE)
  set(inputs ${PROJECT_SOURCE_DIR}/cmake/embed.cmake)
  foreach(text ${texts})
    string(REGEX REPLACE "^[^=]+=" "" path ${text})
    if(EXISTS ${path})
      list(APPEND inputs ${path})
    endif()
  endforeach()
  set(out ${CMAKE_BINARY_DIR}/web_assets.cc)
  add_custom_command(OUTPUT ${out} COMMAND ${CMAKE_COMMAND} -DOUT=${out} "-DTEXTS=${texts}"
                                           -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
                     DEPENDS ${inputs} COMMENT "Texts of the laboratory's report" VERBATIM)
  target_sources(${target} PRIVATE ${out})
endfunction()
