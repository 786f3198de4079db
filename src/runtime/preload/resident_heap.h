// ResidentHeap: a small allocator outside of the window, for what must never be paged.
//
// Who gets it: the dynamic loader (it allocates and frees with signals blocked), spawn attributes, staged
// exec arguments, and C library stdio buffers (so that stdio's own system calls need no trap). Power-of-two
// classes with free lists; memory is never given back. Invariant: usable before any constructor has run, and
// in a vfork child.
#pragma once

#include <cstddef>

namespace enchilada::runtime {

[[nodiscard]] void* resident_allocate(std::size_t bytes, std::size_t alignment = 16);
void resident_free(void* block);
[[nodiscard]] bool is_resident(const void* block);
[[nodiscard]] std::size_t resident_size(const void* block);
/// Bytes taken from the kernel so far.
[[nodiscard]] std::size_t resident_heap_used();

}  // namespace enchilada::runtime
