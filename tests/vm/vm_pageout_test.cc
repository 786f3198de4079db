// PageQueues and PageDaemon: the use counts of freebsd-vm.md §1.8, the order of reclaim, withdrawal, giving
// back.
#include "vm/vm_pageout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "support/fake_machine.h"

namespace enchilada::test {
namespace {

std::uint64_t get(const Counter& c) {
  return c.load();
}

FakeOptions options(bool bits, std::uint64_t frames = 128) {
  FakeOptions o;
  o.limit = o.budget = frames;
  o.reference_bits = bits;
  o.one_address = !bits;
  return o;
}

FakeOptions with_scan(ActiveScanMode scan) {
  FakeOptions o = options(true);
  o.modes.set(scan);
  return o;
}

/// One page, mapped; scans are the test's.
struct OnePage {
  explicit OnePage(ActiveScanMode scan) : m(with_scan(scan)), map(m.make_map()), base(m.map_pages(*map, 1)) {
    (void)m.write(*map, base, 1);
    frame = static_cast<FakePmap&>(map->pmap()).table.at(base.value()).frame;
  }
  Page& page() { return m.system->page(frame); }
  FakePmap::Pte& pte() { return static_cast<FakePmap&>(map->pmap()).table.at(base.value()); }
  /// Scans until the page leaves active; returns the number of scans.
  unsigned idle_scans() {
    for (unsigned n = 1; n < 200; ++n) {
      m.system->daemon().scan_active(1);
      if (page().queue() != PageQueue::kActive) return n;
    }
    return 0;
  }
  FakeMachine m;
  std::unique_ptr<VmMap> map;
  VirtAddr base;
  FrameNumber frame;
};

class ActCount : public ::testing::TestWithParam<ActiveScanMode> {};
INSTANTIATE_TEST_SUITE_P(Scans, ActCount,
                         ::testing::Values(ActiveScanMode::kPressure, ActiveScanMode::kRequeue,
                                           ActiveScanMode::kTwoHand),
                         [](const auto& info) {
                           std::string name(name_of(info.param));
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(ActCount, SaturatesAt64AndThenNeeds64IdleScans) {
  OnePage one(GetParam());
  for (int i = 0; i < 40; ++i) {
    one.pte().referenced = true;
    one.m.system->daemon().scan_active(1);
  }
  EXPECT_EQ(one.page().act_count(), kActMax);
  EXPECT_EQ(one.idle_scans(), 64u);
}

TEST_P(ActCount, ActivatedWithItsBitClearLeavesOnTheFifthIdleScan) {
  OnePage one(GetParam());
  one.pte().referenced = false;
  EXPECT_EQ(one.page().act_count(), kActInit);
  EXPECT_EQ(one.idle_scans(), 5u);
}

TEST_P(ActCount, JustFaultedGoesToNineAndLeavesNineScansLater) {
  OnePage one(GetParam());
  one.pte().referenced = true;
  one.m.system->daemon().scan_active(1);
  EXPECT_EQ(one.page().act_count(), 9u);
  EXPECT_EQ(one.idle_scans(), 9u);
}

TEST(PageBusy, SharedAndExclusiveExclude) {
  Page page;
  ASSERT_TRUE(page.try_share());
  ASSERT_TRUE(page.try_share());
  EXPECT_FALSE(page.try_busy());
  page.unshare();
  page.unshare();
  ASSERT_TRUE(page.try_busy());
  EXPECT_FALSE(page.try_share());
  page.unbusy();
  EXPECT_FALSE(page.is_busy());
}

class Daemon : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Machines, Daemon, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ReferenceBits" : "HostLike"; });

TEST_P(Daemon, NothingMovesWithoutShortage) {
  FakeMachine m(options(GetParam(), 256));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 150);
  for (int round = 0; round < 5; ++round) {
    for (std::uint64_t i = 0; i < 150; ++i) (void)m.write(*map, m.page(base, i), i);
  }
  EXPECT_EQ(get(m.counters.pdpages), 0u);
  EXPECT_EQ(get(m.counters.inactive_count), 0u);
  EXPECT_EQ(get(m.counters.active_count), get(m.counters.zfod_pages));
}

TEST_P(Daemon, AReclaimRunIsBounded) {
  FakeMachine m(options(GetParam(), 4096));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 6000);
  std::uint64_t most = 0;
  for (std::uint64_t i = 0; i < 6000; ++i) {
    const std::uint64_t before = get(m.counters.pdpages);
    (void)m.write(*map, m.page(base, i), i);
    most = std::max(most, get(m.counters.pdpages) - before);
  }
  EXPECT_GT(get(m.counters.dfree), 1000u);
  EXPECT_LE(most, 1200u);  // the first run also has to age pages that are all equally new
}

TEST_P(Daemon, WorkAheadIsLittleWorkAndNoneWithoutShortage) {
  FakeMachine m(options(GetParam(), 4096));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 6000);
  m.system->daemon().work_ahead();
  EXPECT_EQ(get(m.counters.pdpages), 0u);
  for (std::uint64_t i = 0; i < 6000; ++i) (void)m.write(*map, m.page(base, i), i);
  VmPhys& frames = m.system->free_frames();
  std::uint64_t gained = 0;
  std::array<FrameNumber, 16> taken;
  for (int round = 0; round < 200; ++round) {
    const std::size_t n = frames.allocate(taken);  // as faults would
    const std::uint64_t free = frames.free_count();
    const std::uint64_t before = get(m.counters.pdpages);
    m.system->daemon().work_ahead();
    EXPECT_LE(get(m.counters.pdpages) - before, 6 * PageDaemon::kAhead + 2 * PageDaemon::kLaunder);
    EXPECT_LE(frames.free_count(), free + PageDaemon::kAhead + PageDaemon::kLaunder);
    gained += frames.free_count() - free;
    frames.free({taken.data(), n});
  }
  EXPECT_GT(gained, 0u);
}

TEST_P(Daemon, HotPagesStayColdPagesGo) {
  FakeMachine m(options(GetParam(), 512));
  auto map = m.make_map();
  const VirtAddr hot = m.map_pages(*map, 128);
  const VirtAddr cold = m.map_pages(*map, 4000);
  std::mt19937 random(3);
  for (std::uint64_t i = 0; i < 128; ++i) (void)m.write(*map, m.page(hot, i), i);
  std::uint64_t in_before = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    (void)m.write(*map, m.page(cold, i), i);
    for (int k = 0; k < 8; ++k) (void)m.read(*map, m.page(hot, random() % 128));
    if (i == 1000) in_before = get(m.counters.swapin);
  }
  EXPECT_LE(get(m.counters.swapin) - in_before, 3000u / 25);  // hardly any hot page had to come back
}

