// HostMachine by itself: what the conformance suite cannot know of: real threads, real system calls, real
// memory.
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "base/raw_syscall.h"
#include "host_fixture.h"
#include "pmap/host/host_features.h"
#include "pmap/host/uffd_abi.h"

namespace enchilada {
namespace {

/// KiB of memory behind window and pool, as the kernel counts them.
std::uint64_t rss_pages(const HostMachine& m) {
  std::ifstream smaps("/proc/self/smaps");
  std::string line;
  std::uint64_t pages = 0;
  bool ours = false;
  while (std::getline(smaps, line)) {
    unsigned long start = 0, end = 0;
    unsigned long kib = 0;
    char c = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx %c", &start, &end, &c) == 3) {
      ours = m.window().contains(VirtAddr{start}) || m.pool().contains(VirtAddr{start});
    } else if (ours && std::sscanf(line.c_str(), "Rss: %lu", &kib) == 1) {
      pages += kib / 4;
    }
  }
  return pages;
}

TEST(HostFeatures, ProbeNamesTheKernelAndExplainsItself) {
  const HostFeatures f = probe_host_features();
  EXPECT_NE(f.kernel[0], '\0');
  EXPECT_TRUE(f.usable()) << f.reason;
  if (!f.move) {
    EXPECT_NE(f.reason[0], '\0');
  }
}

TEST(HostCreate, RefusesBadConfigurations) {
  LocalRamBudget budget(PageCount{1000});
  HostConfig c;
  c.frame_limit = PageCount{16};
  EXPECT_EQ(HostMachine::create(c).error(), HostError::kBadConfig);  // no budget
  c.budget = &budget;
  c.window.start = VirtAddr{0x2000'0000'1000};
  EXPECT_EQ(HostMachine::create(c).error(), HostError::kBadConfig);  // not aligned
  c = HostConfig{};
  c.frame_limit = PageCount{16};
  LocalRamBudget poor(PageCount{3});
  c.budget = &poor;
  EXPECT_EQ(HostMachine::create(c).error(), HostError::kNoMemory);
  EXPECT_EQ(poor.free().value(), 3u);
  c.budget = &budget;
  auto first = HostMachine::create(c);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(HostMachine::create(c).error(), HostError::kAddressTaken);
  HostMachine::destroy(*first);
  EXPECT_EQ(budget.free().value(), 1000u);
  auto again = HostMachine::create(c);
  ASSERT_TRUE(again.ok());
  HostMachine::destroy(*again);
}

using HostGrow = HostTest;
INSTANTIATE_HOST_TEST(HostGrow);

TEST_P(HostGrow, GrantsAlignedRunsLowestFirstWithinTheBudget) {
  HostRig rig(PageCount{200}, GetParam());
  std::vector<std::pair<std::uint32_t, std::uint64_t>> runs;
  const auto sink = [&](FrameRun r) { runs.emplace_back(r.first.value(), r.count.value()); };
  EXPECT_EQ(rig.machine->grow(PageCount{70}, sink).value(), 70u);
  EXPECT_EQ(runs, (std::vector<std::pair<std::uint32_t, std::uint64_t>>{{0, 64}, {64, 6}}));
  runs.clear();
  EXPECT_EQ(rig.machine->grow(PageCount{64}, sink).value(),
            64u);  // a whole word is better than the broken one
  EXPECT_EQ(runs, (std::vector<std::pair<std::uint32_t, std::uint64_t>>{{128, 64}}));
  EXPECT_EQ(rig.machine->grow(PageCount{1000}, sink).value(), 66u);  // all that the budget has
  EXPECT_EQ(rig.machine->grow(PageCount{1}, sink).value(), 0u);
  rig.machine->retire({FrameNumber{10}, PageCount{20}});
  EXPECT_EQ(rig.budget.free().value(), 20u);
  runs.clear();
  EXPECT_EQ(rig.machine->grow(PageCount{30}, sink).value(), 20u);
  EXPECT_EQ(runs, (std::vector<std::pair<std::uint32_t, std::uint64_t>>{{10, 20}}));
}

TEST_P(HostGrow, PopulatedNeverExceedsGrantedAndRetireGivesMemoryBack) {
  constexpr std::uint32_t kFrames = 1024;
  HostRig rig(PageCount{kFrames}, GetParam());
  rig.grow_all();
  EXPECT_EQ(rss_pages(*rig.machine), 0u);
  std::mt19937 random(7);
  for (int step = 0; step < 300; ++step) {
    const auto n = static_cast<std::uint32_t>(1 + random() % 64);
    const auto f = static_cast<std::uint32_t>(random() % (kFrames - n));
    const auto frames = HostRig::run(f, n);
    switch (random() % 5) {
      case 4:
        EXPECT_EQ(rig.discard_all(frames), 0u);
        break;
      case 0:
        rig.enter(random() % 5000, frames, random() % 2 == 0 ? Prot::kRead : Prot::kReadWrite);
        break;
      case 1:
        EXPECT_EQ(rig.remove_all(frames), 0u);
        break;
      case 2:
        rig.remove_all(frames);
        rig.machine->zero({frames[0], PageCount{n}});
        break;
      case 3:
        rig.pmap->remove(rig.pages(random() % 5000, n));
        break;
    }
    if (step % 30 == 0) {
      const HostStats stats = rig.machine->stats();
      EXPECT_LE(stats.twins, HostMachine::kCopySlack);
      EXPECT_LE(rss_pages(*rig.machine), kFrames + HostMachine::kCopySlack);
      EXPECT_EQ(rss_pages(*rig.machine), stats.populated + stats.twins);
      ASSERT_TRUE(rig.machine->check_consistency()) << step;
    }
  }
  rig.pmap->remove(rig.machine->window());
  rig.machine->retire({FrameNumber{0}, PageCount{kFrames}});
  EXPECT_EQ(rss_pages(*rig.machine), 0u);
  EXPECT_EQ(rig.machine->stats().populated, 0u);
  EXPECT_TRUE(rig.machine->check_consistency());
}

using HostMapping = HostTest;
INSTANTIATE_HOST_TEST(HostMapping);

TEST_P(HostMapping, DiscardedPagesGoTogetherAndLeaveNoMemory) {
  HostRig rig(PageCount{512}, GetParam());
  rig.grow_all();
  std::vector<FrameNumber> doomed;
  for (std::uint32_t i = 0; i < 512; ++i) {
    rig.fill(FrameNumber{i}, 1);
    rig.enter(i, {FrameNumber{i}}, i % 2 == 0 ? Prot::kRead : Prot::kReadWrite);
    if (i % 8 == 0) doomed.push_back(FrameNumber{i});  // 64, no two side by side
  }
  const HostStats before = rig.machine->stats();
  EXPECT_EQ(rig.discard_all(doomed), 0u);
  const HostStats after = rig.machine->stats();
  EXPECT_EQ(after.pages_dropped - before.pages_dropped, doomed.size());
  EXPECT_EQ(after.populated, before.populated - doomed.size());
  EXPECT_EQ(after.mover.moves + after.mover.copies, before.mover.moves + before.mover.copies);
  const long together = raw_syscall(SYS_process_madvise, uffd::kSelf, 0, 0, MADV_DONTNEED);
  if (together == 0) {
    // A Linux of 6.13 or later: one for the pages, and one if those that came last left something at home.
    EXPECT_EQ(after.mover.drops - before.mover.drops, before.twins == 0 ? 1u : 2u);
  }
  for (std::uint32_t i = 0; i < 512; ++i) {
    EXPECT_EQ(rig.machine->frame_at(rig.at(i)), i % 8 == 0 ? kNoFrame : FrameNumber{i});
  }
  EXPECT_EQ(rss_pages(*rig.machine), 448u);
  EXPECT_TRUE(rig.machine->check_consistency());
  for (const FrameNumber frame : doomed) EXPECT_EQ(rig.peek(frame), 0u);
}

TEST_P(HostMapping, RunsTakeOneKernelCall) {
  HostRig rig(PageCount{256}, GetParam());
  rig.grow_all();
  const auto frames = HostRig::run(0, 64);
  EXPECT_EQ(rig.enter(0, frames), 64u);  // unpopulated: one COPY of zeros
  EXPECT_EQ(rig.machine->stats().mover.copies, 1u);
  if (GetParam() == HostTransport::kMove) {
    EXPECT_EQ(rig.remove_all(frames), 0u);
    EXPECT_EQ(rig.machine->stats().mover.moves, 1u);
    EXPECT_EQ(rig.enter(1024, frames), 64u);
    EXPECT_EQ(rig.machine->stats().mover.moves, 2u);
    rig.pmap->remove(rig.pages(900, 500));
    EXPECT_EQ(rig.machine->stats().mover.moves, 3u);
  }
  const std::uint64_t before = rig.machine->stats().mover.protects;
  EXPECT_EQ(rig.enter(0, frames), 64u);
  rig.pmap->protect(rig.pages(0, 64), Prot::kRead);
  EXPECT_EQ(rig.enter(0, frames), 64u);
  EXPECT_EQ(rig.machine->stats().mover.protects - before, 2u);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostMapping, ProtectNeverTouchesAbsentPages) {
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  rig.enter(10, HostRig::run(0, 2));
  rig.enter(20, HostRig::run(4, 2));
  rig.pmap->protect(rig.pages(0, 100), Prot::kRead);
  // Had a marker been left on page 15, entering there would stumble over it (rule 13).
  rig.fill(FrameNumber{8}, 9);
  EXPECT_EQ(rig.enter(15, {FrameNumber{8}}), 1u);
  EXPECT_EQ(rig.machine->stats().mover.reconciled, 0u);
  EXPECT_EQ(*rig.ptr(15), 9);
  EXPECT_EQ(probe_store(rig.ptr(10), 1), 0);
  EXPECT_EQ(probe_store(rig.ptr(21), 1), 0);
}

TEST_P(HostMapping, RemovingASparseTerabyteIsAShortScan) {
  HostRig rig(PageCount{64}, GetParam());
  rig.grow_all();
  constexpr std::uint64_t kTera = std::uint64_t{1} << (40 - kPageShift);
  for (std::uint32_t i = 0; i < 8; ++i) rig.enter(i * (kTera / 8) + i, {FrameNumber{i}});
  const MoverStats before = rig.machine->stats().mover;
  rig.pmap->remove(rig.pages(0, kTera));
  const MoverStats after = rig.machine->stats().mover;
  EXPECT_LE(after.moves + after.drops + after.protects - before.moves - before.drops - before.protects, 24u);
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 10; ++i) rig.pmap->remove(rig.pages(0, kTera));
  const auto each = (std::chrono::steady_clock::now() - start) / 10;
  std::printf("removing an empty terabyte: %ld us\n",
              static_cast<long>(std::chrono::duration_cast<std::chrono::microseconds>(each).count()));
  for (std::uint32_t i = 0; i < 8; ++i)
    EXPECT_EQ(rig.machine->frame_at(rig.at(i * (kTera / 8) + i)), kNoFrame);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostMapping, SomethingDiscardedBehindOurBackReadsAsZeros) {
  HostRig rig(PageCount{8}, GetParam());
  rig.grow_all();
  rig.fill(FrameNumber{0}, 5);
  rig.enter(0, {FrameNumber{0}});
  ASSERT_EQ(madvise(rig.ptr(0), kPageSize, MADV_DONTNEED), 0);
  EXPECT_EQ(rig.remove_all({FrameNumber{0}}), 0u);
  EXPECT_EQ(rig.enter(0, {FrameNumber{0}}), 1u);
  EXPECT_EQ(*rig.ptr(0), 0);
}

