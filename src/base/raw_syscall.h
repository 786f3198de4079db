// System calls without libc: no errno, no cancellation point, no thread-local storage.
// Invariant: usable in a signal handler and in a thread that libc does not know. x86-64 Linux only.
#pragma once

#include <cstdint>

namespace enchilada {

inline constexpr long kSysWrite = 1;
inline constexpr long kSysSchedYield = 24;
inline constexpr long kSysGettid = 186;
inline constexpr long kSysFutex = 202;

/// Returns the kernel's answer: >= 0, or -errno.
inline long raw_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                        long f = 0) noexcept {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace enchilada