TEST_P(Daemon, CleanPagesAreDroppedWithoutAWrite) {
  FakeMachine m(options(GetParam(), 128));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 400);
  for (std::uint64_t i = 0; i < 400; ++i) (void)m.write(*map, m.page(base, i), i);
  for (std::uint64_t i = 0; i < 400; ++i) (void)m.read(*map, m.page(base, i));
  const std::uint64_t written = get(m.counters.swappgsout);
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 400; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
  }
  EXPECT_EQ(get(m.counters.swappgsout), written);
}

TEST_P(Daemon, WritesClustersOfNeighbours) {
  FakeMachine m(options(GetParam(), 1024));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 3000);
  for (std::uint64_t i = 0; i < 3000; ++i) (void)m.write(*map, m.page(base, i), i);
  EXPECT_GT(get(m.counters.swappgsout), 1500u);
  EXPECT_GE(get(m.counters.swappgsout) / get(m.counters.swapout), 12u);
  if (!GetParam()) {
    EXPECT_GE(m.pmaps.largest_remove, 16u);
  }
}

TEST_P(Daemon, GivesFramesBackAndLosesNothing) {
  FakeMachine m(options(GetParam(), 512));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 400);
  for (std::uint64_t i = 0; i < 400; ++i) (void)m.write(*map, m.page(base, i), i);
  m.memory.set_budget(100);
  const PageCount got = m.system->daemon().shrink_to(PageCount{100});
  EXPECT_GE(got.value(), 300u);
  EXPECT_LE(m.system->free_frames().granted(), 112u);
  m.system->validate();
  for (std::uint64_t i = 0; i < 400; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
  EXPECT_LE(m.system->free_frames().granted(), 112u);
}

