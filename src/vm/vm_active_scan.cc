// The scans of the active queue. Invariants: see vm_active_scan.h.
#include "vm/vm_active_scan.h"

#include <algorithm>

#include "vm/vm_pageout_ops.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

constexpr std::size_t kBatch = PageoutRun::kBatch;
using Victims = std::array<FrameNumber, PageoutOps::kWrite>;

/// What the scans share: aging a batch, and what happens to survivors and victims.
class AgingScan : public ActiveScan {
 public:
  explicit AgingScan(PageoutOps& ops) : ops_(ops), system_(ops.system()) {}

 protected:
  /// Ages a batch (busy). Idle pages with a count of at most `idle_at` become victims (when ruthless, used
  /// ones too); the others are moved to the front of the batch. Returns the number of victims.
  std::size_t age_batch(std::span<FrameNumber> batch, unsigned idle_at, bool ruthless, Victims& victims) {
    std::size_t n = 0;
    std::size_t stay = 0;
    for (const FrameNumber frame : batch) {
      Page& page = system_.page(frame);
      const unsigned refs = ops_.references(page, frame);
      page.age(refs);
      const bool victim = (refs == 0 || ruthless) && page.act_count() <= idle_at;
      (victim ? victims[n++] : batch[stay++]) = frame;
    }
    return n;
  }
  /// Survivors (busy) are let go of.
  void release(std::span<const FrameNumber> stay) {
    if (system_.swap().nearly_full()) ops_.forget_copies(stay);
    for (const FrameNumber frame : stay) system_.page(frame).unbusy();
  }
  std::size_t deactivate(std::span<const FrameNumber> frames) {
    for (const FrameNumber frame : frames) {
      Page& page = system_.page(frame);
      if (page.has(Page::kWentRound)) page.clear(Page::kWentRound);
    }
    ops_.put(frames, PageQueue::kInactive);
    count(system_.counters().deactivated, frames.size());
    return frames.size();
  }
  [[nodiscard]] std::uint64_t length(PageQueue q) const { return system_.queues().length(q); }

  PageoutOps& ops_;
  VmSystem& system_;
};

/// Takes a batch from the head; survivors go to the tail.
class HeadScan : public AgingScan {
 public:
  using AgingScan::AgingScan;

 protected:
  struct Looked {
    std::size_t pages = 0;
    std::size_t idle = 0;  // of these
    std::size_t gone = 0;  // with neighbours
  };
  Looked scan_head(std::size_t pages, unsigned idle_at, bool ruthless, std::size_t* busy) {
    std::array<FrameNumber, kBatch> batch;
    Victims victims;
    Looked looked;
    looked.pages = system_.queues().take(PageQueue::kActive, {batch.data(), std::min(pages, kBatch)}, busy);
    looked.idle = age_batch({batch.data(), looked.pages}, idle_at, ruthless, victims);
    const std::span<const FrameNumber> stay(batch.data(), looked.pages - looked.idle);
    system_.queues().move(stay, PageQueue::kActive);
    release(stay);
    const std::size_t n = ops_.withdraw(victims, looked.idle, idle_at + kActDecline);
    looked.gone = deactivate({victims.data(), n});
    return looked;
  }
  std::size_t age_head(std::size_t pages, unsigned idle_at) {
    std::size_t busy = 0;
    std::size_t gone = 0;
    while (pages > 0) {
      const Looked looked = scan_head(pages, idle_at, false, &busy);
      if (looked.pages == 0) break;
      gone += looked.gone;
      pages -= looked.pages;
    }
    return gone;
  }
};

class PressureScan final : public HeadScan {
 public:
  using HeadScan::HeadScan;

