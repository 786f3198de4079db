// A bitmap that says what an allocator of swap blocks must answer, and what is particular to each of them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "swap/swap_allocator.h"
#include "swap_test_support.h"

namespace enchilada::swap_test {

using block_storage::run_at;

struct AlignedStorage {
  explicit AlignedStorage(std::size_t bytes) : raw(bytes + 64) {}
  [[nodiscard]] std::span<std::byte> span() {
    auto at = reinterpret_cast<std::uintptr_t>(raw.data());
    return {raw.data() + (64 - at % 64) % 64, raw.size() - 64};
  }
  std::vector<std::byte> raw;
};

/// kNextFit: it searches from a cursor and gives up to max blocks; else it is first fit and gives exactly
/// min. kLeaf: no run crosses a multiple of this (0 = no such limit). bytes(): storage in which nothing is
/// lost.
template <BlockAllocator A>
struct Rules;
template <>
struct Rules<Blist> {
  static constexpr bool kNextFit = true;
  static constexpr std::uint64_t kLeaf = 0;
  static std::size_t bytes(std::uint64_t blocks) { return Blist::required_bytes(PageCount{blocks}); }
};
template <>
struct Rules<Blist1999> {
  static constexpr bool kNextFit = false;
  static constexpr std::uint64_t kLeaf = 32;
  static std::size_t bytes(std::uint64_t blocks) { return Blist1999::required_bytes(PageCount{blocks}); }
};
template <>
struct Rules<SwapList3x> {
  static constexpr bool kNextFit = false;
  static constexpr std::uint64_t kLeaf = 0;
  static std::size_t bytes(std::uint64_t blocks) { return SwapList3x::bytes_with_nodes(blocks / 2 + 1); }
};

/// An allocator and the bitmap that it must agree with.
template <BlockAllocator A>
class Pair {
 public:
  Pair(std::uint64_t blocks, std::uint64_t boundary)
      : storage_(Rules<A>::bytes(blocks)),
        list_(A::create(storage_.span(), PageCount{blocks}, PageCount{boundary})),
        free_(blocks, true),
        clip_(clip(boundary)) {}

  void allocate(std::uint64_t min, std::uint64_t max) {
    const std::uint64_t expected = Rules<A>::kNextFit ? 0 : first_fit(min);
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
    if (clip_ != 0) {
      EXPECT_EQ(first / clip_, (first + count - 1) / clip_);
    }
    if constexpr (!Rules<A>::kNextFit) {
      EXPECT_EQ(first, expected);
      EXPECT_EQ(count, min);
      return;
    }
    // As many as possible: it stopped at the maximum, an allocated block, a boundary or the end.
    const std::uint64_t end = first + count;
    EXPECT_TRUE(count == std::max(min, max) || end == free_.size() || !free_[end] ||
                (clip_ != 0 && end % clip_ == 0));
    EXPECT_EQ(list_.cursor().value(), end == free_.size() ? 0 : end);
  }

  void release(std::uint64_t first, std::uint64_t count) {
    bool any_free = first + count > free_.size();
    for (std::uint64_t b = first; b < std::min<std::uint64_t>(first + count, free_.size()); ++b)
      any_free |= free_[b];
    EXPECT_EQ(list_.free(run_at(first, count)), count == 0 || !any_free);
    if (any_free) return;
    for (std::uint64_t b = first; b < first + count; ++b) free_[b] = true;
  }

  void fill(std::uint64_t first, std::uint64_t count) {
    std::uint64_t were_free = 0;
    for (std::uint64_t b = first; b < first + count; ++b) {
      were_free += free_[b] ? 1 : 0;
      free_[b] = false;
    }
    EXPECT_EQ(list_.fill(run_at(first, count)).value(), were_free);
  }

  void check() {
    ASSERT_TRUE(list_.verify());
    std::uint64_t free = 0;
    for (std::uint64_t b = 0; b < free_.size(); ++b) {
      free += free_[b] ? 1 : 0;
      ASSERT_EQ(list_.is_free(SwapBlock{static_cast<std::uint32_t>(b)}), free_[b]) << b;
    }
    EXPECT_EQ(list_.available().value(), free);
    std::vector<bool> visited(free_.size(), false);
    std::uint64_t end = 0;
    list_.for_each_free([&](BlockRun run) {
      EXPECT_FALSE(run.empty());
      EXPECT_GE(run.first.value(), end) << "upwards";
      end = run.first.value() + run.count.value();
      for (std::uint64_t b = run.first.value(); b < std::min<std::uint64_t>(end, free_.size()); ++b)
        visited[b] = true;
    });
    EXPECT_LE(end, free_.size());
    EXPECT_EQ(visited, free_);
    if constexpr (std::is_same_v<A, Blist>) {
      EXPECT_EQ(list_.largest().value(), std::min<std::uint64_t>(64, longest_run()));
    } else {
      EXPECT_GE(list_.largest().value(), longest_run());
    }
    if constexpr (LossyAllocator<A>) {
      EXPECT_EQ(list_.nodeless(), 0u);
    }
  }

  /// Longest run that no boundary or leaf interrupts.
  [[nodiscard]] std::uint64_t longest_run() const {
    std::uint64_t longest = 0;
    std::uint64_t run = 0;
    for (std::uint64_t b = 0; b < free_.size(); ++b) {
      if (clip_ != 0 && b % clip_ == 0) run = 0;
      run = free_[b] ? run + 1 : 0;
      longest = std::max(longest, run);
    }
    return longest;
  }
  [[nodiscard]] std::uint64_t blocks() const { return free_.size(); }
  A& list() { return list_; }

 private:
  static std::uint64_t clip(std::uint64_t boundary) {
    if (boundary == 0 || Rules<A>::kLeaf == 0) return std::max(boundary, Rules<A>::kLeaf);
    return std::min(boundary, Rules<A>::kLeaf);
  }
  /// Where the first `n` contiguous free blocks are, if anywhere.
  [[nodiscard]] std::uint64_t first_fit(std::uint64_t n) const {
    std::uint64_t run = 0;
    for (std::uint64_t b = 0; b < free_.size(); ++b) {
      if (clip_ != 0 && b % clip_ == 0) run = 0;
      run = free_[b] ? run + 1 : 0;
      if (run == n) return b + 1 - n;
    }
    return free_.size();
  }

  AlignedStorage storage_;
  A list_;
  std::vector<bool> free_;
  std::uint64_t clip_;
};

}  // namespace enchilada::swap_test