TEST_P(HostMapping, ResidentSaysWhatAccessWouldSucceed) {
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  rig.enter(0, HostRig::run(0, 4));
  rig.pmap->protect(rig.pages(2, 1), Prot::kRead);
  EXPECT_TRUE(rig.machine->resident({rig.at(0) + ByteCount{5}, rig.at(4)}, Access::kRead));
  EXPECT_FALSE(rig.machine->resident(rig.pages(0, 4), Access::kWrite));
  EXPECT_TRUE(rig.machine->resident(rig.pages(0, 2), Access::kWrite));
  EXPECT_FALSE(rig.machine->resident({rig.at(3), rig.at(4) + ByteCount{1}}, Access::kRead));
}

using HostThreads = HostTest;
INSTANTIATE_HOST_TEST(HostThreads);

TEST_P(HostThreads, EvictionLosesNoWriteOfRunningThreads) {
  constexpr std::uint32_t kPages = 64;
  HostRig rig(PageCount{kPages}, GetParam());
  rig.grow_all();
  TinyEngine engine(rig, kPages);
  std::atomic<bool> stop{false};
  std::array<std::uint64_t, 3> written{};
  std::vector<std::thread> writers;
  for (std::size_t t = 0; t < written.size(); ++t) {
    writers.emplace_back([&, t] {  // each adds 1 to its own word of every page, round and round
      std::uint64_t n = 0;
      for (; !stop; ++n) {
        for (std::uint32_t p = 0; p < kPages; ++p) {
          volatile std::uint64_t* word = rig.ptr<std::uint64_t>(p, t * 512);
          *word = *word + 1;
        }
      }
      written[t] = n;
    });
  }
  std::mt19937 random(1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  while (std::chrono::steady_clock::now() < end) {
    const auto n = static_cast<std::uint32_t>(1 + random() % 16);
    engine.evict(static_cast<std::uint32_t>(random() % (kPages - n)), n);
  }
  stop = true;
  for (auto& w : writers) w.join();
  for (std::size_t t = 0; t < written.size(); ++t) {
    for (std::uint32_t p = 0; p < kPages; ++p)
      ASSERT_EQ(*rig.ptr<std::uint64_t>(p, t * 512), written[t]) << p;
  }
  const MoverStats mover = rig.machine->stats().mover;
  std::printf("%lu pages evicted, %lu faults, %lu moves of which %lu reconciled, %lu fallbacks\n",
              engine.evicted(), engine.faults(), mover.moves, mover.reconciled, mover.fallbacks);
  EXPECT_GT(engine.evicted(), 100u);
  EXPECT_GT(engine.faults(), 100u);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostThreads, RemoveAndProtectByOrderAgainstEverything) {
  // remove() and protect() come without the busy flags, as munmap and mprotect do.
  constexpr std::uint32_t kPages = 32;
  HostRig rig(PageCount{kPages}, GetParam());
  rig.grow_all();
  TinyEngine engine(rig, kPages);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  std::array<std::uint64_t, 2> written{};
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      std::uint64_t n = 0;
      for (; !stop; ++n) {
        for (std::uint32_t p = 0; p < kPages; ++p) {
          volatile std::uint64_t* word = rig.ptr<std::uint64_t>(p, t * 512);
          *word = *word + 1;
        }
      }
      written[t] = n;
    });
  }
  threads.emplace_back([&] {
    std::mt19937 random(2);
    while (!stop) {
      const std::uint64_t p = random() % kPages, n = 1 + random() % 8;
      if (random() % 2 == 0) {
        rig.pmap->remove(rig.pages(p, n));
      } else {
        rig.pmap->protect(rig.pages(p, n), Prot::kRead);
      }
    }
  });
  std::mt19937 random(3);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1200);
  while (std::chrono::steady_clock::now() < end)
    engine.evict(static_cast<std::uint32_t>(random() % (kPages - 8)), 8);
  stop = true;
  for (auto& t : threads) t.join();
  for (std::size_t t = 0; t < 2; ++t) {
    for (std::uint32_t p = 0; p < kPages; ++p)
      ASSERT_EQ(*rig.ptr<std::uint64_t>(p, t * 512), written[t]) << p;
  }
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostThreads, PinnedPagesStayForSystemCalls) {
  // Threads really read(2) into managed memory while another one evicts it all the time: never EFAULT.
  constexpr std::uint32_t kPages = 32;
  HostRig rig(PageCount{kPages}, GetParam());
  rig.grow_all();
  TinyEngine engine(rig, kPages);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> calls{0}, failed{0}, refused{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      const unsigned id = rig.pins->register_thread();
      const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
      std::mt19937 random(t);
      std::uint8_t expect[4 * kPageSize];
      const auto all = static_cast<ssize_t>(sizeof expect);
      if (pread(fd, expect, sizeof expect, 0) != all) ++failed;
      while (!stop) {
        const std::uint64_t page = t * 16 + random() % 12;
        const VirtRange range = rig.pages(page, 4);
        rig.pins->pin(id, {&range, 1});
        for (std::uint64_t p = page; p < page + 4; ++p) {  // what the runtime does: make resident, then call
          while (!rig.machine->resident(rig.pages(p, 1), Access::kWrite)) {
            engine.fault_in(static_cast<std::uint32_t>(p));
          }
        }
        if (pread(fd, rig.ptr(page), sizeof expect, 0) != all) ++failed;
        rig.pins->unpin(id);
        if (std::memcmp(rig.ptr(page), expect, sizeof expect) != 0) ++failed;
        ++calls;
      }
      close(fd);
      rig.pins->unregister_thread(id);
    });
  }
  std::mt19937 random(9);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(1500);
  while (std::chrono::steady_clock::now() < end) {
    const auto n = static_cast<std::uint32_t>(1 + random() % 8);
    refused += engine.evict(static_cast<std::uint32_t>(random() % (kPages - n)), n);
  }
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_EQ(failed.load(), 0u);
  EXPECT_GT(calls.load(), 50u);
  EXPECT_GT(refused.load(), 0u);
  EXPECT_EQ(rig.machine->stats().refused, refused.load());
}

