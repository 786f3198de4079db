// The modes of choosing pages, each by what it alone does; and what none may do: move pages without need,
// hang, lose a byte, need a frame to free a frame. On the soft machine, deterministic.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "machine/soft_engine.h"
#include "validate/validate.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

constexpr Nanoseconds kSecond{1'000'000'000};

VmModes modes(Preset preset = Preset::kHybrid) {
  return VmModes(preset);
}

/// A machine with one address space of one object.
class Rig {
 public:
  explicit Rig(const VmModes& modes, std::uint64_t frames, std::uint64_t pages, std::uint64_t swap = 8192,
               ReplacementPolicyMaker maker = nullptr)
      : engine(options(modes, frames, swap, maker)), map(engine.create_map(PageCount{pages + 16})) {
    (void)system().grow(PageCount{frames});  // all memory from the start
    VmMap::MapRequest request{.length = to_bytes(PageCount{pages})};
    EXPECT_EQ(map->map(request, &base), KernReturn::kSuccess);
  }
  ~Rig() { validate(); }
  static SoftEngineOptions options(const VmModes& modes, std::uint64_t frames, std::uint64_t swap,
                                   ReplacementPolicyMaker maker) {
    SoftEngineOptions o;
    o.machine.memory.frames = PageCount{frames};
    o.swap_pages = {swap};
    o.modes = modes;
    o.make_policy = maker;
    o.tunables.zero_fill_cluster = PageCount{1};
    return o;
  }
  FaultResult write(std::uint64_t page, std::uint64_t value) {
    return engine.machine().touch(*map, at(page), Access::kWrite,
                                  [&](std::byte* p) { std::memcpy(p, &value, sizeof(value)); });
  }
  std::uint64_t read(std::uint64_t page) {
    std::uint64_t value = ~std::uint64_t{0};
    EXPECT_EQ(engine.machine().touch(*map, at(page), Access::kRead,
                                     [&](std::byte* p) { std::memcpy(&value, p, sizeof(value)); }),
              FaultResult::kResolved)
        << page;
    return value;
  }
  void write_all(std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from; i < to; ++i) ASSERT_EQ(write(i, i), FaultResult::kResolved) << i;
  }
  VirtAddr at(std::uint64_t page) const { return base + to_bytes(PageCount{page}); }
  VmSystem& system() { return engine.system(); }
  PageDaemon& daemon() { return system().daemon(); }
  std::uint64_t get(Counter VmCounters::*field) { return (engine.machine().counters().*field).load(); }
  std::uint64_t length(PageQueue q) { return system().queues().length(q); }
  VmObject& object() {
    VmObject* found = nullptr;
    map->for_each_entry([&](const VmMap::EntryView& e) { found = e.object != nullptr ? e.object : found; });
    return *found;
  }
  Page* page(std::uint64_t index) {
    const FrameNumber frame = object().pages.find(PageIndex{index});
    return frame == kNoFrame ? nullptr : &system().page(frame);
  }
  std::vector<std::uint64_t> order(PageQueue q) {
    std::vector<std::uint64_t> indexes;
    system().queues().for_each(q, [&](FrameNumber, const Page& p) { indexes.push_back(p.pindex.value()); });
    return indexes;
  }
  /// Clears what mappings say of use, without a queue noticing.
  void forget_use() {
    system().for_each_page([&](FrameNumber frame, Page& p) {
      if (p.object == nullptr) return;
      (void)system().pmaps().ts_referenced(frame);
      (void)p.take_referenced();
    });
  }
  void validate() {
    system().validate();
    VmMap* const maps[] = {map.get()};
    const Problems problems = find_problems({.system = system(),
                                             .maps = maps,
                                             .pmaps = &engine.machine().pmaps(),
                                             .pager = &engine.pager(),
                                             .space = &engine.space()});
    for (const std::string& problem : problems) ADD_FAILURE() << problem;
  }

  SoftEngine engine;
  std::unique_ptr<VmMap> map;
  VirtAddr base{0};
};

