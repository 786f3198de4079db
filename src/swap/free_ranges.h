// FreeRanges: how fragmented a list of blocks is, as FreeBSD's blist_stats() tells it: how many free ranges
// there are, the largest, the average, and how many in each class of sizes. Classes are Fibonacci's: 1, 2,
// 3-4, 5-7, 8-12, ... Looks at every range: for people and tests.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "swap/swap_allocator.h"

namespace enchilada {

struct FreeRanges {
  static constexpr std::size_t kClasses = 46;  // the last begins above 2^31
  std::uint64_t ranges = 0;
  std::uint64_t blocks = 0;
  std::uint64_t largest = 0;
  std::array<std::uint64_t, kClasses> histogram{};

  [[nodiscard]] double average() const {
    return ranges == 0 ? 0 : static_cast<double>(blocks) / static_cast<double>(ranges);
  }
  /// Smallest range of a class.
  [[nodiscard]] static constexpr std::uint64_t class_floor(std::size_t c) {
    std::uint64_t a = 1;
    std::uint64_t b = 2;
    for (; c > 0; --c) {
      const std::uint64_t next = a + b;
      a = b;
      b = next;
    }
    return a;
  }
  [[nodiscard]] static constexpr std::size_t class_of(std::uint64_t length) {
    std::size_t c = 0;
    while (c + 1 < kClasses && class_floor(c + 1) <= length) ++c;
    return c;
  }
  void add(std::uint64_t length) {
    if (length == 0) return;
    ++ranges;
    blocks += length;
    largest = std::max(largest, length);
    ++histogram[class_of(length)];
  }
};

template <BlockAllocator A>
[[nodiscard]] FreeRanges free_ranges(const A& list) {
  FreeRanges all;
  std::uint64_t end = 0;  // of the run that grows
  std::uint64_t length = 0;
  list.for_each_free([&](BlockRun run) {
    if (run.first.value() != end) {
      all.add(length);
      length = 0;
    }
    length += run.count.value();
    end = run.first.value() + run.count.value();
  });
  all.add(length);
  return all;
}

}  // namespace enchilada
