// Blist against a plain bitmap: every answer of random histories, at the sizes where the tree changes shape.
#include "swap/blist.h"

#include <gtest/gtest.h>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;

struct AlignedStorage {
  explicit AlignedStorage(std::size_t bytes) : raw(bytes + 64) {}
  [[nodiscard]] std::span<std::byte> span() {
    auto at = reinterpret_cast<std::uintptr_t>(raw.data());
    return {raw.data() + (64 - at % 64) % 64, raw.size() - 64};
  }
  std::vector<std::byte> raw;
};

BlockRun run_of(std::uint64_t first, std::uint64_t count) {
  return {SwapBlock{static_cast<std::uint32_t>(first)}, PageCount{count}};
}

/// A Blist and the bitmap it must agree with.
class Pair {
 public:
  Pair(std::uint64_t blocks, std::uint64_t boundary)
      : storage_(Blist::required_bytes(PageCount{blocks})),
        list_(Blist::create(storage_.span(), PageCount{blocks}, PageCount{boundary})),
        free_(blocks, true),
        boundary_(boundary) {}

  void allocate(std::uint64_t min, std::uint64_t max) {
    const std::uint64_t longest = longest_run();
    const BlockRun run = list_.allocate(PageCount{min}, PageCount{max});
    if (run.empty()) {
      EXPECT_LT(longest, min) << "there was a run of that length";
      return;
    }
    const std::uint64_t first = run.first.value();
    const std::uint64_t count = run.count.value();
    ASSERT_GE(count, min);
    ASSERT_LE(count, std::max(min, max));
    ASSERT_LE(first + count, free_.size());
    for (std::uint64_t b = first; b < first + count; ++b) {
      ASSERT_TRUE(free_[b]) << b;
      free_[b] = false;
    }
    if (boundary_ != 0) {
      EXPECT_EQ(first / boundary_, (first + count - 1) / boundary_);
    }
    // As many as possible: it stopped at the maximum, an allocated block, a boundary or the end.
    const std::uint64_t end = first + count;
    EXPECT_TRUE(count == std::max(min, max) || end == free_.size() || !free_[end] ||
                (boundary_ != 0 && end % boundary_ == 0));
    EXPECT_EQ(list_.cursor().value(), end == free_.size() ? 0 : end);
  }

  void release(std::uint64_t first, std::uint64_t count) {
    bool any_free = first + count > free_.size();
    for (std::uint64_t b = first; b < std::min<std::uint64_t>(first + count, free_.size()); ++b)
      any_free |= free_[b];
    EXPECT_EQ(list_.free(run_of(first, count)), count == 0 || !any_free);
    if (any_free) return;
    for (std::uint64_t b = first; b < first + count; ++b) free_[b] = true;
  }

  void fill(std::uint64_t first, std::uint64_t count) {
    std::uint64_t were_free = 0;
    for (std::uint64_t b = first; b < first + count; ++b) {
      were_free += free_[b] ? 1 : 0;
      free_[b] = false;
    }
    EXPECT_EQ(list_.fill(run_of(first, count)).value(), were_free);
  }

  void check() {
    ASSERT_TRUE(list_.verify());
    std::uint64_t free = 0;
    for (std::uint64_t b = 0; b < free_.size(); ++b) {
      free += free_[b] ? 1 : 0;
      ASSERT_EQ(list_.is_free(SwapBlock{static_cast<std::uint32_t>(b)}), free_[b]) << b;
    }
    EXPECT_EQ(list_.available().value(), free);
    EXPECT_EQ(list_.largest().value(), std::min<std::uint64_t>(64, longest_run()));
  }

  /// Longest run with no boundary inside.
  [[nodiscard]] std::uint64_t longest_run() const {
    std::uint64_t longest = 0;
    std::uint64_t run = 0;
    for (std::uint64_t b = 0; b < free_.size(); ++b) {
      if (boundary_ != 0 && b % boundary_ == 0) run = 0;
      run = free_[b] ? run + 1 : 0;
      longest = std::max(longest, run);
    }
    return longest;
  }
  [[nodiscard]] std::uint64_t blocks() const { return free_.size(); }
  Blist& list() { return list_; }

 private:
  AlignedStorage storage_;
  Blist list_;
  std::vector<bool> free_;
  std::uint64_t boundary_;
};

TEST(Blist, NewListIsAllFree) {
  for (const std::uint64_t blocks : {1u, 63u, 64u, 65u, 1000u, 64u * 64, 64u * 64 + 1}) {
    for (const std::uint64_t boundary : {0u, 1u, 16u, 64u, 128u}) {
      Pair pair(blocks, boundary);
      pair.check();
      pair.allocate(1, blocks);
      pair.check();
      pair.fill(0, blocks);
      pair.check();
      EXPECT_EQ(pair.list().available().value(), 0u);
      pair.allocate(1, 1);
      pair.release(0, blocks);
      pair.check();
      pair.fill(0, blocks / 2 + 1);
      pair.list().reset();
      EXPECT_EQ(pair.list().available().value(), blocks);
      EXPECT_TRUE(pair.list().verify());
    }
  }
}

TEST(Blist, NewListTouchesFewPages) {
  constexpr std::uint64_t kBlocks = std::uint64_t{8} << 20;  // 32 GiB of swap
  swap_test::SharedMemory memory(Blist::required_bytes(PageCount{kBlocks}));
  Blist list = Blist::create(memory.span(), PageCount{kBlocks}, PageCount{0});
  list.fill(run_of(0, 1));
  EXPECT_EQ(list.available().value(), kBlocks - 1);
  EXPECT_LE(memory.resident_pages(), 16u);
}

