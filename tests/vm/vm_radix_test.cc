// VmRadix against std::map: random inserts, removes and ordered walks, dense and sparse.
#include "vm/vm_radix.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <vector>

namespace enchilada {
namespace {

struct Nodes {
  explicit Nodes(std::size_t bytes = std::size_t{32} << 20) : memory(bytes + 64) {
    const auto base = (reinterpret_cast<std::uintptr_t>(memory.data()) + 63) & ~std::uintptr_t{63};
    arena = std::make_unique<Arena>(reinterpret_cast<std::byte*>(base), bytes);
    pool = std::make_unique<VmRadixPool>(*arena);
  }
  std::vector<std::byte> memory;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<VmRadixPool> pool;
};

void expect_equal(const VmRadix& radix, const std::map<std::uint64_t, std::uint32_t>& model) {
  ASSERT_EQ(radix.count(), model.size());
  VmRadix::Item item;
  PageIndex at{0};
  for (const auto& [index, frame] : model) {
    ASSERT_TRUE(radix.find_least(at, &item));
    ASSERT_EQ(item.index.value(), index);
    ASSERT_EQ(item.frame.value(), frame);
    ASSERT_EQ(radix.find(PageIndex{index}).value(), frame);
    at = item.index + PageCount{1};
  }
  ASSERT_FALSE(radix.find_least(at, &item));
}

void exercise(std::uint64_t range, unsigned steps, unsigned seed) {
  Nodes nodes;
  VmRadix radix;
  std::map<std::uint64_t, std::uint32_t> model;
  std::mt19937_64 random(seed);
  for (unsigned i = 0; i < steps; ++i) {
    const std::uint64_t index = random() % range;
    if (model.count(index) == 0 && random() % 3 != 0) {
      ASSERT_TRUE(radix.insert(*nodes.pool, PageIndex{index}, FrameNumber{i}));
      model[index] = i;
    } else {
      const auto it = model.lower_bound(index);
      const std::uint64_t victim = it == model.end() ? index : it->first;
      const FrameNumber out = radix.remove(*nodes.pool, PageIndex{victim});
      ASSERT_EQ(out, it == model.end() ? kNoFrame : FrameNumber{it->second});
      model.erase(victim);
    }
    VmRadix::Item item;
    const std::uint64_t from = random() % (2 * range);
    const auto least = model.lower_bound(from);
    ASSERT_EQ(radix.find_least(PageIndex{from}, &item), least != model.end());
    if (least != model.end()) {
      ASSERT_EQ(item.index.value(), least->first);
    }
    if (i % 512 == 0) expect_equal(radix, model);
  }
  expect_equal(radix, model);
  while (!model.empty()) {
    (void)radix.remove(*nodes.pool, PageIndex{model.begin()->first});
    model.erase(model.begin());
  }
  EXPECT_EQ(radix.count(), 0u);
  EXPECT_EQ(nodes.pool->leaves.live(), 0u);
  EXPECT_EQ(nodes.pool->inners.live(), 0u);
}

TEST(VmRadix, MatchesAMapWhenDense) {
  exercise(100, 20000, 1);
}
TEST(VmRadix, MatchesAMapInTheMiddle) {
  exercise(5000, 20000, 2);
}
TEST(VmRadix, MatchesAMapWhenSparse) {
  exercise(1ull << 28, 4000, 3);
}

TEST(VmRadix, HeightFollowsTheLargestIndex) {
  Nodes nodes;
  VmRadix radix;
  ASSERT_TRUE(radix.insert(*nodes.pool, PageIndex{3}, FrameNumber{1}));
  EXPECT_EQ(nodes.pool->inners.live(), 0u);
  ASSERT_TRUE(radix.insert(*nodes.pool, PageIndex{(1ull << 28) - 1}, FrameNumber{2}));
  EXPECT_EQ(nodes.pool->inners.live(),
            7u);  // 28 bits are five levels: the root, and two ways of three below it
  EXPECT_EQ(radix.remove(*nodes.pool, PageIndex{(1ull << 28) - 1}), FrameNumber{2});
  EXPECT_EQ(nodes.pool->inners.live(), 0u);
  EXPECT_EQ(radix.find(PageIndex{3}), FrameNumber{1});
}

TEST(VmRadix, InsertThatFindsNoNodeChangesNothing) {
  Nodes nodes(128 << 10);
  VmRadix radix;
  std::map<std::uint64_t, std::uint32_t> model;
  std::mt19937_64 random(5);
  unsigned refused = 0;
  for (unsigned i = 0; i < 2000; ++i) {
    const std::uint64_t index = random() % (1ull << 28);
    if (model.count(index) != 0) continue;
    if (radix.insert(*nodes.pool, PageIndex{index}, FrameNumber{i})) {
      model[index] = i;
    } else {
      ++refused;
    }
    if (i % 50 == 0) expect_equal(radix, model);
    if (refused > 10 && !model.empty()) {
      (void)radix.remove(*nodes.pool, PageIndex{model.begin()->first});
      model.erase(model.begin());
      refused = 0;
    }
  }
  expect_equal(radix, model);
}

}  // namespace
}  // namespace enchilada
