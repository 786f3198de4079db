// OPT (Belady): the page whose next use is farthest goes. It knows the trace.
//
// One pass backward finds every reference's next use. The next uses of the pages in memory are a set of
// places in the trace, one bit a place, under a tree of words 64 wide: adding, dropping and finding the
// farthest look at one word a level, four levels for 16 million references. A page that is not used again has
// a place of its own behind the end, by its number: among those the highest page number goes. Invariant: the
// set has exactly one place for each page in memory.
#pragma once

#include <bit>
#include <vector>

#include "lab/policies/policy.h"

namespace enchilada::lab {

/// A set of numbers below a limit that knows its largest.
class PlaceSet {
 public:
  explicit PlaceSet(std::uint64_t limit) {
    do {
      limit = (limit + 63) / 64;
      levels_.emplace_back(limit);
    } while (limit > 1);
  }
  void add(std::uint64_t n) {
    for (auto& level : levels_) {
      const std::uint64_t word = n / 64;
      const bool was_empty = level[word] == 0;
      level[word] |= bit(n);
      if (!was_empty) return;
      n = word;
    }
  }
  void drop(std::uint64_t n) {
    for (auto& level : levels_) {
      level[n / 64] &= ~bit(n);
      if (level[n / 64] != 0) return;
      n /= 64;
    }
  }
  /// Of a set that is not empty.
  [[nodiscard]] std::uint64_t largest() const {
    std::uint64_t at = 0;
    for (std::size_t i = levels_.size(); i-- > 0;) {
      at = at * 64 + 63 - static_cast<unsigned>(std::countl_zero(levels_[i][at]));
    }
    return at;
  }

 private:
  static std::uint64_t bit(std::uint64_t n) { return std::uint64_t{1} << (n % 64); }
  std::vector<std::vector<std::uint64_t>> levels_;
};

class Opt {
 public:
  Opt(const Trace& trace, const PolicyOptions& options)
      : trace_(trace),
        limit_(options.frames),
        state_(trace.pages),
        next_use_(trace.refs.size()),
        places_(trace.refs.size() + trace.pages) {
    std::vector<std::uint64_t> next(trace.pages);
    for (std::uint32_t page = 0; page < trace.pages; ++page) next[page] = trace.refs.size() + page;
    for (std::uint64_t i = trace.refs.size(); i-- > 0;) {
      const std::uint32_t page = trace.refs[i].page();
      next_use_[i] = next[page];
      next[page] = i;
    }
  }
  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    std::uint8_t& state = state_[ref.page()];
    const bool hit = state != 0;
    if (hit) {
      places_.drop(now_);
    } else if (resident_ == limit_) {
      sink.looked();
      const std::uint64_t place = places_.largest();
      places_.drop(place);
      const std::uint32_t victim = page_at(place);
      evict(&state_[victim], victim, sink);
    } else {
      ++resident_;
    }
    state = static_cast<std::uint8_t>(state | 1 | access_bits(ref));
    places_.add(next_use_[now_++]);
    return hit;
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

 private:
  [[nodiscard]] std::uint32_t page_at(std::uint64_t place) const {
    const std::uint64_t end = trace_.refs.size();
    return place < end ? trace_.refs[place].page() : static_cast<std::uint32_t>(place - end);
  }
  const Trace& trace_;
  std::uint32_t limit_;
  std::vector<std::uint8_t> state_;
  std::vector<std::uint64_t> next_use_;
  PlaceSet places_;
  std::uint64_t now_ = 0;
  std::uint32_t resident_ = 0;
};

}  // namespace enchilada::lab
