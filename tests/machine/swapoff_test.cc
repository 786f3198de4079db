// swapoff and swapon while an engine works: what moves, what is brought in, what is refused, and what a
// failing disk may cost (nothing).
#include "swap/swapoff.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "machine/soft_engine.h"
#include "validate/validate.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_pageout.h"

namespace enchilada {
namespace {

constexpr std::uint32_t kAlways = 65536;

/// An engine, one map, and ranges of it that are full of numbers.
class SwapoffTest : public testing::Test {
 protected:
  void start(std::vector<std::uint64_t> swap_pages, std::uint64_t frames, SoftEngineOptions options = {}) {
    options.swap_pages = std::move(swap_pages);
    options.machine.memory.frames = PageCount{frames};
    engine_ = std::make_unique<SoftEngine>(options);
    map_ = engine_->create_map(PageCount{2000});
  }
  ~SwapoffTest() override {
    map_.reset();
    engine_.reset();
  }

  FaultResult touch(VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
    auto& pmap = static_cast<SoftPmap&>(map_->pmap());
    for (int i = 0; i < 10'000; ++i) {
      if (pmap.access(va, access, use)) return FaultResult::kResolved;
      const FaultResult result = vm_fault(*map_, va, access);
      if (result != FaultResult::kResolved) return result;
    }
    return FaultResult::kNotMapped;
  }
  [[nodiscard]] VirtAddr at(std::uint64_t page) const {
    return map_->bounds().start + to_bytes(PageCount{page});
  }
  void map(std::uint64_t first, std::uint64_t n) {
    VmMap::MapRequest request;
    request.length = to_bytes(PageCount{n});
    request.placement = VmMap::MapRequest::Placement::kFixedExclusive;
    request.hint = at(first);
    VirtAddr got{0};
    ASSERT_EQ(map_->map(request, &got), KernReturn::kSuccess);
  }
  void store(std::uint64_t page, std::uint64_t value) {
    EXPECT_EQ(touch(at(page), Access::kWrite, [&](std::byte* b) { std::memcpy(b, &value, 8); }),
              FaultResult::kResolved);
  }
  std::uint64_t load(std::uint64_t page) {
    std::uint64_t value = 0;
    EXPECT_EQ(touch(at(page), Access::kRead, [&](std::byte* b) { std::memcpy(&value, b, 8); }),
              FaultResult::kResolved)
        << page;
    return value;
  }
  void fill(std::uint64_t first, std::uint64_t n) {
    map(first, n);
    for (std::uint64_t i = first; i < first + n; ++i) store(i, i + 1);
  }
  void check(std::uint64_t first, std::uint64_t n) {
    for (std::uint64_t i = first; i < first + n; ++i) ASSERT_EQ(load(i), i + 1) << i;
    VmMap* const maps[] = {map_.get()};
    const Problems problems = find_problems({.system = engine_->system(),
                                             .maps = maps,
                                             .pmaps = &engine_->machine().pmaps(),
                                             .pager = &engine_->pager(),
                                             .space = &engine_->space()});
    EXPECT_TRUE(problems.empty()) << to_text(problems);
    EXPECT_TRUE(engine_->space().verify());
  }
  /// Whoever does I/O there from now on fails.
  void break_disk(std::size_t i) { engine_->disk(i).set_failure_rate(kAlways, kAlways); }
  void mend_disk(std::size_t i) { engine_->disk(i).set_failure_rate(0, 0); }

