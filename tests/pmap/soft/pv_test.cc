// Pv entries in both forms: what unmapping costs, what happens when they run out.
#include "soft_rig.h"

namespace enchilada {
namespace {

using namespace soft_rig;

SoftPmapOptions with(PvMode mode, std::size_t limit = 0) {
  SoftPmapOptions options;
  options.pv_limit = limit;
  options.modes.set(mode);
  return options;
}

class PvModes : public testing::TestWithParam<PvMode> {};
INSTANTIATE_TEST_SUITE_P(All, PvModes, testing::Values(PvMode::kList, PvMode::kChunk),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// The article's question 9.4: however many processes share a page, only those that map it are visited.
TEST_P(PvModes, FiveProcessesShareAPageThreeMapItThreeAreVisited) {
  Soft s(with(GetParam()));
  std::vector<std::unique_ptr<SoftPmap>> five;
  for (int i = 0; i < 5; ++i) {
    five.push_back(s.pmap());
    enter(*five.back(), page(1), frame(1));
  }
  for (const int i : {0, 2, 4}) enter(*five[static_cast<std::size_t>(i)], page(9), frame(7));
  const std::uint64_t before = s.events[PmapEvent::kPvListStep];
  const std::uint64_t targets = s.events[PmapEvent::kShootdownTarget];
  const std::uint64_t shootdowns = s.events[PmapEvent::kShootdown];
  remove_all(s, frame(7));
  EXPECT_EQ(s.events[PmapEvent::kPvListStep] - before, 3u);
  EXPECT_EQ(s.events[PmapEvent::kShootdownTarget] - targets, 3u);
  EXPECT_EQ(s.events[PmapEvent::kShootdown] - shootdowns, 1u) << "one shoot-down for all";
  for (const auto& p : five) EXPECT_EQ(p->mappings(), 1u);
}

TEST_P(PvModes, UnmappingABatchShootsDownOnce) {
  Soft s(with(GetParam()));
  auto p = s.pmap();
  std::vector<FrameNumber> all;
  for (std::uint64_t i = 0; i < 32; ++i) {
    enter(*p, page(i), frame(i));
    all.push_back(frame(i));
  }
  std::array<bool, 32> refused;
  s.system.remove_all(all, refused);
  EXPECT_EQ(s.events[PmapEvent::kShootdown], 1u);
  EXPECT_EQ(s.events[PmapEvent::kShootdownTarget], 1u);
  EXPECT_EQ(s.events[PmapEvent::kPvListStep], 32u);
}

// FreeBSD's pmap_remove_pages: with chunks an exit looks at its own entries, not along the lists of its
// frames.
TEST_P(PvModes, AnExitTakesItsOwnEntriesWhoeverElseMapsTheFrames) {
  constexpr std::uint64_t kSpaces = 20;
  Soft s(with(GetParam()));
  std::vector<std::unique_ptr<SoftPmap>> spaces;
  for (std::uint64_t i = 0; i < kSpaces; ++i) {
    spaces.push_back(s.pmap());
    for (std::uint64_t p = 0; p < 32; ++p) enter(*spaces.back(), page(p), frame(p));
    enter(*spaces.back(), page(400), frame(40 + i), Prot::kReadWrite, Wiring::kWired);
  }
  EXPECT_TRUE(write(*spaces[0], page(3)));
  const std::uint64_t steps = s.events[PmapEvent::kPvListStep];
  spaces.erase(spaces.begin());  // the first to come is the last on each list
  const std::uint64_t looked = s.events[PmapEvent::kPvListStep] - steps;
  EXPECT_EQ(looked, GetParam() == PvMode::kChunk ? 0u : 32 * kSpaces + 1);
  EXPECT_EQ(s.sink.modified[3], 1);
  EXPECT_EQ(s.system.pv_entries(), 33 * (kSpaces - 1));
  EXPECT_EQ(s.system.find_error(), nullptr);
}

// freebsd-vm.md §1.12: tiny cap, many spaces mapping one file.
TEST_P(PvModes, ExhaustionIsVisibleAndSurvivable) {
  constexpr std::uint64_t kSpaces = 7;
  Soft s(with(GetParam(), 168), kFrames);
  std::vector<std::unique_ptr<SoftPmap>> spaces;
  for (std::uint64_t i = 0; i < kSpaces; ++i) spaces.push_back(s.pmap());
  std::vector<int> stored(kFrames, 0);
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t p = 0; p < kSpaces; ++p) {
      for (std::uint64_t f = 0; f < kFrames; ++f) {
        const bool writes = (f + p) % 4 == 0;
        ASSERT_EQ(enter(*spaces[p], page(f), frame(f), writes ? Prot::kReadWrite : Prot::kRead), 1u);
        ASSERT_TRUE(writes ? write(*spaces[p], page(f)) : read(*spaces[p], page(f)));
        if (writes) stored[f] = 1;
        ASSERT_LE(s.system.pv_entries(), 168u);
      }
      ASSERT_EQ(s.system.find_error(), nullptr);
    }
  }
  for (std::uint64_t f = 0; f < kFrames; ++f) {
    EXPECT_TRUE(stored[f] == 0 || s.sink.modified[f] != 0 || s.system.is_modified(frame(f)))
        << "the dirty bit of frame " << f << " was lost";
  }
  EXPECT_GT(s.decided(PmapEvent::kPvCollected), 0u);
  EXPECT_GT(s.decided(PmapEvent::kRefault), 0u);
  EXPECT_GT(s.decided(PmapEvent::kHarvest), 0u);
  if (GetParam() == PvMode::kList) {
    EXPECT_GT(s.decided(PmapEvent::kPvHighWater), 0u);
  } else {
    EXPECT_GT(s.decided(PmapEvent::kPvExhausted), 0u);
    EXPECT_GT(s.decided(PmapEvent::kPvChunkReclaimed), 0u);
  }
}

TEST(PvList, TheHighWaterMarkTakesIdleMappingsFirst) {
  Soft s(with(PvMode::kList, 60));  // the mark is at 54
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 53; ++i) {
    enter(*p, page(i), frame(i));
    if (i % 2 == 0) {
      EXPECT_TRUE(read(*p, page(i)));
    }
  }
  EXPECT_EQ(s.decided(PmapEvent::kPvCollected), 0u);
  for (std::uint64_t i = 53; i < kFrames; ++i) enter(*p, page(i), frame(i));
  EXPECT_GT(s.decided(PmapEvent::kPvCollected), 0u);
  EXPECT_EQ(s.decided(PmapEvent::kPvExhausted), 0u) << "collected before it came to that";
  for (std::uint64_t i = 0; i < 53; i += 2) EXPECT_TRUE(read(*p, page(i))) << i;
  EXPECT_LT(s.system.pv_entries(), 60u);
}