TEST_P(HostThreads, DiscardGivesWayToOtherRemovers) {
  // Two threads discard and one removes overlapping pages in opposite orders, while two write: nobody waits
  // for ever, and a page that is entered again shows its new contents, never old ones.
  constexpr std::uint32_t kPages = 64;
  HostRig rig(PageCount{kPages}, GetParam());
  rig.grow_all();
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 2; ++t) {  // each has the frames of its parity: busy, as the engine's are
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      std::vector<FrameNumber> mine;
      for (std::uint32_t i = t; i < kPages; i += 2) mine.push_back(FrameNumber{i});
      for (std::uint32_t round = 1; !stop; ++round) {
        const auto value = static_cast<std::uint8_t>(round % 250 + 1);
        for (const FrameNumber frame : mine) {
          rig.fill(frame, value);
          (void)rig.enter(frame.value(), {frame});
        }
        for (const FrameNumber frame : mine) {
          std::uint8_t seen = 0;
          if (probe_load(rig.ptr(frame.value()), &seen) == 1 && seen != value) ++wrong;
        }
        std::shuffle(mine.begin(), mine.end(), random);
        if (rig.discard_all(mine) != 0) ++wrong;
        for (const FrameNumber frame : mine)
          wrong += rig.peek(frame) == 0 || rig.peek(frame) == value ? 0 : 1;
      }
    });
  }
  threads.emplace_back([&] {
    std::mt19937 random(5);
    while (!stop) {
      const std::uint64_t page = random() % kPages;
      rig.pmap->remove(rig.pages(page, 1 + random() % (kPages - page)));
    }
  });
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
  while (std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostThreads, PinsRefuseExactlyTheirPagesAndStealsWait) {
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  const unsigned id = rig.pins->register_thread();
  rig.enter(0, HostRig::run(0, 8));
  const VirtRange range = rig.pages(3, 2);
  rig.pins->pin(id, {&range, 1});
  EXPECT_EQ(rig.discard_all(HostRig::run(3, 3)), 2u);
  EXPECT_EQ(rig.machine->frame_at(rig.at(5)), kNoFrame);
  EXPECT_EQ(rig.remove_all(HostRig::run(0, 8)), 2u);
  EXPECT_EQ(rig.machine->frame_at(rig.at(2)), kNoFrame);
  EXPECT_EQ(rig.machine->frame_at(rig.at(3)), FrameNumber{3});
  EXPECT_EQ(rig.machine->frame_at(rig.at(4)), FrameNumber{4});
  EXPECT_EQ(rig.enter(100, HostRig::run(3, 1)), 0u);               // would pull it from under the system call
  EXPECT_EQ(rig.enter(99, {FrameNumber{2}, FrameNumber{3}}), 1u);  // leading ones
  rig.pmap->remove(rig.pages(3, 1));                               // the program's own munmap
  EXPECT_EQ(rig.machine->frame_at(rig.at(3)), kNoFrame);
  rig.pins->unpin(id);
  EXPECT_EQ(rig.remove_all(HostRig::run(0, 8)), 0u);
  EXPECT_TRUE(rig.machine->check_consistency());
}