TEST_P(Daemon, PinnedPagesCountAsUsed) {
  FakeMachine m(options(GetParam(), 128));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 500);
  for (std::uint64_t i = 0; i < 16; ++i) (void)m.write(*map, m.page(base, i), i);
  auto& table = static_cast<FakePmap&>(map->pmap()).table;
  for (std::uint64_t i = 0; i < 16; ++i)
    m.pmaps.pinned.insert(table.at(m.page(base, i).value()).frame.value());
  for (std::uint64_t i = 16; i < 500; ++i)
    ASSERT_EQ(m.write(*map, m.page(base, i), i), FaultResult::kResolved);
  for (std::uint64_t i = 0; i < 16; ++i) EXPECT_EQ(table.count(m.page(base, i).value()), 1u);
  EXPECT_GT(get(m.counters.pdrefused), 0u);
  m.pmaps.pinned.clear();
  for (std::uint64_t i = 0; i < 500; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
}

TEST_P(Daemon, PagesOfADeadObjectWaitWhileTheMachinePinsThem) {
  FakeMachine m(options(GetParam(), 64));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 20);
  for (std::uint64_t i = 0; i < 20; ++i) (void)m.write(*map, m.page(base, i), i);
  auto& table = static_cast<FakePmap&>(map->pmap()).table;
  for (std::uint64_t i = 0; i < 3; ++i) {
    m.pmaps.pinned.insert(table.at(m.page(base, i).value()).frame.value());
  }
  ASSERT_EQ(map->remove({base, m.page(base, 20)}), KernReturn::kSuccess);
  EXPECT_EQ(m.system->queues().length(PageQueue::kLimbo), 3u);
  EXPECT_EQ(m.resident(), 3u);
  m.system->validate();
  m.pmaps.pinned.clear();
  const VirtAddr again = m.map_pages(*map, 200);
  for (std::uint64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(m.write(*map, m.page(again, i), i), FaultResult::kResolved);
  }
  EXPECT_EQ(m.system->queues().length(PageQueue::kLimbo), 0u);
  for (std::uint64_t i = 0; i < 200; ++i) ASSERT_EQ(m.read(*map, m.page(again, i)), i);
}

TEST_P(Daemon, ALoopLargerThanMemoryIsReadInLongRuns) {
  FakeMachine m(options(GetParam(), 1024));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 1300);
  for (std::uint64_t i = 0; i < 1300; ++i) (void)m.write(*map, m.page(base, i), i);
  const std::uint64_t reads = get(m.counters.swapin);
  for (int round = 0; round < 4; ++round) {
    for (std::uint64_t i = 0; i < 1300; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
  }
  EXPECT_LE(get(m.counters.swapin) - reads, 4 * 1300u / 16);
}

TEST_P(Daemon, NearlyFullSwapGivesUpCopiesOfResidentPages) {
  FakeOptions o = options(GetParam(), 128);
  o.swap_pages = 320;
  o.nearly_full_below = 32;
  FakeMachine m(o);
  auto map = m.make_map();
  const VirtAddr base =
      m.map_pages(*map, 400);  // 400 pages in 128 frames and 320 blocks: copies must not be kept
  for (std::uint64_t round = 0; round < 4; ++round) {
    for (std::uint64_t i = 0; i < 400; ++i) {
      ASSERT_EQ(m.write(*map, m.page(base, i), round * 1000 + i), FaultResult::kResolved)
          << round << ' ' << i;
    }
  }
  for (std::uint64_t i = 0; i < 400; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), 3000 + i);
}

