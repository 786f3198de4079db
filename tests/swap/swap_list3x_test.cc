// FreeBSD 3.x's list: how freeing needs memory, what happens when there is none, and that nothing else
// breaks.
#include "swap/swap_list3x.h"

#include <gtest/gtest.h>

#include "allocator_model.h"

namespace enchilada {
namespace {

using swap_test::AlignedStorage;
using swap_test::for_each_seed;
using swap_test::Random;
using swap_test::run_at;

constexpr std::uint64_t kBlocks = 100;

TEST(SwapList3x, AFreeThatFindsNoNodeLosesItsBlocks) {
  AlignedStorage storage(SwapList3x::bytes_with_nodes(4));
  SwapList3x list = SwapList3x::create(storage.span(), PageCount{kBlocks}, PageCount{0});
  // All swap is in use: no holes, no nodes.
  ASSERT_EQ(list.allocate(PageCount{kBlocks}, PageCount{kBlocks}).count.value(), kBlocks);
  EXPECT_EQ(list.free_nodes(), 4u);
  // Memory is short, and the page daemon frees a page here and there: each is a hole of its own.
  for (std::uint64_t b = 10; b <= 40; b += 10) EXPECT_TRUE(list.free(run_at(b, 1)));
  EXPECT_EQ(list.free_nodes(), 0u);
  // The next free would have to allocate. 3.x asked the kernel for a page, because it wanted to free one.
  EXPECT_TRUE(list.free(run_at(50, 3)));
  EXPECT_EQ(list.nodeless(), 1u);
  EXPECT_EQ(list.available().value(), 4u) << "three blocks are lost: neither free nor in use";
  EXPECT_FALSE(list.is_free(SwapBlock{50}));
  // A free beside a hole needs no node.
  EXPECT_TRUE(list.free(run_at(11, 1)));
  EXPECT_EQ(list.available().value(), 5u);
  // Neither does one that closes the gap between two: that even gives one back.
  EXPECT_TRUE(list.free(run_at(12, 8)));
  EXPECT_EQ(list.free_nodes(), 1u);
  EXPECT_TRUE(list.free(run_at(60, 1)));
  EXPECT_EQ(list.available().value(), 14u);
  EXPECT_FALSE(list.is_free(SwapBlock{50})) << "what is lost stays so";
  EXPECT_TRUE(list.verify());
  // Whoever knows what is in use finds it again.
  list.reset();
  EXPECT_EQ(list.available().value(), kBlocks);
  EXPECT_EQ(list.nodeless(), 1u) << "the count is of the list's life";
}

TEST(SwapList3x, CuttingAHoleInTwoKeepsTheLongerPart) {
  for (const bool early : {true, false}) {
    AlignedStorage storage(SwapList3x::bytes_with_nodes(1));
    SwapList3x list = SwapList3x::create(storage.span(), PageCount{kBlocks}, PageCount{0});
    EXPECT_EQ(list.fill(run_at(early ? 20 : 70, 10)).value(), 10u);
    EXPECT_EQ(list.available().value(), 70u);
    EXPECT_EQ(list.nodeless(), 1u);
    EXPECT_EQ(list.is_free(SwapBlock{0}), !early);
    EXPECT_EQ(list.is_free(SwapBlock{99}), early);
    EXPECT_TRUE(list.verify());
  }
}

TEST(SwapList3x, AlternatingFreesNeedANodeEach) {
  // The article: "insanely fragmented". Half of the blocks free is half as many nodes as blocks.
  constexpr std::uint64_t kMany = 4096;
  AlignedStorage storage(SwapList3x::required_bytes(PageCount{kMany}));
  SwapList3x list = SwapList3x::create(storage.span(), PageCount{kMany}, PageCount{0});
  const std::uint64_t nodes = list.free_nodes() + 1;
  EXPECT_EQ(nodes, kMany / 16 + 16);
  list.fill(run_at(0, kMany));
  for (std::uint64_t b = 0; b < kMany; b += 2) EXPECT_TRUE(list.free(run_at(b, 1)));
  EXPECT_EQ(list.available().value(), nodes);
  EXPECT_EQ(list.nodeless(), kMany / 2 - nodes);
  EXPECT_TRUE(list.verify());
}

/// Far too few nodes: blocks get lost, but none is ever given out twice or forgotten by the counts.
void random_shortage(std::uint64_t seed) {
  Random random(seed);
  const std::uint64_t blocks = random.between(1, 500);
  const std::uint64_t boundary = random.one_in(2) ? 0 : std::uint64_t{1} << random.below(7);
  AlignedStorage storage(SwapList3x::bytes_with_nodes(random.between(1, 12)));
  SwapList3x list = SwapList3x::create(storage.span(), PageCount{blocks}, PageCount{boundary});
  std::vector<bool> used(blocks, false);
  std::uint64_t in_use = 0;
  const auto mark = [&](std::uint64_t first, std::uint64_t count, bool value) {
    for (std::uint64_t b = first; b < first + count; ++b) {
      in_use += value && !used[b] ? 1 : 0;
      in_use -= !value && used[b] ? 1 : 0;
      used[b] = value;
    }
  };
  for (int step = 0; step < 400; ++step) {
    const std::uint64_t first = random.below(blocks);
    const std::uint64_t count = random.between(1, std::min<std::uint64_t>(blocks - first, 8));
    if (random.one_in(2)) {
      const BlockRun run = list.allocate(PageCount{count}, PageCount{count});
      for (std::uint64_t b = 0; b < run.count.value(); ++b) ASSERT_FALSE(used[run.first.value() + b]);
      if (!run.empty()) mark(run.first.value(), run.count.value(), true);
    } else {
      std::uint64_t n = 0;
      while (n < count && used[first + n]) ++n;
      ASSERT_TRUE(list.free(run_at(first, n)));
      mark(first, n, false);
    }
    if (random.one_in(100)) {  // as SwapSpace does it
      list.reset();
      for (std::uint64_t b = 0; b < blocks; ++b) {
        if (used[b]) list.fill(run_at(b, 1));
      }
    }
    ASSERT_LE(in_use + list.available().value(), blocks);
    if (list.nodeless() == 0) {
      ASSERT_EQ(in_use + list.available().value(), blocks) << "lost without need";
    }
    ASSERT_TRUE(list.verify());
    for (std::uint64_t b = 0; b < blocks; ++b) {
      ASSERT_FALSE(used[b] && list.is_free(SwapBlock{static_cast<std::uint32_t>(b)})) << b;
    }
  }
}

TEST(SwapList3x, ShortOfNodesItLosesBlocksButGivesNoneTwice) {
  for_each_seed(1, swap_test::rounds(200), random_shortage);
}

}  // namespace
}  // namespace enchilada