/// A page registered with io_uring is pinned by the kernel for I/O, as one under direct I/O is for a
/// moment.
class KernelPin {
 public:
  explicit KernelPin(void* page) {
    unsigned char params[120] = {};
    ring_ = raw_syscall(425 /* io_uring_setup */, 1, reinterpret_cast<long>(params));
    if (ring_ < 0) return;
    struct {
      void* base;
      std::size_t len;
    } vec{page, kPageSize};
    held_ = raw_syscall(427 /* io_uring_register */, ring_, 0 /* BUFFERS */, reinterpret_cast<long>(&vec),
                        1) == 0;
  }
  ~KernelPin() { release(); }
  void release() {
    if (held_) raw_syscall(427, ring_, 1 /* UNREGISTER_BUFFERS */, 0, 0);
    if (ring_ >= 0) close(static_cast<int>(ring_));
    held_ = false;
    ring_ = -1;
  }
  [[nodiscard]] bool held() const { return held_; }

 private:
  long ring_ = -1;
  bool held_ = false;
};

TEST_P(HostMapping, PinnedPagesKeepWriteAccessWhenEnteredAgain) {
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  const unsigned id = rig.pins->register_thread();
  rig.enter(0, HostRig::run(0, 4));
  const VirtRange range = rig.pages(1, 1);
  rig.pins->pin(id, {&range, 1});
  EXPECT_EQ(rig.enter(1, HostRig::run(1, 1), Prot::kRead), 1u);
  EXPECT_EQ(probe_store(rig.ptr(1), 5), 1);
  rig.pins->unpin(id);
  EXPECT_EQ(rig.enter(1, HostRig::run(1, 1), Prot::kRead), 1u);
  EXPECT_EQ(probe_store(rig.ptr(1), 6), 0);
  EXPECT_EQ(*rig.ptr(1), 5);
}

