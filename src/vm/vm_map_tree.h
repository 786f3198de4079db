// MapEntries: the ordered entries of one map: neighbour links, a hint, and behind them the search structure
// that the engine's mode says (vm_map_index.h).
//
// The list is circular through a header that stands for both ends of the address space (header.start is the
// upper bound, header.end the lower), so that every entry has neighbours and every gap an entry that follows
// it. The header is in the index too, as its largest key: the room above the last entry is its gap.
// Invariants: sorted, disjoint; entry.gap == entry.start - entry.prev->end; the index finds every entry and
// every gap. The map's lock guards all of it: shared for lookup(), first_ending_after(), find_space().
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>

#include "vm/vm_map_entry.h"
#include "vm/vm_map_index.h"

namespace enchilada {

class MapEntries {
 public:
  MapEntries(VirtRange bounds, std::unique_ptr<MapIndex> index, VmCounters& counters);
  MapEntries(const MapEntries&) = delete;
  MapEntries& operator=(const MapEntries&) = delete;

  [[nodiscard]] MapEntry* header() { return &header_; }
  [[nodiscard]] MapEntry* first() { return header_.next; }
  [[nodiscard]] std::size_t count() const { return count_; }

  /// True: *found contains the address. False: *found is the entry before it (the header when there is none).
  bool lookup(VirtAddr address, MapEntry** found);
  /// The first entry that ends above `address`; the header when there is none.
  [[nodiscard]] MapEntry* first_ending_after(VirtAddr address);
  /// Fetches what lies around an entry that is about to change.
  static void prefetch_neighbours(const MapEntry* entry) {
    for (const MapEntry* e : {entry->prev, entry->next}) {
      __builtin_prefetch(&e->start);
      __builtin_prefetch(&e->prev);
    }
  }
  /// Inserts after `prev`, which must be the entry before (or the header).
  void insert_after(MapEntry* prev, MapEntry* entry);
  void erase(MapEntry* entry);
  /// Moves the boundary between two neighbours that touch; both keep some of their addresses.
  void move_boundary(MapEntry* lower, MapEntry* upper, VirtAddr boundary);
  /// Room in the index for so many entries at a time; false: no memory. Inserts within it cannot fail.
  [[nodiscard]] bool reserve(std::size_t entries) { return index_->reserve(entries); }
  /// A lookup took long, and settle() would help the next ones.
  [[nodiscard]] bool restless() const { return restless_.load(std::memory_order_relaxed); }
  /// For the entry found last. Exclusive lock; changes the index's shape only, nothing that a lookup has
  /// returned.
  void settle();
  /// Lowest aligned address >= lowest with `length` free bytes.
  [[nodiscard]] std::optional<VirtAddr> find_space(VirtAddr lowest, std::uint64_t length,
                                                   std::uint64_t alignment);

  void validate();

 private:
  void refresh_gap(MapEntry* entry);

  MapEntry header_;
  std::unique_ptr<MapIndex> index_;
  VmCounters& counters_;
  const std::uint64_t patience_;
  std::size_t count_ = 0;
  // Lookups under the shared lock race to set these, hence atomic.
  std::atomic<MapEntry*> hint_;  // last entry found
  std::atomic<bool> restless_{false};
};

}  // namespace enchilada
