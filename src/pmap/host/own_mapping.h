// Private mappings of ours, most of them far larger than what they will ever hold.
//
// The kernel counts writable private mappings against RLIMIT_DATA (`ulimit -d`), touched or not; the window
// alone is 16 TiB. Mappings made with MAP_GROWSDOWN it takes for stacks, which it counts elsewhere and, made
// by mmap, limits nowhere (is_data_mapping() and may_expand_vm() in the kernel's mm/). So where the limit is
// set, ours are of that kind; what the program may have of managed memory is then for the runtime to check.
// They would grow into whatever is free below them when it is touched: that is not to be the program's wild
// pointers, so the window gets a guard.
#pragma once

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <cstdint>

#include "base/raw_syscall.h"

namespace enchilada {

/// The soft RLIMIT_DATA that the kernel enforces, in bytes; all ones for none.
inline std::uint64_t kernel_data_limit() noexcept {
  std::uint64_t limit[2] = {~std::uint64_t{0}, ~std::uint64_t{0}};
  raw_syscall(SYS_prlimit64, 0, RLIMIT_DATA, 0, reinterpret_cast<long>(limit));
  return limit[0];
}

/// Flags for mmap. The same in the whole life of a process, so that pieces of one mapping stay alike.
inline int own_mapping_flags() noexcept {
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return kernel_data_limit() == ~std::uint64_t{0} ? kFlags : kFlags | MAP_GROWSDOWN;
}

}  // namespace enchilada