TEST(PvList, ExhaustionDespiteTheMarkThrowsAwayAndGoesOn) {
  Soft s(with(PvMode::kList, 20));
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 18; ++i) enter(*p, page(i), frame(i), Prot::kReadWrite, Wiring::kWired);
  std::array<FrameNumber, 10> batch;
  for (std::uint64_t i = 0; i < batch.size(); ++i) batch[i] = frame(20 + i);
  // A batch that needs ten of the last two: the first is mapped, the others as long as there are entries.
  EXPECT_EQ(p->enter(page(100), batch, Prot::kRead, Access::kRead, Wiring::kNotWired), PageCount{2});
  EXPECT_EQ(s.decided(PmapEvent::kPvExhausted), 1u);
  EXPECT_EQ(enter(*p, page(200), frame(40)), 1u);
  EXPECT_TRUE(read(*p, page(200)));
  for (std::uint64_t i = 0; i < 18; ++i) EXPECT_TRUE(read(*p, page(i))) << "wired";
}

TEST(PvChunk, EntriesComeInPagesThatBelongToOneSpace) {
  Soft s(with(PvMode::kChunk), 600);
  auto p = s.pmap();
  auto q = s.pmap();
  for (std::uint64_t i = 0; i < 168; ++i) enter(*p, page(i), frame(i));
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkAllocated), 1u);
  enter(*q, page(0), frame(0));
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkAllocated), 2u) << "another space, another chunk";
  enter(*p, page(168), frame(168));
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkAllocated), 3u);
  EXPECT_EQ(s.system.pv_bytes(), 3 * kPageSize);
  p->remove(pages(0, 10));
  for (std::uint64_t i = 0; i < 10; ++i) enter(*p, page(300 + i), frame(300 + i));
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkAllocated), 3u) << "free entries are used first";
  q.reset();
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkFreed), 1u);
  EXPECT_EQ(s.system.pv_bytes(), 2 * kPageSize);
}

