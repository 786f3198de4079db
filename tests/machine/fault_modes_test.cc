// The modes of the fault path, on the soft machine: what is mapped along (prefault), what is read along
// (readahead), what is copied before it is written (precopy). Each with its counters; contents stay right.
#include <gtest/gtest.h>

#include <algorithm>

#include "machine/soft_engine.h"
#include "validate/validate.h"
#include "vm/vm_pageout.h"
#include "vm/vm_phys.h"
#include "vm/vm_precopy.h"
#include "vm/vm_prefault.h"
#include "vm/vm_prezero.h"

namespace enchilada {
namespace {

class Rig {
 public:
  explicit Rig(const VmModes& modes, std::uint64_t frames = 1024)
      : engine_({.machine = {.memory = {.frames = PageCount{frames}}}, .modes = modes}) {}

  [[nodiscard]] std::unique_ptr<VmMap> make_map(std::uint64_t pages, VirtAddr* base) {
    auto map = engine_.create_map(PageCount{std::uint64_t{1} << 20});
    EXPECT_EQ(map->map({.length = ByteCount{pages * kPageSize}}, base), KernReturn::kSuccess);
    return map;
  }
  static VirtAddr page(VirtAddr base, std::uint64_t i) { return base + ByteCount{i * kPageSize}; }
  void write(VmMap& map, VirtAddr va, unsigned char value) {
    const auto byte = static_cast<std::byte>(value);
    ASSERT_EQ(engine_.machine().store(map, va, {&byte, 1}).result, FaultResult::kResolved);
  }
  [[nodiscard]] unsigned read(VmMap& map, VirtAddr va) {
    std::byte byte{0xee};
    EXPECT_EQ(engine_.machine().load(map, va, {&byte, 1}).result, FaultResult::kResolved);
    return static_cast<unsigned>(byte);
  }
  void fill(VmMap& map, VirtAddr base, std::uint64_t pages) {
    for (std::uint64_t i = 0; i < pages; ++i) write(map, page(base, i), static_cast<unsigned char>(i + 1));
  }
  void unmap(VmMap& map, VirtAddr base, std::uint64_t pages) { map.pmap().remove({base, page(base, pages)}); }
  void evict_all() { (void)engine_.system().daemon().shrink_to(PageCount{0}); }
  [[nodiscard]] std::string problems(VmMap& map) {
    VmMap* const maps[] = {&map};
    return to_text(find_problems({engine_.system(), maps, &engine_.machine().pmaps(), &engine_.pager()}));
  }
  [[nodiscard]] VmCounters& counters() { return engine_.machine().counters(); }
  [[nodiscard]] std::uint64_t mapped(VmMap& map) { return static_cast<SoftPmap&>(map.pmap()).mappings(); }
  [[nodiscard]] SoftEngine& engine() { return engine_; }

 private:
  SoftEngine engine_;
};

std::uint64_t get(const Counter& c) {
  return c.load();
}

// ------------------------------------------------------------------------------------------------ prefault

/// A fault in the middle of 64 resident, unmapped pages: how many are mapped afterwards.
std::uint64_t mapped_after_one_fault(PrefaultMode mode, std::uint64_t hole = 1000) {
  Rig rig(VmModes().set(mode));
  VirtAddr base{0};
  auto map = rig.make_map(64, &base);
  rig.fill(*map, base, 64);
  if (hole < 64) {
    EXPECT_EQ(map->advise({Rig::page(base, hole), Rig::page(base, hole + 1)}, Advice::kDiscard),
              KernReturn::kSuccess);
  }
  rig.unmap(*map, base, 64);
  const std::uint64_t before = get(rig.counters().prefaulted);  // zero-fills map neighbours too
  EXPECT_EQ(rig.read(*map, Rig::page(base, 35)), 36u);
  const std::uint64_t n = rig.mapped(*map);
  EXPECT_EQ(n, 1 + get(rig.counters().prefaulted) - before);
  for (std::uint64_t i = 0; i < 64; ++i) {
    EXPECT_EQ(rig.read(*map, Rig::page(base, i)), i == hole ? 0u : i + 1);
  }
  return n;
}

TEST(Prefault, OffMapsThePageAlone) {
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kOff), 1u);
}

