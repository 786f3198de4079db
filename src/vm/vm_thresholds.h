// PageThresholds: how many frames are kept free, for whom, and from when on pages are taken (freebsd-vm.md
// §1.9). Pure functions of the number of frames that the machine has granted.
//
// Invariants: interrupt_free_min <= pageout_free_min <= free_reserved <= free_severe <= free_min <=
// free_target; a machine that is too small for the formulas' constants gets all of them in proportion, so
// that a quarter of it at most is kept free.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "base/units.h"
#include "vm/vm_modes.h"

namespace enchilada {

/// All in pages.
struct PageThresholds {
  std::uint64_t interrupt_free_min = 0;  // left alone by all but FrameClass::kInterrupt
  std::uint64_t pageout_free_min = 0;    // what the page daemon itself may need
  std::uint64_t free_reserved = 0;       // left alone by FrameClass::kNormal
  std::uint64_t free_severe = 0;
  std::uint64_t free_min = 0;     // allocation reclaims below
  std::uint64_t wakeup = 0;       // paging starts below
  std::uint64_t free_target = 0;  // and stops here
  std::uint64_t inactive_target = 0;
  std::uint64_t cache_min = 0;  // cache pages wanted beside the free ones
  std::uint64_t cache_max = 0;
  std::uint64_t background_launder = 0;  // pages of one background run (LaundryMode::kBackground)
  std::uint64_t cache_counts = 0;        // 1: cache pages are as good as free ones

  friend bool operator==(const PageThresholds&, const PageThresholds&) = default;
};

using ThresholdRule = PageThresholds (*)(PageCount granted);

/// FreeBSD 4 to 7: with a cache queue, and on machines of more than 2048 frames as much on it as is free.
PageThresholds article_thresholds(PageCount granted);
/// FreeBSD 12 to 14.
PageThresholds modern_thresholds(PageCount granted);
/// No reserve; a target of 1/64 of memory, 16 to 256 pages: a run of a cluster or two reaches it, and the
/// thread that faults does not wait for more.
PageThresholds live_thresholds(PageCount granted);

[[nodiscard]] ThresholdRule threshold_rule(ThresholdMode mode);

/// The thresholds in force: set when the number of frames changes, read at any time without a lock. A reader
/// may see fields of two settings; each is right for one of them.
class CurrentThresholds {
 public:
  void set(const PageThresholds& t);
  [[nodiscard]] PageThresholds get() const;
  /// One of them, by its place: at(&PageThresholds::free_min).
  [[nodiscard]] std::uint64_t at(std::uint64_t PageThresholds::*field) const {
    return words_[index_of(field)].load(std::memory_order_relaxed);
  }

 private:
  static constexpr std::size_t kWords = sizeof(PageThresholds) / sizeof(std::uint64_t);
  static std::size_t index_of(std::uint64_t PageThresholds::*field) {
    static constexpr PageThresholds kSample{};
    return static_cast<std::size_t>(&(kSample.*field) - &kSample.interrupt_free_min);
  }
  std::array<std::atomic<std::uint64_t>, kWords> words_{};
};

}  // namespace enchilada
