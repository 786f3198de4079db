// The pre-zeroing policies: none, and the idle loop's with its two pairs of marks.
#include "vm/vm_prezero.h"

#include <algorithm>
#include <atomic>

#include "vm/vm_phys.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

class NoPreZero final : public PreZeroPolicy {
 public:
  PageCount step() override { return PageCount{0}; }
};

/// Parts of the free frames.
struct Share {
  std::uint64_t part;
  std::uint64_t of;
  [[nodiscard]] std::uint64_t in(std::uint64_t whole) const { return whole * part / of; }
};

class IdlePreZero final : public PreZeroPolicy {
 public:
  IdlePreZero(VmSystem& system, Share low, Share high) : system_(system), low_(low), high_(high) {}

  PageCount step() override {
    VmPhys& frames = system_.free_frames();
    const std::uint64_t free = frames.free_count();
    const std::uint64_t zeroed = frames.zeroed_count();
    if (free <= system_.free_target()) return PageCount{0};  // they may be wanted at any moment
    if (zeroed >= high_.in(free)) {
      zeroing_.store(false, std::memory_order_relaxed);
    } else if (zeroed < low_.in(free)) {
      zeroing_.store(true, std::memory_order_relaxed);
    }
    if (!zeroing_.load(std::memory_order_relaxed)) return PageCount{0};
    const FrameRun run = frames.allocate_run(PageCount{std::min(kMaxRun, high_.in(free)-zeroed)});
    if (run.count.value() == 0) return PageCount{0};
    system_.phys().zero(run);
    frames.free_zeroed(run);
    count(system_.counters().prezeroed, run.count.value());
    return run.count;
  }

 private:
  VmSystem& system_;
  const Share low_;
  const Share high_;
  std::atomic<bool> zeroing_{false};
};

}  // namespace

std::unique_ptr<PreZeroPolicy> make_prezero(PreZeroMode mode, VmSystem& system) {
  switch (mode) {
    case PreZeroMode::kOff:
      return std::make_unique<NoPreZero>();
    case PreZeroMode::kIdle:
      return std::make_unique<IdlePreZero>(system, Share{1, 3}, Share{1, 2});
    case PreZeroMode::kIdleMore:
      return std::make_unique<IdlePreZero>(system, Share{2, 3}, Share{4, 5});
  }
  return nullptr;
}

}  // namespace enchilada
