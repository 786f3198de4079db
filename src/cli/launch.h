// Starting the program and waiting for it, as a good parent under a terminal: signals, job control, exit
// status.
#pragma once

#include <string>
#include <vector>

namespace enchilada::cli {

struct ChildEnd {
  int status = 0;  // exit status, when signal is 0
  int signal = 0;
  /// What a shell reports.
  [[nodiscard]] int shell_status() const { return signal != 0 ? 128 + signal : status; }
};

/// Runs `path` with `arguments` (the first is argv[0]) and the environment plus `variables` (NAME=value).
/// Waits without using the CPU. Throws UserError when the program could not be executed.
ChildEnd run_child(const std::string& path, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& variables);

}  // namespace enchilada::cli
