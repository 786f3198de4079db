// The article's question 9.5, measured: an array as large as the cache stays in it, with colouring, however
// disordered free memory is; without, its pages throw each other out.
#include <gtest/gtest.h>

#include "support/colour_rig.h"

namespace enchilada::test {
namespace {

constexpr CacheShape kDirect{ByteCount{128 << 10}, 1};
constexpr CacheShape kFourWays{ByteCount{128 << 10}, 4};
constexpr int kRounds = 10;

/// Misses of each kind in kRounds walks over an array of so many pages that was walked over before.
MissClasses::Counts misses(const ColourRigOptions& options, std::uint64_t pages) {
  ColourRig rig(options);
  const VirtAddr array = rig.make_array(pages);
  rig.walk(array, pages);
  rig.reset_counts();
  for (int i = 0; i < kRounds; ++i) rig.walk(array, pages);
  EXPECT_EQ(rig.classes().misses(), rig.counts().misses);
  EXPECT_EQ(rig.classes().compulsory, 0u);
  return rig.classes();
}

class Colouring : public ::testing::TestWithParam<CacheShape> {};

TEST_P(Colouring, ConflictsAreGoneWithColouringOn) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto on = misses({.order = FrameOrderMode::kColoured, .cache = GetParam(), .seed = seed}, 32);
    EXPECT_EQ(on.misses(), 0u) << seed;
    EXPECT_EQ(on.hits, std::uint64_t{kRounds} * 32 * 64);
    const auto off = misses({.order = FrameOrderMode::kBuddy, .cache = GetParam(), .seed = seed}, 32);
    EXPECT_EQ(off.capacity, 0u) << seed;  // the array fits: all misses are conflicts
    EXPECT_GT(off.conflict, off.hits / 10) << seed;
  }
}

/// "So page-coloring does not have to assign truly contiguous pages [...], it just needs to make sure it
/// assigns contiguous pages from the point of view of cache performance": what contiguous memory has, too.
TEST_P(Colouring, OrderedMemoryNeedsNone) {
  for (const FrameOrderMode order : {FrameOrderMode::kBuddy, FrameOrderMode::kReservation}) {
    EXPECT_EQ(misses({.order = order, .cache = GetParam(), .fragmented = false}, 32).misses(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, Colouring, ::testing::Values(kDirect, kFourWays),
                         [](const auto& info) { return info.param.ways == 1 ? "Direct" : "FourWays"; });

/// The base colour steps from object to object, so small arrays do not all begin in the same place.
TEST(ColouringOfObjects, SmallArraysOfOneProgramDoNotMeet) {
  ColourRig rig({.order = FrameOrderMode::kColoured, .cache = kDirect});
  std::vector<VirtAddr> arrays;
  for (int i = 0; i < 8; ++i) {
    arrays.push_back(rig.make_array(4));
    rig.make_gap();
  }
  for (const VirtAddr a : arrays) rig.walk(a, 4);
  rig.reset_counts();
  for (const VirtAddr a : arrays) rig.walk(a, 4);
  EXPECT_EQ(rig.counts().misses, 0u);
}

}  // namespace
}  // namespace enchilada::test