std::vector<std::uint64_t> numbers(std::uint64_t from, std::uint64_t to) {
  std::vector<std::uint64_t> v;
  for (; from < to; ++from) v.push_back(from);
  return v;
}

// ---- the active scan

TEST(TwoHandScan, LeavesSurvivorsWhereTheyAreAndNewcomersForTheNextRevolution) {
  Rig rig(modes().set(ActiveScanMode::kTwoHand), 256, 100);
  rig.write_all(0, 8);
  rig.forget_use();
  EXPECT_EQ(rig.daemon().scan_active(4), 0u);
  EXPECT_EQ(rig.order(PageQueue::kActive), numbers(0, 8));
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(rig.page(i)->act_count(), i < 4 ? 4u : 5u) << i;
  rig.write_all(8, 10);  // behind the second hand
  rig.forget_use();
  EXPECT_EQ(rig.daemon().scan_active(4), 0u);  // the rest of the revolution
  EXPECT_EQ(rig.page(7)->act_count(), 4u);
  EXPECT_EQ(rig.page(8)->act_count(), 5u);
  EXPECT_EQ(rig.daemon().scan_active(10), 0u);  // the next one has them all
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(rig.page(i)->act_count(), i < 8 ? 3u : 4u) << i;
  EXPECT_EQ(rig.order(PageQueue::kActive), numbers(0, 10));
}

TEST(RequeueScan, SendsSurvivorsToTheTail) {
  Rig rig(modes().set(ActiveScanMode::kRequeue), 256, 100);
  rig.write_all(0, 4);
  EXPECT_EQ(rig.daemon().scan_active(1), 0u);
  EXPECT_EQ(rig.order(PageQueue::kActive), (std::vector<std::uint64_t>{1, 2, 3, 0}));
}

TEST(ActiveScan, HotPagesStayInEveryModeAndHoweverUseIsSeen) {
  for (const ActiveScanMode scan :
       {ActiveScanMode::kPressure, ActiveScanMode::kRequeue, ActiveScanMode::kTwoHand}) {
    for (const ReferenceMode seen : {ReferenceMode::kBits, ReferenceMode::kWithdrawal}) {
      Rig rig(modes().set(scan).set(seen), 512, 4200);
      rig.write_all(0, 100);
      std::uint64_t misses = 0;
      for (std::uint64_t i = 0; i < 4000; ++i) {
        ASSERT_EQ(rig.write(200 + i, i), FaultResult::kResolved);
        const std::uint64_t before = rig.get(&VmCounters::io_faults);
        for (std::uint64_t k = 0; k < 4; ++k) ASSERT_EQ(rig.read((i * 4 + k) % 100), (i * 4 + k) % 100);
        misses += rig.get(&VmCounters::io_faults) - before;
      }
      EXPECT_LE(misses, 400u) << name_of(scan) << ' ' << name_of(seen);  // of 16,000
      EXPECT_GT(rig.get(&VmCounters::pdpasses), 0u);
    }
  }
}

// ---- laundering and the cache queue

/// Pages 0-9 written, out and in again (clean), 10-19 written (dirty); all on inactive, idle.
void clean_and_dirty(Rig& rig) {
  rig.write_all(0, 10);
  rig.daemon().pageout_object(rig.object(), PageIndex{0}, PageCount{10});
  for (std::uint64_t i = 0; i < 10; ++i) ASSERT_EQ(rig.read(i), i);
  rig.write_all(10, 20);
  rig.daemon().deactivate_object(rig.object(), PageIndex{10}, PageCount{10});
  rig.daemon().deactivate_object(rig.object(), PageIndex{0}, PageCount{10});
  ASSERT_EQ(rig.length(PageQueue::kInactive), 20u);
}

