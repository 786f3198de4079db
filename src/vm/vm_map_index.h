// MapIndex: the seam behind which a map's search structure stands; which one is a mode (MapIndexMode).
//
// An index holds all entries of a map and its header (the largest key), ordered by start, and knows where
// gaps are; MapEntries (vm_map_tree.h) keeps the list of neighbours, and sees to it that an entry's prev,
// next and gap are right before it calls. Invariants: const functions change nothing but counters, so that
// any number of threads may call them under the map's shared lock; all else runs under the exclusive one.
// Nothing here allocates but reserve(). A call through this interface costs what a predicted indirect jump
// costs; the hint that MapEntries keeps answers most lookups before it (docs/mechanisms/map.md has the
// figures).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "vm/vm_map_entry.h"
#include "vm/vm_modes.h"

namespace enchilada {

class MapIndex {
 public:
  virtual ~MapIndex() = default;
  /// Makes sure that `entries` of them, and the header, can be in the index at the same time. False: no
  /// memory. Never forgotten, so a smaller number asks for nothing.
  [[nodiscard]] virtual bool reserve(std::size_t /*entries*/) { return true; }
  /// Puts `entry` in; its prev, next and gap are set already. Within what was reserved it cannot fail.
  virtual void insert(MapEntry* entry) = 0;
  /// Takes `entry` out; its prev and next are still set. Never called with the header.
  virtual void erase(MapEntry* entry) = 0;
  /// entry->gap has changed.
  virtual void gap_changed(MapEntry* entry) = 0;
  /// entry->start was `old_start` until now; the order of the entries is the same.
  virtual void start_changed(MapEntry* /*entry*/, VirtAddr /*old_start*/) {}
  /// The last entry with start <= address, or null. Adds the nodes it looked at to *visited.
  [[nodiscard]] virtual MapEntry* find_at_or_before(VirtAddr address, std::uint64_t* visited) const = 0;
  /// The first entry after `entry` (which is in the index) whose gap is at least `length`, or null.
  [[nodiscard]] virtual MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const = 0;
  /// A lookup that has visited more nodes than this wants settle() to be called for its address, once the
  /// exclusive lock can be had for nothing.
  [[nodiscard]] virtual std::uint64_t patience() const { return ~std::uint64_t{0}; }
  virtual void settle(VirtAddr /*address*/) {}
  /// Checks the structure; stops the program when it is broken. Returns the number of entries in it.
  virtual std::size_t validate() const = 0;
};

/// What an index is made from; both outlive it.
struct MapIndexParts {
  MapNodePool& nodes;
  VmCounters& counters;
};

/// The factory of a mode.
[[nodiscard]] MapIndexFactory map_index_factory(MapIndexMode mode);

}  // namespace enchilada
