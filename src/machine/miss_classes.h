// MissClasses: why a cache missed (Hill's three classes): the line had never been used (compulsory); a fully
// associative cache of the same size would have missed, too (capacity); else two lines met in one set
// (conflict), which is what page colouring is about.
//
// A fully associative LRU cache beside the real one, as a list through an array with a place for each line of
// memory. Invariant: the list holds the most recently used lines, at most so many as the cache has. No
// allocation after construction; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "base/check.h"

namespace enchilada {

class MissClasses {
 public:
  /// For a cache of so many lines over a memory of so many.
  MissClasses(std::uint64_t cache_lines, std::uint64_t memory_lines)
      : capacity_(cache_lines), end_(static_cast<std::uint32_t>(memory_lines)), places_(memory_lines + 1) {
    CHECK(memory_lines < kNever, memory_lines);
    places_[end_] = {end_, end_, true};
  }

  struct Counts {
    std::uint64_t hits = 0;
    std::uint64_t compulsory = 0;
    std::uint64_t capacity = 0;
    std::uint64_t conflict = 0;
    [[nodiscard]] std::uint64_t misses() const { return compulsory + capacity + conflict; }
    friend Counts operator+(const Counts& a, const Counts& b) {
      return {a.hits + b.hits, a.compulsory + b.compulsory, a.capacity + b.capacity, a.conflict + b.conflict};
    }
  };

  /// The real cache was asked for the line; in this order.
  void access(std::uint64_t line, bool hit) {
    Place& place = places_[line];
    if (hit) {
      ++counts_.hits;
    } else if (place.next == kNever) {
      ++counts_.compulsory;
    } else {
      ++(place.in ? counts_.conflict : counts_.capacity);
    }
    const auto at = static_cast<std::uint32_t>(line);
    if (place.in) {
      unlink(place);
    } else if (++length_ > capacity_) {
      Place& last = places_[places_[end_].prev];
      unlink(last);
      last.in = false;
      --length_;
    }
    place = {places_[end_].next, end_, true};
    places_[place.next].prev = at;
    places_[end_].next = at;
  }

  [[nodiscard]] const Counts& counts() const { return counts_; }
  void reset_counts() { counts_ = {}; }

 private:
  static constexpr std::uint32_t kNever = ~std::uint32_t{0};
  struct Place {
    std::uint32_t next = kNever;
    std::uint32_t prev = kNever;
    bool in = false;
  };
  void unlink(const Place& place) {
    places_[place.prev].next = place.next;
    places_[place.next].prev = place.prev;
  }

  const std::uint64_t capacity_;
  const std::uint32_t end_;  // the list's sentinel
  std::uint64_t length_ = 0;
  std::vector<Place> places_;
  Counts counts_;
};

}  // namespace enchilada