TEST(PvChunk, ReclaimTakesTheOldestChunkNotTheWired) {
  Soft s(with(PvMode::kChunk, 3 * 168), 600);
  auto old = s.pmap();
  auto young = s.pmap();
  for (std::uint64_t i = 0; i < 168; ++i) {
    enter(*old, page(i), frame(i), Prot::kReadWrite, i < 5 ? Wiring::kWired : Wiring::kNotWired);
    EXPECT_TRUE(write(*old, page(i)));
  }
  for (std::uint64_t i = 0; i < 2 * 168; ++i) enter(*young, page(i), frame(200 + i));
  // The old space's chunk holds wired entries and so stays: emptying it gives nothing, the search goes on.
  ASSERT_EQ(enter(*young, page(500), frame(590)), 1u);
  EXPECT_EQ(old->mappings(), 5u);
  for (std::uint64_t i = 5; i < 168; ++i) EXPECT_EQ(s.sink.modified[i], 1) << "dirty bit lost";
  EXPECT_TRUE(read(*young, page(500)));
  EXPECT_EQ(s.decided(PmapEvent::kPvChunkReclaimed), 2u);
}

// ---- tables thrown away

TEST(ThrowAway, TheWholePmapGoesWhatItKnewIsHarvestedAndFaultsBringItBack) {
  Soft s;
  const std::size_t tables = s.system.free_tables();
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 40; ++i) {
    enter(*p, page(i * 100), frame(i));
    if (i < 30) {
      EXPECT_TRUE(i < 10 ? write(*p, page(i * 100)) : read(*p, page(i * 100)));
    }
  }
  p->throw_away();
  EXPECT_EQ(p->mappings(), 0u);
  EXPECT_EQ(s.system.free_tables(), tables) << "empty tables are freed at once";
  EXPECT_EQ(s.decided(PmapEvent::kHarvest), 40u) << "30 reference bits and 10 dirty bits";
  EXPECT_EQ(s.decided(PmapEvent::kRefault), 0u);
  for (std::uint64_t i = 0; i < 25; ++i) enter(*p, page(i * 100), frame(i));
  EXPECT_EQ(s.decided(PmapEvent::kRefault), 25u);
  p->remove(pages(0, 5000));
  EXPECT_EQ(s.decided(PmapEvent::kHarvest), 40u) << "what the engine removes is not thrown away";
}

TEST(ThrowAway, WiredMappingsStay) {
  Soft s;
  auto p = s.pmap();
  enter(*p, page(1), frame(1), Prot::kReadWrite, Wiring::kWired);
  enter(*p, page(2), frame(2));
  p->throw_away();
  EXPECT_TRUE(read(*p, page(1)));
  EXPECT_FALSE(read(*p, page(2)));
}