TEST(Prefault, TheArticlesSpiralMapsFourToEitherSide) {
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kFault), 9u);
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kMapAndFault), 9u);
}

TEST(Prefault, TheSpiralEndsAtTheFirstPageThatIsNotThere) {
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kFault, 37), 1 + 3u);  // -1 +1 -2, and then 37 is missing
}

TEST(Prefault, TheClusterIsAlignedAndEndsAtHolesOnEitherSideByItself) {
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kCluster), 16u);
  EXPECT_EQ(mapped_after_one_fault(PrefaultMode::kCluster, 37), 3 + 2u);  // 32..36
}

TEST(Prefault, AtMapTimeWhatIsResidentIsMappedReadOnlyUpToNinetySix) {
  Rig rig(VmModes().set(PrefaultMode::kMapAndFault));
  VirtAddr base{0};
  auto map = rig.make_map(200, &base);
  rig.fill(*map, base, 200);
  ASSERT_EQ(map->advise({Rig::page(base, 3), Rig::page(base, 5)}, Advice::kDiscard), KernReturn::kSuccess);
  rig.unmap(*map, base, 200);
  const std::uint64_t faults = get(rig.counters().vm_faults);
  EXPECT_EQ(vm_prefault_map(*map, {base, Rig::page(base, 10)}).value(), 8u);
  EXPECT_EQ(rig.mapped(*map), 8u);
  EXPECT_EQ(vm_prefault_map(*map, {base, Rig::page(base, 200)}).value(), 96u);
  EXPECT_EQ(rig.mapped(*map), 96u);
  EXPECT_EQ(get(rig.counters().prefaulted_at_map), 8u + 96u);
  for (std::uint64_t i = 5; i < 96; ++i) EXPECT_EQ(rig.read(*map, Rig::page(base, i)), i + 1);
  EXPECT_EQ(get(rig.counters().vm_faults), faults);
  rig.write(*map, Rig::page(base, 7), 99);  // mapped for reading only: a fault, and then it is written
  EXPECT_EQ(get(rig.counters().vm_faults), faults + 1);
  EXPECT_EQ(rig.read(*map, Rig::page(base, 7)), 99u);
}

TEST(Prefault, OtherModesMapNothingAtMapTime) {
  for (const auto mode : {PrefaultMode::kOff, PrefaultMode::kFault, PrefaultMode::kCluster}) {
    Rig rig(VmModes().set(mode));
    VirtAddr base{0};
    auto map = rig.make_map(64, &base);
    rig.fill(*map, base, 64);
    rig.unmap(*map, base, 64);
    EXPECT_EQ(vm_prefault_map(*map, {base, Rig::page(base, 64)}).value(), 0u);
    EXPECT_EQ(rig.mapped(*map), 0u);
  }
}

// ------------------------------------------------------------------------------------------------ read-ahead

struct Read {
  std::uint64_t pages = 0;   // brought in by one fault in the middle of 64 evicted pages
  std::uint64_t hits = 0;    // of those, used when two neighbours were touched
  std::uint64_t wasted = 0;  // of those, evicted unused
};

