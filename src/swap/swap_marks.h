// SwapMarks: how full swap is, with hysteresis, as FreeBSD's swp_sizecheck() has it (freebsd-vm.md §1.6).
//
// Below the low mark (128 pages) swap is almost full, and stays so until more than the high mark (512) is
// free; full means that an allocation was refused, until the low mark is free again. Both are scaled down
// for small spaces. Lock-free; a state may be a glance old.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "base/units.h"
#include "vm/vm_meter.h"

namespace enchilada {

enum class SwapLevel : std::uint8_t { kPlenty, kAlmostFull, kFull };

class SwapMarks {
 public:
  static constexpr std::uint64_t kLow = 128;
  static constexpr std::uint64_t kHigh = 512;

  [[nodiscard]] static constexpr std::uint64_t low(PageCount capacity) {
    return std::min(kLow, capacity.value() / 8);
  }
  [[nodiscard]] static constexpr std::uint64_t high(PageCount capacity) {
    return std::min(kHigh, capacity.value() / 4);
  }

  /// So much is free now; the level that follows.
  SwapLevel note_free(PageCount free, PageCount capacity) {
    const SwapLevel old = level();
    SwapLevel now = old;
    if (free.value() < low(capacity)) {
      now = std::max(old, SwapLevel::kAlmostFull);
    } else if (free.value() > high(capacity)) {
      now = SwapLevel::kPlenty;
    } else if (old == SwapLevel::kFull) {
      now = SwapLevel::kAlmostFull;
    }
    become(old, now);
    return now;
  }
  /// Not one block could be had.
  void note_refusal() { become(level(), SwapLevel::kFull); }

  [[nodiscard]] SwapLevel level() const { return level_.load(std::memory_order_relaxed); }
  /// How often it became so.
  [[nodiscard]] std::uint64_t times(SwapLevel level) const {
    return times_[static_cast<std::size_t>(level)].load(std::memory_order_relaxed);
  }

 private:
  void become(SwapLevel old, SwapLevel now) {
    if (old == now || !level_.compare_exchange_strong(old, now, std::memory_order_relaxed)) return;
    count(times_[static_cast<std::size_t>(now)]);
  }
  std::atomic<SwapLevel> level_{SwapLevel::kPlenty};
  std::array<Counter, 3> times_{};
};

}  // namespace enchilada
