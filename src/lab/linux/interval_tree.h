// IntervalTree: intervals of page indexes, found by a point: a balanced tree by start with the largest end of
// each subtree.
//
// Linux's (2012) is a red-black tree with the same augmentation; this one is an AVL tree, a little lower.
// Nodes are members of what they stand for. Invariants: in-order by (first, tie), heights of siblings differ
// by at most one, `most` is the largest `last` of the subtree. Every node that an operation looks at is
// reported to `look`.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/check.h"
#include "base/function_ref.h"
#include "base/units.h"

namespace enchilada::lab {

template <class T>
struct IntervalNode {
  IntervalNode* left = nullptr;
  IntervalNode* right = nullptr;
  T* owner = nullptr;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  std::uint64_t most = 0;
  std::uint64_t tie = 0;  // tells equal starts apart; unique in a tree
  int height = 1;
};

template <class T>
class IntervalTree {
 public:
  using Node = IntervalNode<T>;
  using Look = FunctionRef<void(const Node&)>;

  void insert(Node& node, T& owner, PageIndex first, PageIndex last, Look look) {
    node = {};
    node.owner = &owner;
    node.first = first.value();
    node.last = node.most = last.value();
    node.tie = ++ties_;
    root_ = insert_below(root_, &node, look);
    ++size_;
  }
  void erase(Node& node, Look look) {
    root_ = erase_below(root_, &node, look);
    --size_;
  }
  /// Calls visit(owner) for each interval that contains the point, until it says false.
  void stab(PageIndex point, Look look, FunctionRef<bool(T&)> visit) const {
    (void)stab_below(root_, point.value(), look, visit);
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] int height() const { return height_of(root_); }

 private:
  [[nodiscard]] static int height_of(const Node* n) { return n == nullptr ? 0 : n->height; }
  [[nodiscard]] static bool before(const Node& a, const Node& b) {
    return a.first != b.first ? a.first < b.first : a.tie < b.tie;
  }
  static void update(Node* n) {
    n->height = 1 + std::max(height_of(n->left), height_of(n->right));
    n->most = n->last;
    if (n->left != nullptr) n->most = std::max(n->most, n->left->most);
    if (n->right != nullptr) n->most = std::max(n->most, n->right->most);
  }
  static Node* rotate_right(Node* n) {
    Node* const top = n->left;
    n->left = top->right;
    top->right = n;
    update(n);
    update(top);
    return top;
  }
  static Node* rotate_left(Node* n) {
    Node* const top = n->right;
    n->right = top->left;
    top->left = n;
    update(n);
    update(top);
    return top;
  }
  static Node* balance(Node* n) {
    update(n);
    const int lean = height_of(n->left) - height_of(n->right);
    if (lean > 1) {
      if (height_of(n->left->left) < height_of(n->left->right)) n->left = rotate_left(n->left);
      return rotate_right(n);
    }
    if (lean < -1) {
      if (height_of(n->right->right) < height_of(n->right->left)) n->right = rotate_right(n->right);
      return rotate_left(n);
    }
    return n;
  }
  static Node* insert_below(Node* at, Node* node, Look look) {
    if (at == nullptr) return node;
    look(*at);
    Node*& side = before(*node, *at) ? at->left : at->right;
    side = insert_below(side, node, look);
    return balance(at);
  }
  static Node* take_least(Node* at, Node** least, Look look) {
    look(*at);
    if (at->left == nullptr) {
      *least = at;
      return at->right;
    }
    at->left = take_least(at->left, least, look);
    return balance(at);
  }
  static Node* erase_below(Node* at, Node* node, Look look) {
    CHECK(at != nullptr);
    look(*at);
    if (at != node) {
      Node*& side = before(*node, *at) ? at->left : at->right;
      side = erase_below(side, node, look);
      return balance(at);
    }
    if (at->right == nullptr) return at->left;
    Node* heir = nullptr;
    Node* const rest = take_least(at->right, &heir, look);
    heir->left = at->left;
    heir->right = rest;
    return balance(heir);
  }
  static bool stab_below(Node* at, std::uint64_t point, Look look, FunctionRef<bool(T&)> visit) {
    if (at == nullptr || at->most < point) return true;
    look(*at);
    if (!stab_below(at->left, point, look, visit)) return false;
    if (at->first > point) return true;
    if (at->last >= point && !visit(*at->owner)) return false;
    return stab_below(at->right, point, look, visit);
  }

  Node* root_ = nullptr;
  std::uint64_t ties_ = 0;
  std::size_t size_ = 0;
};

}  // namespace enchilada::lab
