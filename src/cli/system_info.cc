// /proc, cgroups, and the search for the preload library.
#include "cli/system_info.h"

#include <fmt/format.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string_view>

#include "cli/user_error.h"

namespace enchilada::cli {
namespace {

constexpr std::string_view kLibrary = "libenchilada-preload.so";

/// This process's folder in the unified cgroup hierarchy; empty when there is none.
std::string cgroup_folder() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::")) return "/sys/fs/cgroup" + line.substr(3);
  }
  return {};
}

std::uint64_t number_in(const std::string& path) {
  const std::string text = first_line(path);
  return text.empty() || text == "max" ? 0 : std::strtoull(text.c_str(), nullptr, 10);
}

std::uint64_t mem_available() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("MemAvailable:")) return std::strtoull(line.c_str() + 13, nullptr, 10) * 1024;
  }
  return 0;
}

/// The folder that holds this executable, without links.
std::string own_folder() {
  std::array<char, PATH_MAX> path{};
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (length <= 0) return ".";
  const std::string whole(path.data(), static_cast<std::size_t>(length));
  return whole.substr(0, whole.rfind('/'));
}

}  // namespace

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::uint64_t cgroup_limit() {
  const std::string folder = cgroup_folder();
  return folder.empty() ? 0 : number_in(folder + "/memory.max");
}

std::uint64_t available_memory() {
  const std::uint64_t system = mem_available();
  const std::uint64_t limit = cgroup_limit();
  if (limit == 0) return system;
  const std::uint64_t used = number_in(cgroup_folder() + "/memory.current");
  return std::min(system, limit > used ? limit - used : 0);
}

std::string preload_library() {
  if (const char* chosen = std::getenv("ENCHILADA_PRELOAD_LIBRARY"); chosen != nullptr && *chosen != 0) {
    if (access(chosen, R_OK) != 0)
      throw UserError(fmt::format("ENCHILADA_PRELOAD_LIBRARY: cannot read {}", chosen));
    return chosen;
  }
  const std::string folder = own_folder();
  for (const char* place : {"/../lib/enchilada/", "/../lib/", "/../lib/x86_64-linux-gnu/enchilada/", "/"}) {
    const std::string path = folder + place + std::string(kLibrary);
    if (access(path.c_str(), R_OK) != 0) continue;
    std::array<char, PATH_MAX> real{};
    std::string clean = realpath(path.c_str(), real.data()) != nullptr ? real.data() : path;
    // The loader splits LD_PRELOAD at both, and knows no way to quote them.
    if (clean.find_first_of(": ") != std::string::npos) {
      throw UserError(
          fmt::format("{}: the loader cannot preload from a path with a space or a colon", clean));
    }
    return clean;
  }
  throw UserError(
      fmt::format("{} is not found beside the command (looked in {}/../lib): the installation is incomplete",
                  kLibrary, folder));
}

HostFeatures require_usable_host() {
  const HostFeatures features = probe_host_features();
  if (!features.usable()) throw UserError(features.reason);
  return features;
}

}  // namespace enchilada::cli
