// QueuePolicy: steps, passes, and idle pages. Invariants: see vm_queue_policy.h.
#include "vm/vm_queue_policy.h"

#include <algorithm>

#include "vm/vm_object.h"

namespace enchilada {
namespace {

class NoIdleWork final : public IdleWork {};

/// Visits every active page once in kPeriod (FreeBSD's pageout_update_period); what has proved idle waits on
/// inactive as long again, then is written (as much at a time as the laundry does in the background) and goes
/// where clean pages go.
class ProactiveWork final : public IdleWork {
 public:
  explicit ProactiveWork(PageoutOps& ops) : ops_(ops), system_(ops.system()) {}

  void tick(ActiveScan& scan, LaundryRule& laundry) override {
    const Nanoseconds now = system_.clock().now();
    const std::uint64_t elapsed = std::min(now.value() - last_.value(), kPeriod.value());
    if (elapsed < LaundryController::kInterval.value()) return;
    last_ = now;
    const std::uint64_t active = due(PageQueue::kActive, elapsed, &active_rest_);
    count(system_.counters().pdproactive, scan.age(static_cast<std::size_t>(active)));
    PageoutRun run;  // without a goal: clean pages are kept where the mode keeps any
    std::uint64_t left = due(PageQueue::kInactive, elapsed, &inactive_rest_);
    for (; left > 0; left -= std::min<std::uint64_t>(left, run.batch())) {
      PageoutOps::Idle idle;
      ops_.take_idle(run, &idle);
      ops_.put(idle.dirty_ones(), PageQueue::kLaundry);
      ops_.drop_clean(idle.clean_ones(), run);
    }
    count(system_.counters().pdbackground, laundry.launder_idle(run, LaundryController::kPortion));
  }
  [[nodiscard]] bool wants_ticks() const override { return true; }

 private:
  static constexpr Nanoseconds kPeriod{600'000'000'000};

  /// Pages of a queue whose turn it is; what is left of the division counts next time.
  std::uint64_t due(PageQueue queue, std::uint64_t elapsed, std::uint64_t* rest) const {
    *rest += system_.queues().length(queue) * elapsed;
    const std::uint64_t pages = *rest / kPeriod.value();
    *rest %= kPeriod.value();
    return pages;
  }

  PageoutOps& ops_;
  VmSystem& system_;
  Nanoseconds last_{0};
  std::uint64_t active_rest_ = 0;  // pages times nanoseconds
  std::uint64_t inactive_rest_ = 0;
};

}  // namespace

std::unique_ptr<IdleWork> make_idle_work(ProactiveMode mode, PageoutOps& ops) {
  switch (mode) {
    case ProactiveMode::kOff:
      return std::make_unique<NoIdleWork>();
    case ProactiveMode::kOn:
      return std::make_unique<ProactiveWork>(ops);
  }
  return nullptr;
}

QueuePolicy::QueuePolicy(PageoutOps& ops)
    : ops_(ops),
      system_(ops.system()),
      scan_(make_active_scan(system_.modes().get<ActiveScanMode>(), ops)),
      laundry_(make_laundry_rule(system_.modes().get<LaundryMode>(), ops)),
      idle_work_(make_idle_work(system_.modes().get<ProactiveMode>(), ops)) {}

bool QueuePolicy::step(PageoutRun& run) {
  const PageQueues& q = system_.queues();
  const std::uint64_t looked = run.looked;
  const std::uint64_t busy = run.busy;
  scan_->before_inactive(run);
  if (q.length(PageQueue::kLimbo) > 0) ops_.free_limbo(run);
  if (!run.cache_counts && q.length(PageQueue::kCache) > 0) ops_.free_cache(run, run.missing());
  if (run.gained >= run.goal) return true;
  if (run.pass_left == 0) begin_pass(run);
  laundry_->step(run);
  // Busy pages were not taken, but passed.
  if (run.busy > busy) run.pass_left -= std::min<std::uint64_t>(run.busy - busy, run.pass_left);
  if (run.pass_left == 0) end_pass(run);
  return run.looked != looked || run.busy != busy;
}

void QueuePolicy::begin_pass(PageoutRun& run) {
  run.pass_left = system_.queues().length(PageQueue::kInactive);
  run.gained_before = run.gained;
  laundry_->pass_begins(run);
}

void QueuePolicy::end_pass(PageoutRun& run) {
  count(system_.counters().pdpasses);
  ++run.pass;
  const bool brought_something = run.gained > run.gained_before;
  run.fruitless = brought_something ? 0 : run.fruitless + 1;
  if (!brought_something) count(system_.counters().pdoomvotes);
  if (run.gained >= run.goal) return;
  laundry_->pass_ends(run);
  scan_->after_pass(run);
}

void QueuePolicy::tick() {
  laundry_->tick();
  idle_work_->tick(*scan_, *laundry_);
}

}  // namespace enchilada
