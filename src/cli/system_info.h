// What the command asks of the machine it runs on: memory, our own files, kernel features.
#pragma once

#include <cstdint>
#include <string>

namespace enchilada::cli {

/// MemAvailable, or the memory cgroup's headroom when that is smaller.
std::uint64_t available_memory();
/// The cgroup's memory limit; 0 = none.
std::uint64_t cgroup_limit();
/// Path of libenchilada-preload.so, found beside the command (build tree or installation). Throws UserError.
std::string preload_library();
/// Throws UserError with the setting to change when this kernel or container cannot serve us.
void require_usable_host();
/// UFFDIO_MOVE works here.
bool host_can_move();
/// First line of a small file, empty when it cannot be read.
std::string first_line(const std::string& path);

}  // namespace enchilada::cli
