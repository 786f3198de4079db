// ReplacementPolicy: which page leaves memory next. The seam behind which FreeBSD's queues
// (vm_queue_policy.h) and the laboratory's rivals (Linux's two lists, LRU, CLOCK-Pro, random ...) do the same
// work.
//
// The page daemon makes a PageoutRun when frames are wanted and calls step() until the run has what it wants,
// has looked at limit() pages, or step() finds nothing more. Policies choose; what is done to a page
// (unmapping, writing, freeing) they have done by PageoutOps. Pages come to a policy by the queues: a fault
// puts a new page at the tail of active, a scan takes it from there. Who needs to hear of each use that a
// fault sees, or of what leaves, says so (observer(), leaving()).
//
// Lock: all calls but the observer's are made under the daemon's run lock. Nothing may be allocated.
#pragma once

#include <memory>
#include <span>

#include "vm/vm_modes.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_types.h"

namespace enchilada {

class PageoutOps;

/// What one run of the page daemon carries along.
struct PageoutRun {
  /// Pages of one scan step; and while a device is at work: as much as one read takes.
  static constexpr std::size_t kBatch = 32;
  static constexpr std::size_t kAhead = 8;

  std::uint64_t goal = 0;    // frames to gain
  std::uint64_t pages = 0;   // on active, inactive and laundry when it began
  std::uint64_t gained = 0;  // frames freed so far (and pages put on the cache queue, where they count)
  std::uint64_t looked = 0;  // pages looked at: the bound on the work
  std::uint64_t active_looked = 0;  // of these, on active
  std::size_t busy = 0;             // pages that were busy or pinned: trying later may help
  bool ahead = false;               // nobody waits for these frames: little work, and only whole writes
  bool exhaustive = false;          // the caller wants the goal, whatever it takes
  bool freeing_cache = false;       // the pages at hand come from the cache queue
  bool cache_counts = false;        // a page on the cache queue is gained

  // Passes over the inactive queue.
  std::uint64_t pass = 0;           // that have ended
  std::uint64_t pass_left = 0;      // pages that this one has still to see
  std::uint64_t gained_before = 0;  // when it began
  std::uint64_t laundered = 0;      // writes that it has made (pages, clusters: the laundry rule's)
  std::uint64_t fruitless = 0;      // passes one after the other that have gained nothing

  /// Pages of one scan step.
  [[nodiscard]] std::size_t batch() const { return ahead ? kAhead : kBatch; }
  [[nodiscard]] std::uint64_t missing() const { return goal > gained ? goal - gained : 0; }
};

class ReplacementPolicy {
 public:
  virtual ~ReplacementPolicy() = default;

  /// One unit of work; false when there is nothing left to look at.
  virtual bool step(PageoutRun& run) = 0;
  /// Pages to look at before the run gives up or lets others go on.
  [[nodiscard]] virtual std::uint64_t limit(const PageoutRun& run) const = 0;
  virtual void run_ends(PageoutRun& /*run*/) {}

  /// Gathers use history: one look at up to `pages` resident pages; returns how many proved idle and left
  /// their place.
  virtual std::size_t age(std::size_t pages) = 0;
  /// How urgently pages are missing, where the policy has such a measure; for statistics.
  [[nodiscard]] virtual unsigned pressure() const { return 0; }

  /// Work in the background, without a shortage. Only if wants_ticks().
  virtual void tick() {}
  [[nodiscard]] virtual bool wants_ticks() const { return false; }

  /// Clean pages that are about to leave memory: unmapped, busy, still in their objects.
  virtual void leaving(std::span<const FrameNumber> /*frames*/) {}
  [[nodiscard]] virtual PageUseObserver* observer() { return nullptr; }
};

}  // namespace enchilada
