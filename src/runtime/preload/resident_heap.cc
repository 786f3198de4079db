// Power-of-two size classes over one lazily populated range.
#include "runtime/preload/resident_heap.h"

#include <atomic>
#include <cstdint>

#include "base/mutex.h"
#include "runtime/preload/layout.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

/// In front of every block. `offset`: from the class block's start to the user's pointer (alignment).
struct Header {
  std::uint32_t size_class;
  std::uint32_t offset;
  std::uint64_t bytes;
};
static_assert(sizeof(Header) == 16);

struct FreeBlock {
  FreeBlock* next;
};

constexpr unsigned kClasses = 31;
constexpr unsigned kSmallest = 5;

Mutex heap_lock;
FreeBlock* free_lists[kClasses] GUARDED_BY(heap_lock);
std::uint64_t next_free GUARDED_BY(heap_lock) = 0;
std::atomic<std::uint64_t> heap_end{0};

bool map_heap() REQUIRES(heap_lock) {
  if (next_free != 0) return true;
  if (!map_own_memory(layout::kResidentHeap, layout::kResidentHeapSize)) return false;
  next_free = layout::kResidentHeap;
  return true;
}

unsigned class_of(std::size_t bytes) {
  unsigned c = kSmallest;
  while ((std::size_t{1} << c) < bytes) ++c;
  return c;
}

}  // namespace

void* resident_allocate(std::size_t bytes, std::size_t alignment) {
  if (bytes > layout::kResidentHeapSize / 4 || alignment > layout::kResidentHeapSize / 16) return nullptr;
  const std::size_t slack = alignment > sizeof(Header) ? alignment : 0;
  const unsigned c = class_of(bytes + sizeof(Header) + slack);
  MutexLock guard(heap_lock);
  if (!map_heap()) return nullptr;
  std::uint64_t block = reinterpret_cast<std::uint64_t>(free_lists[c]);
  if (block != 0) {
    free_lists[c] = free_lists[c]->next;
  } else {
    const std::uint64_t size = std::uint64_t{1} << c;
    if (size > layout::kResidentHeap + layout::kResidentHeapSize - next_free) return nullptr;
    block = next_free;
    next_free += size;
    heap_end.store(next_free, std::memory_order_relaxed);
  }
  std::uint64_t user = block + sizeof(Header);
  if (slack != 0) user = (user + alignment - 1) & ~(std::uint64_t{alignment} - 1);
  auto* header = reinterpret_cast<Header*>(user - sizeof(Header));
  header->size_class = c;
  header->offset = static_cast<std::uint32_t>(user - block);
  header->bytes = bytes;
  return reinterpret_cast<void*>(user);
}

void resident_free(void* block) {
  if (block == nullptr) return;
  const auto* header = static_cast<const Header*>(block) - 1;
  const unsigned c = header->size_class;
  auto* at = reinterpret_cast<FreeBlock*>(static_cast<char*>(block) - header->offset);
  MutexLock guard(heap_lock);
  at->next = free_lists[c];
  free_lists[c] = at;
}

bool is_resident(const void* block) {
  const auto at = reinterpret_cast<std::uint64_t>(block);
  return at >= layout::kResidentHeap && at < layout::kResidentHeap + layout::kResidentHeapSize;
}

std::size_t resident_size(const void* block) {
  return (static_cast<const Header*>(block) - 1)->bytes;
}

std::size_t resident_heap_used() {
  const std::uint64_t end = heap_end.load(std::memory_order_relaxed);
  return end == 0 ? 0 : end - layout::kResidentHeap;
}

}  // namespace enchilada::runtime
