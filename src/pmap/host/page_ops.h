// Copying, zeroing and touching pages without libc. Why assembly: these run in signal handlers of an
// unknown program, on memory that other threads may be writing, where a call into libc (lazy binding,
// interposed memcpy) or a compiler's assumption about races is out of place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

inline void copy_bytes(void* to, const void* from, std::size_t n) noexcept {
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

inline void copy_pages(std::uint64_t to, std::uint64_t from, std::uint64_t pages) noexcept {
  copy_bytes(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), pages << kPageShift);
}

inline void zero_pages(std::uint64_t at, std::uint64_t pages) noexcept {
  std::size_t n = pages << kPageShift;
  asm volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(0) : "memory");
}

/// A write that changes nothing, atomic with respect to all other writers: makes the kernel give this
/// process a page of its own (after fork), or populates it.
inline void touch_for_write(std::uint64_t at) noexcept {
  asm volatile("lock; orb $0, (%0)" : : "r"(at) : "memory", "cc");
}

inline void cpu_relax() noexcept {
  asm volatile("pause" ::: "memory");
}

}  // namespace enchilada