  std::unique_ptr<SoftEngine> engine_;
  std::unique_ptr<VmMap> map_;
};

TEST_F(SwapoffTest, PagesMoveToTheOtherDevice) {
  start({1024, 1024}, 64);
  fill(0, 300);
  const std::uint64_t there = engine_->space().used_on(0).value();
  ASSERT_GT(there, 50u);
  SwapoffReport report;
  EXPECT_EQ(engine_->swapoff(0, {}, &report), SwapoffResult::kOk);
  EXPECT_GE(engine_->pager().stats().evacuated.load(), there);
  EXPECT_EQ(report.brought_in, 0u);
  EXPECT_EQ(engine_->space().capacity().value(), 1024u);
  break_disk(0);
  check(0, 300);
  for (std::uint64_t i = 0; i < 300; ++i) store(i, i + 1);
  check(0, 300);
}

TEST_F(SwapoffTest, ADeviceCanComeBackAndBeUsed) {
  start({256, 256}, 64);
  fill(0, 200);
  ASSERT_EQ(engine_->swapoff(1), SwapoffResult::kOk);
  EXPECT_EQ(engine_->swapoff(1), SwapoffResult::kNoDevice);
  EXPECT_FALSE(engine_->swapon(0)) << "it is there";
  ASSERT_TRUE(engine_->swapon(1));
  EXPECT_EQ(engine_->space().capacity().value(), 512u);
  fill(200, 200);
  EXPECT_GT(engine_->space().used_on(1).value(), 0u);
  ASSERT_EQ(engine_->swapoff(0), SwapoffResult::kNoRoom) << "now there is more than one of them holds";
  check(0, 400);
}

TEST_F(SwapoffTest, RefusedWithoutRoomAndNothingIsChanged) {
  start({400, 64}, 64);
  fill(0, 350);
  const PageCount capacity = engine_->space().capacity();
  SwapoffReport report;
  EXPECT_EQ(engine_->swapoff(0, {}, &report), SwapoffResult::kNoRoom);
  EXPECT_EQ(report.rounds, 0u) << "it was not even begun";
  EXPECT_EQ(engine_->pager().stats().evacuated.load(), 0u);
  EXPECT_EQ(engine_->space().capacity(), capacity);
  EXPECT_EQ(engine_->swapoff(0, {.force = true}, &report), SwapoffResult::kNoRoom);
  EXPECT_EQ(report.rounds, 1u) << "forced: it did what could be done";
  EXPECT_GT(engine_->pager().stats().evacuated.load() + report.brought_in, 0u);
  EXPECT_EQ(engine_->space().capacity(), capacity) << "and the device is usable again";
  check(0, 350);
  for (std::uint64_t i = 0; i < 350; ++i) store(i, i + 1);
  check(0, 350);
}

TEST_F(SwapoffTest, WhatFindsNoRoomIsBroughtIn) {
  start({512}, 160);
  fill(0, 100);
  fill(100, 200);
  ASSERT_EQ(map_->remove({at(100), at(300)}), KernReturn::kSuccess);
  ASSERT_GT(engine_->space().used_on(0).value(), 20u);
  SwapoffReport report;
  EXPECT_EQ(engine_->swapoff(0, {}, &report), SwapoffResult::kOk);
  EXPECT_GT(report.brought_in, 20u);
  EXPECT_EQ(engine_->space().capacity().value(), 0u);
  break_disk(0);
  check(0, 100);
  mend_disk(0);
  ASSERT_TRUE(engine_->swapon(0));
  fill(100, 300);
  check(0, 400);
}

TEST_F(SwapoffTest, APageThatCannotBeReadStaysAndSoDoesTheDevice) {
  start({1024, 1024}, 64);
  fill(0, 300);
  engine_->disk(0).fail_read_in(3);
  EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kIoError);
  EXPECT_FALSE(engine_->space().closing(0));
  EXPECT_EQ(engine_->space().capacity().value(), 2048u);
  check(0, 300);
  EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kOk) << "another time it can be read";
  break_disk(0);
  check(0, 300);
}

TEST_F(SwapoffTest, ADamagedPageIsNotCarriedOver) {
  start({1024, 1024}, 64);
  fill(0, 300);
  engine_->disk(0).set_corrupt_reads(true);
  EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kIoError);
  EXPECT_GT(engine_->pager().stats().fingerprint_bad.load(), 0u);
  engine_->disk(0).set_corrupt_reads(false);
  check(0, 300);
}

TEST_F(SwapoffTest, AWriteThatFailsElsewhereLosesNothing) {
  start({1024, 1024}, 64);
  fill(0, 300);
  engine_->disk(1).fail_write_in(2);
  EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kIoError);
  EXPECT_EQ(engine_->space().capacity().value(), 2048u);
  check(0, 300);
}

