// SoftPmap: what goes beyond the conformance suite: tables come and go, exhaustion, pv lists, bits, events.
#include "soft_rig.h"

#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

namespace enchilada {
namespace {

using namespace soft_rig;

TEST(SoftPmap, TablesComeWithTheFirstMappingAndGoWithTheLast) {
  Soft s;
  const std::size_t all = s.system.free_tables();
  auto p = s.pmap();
  EXPECT_EQ(s.system.free_tables(), all) << "an empty space has no tables";
  enter(*p, page(0), frame(0));
  EXPECT_EQ(p->tables(), 4u);
  enter(*p, page(511), frame(1));
  EXPECT_EQ(p->tables(), 4u);
  enter(*p, page(512), frame(2));
  EXPECT_EQ(p->tables(), 5u);
  enter(*p, VirtAddr{x86::kAddressLimit - kPageSize}, frame(3));
  EXPECT_EQ(p->tables(), 8u);
  p->remove(pages(0, 512));
  EXPECT_EQ(p->tables(), 7u);
  remove_all(s, frame(2));
  EXPECT_EQ(p->tables(), 4u) << "branches without leaves go too";
  p->remove({VirtAddr{0}, VirtAddr{x86::kAddressLimit}});
  EXPECT_EQ(s.system.free_tables(), all);
  EXPECT_EQ(s.system.pv_entries(), 0u);
}

TEST(SoftPmap, AccessSetsTheBitsThatHardwareSets) {
  Soft s;
  auto p = s.pmap();
  enter(*p, page(1), frame(5));
  const auto only = [&] {
    SoftMapping found{};
    p->for_each_mapping([&](const SoftMapping& m) { found = m; });
    return found;
  };
  EXPECT_FALSE(only().accessed);
  EXPECT_FALSE(only().dirty);
  EXPECT_TRUE(read(*p, page(1)));
  EXPECT_TRUE(only().accessed);
  EXPECT_FALSE(only().dirty);
  EXPECT_TRUE(write(*p, page(1)));
  EXPECT_TRUE(only().dirty);
  EXPECT_TRUE(s.system.is_modified(frame(5)));
  EXPECT_EQ(s.system.ts_referenced(frame(5)), 1u);
  EXPECT_FALSE(only().accessed);
}

TEST(SoftPmap, DirtyIsExact) {
  Soft s;
  auto p = s.pmap();
  enter(*p, page(1), frame(5));
  EXPECT_TRUE(read(*p, page(1)));
  EXPECT_FALSE(s.system.is_modified(frame(5)));
  remove_all(s, frame(5));
  EXPECT_EQ(s.sink.modified[5], 0);
  EXPECT_EQ(s.sink.referenced[5], 1);
}

TEST(SoftPmap, WithoutDirtyBitsWritableCountsAsModified) {
  SoftPmapOptions options;
  options.dirty_bits = false;
  Soft s(options);
  auto p = s.pmap();
  enter(*p, page(1), frame(5));
  EXPECT_TRUE(s.system.is_modified(frame(5)));
  p->protect(pages(1, 2), Prot::kRead);
  EXPECT_EQ(s.sink.modified[5], 1);
  EXPECT_FALSE(s.system.is_modified(frame(5)));
}

TEST(SoftPmap, WithoutReferenceBitsNothingIsReported) {
  SoftPmapOptions options;
  options.reference_bits = false;
  Soft s(options);
  auto p = s.pmap();
  EXPECT_FALSE(s.system.has_reference_bits());
  enter(*p, page(1), frame(5));
  EXPECT_TRUE(read(*p, page(1)));
  EXPECT_EQ(s.system.ts_referenced(frame(5)), 0u);
  remove_all(s, frame(5));
  EXPECT_EQ(s.sink.referenced[5], 0);
}

TEST(SoftPmap, ReferencesAreCountedUpToFiveAndAllMappingsAreSampled) {
  Soft s;
  std::vector<std::unique_ptr<SoftPmap>> spaces;
  for (int i = 0; i < 12; ++i) {
    spaces.push_back(s.pmap());
    enter(*spaces.back(), page(7), frame(0), Prot::kRead);
    EXPECT_TRUE(read(*spaces.back(), page(7)));
  }
  EXPECT_EQ(s.system.ts_referenced(frame(0)), 5u);
  EXPECT_EQ(s.system.ts_referenced(frame(0)), 5u);
  EXPECT_EQ(s.system.ts_referenced(frame(0)), 2u);
  EXPECT_EQ(s.system.ts_referenced(frame(0)), 0u);
}

TEST(SoftPmap, OneFrameAtManyAddressesInManySpaces) {
  Soft s;
  auto p = s.pmap();
  auto q = s.pmap();
  for (std::uint64_t i = 0; i < 10; ++i) enter(*p, VirtAddr{i * kLeafSpan}, frame(3));
  for (std::uint64_t i = 0; i < 10; ++i) enter(*q, VirtAddr{i * kLeafSpan}, frame(3), Prot::kRead);
  EXPECT_TRUE(write(*p, VirtAddr{4 * kLeafSpan}, 77));
  int seen = 0;
  q->access(VirtAddr{9 * kLeafSpan}, Access::kRead, [&](std::byte* b) { seen = static_cast<int>(*b); });
  EXPECT_EQ(seen, 77);
  int mappings = 0;
  int writable = 0;
  s.system.for_each_mapping_of(frame(3), [&](VirtAddr, bool w) { ++mappings, writable += w; });
  EXPECT_EQ(mappings, 20);
  EXPECT_EQ(writable, 10);
  s.system.remove_write(frame(3));
  EXPECT_EQ(s.sink.modified[3], 1);
  EXPECT_FALSE(write(*p, VirtAddr{4 * kLeafSpan}));
  EXPECT_TRUE(read(*p, VirtAddr{4 * kLeafSpan}));
  remove_all(s, frame(3));
  EXPECT_EQ(p->mappings() + q->mappings(), 0u);
  EXPECT_EQ(p->tables() + q->tables(), 0u);
}

TEST(SoftPmap, OneAddressModeSteals) {
  SoftPmapOptions options;
  options.one_address = true;
  Soft s(options);
  auto p = s.pmap();
  auto q = s.pmap();
  enter(*p, page(1), frame(3));
  EXPECT_TRUE(write(*p, page(1)));
  enter(*q, page(2), frame(3), Prot::kRead);
  EXPECT_FALSE(read(*p, page(1)));
  EXPECT_EQ(s.sink.modified[3], 1);
  EXPECT_TRUE(read(*q, page(2)));
  enter(*q, page(3), frame(3), Prot::kRead);
  EXPECT_FALSE(read(*q, page(2)));
  enter(*q, page(3), frame(3), Prot::kReadWrite);
  EXPECT_TRUE(write(*q, page(3)));
  q->copy_from(*p, pages(0, 10));
  EXPECT_EQ(s.system.pv_entries(), 1u);
}

TEST(SoftPmap, OneAddressModeLeavesWiredMappings) {
  SoftPmapOptions options;
  options.one_address = true;
  Soft s(options);
  auto p = s.pmap();
  enter(*p, page(1), frame(3), Prot::kReadWrite, Wiring::kWired);
  enter(*p, page(2), frame(3), Prot::kRead);
  EXPECT_TRUE(read(*p, page(1)));
  EXPECT_TRUE(read(*p, page(2)));
}

TEST(SoftPmap, OutOfTablesThrowsItsOwnMappingsAwayFirst) {
  SoftPmapOptions options;
  options.table_pages = PageCount{6};  // root and two branches: three leaf tables
  Soft s(options);
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 40; ++i) {
    ASSERT_EQ(enter(*p, VirtAddr{i * kLeafSpan}, frame(i % kFrames)), 1u);
    ASSERT_TRUE(write(*p, VirtAddr{i * kLeafSpan}));
  }
  EXPECT_EQ(p->mappings(), 3u);
  for (std::uint64_t i = 0; i < 37; ++i)
    EXPECT_EQ(s.sink.modified[i], 1) << "dirty bit of frame " << i << " lost";
  EXPECT_EQ(s.events[PmapEvent::kTableReclaimed], 37u);
}

TEST(SoftPmap, OutOfTablesTakesFromAnotherSpace) {
  SoftPmapOptions options;
  options.table_pages = PageCount{7};
  Soft s(options);
  auto p = s.pmap();
  auto q = s.pmap();
  enter(*p, page(0), frame(0));
  enter(*q, page(0), frame(1));  // needs four, three are left
  EXPECT_EQ(p->mappings(), 0u);
  EXPECT_TRUE(read(*q, page(0)));
}

TEST(SoftPmap, WiredTablesAreNotReclaimed) {
  SoftPmapOptions options;
  options.table_pages = PageCount{5};
  Soft s(options);
  auto p = s.pmap();
  enter(*p, page(0), frame(0), Prot::kReadWrite, Wiring::kWired);
  enter(*p, page(1), frame(1));
  for (std::uint64_t i = 1; i < 20; ++i) {
    ASSERT_EQ(enter(*p, VirtAddr{i * kLeafSpan}, frame(i + 1)), 1u);
    ASSERT_TRUE(read(*p, page(0)));
  }
  // With the other leaf wired too there is nothing left to take.
  ASSERT_EQ(enter(*p, VirtAddr{kLeafSpan}, frame(9), Prot::kRead, Wiring::kWired), 1u);
  EXPECT_EQ(enter(*p, VirtAddr{2 * kLeafSpan}, frame(10)), 0u);
  EXPECT_TRUE(read(*p, page(0)));
  EXPECT_TRUE(read(*p, VirtAddr{kLeafSpan}));
}

TEST(SoftPmap, EnteringAWiredMappingAgainKeepsItWired) {
  Soft s;
  auto p = s.pmap();
  enter(*p, page(0), frame(0), Prot::kReadWrite, Wiring::kWired);
  enter(*p, page(0), frame(0), Prot::kRead);
  p->drop_if([](const SoftMapping&) { return true; });
  EXPECT_TRUE(read(*p, page(0)));
}

TEST(SoftPmap, UnwiredMappingsMayGoAgain) {
  Soft s;
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 4; ++i) enter(*p, page(i), frame(i), Prot::kReadWrite, Wiring::kWired);
  p->unwire(pages(1, 3));
  EXPECT_EQ(s.system.find_error(), nullptr);
  p->drop_if([](const SoftMapping&) { return true; });
  EXPECT_TRUE(read(*p, page(0)));
  EXPECT_FALSE(read(*p, page(1)));
  EXPECT_FALSE(read(*p, page(2)));
  EXPECT_TRUE(read(*p, page(3)));
}

