// The B-tree of map entries: search, insert with splits, erase with merges.
#include "vm/vm_map_btree.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace enchilada {
namespace {

/// A gap of so many pages or more; how many exactly, the entry knows.
constexpr std::uint32_t kManyPages = ~std::uint32_t{0};

std::uint32_t gap_pages(std::uint64_t bytes) {
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes >> kPageShift, kManyPages));
}

/// Slots whose key is at most `key`. Four steps without a branch that could be predicted wrongly.
unsigned slots_up_to(const MapNode& node, std::uint64_t key) {
  static_assert(MapNode::kSlots == 15);
  const std::uint64_t* const k = node.keys;
  unsigned n = k[7] <= key ? 8 : 0;
  n += k[n + 3] <= key ? 4 : 0;
  n += k[n + 1] <= key ? 2 : 0;
  n += k[n] <= key ? 1 : 0;
  return n;
}

/// The lines that a search will read are fetched side by side.
void prefetch_node(const MapNode* node) {
  const auto* const bytes = reinterpret_cast<const char*>(node);
  __builtin_prefetch(bytes);
  __builtin_prefetch(bytes + 64);
  __builtin_prefetch(bytes + 128);
  __builtin_prefetch(bytes + 192);
}

void clear(MapNode* node) {
  std::fill(std::begin(node->keys), std::end(node->keys), MapNode::kNoKey);
  std::fill(std::begin(node->gaps), std::end(node->gaps), 0u);
  node->count = 0;
}

/// Forgets the slots from `count` on.
void truncate(MapNode* node, unsigned count) {
  for (auto i = count; i < node->count; ++i) {
    node->keys[i] = MapNode::kNoKey;
    node->gaps[i] = 0;
  }
  node->count = count;
}

}  // namespace

BTreeMapIndex::BTreeMapIndex(const MapIndexParts& parts) : pool_(parts.nodes), counters_(parts.counters) {
  clear(&first_);
}

BTreeMapIndex::~BTreeMapIndex() {
  release_below(root_, top_);
  while (spare_ != nullptr) {
    Node* const node = spare_;
    spare_ = node->next_free;
    if (node != &first_) pool_.give_back(node);
  }
  pool_.release(promised_);
}

// One level at a time: as many nodes as the level below can fill with kLeast slots each.
bool BTreeMapIndex::reserve(std::size_t entries) {
  std::size_t nodes = 0;
  for (std::size_t level = (entries + 1) / kLeast; level > 0; level /= kLeast) nodes += level;
  if (nodes <= promised_) return true;
  if (!pool_.promise(nodes - promised_)) return false;
  promised_ = nodes;
  return true;
}

BTreeMapIndex::Node* BTreeMapIndex::new_node() {
  Node* node = spare_;
  if (node != nullptr) {
    spare_ = node->next_free;
  } else {
    node = pool_.take();
  }
  clear(node);
  return node;
}

void BTreeMapIndex::free_node(Node* node) {
  node->next_free = spare_;
  spare_ = node;
}

// As deep as the tree is high.
void BTreeMapIndex::release_below(Node* node, unsigned level) {
  for (unsigned i = 0; level > 0 && i < node->count; ++i) release_below(node->children[i].node, level - 1);
  free_node(node);
}

// --- Slots
// ---------------------------------------------------------------------------------------------------

std::uint32_t BTreeMapIndex::largest_gap(const Node& node) {
  return *std::max_element(std::begin(node.gaps), std::end(node.gaps));
}

void BTreeMapIndex::move_slots(Node* from, unsigned first, Node* to, unsigned at, unsigned n) {
  std::memmove(&to->keys[at], &from->keys[first], n * sizeof(from->keys[0]));
  std::memmove(&to->children[at], &from->children[first], n * sizeof(from->children[0]));
  std::memmove(&to->gaps[at], &from->gaps[first], n * sizeof(from->gaps[0]));
}

// A loop over the few slots costs less than three calls of memmove.
void BTreeMapIndex::put(Node* node, unsigned at, const Slot& slot) {
  for (auto i = node->count++; i > at; --i) {
    node->keys[i] = node->keys[i - 1];
    node->children[i] = node->children[i - 1];
    node->gaps[i] = node->gaps[i - 1];
  }
  node->keys[at] = slot.key;
  node->children[at] = slot.child;
  node->gaps[at] = slot.gap;
}

void BTreeMapIndex::take_out(Node* node, unsigned at) {
  const auto last = --node->count;
  for (auto i = std::uint64_t{at}; i < last; ++i) {
    node->keys[i] = node->keys[i + 1];
    node->children[i] = node->children[i + 1];
    node->gaps[i] = node->gaps[i + 1];
  }
  node->keys[last] = Node::kNoKey;
  node->gaps[last] = 0;
}

// --- Search
// --------------------------------------------------------------------------------------------------

