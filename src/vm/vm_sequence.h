// SequenceTable: remembers the last few clusters of an object, so that faults that follow each other are
// recognised even when several streams run through one object (a malloc arena is one object). Invariant:
// hints only; any content is right. Lock: the object's, exclusively.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "vm/vm_types.h"

namespace enchilada {

class SequenceTable {
 public:
  struct Sequence {
    PageIndex low;  // the last cluster, [low, high)
    PageIndex high;
    std::uint32_t window = 0;   // its width; 0 = entry unused
    std::uint32_t pending = 0;  // pages of it that nobody asked for and that are not confirmed yet
  };

  /// The sequence that a fault at `index` continues: upwards, with up to `gap` pages left out (they were
  /// resident), or downwards; null when there is none.
  Sequence* continued_by(PageIndex index, std::uint64_t gap = 0) {
    for (Sequence& s : sequences_) {
      const bool up = index >= s.high && index.value() - s.high.value() <= gap;
      if (s.window != 0 && (up || s.low == index + PageCount{1})) return &s;
    }
    return nullptr;
  }
  [[nodiscard]] const Sequence* continued_by(PageIndex index) const {
    return const_cast<SequenceTable*>(this)->continued_by(index);
  }
  /// Records a cluster: in the place of what it continues, else in that of the oldest.
  void record(Sequence* continued, const Sequence& cluster) {
    *(continued != nullptr ? continued : &sequences_[next_++ % sequences_.size()]) = cluster;
  }
  void clear() { *this = SequenceTable(); }

 private:
  std::array<Sequence, 4> sequences_;
  std::uint32_t next_ = 0;
};

/// A page-in that continues nothing reads window() pages. The guess was good if one of the unasked pages is
/// used soon, that is within the next few such page-ins; that it is used some time is no sign of locality:
/// any page might be. Half of the guesses good: the window doubles; less than a quarter: it halves. At one
/// page every 32nd page-in probes.
class NeighbourGuess {
 public:
  void reset(std::uint32_t window) {
    window_.store(window, std::memory_order_relaxed);
    for (std::atomic<std::uint32_t>* n : {&guesses_, &good_}) n->store(0, std::memory_order_relaxed);
  }
  /// How many pages to read now, at most `most`.
  std::uint32_t next(std::uint32_t most) {
    const std::uint32_t read = reads_.fetch_add(1, std::memory_order_relaxed) + 1;
    const std::uint32_t window = window_.load(std::memory_order_relaxed);
    const bool probe = window == 1 && read % kProbeEvery == 0;
    if (window == 1 && !probe) return 1;
    const std::uint32_t guesses = guesses_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (guesses > (probe ? kProbes : kTrials)) judge(window, guesses - 1, most);
    return std::min(probe ? kProbeWindow : window, most);
  }
  /// To be kept with the unasked pages, and given back when one is used.
  [[nodiscard]] std::uint8_t stamp() const {
    return static_cast<std::uint8_t>(reads_.load(std::memory_order_relaxed));
  }
  void used(std::uint8_t then) {
    const auto age = static_cast<std::uint8_t>(stamp() - then);
    if (age <= kSoon) good_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  static constexpr std::uint32_t kTrials = 8;
  static constexpr std::uint32_t kProbes = 4;
  static constexpr std::uint32_t kProbeEvery = 32;
  static constexpr std::uint32_t kProbeWindow = 4;
  static constexpr std::uint8_t kSoon = 8;

  void judge(std::uint32_t window, std::uint32_t guesses, std::uint32_t most) {
    const std::uint32_t good = good_.load(std::memory_order_relaxed);
    if (good * 2 >= guesses) window = std::min(window * 2, most);
    if (good * 4 < guesses) window = std::max(window / 2, 1u);
    reset(window);
  }

  std::atomic<std::uint32_t> window_{1};
  std::atomic<std::uint32_t> reads_{0};
  std::atomic<std::uint32_t> guesses_{0};
  std::atomic<std::uint32_t> good_{0};
};

}  // namespace enchilada
