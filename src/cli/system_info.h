// What the command asks of the machine it runs on: memory, our own files, kernel features.
#pragma once

#include <cstdint>
#include <string>

#include "pmap/host/host_features.h"

namespace enchilada::cli {

/// MemAvailable, or the memory cgroup's headroom when that is smaller.
std::uint64_t available_memory();
/// The cgroup's memory limit; 0 = none.
std::uint64_t cgroup_limit();
/// Path of libenchilada-preload.so, found beside the command (build tree or installation). Throws UserError.
std::string preload_library();
/// Throws UserError with the setting to change when this kernel or container cannot serve us.
HostFeatures require_usable_host();
/// First line of a small file, empty when it cannot be read.
std::string first_line(const std::string& path);

}  // namespace enchilada::cli