/// Pages 0 to 15 of one object, written, sent out, one of each group of eight changed and sent out alone;
/// then all are read and sent out again.
std::uint64_t pages_regrouped(FakeMachine& m, VmMap& map, VirtAddr base) {
  VmObject* object = nullptr;
  for (std::uint64_t i = 0; i < 16; ++i) (void)m.write(map, m.page(base, i), i);
  map.for_each_entry([&](const VmMap::EntryView& e) { object = e.object; });
  const auto send_out = [&](std::uint64_t from, std::uint64_t n) {
    m.system->daemon().pageout_object(*object, PageIndex{from}, PageCount{n});
  };
  send_out(0, 16);
  for (const std::uint64_t i : {3u, 8u}) {
    (void)m.write(map, m.page(base, i), 100 + i);
    send_out(0, 16);
  }
  EXPECT_EQ(get(m.counters.regrouped), 0u);  // nothing lay apart until then
  for (int round = 0; round < 2; ++round) {  // the second time they lie together
    for (std::uint64_t i = 0; i < 16; ++i) {
      EXPECT_EQ(m.read(map, m.page(base, i)), i == 3 || i == 8 ? 100 + i : i);
      (void)m.write(map, m.page(base, i), i == 3 || i == 8 ? 100 + i : i);  // dirty, and equal to its copy
    }
    send_out(0, 16);
  }
  for (const std::uint64_t first : {0u, 8u}) {
    const PagerRun run = m.pager.has_page(object->handle, PageIndex{first}, PageCount{0}, PageCount{7});
    EXPECT_TRUE(run.present);
    if (!m.pager.nearly_full()) {
      EXPECT_EQ(run.after.value() == 7, get(m.counters.regrouped) != 0);
    }
  }
  for (std::uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(m.read(map, m.page(base, i)), i == 3 || i == 8 ? 100 + i : i);
  }
  return get(m.counters.regrouped);
}

TEST_P(Daemon, NeighboursWhoseCopiesLieApartAreStoredTogether) {
  FakeOptions o = options(GetParam(), 128);
  o.swap_places = true;
  o.tunables.readahead_min = o.tunables.readahead_max = PageCount{1};
  FakeMachine m(o);
  auto map = m.make_map();
  EXPECT_EQ(pages_regrouped(m, *map, m.map_pages(*map, 16)), 16u);
}

TEST_P(Daemon, NothingIsRegroupedWhenToldNotToOrWhenSwapIsShort) {
  for (const bool is_short : {false, true}) {
    FakeOptions o = options(GetParam(), 128);
    o.swap_places = true;
    o.tunables.readahead_min = o.tunables.readahead_max = PageCount{1};
    if (!is_short) o.tunables.regroup_cluster = PageCount{1};
    if (is_short) o.nearly_full_below = o.swap_pages = 1000;
    FakeMachine m(o);
    auto map = m.make_map();
    EXPECT_EQ(pages_regrouped(m, *map, m.map_pages(*map, 16)), 0u);
  }
}

TEST_P(Daemon, PageoutAndDeactivateOnRequest) {
  FakeMachine m(options(GetParam(), 256));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 100);
  for (std::uint64_t i = 0; i < 100; ++i) (void)m.write(*map, m.page(base, i), i);
  VmObject* object = nullptr;
  map->for_each_entry([&](const VmMap::EntryView& e) { object = e.object; });
  m.system->daemon().deactivate_object(*object, PageIndex{0}, PageCount{50});
  EXPECT_EQ(get(m.counters.inactive_count), 50u);
  m.system->daemon().pageout_object(*object, PageIndex{0}, PageCount{80});
  EXPECT_EQ(object->pages.find(PageIndex{79}), kNoFrame);
  EXPECT_EQ(get(m.counters.swappgsout), 80u);
  EXPECT_LE(get(m.counters.swapout), 3u);
  for (std::uint64_t i = 0; i < 100; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
}

}  // namespace
}  // namespace enchilada::test