TEST_P(HostMapping, WorksWithoutProc) {
  // No pagemap (a container without /proc): mincore() answers instead.
  HostRig rig(PageCount{64}, GetParam());
  rig.grow_all();
  close(rig.machine->descriptors()[1]);
  for (std::uint32_t i = 0; i < 32; ++i) rig.fill(FrameNumber{i}, static_cast<std::uint8_t>(i + 1));
  rig.enter(0, HostRig::run(0, 32));
  rig.machine->prepare_fork(/*guard=*/false);
  const pid_t child = fork();  // makes every MOVE fail with EBUSY first
  if (child == 0) _exit(0);
  rig.machine->after_fork_parent();
  waitpid(child, nullptr, 0);
  EXPECT_EQ(rig.remove_all(HostRig::run(0, 32)), 0u);
  EXPECT_EQ(rig.enter(100, HostRig::run(0, 32)), 32u);
  for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(*rig.ptr(100 + i), i + 1);
  EXPECT_TRUE(rig.machine->check_consistency());
}

/// Is there, and does nothing: with a second thread, pages that come in alone are copied.
class SecondThread {
 public:
  ~SecondThread() {
    over_.store(true);
    over_.notify_one();
    thread_.join();
  }

 private:
  std::atomic<bool> over_{false};
  std::thread thread_{[this] { over_.wait(false); }};
};

