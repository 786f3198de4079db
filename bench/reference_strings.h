// Reference strings for questions of replacement, and the offline anchors: how often LRU and OPT (Belady)
// would have to bring a page in. First touches do not count: they need no page-in. Deterministic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <list>
#include <numeric>
#include <random>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace enchilada::bench {

struct Reference {
  std::uint32_t page;
  bool write;
};

struct ReferenceString {
  std::string_view name;
  std::uint64_t pages = 0;  // page numbers are below
  std::vector<Reference> refs;
};

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
inline ReferenceString loop_105(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"loop_105", frames * 105 / 100, {}};
  for (std::uint64_t i = 0; i < length; ++i) s.refs.push_back({page_number(i % s.pages), false});
  return s;
}

inline ReferenceString zipf_reads(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"zipf", frames * 4, {}};
  std::mt19937_64 random(1);
  const Zipf zipf(s.pages, 2);
  for (std::uint64_t i = 0; i < length; ++i) s.refs.push_back({zipf(random), false});
  return s;
}

inline ReferenceString uniform_reads(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"uniform_150", frames * 3 / 2, {}};
  std::mt19937_64 random(3);
  for (std::uint64_t i = 0; i < length; ++i) s.refs.push_back({page_number(random() % s.pages), false});
  return s;
}

/// A hot set of half of memory, used at random, and a scan of all else, again and again.
inline ReferenceString scan_and_hot_set(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"scan_hot", frames * 4, {}};
  std::mt19937_64 random(4);
  const std::uint64_t hot = frames / 2;
  std::uint64_t scan = 0;
  for (std::uint64_t i = 0; i < length; ++i) {
    const bool step = i % 4 == 0;
    s.refs.push_back({page_number(step ? hot + scan++ % (s.pages - hot) : random() % hot), false});
  }
  return s;
}

/// The working set, 70 % of memory, moves four times, a quarter of it staying.
inline ReferenceString phases(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"phases", frames * 4, {}};
  std::mt19937_64 random(5);
  const std::uint64_t set = frames * 7 / 10;
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t start = (i * 8 / length) % 5 * set * 3 / 4;
    s.refs.push_back({page_number((start + random() % set) % s.pages), false});
  }
  return s;
}

/// One pass after the other through three times memory, eight references to a page; a small hot set beside
/// it.
inline ReferenceString stream(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"stream", frames * 3, {}};
  std::mt19937_64 random(6);
  const std::uint64_t hot = frames / 8;
  for (std::uint64_t i = 0; i < length; ++i) {
    const std::uint64_t at = hot + i / 8 % (s.pages - hot);
    s.refs.push_back({page_number(i % 16 == 15 ? random() % hot : at), false});
  }
  return s;
}

/// Skewed reads, skewed writes elsewhere, and a sequential writer.
inline ReferenceString writers(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"writers", frames * 3, {}};
  std::mt19937_64 random(7);
  const Zipf read(frames, 8);
  const Zipf written(frames, 9);
  for (std::uint64_t i = 0; i < length; ++i) {
    switch (i % 4) {
      case 0:
        s.refs.push_back({page_number(2 * frames + i / 32 % frames), true});
        break;
      case 1:
        s.refs.push_back({page_number(frames + written(random)), true});
        break;
      default:
        s.refs.push_back({read(random), false});
        break;
    }
  }
  return s;
}

/// Every page once written, then reads and writes at random with locality in time: a random walk.
inline ReferenceString walk(std::uint64_t frames, std::uint64_t length) {
  ReferenceString s{"walk", frames * 3, {}};
  std::mt19937_64 random(10);
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < length; ++i) {
    at = i % 512 == 0 ? random() % s.pages : (at + s.pages + random() % 65 - 32) % s.pages;
    s.refs.push_back({page_number(at), random() % 4 == 0});
  }
  return s;
}

inline std::vector<ReferenceString> reference_strings(std::uint64_t frames, std::uint64_t length) {
  std::vector<ReferenceString> all;
  for (const auto make :
       {loop_105, zipf_reads, uniform_reads, scan_and_hot_set, phases, stream, writers, walk}) {
    all.push_back(make(frames, length));
  }
  return all;
}

/// Page-ins of LRU with so many frames.
inline std::uint64_t lru_page_ins(const ReferenceString& s, std::uint64_t frames) {
  std::list<std::uint32_t> order;  // oldest first
  std::unordered_map<std::uint32_t, std::list<std::uint32_t>::iterator> resident;
  std::vector<bool> seen(s.pages);
  std::uint64_t ins = 0;
  for (const Reference& ref : s.refs) {
    const auto it = resident.find(ref.page);
    if (it != resident.end()) {
      order.splice(order.end(), order, it->second);
      continue;
    }
    ins += seen[ref.page] ? 1 : 0;
    seen[ref.page] = true;
    if (resident.size() == frames) {
      resident.erase(order.front());
      order.pop_front();
    }
    resident[ref.page] = order.insert(order.end(), ref.page);
  }
  return ins;
}

/// Page-ins of OPT: the page whose next use is farthest goes.
inline std::uint64_t opt_page_ins(const ReferenceString& s, std::uint64_t frames) {
  const std::size_t never = s.refs.size();
  std::vector<std::size_t> next(s.refs.size());
  std::vector<std::size_t> last(s.pages, never);
  for (std::size_t i = s.refs.size(); i-- > 0;) {
    next[i] = last[s.refs[i].page];
    last[s.refs[i].page] = i;
  }
  std::set<std::pair<std::size_t, std::uint32_t>> resident;  // by next use
  std::vector<std::size_t> key(s.pages, never);
  std::vector<bool> in(s.pages);
  std::vector<bool> seen(s.pages);
  std::uint64_t ins = 0;
  for (std::size_t i = 0; i < s.refs.size(); ++i) {
    const std::uint32_t page = s.refs[i].page;
    if (in[page]) {
      resident.erase({key[page], page});
    } else {
      ins += seen[page] ? 1 : 0;
      seen[page] = true;
      if (resident.size() == frames) {
        const auto farthest = std::prev(resident.end());
        in[farthest->second] = false;
        resident.erase(farthest);
      }
    }
    in[page] = true;
    key[page] = next[i];
    resident.insert({next[i], page});
  }
  return ins;
}

}  // namespace enchilada::bench