TEST(SoftPmap, PrefaultThrowsNothingAway) {
  SoftPmapOptions options;
  options.table_pages = PageCount{4};
  Soft s(options);
  auto p = s.pmap();
  // The span crosses into a second leaf table, for which there is no page.
  const std::vector<FrameNumber> span = {frame(0), frame(1), frame(2), frame(3)};
  EXPECT_EQ(p->enter(page(510), span, Prot::kRead, Access::kRead, Wiring::kNotWired), PageCount{2});
  EXPECT_TRUE(read(*p, page(510)));
  EXPECT_TRUE(read(*p, page(511)));
}

TEST(SoftPmap, OutOfPvEntriesStillMaps) {
  SoftPmapOptions options;
  options.pv_limit = 4;
  Soft s(options);
  auto p = s.pmap();
  auto q = s.pmap();
  for (std::uint64_t i = 0; i < 30; ++i) {
    ASSERT_EQ(enter(i % 2 == 0 ? *p : *q, page(i), frame(i)), 1u);
    ASSERT_TRUE(write(i % 2 == 0 ? *p : *q, page(i)));
    ASSERT_LE(s.system.pv_entries(), 4u);
  }
  std::uint64_t reported = 0;
  for (const auto& n : s.sink.modified) reported += static_cast<std::uint64_t>(n);
  EXPECT_EQ(reported + p->mappings() + q->mappings(), 30u) << "a dirty bit was lost";
}

