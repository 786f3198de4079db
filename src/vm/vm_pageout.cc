// PageDaemon, the run: what is tried in which order, and when to stop. Scans are in vm_pageout_scan.cc,
// writing in vm_laundry.cc. Invariants: see vm_pageout.h.
#include "vm/vm_pageout.h"

#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_pageout_run.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {

PageDaemon::PageDaemon(VmSystem& system) : system_(system) {}

bool PageDaemon::reclaim(PageCount at_least) {
  lock_order::assert_none_held();
  const std::uint64_t before = system_.free_frames().free_count();
  MutexLock guard(run_lock_);
  VmPhys& frames = system_.free_frames();
  // Somebody else's run, or a free, may have helped while we waited.
  if (frames.free_count() > before && frames.free_count() >= system_.free_min()) return true;
  count(system_.counters().pdwakeups);
  const std::uint64_t target = std::max(system_.free_target(), at_least.value());
  if (system_.grow(PageCount{target}).value() > 0 && frames.free_count() >= system_.free_min()) return true;
  Run run;
  const std::uint64_t free = frames.free_count();
  run.goal = std::clamp<std::uint64_t>(target > free ? target - free : 1, 1, kGoal);
  run_until(run);
  if (run.gained < run.goal) count(system_.counters().pdshortfalls);
  transient_.store(run.busy > 0, std::memory_order_relaxed);
  return run.gained > 0;
}

void PageDaemon::work_ahead() {
  const std::uint64_t target = system_.free_target();
  const std::uint64_t free = system_.free_frames().free_count();
  // The lock also keeps the pager's promise: only one thread at a time uses the pager during a read.
  if (free >= target || !run_lock_.try_lock()) return;
  Run run;
  run.goal = std::min<std::uint64_t>(target - free, kAhead);
  run.ahead = true;
  run_until(run);
  run_lock_.unlock();
}

/// Steps until the goal is reached, the work would be too much for what it brings, or nothing is left to try.
void PageDaemon::run_until(Run& run) {
  PageQueues& q = system_.queues();
  const std::uint64_t pages =
      q.length(PageQueue::kActive) + q.length(PageQueue::kInactive) + q.length(PageQueue::kLaundry);
  // Without any gain: every page twice, and enough steps for the pressure to rise to the top.
  run.last_resort = run.ahead ? 4 * kAhead : 2 * pages + kActMax * kBatch;
  while (run.gained < run.goal && step(run)) {
    const bool patient = run.gained == 0 || run.exhaustive;
    // Busy pages count, too: their holders may be waiting for this very run to end.
    if (run.looked + run.busy > (patient ? run.last_resort : kBudget)) break;
  }
  if (waiting() >= waiting_target() && pressure_ > 0) --pressure_;
  count(system_.counters().pdpages, run.looked);
  count(system_.counters().pdrefused, run.busy);
}

/// Pages that wait between active and free, where a fault can still bring them back.
std::uint64_t PageDaemon::waiting() const {
  const PageQueues& q = system_.queues();
  return q.length(PageQueue::kInactive) + q.length(PageQueue::kLaundry) + q.length(PageQueue::kCache);
}

/// About a third of the pages while memory is short (FreeBSD: inactive_target at most free / 3): what leaves
/// active has the time that it takes to replace a third of memory to prove that it is used.
std::uint64_t PageDaemon::waiting_target() const {
  return (system_.queues().length(PageQueue::kActive) + waiting()) / 3;
}

/// One unit of work; false when there is nothing left to look at. The active queue is scanned first, so that
/// pages do not go straight through inactive; what a run spends on it is bounded by what it wants to gain.
bool PageDaemon::step(Run& run) {
  PageQueues& q = system_.queues();
  const std::uint64_t looked = run.looked;
  const std::uint64_t busy = run.busy;
  const std::uint64_t active_budget = run.ahead ? kAhead : std::max<std::uint64_t>(2 * run.goal, 2 * kBatch);
  while (waiting() < waiting_target() && run.active_looked < active_budget) {
    const std::uint64_t before = run.active_looked;
    scan_active_step(run);
    if (run.active_looked == before) break;
  }
  if (run.gained == 0 || run.exhaustive) run.active_looked = 0;  // the next step may scan again
  if (q.length(PageQueue::kLimbo) > 0) free_limbo(run);
  if (q.length(PageQueue::kCache) > 0) free_cache(run);
  if (run.gained >= run.goal) return true;
  if (q.length(PageQueue::kInactive) > 0) scan_inactive(run);
  if (run.gained < run.goal && worth_laundering(run)) launder(run);
  return run.looked != looked || run.busy != busy;
}

/// Who works ahead waits for nothing, and starts no write for a few pages.
bool PageDaemon::worth_laundering(const Run& run) {
  const std::uint64_t waiting = system_.queues().length(PageQueue::kLaundry);
  if (!run.ahead) return waiting > 0;
  return waiting >= kLaunder && !system_.swap().put_would_wait();
}

void PageDaemon::free_cache(Run& run) {
  std::array<FrameNumber, kBatch> batch;
  const std::uint64_t missing = std::min<std::uint64_t>(run.goal - run.gained, kBatch);
  const std::size_t n = system_.queues().take(PageQueue::kCache, {batch.data(), missing}, &run.busy);
  run.looked += n;
  run.freeing_cache = true;
  drop_clean({batch.data(), n}, run);
  run.freeing_cache = false;
}

/// Pages whose object is gone, but which the machine held pinned: perhaps it has let go.
void PageDaemon::free_limbo(Run& run) {
  std::array<FrameNumber, kBatch> batch;
  const std::size_t n = system_.queues().take(PageQueue::kLimbo, batch, &run.busy);
  const std::uint64_t before = system_.free_frames().free_count();
  system_.objects().release({batch.data(), n});  // what is still pinned goes back to limbo
  const std::uint64_t after = system_.free_frames().free_count();
  if (after > before) run.gained += std::min<std::uint64_t>(after - before, n);
  run.looked += n;
}

PageCount PageDaemon::give_back(PageCount wanted) {
  MutexLock guard(run_lock_);
  VmPhys& frames = system_.free_frames();
  std::uint64_t returned = 0;
  while (returned < wanted.value()) {
    const std::uint64_t missing = wanted.value() - returned;
    if (frames.free_count() < missing) {
      Run run;
      run.goal = std::min<std::uint64_t>(missing - frames.free_count(), kGoal);
      run.exhaustive = true;
      run_until(run);
    }
    const FrameRun out = frames.take_out(PageCount{missing});
    if (out.count.value() == 0) break;
    system_.phys().retire(out);
    returned += out.count.value();
  }
  return PageCount{returned};
}

PageCount PageDaemon::shrink_to(PageCount resident) {
  const VmPhys& frames = system_.free_frames();
  const std::uint64_t granted = frames.granted();
  return granted > resident.value() ? give_back(PageCount{granted - resident.value()}) : PageCount{0};
}

}  // namespace enchilada