MapEntry* BTreeMapIndex::find_at_or_before(VirtAddr address, std::uint64_t* visited) const {
  const std::uint64_t key = std::min(address.value(), Node::kNoKey - 1);
  *visited += top_ + 1;
  const Node* node = root_;
  for (unsigned level = top_; level > 0; --level) {
    const unsigned n = slots_up_to(*node, key);
    if (n == 0) return nullptr;  // only at the root: below, keys are exact
    node = node->children[n - 1].node;
    prefetch_node(node);
  }
  const unsigned n = slots_up_to(*node, key);
  return n == 0 ? nullptr : node->children[n - 1].entry;
}

void BTreeMapIndex::descend(std::uint64_t key, Path* path) const {
  Node* node = root_;
  for (unsigned level = top_;; --level) {
    const unsigned n = slots_up_to(*node, key);
    path->node[level] = node;
    path->slot[level] = n == 0 ? 0 : n - 1;
    if (level == 0) return;
    node = node->children[path->slot[level]].node;
    prefetch_node(node);
  }
}

// An operation on the map makes several changes side by side: the leaf of the last one is often the right
// one.
BTreeMapIndex::Path& BTreeMapIndex::descend_to_change(std::uint64_t key) {
  if (path_valid_) {
    const Node& leaf = *path_.node[0];
    if (leaf.count != 0 && leaf.keys[0] <= key && key < leaf.keys[leaf.count - 1]) {
      path_.slot[0] = slots_up_to(leaf, key) - 1;
      return path_;
    }
  }
  descend(key, &path_);
  path_valid_ = true;
  return path_;
}

// Up to where a slot further right promises such a gap, down to the lowest of them; a promise of "many pages"
// may turn out too small, and then it goes on from there.
MapEntry* BTreeMapIndex::next_gap(MapEntry* entry, std::uint64_t length) const {
  const std::uint32_t wanted = gap_pages(length + kPageMask);
  Path path;
  descend(entry->start.value(), &path);
  for (unsigned level = 0; level <= top_;) {
    const Node& node = *path.node[level];
    unsigned i = path.slot[level] + 1;
    while (i < node.count && node.gaps[i] < wanted) ++i;
    if (i >= node.count) {
      ++level;
      continue;
    }
    path.slot[level] = i;
    if (level == 0) {
      if (node.children[i].entry->gap >= length) return node.children[i].entry;
      continue;
    }
    // Slot numbers are one behind what is looked at next: ~0 + 1 is the first.
    path.node[level - 1] = node.children[i].node;
    path.slot[level - 1] = ~0u;
    --level;
  }
  return nullptr;
}

// --- Change
// --------------------------------------------------------------------------------------------------

// Upward, the key and the gap that the node above keeps, until one is right already.
void BTreeMapIndex::refresh_above(const Path& path, unsigned level) {
  for (; level < top_; ++level) {
    Node& above = *path.node[level + 1];
    const unsigned slot = path.slot[level + 1];
    const std::uint64_t key = path.node[level]->keys[0];
    const std::uint32_t gap = largest_gap(*path.node[level]);
    if (above.keys[slot] == key && above.gaps[slot] == gap) return;
    above.keys[slot] = key;
    above.gaps[slot] = gap;
  }
}

/// Parts a full node, with `slot` put in at `at`; returns the slot for the new node at its right.
BTreeMapIndex::Slot BTreeMapIndex::split(Node* node, unsigned at, const Slot& slot) {
  // At its end a run of ascending inserts is at work: they need the room on the right.
  const unsigned left = at + 1 >= Node::kSlots ? Node::kSlots + 1 - kLeast : (Node::kSlots + 1) / 2;
  Node* const right = new_node();
  const unsigned keep = at < left ? left - 1 : left;
  move_slots(node, keep, right, 0, Node::kSlots - keep);
  right->count = Node::kSlots - keep;
  truncate(node, keep);
  at < left ? put(node, at, slot) : put(right, at - left, slot);
  count(counters_.map_node_splits);
  return {right->keys[0], {.node = right}, largest_gap(*right)};
}

void BTreeMapIndex::grow_root(const Slot& right) {
  Node* const left = root_;
  root_ = new_node();
  ++top_;
  put(root_, 0, {left->keys[0], {.node = left}, largest_gap(*left)});
  put(root_, 1, right);
}

void BTreeMapIndex::insert(MapEntry* entry) {
  Slot slot{entry->start.value(), {.entry = entry}, gap_pages(entry->gap)};
  const Path& path = descend_to_change(slot.key);
  for (unsigned level = 0;; ++level) {
    Node* const node = path.node[level];
    const unsigned at = slots_up_to(*node, slot.key);
    if (node->count < Node::kSlots) {
      put(node, at, slot);
      // In the middle, and not the largest gap: above, all is right.
      if (level == 0 && at > 0 && (top_ == 0 || slot.gap <= path.node[1]->gaps[path.slot[1]])) return;
      return refresh_above(path, level);
    }
    path_valid_ = false;
    slot = split(node, at, slot);
    if (level == top_) return grow_root(slot);
    Node& above = *path.node[level + 1];
    above.keys[path.slot[level + 1]] = node->keys[0];
    above.gaps[path.slot[level + 1]] = largest_gap(*node);
  }
}

