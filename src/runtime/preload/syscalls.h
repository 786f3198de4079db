// The runtime's own system calls: never libc's wrappers, always through the gadget once it is there.
#pragma once

#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/raw_syscall.h"
#include "base/signals_blocked.h"
#include "base/units.h"
#include "pmap/host/own_mapping.h"
#include "runtime/preload/layout.h"

namespace enchilada::runtime {

/// A system call at the gadget's address: exempt from the filter, so arguments may point into the window.
inline long window_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                           long f = 0) noexcept {
  return reinterpret_cast<SyscallFunction>(layout::kGadgetPage)(nr, a, b, c, d, e, f);
}

/// The gadget that the SIGSYS handler returns into.
inline constexpr std::uint64_t kUserGadget = layout::kGadgetPage + 64;

/// checked_syscall(): the call has not been made, or must be made again; what it needs may be paged out.
inline constexpr long kRestart = -512;

template <class T>
long as_long(T* p) {
  return reinterpret_cast<long>(p);
}

/// Zeroed memory of ours at this very place, which costs only what is touched: no huge pages, of which one
/// would be zeroed for the few pages that most programs need. False: taken, or no address space.
inline bool map_own_memory(std::uint64_t at, std::uint64_t bytes) {
  const auto start = static_cast<long>(at);
  const auto size = static_cast<long>(bytes);
  const long mapped = raw_syscall(SYS_mmap, start, size, PROT_READ | PROT_WRITE,
                                  own_mapping_flags() | MAP_FIXED_NOREPLACE, -1, 0);
  if (mapped != start) return false;
  raw_syscall(SYS_madvise, start, size, MADV_NOHUGEPAGE);
  return true;
}

}  // namespace enchilada::runtime
