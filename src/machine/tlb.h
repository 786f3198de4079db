// Tlb: one CPU's translation lookaside buffers, with address-space ids and two page sizes.
//
// Two small first-level arrays, one for each page size, and a second level that both share; an entry is in
// any of them. LRU within a set. Entries carry what they translate to, so that a stale one is noticed (the
// machine compares). Invariants: lookups and fills touch one set of each array; an entry of a space that was
// invalidated is gone from all of them. No allocation after construction; not thread-safe.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/units.h"
#include "pmap/soft/pmap_events.h"

namespace enchilada {

inline constexpr unsigned kLargePageShift = 21;

/// entries / ways sets, a power of two; 0 entries: there is no such array.
struct TlbArrayShape {
  std::uint32_t entries = 0;
  std::uint32_t ways = 1;
};

struct TlbShape {
  TlbArrayShape small{64, 4};     // first level, 4 KiB pages
  TlbArrayShape large{32, 4};     // first level, 2 MiB pages
  TlbArrayShape second{1536, 6};  // both
};

/// One set-associative array. A tag is never 0.
class TlbArray {
 public:
  struct Entry {
    std::uint64_t tag = 0;
    std::uint32_t frame = 0;  // of the 4 KiB or 2 MiB page
    bool written = false;     // the dirty bit in the tables is known to be set
  };

  explicit TlbArray(const TlbArrayShape& shape)
      : ways_(shape.ways),
        mask_(shape.entries == 0 ? 0 : shape.entries / shape.ways - 1),
        entries_(shape.entries) {
    CHECK(shape.entries == 0 || (std::has_single_bit(mask_ + 1) && (mask_ + 1) * shape.ways == shape.entries),
          shape.entries, shape.ways);
  }

  /// The entry, now the most recent of its set, or null.
  Entry* find(std::uint64_t tag, std::uint64_t page) {
    if (entries_.empty()) return nullptr;
    Entry* const set = set_of(page);
    for (std::uint32_t way = 0; way < ways_; ++way) {
      if (set[way].tag != tag) continue;
      const Entry found = set[way];
      for (; way > 0; --way) set[way] = set[way - 1];
      set[0] = found;
      return set;
    }
    return nullptr;
  }
  /// Puts an entry in; the least recent of its set goes. True: that was a valid one, now in *out.
  bool insert(const Entry& entry, std::uint64_t page, Entry* out) {
    if (entries_.empty()) return false;
    Entry* const set = set_of(page);
    *out = set[ways_ - 1];
    for (std::uint32_t way = ways_ - 1; way > 0; --way) set[way] = set[way - 1];
    set[0] = entry;
    return out->tag != 0;
  }
  bool erase(std::uint64_t tag, std::uint64_t page) {
    if (entries_.empty()) return false;
    Entry* const set = set_of(page);
    for (std::uint32_t way = 0; way < ways_; ++way) {
      if (set[way].tag != tag) continue;
      for (; way + 1 < ways_; ++way) set[way] = set[way + 1];
      set[ways_ - 1] = {};
      return true;
    }
    return false;
  }
  /// Erases the entries for which drop(tag) says true; returns how many.
  template <class Drop>
  std::uint64_t erase_if(Drop drop) {
    std::uint64_t n = 0;
    for (std::size_t set = 0; set < entries_.size(); set += ways_) {
      std::uint32_t kept = 0;
      for (std::uint32_t way = 0; way < ways_; ++way) {
        const Entry entry = entries_[set + way];
        if (entry.tag == 0) continue;
        if (drop(entry.tag)) {
          ++n;
        } else {
          entries_[set + kept++] = entry;
        }
      }
      for (; kept < ways_; ++kept) entries_[set + kept] = {};
    }
    return n;
  }

 private:
  Entry* set_of(std::uint64_t page) { return &entries_[(page & mask_) * ways_]; }

