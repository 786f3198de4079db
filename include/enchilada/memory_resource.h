/// @file
/// RegionResource: a std::pmr::memory_resource whose memory, and all that it knows of it, lies in one region:
/// a container that uses it is rolled back with the region, allocator and all.
///
/// Give every container its own region, or several containers one: a rollback takes all of them back. Keep
/// the container object itself in the region too (RegionResource::make), or its pointers and sizes outside
/// would not go back with its contents. After Region::fork() the second region lies elsewhere, so plain
/// pointers in it still point into the first: containers can be rolled back, but not used in forks. Not
/// thread-safe, like std::pmr::unsynchronized_pool_resource. Sizes are served in powers of two from 16 bytes
/// on.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <new>
#include <utility>

#include "enchilada/enchilada.h"

namespace enchilada {

/// Allocates in a region; what it knows lies there too.
class RegionResource final : public std::pmr::memory_resource {
 public:
  /// Starts with an empty region (zeros), or goes on with one that a RegionResource has used. The region must
  /// stay where it is and outlive the resource.
  explicit RegionResource(Region& region) : region_(region) {
    if (head().next == 0) head().next = kFirst;
  }

  /// Constructs an object in the region. It is never destroyed by the resource.
  template <class T, class... Args>
  T* make(Args&&... args) {
    return ::new (allocate(sizeof(T), alignof(T))) T(std::forward<Args>(args)...);
  }
  /// Bytes handed out so far, free ones included: how much of the region is in use.
  [[nodiscard]] std::uint64_t used() const { return head().next; }

 private:
  static constexpr std::size_t kClasses = 44;  // 16 bytes .. 2^47
  static constexpr unsigned kSmallest = 4;     // log2
  struct Head {
    std::uint64_t next;  // offset of what was never handed out; 0: the region is new
    std::uint64_t
        free[kClasses];  // first free block of each size, as offset; 0 = none; the next is in the block
  };
  static constexpr std::uint64_t kFirst = (sizeof(Head) + 63) / 64 * 64;

  [[nodiscard]] Head& head() const { return *reinterpret_cast<Head*>(region_.data()); }
  [[nodiscard]] static unsigned class_of(std::size_t bytes, std::size_t alignment) {
    const std::size_t need = bytes > alignment ? bytes : alignment;
    const unsigned log = need <= 16 ? kSmallest : static_cast<unsigned>(std::bit_width(need - 1));
    return log - kSmallest;
  }

  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    const unsigned c = class_of(bytes, alignment);
    if (c >= kClasses) throw std::bad_alloc();
    std::uint64_t& first = head().free[c];
    if (first != 0) {
      std::byte* const block = region_.data() + first;
      first = *reinterpret_cast<std::uint64_t*>(block);
      return block;
    }
    // A block is aligned to its size, as far as a page; regions are page aligned.
    const std::uint64_t size = std::uint64_t{1} << (c + kSmallest);
    const std::uint64_t align = size < 4096 ? size : 4096;
    if (alignment > align) throw std::bad_alloc();
    const std::uint64_t at = (head().next + align - 1) / align * align;
    if (size > region_.size() || at > region_.size() - size) throw std::bad_alloc();
    head().next = at + size;
    return region_.data() + at;
  }
  void do_deallocate(void* p, std::size_t bytes, std::size_t alignment) override {
    std::uint64_t& first = head().free[class_of(bytes, alignment)];
    *static_cast<std::uint64_t*>(p) = first;
    first = static_cast<std::uint64_t>(static_cast<std::byte*>(p) - region_.data());
  }
  [[nodiscard]] bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  Region& region_;
};

}  // namespace enchilada
