// The binary search trees of map entries: what AVL, red-black and splay have in common.
//
// Links, the largest gap of a subtree and what a tree needs for its balance lie in the MapEntry itself, in
// its first cache line, so a tree costs no memory of its own. Invariant: in-order is the order of starts;
// max_gap is the largest gap in the subtree.
#pragma once

#include <algorithm>

#include "vm/vm_map_index.h"

namespace enchilada {

class BinaryMapIndex : public MapIndex {
 public:
  explicit BinaryMapIndex(VmCounters& counters) : counters_(counters) {}
  [[nodiscard]] MapEntry* find_at_or_before(VirtAddr address, std::uint64_t* visited) const final;
  [[nodiscard]] MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const final;
  std::size_t validate() const final;

 protected:
  static std::uint64_t max_gap_of(const MapEntry* node) { return node == nullptr ? 0 : node->max_gap; }
  static std::uint64_t max_gap_here(const MapEntry* node) {
    return std::max({node->gap, max_gap_of(node->left), max_gap_of(node->right)});
  }
  /// What the tree promises beyond order and gaps; called for each node.
  virtual void validate_node(const MapEntry* node) const = 0;

  MapEntry* root_ = nullptr;
  VmCounters& counters_;
};

/// Those that keep a balance by rotations, and so know the parent of each node.
class RotatingMapIndex : public BinaryMapIndex {
 protected:
  using BinaryMapIndex::BinaryMapIndex;
  void replace_child(MapEntry* parent, MapEntry* old_child, MapEntry* new_child);
  /// Moves the right (left) child up over `node`; returns it. The caller refreshes what both know of theirs.
  MapEntry* lift_right(MapEntry* node);
  MapEntry* lift_left(MapEntry* node);
  /// Hangs the entry in as a leaf, beside its neighbours.
  void attach(MapEntry* entry);
  struct Detached {
    MapEntry* from;       // the lowest node whose children have changed; null: the root has
    MapEntry* child;      // what hangs below `from` now where a node was; may be null
    MapEntry* heir;       // took the entry's place; null: none was needed
    std::uint8_t height;  // of the place that is no more
  };
  /// Takes the entry out; its heir, where it has two children, takes over its place, height and max_gap.
  Detached detach(MapEntry* entry);
  static void validate_parents(const MapEntry* node);
};

/// AVL tree: of the balanced trees the one with the shortest paths. entry.height is the height.
class AvlMapIndex final : public RotatingMapIndex {
 public:
  using RotatingMapIndex::RotatingMapIndex;
  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry* entry) override { retrace(entry); }

 private:
  MapEntry* rotate_left(MapEntry* node);
  MapEntry* rotate_right(MapEntry* node);
  MapEntry* balance(MapEntry* node);
  void retrace(MapEntry* node);
  static void update(MapEntry* node);
  void validate_node(const MapEntry* node) const override;
};

/// Red-black tree (Guibas, Sedgewick 1978; as in Linux 2.4.10 to 6.0, OpenBSD, NetBSD): fewer rotations,
/// longer paths. entry.height is the colour.
class RedBlackMapIndex final : public RotatingMapIndex {
 public:
  using RotatingMapIndex::RotatingMapIndex;
  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry* entry) override { refresh_gaps(entry); }

 private:
  MapEntry* rotate_left(MapEntry* node);
  MapEntry* rotate_right(MapEntry* node);
  void refresh_gaps(MapEntry* node);
  void repair_red(MapEntry* node);
  void repair_black(MapEntry* node, MapEntry* parent);
  MapEntry* black_sibling(MapEntry* parent, bool node_is_left);
  void validate_node(const MapEntry* node) const override;
};

}  // namespace enchilada
