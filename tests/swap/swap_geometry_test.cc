// The stripe mapping is a bijection between usable linear blocks and device blocks, with 1..4 devices of any
// size.
#include "swap/swap_geometry.h"

#include <gtest/gtest.h>

#include <set>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;

void check_bijection(const SwapGeometry& g) {
  ASSERT_TRUE(g.valid());
  std::set<std::pair<unsigned, std::uint64_t>> seen;
  std::uint64_t expected = 0;
  for (unsigned d = 0; d < g.slots; ++d) {
    expected += g.device_pages[d] > g.reserved ? g.device_pages[d] - g.reserved : 0;
    for (std::uint64_t block = g.reserved; block < g.device_pages[d]; ++block) {
      const SwapBlock linear = g.linear({d, block});
      ASSERT_LT(linear.value(), g.linear_blocks());
      ASSERT_TRUE(g.usable(linear));
      const DeviceBlock back = g.locate(linear);
      ASSERT_EQ(back.device, d);
      ASSERT_EQ(back.block, block);
    }
  }
  for (std::uint64_t b = 0; b < g.linear_blocks(); ++b) {
    const SwapBlock linear{static_cast<std::uint32_t>(b)};
    if (!g.usable(linear)) continue;
    const DeviceBlock d = g.locate(linear);
    ASSERT_TRUE(seen.insert({d.device, d.block}).second) << b;
    const SwapBlock next{linear.value() + 1};
    if (g.contiguous_with_next(linear) && g.usable(next)) {
      ASSERT_EQ(g.locate(next).device, d.device);
      ASSERT_EQ(g.locate(next).block, d.block + 1);
    }
  }
  EXPECT_EQ(seen.size(), expected);
}

TEST(SwapGeometry, TheArticlesExample) {
  // Two areas A and B in an interleave of four, stripes of 16: A at 0..15, B at 16..31, holes at 32..63, A
  // again.
  const SwapGeometry g{.device_pages = {64, 64, 0, 0}, .slots = 4, .stripe = 16};
  check_bijection(g);
  EXPECT_EQ(g.linear_blocks(), 256u);
  EXPECT_EQ(g.locate(SwapBlock{17}).device, 1u);
  EXPECT_FALSE(g.usable(SwapBlock{40}));
  EXPECT_EQ(g.locate(SwapBlock{64}).device, 0u);
  EXPECT_EQ(g.locate(SwapBlock{64}).block, 16u);
}

TEST(SwapGeometry, RandomShapes) {
  for_each_seed(1, 300, [](std::uint64_t seed) {
    Random random(seed);
    SwapGeometry g;
    g.slots = static_cast<unsigned>(random.between(1, 4));
    g.stripe = std::uint64_t{1} << random.below(9);
    g.reserved = random.one_in(2) ? 0 : random.below(4);
    for (unsigned d = 0; d < g.slots; ++d) g.device_pages[d] = random.below(2000);
    g.device_pages[0] += 5;
    check_bijection(g);

    swap_test::SharedMemory memory(SwapSpace::required_bytes(g));
    ASSERT_TRUE(SwapSpace::create(memory.span(), g));
    SwapSpace space = *SwapSpace::attach(memory.span(), 0, {});
    std::uint64_t usable = 0;
    for (std::uint64_t b = 0; b < g.linear_blocks(); ++b)
      usable += g.usable(SwapBlock{static_cast<std::uint32_t>(b)});
    EXPECT_EQ(space.capacity().value(), usable);
    for (;;) {
      const BlockRun run = space.allocate(0, PageCount{random.between(1, 64)});
      if (run.empty()) break;
      for (std::uint64_t i = 0; i < run.count.value(); ++i) {
        ASSERT_TRUE(g.usable(run.first + PageCount{i}));
        if (i + 1 < run.count.value()) {
          ASSERT_TRUE(g.contiguous_with_next(run.first + PageCount{i}));
        }
      }
    }
    EXPECT_EQ(space.used().value(), usable);
  });
}

TEST(SwapGeometry, BadShapesAreRefused) {
  EXPECT_FALSE((SwapGeometry{.device_pages = {}, .slots = 1}).valid());
  EXPECT_FALSE((SwapGeometry{.device_pages = {10}, .slots = 5}).valid());
  EXPECT_FALSE((SwapGeometry{.device_pages = {10, 10}, .slots = 2, .stripe = 3}).valid());
  EXPECT_FALSE((SwapGeometry{.device_pages = {std::uint64_t{1} << 31, 1}, .slots = 2}).valid());
  EXPECT_TRUE((SwapGeometry{.device_pages = {std::uint64_t{1} << 31}, .slots = 1}).valid());
}

}  // namespace
}  // namespace enchilada