/// Frames as a fault would take them, so that the daemon has something to do.
void use_up_frames(Rig& rig, std::vector<FrameNumber>& taken, std::uint64_t leave) {
  VmPhys& frames = rig.system().free_frames();
  taken.resize(frames.free_count() > leave ? frames.free_count() - leave : 0);
  ASSERT_EQ(frames.allocate(taken, FrameClass::kInterrupt), taken.size());
}

TEST(ArticleLaundry, ADirtyPageGoesTwiceRoundTheQueueBeforeItIsWritten) {
  Rig rig(modes().set(LaundryMode::kArticle).set(CacheQueueMode::kOff), 64, 64);
  clean_and_dirty(rig);
  std::vector<FrameNumber> taken;
  use_up_frames(rig, taken, 6);  // the target is 8: two are missing
  const std::uint64_t written = rig.get(&VmCounters::laundered);
  ASSERT_TRUE(rig.daemon().reclaim());
  EXPECT_EQ(rig.get(&VmCounters::laundered), written);  // clean ones were enough
  EXPECT_EQ(rig.get(&VmCounters::pdtwice), 10u);
  for (std::uint64_t i = 10; i < 20; ++i) EXPECT_EQ(rig.page(i)->queue(), PageQueue::kInactive) << i;
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(rig.page(i), nullptr) << i;
  rig.system().free_frames().free(taken);
  use_up_frames(rig, taken, 6);
  ASSERT_TRUE(rig.daemon().reclaim());  // now nothing else is left: written, and once more round
  EXPECT_EQ(rig.get(&VmCounters::laundered), written + 10);
  EXPECT_EQ(rig.length(PageQueue::kLaundry), 0u);
  rig.system().free_frames().free(taken);
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(rig.read(i), i);
}

TEST(BackgroundLaundry, AShortfallIsLaunderedAtOnceAndWhatWasWrittenGoesFirst) {
  Rig rig(modes().set(LaundryMode::kBackground).set(CacheQueueMode::kOff), 64, 64);
  rig.write_all(0, 20);
  rig.daemon().deactivate_object(rig.object(), PageIndex{0}, PageCount{16});
  std::vector<FrameNumber> taken;
  use_up_frames(rig, taken, 2);
  ASSERT_TRUE(rig.daemon().reclaim());
  EXPECT_GE(rig.get(&VmCounters::laundered), 6u);  // as many as are missing, in whole clusters
  EXPECT_GT(rig.get(&VmCounters::pdheaded), 0u);
  EXPECT_GT(rig.get(&VmCounters::pdtolaundry), 0u);
  rig.system().free_frames().free(taken);
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(rig.read(i), i);
}

TEST(BackgroundLaundry, LaundersWithoutAShortageOnceTheDirtyPagesOutweighTheClean) {
  for (const std::uint64_t dirty : {300u, 1500u}) {
    Rig rig(modes().set(LaundryMode::kBackground).set(ThresholdMode::kModern).set(DontNeedMode::kHead), 2048,
            2048);
    rig.write_all(0, dirty);
    ASSERT_EQ(rig.map->advise({rig.at(0), rig.at(dirty)}, Advice::kDontNeed), KernReturn::kSuccess);
    ASSERT_EQ(rig.length(PageQueue::kLaundry), dirty);
    rig.engine.machine().clock().advance(kSecond);
    rig.daemon().tick();
    EXPECT_EQ(rig.get(&VmCounters::pdbackground) > 0, dirty == 1500);  // of 2048 pages
    EXPECT_EQ(rig.get(&VmCounters::pdwakeups), 0u);
    for (std::uint64_t i = 0; i < dirty; ++i) ASSERT_EQ(rig.read(i), i);
  }
}