TEST_F(SwapoffTest, SharedAndShadowedPagesAndWhatIsWrittenBehindGoAlong) {
  SoftEngineOptions options;
  options.bounce_buffers = 5;
  options.async_looks = 3;
  start({1024, 1024}, 64, options);
  fill(0, 200);
  const auto child = map_->fork();
  ASSERT_NE(child, nullptr);
  for (std::uint64_t i = 0; i < 200; i += 3) store(i, i + 1);
  EXPECT_EQ(engine_->swapoff(1), SwapoffResult::kOk);
  break_disk(1);
  for (std::uint64_t i = 0; i < 200; ++i) ASSERT_EQ(load(i), i + 1);
  EXPECT_TRUE(engine_->space().verify());
}

TEST_F(SwapoffTest, WithEveryFormOfMetadataAndEveryAllocator) {
  for (const SwapMetaMode meta : {SwapMetaMode::kTrie, SwapMetaMode::kHash, SwapMetaMode::kArray3x}) {
    for (const SwapAllocatorMode allocator :
         {SwapAllocatorMode::kBlist, SwapAllocatorMode::kBlist1999, SwapAllocatorMode::kList3x}) {
      SoftEngineOptions options;
      options.modes.set(meta).set(allocator);
      options.swap_metadata_bytes = std::size_t{1} << 20;
      start({600, 100, 600}, 64, options);
      fill(0, 300);
      EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kOk);
      EXPECT_EQ(engine_->swapoff(2), SwapoffResult::kNoRoom);
      ASSERT_TRUE(engine_->swapon(0));
      EXPECT_EQ(engine_->swapoff(2), SwapoffResult::kOk);
      check(0, 300);
      map_.reset();
    }
  }
}

TEST_F(SwapoffTest, BehindACompressedStore) {
  SoftEngineOptions options;
  options.compressed_bytes = 16 * kPageSize;
  start({1024, 1024}, 64, options);
  fill(0, 400);
  EXPECT_EQ(engine_->swapoff(0), SwapoffResult::kOk);
  break_disk(0);
  check(0, 400);
  mend_disk(0);
  EXPECT_TRUE(engine_->swapon(0));
  for (std::uint64_t i = 0; i < 400; ++i) store(i, i + 1);
  check(0, 400);
}

/// Threads that fault and page out all the time, and devices that come and go under them.
TEST_F(SwapoffTest, UnderLoad) {
  constexpr std::uint64_t kPages = 150;
  constexpr unsigned kThreads = 3;
  constexpr std::uint64_t kFirst = 7;
  SoftEngineOptions options;
  options.bounce_buffers = 5;
  options.async_looks = 2;
  start({1024, 1024}, 96, options);
  // Swap is in use from the start, whenever the threads get to run.
  for (unsigned t = 0; t < kThreads; ++t) map(t * kPages, kPages);
  for (std::uint64_t i = 0; i < kThreads * kPages; ++i) store(i, kFirst);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::uint64_t expected[kPages];
      std::fill_n(expected, kPages, kFirst);
      std::uint64_t random = t + 1;
      for (std::uint64_t n = 1; !stop.load(); ++n) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const std::uint64_t i = random >> 33;
        const std::uint64_t page = t * kPages + i % kPages;
        if ((random >> 20 & 1) != 0) {
          store(page, n);
          expected[i % kPages] = n;
        } else if (load(page) != expected[i % kPages]) {
          wrong.fetch_add(1);
        }
      }
    });
  }
  unsigned gone = 0;
  for (unsigned i = 0; i < 30; ++i) {
    // Writes only: a page that could not be written stays in memory, one that cannot be read is an error of
    // the program's.
    engine_->disk((i + 1) % 2).set_failure_rate(0, i % 5 == 4 ? 8000 : 0);
    const SwapoffResult result = engine_->swapoff(i % 2);
    engine_->disk((i + 1) % 2).set_failure_rate(0, 0);
    EXPECT_TRUE(result == SwapoffResult::kOk || result == SwapoffResult::kIoError ||
                result == SwapoffResult::kBusy)
        << static_cast<int>(result);
    if (result != SwapoffResult::kOk) continue;
    ++gone;
    EXPECT_EQ(engine_->space().used_on(i % 2).value(), 0u);
    EXPECT_TRUE(engine_->swapon(i % 2));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0u);
  EXPECT_GT(gone, 10u);
  EXPECT_GT(engine_->pager().stats().evacuated.load(), 0u);
  EXPECT_TRUE(engine_->space().verify());
}

}  // namespace
}  // namespace enchilada
