// The laundry rules. Invariants: see vm_laundry_rule.h.
#include "vm/vm_laundry_rule.h"

#include "vm/vm_object.h"
#include "vm/vm_phys.h"

namespace enchilada {

std::uint64_t LaundryController::isqrt(std::uint64_t n) {
  std::uint64_t root = 0;
  for (std::uint64_t bit = std::uint64_t{1} << 31; bit != 0; bit >>= 1) {
    const std::uint64_t trial = root | bit;
    if (trial * trial <= n) root = trial;
  }
  return root;
}

std::uint64_t LaundryController::portion(const Input& in) {
  if (in.freed != freed_seen_) without_pressure_ = 0;
  freed_seen_ = in.freed;
  if (target_ == 0) {
    const std::uint64_t span = std::max<std::uint64_t>(in.span, 1);
    const std::uint64_t pressure = (in.freed - freed_before_ + 1 + span - 1) / span;
    if (in.dirty == 0 || in.dirty * isqrt(pressure) < in.clean) return 0;
    target_ = std::max<std::uint64_t>(in.background, 1);
    freed_before_ = in.freed;
  }
  if (without_pressure_ >= kCap) {
    target_ = 0;
    return 0;
  }
  return std::min({target_, kPortion, kCap - without_pressure_});
}

void LaundryController::laundered(std::uint64_t pages) {
  target_ -= std::min(pages, target_);
  without_pressure_ += pages;
}

namespace {

using AfterWrite = PageoutOps::AfterWrite;

/// Writes from the laundry queue until `most` pages are written or nothing more can be.
std::uint64_t launder_up_to(PageoutOps& ops, PageoutRun& run, std::uint64_t most, AfterWrite after) {
  std::uint64_t written = 0;
  while (written < most && ops.system().queues().length(PageQueue::kLaundry) > 0) {
    const std::uint64_t looked = run.looked;
    const std::size_t heads =
        static_cast<std::size_t>(std::min<std::uint64_t>(most - written, PageoutOps::kWrite));
    written += ops.launder(run, after, heads);
    if (run.looked == looked) break;  // all busy
  }
  return written;
}

class ClusteredLaundry final : public LaundryRule {
 public:
  explicit ClusteredLaundry(PageoutOps& ops) : ops_(ops) {}

  void step(PageoutRun& run) override {
    if (ops_.system().queues().length(PageQueue::kInactive) > 0) {
      PageoutOps::Idle idle;
      ops_.take_idle(run, &idle);
      ops_.put(idle.dirty_ones(), PageQueue::kLaundry);
      ops_.drop_clean(idle.clean_ones(), run);
    }
    if (run.gained < run.goal && ops_.worth_laundering(run)) (void)ops_.launder(run, AfterWrite::kDrop);
  }
  std::uint64_t launder_idle(PageoutRun& run, std::uint64_t most) override {
    return launder_up_to(ops_, run, most, AfterWrite::kDrop);
  }

 private:
  PageoutOps& ops_;
};

class ArticleLaundry final : public LaundryRule {
 public:
  explicit ArticleLaundry(PageoutOps& ops) : ops_(ops) {}

  void pass_begins(PageoutRun& run) override { run.laundered = 0; }
  void step(PageoutRun& run) override {
    PageoutOps::Idle idle;
    ops_.take_idle(run, &idle);
    ops_.drop_clean(idle.clean_ones(), run);
    const std::uint64_t most = run.ahead ? 0 : run.pass == 0 ? kMaxLaunder : kMaxLaterLaunder;
    for (const FrameNumber frame : idle.dirty_ones()) {
      Page& page = ops_.system().page(frame);
      const bool again = page.has(Page::kWentRound) || run.pass > 0;
      if (!again) {
        page.set(Page::kWentRound);
        count(ops_.system().counters().pdtwice);
      } else if (run.laundered < most) {
        ++run.laundered;
        page.clear(Page::kWentRound);
        ops_.put({&frame, 1}, PageQueue::kLaundry);
        continue;
      }
      ops_.put({&frame, 1}, PageQueue::kInactive);
    }
    // The laundry queue is only where a write is put together: it is empty again afterwards.
    launder_up_to(ops_, run, ~std::uint64_t{0}, AfterWrite::kInactiveTail);
  }
  std::uint64_t launder_idle(PageoutRun& run, std::uint64_t most) override {
    return launder_up_to(ops_, run, most, AfterWrite::kInactiveTail);
  }

 private:
  static constexpr std::uint64_t kMaxLaunder = 32;          // clusters of the first pass (vm_max_launder)
  static constexpr std::uint64_t kMaxLaterLaunder = 10000;  // of each further one
  PageoutOps& ops_;
};

class BackgroundLaundry final : public LaundryRule {
 public:
  explicit BackgroundLaundry(PageoutOps& ops) : ops_(ops), system_(ops.system()) {}

  void step(PageoutRun& run) override {
    PageoutOps::Idle idle;
    ops_.take_idle(run, &idle);
    ops_.put(idle.dirty_ones(), PageQueue::kLaundry);
    ops_.drop_clean(idle.clean_ones(), run);
  }
  void pass_ends(PageoutRun& run) override {
    if (run.ahead) return;
    const std::uint64_t target = system_.thresholds().get().free_target;
    const std::uint64_t free = system_.free_frames().free_count();
    const std::uint64_t missing = std::max(run.missing(), target > free ? target - free : 0);
    launder_up_to(ops_, run, missing, AfterWrite::kInactiveFirst);
  }
  std::uint64_t launder_idle(PageoutRun& run, std::uint64_t most) override {
    return launder_up_to(ops_, run, most, AfterWrite::kInactiveFirst);
  }
  void tick() override {
    const Nanoseconds now = system_.clock().now();
    if (now.value() - last_.value() < LaundryController::kInterval.value()) return;
    last_ = now;
    const PageThresholds t = system_.thresholds().get();
    const std::uint64_t portion = controller_.portion(
        {.dirty = system_.queues().length(PageQueue::kLaundry),
         .clean = system_.free_frames().free_count() + system_.queues().length(PageQueue::kInactive),
         .freed = system_.counters().dfree.load(std::memory_order_relaxed),
         .span = t.free_target - t.free_min,
         .background = t.background_launder});
    if (portion == 0) return;
    PageoutRun run;
    const std::uint64_t written = launder_idle(run, portion);
    controller_.laundered(written);
    count(system_.counters().pdbackground, written);
  }
  [[nodiscard]] bool wants_ticks() const override { return true; }

 private:
  PageoutOps& ops_;
  VmSystem& system_;
  LaundryController controller_;
  Nanoseconds last_{0};
};

}  // namespace

std::unique_ptr<LaundryRule> make_laundry_rule(LaundryMode mode, PageoutOps& ops) {
  switch (mode) {
    case LaundryMode::kClustered:
      return std::make_unique<ClusteredLaundry>(ops);
    case LaundryMode::kArticle:
      return std::make_unique<ArticleLaundry>(ops);
    case LaundryMode::kBackground:
      return std::make_unique<BackgroundLaundry>(ops);
  }
  return nullptr;
}

}  // namespace enchilada
