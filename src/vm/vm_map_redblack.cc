// The red-black tree of map entries (CLRS, chapter 13, with the largest gap as its chapter 14 would have it).
// Invariant: the root is black, a red node has black children, every way down passes equally many black
// nodes. entry.height is the colour.
#include "base/check.h"
#include "vm/vm_map_binary.h"

namespace enchilada {
namespace {

constexpr std::uint8_t kRed = 0;
constexpr std::uint8_t kBlack = 1;

bool is_red(const MapEntry* node) {
  return node != nullptr && node->height == kRed;
}

}  // namespace

MapEntry* RedBlackMapIndex::rotate_left(MapEntry* node) {
  MapEntry* const up = lift_right(node);
  up->max_gap = node->max_gap;  // the same nodes as before
  node->max_gap = max_gap_here(node);
  return up;
}

MapEntry* RedBlackMapIndex::rotate_right(MapEntry* node) {
  MapEntry* const up = lift_left(node);
  up->max_gap = node->max_gap;
  node->max_gap = max_gap_here(node);
  return up;
}

// Upward from a node whose gap or children changed, until a subtree looks from above as it did before.
void RedBlackMapIndex::refresh_gaps(MapEntry* node) {
  for (; node != nullptr; node = node->parent) {
    const std::uint64_t gap = max_gap_here(node);
    if (gap == node->max_gap) return;
    node->max_gap = gap;
  }
}

void RedBlackMapIndex::insert(MapEntry* entry) {
  attach(entry);
  entry->height = kRed;
  entry->max_gap = entry->gap;
  refresh_gaps(entry->parent);
  repair_red(entry);
}

// `node` is red and so may be its parent: recolours upward, or ends it with two rotations at most.
void RedBlackMapIndex::repair_red(MapEntry* node) {
  while (is_red(node->parent)) {
    MapEntry* parent = node->parent;
    MapEntry* const grand = parent->parent;  // there is one: the root is black
    const bool left = parent == grand->left;
    MapEntry* const uncle = left ? grand->right : grand->left;
    if (is_red(uncle)) {
      parent->height = uncle->height = kBlack;
      grand->height = kRed;
      node = grand;
      continue;
    }
    if (left && node == parent->right) parent = rotate_left(parent);
    if (!left && node == parent->left) parent = rotate_right(parent);
    parent->height = kBlack;
    grand->height = kRed;
    left ? rotate_right(grand) : rotate_left(grand);
    break;
  }
  root_->height = kBlack;
}

void RedBlackMapIndex::erase(MapEntry* entry) {
  const Detached gone = detach(entry);
  refresh_gaps(gone.from);
  if (gone.heir != nullptr && gone.from != gone.heir) refresh_gaps(gone.heir);
  if (gone.height == kBlack) repair_black(gone.child, gone.from);
}

/// The other child of `parent`, made black: a red one is rotated away, and a black nephew is the sibling
/// then.
MapEntry* RedBlackMapIndex::black_sibling(MapEntry* parent, bool node_is_left) {
  MapEntry* const sibling = node_is_left ? parent->right : parent->left;
  if (!is_red(sibling)) return sibling;
  sibling->height = kBlack;
  parent->height = kRed;
  node_is_left ? rotate_left(parent) : rotate_right(parent);
  return node_is_left ? parent->right : parent->left;
}

// The ways through `node` (perhaps null, a child of `parent`) lack one black node.
void RedBlackMapIndex::repair_black(MapEntry* node, MapEntry* parent) {
  while (parent != nullptr && !is_red(node)) {
    const bool left = parent->left == node;
    MapEntry* sibling = black_sibling(parent, left);
    MapEntry* const outer = left ? sibling->right : sibling->left;
    MapEntry* const inner = left ? sibling->left : sibling->right;
    if (!is_red(outer) && !is_red(inner)) {
      sibling->height = kRed;
      node = parent;
      parent = node->parent;
      continue;
    }
    if (!is_red(outer)) {
      inner->height = kBlack;
      sibling->height = kRed;
      sibling = left ? rotate_right(sibling) : rotate_left(sibling);
    }
    sibling->height = parent->height;
    parent->height = kBlack;
    (left ? sibling->right : sibling->left)->height = kBlack;
    left ? rotate_left(parent) : rotate_right(parent);
    return;
  }
  if (node != nullptr) node->height = kBlack;
}

void RedBlackMapIndex::validate_node(const MapEntry* node) const {
  validate_parents(node);
  CHECK(node->height == kRed || node->height == kBlack, node->start.value());
  CHECK(!is_red(node) || (!is_red(node->left) && !is_red(node->right)), node->start.value());
  CHECK(!is_red(root_));
  if (node->left != nullptr && node->right != nullptr) return;
  // A way may end here; the leftmost one says how many black nodes it must have passed.
  const auto blacks_above = [](const MapEntry* at) {
    unsigned n = 0;
    for (; at != nullptr; at = at->parent) n += at->height;
    return n;
  };
  const MapEntry* leftmost = root_;
  while (leftmost->left != nullptr) leftmost = leftmost->left;
  CHECK(blacks_above(node) == blacks_above(leftmost), node->start.value());
}

}  // namespace enchilada
