// HomeTwins: home slots whose page went to the window as a copy and whose own memory has not been given back
// yet. Giving it back costs a flush of the CPUs' TLBs, so many go together.
//
// Invariants: a slot is noted only while its frame is in the window, so nobody reads or fills it; whoever
// sends the frame home (or says that it has no memory) asks any() first and empties the list. Each noted slot
// holds one page of the copy slack. any() is lock-free; for a frame whose window slot the caller holds, false
// stays false.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "base/units.h"

namespace enchilada {

class HomeTwins {
 public:
  static constexpr std::size_t kMost = 48;

  /// `bits` is zeroed memory, a bit a slot of the pool.
  HomeTwins(std::atomic<std::uint64_t>* bits, VirtAddr pool) : bits_(bits), pool_(pool) {}

  /// Some of these slots are noted.
  [[nodiscard]] bool any(VirtAddr home, std::uint64_t pages) const noexcept {
    const std::uint64_t first = slot_of(home);
    for (std::uint64_t i = first; i < first + pages; ++i) {
      if ((bits_[i / 64].load(std::memory_order_acquire) >> (i % 64) & 1) != 0) return true;
    }
    return false;
  }

  /// Notes slots side by side. False: no room for all of them, none was noted.
  [[nodiscard]] bool note(VirtAddr home, std::uint64_t pages) noexcept {
    MutexLock guard(lock_);
    if (count_ + pages > kMost) return false;
    for (std::uint64_t i = 0; i < pages; ++i) {
      homes_[count_++] = home + to_bytes(PageCount{i});
      const std::uint64_t slot = slot_of(home) + i;
      bits_[slot / 64].fetch_or(std::uint64_t{1} << (slot % 64), std::memory_order_release);
    }
    return true;
  }

  [[nodiscard]] std::size_t size() const noexcept {
    MutexLock guard(lock_);
    return count_;
  }

  /// Hands all noted slots to `drop` and forgets them; when it returns, none of them has memory. Returns how
  /// many.
  std::uint64_t empty(FunctionRef<void(std::span<const VirtAddr>)> drop) noexcept {
    MutexLock guard(lock_);
    if (count_ > 0) drop(std::span(homes_).first(count_));
    for (std::size_t i = 0; i < count_; ++i) {
      const std::uint64_t slot = slot_of(homes_[i]);
      bits_[slot / 64].fetch_and(~(std::uint64_t{1} << (slot % 64)), std::memory_order_release);
    }
    const std::uint64_t emptied = count_;
    count_ = 0;
    return emptied;
  }

 private:
  [[nodiscard]] std::uint64_t slot_of(VirtAddr home) const { return (home - pool_).value() >> kPageShift; }

  std::atomic<std::uint64_t>* bits_;
  VirtAddr pool_;
  mutable Mutex lock_{LockRank::kLeaf};
  std::array<VirtAddr, kMost> homes_ GUARDED_BY(lock_);
  std::size_t count_ GUARDED_BY(lock_) = 0;
};

}  // namespace enchilada