TEST_P(HostMapping, SinglePagesAreMovedForOneThreadAndCopiedForSeveral) {
  if (GetParam() == HostTransport::kCopy) GTEST_SKIP() << "copies always";
  if (raw_syscall(SYS_process_madvise, uffd::kSelf, 0, 0, MADV_DONTNEED) != 0)
    GTEST_SKIP() << "Linux before 6.13";
  for (const bool several : {false, true}) {
    std::optional<SecondThread> second;
    if (several) second.emplace();
    HostRig rig(PageCount{64}, GetParam());
    rig.grow_all();
    for (std::uint32_t i = 0; i < 64; ++i) rig.fill(FrameNumber{i}, static_cast<std::uint8_t>(i));
    for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(rig.enter(3 * i, {FrameNumber{i}}), 1u);
    const MoverStats mover = rig.machine->stats().mover;
    EXPECT_EQ(mover.moves, several ? 0u : 32u);
    EXPECT_EQ(mover.copies, several ? 32u : 0u);
    EXPECT_EQ(rig.enter(200, HostRig::run(32, 32)), 32u);
    EXPECT_EQ(rig.machine->stats().mover.moves, mover.moves + 1);
    for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(*rig.ptr(3 * i), i);
  }
}

// A page that comes in alone is copied; the memory it leaves behind goes with that of others. Whoever goes
// home before that must not find, or lose, anything there.
TEST_P(HostMapping, ACopyLeftBehindIsNeverMistakenForThePage) {
  const SecondThread second;
  HostRig rig(PageCount{64}, GetParam());
  rig.grow_all();
  for (std::uint32_t round = 0; round < 3; ++round) {
    for (std::uint32_t i = 0; i < 64; ++i) rig.fill(FrameNumber{i}, static_cast<std::uint8_t>(i + round));
    for (std::uint32_t i = 0; i < 64; ++i) EXPECT_EQ(rig.enter(3 * i, {FrameNumber{i}}), 1u);
    for (std::uint32_t i = 0; i < 64; i += 2) *rig.ptr(3 * i) = static_cast<std::uint8_t>(200 + round);
    EXPECT_TRUE(rig.machine->check_consistency());
    for (std::uint32_t i = 0; i < 64; ++i) {
      EXPECT_EQ(rig.remove_all({FrameNumber{i}}), 0u);
      EXPECT_EQ(rig.peek(FrameNumber{i}), i % 2 == 0 ? 200 + round : static_cast<std::uint8_t>(i + round))
          << i;
    }
    EXPECT_TRUE(rig.machine->check_consistency());
  }
  EXPECT_EQ(rss_pages(*rig.machine), 64u);
}

