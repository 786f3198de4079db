// `enchilada lab replay`: a trace through replacement policies, with several sizes of memory.
//
// Invariant: what is said about a policy and a memory depends on nothing but the trace and the options; only
// the rate depends on the machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace enchilada::cli {

struct ReplayCommand {
  std::string trace;            // a file, or "-"
  std::string format = "auto";  // or help
  std::string page_size = "4K";
  std::vector<std::string> policies;  // or help; none: all
  std::vector<std::string> memory;    // sizes, "10%" of the trace's pages, "auto"; none: auto
  std::uint64_t skip = 0;
  std::uint64_t limit = 0;  // 0: all
  std::uint64_t seed = 1;
  unsigned jobs = 0;  // 0: all cores
  std::string json_file;
  std::string csv_file;
};

/// 0. Throws UserError.
int lab_replay(const ReplayCommand& command);

}  // namespace enchilada::cli
