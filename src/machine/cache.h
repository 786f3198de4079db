// Cache: one physically indexed, set-associative, write-back cache of the simulated machine.
//
// Lines are kept in order of use within a set (LRU is exact), in one flat array. Invariants: a line is in at
// most one place, the set that its number selects; the first ways of a set are the most recently used. No
// allocation after construction; not thread-safe.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "base/units.h"

namespace enchilada {

/// A byte of physical memory: frame number * kPageSize + offset; page tables lie above the frames.
using PhysAddr = Unit<struct PhysAddrTag, std::uint64_t>;

constexpr PhysAddr phys_addr(FrameNumber frame, std::uint64_t offset = 0) {
  return PhysAddr{(std::uint64_t{frame.value()} << kPageShift) + offset};
}

/// bytes / (ways * line) sets, a power of two; bytes 0: there is no such cache. Direct-mapped: one way.
struct CacheShape {
  ByteCount bytes;
  std::uint32_t ways = 1;
  std::uint32_t line = 64;
};

struct CacheCounts {
  std::uint64_t accesses = 0;
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;      // lines thrown out for others
  std::uint64_t writebacks = 0;     // ... that were dirty
  std::uint64_t invalidations = 0;  // lines that another CPU's write took away
};

class Cache {
 public:
  static constexpr std::uint64_t kNoLine = ~std::uint64_t{0};

  explicit Cache(const CacheShape& shape)
      : ways_(shape.ways),
        line_shift_(static_cast<std::uint32_t>(std::countr_zero(shape.line))),
        set_mask_(shape.bytes.value() == 0 ? 0 : shape.bytes.value() / shape.line / shape.ways - 1),
        lines_(shape.bytes.value() == 0 ? 0 : (set_mask_ + 1) * ways_, 0) {
    CHECK(std::has_single_bit(shape.line) && shape.ways > 0, shape.line, shape.ways);
    CHECK(!exists() || (std::has_single_bit(set_mask_ + 1) &&
                        shape.bytes.value() == (set_mask_ + 1) * ways_ * shape.line),
          shape.bytes.value());
  }

  [[nodiscard]] bool exists() const { return !lines_.empty(); }
  [[nodiscard]] std::uint64_t line_of(PhysAddr address) const { return address.value() >> line_shift_; }

  struct Outcome {
    bool hit;
    bool was_dirty;               // hit: it had been written before
    std::uint64_t out = kNoLine;  // miss: the line that had to go, if it was dirty
  };
  /// Brings the line in; a write makes it dirty.
  Outcome access(std::uint64_t line, bool write) {
    ++counts_.accesses;
    std::uint64_t* const set = set_of(line);
    const std::uint64_t key = line + 1;
    for (std::uint32_t way = 0; way < ways_; ++way) {
      const std::uint64_t entry = set[way];
      if (entry >> 1 != key) continue;
      to_front(set, way, entry | (write ? 1 : 0));
      return {true, (entry & 1) != 0};
    }
    ++counts_.misses;
    const std::uint64_t old = set[ways_ - 1];
    to_front(set, ways_ - 1, key << 1 | (write ? 1 : 0));
    return {false, false, note_eviction(old)};
  }

  /// A dirty line comes from the cache above. Not counted as an access. Returns what had to go and was dirty.
  std::uint64_t write_back(std::uint64_t line) {
    std::uint64_t* const set = set_of(line);
    const std::uint64_t key = line + 1;
    for (std::uint32_t way = 0; way < ways_; ++way) {
      if (set[way] >> 1 != key) continue;
      set[way] |= 1;
      return kNoLine;
    }
    const std::uint64_t old = set[ways_ - 1];
    to_front(set, ways_ - 1, key << 1 | 1);
    return note_eviction(old);
  }

  [[nodiscard]] bool holds(std::uint64_t line) const {
    const std::uint64_t* const set = &lines_[(line & set_mask_) * ways_];
    for (std::uint32_t way = 0; way < ways_; ++way) {
      if (set[way] >> 1 == line + 1) return true;
    }
    return false;
  }

  /// Another CPU writes the line (or, clean_only, reads it: it is merely written back). True: it was here.
  bool snoop(std::uint64_t line, bool clean_only) {
    std::uint64_t* const set = set_of(line);
    for (std::uint32_t way = 0; way < ways_; ++way) {
      if (set[way] >> 1 != line + 1) continue;
      if ((set[way] & 1) != 0) ++counts_.writebacks;
      set[way] &= ~std::uint64_t{1};
      if (clean_only) return true;
      for (; way + 1 < ways_; ++way) set[way] = set[way + 1];
      set[ways_ - 1] = 0;
      ++counts_.invalidations;
      return true;
    }
    return false;
  }

  [[nodiscard]] const CacheCounts& counts() const { return counts_; }
  void reset_counts() { counts_ = {}; }

 private:
  std::uint64_t* set_of(std::uint64_t line) { return &lines_[(line & set_mask_) * ways_]; }
  static void to_front(std::uint64_t* set, std::uint32_t way, std::uint64_t entry) {
    for (; way > 0; --way) set[way] = set[way - 1];
    set[0] = entry;
  }
  std::uint64_t note_eviction(std::uint64_t entry) {
    if (entry == 0) return kNoLine;
    ++counts_.evictions;
    if ((entry & 1) == 0) return kNoLine;
    ++counts_.writebacks;
    return (entry >> 1) - 1;
  }

  const std::uint32_t ways_;
  const std::uint32_t line_shift_;
  const std::uint64_t set_mask_;
  std::vector<std::uint64_t> lines_;  // (line + 1) << 1 | dirty; 0: empty
  CacheCounts counts_;
};

}  // namespace enchilada
