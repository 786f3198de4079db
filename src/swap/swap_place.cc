// Opening unnamed files, and the defaults.
#include "swap/swap_place.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/units.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kMostByDefault = 32 * kGiB;

int open_with(const std::string& directory, int flags) {
  const int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) return fd;
  std::string name = directory + "/.enchilada-swap-XXXXXX";
  const int made = mkostemp(name.data(), O_CLOEXEC | flags);
  if (made >= 0) unlink(name.c_str());
  return made;
}

}  // namespace

int open_unnamed_file(const std::string& directory, bool* direct) {
  return open_direct_or_buffered([&](int flags) { return open_with(directory, flags); }, direct);
}

std::string default_swap_directory() {
  const char* chosen = std::getenv("ENCHILADA_SWAP_DIR");
  return chosen != nullptr && *chosen != 0 ? chosen : "/var/tmp";
}

std::uint64_t default_swap_size(std::uint64_t free_bytes) {
  // Leave the filesystem some air; on a nearly full one, half of what there is.
  const std::uint64_t spare = free_bytes > 2 * kGiB ? free_bytes - kGiB : free_bytes / 2;
  return std::min(spare, kMostByDefault) & ~kPageMask;
}

}  // namespace enchilada