Read read_one(ReadAheadMode mode, Advice advice) {
  Rig rig(VmModes().set(mode).set(PrefaultMode::kOff));
  VirtAddr base{0};
  auto map = rig.make_map(64, &base);
  rig.fill(*map, base, 64);
  EXPECT_EQ(map->advise({base, Rig::page(base, 64)}, advice), KernReturn::kSuccess);
  rig.evict_all();
  EXPECT_EQ(rig.read(*map, Rig::page(base, 30)), 31u);
  Read r;
  r.pages = get(rig.counters().swappgsin);
  EXPECT_EQ(get(rig.counters().io_faults), 1u);
  EXPECT_EQ(get(rig.counters().readahead_pages), r.pages - 1);
  EXPECT_EQ(rig.read(*map, Rig::page(base, 31)), 32u);
  EXPECT_EQ(rig.read(*map, Rig::page(base, 32)), 33u);
  r.hits = get(rig.counters().readahead_hits);
  rig.evict_all();
  r.wasted = get(rig.counters().readahead_waste);
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(rig.read(*map, Rig::page(base, i)), i + 1);
  return r;
}

TEST(ReadAhead, OffReadsThePageAlone) {
  const Read r = read_one(ReadAheadMode::kOff, Advice::kNormal);
  EXPECT_EQ(r.pages, 1u);
  EXPECT_EQ(r.hits + r.wasted, 0u);
}

TEST(ReadAhead, TheArticlesClusterIsSevenBackAndEightOnAndIsAccountedFor) {
  const Read r = read_one(ReadAheadMode::kArticle, Advice::kNormal);
  EXPECT_EQ(r.pages, 16u);
  EXPECT_EQ(r.hits, 2u);
  EXPECT_EQ(r.wasted, 13u);
}

TEST(ReadAhead, RandomAdviceStopsItInEveryMode) {
  for (const auto mode : {ReadAheadMode::kOff, ReadAheadMode::kArticle, ReadAheadMode::kAdaptive}) {
    EXPECT_EQ(read_one(mode, Advice::kRandom).pages, 1u);
  }
}

TEST(ReadAhead, AdaptiveReadsItsLargestWindowForwardWhenTold) {
  EXPECT_EQ(read_one(ReadAheadMode::kAdaptive, Advice::kSequential).pages, 34u);  // 30 .. 63
}

// ------------------------------------------------------------------------------------------------
// pre-zeroing

std::uint64_t idle_until_done(SoftEngine& engine) {
  std::uint64_t zeroed = 0;
  for (PageCount step = engine.system().idle(); step.value() != 0; step = engine.system().idle()) {
    EXPECT_LE(step.value(), PreZeroPolicy::kMaxRun);
    zeroed += step.value();
  }
  return zeroed;
}

TEST(PreZero, StopsAtHalfOfTheFreeFramesAndResumesBelowAThird) {
  Rig rig(VmModes().set(PreZeroMode::kIdle));
  VirtAddr base{0};
  auto map = rig.make_map(400, &base);
  rig.write(*map, base, 1);  // the engine has asked the machine for frames
  const VmPhys& frames = rig.engine().system().free_frames();
  idle_until_done(rig.engine());
  EXPECT_EQ(frames.zeroed_count(), frames.free_count() / 2);
  std::uint64_t i = 8;
  while (frames.zeroed_count() >= frames.free_count() / 3) {
    EXPECT_EQ(rig.engine().system().idle().value(), 0u);
    rig.write(*map, Rig::page(base, i), 1);
    i += 4;
    ASSERT_LT(i, 400u);
  }
  EXPECT_GT(rig.engine().system().idle().value(), 0u);
  VmMap* const maps[] = {map.get()};
  EXPECT_EQ(to_text(find_problems({rig.engine().system(), maps})), "");
}

TEST(PreZero, LaterMarksAreTwoThirdsAndFourFifths) {
  Rig rig(VmModes().set(PreZeroMode::kIdleMore));
  VirtAddr base{0};
  auto map = rig.make_map(4, &base);
  rig.write(*map, base, 1);
  idle_until_done(rig.engine());
  const VmPhys& frames = rig.engine().system().free_frames();
  EXPECT_EQ(frames.zeroed_count(), frames.free_count() * 4 / 5);
}

