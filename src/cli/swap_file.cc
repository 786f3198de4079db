// Opening swap files, and the choice of descriptor numbers.
#include "cli/swap_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "cli/sizes.h"
#include "cli/user_error.h"
#include "swap/swap_place.h"

namespace enchilada::cli {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kSmallest = 2 * kPage;              // the first page is not used
constexpr std::uint64_t kMaxSwap = std::uint64_t{1} << 43;  // 2^31 blocks
constexpr rlim_t kHighest = 2047;                           // a table of 2048 descriptors is 16 KiB
constexpr rlim_t kRoom = 16;

struct Spec {
  std::string path;
  std::optional<std::uint64_t> bytes;
};

Spec parse_spec(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  struct stat st {};
  // A path may contain a colon itself: what exists as a whole is a path.
  if (colon == std::string::npos || stat(text.c_str(), &st) == 0) return {text, std::nullopt};
  const std::string size = text.substr(colon + 1);
  const auto bytes = parse_size(size);
  if (!bytes) throw UserError(fmt::format("--swap {}: '{}' is not a size (64M, 4G, 1.5T)", text, size));
  if (*bytes < kSmallest)
    throw UserError(fmt::format("--swap {}: a swap file of {} holds nothing", text, size));
  return {text.substr(0, colon), bytes};
}

[[noreturn]] void cannot_open(const std::string& path) {
  throw UserError(fmt::format("swap file {}: {}", path, std::strerror(errno)));
}

/// RLIMIT_FSIZE: beyond it a write ends the process by SIGXFSZ.
std::uint64_t file_size_limit() {
  struct rlimit limit {};
  return getrlimit(RLIMIT_FSIZE, &limit) == 0 ? std::uint64_t{limit.rlim_cur} : ~std::uint64_t{0};
}

std::uint64_t free_space(int fd) {
  struct statvfs fs {};
  return fstatvfs(fd, &fs) == 0 ? std::uint64_t{fs.f_bavail} * fs.f_frsize : 0;
}

OpenedSwap open_in_directory(const Spec& spec) {
  OpenedSwap swap;
  swap.place = spec.path;
  swap.descriptor = open_unnamed_file(spec.path, &swap.direct);
  if (swap.descriptor < 0 && errno == ENOENT) {
    throw UserError(fmt::format("swap file {}: no file can be made there", spec.path));
  }
  if (swap.descriptor < 0) cannot_open(spec.path);
  swap.bytes = spec.bytes ? *spec.bytes : default_swap_size(free_space(swap.descriptor));
  if (swap.bytes < kSmallest) {
    close(swap.descriptor);
    throw UserError(fmt::format("swap file {}: the filesystem is full", spec.path));
  }
  return swap;
}

/// The first page of a file or device that may be overwritten: mkswap's signature at its end, or ours at its
/// beginning. Swapping leaves that page alone.
constexpr std::string_view kKernelMark = "SWAPSPACE2";
constexpr std::string_view kOwnMark = "enchilada swap\n";

struct alignas(kPage) FirstPage {
  std::array<char, kPage> bytes{};

  [[nodiscard]] bool marked() const {
    const std::string_view all(bytes.data(), bytes.size());
    return all.starts_with(kOwnMark) || all.ends_with(kKernelMark);
  }
};

/// A file without contents: empty, or nothing but a hole (truncate, fallocate).
bool holds_nothing(int fd) {
  return lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO;
}

/// Nobody's data may be swapped over: what is there must be marked as swap space, or empty (and is marked
/// then).
void claim(const OpenedSwap& swap, bool device) {
  FirstPage page;
  const ssize_t got = pread(swap.descriptor, page.bytes.data(), kPage, 0);
  if (got < 0) cannot_open(swap.place);
  if (!page.marked()) {
    if (device || !holds_nothing(swap.descriptor)) {
      throw UserError(
          fmt::format("swap file {0}: holds something else; if it may be overwritten, prepare it with: "
                      "mkswap {0}",
                      swap.place));
    }
    kOwnMark.copy(page.bytes.data(), kOwnMark.size());
  }
  // Also tells whether the kernel lets us write here, which it does not where it swaps itself.
  if (pwrite(swap.descriptor, page.bytes.data(), kPage, 0) != static_cast<ssize_t>(kPage)) {
    throw UserError(
        fmt::format("swap file {}: cannot be written: {}", swap.place,
                    errno == ETXTBSY ? "the kernel swaps there (swapoff)" : std::strerror(errno)));
  }
}

OpenedSwap open_named(const Spec& spec, const struct stat* st) {
  OpenedSwap swap;
  swap.place = spec.path;
  if (st == nullptr) throw UserError(fmt::format("swap file {}: no such file or directory", spec.path));
  const bool device = S_ISBLK(st->st_mode);
  if (!device && !S_ISREG(st->st_mode)) {
    throw UserError(
        fmt::format("swap file {}: is neither a directory, nor a file, nor a block device", spec.path));
  }
  const int flags = O_RDWR | O_CLOEXEC | (device ? O_EXCL : 0);
  swap.descriptor = open_direct_or_buffered(
      [&](int extra) { return open(spec.path.c_str(), flags | extra, 0600); }, &swap.direct);
  if (swap.descriptor < 0) cannot_open(spec.path);
  // Two runs in one file would read each other's pages. The lock goes with the last process that has the
  // descriptor.
  if (flock(swap.descriptor, LOCK_EX | LOCK_NB) != 0) {
    close(swap.descriptor);
    throw UserError(fmt::format("swap file {}: is in use by another enchilada run", spec.path));
  }
  std::uint64_t size = static_cast<std::uint64_t>(st->st_size);
  if (device && ioctl(swap.descriptor, BLKGETSIZE64, &size) != 0) cannot_open(spec.path);
  if (device && spec.bytes && *spec.bytes > size) {
    close(swap.descriptor);
    throw UserError(fmt::format("swap file {}: the device has only {} bytes", spec.path, size));
  }
  swap.bytes = spec.bytes ? *spec.bytes : size;
  if (swap.bytes < kSmallest) {
    close(swap.descriptor);
    throw UserError(
        fmt::format("swap file {}: is empty; say how large it may grow: {}:SIZE", spec.path, spec.path));
  }
  claim(swap, device);
  return swap;
}

}  // namespace

