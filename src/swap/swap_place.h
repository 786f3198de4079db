// Where swap files are made, and how they are opened: for the command and for the library.
//
// An unnamed file leaves nothing behind however its users end.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstdint>
#include <string>

namespace enchilada {

/// Opens with O_DIRECT where the file system lets us, else buffered: open_with(extra flags) returns a
/// descriptor, or -1 with errno set.
template <class Open>
[[nodiscard]] int open_direct_or_buffered(Open open_with, bool* direct) {
  int fd = open_with(O_DIRECT);
  *direct = fd >= 0;
  if (fd < 0 && errno == EINVAL) fd = open_with(0);
  return fd;
}

/// An unnamed file in the directory (O_TMPFILE; where the file system has none, a named one, unlinked at
/// once), close-on-exec, with O_DIRECT where it can be: *direct. Returns a descriptor, or -1 with errno set.
[[nodiscard]] int open_unnamed_file(const std::string& directory, bool* direct);

/// $ENCHILADA_SWAP_DIR, or /var/tmp.
[[nodiscard]] std::string default_swap_directory();
/// Default size on a file system with so much space free, in bytes.
[[nodiscard]] std::uint64_t default_swap_size(std::uint64_t free_bytes);

}  // namespace enchilada
