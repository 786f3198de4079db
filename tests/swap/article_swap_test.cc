// The article's own words on swap, step by step (section 3 and the answer to question 9.1): two areas A and B
// in an interleave of four, "A B C D A B C D", in blocks of 16 pages; C and D are holes.
#include <gtest/gtest.h>

#include <string>

#include "swap/swap_allocator.h"
#include "swap/swap_space.h"
#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::Rig;
using swap_test::SharedMemory;

constexpr std::uint64_t kAreaPages = 64;
constexpr SwapGeometry kTwoAreas{.device_pages = {kAreaPages, kAreaPages, 0, 0}, .slots = 4, .stripe = 16};

TEST(TheArticlesSwap, SpaceIsReservedForFourAreasEvenIfThereAreTwo) {
  EXPECT_EQ(kTwoAreas.linear_blocks(), 4 * kAreaPages);
  EXPECT_EQ(kTwoAreas.usable_blocks(), 2 * kAreaPages);
  std::string row;
  for (std::uint32_t b = 0; b < 4 * kAreaPages; b += 16) {
    row += "ABCD"[kTwoAreas.locate(SwapBlock{b}).device];
    for (std::uint32_t i = b; i < b + 16; ++i) {
      EXPECT_EQ(kTwoAreas.locate(SwapBlock{i}).device, kTwoAreas.locate(SwapBlock{b}).device);
      EXPECT_EQ(kTwoAreas.usable(SwapBlock{i}), b / 16 % 4 < 2) << "C and D are holes";
    }
  }
  EXPECT_EQ(row, "ABCDABCDABCDABCD");
}

TEST(TheArticlesSwap, ALinearSwathComesOutInterleavedAcrossTheDisks) {
  Rig rig({.geometry = kTwoAreas});
  PagerHandle h;
  std::vector<std::uint64_t> patterns;
  for (std::uint64_t i = 1; i <= 64; ++i) patterns.push_back(i);
  for (const PagerReturn r : swap_test::put(rig, h, 0, patterns)) EXPECT_EQ(r, PagerReturn::kOk);
  // 64 pages in a row: two stripes on each disk, the disks by turns, no run across a stripe's end.
  EXPECT_EQ(rig.disks[0]->writes(), 2u);
  EXPECT_EQ(rig.disks[1]->writes(), 2u);
  std::string devices;
  std::vector<std::uint64_t> places;
  rig.pager->visit(h, [&](PageIndex at, const SwapCopy& copy) {
    const DeviceBlock d = kTwoAreas.locate(copy.block);
    if (at.value() % 16 == 0) {
      devices += "ABCD"[d.device];
      places.push_back(d.block);
    }
    return true;
  });
  EXPECT_EQ(devices, "ABAB");
  EXPECT_EQ(places, (std::vector<std::uint64_t>{0, 0, 16, 16}));
}

/// "Each A-B sequence requires a list node to account for because C and D are holes."
TEST(TheArticlesSwap, AListNeedsANodeForEachABSequenceOfACompletelyUnusedSwap) {
  SharedMemory list_memory(SwapList3x::bytes_with_nodes(64));
  SwapList3x list = SwapList3x::create(list_memory.span(), PageCount{4 * kAreaPages}, PageCount{16});
  const std::uint64_t with_all_four = list.free_nodes();  // one hole, all of it
  for (std::uint32_t b = 0; b < 4 * kAreaPages; b += 64) {
    EXPECT_EQ(list.fill({SwapBlock{b + 32}, PageCount{32}}).value(), 32u);
  }
  EXPECT_EQ(list.available().value(), 2 * kAreaPages);
  EXPECT_EQ(with_all_four - list.free_nodes(), 3u) << "A-B four times: three nodes more than one hole needs";
}

/// "The hit of preallocating all the bitmaps up front": it stays the same however fragmented swap is.
TEST(TheArticlesSwap, ABitmapIsSetAsideOnceAndFragmentationCostsNothing) {
  constexpr PageCount kBlocks{65536};
  SharedMemory memory(Blist1999::required_bytes(kBlocks));
  Blist1999 list = Blist1999::create(memory.span(), kBlocks, PageCount{16});
  for (std::uint32_t b = 0; b < kBlocks.value(); b += 2) {
    EXPECT_EQ(list.fill({SwapBlock{b}, PageCount{1}}).value(), 1u);
  }
  EXPECT_EQ(list.available().value(), kBlocks.value() / 2);
  EXPECT_LE(Blist1999::required_bytes(kBlocks), kBlocks.value() / 8 * 5 / 2) << "about two bits a block";
  // A list would need a node for each of 32768 holes.
  EXPECT_EQ(list.allocate(PageCount{2}, PageCount{2}).count.value(), 0u);
  EXPECT_EQ(list.allocate(PageCount{1}, PageCount{1}).first.value(), 1u);
}

/// "Kernel memory must be allocated on the fly to create a new list node", while swap is freed.
TEST(TheArticlesSwap, FreeingInTheMiddleNeedsANodeAndThereIsNone) {
  SharedMemory memory(SwapList3x::bytes_with_nodes(2));
  SwapList3x list = SwapList3x::create(memory.span(), PageCount{256}, PageCount{16});
  EXPECT_EQ(list.fill({SwapBlock{0}, PageCount{256}}).value(), 256u);
  std::uint32_t block = 1;
  for (; list.free_nodes() > 0; block += 2) ASSERT_TRUE(list.free({SwapBlock{block}, PageCount{1}}));
  EXPECT_EQ(list.nodeless(), 0u);
  EXPECT_TRUE(list.free({SwapBlock{block}, PageCount{1}}));
  EXPECT_EQ(list.nodeless(), 1u) << "the daemon of 3.x would wait for memory here";
}

}  // namespace
}  // namespace enchilada
