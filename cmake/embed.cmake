# Script: writes a C++ file that defines each given text file as a std::string_view of namespace enchilada::lab::web.
# cmake -DOUT=file.cc "-DTEXTS=name=path;name=path..." -P embed.cmake; a path that does not exist gives an empty text.
# The declarations are src/lab/experiments/web_assets.h.
set(source "// Made from src/lab/web and npm's packages by cmake/embed.cmake.\n#include \"lab/experiments/web_assets.h\"\n\n")
string(APPEND source "namespace enchilada::lab::web {\n")
foreach(text ${TEXTS})
  string(REGEX MATCH "^([^=]+)=(.*)$" matched "${text}")
  set(name "${CMAKE_MATCH_1}")
  set(path "${CMAKE_MATCH_2}")
  set(content "")
  if(EXISTS "${path}")
    file(READ "${path}" content)
  endif()
  string(APPEND source "const std::string_view ${name} = R\"~~~~(${content})~~~~\";\n")
endforeach()
string(APPEND source "}  // namespace enchilada::lab::web\n")
file(WRITE "${OUT}" "${source}")