TEST_P(HostMapping, RandomComingAndGoingLosesNothing) {
  const SecondThread second;
  constexpr std::uint32_t kFrames = 96;
  std::random_device device;
  const char* given = std::getenv("ENCHILADA_SEED");
  const unsigned seed = given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : device();
  SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
  std::mt19937 random(seed);
  HostRig rig(PageCount{kFrames}, GetParam());
  rig.grow_all();
  std::array<std::uint8_t, kFrames> model{};
  std::array<std::uint32_t, kFrames>
      page{};  // where, when it is mapped; a frame f has pages f, f + kFrames, ...
  for (int step = 0; step < 3000; ++step) {
    const auto f = static_cast<std::uint32_t>(random() % kFrames);
    const auto n = static_cast<std::uint32_t>(1 + random() % std::min(kFrames - f, 20u));
    const auto frames = HostRig::run(f, n);
    switch (random() % 6) {
      case 0:
      case 1: {  // in, alone or in a run, written to where that is allowed
        const auto at = static_cast<std::uint32_t>(random() % 3) * kFrames + f;
        const bool writable = random() % 3 != 0;
        ASSERT_EQ(rig.enter(at, frames, writable ? Prot::kReadWrite : Prot::kRead), n);
        for (std::uint32_t i = 0; i < n; ++i) {
          page[f + i] = at + i;
          if (writable) *rig.ptr(at + i, 7) = model[f + i] = static_cast<std::uint8_t>(random());
        }
        break;
      }
      case 2:
      case 3: {  // out, in any order
        auto shuffled = frames;
        std::shuffle(shuffled.begin(), shuffled.end(), random);
        ASSERT_EQ(rig.remove_all(shuffled), 0u);
        break;
      }
      case 4:
        rig.pmap->remove(rig.pages(random() % (3 * kFrames), n));
        break;
      case 5:  // their contents are not needed
        ASSERT_EQ(rig.discard_all(frames), 0u);
        rig.machine->zero({FrameNumber{f}, PageCount{n}});
        for (std::uint32_t i = 0; i < n; ++i) model[f + i] = 0;
        break;
    }
    for (std::uint32_t i = f; i < f + n; ++i) {
      ASSERT_EQ(rig.peek(FrameNumber{i}, 7), model[i]) << "step " << step << ", frame " << i;
      if (rig.machine->frame_at(rig.at(page[i])) == FrameNumber{i}) {
        ASSERT_EQ(*rig.ptr(page[i], 7), model[i]) << "step " << step << ", frame " << i;
      }
    }
    if (step % 100 == 0) {
      ASSERT_TRUE(rig.machine->check_consistency()) << step;
    }
  }
}

