// MapImage: what a range of an address space held at one moment, to be put back or mapped elsewhere later.
//
// It is a list of entries without a map: each refers to its object as a fork's child would, so taking one
// copies nothing and costs what the entries cost. No kernel has it for parts of an address space; the
// mechanism is fork's (freebsd-vm.md §1.3) with the child's entries kept instead of mapped. Invariants: every
// entry of private memory that an image shares an object with awaits a copy, in the image and in the map, so
// an image never changes; an image holds one reference for each of its entries' objects; it goes before its
// map does.
#pragma once

#include "vm/vm_map.h"
#include "vm/vm_map_entry.h"

namespace enchilada {

class MapImage {
 public:
  /// Made by VmMap::capture(): `entries` in address order, linked by next, at the addresses they had in
  /// `range`. `map` outlives the image.
  MapImage(VmMap& map, VirtRange range, MapEntry* entries) : map_(map), range_(range), entries_(entries) {}
  /// Drops the references: like munmap, it may free pages and swap. No map lock held.
  ~MapImage() { map_.release_image(entries_); }
  MapImage(const MapImage&) = delete;
  MapImage& operator=(const MapImage&) = delete;

  [[nodiscard]] VmMap& map() const { return map_; }
  /// Where it was captured.
  [[nodiscard]] VirtRange range() const { return range_; }
  [[nodiscard]] ByteCount length() const { return range_.size(); }
  [[nodiscard]] const MapEntry* entries() const { return entries_; }
  /// Calls `visit` for each object it refers to (validators).
  void for_each_object(FunctionRef<void(VmObject&)> visit) const;

 private:
  VmMap& map_;
  VirtRange range_;
  MapEntry* entries_;
};

}  // namespace enchilada