TEST(PreZero, ZeroFillsTakeZeroedFramesAndReadZerosAlsoFromUsedOnes) {
  Rig rig(VmModes().set(PreZeroMode::kIdle), 256);
  VmCounters& c = rig.counters();
  for (unsigned round = 0; round < 5; ++round) {
    VirtAddr base{0};
    auto map = rig.make_map(100, &base);
    const std::uint64_t filled = get(c.zfod_pages);
    const std::uint64_t before = get(c.ozfod);
    const std::uint64_t ready = rig.engine().system().free_frames().zeroed_count();
    if (round > 0) {
      EXPECT_GE(ready, 40u);
    }
    for (std::uint64_t i = 0; i < 100; ++i) {
      std::byte all[kPageSize];
      ASSERT_EQ(rig.engine().machine().load(*map, Rig::page(base, i), all).result, FaultResult::kResolved);
      for (const std::byte b : all) ASSERT_EQ(b, std::byte{0});
      rig.write(*map, Rig::page(base, i), 0xff);
    }
    EXPECT_EQ(get(c.zfod_pages) - filled, 100u);
    EXPECT_LE(get(c.ozfod) - before, ready);
    EXPECT_GT(get(c.ozfod) - before + 16, std::min<std::uint64_t>(ready, 100));  // whole clusters only
    map.reset();
    idle_until_done(rig.engine());
  }
}

TEST(PreZero, CopiesLeaveZeroedFramesAloneUntilNothingElseIsFree) {
  Rig rig(VmModes().set(PreZeroMode::kIdle), 256);
  ASSERT_EQ(rig.engine().system().grow(PageCount{256}).value(), 256u);
  const VmPhys& frames = rig.engine().system().free_frames();
  VirtAddr base{0};
  auto parent = rig.make_map(60, &base);
  rig.fill(*parent, base, 60);
  idle_until_done(rig.engine());
  const std::uint64_t zeroed = frames.zeroed_count();
  ASSERT_GT(zeroed, 60u);
  auto child = parent->fork();
  for (std::uint64_t i = 0; i < 60; ++i) rig.write(*child, Rig::page(base, i), 7);
  EXPECT_EQ(frames.zeroed_count(), zeroed);
  auto grandchild = child->fork();
  for (std::uint64_t i = 0; i < 60; ++i) rig.write(*grandchild, Rig::page(base, i), 8);
  EXPECT_LT(frames.zeroed_count(), zeroed);
  for (std::uint64_t i = 0; i < 60; ++i) EXPECT_EQ(rig.read(*parent, Rig::page(base, i)), i + 1);
}

TEST(PreZero, OffDoesNothing) {
  Rig rig{VmModes()};
  VirtAddr base{0};
  auto map = rig.make_map(4, &base);
  rig.write(*map, base, 1);
  EXPECT_EQ(idle_until_done(rig.engine()), 0u);
  EXPECT_EQ(get(rig.counters().ozfod), 0u);
}

// ------------------------------------------------------------------------------------------------ pre-copy

struct Forks {
  std::uint64_t faults_of_parent = 0;
  std::uint64_t faults_of_child = 0;
  std::uint64_t precopied = 0;
  std::uint64_t used = 0;
  std::uint64_t vain = 0;
};

constexpr std::uint64_t kPages = 32;

