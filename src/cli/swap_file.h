// Swap files, and descriptors that exec'd children inherit.
//
// A swap file never has a name (O_TMPFILE), so nothing is left behind however the tree ends. Descriptors go
// to high numbers, where programs that count on low ones do not meet them, but not so high that the table
// costs memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace enchilada::cli {

struct OpenedSwap {
  int descriptor = -1;
  std::uint64_t bytes = 0;
  bool direct = false;
  std::string place;  // for messages: the directory, file or device
};

/// Moves a descriptor to a high number, without CLOEXEC.
int move_high(int fd);

/// Raises the soft limit on file sizes as far as the hard one lets us: swap is a file. Returns what it was.
std::uint64_t raise_file_size_limit();

/// SPEC is PATH[:SIZE]: a directory (an unnamed file is made in it), a file that is empty or marked as swap
/// space (by mkswap, or by an earlier run), or a block device so marked. Throws UserError.
OpenedSwap open_swap(const std::string& spec);
/// What doctor wants to know about a directory: can an unnamed file be made, and opened with O_DIRECT?
struct SwapPlace {
  bool usable = false;
  bool direct = false;
  std::uint64_t free_bytes = 0;
  std::string why;
};
SwapPlace examine_swap_directory(const std::string& path);

}  // namespace enchilada::cli
