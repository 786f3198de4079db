// Linux 2.6: two lists, reference bits read through the reverse map when a list is scanned; and the same with
// refault distances (3.15, for anonymous pages 5.9).
//
// All pages are mapped and anonymous: 2.6.12's mapped_ratio / 2 + distress + swappiness is then 50 + 60 + ...
// >= 100, so mapped pages are never spared, and that rule is not here. Invariant: a page is on one list.
#pragma once

#include <algorithm>
#include <vector>

#include "lab/policies/page_ring.h"
#include "lab/policies/policy.h"

namespace enchilada::lab {

/// kRefault: new pages start inactive, and one that comes back after fewer evictions than there are active
/// pages starts active.
template <bool kRefault>
class Linux26 {
 public:
  Linux26(const Trace& trace, const PolicyOptions& options)
      : free_(options.frames),
        cluster_(std::clamp(options.frames / 32, 1u, 32u)),
        state_(trace.pages),
        lists_{PageRing(std::min(options.frames, trace.pages)),
               PageRing(std::min(options.frames, trace.pages))},
        gone_at_(kRefault ? trace.pages : 0) {}

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    const std::uint32_t page = ref.page();
    std::uint8_t& state = state_[page];
    if (state != 0) [[likely]] {
      note_access(&state, ref);
      return true;
    }
    if (free_ == 0) shrink_zone(sink);
    --free_;
    enqueue(page, list_of_new(page));
    note_access(&state, ref);
    return false;
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

 private:
  enum List : std::uint8_t { kActive, kInactive };
  static constexpr std::uint8_t kInMemory = 1;
  static constexpr std::uint32_t kAhead = 8;
  static constexpr unsigned kPriority = 12;  // DEF_PRIORITY

  void enqueue(std::uint32_t page, List list) {
    state_[page] = static_cast<std::uint8_t>((state_[page] & kDirtyBit) | kInMemory);
    lists_[list].push_back(page);
  }
  [[nodiscard]] List list_of_new(std::uint32_t page) const {
    if constexpr (!kRefault) return kActive;
    const std::uint64_t gone = gone_at_[page];
    return gone != 0 && evictions_ - gone <= lists_[kActive].size() ? kActive : kInactive;
  }

  /// Frees a cluster of pages (SWAP_CLUSTER_MAX), both lists scanned in proportion to their lengths.
  template <class Sink>
  void shrink_zone(Sink& sink) {
    for (unsigned priority = kPriority; free_<cluster_; priority -= priority> 0 ? 1 : 0) {
      refill_inactive(due(&active_due_, lists_[kActive].size(), priority), sink);
      shrink_cache(due(&inactive_due_, lists_[kInactive].size(), priority), sink);
      if (free_ > 0 && lists_[kActive].size() + lists_[kInactive].size() == 0) return;
    }
  }
  /// What is due is scanned when it is a cluster.
  std::uint32_t due(std::uint32_t* sum, std::uint32_t size, unsigned priority) const {
    *sum += (size >> priority) + 1;
    if (*sum < cluster_) return 0;
    const std::uint32_t n = std::min(*sum, size);
    *sum = 0;
    return n;
  }

  template <class Sink>
  void refill_inactive(std::uint32_t n, Sink& sink) {
    for (; n > 0; --n) {
      prefetch(lists_[kActive].peek(kAhead));
      const std::uint32_t page = lists_[kActive].pop_front();
      sink.looked();
      enqueue(page, (state_[page] & kYoungBit) != 0 ? kActive : kInactive);
    }
  }

  template <class Sink>
  void shrink_cache(std::uint32_t n, Sink& sink) {
    for (; n > 0 && free_ < cluster_; --n) {
      prefetch(lists_[kInactive].peek(kAhead));
      const std::uint32_t page = lists_[kInactive].pop_front();
      sink.looked();
      if ((state_[page] & kYoungBit) != 0) {
        enqueue(page, kActive);
        continue;
      }
      evict(&state_[page], page, sink);
      ++free_;
      ++evictions_;
      if constexpr (kRefault) gone_at_[page] = evictions_;
    }
  }

  std::uint32_t free_;
  std::uint32_t cluster_;
  std::uint32_t active_due_ = 0;
  std::uint32_t inactive_due_ = 0;
  std::vector<std::uint8_t> state_;
  PageRing lists_[2];                   // by List
  std::vector<std::uint64_t> gone_at_;  // which eviction it was, from 1; 0: never
  std::uint64_t evictions_ = 0;
};

}  // namespace enchilada::lab
