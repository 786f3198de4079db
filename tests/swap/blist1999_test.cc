// What is particular to the blist of 1999: runs inside a leaf, hints as upper bounds, subtrees spoken for by
// one node.
#include "swap/blist1999.h"

#include <gtest/gtest.h>

#include "allocator_model.h"

namespace enchilada {
namespace {

using swap_test::run_at;
using Pair = swap_test::Pair<Blist1999>;

TEST(Blist1999, NoRunLeavesItsLeaf) {
  Pair pair(1000, 0);
  pair.fill(0, pair.blocks());
  pair.release(28, 8);  // four in each of two leaves
  EXPECT_TRUE(pair.list().allocate(PageCount{8}, PageCount{8}).empty());
  EXPECT_EQ(pair.list().allocate(PageCount{4}, PageCount{8}).first.value(), 28u);
  EXPECT_EQ(pair.list().allocate(PageCount{4}, PageCount{8}).first.value(), 32u);
}

TEST(Blist1999, AtMostALeaf) {
  Pair pair(1000, 0);
  EXPECT_TRUE(pair.list().allocate(PageCount{33}, PageCount{64}).empty());
  EXPECT_EQ(pair.list().allocate(PageCount{32}, PageCount{64}).count.value(), 32u);
}

TEST(Blist1999, FailuresLowerHintsAndFreesRaiseThem) {
  Pair pair(32 * 16 * 16, 0);
  pair.fill(0, pair.blocks());
  for (std::uint64_t b = 0; b < pair.blocks(); b += 2) pair.release(b, 1);
  EXPECT_EQ(pair.list().largest().value(), 32u) << "the hint of 1999 is a bound, not the truth";
  pair.allocate(2, 2);
  EXPECT_EQ(pair.list().largest().value(), 1u) << "the search found out";
  pair.release(7001, 1);
  EXPECT_EQ(pair.list().largest().value(), 32u);
  pair.allocate(3, 3);
  pair.check();
}

TEST(Blist1999, OneNodeSpeaksForAFullOrEmptySubtree) {
  constexpr std::uint64_t kSubtree = 32 * 16 * 16;
  Pair pair(kSubtree * 3 + 5, 0);
  pair.fill(kSubtree, kSubtree);  // the nodes below still say "free"
  pair.release(kSubtree + 100, 7);
  pair.check();
  pair.fill(kSubtree, kSubtree);
  pair.release(kSubtree, kSubtree);  // and now "allocated"
  pair.fill(kSubtree + 3000, 1);
  pair.check();
  pair.fill(0, pair.blocks());
  pair.release(kSubtree * 3, 5);
  pair.allocate(5, 5);
  pair.check();
}

TEST(Blist1999, TwoBitsABlock) {
  constexpr std::uint64_t kBlocks = std::uint64_t{1} << 17;  // the 512 MB of the article's time
  EXPECT_LE(Blist1999::required_bytes(PageCount{kBlocks}), kBlocks * 2 / 8 * 11 / 10);
}

}  // namespace
}  // namespace enchilada
