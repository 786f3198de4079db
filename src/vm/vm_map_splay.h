// The splay tree of map entries: FreeBSD's since 5.0, its answer to maps of O(n) (Sleator and Tarjan 1985,
// top down, with the largest gap as FreeBSD has it).
//
// A splay tree has no balance to keep: it moves what is used to its root, and that makes n operations cost
// O(n log n) in all. FreeBSD splays at each lookup, so two faults cannot look up at the same time. Here
// lookups hold the map's lock shared and only walk down; insert, erase and changes of a gap, which hold it
// exclusively, splay. That alone would lose the bound: a map that was filled in order and is only faulted in
// afterwards would stay the chain that it is. So a lookup that finds its entry deeper than kPatience asks for
// settle(), which splays there; a fault does it at once when nobody else holds the lock, and whoever takes
// the lock exclusively does it first. A lookup thus walks a long way only when another one pays for it, or
// two threads race. Invariants: see BinaryMapIndex.
#pragma once

#include "vm/vm_map_binary.h"

namespace enchilada {

class SplayMapIndex final : public BinaryMapIndex {
 public:
  using BinaryMapIndex::BinaryMapIndex;
  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry* entry) override;
  [[nodiscard]] std::uint64_t patience() const override { return kPatience; }
  void settle(VirtAddr address) override;

 private:
  /// Steps that a random lookup among millions needs at most, nearly always.
  static constexpr std::uint64_t kPatience = 64;
  [[nodiscard]] MapEntry* splay(VirtAddr address, MapEntry* root);
  static void update(MapEntry* node);
  static MapEntry* hang_smaller(MapEntry* chain, MapEntry* subtree);
  static MapEntry* hang_larger(MapEntry* chain, MapEntry* subtree);
  void validate_node(const MapEntry*) const override {}
};

}  // namespace enchilada
