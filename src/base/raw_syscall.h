// System calls without libc: no errno, no cancellation point, no thread-local storage.
// Invariant: usable in a signal handler and in a thread that libc does not know. x86-64 Linux only.
#pragma once

#include <cstdint>

namespace enchilada {

inline constexpr long kSysWrite = 1;
inline constexpr long kSysClose = 3;
inline constexpr long kSysSchedYield = 24;
inline constexpr long kSysFcntl = 72;
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

/// Makes a system call and answers as raw_syscall() does: what a caller may put in its place.
using SyscallFunction = long (*)(long nr, long a, long b, long c, long d, long e, long f) noexcept;

/// Moves a descriptor of ours to a number >= lowest, close-on-exec, out of the program's sight. What cannot
/// be moved stays; errors (< 0) pass through.
inline int raise_descriptor(long fd, int lowest) noexcept {
  constexpr long kDupFdCloexec = 1030;  // F_DUPFD_CLOEXEC
  if (fd < 0 || fd >= lowest) return static_cast<int>(fd);
  const long high = raw_syscall(kSysFcntl, fd, kDupFdCloexec, lowest);
  if (high < 0) return static_cast<int>(fd);
  raw_syscall(kSysClose, fd);
  return static_cast<int>(high);
}

}  // namespace enchilada
