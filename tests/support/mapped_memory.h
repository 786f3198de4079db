// Memory for a test's arena, straight from the system: what a test does not touch costs it nothing, which a vector's
// zeroes do (most of the time of a small test under ThreadSanitizer).
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace enchilada::test {

struct Unmap {
  std::size_t bytes = 0;
  void operator()(std::byte* p) const { munmap(p, bytes); }
};
using ZeroedMemory = std::unique_ptr<std::byte, Unmap>;

/// Page-aligned and zero; never null.
inline ZeroedMemory zeroed_memory(std::size_t bytes) {
  void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  return {static_cast<std::byte*>(p), Unmap{bytes}};
}

}  // namespace enchilada::test
