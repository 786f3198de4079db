// Can this program be managed? Found as the shell finds it, and looked at before anything is set up.
//
// Invariant: what passes is a 64-bit x86 dynamically linked program that the loader will give our library to,
// or a script whose interpreter is one.
#pragma once

#include <string>

namespace enchilada::cli {

struct ProgramInfo {
  std::string path;           // what execve gets
  std::string interpreter;    // of a script: the program that will really run; else empty
  bool shell_script = false;  // neither ELF nor #!: /bin/sh runs it, as execvp would have it
};

/// Throws UserError: 127 not found, 126 not executable, 2 cannot be managed.
ProgramInfo check_program(const std::string& name);

}  // namespace enchilada::cli
