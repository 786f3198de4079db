// What the binary trees of map entries share: searches, links, rotations.
#include "vm/vm_map_binary.h"

#include "base/check.h"

namespace enchilada {

MapEntry* BinaryMapIndex::find_at_or_before(VirtAddr address, std::uint64_t* visited) const {
  MapEntry* best = nullptr;
  std::uint64_t steps = 0;
  for (MapEntry* node = root_; node != nullptr; ++steps) {
    if (node->start <= address) {
      best = node;
      node = node->right;
    } else {
      node = node->left;
    }
  }
  *visited += steps;
  return best;
}

// From the root, because not every tree knows parents: the lowest of the places where the way to `entry`
// turned left, and which has such a gap, has the answer in itself or in its right subtree.
MapEntry* BinaryMapIndex::next_gap(MapEntry* entry, std::uint64_t length) const {
  MapEntry* turn = nullptr;
  for (MapEntry* node = root_; node != nullptr;) {
    if (node->start <= entry->start) {
      node = node->right;
      continue;
    }
    if (node->gap >= length || max_gap_of(node->right) >= length) turn = node;
    node = node->left;
  }
  if (turn == nullptr || turn->gap >= length) return turn;
  for (MapEntry* node = turn->right;;) {  // the lowest gap in there
    if (max_gap_of(node->left) >= length) {
      node = node->left;
    } else if (node->gap >= length) {
      return node;
    } else {
      node = node->right;
    }
  }
}

// Along the list of neighbours, so that a degenerate tree needs no deep recursion: each node's links lead to
// where the list says they must.
std::size_t BinaryMapIndex::validate() const {
  if (root_ == nullptr) return 0;
  const MapEntry* node = root_;
  const MapEntry* last = root_;
  while (node->left != nullptr) node = node->left;
  while (last->right != nullptr) last = last->right;
  for (std::size_t n = 1;; ++n, node = node->next) {
    CHECK(node->left == nullptr || node->left->start < node->start, node->start.value());
    CHECK(node->right == nullptr || node->right->start > node->start, node->start.value());
    CHECK(node->max_gap == max_gap_here(node), node->start.value());
    std::uint64_t visited = 0;
    CHECK(find_at_or_before(node->start, &visited) == node, node->start.value());
    validate_node(node);
    if (node == last) return n;
  }
}

void RotatingMapIndex::replace_child(MapEntry* parent, MapEntry* old_child, MapEntry* new_child) {
  if (parent == nullptr) {
    root_ = new_child;
  } else if (parent->left == old_child) {
    parent->left = new_child;
  } else {
    parent->right = new_child;
  }
  if (new_child != nullptr) new_child->parent = parent;
}

MapEntry* RotatingMapIndex::lift_right(MapEntry* node) {
  MapEntry* const up = node->right;
  replace_child(node->parent, node, up);
  node->right = up->left;
  if (node->right != nullptr) node->right->parent = node;
  up->left = node;
  node->parent = up;
  count(counters_.map_rotations);
  return up;
}

MapEntry* RotatingMapIndex::lift_left(MapEntry* node) {
  MapEntry* const up = node->left;
  replace_child(node->parent, node, up);
  node->left = up->right;
  if (node->left != nullptr) node->left->parent = node;
  up->right = node;
  node->parent = up;
  count(counters_.map_rotations);
  return up;
}

void RotatingMapIndex::attach(MapEntry* entry) {
  entry->left = entry->right = entry->parent = nullptr;
  if (root_ == nullptr) {
    root_ = entry;
  } else if (entry->next->left == nullptr) {  // next is always there: the header is the largest key
    entry->next->left = entry;
    entry->parent = entry->next;
  } else {  // prev is the rightmost node below next, so it has no right child
    DCHECK(entry->prev->right == nullptr);
    entry->prev->right = entry;
    entry->parent = entry->prev;
  }
}

RotatingMapIndex::Detached RotatingMapIndex::detach(MapEntry* entry) {
  if (entry->left == nullptr || entry->right == nullptr) {
    MapEntry* const child = entry->left != nullptr ? entry->left : entry->right;
    replace_child(entry->parent, entry, child);
    return {entry->parent, child, nullptr, entry->height};
  }
  MapEntry* const heir = entry->next;  // leftmost of the right subtree
  DCHECK(heir->left == nullptr);
  Detached gone{heir->parent, heir->right, heir, heir->height};
  if (gone.from == entry) {
    gone.from = heir;
  } else {
    replace_child(gone.from, heir, heir->right);
    heir->right = entry->right;
    heir->right->parent = heir;
  }
  heir->left = entry->left;
  heir->left->parent = heir;
  replace_child(entry->parent, entry, heir);
  heir->height = entry->height;
  heir->max_gap = entry->max_gap;
  return gone;
}

void RotatingMapIndex::validate_parents(const MapEntry* node) {
  CHECK(node->left == nullptr || node->left->parent == node, node->start.value());
  CHECK(node->right == nullptr || node->right->parent == node, node->start.value());
  const MapEntry* const up = node->parent;
  CHECK(up == nullptr || up->left == node || up->right == node, node->start.value());
}

}  // namespace enchilada
