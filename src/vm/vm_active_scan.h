// ActiveScan: how the active queue is aged and who leaves it (freebsd-vm.md §1.8, §1.9). The constants of the
// use count are the same in all modes (vm_page.h).
//
// kRequeue (the article): the scan takes pages from the head; a page whose count has reached zero goes to
// inactive, the others to the tail. kTwoHand (FreeBSD 14): the same test, but survivors stay where they are
// and a hand passes them; pages that come during a revolution are looked at in the next. Both scan after a
// pass over inactive that did not bring enough, all of the queue if need be.
//
// kPressure (live): scans first, so that a third of the pages waits between active and free, and little at a
// time. Aging is accelerated: a page is a victim when its count is at most pressure(), which rises while
// scans find too few victims and falls when enough pages wait, so that a scan does bounded work also when all
// pages have high counts (the order among them still counts).
//
// Invariant: the pages that a scan has in hand are busy. Lock: the daemon's run lock.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_replacement.h"

namespace enchilada {

class PageoutOps;

class ActiveScan {
 public:
  /// Fruitless passes after which also pages that were just used are victims (FreeBSD's pageout_oom_seq: it
  /// gives up there).
  static constexpr std::uint64_t kPatience = 12;

  virtual ~ActiveScan() = default;
  /// Before a step of a run looks at inactive; after a pass over inactive.
  virtual void before_inactive(PageoutRun& /*run*/) {}
  virtual void after_pass(PageoutRun& /*run*/) {}
  virtual void run_ends(PageoutRun& /*run*/) {}
  /// One look at `pages` pages; returns how many left the queue.
  virtual std::size_t age(std::size_t pages) = 0;
  /// How many pages a run may look at when `pages` are resident and on queues.
  [[nodiscard]] virtual std::uint64_t limit(const PageoutRun& run, std::uint64_t pages) const = 0;
  [[nodiscard]] virtual unsigned pressure() const { return 0; }
};

[[nodiscard]] std::unique_ptr<ActiveScan> make_active_scan(ActiveScanMode mode, PageoutOps& ops);

}  // namespace enchilada