  void before_inactive(PageoutRun& run) override {
    const std::uint64_t most =
        run.ahead ? PageoutRun::kAhead : std::max<std::uint64_t>(2 * run.goal, 2 * kBatch);
    while (waiting() < waiting_target() && run.active_looked < most) {
      const std::uint64_t before = run.active_looked;
      scan(run);
      if (run.active_looked == before) break;
    }
    if (run.gained == 0 || run.exhaustive) run.active_looked = 0;  // the next step may scan again
  }
  void run_ends(PageoutRun& /*run*/) override {
    if (waiting() >= waiting_target() && pressure_ > 0) --pressure_;
  }
  std::size_t age(std::size_t pages) override { return age_head(pages, pressure_); }
  /// Without any gain: every page twice, and enough steps for the pressure to rise to the top.
  [[nodiscard]] std::uint64_t limit(const PageoutRun& run, std::uint64_t pages) const override {
    if (run.gained > 0 && !run.exhaustive) return kBudget;
    return run.ahead ? 4 * PageoutRun::kAhead : 2 * pages + kActMax * kBatch;
  }
  [[nodiscard]] unsigned pressure() const override { return pressure_; }

 private:
  /// Pages that a run looks at at most once it has gained anything.
  static constexpr std::uint64_t kBudget = 256;
  /// Fruitless looks after which also pages that were just used are victims.
  static constexpr std::uint64_t kRuthlessAfter = 512;

  void scan(PageoutRun& run) {
    // Every page was used since the last shortage, perhaps long ago: do not sweep all of memory for one
    // frame.
    const std::uint64_t now = std::min<std::uint64_t>(run.batch(), length(PageQueue::kActive));
    const bool ruthless = run.gained == 0 && run.looked + now > kRuthlessAfter;
    const Looked looked = scan_head(run.batch(), pressure_, ruthless, &run.busy);
    run.looked += looked.pages;
    run.active_looked += looked.pages;
    if (looked.idle * 4 < looked.pages && pressure_ < kActMax) ++pressure_;
  }
  /// Pages that wait between active and free, where a fault can still bring them back.
  [[nodiscard]] std::uint64_t waiting() const {
    return length(PageQueue::kInactive) + length(PageQueue::kLaundry) + length(PageQueue::kCache);
  }
  /// About a third of the pages while memory is short (FreeBSD: inactive_target at most free / 3): what
  /// leaves active has the time that it takes to replace a third of memory to prove that it is used.
  [[nodiscard]] std::uint64_t waiting_target() const { return (length(PageQueue::kActive) + waiting()) / 3; }

  unsigned pressure_ = 0;
};

/// Passes that spare nothing, before a run gives up.
constexpr std::uint64_t kRuthlessPasses = 4;

/// FreeBSD's runs look at all of memory as often as it takes: after kPatience passes without a gain nothing
/// is spared, so a few more suffice. These are counted as passes, not as pages: a pass may look at a page up
/// to three times (on active, on inactive, in the laundry), and a run that ends before the passes that spare
/// nothing has not tried everything.
std::uint64_t passes_limit(const PageoutRun& run, std::uint64_t pages) {
  constexpr std::uint64_t kAsNeeded = ~std::uint64_t{0};
  if (run.ahead) return 4 * PageoutRun::kAhead;
  if (run.gained > 0 && !run.exhaustive) return 4 * (pages + kBatch);
  return run.fruitless < ActiveScan::kPatience + kRuthlessPasses ? kAsNeeded : 0;
}

struct Standard {
  unsigned idle_at;  // a page with a count of at most this is a victim
  bool ruthless;     // even if it was used
};

Standard standard_of(const PageoutRun& run) {
  if (run.fruitless >= ActiveScan::kPatience) return {kActMax, true};
  return {0, false};
}

class RequeueScan final : public HeadScan {
 public:
  using HeadScan::HeadScan;

  void after_pass(PageoutRun& run) override {
    const std::uint64_t wanted = run.missing() + system_.thresholds().get().inactive_target;
    const Standard standard = standard_of(run);
    std::uint64_t left = run.ahead ? PageoutRun::kAhead : length(PageQueue::kActive);
    while (left > 0 && length(PageQueue::kInactive) < wanted) {
      const std::size_t now = static_cast<std::size_t>(std::min<std::uint64_t>(left, kBatch));
      const Looked looked = scan_head(now, standard.idle_at, standard.ruthless, &run.busy);
      if (looked.pages == 0) break;
      run.looked += looked.pages;
      run.active_looked += looked.pages;
      left -= looked.pages;
    }
  }
  std::size_t age(std::size_t pages) override { return age_head(pages, 0); }
  [[nodiscard]] std::uint64_t limit(const PageoutRun& run, std::uint64_t pages) const override {
    return passes_limit(run, pages);
  }
};