class ForkTables : public testing::TestWithParam<ForkTablesMode> {};
INSTANTIATE_TEST_SUITE_P(All, ForkTables,
                         testing::Values(ForkTablesMode::kDrop, ForkTablesMode::kThrow,
                                         ForkTablesMode::kCopy),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(ForkTables, TheChildGetsNothingOrCopies) {
  SoftPmapOptions options;
  options.modes.set(GetParam());
  Soft s(options);
  auto parent = s.pmap();
  for (std::uint64_t i = 0; i < 20; ++i) enter(*parent, page(i), frame(i));
  auto child = s.pmap();
  const std::uint64_t writes = s.events[PmapEvent::kPteWrite];
  child->copy_from(*parent, pages(0, 10));
  child->copy_from(*parent, pages(10, 20));
  const bool copies = GetParam() == ForkTablesMode::kCopy;
  EXPECT_EQ(child->mappings(), copies ? 20u : 0u);
  EXPECT_EQ(s.decided(PmapEvent::kForkCopied), copies ? 20u : 0u);
  EXPECT_EQ(s.decided(PmapEvent::kForkDropped), copies ? 0u : 20u);
  if (!copies) {
    EXPECT_EQ(s.events[PmapEvent::kPteWrite], writes) << "no entry was touched";
  }
  for (std::uint64_t i = 0; i < 20; ++i) enter(*child, page(i), frame(i), Prot::kRead);
  EXPECT_EQ(s.decided(PmapEvent::kRefault), copies ? 0u : 20u);
}

class ThrowForFork : public testing::Test {
 protected:
  static SoftPmapOptions throwing() {
    SoftPmapOptions options;
    options.modes.set(ForkTablesMode::kThrow);
    return options;
  }
  static constexpr std::uint64_t kMapped = 40;
  void map_all() {
    for (std::uint64_t i = 0; i < kMapped; ++i) enter(*parent_, place(i), frame(i));
  }
  /// In two leaf tables, far apart.
  static VirtAddr place(std::uint64_t i) { return page(i % 2 * 100'000 + i); }

  Soft s_{throwing()};
  std::unique_ptr<SoftPmap> parent_ = s_.pmap();
};

TEST_F(ThrowForFork, TouchesNoEntryAndTellsTheTlbOnce) {
  map_all();
  const std::uint64_t writes = s_.events[PmapEvent::kPteWrite];
  const std::uint64_t reads = s_.events[PmapEvent::kPteRead];
  EXPECT_TRUE(parent_->throw_away_for_fork());
  EXPECT_EQ(s_.events[PmapEvent::kPteWrite], writes);
  EXPECT_EQ(s_.events[PmapEvent::kPteRead], reads);
  EXPECT_EQ(s_.events[PmapEvent::kShootdown], 1u);
  EXPECT_EQ(s_.events[PmapEvent::kShootdownTarget], 1u);
  EXPECT_EQ(parent_->mappings(), 0u);
  for (std::uint64_t i = 0; i < kMapped; ++i) EXPECT_FALSE(read(*parent_, place(i))) << i;
  EXPECT_EQ(s_.system.find_error(), nullptr);
}

TEST_F(ThrowForFork, WhatTheMappingsKnewIsStillToBeHad) {
  map_all();
  EXPECT_TRUE(write(*parent_, place(3)));
  EXPECT_TRUE(read(*parent_, place(4)));
  EXPECT_TRUE(parent_->throw_away_for_fork());
  EXPECT_TRUE(s_.system.is_modified(frame(3)));
  EXPECT_FALSE(s_.system.is_modified(frame(4)));
  EXPECT_EQ(s_.system.ts_referenced(frame(4)), 1u);
  const std::uint64_t shootdowns = s_.events[PmapEvent::kShootdown];
  remove_all(s_, frame(3));
  EXPECT_EQ(s_.sink.modified[3], 1) << "the page daemon learns of it when it comes by";
  EXPECT_EQ(s_.events[PmapEvent::kShootdown], shootdowns) << "no CPU has translations of thrown tables";
}

TEST_F(ThrowForFork, WhoeverFaultsBackRemovesWhatWasThrownAway) {
  map_all();
  EXPECT_TRUE(write(*parent_, place(3)));
  EXPECT_TRUE(parent_->throw_away_for_fork());
  EXPECT_EQ(s_.system.pv_entries(), kMapped);
  for (std::uint64_t i = 0; i < 400; ++i)
    enter(*parent_, place(i % kMapped), frame(i % kMapped), Prot::kRead);
  for (std::uint64_t i = 0; i < 600; ++i) enter(*parent_, place(0), frame(0), Prot::kRead);
  EXPECT_EQ(s_.system.pv_entries(), kMapped) << "those that came back, and no others";
  EXPECT_EQ(s_.sink.modified[3], 1);
  EXPECT_EQ(s_.decided(PmapEvent::kRefault), kMapped);
  EXPECT_EQ(s_.system.find_error(), nullptr);
}

TEST_F(ThrowForFork, WhatIsWiredKeepsEverything) {
  map_all();
  enter(*parent_, page(300), frame(50), Prot::kReadWrite, Wiring::kWired);
  EXPECT_FALSE(parent_->throw_away_for_fork());
  EXPECT_EQ(parent_->mappings(), kMapped + 1);
  parent_->unwire(pages(300, 301));
  EXPECT_TRUE(parent_->throw_away_for_fork());
  EXPECT_EQ(parent_->mappings(), 0u);
}

TEST_F(ThrowForFork, WithSixtyThreeNotReapedItKeepsWhatItHas) {
  std::uint64_t thrown = 0;
  constexpr std::uint64_t kGiga = std::uint64_t{1} << 18;  // pages
  while (thrown < 300) {
    enter(*parent_, page((thrown + 1) * kGiga - 1), frame(thrown % kFrames));  // a long way for whoever reaps
    if (!parent_->throw_away_for_fork()) break;
    ++thrown;
  }
  EXPECT_GE(thrown, TableFamily::kMembers - 1);
  EXPECT_LT(thrown, 300u);
  EXPECT_EQ(parent_->mappings(), 1u);
  parent_.reset();
  EXPECT_EQ(s_.system.pv_entries(), 0u) << "the end of the space is the end of what it threw away";
  EXPECT_EQ(s_.system.free_tables(), 1024u);
}

TEST_F(ThrowForFork, OutOfTablesTheThrownOnesGoFirst) {
  SoftPmapOptions options = throwing();
  options.table_pages = PageCount{8};
  Soft s(options);
  auto p = s.pmap();
  enter(*p, page(0), frame(0));
  enter(*p, page(1'000'000), frame(1));  // 6 tables in all; a new root and what is below it need 4
  EXPECT_TRUE(p->throw_away_for_fork());
  EXPECT_EQ(enter(*p, page(5), frame(2)), 1u);
  EXPECT_TRUE(read(*p, page(5)));
}

}  // namespace
}  // namespace enchilada