TEST(Blist, FreesWhatWasFreeOnlyOnce) {
  Pair pair(300, 0);
  EXPECT_FALSE(pair.list().free(run_of(17, 1)));
  pair.allocate(100, 100);
  EXPECT_FALSE(pair.list().free(run_of(50, 100)));
  EXPECT_FALSE(pair.list().free(run_of(299, 2)));
  pair.check();
}

TEST(Blist, CursorMovesOnAndComesBack) {
  Pair pair(256, 0);
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 0u);
  EXPECT_TRUE(pair.list().free(run_of(0, 100)));
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 100u)
      << "next fit, not first fit";
  EXPECT_EQ(pair.list().allocate(PageCount{100}, PageCount{100}).first.value(), 0u) << "restart from 0";
  EXPECT_TRUE(pair.list().verify());
}

TEST(Blist, TakesARange) {
  Pair pair(4096, 0);
  pair.fill(0, pair.blocks());
  pair.release(10, 20);
  const BlockRun run = pair.list().allocate(PageCount{5}, PageCount{64});
  EXPECT_EQ(run.first.value(), 10u);
  EXPECT_EQ(run.count.value(), 20u);
}

TEST(Blist, LeafWhoseNeighbourBecomesFreeIsFoundAgain) {
  // The hint of leaf 0 depends on leaf 1: it must rise when leaf 1's low bits are freed later.
  Pair pair(128, 0);
  pair.fill(0, pair.blocks());
  pair.release(60, 4);
  pair.allocate(8, 8);
  pair.release(64, 4);
  EXPECT_EQ(pair.list().allocate(PageCount{8}, PageCount{8}).first.value(), 60u);
}

TEST(Blist, RunsLongerThanALeaf) {
  Pair pair(64 * 64 + 1, 0);
  pair.fill(70, 1);
  pair.fill(2000, 1);
  pair.allocate(1929, 4000);
  pair.check();
  pair.allocate(5000, 5000);
  pair.allocate(2096, 2096);
  pair.check();
}

TEST(Blist, ViewAtAnotherAddressIsTheSameList) {
  AlignedStorage one(Blist::required_bytes(PageCount{5000}));
  Blist list = Blist::create(one.span(), PageCount{5000}, PageCount{0});
  list.fill(run_of(0, 5000));
  ASSERT_TRUE(list.free(run_of(100, 4000)));
  static_cast<void>(list.allocate(PageCount{7}, PageCount{7}));
  AlignedStorage two(one.span().size());
  std::memcpy(two.span().data(), one.span().data(), one.span().size());
  Blist moved = Blist::attach(two.span());
  EXPECT_TRUE(moved.verify());
  EXPECT_EQ(moved.available().value(), 3993u);
  EXPECT_EQ(moved.allocate(PageCount{7}, PageCount{7}).first.value(), 107u);
}

TEST(Blist, LargestSpace) {
  constexpr std::uint64_t kBlocks = Blist::kMaxBlocks;
  swap_test::SharedMemory memory(Blist::required_bytes(PageCount{kBlocks}));
  Blist list = Blist::create(memory.span(), PageCount{kBlocks}, PageCount{0});
  EXPECT_EQ(list.fill(run_of(0, kBlocks)).value(), kBlocks);
  ASSERT_TRUE(list.free(run_of(kBlocks - 100, 100)));
  ASSERT_TRUE(list.free(run_of(5, 3)));
  EXPECT_EQ(list.allocate(PageCount{64}, PageCount{64}).first.value(), kBlocks - 100);
  EXPECT_EQ(list.allocate(PageCount{36}, PageCount{64}).count.value(), 36u);
  EXPECT_EQ(list.cursor().value(), 0u);
  EXPECT_EQ(list.allocate(PageCount{1}, PageCount{64}).first.value(), 5u);
  EXPECT_EQ(list.available().value(), 0u);
}

TEST(Blist, StatsCountRuns) {
  Pair pair(1000, 0);
  pair.fill(0, pair.blocks());
  pair.release(0, 10);
  pair.release(60, 70);
  pair.release(999, 1);
  EXPECT_EQ(pair.list().stats().free_runs, 3u);
  EXPECT_EQ(pair.list().stats().longest, 70u);
}

void random_history(std::uint64_t seed) {
  static constexpr std::uint64_t kSizes[] = {1,   2,   63,          64,      65,          127,
                                             128, 129, 64 * 64 - 1, 64 * 64, 64 * 64 + 1, 20000};
  static constexpr std::uint64_t kBoundaries[] = {0, 0, 0, 1, 2, 16, 32, 64, 128, 1024};
  Random random(seed);
  Pair pair(kSizes[random.below(std::size(kSizes))], kBoundaries[random.below(std::size(kBoundaries))]);
  const std::uint64_t size = pair.blocks();
  if (random.one_in(4)) pair.fill(0, size);
  const std::uint64_t typical = random.one_in(2) ? 8 : random.between(1, 200);
  for (int step = 0; step < 300; ++step) {
    const std::uint64_t first = random.below(size);
    const std::uint64_t room = size - first;
    switch (random.below(5)) {
      case 0:
      case 1: {
        const std::uint64_t min = random.between(1, typical);
        pair.allocate(min, random.one_in(2) ? min : min + random.below(100));
        break;
      }
      case 2:
        pair.release(first, random.between(1, std::min(room, typical)));
        break;
      case 3:
        pair.release(first, random.below(3));
        break;
      default:
        pair.fill(first, random.between(1, std::min(room, random.one_in(10) ? size : 5)));
    }
    if (testing::Test::HasFailure()) return;
    if (step % (size > 1000 ? 50 : 5) == 0) pair.check();
  }
  pair.check();
}

TEST(Blist, RandomHistoriesAgreeWithABitmap) {
  for_each_seed(1000, swap_test::rounds(1500), random_history);
}

}  // namespace
}  // namespace enchilada
