// MapEntry: one contiguous range of an address space with one set of attributes; and where entries come from.
//
// Invariants: start < end, page aligned (except the header, see vm_map_tree.h); guards and foreign entries
// have no object; needs_copy implies an object and that the pmap holds no writable mapping of the range; an
// entry in transition is not clipped, merged, moved, changed or freed by anybody but the thread that set the
// mark.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/arena.h"
#include "vm/vm_map.h"
#include "vm/vm_map_nodes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;

/// Two cache lines: the first has all that a walk down or up the tree touches.
struct alignas(64) MapEntry {
  VirtAddr start;
  VirtAddr end;
  std::uint64_t gap = 0;  // free bytes between prev->end and start
  // Links of a binary tree (vm_map_binary.h); only the index touches them.
  MapEntry* left = nullptr;
  MapEntry* right = nullptr;
  MapEntry* parent = nullptr;
  std::uint64_t max_gap = 0;  // largest gap in the subtree
  std::uint8_t height = 0;    // or colour

  EntryKind kind = EntryKind::kObject;
  Prot prot = Prot::kNone;
  Prot max_prot = Prot::kNone;
  Inherit inherit = Inherit::kCopy;
  Advice advice = Advice::kNormal;  // kNormal, kSequential or kRandom
  bool needs_copy = false;
  bool shared = false;      // inherited by sharing, or a shared file: others may write into it at any time
  bool user_wired = false;  // one of wired_count is mlock's, which does not nest

  // In-order neighbours; the header closes the circle.
  MapEntry* prev = nullptr;
  MapEntry* next = nullptr;
  VmObject* object = nullptr;
  PageIndex offset;
  std::uint32_t wired_count = 0;
  bool in_transition = false;  // a thread works on it with the map unlocked
  bool raised =
      false;  // wire(): this call has raised wired_count; fork(): the child copies its pages at once

  [[nodiscard]] VirtRange range() const { return {start, end}; }
  [[nodiscard]] PageCount pages() const { return to_pages(end - start); }
  /// What a caller may set: kind, protection, inheritance, advice.
  void copy_attributes(const MapEntry& from) {
    kind = from.kind;
    prot = from.prot;
    max_prot = from.max_prot;
    inherit = from.inherit;
    advice = from.advice;
  }
  [[nodiscard]] bool same_attributes(const MapEntry& other) const {
    return kind == other.kind && prot == other.prot && max_prot == other.max_prot &&
           inherit == other.inherit && advice == other.advice;
  }
  /// Page of the object at `address` (inside the entry).
  [[nodiscard]] PageIndex index_of(VirtAddr address) const { return offset + to_pages(address - start); }
};
static_assert(sizeof(MapEntry) == 128);

/// Where a map and the maps forked from it take entries and index nodes from. Shared, because a slab never
/// gives its memory back: a slab per map would leak arena with each fork.
struct MapEntryZone {
  explicit MapEntryZone(Arena& arena) : slab(arena, 64), nodes(arena) {}
  Slab<MapEntry> slab;
  MapNodePool nodes;
};

}  // namespace enchilada
