// LaundryRule: what is done to inactive pages, above all when dirty ones are written (freebsd-vm.md §1.9).
//
// kClustered (live): dirty pages wait on a queue of their own; a run that clean pages do not satisfy writes
// one write's worth a step, and takes these pages at once. kArticle: a dirty page goes round the inactive
// queue once more before it is written, at most kMaxLaunder clusters in the first pass, as many as it takes
// in later ones; then it goes round a third time, clean. kBackground (FreeBSD 14): a queue of their own; a
// pass that fell short launders what is missing at once (shortfall); otherwise LaundryController decides.
//
// Lock: the daemon's run lock.
#pragma once

#include <algorithm>
#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_pageout_ops.h"
#include "vm/vm_replacement.h"

namespace enchilada {

/// Background laundering by the square-root rule (FreeBSD 12-14, vm_laundry_thread): begins when dirty *
/// isqrt(ceil((freed + 1) / (free_target - free_min))) >= clean, so that the ratio of dirty to clean pages
/// that is tolerated falls with the square root of the pressure; then launders `background` pages in
/// portions, and begins again as long as the rule holds; stops at the cap while no clean page was freed
/// meanwhile.
class LaundryController {
 public:
  static constexpr Nanoseconds kInterval{100'000'000};  // ten times a second
  static constexpr std::uint64_t kPortion = (std::uint64_t{4096} << 10) / kPageSize / 10;  // 4096 KB/s
  static constexpr std::uint64_t kCap = (std::uint64_t{20} << 20) / kPageSize;

  struct Input {
    std::uint64_t dirty = 0;       // on the laundry queue
    std::uint64_t clean = 0;       // free and on inactive
    std::uint64_t freed = 0;       // clean pages freed since the engine began
    std::uint64_t span = 1;        // free_target - free_min
    std::uint64_t background = 0;  // pages of one background run
  };
  /// Pages to launder in this interval.
  [[nodiscard]] std::uint64_t portion(const Input& in);
  void laundered(std::uint64_t pages);

  /// The largest r with r * r <= n.
  [[nodiscard]] static std::uint64_t isqrt(std::uint64_t n);

 private:
  std::uint64_t target_ = 0;
  std::uint64_t without_pressure_ = 0;  // laundered since a clean page was freed
  std::uint64_t freed_before_ = 0;      // when the last background run began
  std::uint64_t freed_seen_ = 0;
};

class LaundryRule {
 public:
  virtual ~LaundryRule() = default;
  virtual void pass_begins(PageoutRun& /*run*/) {}
  /// Looks at a batch of inactive.
  virtual void step(PageoutRun& run) = 0;
  /// The whole queue was seen and did not bring enough.
  virtual void pass_ends(PageoutRun& /*run*/) {}

  /// Pages were found idle without a shortage: launders up to `most` of what waits; returns how many.
  virtual std::uint64_t launder_idle(PageoutRun& run, std::uint64_t most) = 0;
  /// Background work that may be due.
  virtual void tick() {}
  [[nodiscard]] virtual bool wants_ticks() const { return false; }
};

[[nodiscard]] std::unique_ptr<LaundryRule> make_laundry_rule(LaundryMode mode, PageoutOps& ops);

}  // namespace enchilada
