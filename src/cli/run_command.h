// `enchilada run`: one program and all its children in a bounded amount of memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace enchilada::cli {

struct RunOptions {
  std::optional<std::uint64_t> ram_bytes;  // none: half of what the system has available
  std::uint64_t compressed_bytes = 0;      // of the memory: for compressed pages
  std::vector<std::string> swap;           // PATH[:SIZE]; none: an unnamed file in the default directory
  std::string stats_file;
  bool quiet = false;
  bool verbose = false;
  bool force_copy = false;
  std::vector<std::string> settings;  // MECHANISM=MODE
  std::vector<std::string> command;   // program and arguments
};

/// Runs it to its end. Returns the exit status for the shell. Throws UserError before anything was started.
int run_command(const RunOptions& options);

}  // namespace enchilada::cli
