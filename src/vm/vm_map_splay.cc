// Top-down splaying. Invariant: between public calls each node's max_gap agrees with its children and its
// gap; on the way down it does not: the nodes that left the middle hang in two chains, linked upward, and get
// theirs when the chains are taken apart, lowest first.
#include "vm/vm_map_splay.h"

#include "base/check.h"

namespace enchilada {

void SplayMapIndex::update(MapEntry* node) {
  node->max_gap = max_gap_here(node);
}

/// Takes the chain of the smaller ones apart: each gets what is below it, beginning with `subtree`.
MapEntry* SplayMapIndex::hang_smaller(MapEntry* chain, MapEntry* subtree) {
  while (chain != nullptr) {
    MapEntry* const up = chain->right;
    chain->right = subtree;
    update(chain);
    subtree = chain;
    chain = up;
  }
  return subtree;
}

MapEntry* SplayMapIndex::hang_larger(MapEntry* chain, MapEntry* subtree) {
  while (chain != nullptr) {
    MapEntry* const up = chain->left;
    chain->left = subtree;
    update(chain);
    subtree = chain;
    chain = up;
  }
  return subtree;
}

// The last node on the way to `address` becomes the root: the entry that starts there, or one of its
// neighbours. `smaller` is the chain of nodes left of the middle, the lowest first, each linked by `right` to
// the next one up; `larger` is its mirror.
MapEntry* SplayMapIndex::splay(VirtAddr address, MapEntry* root) {
  MapEntry* smaller = nullptr;
  MapEntry* larger = nullptr;
  std::uint64_t rotations = 0;
  for (;;) {
    if (address < root->start) {
      MapEntry* const child = root->left;
      if (child == nullptr) break;
      if (address < child->start && child->left != nullptr) {  // twice the same way: rotate first
        root->left = child->right;
        child->right = root;
        update(root);
        ++rotations;
        root = child->left;
        child->left = larger;
        larger = child;
      } else {
        root->left = larger;
        larger = root;
        root = child;
      }
    } else if (root->start < address) {
      MapEntry* const child = root->right;
      if (child == nullptr) break;
      if (child->start < address && child->right != nullptr) {
        root->right = child->left;
        child->left = root;
        update(root);
        ++rotations;
        root = child->right;
        child->right = smaller;
        smaller = child;
      } else {
        root->right = smaller;
        smaller = root;
        root = child;
      }
    } else {
      break;
    }
  }
  root->left = hang_smaller(smaller, root->left);
  root->right = hang_larger(larger, root->right);
  update(root);
  if (rotations != 0) count(counters_.map_rotations, rotations);
  return root;
}

void SplayMapIndex::insert(MapEntry* entry) {
  entry->left = entry->right = nullptr;
  if (root_ != nullptr) {
    MapEntry* const near = splay(entry->start, root_);
    if (near->start < entry->start) {
      entry->left = near;
      entry->right = near->right;
      near->right = nullptr;
    } else {
      entry->right = near;
      entry->left = near->left;
      near->left = nullptr;
    }
    update(near);
  }
  update(entry);
  root_ = entry;
}

void SplayMapIndex::erase(MapEntry* entry) {
  root_ = splay(entry->start, root_);
  DCHECK(root_ == entry);
  if (entry->left == nullptr) {
    root_ = entry->right;
    return;
  }
  root_ = splay(entry->start, entry->left);  // the largest one there: nothing is right of it
  root_->right = entry->right;
  update(root_);
}

// `entry` becomes the root, so that nothing above it can have a stale max_gap.
void SplayMapIndex::gap_changed(MapEntry* entry) {
  root_ = splay(entry->start, root_);
  DCHECK(root_ == entry);
}

void SplayMapIndex::settle(VirtAddr address) {
  root_ = splay(address, root_);
  count(counters_.map_settles);
}

}  // namespace enchilada