using HostKernelPin = HostTest;
INSTANTIATE_HOST_TEST(HostKernelPin);

TEST_P(HostKernelPin, PagesUnderIoAreRefusedOrCopied) {
  if (GetParam() == HostTransport::kCopy) GTEST_SKIP() << "copying does not notice";
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  for (std::uint32_t i = 0; i < 4; ++i) rig.fill(FrameNumber{i}, static_cast<std::uint8_t>(i + 1));
  rig.enter(0, HostRig::run(0, 4));
  KernelPin pin(rig.ptr(1));
  if (!pin.held()) GTEST_SKIP() << "no io_uring here";
  EXPECT_EQ(rig.remove_all(HostRig::run(0, 4)), 1u);  // the daemon takes the others
  EXPECT_EQ(rig.machine->frame_at(rig.at(1)), FrameNumber{1});
  EXPECT_EQ(*rig.ptr(1), 2);
  EXPECT_TRUE(rig.machine->check_consistency());
  rig.pmap->remove(rig.pages(0, 4));  // an order: copied
  EXPECT_EQ(rig.machine->frame_at(rig.at(1)), kNoFrame);
  EXPECT_EQ(rig.peek(FrameNumber{1}), 2);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostKernelPin, HomePagesUnderIoAreCopiedIn) {
  HostRig rig(PageCount{16}, GetParam());
  rig.grow_all();
  rig.fill(FrameNumber{0}, 7);
  rig.fill(FrameNumber{1}, 8);
  std::byte* home = nullptr;
  rig.machine->with_frames({FrameNumber{0}, PageCount{1}}, Access::kRead, [&](std::byte* p) { home = p; });
  KernelPin pin(home);
  if (!pin.held()) GTEST_SKIP() << "no io_uring here";
  EXPECT_EQ(rig.enter(0, HostRig::run(0, 2)), 2u);
  EXPECT_EQ(*rig.ptr(0), 7);
  EXPECT_EQ(*rig.ptr(1), 8);
  EXPECT_TRUE(rig.machine->check_consistency());
}

}  // namespace
}  // namespace enchilada
