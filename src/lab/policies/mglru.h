// Multi-generational LRU (Linux 6.1): a window of generations; ageing walks the page tables, evicting goes
// through the reverse map and looks at the neighbours while it is there.
//
// Accesses here are all through page tables, so tiers (of accesses through descriptors) have no say. The walk
// passes over no table: the Bloom filter saves time, not misses. Invariants: a page is on the list that its
// place says; its generation is never older than its place.
#pragma once

#include <algorithm>
#include <vector>

#include "lab/policies/page_ring.h"
#include "lab/policies/policy.h"

namespace enchilada::lab {

class Mglru {
 public:
  static constexpr std::uint32_t kMaxGenerations = 4;
  static constexpr std::uint32_t kMinGenerations = 2;
  static constexpr std::uint32_t kNeighbours = 64;  // entries that an eviction looks at: BITS_PER_LONG

  Mglru(const Trace& trace, const PolicyOptions& options)
      : free_(options.frames),
        state_(trace.pages),
        lists_(kMaxGenerations, PageRing(std::min(options.frames, trace.pages))) {}

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    const std::uint32_t page = ref.page();
    std::uint8_t& state = state_[page];
    if (state != 0) [[likely]] {
      note_access(&state, ref);
      return true;
    }
    if (free_ == 0) evict_one(sink);
    --free_;
    state = static_cast<std::uint8_t>(kInMemory | access_bits(ref));
    place(page, youngest());
    return false;
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

 private:
  static constexpr std::uint8_t kInMemory = 1;
  static constexpr unsigned kPlaceShift = 1;  // the list that the page is on
  static constexpr unsigned kGenerationShift = 3;

  [[nodiscard]] std::uint32_t youngest() const { return max_ % kMaxGenerations; }
  [[nodiscard]] std::uint32_t generation(std::uint32_t page) const {
    return (state_[page] >> kGenerationShift) & 3;
  }
  void set(std::uint32_t page, unsigned shift, std::uint32_t value) {
    state_[page] = static_cast<std::uint8_t>((state_[page] & ~(3u << shift)) | (value << shift));
  }
  void place(std::uint32_t page, std::uint32_t list) {
    set(page, kPlaceShift, list);
    set(page, kGenerationShift, list);
    lists_[list].push_back(page);
  }
  /// A young page in memory joins the youngest generation; it stays where it is until it is met there.
  bool promote_young(std::uint32_t page) {
    if ((state_[page] & kYoungBit) == 0) return false;
    clear_bits(&state_[page], kYoungBit);
    set(page, kGenerationShift, youngest());
    return true;
  }

  /// The walk over all page tables, and a new generation after it.
  template <class Sink>
  void age(Sink& sink) {
    for (std::uint32_t page = 0; page < state_.size(); ++page) {
      if (state_[page] == 0) continue;
      sink.looked();
      promote_young(page);
    }
    ++max_;
  }

  template <class Sink>
  void evict_one(Sink& sink) {
    while (free_ == 0) {
      const std::uint32_t oldest = min_ % kMaxGenerations;
      if (max_ - min_ + 1 <= kMinGenerations) {
        age(sink);
      } else if (lists_[oldest].size() == 0) {
        ++min_;
      } else {
        scan(oldest, sink);
      }
    }
  }

  template <class Sink>
  void scan(std::uint32_t oldest, Sink& sink) {
    const std::uint32_t page = lists_[oldest].pop_front();
    sink.looked();
    if ((state_[page] & kYoungBit) != 0) look_around(page, sink);
    if (generation(page) != oldest) {
      place(page, generation(page));
      return;
    }
    evict(&state_[page], page, sink);
    ++free_;
  }

  template <class Sink>
  void look_around(std::uint32_t page, Sink& sink) {
    const std::uint32_t first = page / kNeighbours * kNeighbours;
    const std::uint32_t end = std::min(first + kNeighbours, static_cast<std::uint32_t>(state_.size()));
    for (std::uint32_t at = first; at < end; ++at) {
      if (promote_young(at)) sink.looked();
    }
  }

  std::uint32_t free_;
  std::uint32_t min_ = 0;  // sequence numbers of the oldest and the youngest generation
  std::uint32_t max_ = kMinGenerations + 1;
  std::vector<std::uint8_t> state_;
  std::vector<PageRing> lists_;  // by sequence number modulo kMaxGenerations
};

}  // namespace enchilada::lab