TEST(SoftPmap, CopyFromCopiesReadOnlyUnwiredAndUnmarked) {
  Soft s;
  auto p = s.pmap();
  auto q = s.pmap();
  enter(*p, page(1), frame(1), Prot::kReadWrite, Wiring::kWired);
  enter(*p, page(2), frame(2));
  enter(*p, page(3), frame(3));
  EXPECT_TRUE(write(*p, page(1)));
  q->copy_from(*p, pages(1, 3));
  std::set<std::uint64_t> copied;
  q->for_each_mapping([&](const SoftMapping& m) {
    copied.insert(m.va.value() / kPageSize);
    EXPECT_FALSE(m.writable || m.wired || m.accessed || m.dirty);
  });
  EXPECT_EQ(copied, (std::set<std::uint64_t>{1, 2}));
}

TEST(SoftPmap, SpacesAreReused) {
  Soft s;
  auto first = s.pmap();
  enter(*first, page(0), frame(0));
  first.reset();
  const std::size_t used = s.arena.used();
  for (int i = 0; i < 100; ++i) {
    auto p = s.pmap();
    EXPECT_EQ(p->mappings(), 0u);
    enter(*p, page(0), frame(0));
  }
  EXPECT_EQ(s.arena.used(), used);
}

TEST(SoftPmap, ExhaustedArenaGivesNoPmap) {
  Soft s;
  while (s.arena.allocate(64) != nullptr) {
  }
  EXPECT_EQ(s.system.create_pmap(), nullptr);
}