TEST(CacheQueue, OnKeepsCleanPagesForAFaultAndGivesThemToAllocations) {
  Rig rig(modes(Preset::kArticle), 4096, 9000, 16384);
  rig.write_all(0, 9000);
  EXPECT_GT(rig.get(&VmCounters::pdtocache), 0u);
  EXPECT_GT(rig.get(&VmCounters::pdrefills), 0u);
  ASSERT_GT(rig.length(PageQueue::kCache), 10u);
  const std::uint64_t cached = rig.order(PageQueue::kCache)[5];
  const std::uint64_t reads = rig.get(&VmCounters::io_faults);
  const std::uint64_t back = rig.get(&VmCounters::reactivated);
  EXPECT_EQ(rig.read(cached), cached);
  EXPECT_EQ(rig.get(&VmCounters::io_faults), reads);  // it was still there
  EXPECT_EQ(rig.get(&VmCounters::reactivated), back + 1);
  const PageThresholds t = rig.system().thresholds().get();
  EXPECT_GE(rig.system().free_frames().free_count(), t.free_reserved);  // programs leave the reserve alone
}

TEST(CacheQueue, OffFreesCleanPages) {
  Rig rig(modes(Preset::kModern), 512, 2000);
  rig.write_all(0, 2000);
  for (std::uint64_t i = 0; i < 2000; ++i) ASSERT_EQ(rig.read(i), i);
  EXPECT_EQ(rig.get(&VmCounters::pdtocache), 0u);
  EXPECT_EQ(rig.length(PageQueue::kCache), 0u);
}

// ---- no gratuitous movement; idle pages

class Presets : public ::testing::TestWithParam<Preset> {};
INSTANTIATE_TEST_SUITE_P(All, Presets, ::testing::Values(Preset::kHybrid, Preset::kArticle, Preset::kModern),
                         [](const auto& info) {
                           return std::string(kPresetNames[static_cast<std::size_t>(info.param)]);
                         });

TEST_P(Presets, NothingMovesWhileEnoughIsAtHand) {
  Rig rig(modes(GetParam()).set(ProactiveMode::kOff), 4096, 4096);
  const std::uint64_t n = 2000;
  rig.write_all(0, n);
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t i = 0; i < n; i += 7) ASSERT_EQ(rig.read(i), i);
    rig.engine.machine().clock().advance(kSecond);
    rig.daemon().tick();
  }
  ASSERT_FALSE(rig.system().is_short());
  EXPECT_EQ(rig.get(&VmCounters::pdwakeups), 0u);
  EXPECT_EQ(rig.get(&VmCounters::pdpages), 0u);
  EXPECT_EQ(rig.get(&VmCounters::deactivated), 0u);
  EXPECT_EQ(rig.get(&VmCounters::laundered), 0u);
  EXPECT_EQ(rig.order(PageQueue::kActive), numbers(0, n));
}

TEST_P(Presets, IdlePagesArePagedOutWithoutAShortageWhenToldTo) {
  for (const ProactiveMode proactive : {ProactiveMode::kOff, ProactiveMode::kOn}) {
    Rig rig(modes(GetParam()).set(proactive), 4096, 4096);
    rig.write_all(0, 1000);
    for (int minute = 0; minute < 200; ++minute) {  // ten minutes a look
      for (int second = 0; second < 60; second += 10) {
        rig.engine.machine().clock().advance(Nanoseconds{10 * kSecond.value()});
        rig.daemon().tick();
      }
      for (std::uint64_t i = 0; i < 100; ++i) ASSERT_EQ(rig.read(i), i);
    }
    const bool on = proactive == ProactiveMode::kOn;
    EXPECT_EQ(rig.get(&VmCounters::pdproactive) > 500, on);
    EXPECT_EQ(rig.get(&VmCounters::laundered) > 500, on);
    const std::uint64_t reads = rig.get(&VmCounters::io_faults);
    for (std::uint64_t i = 0; i < 100; ++i) ASSERT_EQ(rig.read(i), i);
    EXPECT_EQ(rig.get(&VmCounters::io_faults), reads);  // what is used stayed
    EXPECT_EQ(rig.get(&VmCounters::pdwakeups), 0u);
  }
}