class TwoHandScan final : public AgingScan {
 public:
  using AgingScan::AgingScan;

  void after_pass(PageoutRun& run) override {
    const PageThresholds t = system_.thresholds().get();
    const auto weighted = [](std::uint64_t pages) { return static_cast<std::int64_t>(pages) * kCleanWeight; };
    std::int64_t shortage = weighted(t.inactive_target + std::max(t.free_target, run.missing())) -
                            weighted(system_.free_frames().free_count() + length(PageQueue::kInactive)) -
                            static_cast<std::int64_t>(length(PageQueue::kLaundry));
    std::uint64_t left = run.ahead ? PageoutRun::kAhead : length(PageQueue::kActive);
    while (left > 0 && shortage > 0) {
      std::size_t looked = 0;
      const std::size_t now = static_cast<std::size_t>(std::min<std::uint64_t>(left, kBatch));
      shortage -= scan(now, standard_of(run), true, &run.busy, &looked).weight;
      if (looked == 0) break;
      run.looked += looked;
      run.active_looked += looked;
      left -= looked;
    }
  }
  std::size_t age(std::size_t pages) override {
    std::size_t busy = 0;
    std::size_t gone = 0;
    while (pages > 0) {
      std::size_t looked = 0;
      gone += scan(std::min(pages, kBatch), {0, false}, false, &busy, &looked).gone;
      if (looked == 0) break;
      pages -= looked;
    }
    return gone;
  }
  [[nodiscard]] std::uint64_t limit(const PageoutRun& run, std::uint64_t pages) const override {
    return passes_limit(run, pages);
  }

 private:
  /// A clean page on inactive is soon a free one; a dirty one must be written before (FreeBSD's
  /// act_scan_laundry_weight).
  static constexpr std::int64_t kCleanWeight = 3;
  struct Outcome {
    std::size_t gone = 0;
    std::int64_t weight = 0;  // of what left
  };

  Outcome scan(std::size_t pages, Standard standard, bool is_short, std::size_t* busy, std::size_t* looked) {
    std::array<FrameNumber, kBatch> batch;
    Victims victims;
    *looked = system_.queues().look(PageQueue::kActive, {batch.data(), pages}, busy);
    const std::size_t idle = age_batch({batch.data(), *looked}, standard.idle_at, standard.ruthless, victims);
    release({batch.data(), *looked - idle});
    system_.queues().move({victims.data(), idle}, PageQueue::kNone);
    return retire({victims.data(), ops_.withdraw(victims, idle, kActDecline)}, is_short);
  }
  /// Idle pages: to inactive, when memory is short the dirty ones straight to the laundry.
  Outcome retire(std::span<const FrameNumber> idle, bool is_short) {
    Victims clean;
    Victims dirty;
    std::size_t clean_n = 0;
    std::size_t dirty_n = 0;
    for (const FrameNumber frame : idle) {
      Page& page = system_.page(frame);
      if (!page.is_dirty() && page.has(Page::kMapped) && system_.pmaps().is_modified(frame)) {
        page.set_dirty(true);
      }
      (is_short && page.is_dirty() ? dirty[dirty_n++] : clean[clean_n++]) = frame;
    }
    deactivate({clean.data(), clean_n});
    ops_.put({dirty.data(), dirty_n}, PageQueue::kLaundry);
    count(system_.counters().deactivated, dirty_n);
    return {idle.size(),
            kCleanWeight * static_cast<std::int64_t>(clean_n) + static_cast<std::int64_t>(dirty_n)};
  }
};

}  // namespace

std::unique_ptr<ActiveScan> make_active_scan(ActiveScanMode mode, PageoutOps& ops) {
  switch (mode) {
    case ActiveScanMode::kPressure:
      return std::make_unique<PressureScan>(ops);
    case ActiveScanMode::kRequeue:
      return std::make_unique<RequeueScan>(ops);
    case ActiveScanMode::kTwoHand:
      return std::make_unique<TwoHandScan>(ops);
  }
  return nullptr;
}

}  // namespace enchilada
