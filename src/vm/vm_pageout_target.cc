// The targets: what is missing, or what a controller says.
#include "vm/vm_pageout_target.h"

#include <algorithm>

#include "vm/vm_pidctrl.h"

namespace enchilada {
namespace {

/// What is missing, a cluster's worth at a time: the fault that pays for it is not held up for more.
class FixedTarget final : public PageoutTarget {
 public:
  static constexpr std::uint64_t kMost = 64;
  std::uint64_t goal(std::uint64_t level, std::uint64_t target) override {
    return std::clamp<std::uint64_t>(target > level ? target - level : 1, 1, kMost);
  }
};

/// FreeBSD 14's: runs get larger the longer and the faster pages are missing. The controller must see the
/// good times too, or its integral would only rise: it asks to be told once an interval.
class PidTarget final : public PageoutTarget {
 public:
  static constexpr Nanoseconds kInterval{100'000'000};
  explicit PidTarget(Clock& clock) : clock_(clock) {}
  std::uint64_t goal(std::uint64_t level, std::uint64_t target) override {
    return std::max<std::uint64_t>(answer(level, target, clock_.now()), 1);
  }
  std::uint64_t due(std::uint64_t level, std::uint64_t target) override {
    const Nanoseconds now = clock_.now();
    return pid_.begins_interval(now) ? answer(level, target, now) : 0;
  }
  [[nodiscard]] bool wants_ticks() const override { return true; }

 private:
  std::uint64_t answer(std::uint64_t level, std::uint64_t target, Nanoseconds now) {
    return std::min(pid_.output(target, level, now), 2 * target);
  }

  Clock& clock_;
  PidController pid_{kInterval};
};

}  // namespace

std::unique_ptr<PageoutTarget> make_pageout_target(PageoutTargetMode mode, Clock& clock) {
  switch (mode) {
    case PageoutTargetMode::kFixed:
      return std::make_unique<FixedTarget>();
    case PageoutTargetMode::kPid:
      return std::make_unique<PidTarget>(clock);
  }
  return nullptr;
}

}  // namespace enchilada
