// TLBs, walks, shoot-downs, coherence and charges, with expectations computed by hand.
#include "machine/hardware.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <optional>

#include "machine/timed_disk.h"
#include "model/random_source.h"

namespace enchilada {
namespace {

constexpr VirtAddr at_page(std::uint64_t page) {
  return VirtAddr{page << kPageShift};
}

TEST(Tlb, EntriesOfOneSpaceAreNotAnothers) {
  Tlb tlb(TlbShape{});
  tlb.fill(1, at_page(5), false, FrameNumber{50}, false);
  tlb.fill(2, at_page(5), false, FrameNumber{60}, true);
  Tlb::Hit hit = tlb.lookup(1, at_page(5));
  ASSERT_EQ(hit.level, Tlb::Level::kFirst);
  EXPECT_EQ(hit.entry->frame, 50u);
  EXPECT_FALSE(hit.entry->written);
  hit = tlb.lookup(2, at_page(5));
  ASSERT_EQ(hit.level, Tlb::Level::kFirst);
  EXPECT_EQ(hit.entry->frame, 60u);
  EXPECT_EQ(tlb.lookup(3, at_page(5)).level, Tlb::Level::kMiss);
  tlb.flush_space(1);
  EXPECT_EQ(tlb.lookup(1, at_page(5)).level, Tlb::Level::kMiss);
  EXPECT_EQ(tlb.lookup(2, at_page(5)).level, Tlb::Level::kFirst);
  EXPECT_EQ(tlb.counts().erased, 1u);
}

TEST(Tlb, ALargeEntryTranslates512PagesAndGoesAsOne) {
  Tlb tlb(TlbShape{});
  tlb.fill(1, at_page(512 + 7), true, FrameNumber{1024}, false);
  for (const std::uint64_t page : {512u, 700u, 1023u}) {
    const Tlb::Hit hit = tlb.lookup(1, at_page(page));
    ASSERT_EQ(hit.level, Tlb::Level::kFirst) << page;
    EXPECT_TRUE(hit.large);
    EXPECT_EQ(hit.entry->frame, 1024u);
  }
  EXPECT_EQ(tlb.lookup(1, at_page(511)).level, Tlb::Level::kMiss);
  EXPECT_EQ(tlb.lookup(1, at_page(1024)).level, Tlb::Level::kMiss);
  tlb.invalidate(1, at_page(600));
  EXPECT_EQ(tlb.lookup(1, at_page(512)).level, Tlb::Level::kMiss);
}

TEST(Tlb, WhatFallsOutOfTheFirstLevelIsInTheSecond) {
  Tlb tlb({.small = {4, 2}, .large = {}, .second = {8, 2}});
  for (const std::uint64_t page : {0u, 2u, 4u}) tlb.fill(1, at_page(page), false, FrameNumber{9}, false);
  EXPECT_EQ(tlb.lookup(1, at_page(0)).level, Tlb::Level::kSecond);  // 0 moves up, 2 falls out
  EXPECT_EQ(tlb.lookup(1, at_page(0)).level, Tlb::Level::kFirst);
  EXPECT_EQ(tlb.lookup(1, at_page(4)).level, Tlb::Level::kFirst);
  EXPECT_EQ(tlb.lookup(1, at_page(2)).level, Tlb::Level::kSecond);
  EXPECT_EQ(tlb.counts().second_level_hits, 2u);
  EXPECT_EQ(tlb.counts().misses, 0u);
}

TEST(Tlb, NeverAnswersWhatWasNotFilledOrWasInvalidated) {
  model::Random random(1);
  Tlb tlb({.small = {16, 4}, .large = {8, 2}, .second = {64, 4}});
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint32_t> truth;
  std::uint64_t hits = 0;
  for (int i = 0; i < 100000; ++i) {
    const auto space = static_cast<SpaceId>(random.below(3));
    const std::uint64_t page = random.below(150);
    if (random.one_in(400)) {
      tlb.flush_space(space);
      std::erase_if(truth, [&](const auto& e) { return e.first.first == space; });
    } else if (random.one_in(10)) {
      tlb.invalidate(space, at_page(page));
      truth.erase({space, page});
    } else if (const Tlb::Hit hit = tlb.lookup(space, at_page(page)); hit.level != Tlb::Level::kMiss) {
      const auto known = truth.find({space, page});
      ASSERT_NE(known, truth.end());
      ASSERT_EQ(hit.entry->frame, known->second);
      ++hits;
    } else {
      const auto frame = static_cast<std::uint32_t>(random.below(1000));
      tlb.fill(space, at_page(page), false, FrameNumber{frame}, false);
      truth[{space, page}] = frame;
    }
  }
  EXPECT_GT(hits, 10000u);
}

/// A machine whose tables are what the test says.
class Machine : public ::testing::Test {
 protected:
  void make(const HardwareOptions& options = {}) { hw.emplace(options, PageCount{1024}, clock); }
  PmapWalk walk(SpaceId space, std::uint64_t page, std::uint32_t frame, bool write = false) {
    PmapWalk w{
        .space = space, .va = at_page(page), .write = write, .found = true, .frame = FrameNumber{frame}};
    w.reads = 4;
    for (unsigned level = 0; level < 4; ++level) w.entry[level] = level * kPageSize + page * 8;
    return w;
  }
  void access(SpaceId space, std::uint64_t page, std::uint32_t frame, bool write = false) {
    hw->walked(walk(space, page, frame, write));
  }
  void invalidate(SpaceId space, std::uint64_t page, std::uint64_t pages = 1) {
    hw->invalidated({&space, 1}, {at_page(page), at_page(page + pages)});
  }
  const HardwareCounts& counts() { return hw->counts(); }