/// Several forks, after each of which the parent writes pages 0..5 and the child 4..9, then exits.
Forks fork_and_write(PreCopyMode mode, unsigned forks) {
  Rig rig(VmModes().set(mode));
  VmCounters& c = rig.counters();
  VirtAddr base{0};
  auto parent = rig.make_map(kPages, &base);
  rig.fill(*parent, base, kPages);
  unsigned char before[kPages];
  for (std::uint64_t i = 0; i < kPages; ++i) before[i] = static_cast<unsigned char>(i + 1);
  Forks sum;
  for (unsigned f = 0; f < forks; ++f) {
    auto child = parent->fork();
    EXPECT_NE(child, nullptr);
    std::uint64_t faults = get(c.vm_faults);
    for (std::uint64_t i = 0; i < 6; ++i) {
      rig.write(*parent, Rig::page(base, i), static_cast<unsigned char>(100 + f));
    }
    sum.faults_of_parent += get(c.vm_faults) - faults;
    faults = get(c.vm_faults);
    for (std::uint64_t i = 4; i < 10; ++i) rig.write(*child, Rig::page(base, i), 200);
    sum.faults_of_child += get(c.vm_faults) - faults;
    for (std::uint64_t i = 0; i < kPages; ++i) {
      EXPECT_EQ(rig.read(*child, Rig::page(base, i)), i >= 4 && i < 10 ? 200u : before[i]) << i;
      if (i < 6) before[i] = static_cast<unsigned char>(100 + f);
      EXPECT_EQ(rig.read(*parent, Rig::page(base, i)), before[i]) << i;
    }
    child.reset();
    EXPECT_EQ(rig.problems(*parent), "");
  }
  sum.precopied = get(c.precopied);
  parent.reset();
  sum.used = get(c.precopy_used);
  sum.vain = get(c.precopy_vain);
  return sum;
}

TEST(PreCopy, OffLeavesEveryFirstWriteAFault) {
  const Forks off = fork_and_write(PreCopyMode::kOff, 4);
  EXPECT_EQ(off.faults_of_parent, 4 * 6u);
  EXPECT_EQ(off.faults_of_child, 4 * 6u);
  EXPECT_EQ(off.precopied + off.used + off.vain, 0u);
}

TEST(PreCopy, AtForkFollowsWhatWasWrittenAfterTheLastOne) {
  const Forks both = fork_and_write(PreCopyMode::kFork, 4);
  EXPECT_LE(both.faults_of_parent, 6 + 3 * 1u);  // the first fork knows nothing; one page in eight is a probe
  EXPECT_LE(both.faults_of_child, 6 + 3 * 2u);
  EXPECT_GE(both.precopied, 3 * 10u);
  EXPECT_EQ(both.used + both.vain, both.precopied);
  EXPECT_LE(both.vain, 3u);
}

TEST(PreCopy, ForksWithoutWritesStopCopying) {
  Rig rig(VmModes().set(PreCopyMode::kFork));
  VmCounters& c = rig.counters();
  VirtAddr base{0};
  auto parent = rig.make_map(kPages, &base);
  rig.fill(*parent, base, kPages);
  {
    auto child = parent->fork();
    for (std::uint64_t i = 0; i < 6; ++i) rig.write(*parent, Rig::page(base, i), 50);
  }
  auto first = parent->fork();
  EXPECT_GE(get(c.precopied), 5u);
  first.reset();
  const std::uint64_t precopied = get(c.precopied);
  for (unsigned i = 0; i < 3; ++i) (void)parent->fork();
  EXPECT_GE(get(c.precopy_vain), precopied);
  const std::uint64_t later = get(c.precopied);
  (void)parent->fork();
  EXPECT_LE(get(c.precopied), later + 1);
}

TEST(PreCopy, AtExecTheHotRangesAreThereWithoutFaults) {
  Rig rig(VmModes().set(PreCopyMode::kExec));
  VmCounters& c = rig.counters();
  VirtAddr base{0};
  auto map = rig.make_map(kPages, &base);
  const VirtRange hot{Rig::page(base, 4), Rig::page(base, 6)};
  rig.engine().system().precopy().after_exec(*map, {&hot, 1});
  EXPECT_EQ(get(c.vm_faults), 0u);
  EXPECT_EQ(get(c.precopied), 1u);  // the second page came with the first's cluster
  rig.write(*map, Rig::page(base, 4), 1);
  rig.write(*map, Rig::page(base, 5), 2);
  EXPECT_EQ(get(c.vm_faults), 0u);
  map.reset();
  EXPECT_EQ(get(c.precopy_used), 1u);
}

}  // namespace
}  // namespace enchilada
