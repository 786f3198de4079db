// TreeRamBudget: the process tree's RAM as the host machine sees it (RamBudget).
//
// Invariant: credits taken here are frames charged to this process's slot. It never waits by itself: when
// nothing is free it asks siblings (at most every kAskPeriod) and answers what there is; the engine then
// reclaims from itself.
#pragma once

#include <atomic>

#include "base/monotonic_clock.h"
#include "pmap/host/ram_budget.h"
#include "runtime/tree/process_tree.h"

namespace enchilada {

class TreeRamBudget final : public RamBudget {
 public:
  /// `taken` is called after each success, in the middle of whatever needs the frames: it must take no locks
  /// of the engine. May be null.
  explicit TreeRamBudget(ProcessTree& tree, void (*taken)() = nullptr) : tree_(tree), taken_(taken) {}

  [[nodiscard]] PageCount take(PageCount wanted) override {
    const PageCount got = take_some(wanted);
    if (got.value() != 0 && taken_ != nullptr) taken_();
    return got;
  }
  void give_back(PageCount credits) override { tree_.give_back(credits); }
  [[nodiscard]] PageCount wanted_back() const override { return tree_.wanted_back(); }

 private:
  static constexpr std::uint64_t kAskPeriod = 5'000'000;  // ns

  [[nodiscard]] PageCount take_some(PageCount wanted) {
    const PageCount got = tree_.take(wanted);
    if (got.value() != 0 || wanted.value() == 0) return got;
    // A full budget is the normal state under pressure, so looking around must be rare enough to cost
    // nothing.
    const std::uint64_t now = monotonic_ns();
    if (now - last_asked_.load(std::memory_order_relaxed) < kAskPeriod) return got;
    last_asked_.store(now, std::memory_order_relaxed);
    return tree_.take_or_wait(wanted, 0);
  }

  ProcessTree& tree_;
  void (*taken_)();
  std::atomic<std::uint64_t> last_asked_{0};
};

}  // namespace enchilada
