// Reference strings for questions of replacement. Invariant: the same arguments give the same string.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "lab/policies/replay.h"

namespace enchilada::lab {

/// Page numbers with P(rank r) ~ 1 / (r + 1), in an order that has nothing to do with the rank.
class Zipf {
 public:
  Zipf(std::uint64_t pages, std::uint64_t seed) : sum_(pages), page_(pages) {
    double total = 0;
    for (std::uint64_t i = 0; i < pages; ++i) sum_[i] = total += 1.0 / static_cast<double>(i + 1);
    std::iota(page_.begin(), page_.end(), 0u);
    std::mt19937_64 random(seed);
    for (std::uint64_t i = pages; i > 1; --i) std::swap(page_[i - 1], page_[random() % i]);
  }
  std::uint32_t operator()(std::mt19937_64& random) const {
    const double x = sum_.back() * static_cast<double>(random() >> 11) / 9007199254740992.0;
    const auto at = std::upper_bound(sum_.begin(), sum_.end(), x) - sum_.begin();
    return page_[std::min(static_cast<std::size_t>(at), page_.size() - 1)];
  }

 private:
  std::vector<double> sum_;
  std::vector<std::uint32_t> page_;
};

inline std::uint32_t page_number(std::uint64_t n) {
  return static_cast<std::uint32_t>(n);
}

/// A loop over 105 % of memory: the worst case of LRU.
inline Trace loop_105(std::uint64_t frames, std::uint64_t length) {
  Trace s{"loop_105", page_number(frames * 105 / 100), {}};
  for (std::uint64_t i = 0; i < length; ++i) s.refs.emplace_back(page_number(i % s.pages), false);
  return s;
}

inline Trace zipf_reads(std::uint64_t frames, std::uint64_t length) {
  Trace s{"zipf", page_number(frames * 4), {}};
  std::mt19937_64 random(1);
  const Zipf zipf(s.pages, 2);
  for (std::uint64_t i = 0; i < length; ++i) s.refs.emplace_back(zipf(random), false);
  return s;
}

inline Trace uniform_reads(std::uint64_t frames, std::uint64_t length) {
  Trace s{"uniform_150", page_number(frames * 3 / 2), {}};
  std::mt19937_64 random(3);
  for (std::uint64_t i = 0; i < length; ++i) s.refs.emplace_back(page_number(random() % s.pages), false);
  return s;
}

/// A hot set of half of memory, used at random, and a scan of all else, again and again.
inline Trace scan_and_hot_set(std::uint64_t frames, std::uint64_t length) {
  Trace s{"scan_hot", page_number(frames * 4), {}};
  std::mt19937_64 random(4);
  const std::uint64_t hot = frames / 2;
  std::uint64_t scan = 0;
  for (std::uint64_t i = 0; i < length; ++i) {
    const bool step = i % 4 == 0;
    s.refs.emplace_back(page_number(step ? hot + scan++ % (s.pages - hot) : random() % hot), false);
  }
  return s;
}

/// The working set, 70 % of memory, moves four times, a quarter of it staying.
inline Trace phases(std::uint64_t frames, std::uint64_t length) {
  Trace s{"phases", page_number(frames * 4), {}};
  std::mt19937_64 random(5);
  const std::uint64_t set = frames * 7 / 10;
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t start = (i * 8 / length) % 5 * set * 3 / 4;
    s.refs.emplace_back(page_number((start + random() % set) % s.pages), false);
  }
  return s;
}

/// One pass after the other through three times memory, eight references to a page; a small hot set beside
/// it.
inline Trace stream(std::uint64_t frames, std::uint64_t length) {
  Trace s{"stream", page_number(frames * 3), {}};
  std::mt19937_64 random(6);
  const std::uint64_t hot = frames / 8;
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t at = hot + i / 8 % (s.pages - hot);
    s.refs.emplace_back(page_number(i % 16 == 15 ? random() % hot : at), false);
  }
  return s;
}

/// Skewed reads, skewed writes elsewhere, and a sequential writer.
inline Trace writers(std::uint64_t frames, std::uint64_t length) {
  Trace s{"writers", page_number(frames * 3), {}};
  std::mt19937_64 random(7);
  const Zipf read(frames, 8);
  const Zipf written(frames, 9);
  for (std::uint64_t i = 0; i < length; ++i) {
    switch (i % 4) {
      case 0:
        s.refs.emplace_back(page_number(2 * frames + i / 32 % frames), true);
        break;
      case 1:
        s.refs.emplace_back(page_number(frames + written(random)), true);
        break;
      default:
        s.refs.emplace_back(read(random), false);
        break;
    }
  }
  return s;
}

/// Every page once written, then reads and writes at random with locality in time: a random walk.
inline Trace walk(std::uint64_t frames, std::uint64_t length) {
  Trace s{"walk", page_number(frames * 3), {}};
  std::mt19937_64 random(10);
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < length; ++i) {
    at = i % 512 == 0 ? random() % s.pages : (at + s.pages + random() % 65 - 32) % s.pages;
    s.refs.emplace_back(page_number(at), random() % 4 == 0);
  }
  return s;
}

inline std::vector<Trace> reference_strings(std::uint64_t frames, std::uint64_t length) {
  std::vector<Trace> all;
  for (const auto make :
       {loop_105, zipf_reads, uniform_reads, scan_and_hot_set, phases, stream, writers, walk}) {
    all.push_back(make(frames, length));
  }
  return all;
}

/// References that bring a page in which had been there before: what a policy is to blame for.
inline std::uint64_t page_ins(const Trace& trace, std::string_view policy, std::uint32_t frames) {
  return replay(policy, trace, {.frames = frames}).misses - distinct_pages(trace);
}

}  // namespace enchilada::lab
