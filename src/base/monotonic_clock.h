// The monotonic clock, cheap enough for every fault: read in the kernel's vDSO, not by a system call (which
// under a seccomp filter costs ten times as much), and not by libc, whose function a program may replace.
// Invariant: usable in a signal handler and in any process or thread; never fails.
#pragma once

#include <cstdint>

namespace enchilada {

/// Nanoseconds since boot, without the time that the machine was suspended. The same in all processes.
std::uint64_t monotonic_ns() noexcept;

/// Finds a function in an ELF image that is mapped as the kernel maps the vDSO; nullptr if it is not there.
/// By the GNU hash table (Ali Bahrami, "GNU Hash ELF Sections", Oracle Linkers and Libraries blog).
void* find_in_vdso(std::uintptr_t image, const char* name) noexcept;

}  // namespace enchilada
