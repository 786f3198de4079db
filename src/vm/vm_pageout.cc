// PageDaemon, the run: how much is to be gained, and when to stop. Invariants: see vm_pageout.h.
#include "vm/vm_pageout.h"

#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_queue_policy.h"

namespace enchilada {
namespace {

std::unique_ptr<ReplacementPolicy> make_queue_policy(PageoutOps& ops) {
  return std::make_unique<QueuePolicy>(ops);
}

}  // namespace

PageDaemon::PageDaemon(VmSystem& system)
    : system_(system),
      ops_(system),
      policy_((system.policy_maker() != nullptr ? system.policy_maker() : make_queue_policy)(ops_)),
      target_(make_pageout_target(system.modes().get<PageoutTargetMode>(), system.clock())),
      stream_rule_(make_stream_rule(system.modes().get<DropBehindMode>(), ops_)),
      unneeded_rule_(make_unneeded_rule(system.modes().get<DontNeedMode>(), ops_)),
      wants_ticks_(policy_->wants_ticks() || target_->wants_ticks()) {
  ops_.set_policy(*policy_);
  system.queues().set_observer(policy_->observer());
}

PageoutRun PageDaemon::begin_run(std::uint64_t goal) const {
  const PageQueues& q = system_.queues();
  PageoutRun run;
  run.goal = goal;
  run.pages = q.length(PageQueue::kActive) + q.length(PageQueue::kInactive) + q.length(PageQueue::kLaundry);
  return run;
}

bool PageDaemon::reclaim(PageCount at_least) {
  lock_order::assert_none_held();
  const std::uint64_t before = system_.free_frames().free_count();
  MutexLock guard(run_lock_);
  VmPhys& frames = system_.free_frames();
  // Somebody else's run, or a free, may have helped while we waited.
  if (frames.free_count() > before && !system_.is_short()) return true;
  count(system_.counters().pdwakeups);
  const std::uint64_t target = std::max(system_.free_target(), at_least.value());
  const bool grown = system_.grow(PageCount{target}).value() > 0;
  if (grown && !system_.is_short()) return true;
  // At least one: who calls found no frame, however many pages the target counts as at hand.
  const std::uint64_t goal = target_->goal(system_.at_hand(), target + system_.cache_min());
  PageoutRun run = begin_run(std::max<std::uint64_t>(goal, 1));
  run.cache_counts = system_.cache_counts();
  const Counter& faults = system_.counters().vm_faults;
  const std::uint64_t faults_before = faults.load(std::memory_order_relaxed);
  run_until(run);
  if (run.gained < run.goal) count(system_.counters().pdshortfalls);
  // A run that met busy pages, or whose pages others have used meanwhile, proves nothing.
  const bool others_came = faults.load(std::memory_order_relaxed) != faults_before;
  transient_.store(run.busy > 0 || others_came, std::memory_order_relaxed);
  if (wants_ticks_) do_what_is_due();
  return grown || run.gained > 0;
}

// Pages that a fault has taken, or reads into, are on no queue yet, so that no run meets them; they are busy
// until that fault is done.
bool PageDaemon::worth_waiting(std::uint64_t rested) {
  if (transient_.load(std::memory_order_relaxed)) return true;
  bool held = false;
  system_.for_each_page([&held](FrameNumber, Page& page) { held = held || page.is_busy(); });
  if (held) return true;
  // What was held during the run and is no more has come to rest, or it has been freed. Runs have pages in
  // hand, too.
  MutexLock guard(run_lock_);
  return at_rest() > rested;
}

std::uint64_t PageDaemon::at_rest() const {
  const PageQueues& q = system_.queues();
  std::uint64_t pages = 0;
  for (const PageQueue queue : {PageQueue::kActive, PageQueue::kInactive, PageQueue::kLaundry,
                                PageQueue::kCache, PageQueue::kLimbo}) {
    pages += q.length(queue);
  }
  return pages;
}

bool PageDaemon::take_from_cache() {
  if (!system_.cache_counts() || system_.queues().length(PageQueue::kCache) == 0) return false;
  MutexLock guard(run_lock_);
  PageoutRun run;
  ops_.free_cache(run, kBatch);
  count(system_.counters().pdrefills, run.gained);
  return run.gained > 0;
}

// Where pages on the cache queue count as at hand, somebody else's run may have filled that queue while this
// one waited for it: then there was nothing left for this run to do, but there are pages to take.
bool PageDaemon::refill() {
  return take_from_cache() || reclaim() || take_from_cache();
}

void PageDaemon::work_ahead() {
  const std::uint64_t target = system_.free_target() + system_.cache_min();
  const std::uint64_t at_hand = system_.at_hand();
  // The lock also keeps the pager's promise: only one thread at a time uses the pager during a read.
  if (at_hand >= target || !run_lock_.try_lock()) return;
  PageoutRun run = begin_run(std::min<std::uint64_t>(target - at_hand, kAhead));
  run.cache_counts = system_.cache_counts();
  run.ahead = true;
  run_until(run);
  run_lock_.unlock();
}

void PageDaemon::run_tick() {
  lock_order::assert_none_held();
  if (!run_lock_.try_lock()) return;
  do_what_is_due();
  run_lock_.unlock();
}

/// Background work. The run lock is held.
void PageDaemon::do_what_is_due() {
  PageoutRun run = begin_run(target_->due(system_.at_hand(), system_.free_target() + system_.cache_min()));
  run.cache_counts = system_.cache_counts();
  if (run.goal > 0) run_until(run);
  policy_->tick();
}

/// Steps until the goal is reached, the work would be too much for what it brings, or nothing is left to try.
void PageDaemon::run_until(PageoutRun& run) {
  while (run.gained < run.goal && policy_->step(run)) {
    // Busy pages count, too: their holders may be waiting for this very run to end.
    if (run.looked + run.busy > policy_->limit(run)) break;
  }
  policy_->run_ends(run);
  count(system_.counters().pdpages, run.looked);
  count(system_.counters().pdrefused, run.busy);
}

std::size_t PageDaemon::scan_active(std::size_t pages) {
  MutexLock guard(run_lock_);
  return policy_->age(pages);
}

PageCount PageDaemon::give_back(PageCount wanted) {
  MutexLock guard(run_lock_);
  VmPhys& frames = system_.free_frames();
  std::uint64_t returned = 0;
  while (returned < wanted.value()) {
    const std::uint64_t missing = wanted.value() - returned;
    if (frames.free_count() < missing) {
      PageoutRun run = begin_run(std::min<std::uint64_t>(missing - frames.free_count(), kGoal));
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

void PageDaemon::pageout_object(VmObject& object, PageIndex first, PageCount n) {
  MutexLock guard(run_lock_);
  PageoutRun run = begin_run(n.value());
  ops_.page_out(object, first, n, run);
}

void PageDaemon::unneeded(VmObject& object, PageIndex first, PageCount n) {
  MutexLock guard(run_lock_);
  unneeded_rule_->unneeded(object, first, n);
}

void PageDaemon::deactivate_object(VmObject& object, PageIndex first, PageCount n) {
  (void)ops_.set_aside(object, first, n, [](const Page&) { return PageoutOps::Aside::kInactiveTail; });
}

}  // namespace enchilada