int move_high(int fd) {
  struct rlimit limit {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return fd;
  rlim_t from = std::min<rlim_t>(limit.rlim_cur, kHighest + 1 - kRoom);
  const bool raise = from + kRoom > limit.rlim_cur && limit.rlim_max >= from + kRoom;
  // Just above the soft limit, where a program that closes "all" its descriptors by count does not come. A
  // descriptor stays valid when the limit goes down again.
  struct rlimit wider = limit;
  wider.rlim_cur = from + kRoom;
  if (raise && setrlimit(RLIMIT_NOFILE, &wider) != 0) wider = limit;
  if (!raise && limit.rlim_cur < from + kRoom) from = limit.rlim_cur > kRoom ? limit.rlim_cur - kRoom : 0;
  const int moved = fcntl(fd, F_DUPFD, static_cast<int>(from));
  if (raise) setrlimit(RLIMIT_NOFILE, &limit);
  if (moved < 0) {
    const int flags = fcntl(fd, F_GETFD);
    fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
    return fd;
  }
  close(fd);
  return moved;
}

std::uint64_t raise_file_size_limit() {
  struct rlimit limit {};
  if (getrlimit(RLIMIT_FSIZE, &limit) != 0) return ~std::uint64_t{0};
  const rlim_t found = limit.rlim_cur;
  limit.rlim_cur = limit.rlim_max;
  if (found != limit.rlim_max) setrlimit(RLIMIT_FSIZE, &limit);
  return found;
}

OpenedSwap open_swap(const std::string& text) {
  if (text.empty()) throw UserError("--swap: the path is empty");
  const Spec spec = parse_spec(text);
  struct stat st {};
  const bool exists = stat(spec.path.c_str(), &st) == 0;
  OpenedSwap swap =
      exists && S_ISDIR(st.st_mode) ? open_in_directory(spec) : open_named(spec, exists ? &st : nullptr);
  swap.bytes = std::min({swap.bytes, kMaxSwap, file_size_limit()}) & ~(kPage - 1);
  if (swap.bytes == 0) {
    close(swap.descriptor);
    throw UserError(
        fmt::format("swap file {}: the limit on the size of files is {} bytes; raise it with "
                    "'ulimit -f unlimited'",
                    spec.path, file_size_limit()));
  }
  struct stat opened {};
  if (fstat(swap.descriptor, &opened) == 0 && S_ISREG(opened.st_mode) &&
      static_cast<std::uint64_t>(opened.st_size) < swap.bytes &&
      ftruncate(swap.descriptor, static_cast<off_t>(swap.bytes)) != 0) {
    const int error = errno;
    close(swap.descriptor);
    throw UserError(fmt::format("swap file {}: cannot be {} bytes long: {}", spec.path, swap.bytes,
                                std::strerror(error)));
  }
  swap.descriptor = move_high(swap.descriptor);
  return swap;
}

SwapPlace examine_swap_directory(const std::string& path) {
  SwapPlace place;
  const int fd = open_unnamed_file(path, &place.direct);
  if (fd < 0) {
    place.why = std::strerror(errno);
    return place;
  }
  place.usable = true;
  place.free_bytes = free_space(fd);
  close(fd);
  return place;
}

}  // namespace enchilada::cli