TEST(SoftPmap, EventsAreCounted) {
  Soft s;
  auto p = s.pmap();
  enter(*p, page(0), frame(0));
  enter(*p, page(1), frame(1));
  EXPECT_TRUE(write(*p, page(0)));
  EXPECT_FALSE(read(*p, page(9)));
  p->protect(pages(0, 2), Prot::kRead);
  p->remove(pages(0, 1));
  EXPECT_EQ(s.events[PmapEvent::kEnter], 2u);
  EXPECT_EQ(s.events[PmapEvent::kWalk], 2u);
  EXPECT_EQ(s.events[PmapEvent::kFault], 1u);
  EXPECT_EQ(s.events[PmapEvent::kUpdate], 2u);
  EXPECT_EQ(s.events[PmapEvent::kRemove], 1u);
  EXPECT_EQ(s.events[PmapEvent::kShootdown], 2u);
  EXPECT_EQ(s.events[PmapEvent::kTableAllocated], 4u);
}

TEST(SoftPmap, RandomSparseAddressesAgainstAMap) {
  Soft s;
  auto p = s.pmap();
  std::map<std::uint64_t, std::uint32_t> model;
  std::mt19937_64 random(7);
  for (int step = 0; step < 20000; ++step) {
    // Addresses that share tables at every level, and some that share none.
    const std::uint64_t va = ((random() % 3) << 39) + ((random() % 2) << 30) + ((random() % 3) << 21) +
                             ((random() % 4) * 170) * kPageSize;
    switch (random() % 4) {
      case 0:
      case 1: {
        const auto f = static_cast<std::uint32_t>(random() % kFrames);
        ASSERT_EQ(enter(*p, VirtAddr{va}, FrameNumber{f}), 1u);
        model[va] = f;
        break;
      }
      case 2: {
        const std::uint64_t length = kPageSize << (random() % 30);
        p->remove({VirtAddr{va}, VirtAddr{va + length}});
        model.erase(model.lower_bound(va), model.lower_bound(va + length));
        break;
      }
      case 3: {
        const auto f = static_cast<std::uint32_t>(random() % kFrames);
        remove_all(s, FrameNumber{f});
        std::erase_if(model, [&](const auto& e) { return e.second == f; });
        break;
      }
    }
    if (step % 500 != 0) continue;
    ASSERT_EQ(s.system.find_error(), nullptr);
    std::map<std::uint64_t, std::uint32_t> seen;
    p->for_each_mapping([&](const SoftMapping& m) { seen[m.va.value()] = m.frame.value(); });
    ASSERT_EQ(seen, model) << "step " << step;
  }
}

class SoftPmapThreads : public testing::TestWithParam<VmModes> {};
INSTANTIATE_TEST_SUITE_P(Modes, SoftPmapThreads,
                         testing::Values(VmModes(), VmModes(Preset::kArticle), VmModes(Preset::kModern),
                                         VmModes(Preset::kModern).set(SharedTablesMode::kOn),
                                         VmModes().set(PageTableMode::kHashed)));

TEST_P(SoftPmapThreads, FromBothEnds) {
  // Spaces enter, access, fork and die while others remove the same frames through their pv lists, with too
  // few tables.
  SoftPmapOptions options;
  options.modes = GetParam();
  options.table_pages = PageCount{24};
  options.pv_limit = 100;
  Soft s(options);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < 60; ++round) {
        auto p = s.pmap();
        auto q = s.pmap();
        for (int i = 0; i < 40; ++i) {
          const VirtAddr va{(random() % 6) * kLeafSpan + (random() % 8) * kPageSize};
          (void)enter(*p, va, frame(random() % kFrames), random() % 2 == 0 ? Prot::kRead : Prot::kReadWrite);
          (void)read(*p, va);
          if (random() % 8 == 0) p->remove({va, va + ByteCount{kPageSize * 4}});
          if (random() % 8 == 0) q->copy_from(*p, {VirtAddr{0}, VirtAddr{kLeafSpan * 3}});
        }
      }
      stop.store(true);
    });
  }
  threads.emplace_back([&] {
    std::mt19937 random(99);
    while (!stop.load()) {
      const FrameNumber f = frame(random() % kFrames);
      remove_all(s, f);
      s.system.remove_write(frame(random() % kFrames));
      (void)s.system.ts_referenced(frame(random() % kFrames));
      (void)s.system.is_modified(f);
    }
  });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(s.system.pv_entries(), 0u);
}

}  // namespace
}  // namespace enchilada
