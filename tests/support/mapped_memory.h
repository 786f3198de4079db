// Zeroed memory straight from the system, for a test's arena and devices: what a test does not touch costs it
// nothing, which a vector's zeroes do (most of the time of a small test under ThreadSanitizer).
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <vector>

namespace enchilada::test {

/// Page-aligned and lazily touched. Forked children share it (MAP_SHARED) or get a copy of it (MAP_PRIVATE).
class MappedMemory {
 public:
  explicit MappedMemory(std::size_t bytes, int kind = MAP_PRIVATE) : bytes_(bytes) {
    void* const at =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) std::abort();
    data_ = static_cast<std::byte*>(at);
  }
  ~MappedMemory() { munmap(data_, bytes_); }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;
  [[nodiscard]] std::span<std::byte> span() const { return {data_, bytes_}; }
  [[nodiscard]] std::byte* data() const { return data_; }
  /// How many of its pages have been touched.
  [[nodiscard]] std::size_t resident_pages() const {
    std::vector<unsigned char> there((bytes_ + 4095) / 4096);
    if (mincore(data_, bytes_, there.data()) != 0) std::abort();
    return static_cast<std::size_t>(
        std::count_if(there.begin(), there.end(), [](auto b) { return (b & 1) != 0; }));
  }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

}  // namespace enchilada::test