// ---- hints

TEST(DropBehind, AStreamLeavesTheNextVictimsBehind) {
  for (const DropBehindMode mode : {DropBehindMode::kOff, DropBehindMode::kOn}) {
    Rig rig(modes().set(mode), 1024, 4000);
    rig.write_all(0, 4000);
    for (std::uint64_t i = 0; i < 3000; ++i) ASSERT_EQ(rig.read(i), i);
    EXPECT_EQ(rig.get(&VmCounters::pdbehind) > 1000, mode == DropBehindMode::kOn);
  }
}

TEST(DontNeed, WeightedLeavesOneOf32AloneAndDeactivatesThree) {
  Rig rig(modes().set(DontNeedMode::kWeighted), 256, 64);
  rig.write_all(0, 64);
  ASSERT_EQ(rig.map->advise({rig.at(0), rig.at(64)}, Advice::kDontNeed), KernReturn::kSuccess);
  EXPECT_EQ(rig.length(PageQueue::kActive), 2u);
  EXPECT_EQ(rig.length(PageQueue::kInactive), 62u);
  EXPECT_EQ(rig.get(&VmCounters::pdheaded), 56u);
  std::vector<std::uint64_t> expected;  // the first of each 32 stays, three go to the end
  for (const std::uint64_t half : {0u, 32u}) {
    for (std::uint64_t i = half + 4; i < half + 32; ++i) expected.push_back(i);
  }
  for (const std::uint64_t i : {1u, 2u, 3u, 33u, 34u, 35u}) expected.push_back(i);
  EXPECT_EQ(rig.order(PageQueue::kInactive), expected);
  for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(rig.read(i), i);
}

TEST(DontNeed, HeadPutsCleanPagesFirstAndDirtyOnesIntoTheLaundry) {
  Rig rig(modes().set(DontNeedMode::kHead), 256, 64);
  rig.write_all(0, 20);
  rig.daemon().pageout_object(rig.object(), PageIndex{0}, PageCount{10});
  for (std::uint64_t i = 0; i < 10; ++i) ASSERT_EQ(rig.read(i), i);
  ASSERT_EQ(rig.map->advise({rig.at(0), rig.at(20)}, Advice::kDontNeed), KernReturn::kSuccess);
  EXPECT_EQ(rig.order(PageQueue::kInactive), numbers(0, 10));
  EXPECT_EQ(rig.order(PageQueue::kLaundry), numbers(10, 20));
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(rig.read(i), i);
}

// ---- reserves, and nothing left

TEST_P(Presets, WithoutAFreeFrameTheDaemonStillWritesAndFrees) {
  Rig rig(modes(GetParam()), 1024, 2048);
  rig.write_all(0, 600);  // dirty, all of them
  VmPhys& frames = rig.system().free_frames();
  std::vector<FrameNumber> taken(2048);
  const auto take = [&](FrameClass who) {
    const std::size_t n = frames.allocate(taken, who);
    std::vector<FrameNumber> got(taken.begin(), taken.begin() + static_cast<std::ptrdiff_t>(n));
    return got;
  };
  const PageThresholds t = rig.system().thresholds().get();
  std::vector<std::vector<FrameNumber>> held;
  held.push_back(take(FrameClass::kNormal));
  EXPECT_EQ(frames.free_count(), t.free_reserved);
  EXPECT_EQ(take(FrameClass::kNormal).size(), 0u);
  held.push_back(take(FrameClass::kSystem));
  EXPECT_EQ(frames.free_count(), t.interrupt_free_min);
  EXPECT_EQ(take(FrameClass::kSystem).size(), 0u);
  held.push_back(take(FrameClass::kInterrupt));
  EXPECT_EQ(frames.free_count(), 0u);
  EXPECT_EQ(take(FrameClass::kInterrupt).size(), 0u);
  ASSERT_TRUE(rig.daemon().reclaim());
  while (rig.system().at_hand() == 0) ASSERT_TRUE(rig.daemon().reclaim());
  EXPECT_GT(rig.get(&VmCounters::laundered), 0u);
  EXPECT_EQ(rig.write(700, 700), FaultResult::kResolved);  // and a program gets its frame
  for (const auto& frames_held : held) frames.free(frames_held);
  for (std::uint64_t i = 0; i < 600; ++i) ASSERT_EQ(rig.read(i), i);
}