  const std::uint32_t ways_;
  const std::uint64_t mask_;
  std::vector<Entry> entries_;
};

struct TlbCounts {
  std::uint64_t lookups = 0;
  std::uint64_t second_level_hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t flushes = 0;  // of everything, or of one space
  std::uint64_t erased = 0;   // entries that invalidations removed
};

class Tlb {
 public:
  enum class Level : std::uint8_t { kFirst, kSecond, kMiss };
  struct Hit {
    Level level = Level::kMiss;
    TlbArray::Entry* entry = nullptr;  // of a first-level array; valid until the next call
    bool large = false;
  };

  explicit Tlb(const TlbShape& shape) : small_(shape.small), large_(shape.large), second_(shape.second) {}

  /// Looks in the first level, then in the second, from where the entry moves up.
  Hit lookup(SpaceId space, VirtAddr va) {
    ++counts_.lookups;
    for (const bool large : {false, true}) {
      if (auto* const e = first(large).find(tag_of(space, va, large), page_of(va, large)); e != nullptr) {
        return {Level::kFirst, e, large};
      }
    }
    for (const bool large : {false, true}) {
      const std::uint64_t tag = tag_of(space, va, large);
      const TlbArray::Entry* const e = second_.find(tag, page_of(va, large));
      if (e == nullptr) continue;
      const TlbArray::Entry copy = *e;
      (void)second_.erase(tag, page_of(va, large));
      ++counts_.second_level_hits;
      return {Level::kSecond, insert_first(copy, va, large), large};
    }
    ++counts_.misses;
    return {};
  }

  /// After a miss and a walk. `frame`: of the 4 KiB page, or the first one of the 2 MiB page.
  void fill(SpaceId space, VirtAddr va, bool large, FrameNumber frame, bool written) {
    (void)insert_first({tag_of(space, va, large), frame.value(), written}, va, large);
  }

  /// INVLPG: forgets the entries, of both sizes, that translate va.
  void invalidate(SpaceId space, VirtAddr va) {
    for (const bool large : {false, true}) {
      const std::uint64_t tag = tag_of(space, va, large);
      if (first(large).erase(tag, page_of(va, large))) ++counts_.erased;
      if (second_.erase(tag, page_of(va, large))) ++counts_.erased;
    }
  }
  void flush_space(SpaceId space) {
    flush([space](std::uint64_t tag) { return space_of(tag) == space; });
  }
  void flush_all() {
    flush([](std::uint64_t) { return true; });
  }

  [[nodiscard]] const TlbCounts& counts() const { return counts_; }
  void reset_counts() { counts_ = {}; }

 private:
  // 36 bits of page number, 16 of space, one of size, and a top bit so that no tag is 0.
  static std::uint64_t page_of(VirtAddr va, bool large) {
    return va.value() >> (large ? kLargePageShift : kPageShift);
  }
  static std::uint64_t tag_of(SpaceId space, VirtAddr va, bool large) {
    return std::uint64_t{1} << 63 | std::uint64_t{large} << 62 | std::uint64_t{space} << 40 |
           (page_of(va, large) & ((std::uint64_t{1} << 40) - 1));
  }
  static SpaceId space_of(std::uint64_t tag) { return static_cast<SpaceId>(tag >> 40); }

  TlbArray& first(bool large) { return large ? large_ : small_; }
  /// What falls out of the first level goes to the second.
  TlbArray::Entry* insert_first(const TlbArray::Entry& entry, VirtAddr va, bool large) {
    TlbArray::Entry out;
    TlbArray& array = first(large);
    if (array.insert(entry, page_of(va, large), &out)) {
      TlbArray::Entry gone;
      (void)second_.insert(out, out.tag & ((std::uint64_t{1} << 40) - 1), &gone);
    }
    return array.find(entry.tag, page_of(va, large));
  }
  template <class Drop>
  void flush(Drop drop) {
    ++counts_.flushes;
    counts_.erased += small_.erase_if(drop) + large_.erase_if(drop) + second_.erase_if(drop);
  }

  TlbArray small_;
  TlbArray large_;
  TlbArray second_;
  TlbCounts counts_;
};

}  // namespace enchilada
