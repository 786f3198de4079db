// The arithmetic of choosing pages, against values computed by hand: thresholds, the PID target, background
// laundering (freebsd-vm.md §1.9).
#include <gtest/gtest.h>

#include "vm/clock.h"
#include "vm/vm_laundry_rule.h"
#include "vm/vm_pageout_target.h"
#include "vm/vm_pidctrl.h"
#include "vm/vm_thresholds.h"

namespace enchilada {
namespace {

struct Levels {
  std::uint64_t pages, reserved, severe, min, wakeup, target, inactive, cache;
};

void expect_levels(ThresholdRule rule, const Levels& want) {
  const PageThresholds t = rule(PageCount{want.pages});
  EXPECT_EQ(t.interrupt_free_min, 2u);
  EXPECT_EQ(t.pageout_free_min, 34u);  // two transfers of 64 KiB, and 2
  EXPECT_EQ(t.free_reserved, want.reserved) << want.pages;
  EXPECT_EQ(t.free_severe, want.severe) << want.pages;
  EXPECT_EQ(t.free_min, want.min) << want.pages;
  EXPECT_EQ(t.wakeup, want.wakeup) << want.pages;
  EXPECT_EQ(t.free_target, want.target) << want.pages;
  EXPECT_EQ(t.inactive_target, want.inactive) << want.pages;
  EXPECT_EQ(t.cache_min, want.cache) << want.pages;
  EXPECT_EQ(t.cache_max, 2 * want.cache) << want.pages;
}

TEST(Thresholds, OfTheArticle) {
  expect_levels(article_thresholds, {1024, 67, 69, 71, 67, 209, 313, 0});  // 4 MiB: no cache wanted
  expect_levels(article_thresholds, {16384, 87, 127, 167, 842, 755, 1132, 755});
  expect_levels(article_thresholds, {131072, 236, 563, 890, 4032, 3796, 5694, 3796});  // 512 MiB
  expect_levels(article_thresholds, {1048576, 1431, 4051, 6672, 29550, 28119, 42178, 28119});
}

TEST(Thresholds, OfFreeBsd14) {
  expect_levels(modern_thresholds, {1024, 67, 69, 72, 78, 87, 130, 0});
  expect_levels(modern_thresholds, {131072, 236, 563, 891, 2570, 2856, 4284, 0});
  expect_levels(modern_thresholds, {1048576, 1431, 4052, 6673, 20159, 22399, 33598, 0});
  EXPECT_EQ(modern_thresholds(PageCount{131072}).background_launder, 196u);
}

TEST(Thresholds, OfLiveProcesses) {
  EXPECT_EQ(live_thresholds(PageCount{128}).free_target, 16u);
  EXPECT_EQ(live_thresholds(PageCount{128}).free_min, 4u);
  EXPECT_EQ(live_thresholds(PageCount{65536}).free_target, 256u);
  EXPECT_EQ(live_thresholds(PageCount{65536}).free_min, 64u);
  EXPECT_EQ(live_thresholds(PageCount{65536}).free_reserved, 0u);
}

TEST(Thresholds, KeepTheirOrderAndAQuarterFreeAtMostOnMachinesOfAnySize) {
  for (const ThresholdRule rule : {article_thresholds, modern_thresholds, live_thresholds}) {
    for (std::uint64_t n = 0; n < 20000; n += n < 3000 ? 1 : 97) {
      const PageThresholds t = rule(PageCount{n});
      ASSERT_LE(t.interrupt_free_min, t.pageout_free_min) << n;
      ASSERT_LE(t.interrupt_free_min, t.free_reserved) << n;
      ASSERT_LE(t.free_reserved, t.free_severe + (rule == live_thresholds ? n : 0)) << n;
      ASSERT_LE(t.free_severe, t.free_min) << n;
      ASSERT_LE(t.free_min, t.free_target) << n;
      ASSERT_LE(t.free_target + t.cache_min, std::max<std::uint64_t>(n / 4, 16)) << n;
      ASSERT_LE(t.inactive_target, n / 3) << n;
    }
  }
}

constexpr Nanoseconds at(std::uint64_t interval) {
  return Nanoseconds{interval * 100};
}

TEST(PidController, AnswersAsComputedByHand) {
  PidController pid(Nanoseconds{100});
  EXPECT_EQ(pid.output(100, 40, at(0)), 42u);   // 60/3 + 60/4 + 60/8
  EXPECT_EQ(pid.output(100, 82, at(0)), 0u);    // those 42 came: nothing on top
  EXPECT_EQ(pid.output(100, 52, at(0)), 21u);   // 30 more were taken: 90/3 + 90/4 + 90/8 - 42
  EXPECT_EQ(pid.output(100, 100, at(1)), 11u);  // 0 + 90/4 - 90/8
  EXPECT_EQ(pid.output(100, 100, at(2)), 22u);  // 0 + 90/4 + 0
  EXPECT_EQ(pid.output(100, 300, at(3)), 0u);   // never negative
  EXPECT_EQ(pid.integral(), 0);
  EXPECT_EQ(pid.derivative(), -200);
}

TEST(PidController, TheIntegralIsBounded) {
  PidController pid(Nanoseconds{100});
  std::uint64_t out = 0;
  for (std::uint64_t i = 0; i < 20; ++i) out = pid.output(100, 0, at(i));
  EXPECT_EQ(pid.integral(), 4 * 100 * 4);
  EXPECT_EQ(out, 100u / 3 + 1600 / 4);
}

TEST(PidController, ManyCallsInAnIntervalAskForAsMuchAsOne) {
  PidController once(Nanoseconds{100});
  PidController often(Nanoseconds{100});
  const std::uint64_t want = once.output(500, 100, at(0));
  std::uint64_t sum = 0;
  for (std::uint64_t taken = 0; taken <= 400; taken += 40) {
    sum += often.output(500, 500 - taken + sum, at(0));  // what it asked for has come each time
  }
  EXPECT_EQ(sum, want);
}

class TestClock final : public Clock {
 public:
  Nanoseconds now() override { return time; }
  Nanoseconds time{0};
};

TEST(PageoutTarget, FixedAsksForWhatIsMissingAClusterAtATime) {
  TestClock clock;
  const auto target = make_pageout_target(PageoutTargetMode::kFixed, clock);
  EXPECT_EQ(target->goal(90, 100), 10u);
  EXPECT_EQ(target->goal(0, 1000), 64u);
  EXPECT_EQ(target->goal(200, 100), 1u);  // somebody asks: he needs one
  EXPECT_FALSE(target->wants_ticks());
}

TEST(PageoutTarget, PidForgetsAShortageWhenItSeesPlenty) {
  TestClock clock;
  const auto target = make_pageout_target(PageoutTargetMode::kPid, clock);
  ASSERT_TRUE(target->wants_ticks());
  for (int i = 0; i < 20; ++i) {
    (void)target->goal(50, 100);
    clock.time = Nanoseconds{clock.time.value() + 100'000'000};
  }
  EXPECT_EQ(target->due(100, 100), 200u);  // 1000/4 and no error: at most twice the target
  EXPECT_EQ(target->due(100, 100), 0u);    // asked already in this interval
  for (int i = 0; i < 20; ++i) {
    clock.time = Nanoseconds{clock.time.value() + 100'000'000};
    (void)target->due(200, 100);
  }
  clock.time = Nanoseconds{clock.time.value() + 100'000'000};
  EXPECT_EQ(target->goal(100, 100), 12u);  // the integral is gone; the error has risen by 100 since
}

TEST(LaundryController, SquareRoots) {
  for (std::uint64_t n = 0; n < 5000; ++n) {
    const std::uint64_t r = LaundryController::isqrt(n);
    ASSERT_LE(r * r, n);
    ASSERT_GT((r + 1) * (r + 1), n);
  }
  EXPECT_EQ(LaundryController::isqrt(~std::uint64_t{0}), 0xffffffffu);
}

TEST(LaundryController, TheRatioItToleratesFallsWithTheSquareRootOfThePressure) {
  LaundryController c;
  LaundryController::Input in{.dirty = 10, .clean = 20, .freed = 0, .span = 10, .background = 30};
  EXPECT_EQ(c.portion(in), 0u);  // 10 * isqrt(ceil(1/10)) < 20
  in.freed = 29;
  EXPECT_EQ(c.portion(in), 0u);  // 10 * isqrt(3) < 20
  in.freed = 39;
  EXPECT_EQ(c.portion(in), 30u);  // 10 * isqrt(4) = 20: the whole run, it is less than a portion
  c.laundered(30);
  EXPECT_EQ(c.portion(in), 0u);  // pressure counts from the run's beginning
  in.dirty = 20;
  EXPECT_EQ(c.portion(in), 30u);  // as many dirty as clean: without any pressure
}

TEST(LaundryController, LaundersAtItsRateUpToTheCapAndGoesOnAfterNewPressure) {
  EXPECT_EQ(LaundryController::kPortion, 102u);
  EXPECT_EQ(LaundryController::kCap, 5120u);
  LaundryController c;
  LaundryController::Input in{.dirty = 100000, .clean = 1, .freed = 5, .span = 10, .background = 10000};
  std::uint64_t sum = 0;
  unsigned intervals = 0;
  while (const std::uint64_t n = c.portion(in)) {
    ASSERT_LE(n, LaundryController::kPortion);
    c.laundered(n);
    sum += n;
    ++intervals;
  }
  EXPECT_EQ(sum, LaundryController::kCap);
  EXPECT_EQ(intervals, 51u);
  EXPECT_EQ(c.portion(in), 0u);
  in.freed = 6;
  EXPECT_EQ(c.portion(in), LaundryController::kPortion);
}

}  // namespace
}  // namespace enchilada