void BTreeMapIndex::erase(MapEntry* entry) {
  const Path& path = descend_to_change(entry->start.value());
  Node* const leaf = path.node[0];
  const unsigned at = path.slot[0];
  DCHECK(leaf->children[at].entry == entry);
  const std::uint32_t gap = leaf->gaps[at];
  take_out(leaf, at);
  if (leaf->count < kLeast) return mend(path, 0);
  if (at > 0 && (top_ == 0 || gap == 0 || gap < path.node[1]->gaps[path.slot[1]])) return;
  refresh_above(path, 0);
}

// A node has become too small: it gets slots from a neighbour, or the two become one, which may make the node
// above too small.
void BTreeMapIndex::mend(const Path& path, unsigned level) {
  path_valid_ = false;
  for (; level < top_ && path.node[level]->count < kLeast; ++level) {
    Node& above = *path.node[level + 1];
    const unsigned slot = path.slot[level + 1];
    const unsigned l = slot > 0 ? slot - 1 : 0;
    Node* const left = above.children[l].node;
    Node* const right = above.children[l + 1].node;
    const auto sum = static_cast<unsigned>(left->count + right->count);
    const auto have = static_cast<unsigned>(left->count);
    const unsigned want = sum <= kMergeMost ? sum : sum / 2;
    if (want > have) {
      move_slots(right, 0, left, have, want - have);
      move_slots(right, want - have, right, 0, sum - want);
      truncate(right, sum - want);
      left->count = want;
    } else {
      move_slots(right, 0, right, have - want, sum - have);
      move_slots(left, want, right, 0, have - want);
      right->count = sum - want;
      truncate(left, want);
    }
    above.keys[l] = left->keys[0];
    above.gaps[l] = largest_gap(*left);
    above.keys[l + 1] = right->keys[0];
    above.gaps[l + 1] = largest_gap(*right);
    if (right->count != 0) continue;
    take_out(&above, l + 1);
    free_node(right);
    count(counters_.map_node_merges);
  }
  while (top_ > 0 && root_->count == 1) {
    Node* const old = root_;
    root_ = old->children[0].node;
    --top_;
    free_node(old);
  }
  if (level < top_) refresh_above(path, level);
}

void BTreeMapIndex::gap_changed(MapEntry* entry) {
  const Path& path = descend_to_change(entry->start.value());
  DCHECK(path.node[0]->children[path.slot[0]].entry == entry);
  path.node[0]->gaps[path.slot[0]] = gap_pages(entry->gap);
  refresh_above(path, 0);
}

void BTreeMapIndex::start_changed(MapEntry* entry, VirtAddr old_start) {
  const Path& path = descend_to_change(old_start.value());
  DCHECK(path.node[0]->children[path.slot[0]].entry == entry);
  path.node[0]->keys[path.slot[0]] = entry->start.value();
  if (path.slot[0] == 0) refresh_above(path, 0);
}

// --- Validation
// ----------------------------------------------------------------------------------------------

/// Checks a node, whose first entry must be **next, and moves *next behind its last.
std::size_t BTreeMapIndex::validate_below(const Node& node, unsigned level, const MapEntry** next) const {
  CHECK(node.count <= Node::kSlots && (&node == root_ || node.count >= kLeast), node.count);
  CHECK(&node != root_ || level == 0 || node.count >= 2, node.count);
  std::size_t entries = 0;
  for (unsigned i = 0; i < Node::kSlots; ++i) {
    if (i >= node.count) {
      CHECK(node.keys[i] == Node::kNoKey && node.gaps[i] == 0, i);
    } else if (level > 0) {
      const Node& child = *node.children[i].node;
      CHECK(node.keys[i] == child.keys[0] && node.gaps[i] == largest_gap(child), node.keys[i]);
      entries += validate_below(child, level - 1, next);
    } else {
      const MapEntry* const entry = node.children[i].entry;
      CHECK(entry == *next && node.keys[i] == entry->start.value(), node.keys[i]);
      CHECK(node.gaps[i] == gap_pages(entry->gap), node.keys[i]);
      *next = entry->next;
      ++entries;
    }
  }
  return entries;
}

std::size_t BTreeMapIndex::validate() const {
  const Node* leaf = root_;
  for (unsigned level = top_; level > 0; --level) leaf = leaf->children[0].node;
  if (leaf->count == 0) return 0;
  const MapEntry* next = leaf->children[0].entry;
  return validate_below(*root_, top_, &next);
}

}  // namespace enchilada
