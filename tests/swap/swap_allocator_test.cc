// All allocators of swap blocks against a plain bitmap: every answer of random histories, at the sizes where
// the trees change shape.
#include "swap/swap_allocator.h"

#include <gtest/gtest.h>

#include "allocator_model.h"
#include "swap/free_ranges.h"

namespace enchilada {
namespace {

using swap_test::AlignedStorage;
using swap_test::for_each_seed;
using swap_test::Pair;
using swap_test::Random;
using swap_test::run_at;

template <class A>
class SwapAllocators : public testing::Test {};

struct Names {
  template <class A>
  static std::string GetName(int) {
    if (std::is_same_v<A, Blist>) return "Blist";
    return std::is_same_v<A, Blist1999> ? "Blist1999" : "SwapList3x";
  }
};
using AllAllocators = testing::Types<Blist, Blist1999, SwapList3x>;
TYPED_TEST_SUITE(SwapAllocators, AllAllocators, Names);

TYPED_TEST(SwapAllocators, NewListIsAllFree) {
  for (const std::uint64_t blocks : std::initializer_list<std::uint64_t>{
           1, 31, 32, 33, 63, 64, 65, 511, 512, 513, 1000, 64 * 64, 64 * 64 + 1, 8192, 8193}) {
    for (const std::uint64_t boundary : std::initializer_list<std::uint64_t>{0, 1, 16, 32, 64, 128}) {
      Pair<TypeParam> pair(blocks, boundary);
      pair.check();
      pair.allocate(1, blocks);
      pair.check();
      pair.fill(0, blocks);
      pair.check();
      EXPECT_EQ(pair.list().available().value(), 0u);
      pair.allocate(1, 1);
      pair.release(0, blocks);
      pair.check();
      pair.fill(0, blocks / 2 + 1);
      pair.list().reset();
      EXPECT_EQ(pair.list().available().value(), blocks);
      EXPECT_TRUE(pair.list().verify());
    }
  }
}

TYPED_TEST(SwapAllocators, FreesWhatWasFreeOnlyOnce) {
  Pair<TypeParam> pair(300, 0);
  EXPECT_FALSE(pair.list().free(run_at(17, 1)));
  pair.fill(0, 100);
  EXPECT_FALSE(pair.list().free(run_at(50, 100)));
  EXPECT_FALSE(pair.list().free(run_at(299, 2)));
  pair.check();
}

TYPED_TEST(SwapAllocators, ViewAtAnotherAddressIsTheSameList) {
  AlignedStorage one(TypeParam::required_bytes(PageCount{5000}));
  TypeParam list = TypeParam::create(one.span(), PageCount{5000}, PageCount{0});
  list.fill(run_at(0, 5000));
  ASSERT_TRUE(list.free(run_at(100, 4000)));
  static_cast<void>(list.allocate(PageCount{7}, PageCount{7}));
  AlignedStorage two(one.span().size());
  std::memcpy(two.span().data(), one.span().data(), one.span().size());
  TypeParam moved = TypeParam::attach(two.span());
  EXPECT_TRUE(moved.verify());
  EXPECT_EQ(moved.available().value(), 3993u);
  EXPECT_EQ(moved.allocate(PageCount{7}, PageCount{7}).first.value(), 107u);
}

TYPED_TEST(SwapAllocators, NumbersUpToTheLast) {
  constexpr std::uint64_t kBlocks = TypeParam::kMaxBlocks;
  swap_test::SharedMemory memory(TypeParam::required_bytes(PageCount{kBlocks}));
  TypeParam list = TypeParam::create(memory.span(), PageCount{kBlocks}, PageCount{64});
  EXPECT_EQ(list.fill(run_at(kBlocks - 200, 200)).value(), 200u);
  EXPECT_FALSE(list.free(run_at(kBlocks - 10, 11)));
  EXPECT_TRUE(list.free(run_at(kBlocks - 1, 1)));
  EXPECT_TRUE(list.is_free(SwapBlock{static_cast<std::uint32_t>(kBlocks - 1)}));
  EXPECT_FALSE(list.is_free(SwapBlock{static_cast<std::uint32_t>(kBlocks - 2)}));
  EXPECT_FALSE(list.is_free(kNoBlock));
  EXPECT_FALSE(list.free(run_at(kBlocks - 1, 1)));
  EXPECT_EQ(list.available().value(), kBlocks - 199);
  EXPECT_EQ(list.allocate(PageCount{32}, PageCount{32}).first.value(), 0u);
  EXPECT_LE(memory.resident_pages(), 128u) << "a new list costs memory only where it was used";
}

TYPED_TEST(SwapAllocators, TheLongestIsAskedForFirst) {
  Pair<TypeParam> pair(4096, 0);
  pair.fill(0, pair.blocks());
  pair.release(10, 20);
  pair.release(320, 5);
  // Blist knows 20 and gets it; the others know that 25 are free, and halve what they asked for.
  const BlockRun run = allocate_longest(pair.list(), PageCount{64});
  EXPECT_EQ(run.first.value(), 10u);
  EXPECT_EQ(run.count.value(), swap_test::Rules<TypeParam>::kNextFit ? 20u : 12u);
}

TYPED_TEST(SwapAllocators, FragmentationIsTold) {
  Pair<TypeParam> pair(1000, 0);
  pair.fill(0, pair.blocks());
  for (const std::uint64_t first : {0u, 10u, 20u}) pair.release(first, 1);
  pair.release(100, 4);
  pair.release(990, 10);
  const FreeRanges f = free_ranges(pair.list());
  EXPECT_EQ(f.ranges, 5u);
  EXPECT_EQ(f.blocks, 17u);
  EXPECT_EQ(f.largest, 10u);
  EXPECT_DOUBLE_EQ(f.average(), 3.4);
  EXPECT_EQ(f.histogram[0], 3u);
  EXPECT_EQ(f.histogram[2], 1u) << "3 and 4";
  EXPECT_EQ(f.histogram[4], 1u) << "8 to 12";
}

TEST(FreeRanges, ClassesAreFibonaccis) {
  EXPECT_EQ(FreeRanges::class_floor(0), 1u);
  EXPECT_EQ(FreeRanges::class_floor(4), 8u);
  for (std::uint64_t n = 1; n < 3000; ++n) {
    const std::size_t c = FreeRanges::class_of(n);
    ASSERT_LE(FreeRanges::class_floor(c), n);
    ASSERT_GT(FreeRanges::class_floor(c + 1), n);
  }
  EXPECT_EQ(FreeRanges::class_of(~std::uint64_t{0}), FreeRanges::kClasses - 1);
}

template <class A>
void random_history(std::uint64_t seed) {
  static constexpr std::uint64_t kSizes[] = {
      1, 2, 31, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 64 * 64 - 1, 64 * 64, 64 * 64 + 1, 8193, 20000};
  static constexpr std::uint64_t kBoundaries[] = {0, 0, 0, 1, 2, 16, 32, 64, 128, 1024};
  Random random(seed);
  Pair<A> pair(kSizes[random.below(std::size(kSizes))], kBoundaries[random.below(std::size(kBoundaries))]);
  const std::uint64_t size = pair.blocks();
  if (random.one_in(4)) pair.fill(0, size);
  const std::uint64_t typical = random.one_in(2) ? 8 : random.between(1, 200);
  for (int step = 0; step < 300; ++step) {
    const std::uint64_t first = random.below(size);
    const std::uint64_t room = size - first;
    switch (random.below(5)) {
      case 0:
      case 1: {
        const std::uint64_t min = random.between(1, typical);
        pair.allocate(min, random.one_in(2) ? min : min + random.below(100));
        break;
      }
      case 2:
        pair.release(first, random.between(1, std::min(room, typical)));
        break;
      case 3:
        pair.release(first, random.below(3));
        break;
      default:
        pair.fill(first, random.between(1, std::min(room, random.one_in(10) ? size : 5)));
    }
    if (testing::Test::HasFailure()) return;
    if (step % (size > 1000 ? 50 : 5) == 0) pair.check();
  }
  pair.check();
}

TYPED_TEST(SwapAllocators, RandomHistoriesAgreeWithABitmap) {
  for_each_seed(1000, swap_test::rounds(1000), random_history<TypeParam>);
}

}  // namespace
}  // namespace enchilada
