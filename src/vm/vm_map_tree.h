// MapEntries: the ordered entries of one map, with neighbour links, and MapIndex: the search structure behind
// them.
//
// The list is circular through a header that stands for both ends of the address space (header.start is the
// upper bound, header.end the lower), so that every entry has neighbours and every gap an entry that follows
// it. The header is in the index too, as its largest key: the room above the last entry is its gap.
// Invariants: sorted, disjoint; entry.gap == entry.start - entry.prev->end; the index finds every entry and
// knows for each subtree the largest gap. All operations but iteration are O(log n). The map's lock guards
// all of it.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>

#include "vm/vm_map_entry.h"

namespace enchilada {

/// A search structure over entries. Others than the default (a splay tree, a B-tree, a list that loses) go
/// behind this.
class MapIndex {
 public:
  virtual ~MapIndex() = default;
  /// Puts `entry` in; its prev, next and gap are set already.
  virtual void insert(MapEntry* entry) = 0;
  /// Takes `entry` out; its prev and next are still set. Never called with the header.
  virtual void erase(MapEntry* entry) = 0;
  /// entry->gap has changed.
  virtual void gap_changed(MapEntry* entry) = 0;
  /// The last entry with start <= address, or null.
  [[nodiscard]] virtual MapEntry* find_at_or_before(VirtAddr address) const = 0;
  /// The first entry after `entry` (which is in the index) whose gap is at least `length`, or null.
  [[nodiscard]] virtual MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const = 0;
  /// Checks the structure; stops the program when it is broken. Returns the number of entries in it.
  virtual std::size_t validate() const = 0;
};

/// AVL tree: of the balanced trees the one with the shortest paths, and lookups outnumber all else (every
/// fault).
class AvlMapIndex final : public MapIndex {
 public:
  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry* entry) override { retrace(entry); }
  [[nodiscard]] MapEntry* find_at_or_before(VirtAddr address) const override;
  [[nodiscard]] MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const override;
  std::size_t validate() const override;

 private:
  void replace_child(MapEntry* parent, MapEntry* old_child, MapEntry* new_child);
  MapEntry* rotate_left(MapEntry* node);
  MapEntry* rotate_right(MapEntry* node);
  MapEntry* balance(MapEntry* node);
  void retrace(MapEntry* node);

  MapEntry* root_ = nullptr;
};

class MapEntries {
 public:
  MapEntries(VirtRange bounds, std::unique_ptr<MapIndex> index);
  MapEntries(const MapEntries&) = delete;
  MapEntries& operator=(const MapEntries&) = delete;

  [[nodiscard]] MapEntry* header() { return &header_; }
  [[nodiscard]] MapEntry* first() { return header_.next; }
  [[nodiscard]] std::size_t count() const { return count_; }

  /// True: *found contains the address. False: *found is the entry before it (the header when there is none).
  bool lookup(VirtAddr address, MapEntry** found);
  /// The first entry that ends above `address`; the header when there is none.
  [[nodiscard]] MapEntry* first_ending_after(VirtAddr address);
  /// Inserts after `prev`, which must be the entry before (or the header).
  void insert_after(MapEntry* prev, MapEntry* entry);
  void erase(MapEntry* entry);
  /// Moves the boundary of `entry`; it may not touch a neighbour.
  void set_end(MapEntry* entry, VirtAddr end);
  void set_start(MapEntry* entry, VirtAddr start);
  /// Lowest aligned address >= lowest with `length` free bytes.
  [[nodiscard]] std::optional<VirtAddr> find_space(VirtAddr lowest, std::uint64_t length,
                                                   std::uint64_t alignment);

  void validate();

 private:
  void refresh_gap(MapEntry* entry);

  MapEntry header_;
  std::unique_ptr<MapIndex> index_;
  std::size_t count_ = 0;
  std::atomic<MapEntry*>
      hint_;  // last entry found; lookups under the shared lock race to set it, hence atomic
};

}  // namespace enchilada
