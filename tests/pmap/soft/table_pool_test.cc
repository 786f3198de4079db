// TablePool and PvLists: all or nothing, zeroed, nothing lost.
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "pmap/soft/pv_lists.h"
#include "pmap/soft/table_pool.h"

namespace enchilada {
namespace {

class PoolTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kBytes = 256 * kPageSize;
  std::vector<std::byte> block_ = std::vector<std::byte>(kBytes + 64);
  std::byte* start_ =
      reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(block_.data()) + 63) & ~63ul);
  Arena arena_{start_, kBytes};
};

TEST_F(PoolTest, TakesAllOrNothing) {
  TablePool pool(arena_, PageCount{5});
  ASSERT_EQ(pool.size(), 5u);
  std::array<TableIndex, 4> four{};
  ASSERT_TRUE(pool.take(four));
  std::array<TableIndex, 2> two{};
  EXPECT_FALSE(pool.take(two));
  EXPECT_EQ(pool.free_count(), 1u);
  pool.give(four[2]);
  EXPECT_TRUE(pool.take(two));
  EXPECT_EQ(pool.free_count(), 0u);
}

TEST_F(PoolTest, TablesArePageAlignedZeroAndKnowTheirEntries) {
  TablePool pool(arena_, PageCount{3});
  std::array<TableIndex, 3> tables{};
  ASSERT_TRUE(pool.take(tables));
  for (const TableIndex table : tables) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(pool.entries(table)) % kPageSize, 0u);
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      const x86::Pte* const pte = &pool.entry(table, slot);
      EXPECT_EQ(pte->load(), 0u);
      ASSERT_EQ(pool.table_of(pte), table);
      ASSERT_EQ(TablePool::slot_in_table(pte), slot);
    }
  }
}

TEST_F(PoolTest, AnArenaTooSmallGivesAnEmptyPool) {
  TablePool pool(arena_, PageCount{1000});
  EXPECT_EQ(pool.size(), 0u);
  std::array<TableIndex, 1> one{};
  EXPECT_FALSE(pool.take(one));
}

TEST_F(PoolTest, PinsCount) {
  PvLists pvs(arena_, PageCount{8}, false);
  const FrameNumber frame{3};
  EXPECT_FALSE(pvs.pinned(frame));
  pvs.pin(frame);
  pvs.pin(frame);
  pvs.unpin(frame);
  EXPECT_TRUE(pvs.pinned(frame));
  pvs.unpin(frame);
  EXPECT_FALSE(pvs.pinned(frame));
}

TEST(X86Format, SlotsAndSpans) {
  EXPECT_EQ(x86::span_of(1), kPageSize);
  EXPECT_EQ(x86::span_of(2), std::uint64_t{2} << 20);
  EXPECT_EQ(x86::span_of(4), std::uint64_t{1} << 39);
  const VirtAddr va{(std::uint64_t{5} << 39) + (std::uint64_t{6} << 30) + (std::uint64_t{7} << 21) +
                    (8 << 12)};
  EXPECT_EQ(x86::slot_of(va, 4), 5u);
  EXPECT_EQ(x86::slot_of(va, 3), 6u);
  EXPECT_EQ(x86::slot_of(va, 2), 7u);
  EXPECT_EQ(x86::slot_of(va, 1), 8u);
  EXPECT_EQ(x86::frame_of(x86::make_entry(0xfffffffe, x86::kDirty)), FrameNumber{0xfffffffe});
}

}  // namespace
}  // namespace enchilada
