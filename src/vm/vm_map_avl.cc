// The AVL tree of map entries. Invariant: after every public call each node's height and max_gap agree with
// its children and its own gap, and the heights of two siblings differ by one at most.
#include "base/check.h"
#include "vm/vm_map_binary.h"

namespace enchilada {
namespace {

unsigned height_of(const MapEntry* node) {
  return node == nullptr ? 0u : node->height;
}

}  // namespace

void AvlMapIndex::update(MapEntry* node) {
  node->height = static_cast<std::uint8_t>(1 + std::max(height_of(node->left), height_of(node->right)));
  node->max_gap = max_gap_here(node);
}

MapEntry* AvlMapIndex::rotate_left(MapEntry* node) {
  MapEntry* const up = lift_right(node);
  update(node);
  update(up);
  return up;
}

MapEntry* AvlMapIndex::rotate_right(MapEntry* node) {
  MapEntry* const up = lift_left(node);
  update(node);
  update(up);
  return up;
}

MapEntry* AvlMapIndex::balance(MapEntry* node) {
  const unsigned l = height_of(node->left);
  const unsigned r = height_of(node->right);
  if (l > r + 1) {
    if (height_of(node->left->left) < height_of(node->left->right)) rotate_left(node->left);
    return rotate_right(node);
  }
  if (r > l + 1) {
    if (height_of(node->right->right) < height_of(node->right->left)) rotate_right(node->right);
    return rotate_left(node);
  }
  update(node);
  return node;
}

// Upward from a node whose children or gap changed, until a subtree looks from above as it did before.
void AvlMapIndex::retrace(MapEntry* node) {
  while (node != nullptr) {
    const std::uint8_t old_height = node->height;
    const std::uint64_t old_gap = node->max_gap;
    node = balance(node);
    if (node->height == old_height && node->max_gap == old_gap) return;
    node = node->parent;
  }
}

void AvlMapIndex::insert(MapEntry* entry) {
  attach(entry);
  entry->height = 0;  // unlike any value of a node in the tree, so that retrace() goes on above it
  retrace(entry);
}

void AvlMapIndex::erase(MapEntry* entry) {
  const Detached gone = detach(entry);
  retrace(gone.from);
  if (gone.heir != nullptr && gone.from != gone.heir) retrace(gone.heir);
}

void AvlMapIndex::validate_node(const MapEntry* node) const {
  const unsigned l = height_of(node->left);
  const unsigned r = height_of(node->right);
  CHECK(l <= r + 1 && r <= l + 1, node->start.value());
  CHECK(node->height == 1 + std::max(l, r), node->start.value());
  validate_parents(node);
}

}  // namespace enchilada
