// Arena and Slab: all metadata of an engine, in memory set aside when the engine is made.
//
// An Arena is one range of address space given by the machine (anonymous, untouched: it costs memory only as
// it is used). Slab<T> hands out objects of one type from chunks of the arena and keeps the freed ones on a
// list. Invariants: neither ever calls malloc; a slab never gives memory back, so a freed object's memory
// stays of its type (type-stable, as FreeBSD's UMA zones with NOFREE); an exhausted arena answers nullptr,
// which callers must handle.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "base/check.h"
#include "base/mutex.h"

namespace enchilada {

class Arena {
 public:
  /// `memory` must be zero, aligned to 64, and outlive the arena and everything made from it. `parent`: the
  /// arena that the memory was reserved from, which counts what is touched here too.
  Arena(std::byte* memory, std::size_t size, Arena* parent = nullptr)
      : base_(memory), size_(size), parent_(parent) {}
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Zeroed memory, aligned to 64 bytes, never freed; nullptr when the arena is used up. Thread-safe.
  [[nodiscard]] void* allocate(std::size_t bytes) noexcept {
    void* p = reserve(bytes);
    if (p != nullptr) note_touched(bytes);
    return p;
  }
  /// The same, for memory that will be touched bit by bit: the user says when (note_touched).
  [[nodiscard]] void* reserve(std::size_t bytes) noexcept {
    const std::size_t rounded = (bytes + 63) & ~std::size_t{63};
    std::size_t at = used_.load(std::memory_order_relaxed);
    do {
      if (rounded > size_ - at) return nullptr;
    } while (!used_.compare_exchange_weak(at, at + rounded, std::memory_order_relaxed));
    return base_ + at;
  }
  void note_touched(std::size_t bytes) noexcept {
    touched_.fetch_add(bytes, std::memory_order_relaxed);
    if (parent_ != nullptr) parent_->note_touched(bytes);
  }
  template <class T>
  [[nodiscard]] T* allocate_array(std::size_t n) noexcept {
    return static_cast<T*>(allocate(n * sizeof(T)));
  }
  /// Address space handed out so far.
  [[nodiscard]] std::size_t used() const noexcept { return used_.load(std::memory_order_relaxed); }
  /// Bytes that are really in use: what the VM system itself costs.
  [[nodiscard]] std::size_t touched() const noexcept { return touched_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

 private:
  std::byte* base_;
  std::size_t size_;
  Arena* parent_;
  std::atomic<std::size_t> used_{0};
  std::atomic<std::size_t> touched_{0};
};

template <class T>
class Slab {
 public:
  explicit Slab(Arena& arena, std::size_t chunk = 32) : arena_(arena), chunk_(chunk) {}
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  /// A constructed T, or nullptr when the arena is used up.
  template <class... Args>
  [[nodiscard]] T* create(Args&&... args) noexcept {
    void* memory = take();
    return memory == nullptr ? nullptr : new (memory) T(std::forward<Args>(args)...);
  }
  void destroy(T* object) noexcept {
    object->~T();
    MutexLock guard(lock_);
    push(object);
    --live_;
  }
  [[nodiscard]] std::size_t live() const noexcept {
    MutexLock guard(lock_);
    return live_;
  }
  /// Makes sure that `n` further creates succeed without touching the arena.
  [[nodiscard]] bool reserve(std::size_t n) noexcept {
    MutexLock guard(lock_);
    while (free_count_ < n) {
      if (!refill()) return false;
    }
    return true;
  }

 private:
  union Slot {
    Slot* next;
    alignas(T) std::byte storage[sizeof(T)];
  };

  void* take() noexcept {
    MutexLock guard(lock_);
    if (free_ == nullptr && !refill()) return nullptr;
    Slot* slot = free_;
    free_ = slot->next;
    --free_count_;
    ++live_;
    return slot->storage;
  }
  void push(void* memory) noexcept REQUIRES(lock_) {
    Slot* slot = static_cast<Slot*>(memory);
    slot->next = free_;
    free_ = slot;
    ++free_count_;
  }
  bool refill() noexcept REQUIRES(lock_) {
    auto* slots = static_cast<std::byte*>(arena_.allocate(chunk_ * sizeof(Slot)));
    if (slots == nullptr) return false;
    for (std::size_t i = chunk_; i-- > 0;) push(slots + i * sizeof(Slot));
    return true;
  }

  Arena& arena_;
  std::size_t chunk_;
  mutable Mutex lock_{LockRank::kLeaf};
  Slot* free_ GUARDED_BY(lock_) = nullptr;
  std::size_t free_count_ GUARDED_BY(lock_) = 0;
  std::size_t live_ GUARDED_BY(lock_) = 0;
};

}  // namespace enchilada
