// SoftMemory and VirtualClock: grants, budgets, scattered runs, garbage where nothing may be relied on.
#include "machine/soft_memory.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "machine/virtual_clock.h"
#include "support/soft_pmap_machine.h"

namespace enchilada {
namespace {

struct Memory {
  explicit Memory(const SoftMemoryOptions& options) : memory(arena, bytes.get(), options) {}
  std::vector<FrameRun> grow(std::uint64_t wanted) {
    std::vector<FrameRun> runs;
    const PageCount got = memory.grow(PageCount{wanted}, [&](FrameRun run) { runs.push_back(run); });
    std::uint64_t sum = 0;
    for (const FrameRun& run : runs) sum += run.count.value();
    EXPECT_EQ(sum, got.value());
    return runs;
  }
  PageBlock bytes{64 * kPageSize};
  PageBlock arena_block{4 * kPageSize};
  Arena arena{arena_block.get(), 4 * kPageSize};
  SoftMemory memory;
};

SoftMemoryOptions options_of(std::uint64_t frames) {
  SoftMemoryOptions options;
  options.frames = PageCount{frames};
  return options;
}

std::set<std::uint32_t> frames_of(const std::vector<FrameRun>& runs) {
  std::set<std::uint32_t> frames;
  for (const FrameRun& run : runs) {
    for (std::uint32_t i = 0; i < run.count.value(); ++i)
      EXPECT_TRUE(frames.insert(run.first.value() + i).second);
  }
  return frames;
}

TEST(SoftMemory, GrantsEverythingAtOnceByDefault) {
  Memory m(options_of(64));
  const auto runs = m.grow(1000);
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].count, PageCount{64});
  EXPECT_TRUE(m.grow(1).empty());
  EXPECT_EQ(m.memory.granted(), PageCount{64});
}

TEST(SoftMemory, SlowAndScattered) {
  SoftMemoryOptions options = options_of(64);
  options.grant_at_most = PageCount{10};
  options.run_at_most = PageCount{4};
  Memory m(options);
  std::vector<FrameRun> all;
  int calls = 0;
  for (;;) {
    const auto runs = m.grow(64);
    if (runs.empty()) break;
    ++calls;
    for (const FrameRun& run : runs) {
      EXPECT_LE(run.count.value(), 4u);
      all.push_back(run);
    }
  }
  EXPECT_GE(calls, 7);
  EXPECT_EQ(frames_of(all).size(), 64u);
  EXPECT_NE(all[1].first.value(), all[0].first.value() + all[0].count.value()) << "not scattered";
}

TEST(SoftMemory, BudgetLimitsAndAsksBack) {
  Memory m(options_of(64));
  m.memory.set_budget(PageCount{20});
  EXPECT_EQ(frames_of(m.grow(64)).size(), 20u);
  EXPECT_EQ(m.memory.surplus_wanted(), PageCount{0});
  m.memory.set_budget(PageCount{15});
  EXPECT_EQ(m.memory.surplus_wanted(), PageCount{5});
  m.memory.retire({FrameNumber{3}, PageCount{4}});
  EXPECT_EQ(m.memory.surplus_wanted(), PageCount{1});
  EXPECT_FALSE(m.memory.is_granted(FrameNumber{5}));
  EXPECT_TRUE(m.grow(1).empty());
  m.memory.set_budget(PageCount{20});
  EXPECT_EQ(frames_of(m.grow(64)).size(), 4u);
}

TEST(SoftMemory, NewFramesAreNotZero) {
  Memory m(options_of(8));
  (void)m.grow(8);
  m.memory.with_frames({FrameNumber{2}, PageCount{1}}, Access::kRead,
                       [](std::byte* p) { EXPECT_NE(*p, std::byte{0}); });
  m.memory.zero({FrameNumber{2}, PageCount{1}});
  m.memory.with_frames({FrameNumber{2}, PageCount{1}}, Access::kRead,
                       [](std::byte* p) { EXPECT_EQ(*p, std::byte{0}); });
}

TEST(SoftMemoryDeathTest, UngrantedFramesMustNotBeTouched) {
  Memory m(options_of(8));
  EXPECT_DEATH(m.memory.zero({FrameNumber{2}, PageCount{1}}), "is_granted");
}

TEST(VirtualClock, PassesOnlyWhenTold) {
  VirtualClock clock;
  const Nanoseconds start = clock.now();
  EXPECT_EQ(clock.now(), start);
  clock.advance(Nanoseconds{5});
  EXPECT_EQ(clock.now() - start, Nanoseconds{5});
}

}  // namespace
}  // namespace enchilada