  VirtualClock clock;
  std::optional<Hardware> hw;
};

TEST_F(Machine, AMissReadsTheTablesThroughTheCachesAndAHitDoesNot) {
  make();
  const CostModel cost;
  const std::uint64_t miss = (cost.l1 + cost.l2 + cost.l3 + cost.memory).value();
  access(1, 3, 30);
  EXPECT_EQ(counts().walks, 1u);
  EXPECT_EQ(counts().walk_reads, 4u);
  EXPECT_EQ(counts().memory_reads, 5u);
  EXPECT_EQ(counts().spent(Charge::kWalk).value(), 4 * miss);
  EXPECT_EQ(counts().spent(Charge::kCache).value(), miss);
  access(1, 3, 30);
  EXPECT_EQ(counts().walks, 1u);
  EXPECT_EQ(counts().spent(Charge::kCache).value(), miss + cost.l1.value());
  access(1, 4, 31);  // its entries lie beside those of page 3
  EXPECT_EQ(counts().walks, 2u);
  EXPECT_EQ(counts().memory_reads, 6u);
  EXPECT_EQ(counts().spent(Charge::kWalk).value(), 4 * miss + 4 * cost.l1.value());
  EXPECT_EQ(clock.now().value(), hw->time_of(0).value() / 1000);
  EXPECT_EQ(counts().stale, 0u);
}

TEST_F(Machine, TheFirstWriteThroughAnEntrySetsTheDirtyBit) {
  make();
  access(1, 3, 30);
  access(1, 3, 30, true);
  EXPECT_EQ(counts().dirty_assists, 1u);
  access(1, 3, 30, true);
  EXPECT_EQ(counts().dirty_assists, 1u);
  access(1, 4, 31, true);
  EXPECT_EQ(counts().dirty_assists, 1u);
}

TEST_F(Machine, AFaultIsATrapAndNoAccess) {
  make();
  PmapWalk w = walk(1, 3, 0);
  w.found = false;
  hw->walked(w);
  EXPECT_EQ(counts().faults, 1u);
  EXPECT_EQ(counts().accesses, 0u);
  EXPECT_EQ(counts().spent(Charge::kFault).value(), CostModel{}.fault_trap.value());
}

/// Four CPUs; 0, 1 and 2 run space 7, CPU 3 ran it and now runs another one.
TEST_F(Machine, AShootdownInterruptsWhoRunsTheSpaceAndLeavesTheOthersToTheirSwitch) {
  make({.cpus = 4});
  for (const unsigned cpu : {0u, 1u, 2u, 3u}) {
    hw->run_on(cpu);
    access(7, 10, 100);
    access(7, 11, 101);
  }
  access(8, 10, 200);
  hw->run_on(0);
  hw->reset_counts();
  const CostModel cost;
  const std::uint64_t before = hw->time_of(0).value();
  const std::uint64_t target_before = hw->time_of(1).value();
  invalidate(7, 10);
  hw->note(PmapEvent::kShootdown, 1);
  EXPECT_EQ(counts().shootdowns, 1u);
  EXPECT_EQ(counts().interrupts, 2u);
  EXPECT_EQ(counts().deferred, 1u);
  EXPECT_EQ(counts().pages_invalidated, 3u);
  EXPECT_EQ(hw->time_of(0).value() - before,
            (cost.invalidate_page + cost.interrupt_send + cost.interrupt_wait).value());
  EXPECT_EQ(hw->time_of(1).value() - target_before, (cost.invalidate_page + cost.interrupt_taken).value());
  for (const unsigned cpu : {0u, 1u, 2u}) {
    hw->run_on(cpu);
    access(7, 11, 101);  // still there
    access(7, 10, 300);  // gone: another frame is no surprise
  }
  EXPECT_EQ(counts().walks, 3u);
  hw->run_on(3);
  access(7, 11, 101);  // all of space 7 went
  EXPECT_EQ(counts().walks, 4u);
  EXPECT_EQ(counts().stale, 0u);
}

TEST_F(Machine, SeveralRangesOfOneShootdownInterruptOnce) {
  make({.cpus = 2});
  for (const unsigned cpu : {1u, 0u}) {
    hw->run_on(cpu);
    for (std::uint64_t p = 0; p < 9; ++p) access(7, p, static_cast<std::uint32_t>(p));
  }
  for (std::uint64_t p = 0; p < 9; p += 2) invalidate(7, p);
  hw->note(PmapEvent::kShootdown, 1);
  EXPECT_EQ(counts().shootdowns, 1u);
  EXPECT_EQ(counts().interrupts, 1u);
}

TEST_F(Machine, ALargeRangeFlushesTheSpace) {
  make();
  access(1, 3, 30);
  access(2, 3, 30);
  invalidate(2, 0, 1000);
  EXPECT_EQ(counts().spaces_flushed, 1u);
  EXPECT_EQ(counts().pages_invalidated, 0u);
  access(1, 3, 30);
  EXPECT_EQ(counts().walks, 2u);
}

TEST_F(Machine, AForgottenInvalidationIsNoticed) {
  make();
  access(1, 3, 30);
  access(1, 3, 31);
  EXPECT_EQ(counts().stale, 1u);
  PmapWalk gone = walk(1, 3, 31);
  gone.found = false;
  hw->walked(gone);
  EXPECT_EQ(counts().stale, 2u);
  access(1, 4, 40);
  PmapWalk read_only = walk(1, 4, 40, true);
  read_only.found = false;
  hw->walked(read_only);  // a write to a page that could only be read
  EXPECT_EQ(counts().stale, 2u);
  access(1, 5, 50, true);
  PmapWalk taken = walk(1, 5, 50, true);
  taken.found = false;
  hw->walked(taken);  // it could be written before
  EXPECT_EQ(counts().stale, 3u);
}

TEST_F(Machine, WithoutSpaceIdsASwitchFlushes) {
  make({.space_ids = false});
  access(1, 3, 30);
  access(2, 3, 31);
  access(1, 3, 30);
  EXPECT_EQ(counts().walks, 3u);
  EXPECT_EQ(counts().switches, 2u);
  make();
  access(1, 3, 30);
  access(2, 3, 31);
  access(1, 3, 30);
  EXPECT_EQ(counts().walks, 2u);
}

TEST_F(Machine, AWriteTakesTheLineFromTheOtherCpu) {
  make({.cpus = 2});
  hw->run_on(0);
  access(1, 3, 30);
  hw->run_on(1);
  access(1, 3, 30, true);
  EXPECT_EQ(hw->cache(1, 0).counts().invalidations, 1u);
  EXPECT_EQ(hw->cache(2, 0).counts().invalidations, 1u);
  hw->run_on(0);
  const std::uint64_t misses = hw->cache(1, 0).counts().misses;
  access(1, 3, 30);
  EXPECT_EQ(hw->cache(1, 0).counts().misses, misses + 1);
}

class NoDisk final : public SwapDevice {
 public:
  [[nodiscard]] PageCount size() const override { return PageCount{1000}; }
  IoResult read(std::uint64_t, std::span<const IoSlice>) override { return IoResult::kOk; }
  IoResult write(std::uint64_t, std::span<const IoSlice>) override { return IoResult::kOk; }
};

TEST_F(Machine, ADiskSeeksOnlyWhereTheLastTransferDidNotEnd) {
  make({.cost = {.disk = kDiskOf2000}});
  NoDisk none;
  TimedDisk disk(none, *hw);
  std::array<std::byte, 4 * kPageSize> page;
  EXPECT_EQ(disk.write(10, page.data(), PageCount{4}), IoResult::kOk);
  EXPECT_EQ(disk.write(14, page.data(), PageCount{1}), IoResult::kOk);
  EXPECT_EQ(disk.read(10, page.data(), PageCount{2}), IoResult::kOk);
  EXPECT_EQ(counts().disk_seeks, 2u);
  EXPECT_EQ(counts().disk_pages, 7u);
  EXPECT_EQ(clock.now().value(), (kDiskOf2000.seek * 2 + kDiskOf2000.page * 7).value() / 1000);
}

}  // namespace
}  // namespace enchilada