TEST_P(Presets, WithSwapFullAndNothingCleanAFaultEndsInAnError) {
  for (const ActiveScanMode scan :
       {ActiveScanMode::kPressure, ActiveScanMode::kRequeue, ActiveScanMode::kTwoHand}) {
    Rig rig(modes(GetParam()).set(scan), 128, 600, 64);
    std::uint64_t written = 0;
    FaultResult result = FaultResult::kResolved;
    while (written < 600 && (result = rig.write(written, written)) == FaultResult::kResolved) ++written;
    EXPECT_EQ(result, FaultResult::kNoMemory);
    EXPECT_GT(written, 100u);
    EXPECT_GT(rig.get(&VmCounters::pdoom), 0u);
    EXPECT_GT(rig.get(&VmCounters::pdoomvotes), 0u);
    rig.validate();
    // Half of it goes: there is room again, and nothing was lost.
    ASSERT_EQ(rig.map->remove({rig.at(0), rig.at(written / 2)}), KernReturn::kSuccess);
    for (std::uint64_t i = written / 2; i < written; ++i) ASSERT_EQ(rig.read(i), i);
    EXPECT_EQ(rig.write(written + 1, 5), FaultResult::kResolved);
  }
}

// ---- the seam

/// First in, first out: the least that a policy is.
class Fifo : public ReplacementPolicy, public PageUseObserver {
 public:
  explicit Fifo(PageoutOps& ops) : ops_(ops) {}
  bool step(PageoutRun& run) override {
    const std::uint64_t looked = run.looked;
    PageoutOps::Idle idle;  // what was read ahead waits on inactive
    ops_.take_idle(run, &idle);
    ops_.put(idle.dirty_ones(), PageQueue::kLaundry);
    ops_.drop_clean(idle.clean_ones(), run);
    std::array<FrameNumber, 8> victims;
    PageQueues& queues = ops_.system().queues();
    const std::size_t n = queues.take(PageQueue::kActive, victims, &run.busy);
    run.looked += n;
    ops_.put(std::span(victims).first(n), PageQueue::kLaundry);
    (void)ops_.launder(run, PageoutOps::AfterWrite::kDrop);
    return run.looked != looked;
  }
  [[nodiscard]] std::uint64_t limit(const PageoutRun& run) const override { return 2 * run.pages + 64; }
  std::size_t age(std::size_t /*pages*/) override { return 0; }
  void leaving(std::span<const FrameNumber> frames) override { left += frames.size(); }
  PageUseObserver* observer() override { return this; }
  void used(Page& /*page*/) override { ++uses; }

  static inline std::uint64_t left = 0;
  static inline std::uint64_t uses = 0;

 protected:
  PageoutOps& ops_;
};

TEST(ReplacementSeam, ARivalPolicyRunsTheEngine) {
  Rig rig(modes(), 128, 1000, 8192,
          [](PageoutOps& ops) -> std::unique_ptr<ReplacementPolicy> { return std::make_unique<Fifo>(ops); });
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 1000; ++i) {
      ASSERT_EQ(rig.write(i, round * 10000 + i), FaultResult::kResolved);
    }
  }
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(rig.read(i), 20000 + i);
  EXPECT_GT(Fifo::left, 3000u);
  EXPECT_GT(Fifo::uses, 0u);
}

