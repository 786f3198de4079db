// What only today's Blist does: a cursor, ranges, runs across leaves, a largest space that is full.
#include "swap/blist.h"

#include <gtest/gtest.h>

#include "allocator_model.h"
#include "swap/swap_geometry.h"

namespace enchilada {
namespace {

using swap_test::run_at;
using Pair = swap_test::Pair<Blist>;

TEST(Blist, NewListTouchesFewPages) {
  constexpr std::uint64_t kBlocks = std::uint64_t{8} << 20;  // 32 GiB of swap
  swap_test::SharedMemory memory(Blist::required_bytes(PageCount{kBlocks}));
  Blist list = Blist::create(memory.span(), PageCount{kBlocks}, PageCount{0});
  list.fill(run_at(0, 1));
  EXPECT_EQ(list.available().value(), kBlocks - 1);
  EXPECT_LE(memory.resident_pages(), 16u);
}

TEST(Blist, CursorMovesOnAndComesBack) {
  Pair pair(256, 0);
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 0u);
  EXPECT_TRUE(pair.list().free(run_at(0, 100)));
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 100u)
      << "next fit, not first fit";
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 0u) << "restart from 0";
  EXPECT_TRUE(pair.list().verify());
}

TEST(Blist, TakesARange) {
  Pair pair(4096, 0);
  pair.fill(0, pair.blocks());
  pair.release(10, 20);
  const BlockRun run = pair.list().allocate(PageCount{5}, PageCount{64});
  EXPECT_EQ(run.first.value(), 10u);
  EXPECT_EQ(run.count.value(), 20u);
}

TEST(Blist, LeafWhoseNeighbourBecomesFreeIsFoundAgain) {
  // The hint of leaf 0 depends on leaf 1: it must rise when leaf 1's low bits are freed later.
  Pair pair(128, 0);
  pair.fill(0, pair.blocks());
  pair.release(60, 4);
  pair.allocate(8, 8);
  pair.release(64, 4);
  EXPECT_EQ(pair.list().allocate(PageCount{8}, PageCount{8}).first.value(), 60u);
}

TEST(Blist, RunsLongerThanALeaf) {
  Pair pair(64 * 64 + 1, 0);
  pair.fill(70, 1);
  pair.fill(2000, 1);
  pair.allocate(1929, 4000);
  pair.check();
  pair.allocate(5000, 5000);
  pair.allocate(2096, 2096);
  pair.check();
}

TEST(Blist, LargestSpace) {
  constexpr std::uint64_t kBlocks = SwapGeometry::kMaxBlocks;  // half of what a Blist can have
  swap_test::SharedMemory memory(Blist::required_bytes(PageCount{kBlocks}));
  Blist list = Blist::create(memory.span(), PageCount{kBlocks}, PageCount{0});
  EXPECT_EQ(list.fill(run_at(0, kBlocks)).value(), kBlocks);
  ASSERT_TRUE(list.free(run_at(kBlocks - 100, 100)));
  ASSERT_TRUE(list.free(run_at(5, 3)));
  EXPECT_EQ(list.allocate(PageCount{64}, PageCount{64}).first.value(), kBlocks - 100);
  EXPECT_EQ(list.allocate(PageCount{36}, PageCount{64}).count.value(), 36u);
  EXPECT_EQ(list.cursor().value(), 0u);
  EXPECT_EQ(list.allocate(PageCount{1}, PageCount{64}).first.value(), 5u);
  EXPECT_EQ(list.available().value(), 0u);
}

TEST(Blist, StatsCountRuns) {
  Pair pair(1000, 0);
  pair.fill(0, pair.blocks());
  pair.release(0, 10);
  pair.release(60, 70);
  pair.release(999, 1);
  EXPECT_EQ(pair.list().stats().free_runs, 3u);
  EXPECT_EQ(pair.list().stats().longest, 70u);
}

}  // namespace
}  // namespace enchilada
