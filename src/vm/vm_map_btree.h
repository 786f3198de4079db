// The B-tree of map entries: fifteen to a node, so that a search among a million looks at five nodes where a
// binary tree looks at twenty. What Linux's maple tree (2022) is for its maps, without its readers' freedom
// from locks, which needs copies of nodes.
//
// Keys are repeated in the nodes and so are the gaps, so that only the entry that is wanted is touched. Nodes
// come from a pool that has promised as many as the entries of the map can need at worst: no insert fails.
// Invariants: all leaves have one depth; a node but the root has kLeast to MapNode::kSlots slots; keys[i] is
// exactly the smallest start below, gaps[i] the largest gap below, in pages.
#pragma once

#include <array>

#include "vm/vm_map_index.h"

namespace enchilada {

class BTreeMapIndex final : public MapIndex {
 public:
  explicit BTreeMapIndex(const MapIndexParts& parts);
  ~BTreeMapIndex() override;
  [[nodiscard]] bool reserve(std::size_t entries) override;
  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry* entry) override;
  void start_changed(MapEntry* entry, VirtAddr old_start) override;
  [[nodiscard]] MapEntry* find_at_or_before(VirtAddr address, std::uint64_t* visited) const override;
  [[nodiscard]] MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const override;
  std::size_t validate() const override;

  static constexpr unsigned kLeast = 6;

 private:
  using Node = MapNode;
  /// Two neighbours become one when they fit with some room left, so that the next inserts do not part them
  /// again.
  static constexpr unsigned kMergeMost = 12;
  static constexpr unsigned kMaxLevels = 16;  // 6^16 entries

  /// The way down to a key: at each level (0: the leaf) a node and the slot taken there.
  struct Path {
    std::array<Node*, kMaxLevels> node;
    std::array<unsigned, kMaxLevels> slot;
  };
  struct Slot {
    std::uint64_t key;
    Node::Child child;
    std::uint32_t gap;
  };

  void descend(std::uint64_t key, Path* path) const;
  Path& descend_to_change(std::uint64_t key);
  Node* new_node();
  void free_node(Node* node);
  void release_below(Node* node, unsigned level);
  Slot split(Node* node, unsigned at, const Slot& slot);
  void grow_root(const Slot& right);
  void refresh_above(const Path& path, unsigned level);
  void mend(const Path& path, unsigned level);
  static void put(Node* node, unsigned at, const Slot& slot);
  static void take_out(Node* node, unsigned at);
  static void move_slots(Node* from, unsigned first, Node* to, unsigned at, unsigned n);
  static std::uint32_t largest_gap(const Node& node);
  std::size_t validate_below(const Node& node, unsigned level, const MapEntry** next) const;

  MapNodePool& pool_;
  VmCounters& counters_;
  Node first_;  // an empty map needs no memory
  Node* root_ = &first_;
  unsigned top_ = 0;         // the root's level
  Node* spare_ = nullptr;    // own nodes in no tree
  Path path_;                // to the leaf of the last change, while path_valid_
  bool path_valid_ = false;  // no slot above the leaves has moved since
  std::size_t promised_ = 0;
};

}  // namespace enchilada