// Pages that another fault has taken, and reads into or fills, are on no queue: a run meets none of them.
TEST(OutOfMemory, AFaultWaitsForPagesThatAnotherThreadHasInHand) {
  for (const ActiveScanMode scan :
       {ActiveScanMode::kPressure, ActiveScanMode::kRequeue, ActiveScanMode::kTwoHand}) {
    Rig rig(modes().set(scan), 48, 16);
    std::vector<FrameNumber> taken(48);
    VmPhys& frames = rig.system().free_frames();
    taken.resize(frames.allocate(taken, FrameClass::kInterrupt));
    ASSERT_EQ(rig.length(PageQueue::kActive) + rig.length(PageQueue::kInactive), 0u);
    std::thread other([&] {
      while (rig.get(&VmCounters::pdwakeups) == 0) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      frames.free(taken);
    });
    EXPECT_EQ(rig.write(0, 7), FaultResult::kResolved);
    EXPECT_EQ(rig.read(0), 7u);
    EXPECT_EQ(rig.get(&VmCounters::pdoom), 0u);
    other.join();
  }
}

/// Another thread lets go of the pages that it had in hand right after a run, which met none of them.
class LetsGoAfterTheRun final : public Fifo {
 public:
  using Fifo::Fifo;
  void run_ends(PageoutRun& /*run*/) override {
    ops_.put(in_hand, PageQueue::kActive);
    in_hand.clear();
  }
  static inline std::vector<FrameNumber> in_hand;
};

TEST(OutOfMemory, PagesLetGoOfBetweenTheRunAndTheVerdictAreTriedAgain) {
  Rig rig(modes(), 48, 80, 8192, [](PageoutOps& ops) -> std::unique_ptr<ReplacementPolicy> {
    return std::make_unique<LetsGoAfterTheRun>(ops);
  });
  rig.write_all(0, 20);
  VmPhys& frames = rig.system().free_frames();
  std::vector<FrameNumber> wired(48);  // no frame is free, and nobody holds these
  wired.resize(frames.allocate(wired, FrameClass::kInterrupt));
  for (const FrameNumber frame : wired) rig.system().page(frame).unbusy();
  std::size_t busy = 0;
  std::vector<FrameNumber>& in_hand = LetsGoAfterTheRun::in_hand;
  in_hand.resize(20);
  ASSERT_EQ(rig.system().queues().take(PageQueue::kActive, in_hand, &busy), 20u);
  EXPECT_EQ(rig.write(20, 7), FaultResult::kResolved);
  EXPECT_TRUE(in_hand.empty()) << "no run was made";
  EXPECT_EQ(rig.get(&VmCounters::pdoom), 0u);
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(rig.read(i), i);
  for (const FrameNumber frame : wired) ASSERT_TRUE(rig.system().page(frame).try_busy());
  frames.free(wired);
}

TEST(OutOfMemory, WhenAllIsTriedAndNobodyHasAnythingTheAnswerComesAtOnce) {
  for (const ActiveScanMode scan :
       {ActiveScanMode::kPressure, ActiveScanMode::kRequeue, ActiveScanMode::kTwoHand}) {
    Rig rig(modes().set(scan), 48, 80, 1);  // next to no swap
    FaultResult result = FaultResult::kResolved;
    for (std::uint64_t i = 0; i < 80 && result == FaultResult::kResolved; ++i) result = rig.write(i, i + 1);
    EXPECT_EQ(result, FaultResult::kNoMemory);
    EXPECT_EQ(rig.get(&VmCounters::pdoom), 1u);
    const std::uint64_t runs = rig.get(&VmCounters::pdwakeups);
    EXPECT_EQ(rig.write(79, 1), FaultResult::kNoMemory);
    EXPECT_EQ(rig.get(&VmCounters::pdwakeups), runs + 1) << "one run that has tried everything is a proof";
  }
}

}  // namespace
}  // namespace enchilada
