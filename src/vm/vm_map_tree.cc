// The AVL tree of map entries with the largest gap per subtree, and the entry list around it.
// Invariant: after every public call each node's height and max_gap agree with its children and its own gap.
#include "vm/vm_map_tree.h"

#include <algorithm>

#include "base/check.h"

namespace enchilada {
namespace {

unsigned height_of(const MapEntry* node) {
  return node == nullptr ? 0u : node->height;
}
std::uint64_t max_gap_of(const MapEntry* node) {
  return node == nullptr ? 0 : node->max_gap;
}

void update(MapEntry* node) {
  node->height = static_cast<std::uint8_t>(1 + std::max(height_of(node->left), height_of(node->right)));
  node->max_gap = std::max({node->gap, max_gap_of(node->left), max_gap_of(node->right)});
}

/// Lowest entry in the subtree whose gap is at least `length`; the subtree has one.
MapEntry* lowest_gap(MapEntry* node, std::uint64_t length) {
  for (;;) {
    if (max_gap_of(node->left) >= length) {
      node = node->left;
    } else if (node->gap >= length) {
      return node;
    } else {
      node = node->right;
    }
  }
}

/// `address` rounded up; false when that overflows.
bool align_up(std::uint64_t address, std::uint64_t alignment, std::uint64_t* aligned) {
  *aligned = (address + alignment - 1) & ~(alignment - 1);
  return *aligned >= address;
}

}  // namespace

void AvlMapIndex::replace_child(MapEntry* parent, MapEntry* old_child, MapEntry* new_child) {
  if (parent == nullptr) {
    root_ = new_child;
  } else if (parent->left == old_child) {
    parent->left = new_child;
  } else {
    parent->right = new_child;
  }
  if (new_child != nullptr) new_child->parent = parent;
}

MapEntry* AvlMapIndex::rotate_left(MapEntry* node) {
  MapEntry* const up = node->right;
  replace_child(node->parent, node, up);
  node->right = up->left;
  if (node->right != nullptr) node->right->parent = node;
  up->left = node;
  node->parent = up;
  update(node);
  update(up);
  return up;
}

MapEntry* AvlMapIndex::rotate_right(MapEntry* node) {
  MapEntry* const up = node->left;
  replace_child(node->parent, node, up);
  node->left = up->right;
  if (node->left != nullptr) node->left->parent = node;
  up->right = node;
  node->parent = up;
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
  entry->left = entry->right = entry->parent = nullptr;
  entry->height = 0;  // unlike any value of a node in the tree, so that retrace() goes on above it
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
  retrace(entry);
}

void AvlMapIndex::erase(MapEntry* entry) {
  if (entry->left == nullptr || entry->right == nullptr) {
    MapEntry* const child = entry->left != nullptr ? entry->left : entry->right;
    MapEntry* const parent = entry->parent;
    replace_child(parent, entry, child);
    retrace(parent);
    return;
  }
  MapEntry* const heir = entry->next;  // leftmost of the right subtree
  DCHECK(heir->left == nullptr);
  MapEntry* from = heir->parent;
  if (from == entry) {
    from = heir;
  } else {
    replace_child(from, heir, heir->right);
    heir->right = entry->right;
    heir->right->parent = heir;
  }
  heir->left = entry->left;
  heir->left->parent = heir;
  replace_child(entry->parent, entry, heir);
  heir->height = entry->height;
  heir->max_gap = entry->max_gap;
  retrace(from);
  if (from != heir) retrace(heir);
}

MapEntry* AvlMapIndex::find_at_or_before(VirtAddr address) const {
  MapEntry* best = nullptr;
  for (MapEntry* node = root_; node != nullptr;) {
    if (node->start <= address) {
      best = node;
      node = node->right;
    } else {
      node = node->left;
    }
  }
  return best;
}

MapEntry* AvlMapIndex::next_gap(MapEntry* entry, std::uint64_t length) const {
  MapEntry* node = entry;
  if (max_gap_of(node->right) >= length) return lowest_gap(node->right, length);
  for (; node->parent != nullptr; node = node->parent) {
    MapEntry* const parent = node->parent;
    if (parent->right == node) continue;
    if (parent->gap >= length) return parent;
    if (max_gap_of(parent->right) >= length) return lowest_gap(parent->right, length);
  }
  return nullptr;
}

std::size_t AvlMapIndex::validate() const {
  if (root_ == nullptr) return 0;
  CHECK(root_->parent == nullptr);
  const MapEntry* node = root_;
  const MapEntry* last = root_;
  while (node->left != nullptr) node = node->left;
  while (last->right != nullptr) last = last->right;
  for (std::size_t n = 1;; ++n, node = node->next) {
    const unsigned l = height_of(node->left);
    const unsigned r = height_of(node->right);
    CHECK(l <= r + 1 && r <= l + 1, node->start.value());
    CHECK(node->height == 1 + std::max(l, r), node->start.value());
    CHECK(node->max_gap == std::max({node->gap, max_gap_of(node->left), max_gap_of(node->right)}));
    CHECK(node->left == nullptr || (node->left->parent == node && node->left->start < node->start));
    CHECK(node->right == nullptr || (node->right->parent == node && node->right->start > node->start));
    if (node == last) return n;
  }
}

MapEntries::MapEntries(VirtRange bounds, std::unique_ptr<MapIndex> index)
    : index_(std::move(index)), hint_(&header_) {
  header_.start = bounds.end;
  header_.end = bounds.start;
  header_.prev = header_.next = &header_;
  header_.gap = bounds.size().value();
  header_.kind = EntryKind::kGuard;
  index_->insert(&header_);
}

bool MapEntries::lookup(VirtAddr address, MapEntry** found) {
  MapEntry* const hint = hint_.load(std::memory_order_relaxed);
  if (hint != &header_ && hint->start <= address) {
    // In-order work (faults going upward, page-by-page calls) lands in the hint or right behind it.
    MapEntry* const at = address < hint->end || address < hint->next->start ? hint : hint->next;
    if (at != &header_ && address < at->next->start) {
      if (at != hint) hint_.store(at, std::memory_order_relaxed);
      *found = at;
      return address < at->end;
    }
  }
  MapEntry* at = index_->find_at_or_before(address);
  if (at == nullptr || at == &header_) at = address >= header_.start ? header_.prev : &header_;
  if (at != &header_) hint_.store(at, std::memory_order_relaxed);
  *found = at;
  return at != &header_ && address < at->end;
}

MapEntry* MapEntries::first_ending_after(VirtAddr address) {
  MapEntry* entry;
  return lookup(address, &entry) ? entry : entry->next;
}

void MapEntries::refresh_gap(MapEntry* entry) {
  const std::uint64_t gap = (entry->start - entry->prev->end).value();
  if (gap == entry->gap) return;
  entry->gap = gap;
  index_->gap_changed(entry);
}

void MapEntries::insert_after(MapEntry* prev, MapEntry* entry) {
  MapEntry* const next = prev->next;
  DCHECK(entry->start >= prev->end && entry->end <= next->start && entry->start < entry->end);
  entry->prev = prev;
  entry->next = next;
  prev->next = entry;
  next->prev = entry;
  entry->gap = (entry->start - prev->end).value();
  index_->insert(entry);
  refresh_gap(next);
  ++count_;
}

void MapEntries::erase(MapEntry* entry) {
  MapEntry* const prev = entry->prev;
  MapEntry* const next = entry->next;
  index_->erase(entry);
  prev->next = next;
  next->prev = prev;
  refresh_gap(next);
  if (hint_.load(std::memory_order_relaxed) == entry) hint_.store(prev, std::memory_order_relaxed);
  --count_;
}

void MapEntries::set_end(MapEntry* entry, VirtAddr end) {
  DCHECK(end > entry->start && end <= entry->next->start);
  entry->end = end;
  refresh_gap(entry->next);
}

void MapEntries::set_start(MapEntry* entry, VirtAddr start) {
  DCHECK(start < entry->end && start >= entry->prev->end);
  entry->start = start;
  refresh_gap(entry);
}

// Aligned requests: a gap that is long enough may still hold no aligned place. Such gaps are passed one by
// one, which keeps the answer the lowest; after kMaxMisses the search asks for length + alignment, which
// cannot miss, so that a badly fragmented map costs O(log n) too (then a lower fit may be overlooked; the
// slow exact search is the last try).
std::optional<VirtAddr> MapEntries::find_space(VirtAddr lowest, std::uint64_t length,
                                               std::uint64_t alignment) {
  constexpr unsigned kMaxMisses = 64;
  const std::uint64_t floor = std::max(lowest.value(), header_.end.value());
  if (length == 0 || floor >= header_.start.value()) return std::nullopt;
  const auto fits = [&](const MapEntry* after, std::uint64_t* at) {
    const std::uint64_t from = std::max(floor, after->prev->end.value());
    return align_up(from, alignment, at) && *at <= after->start.value() &&
           after->start.value() - *at >= length;
  };
  MapEntry* before;
  std::uint64_t at = 0;
  (void)lookup(VirtAddr{floor}, &before);
  MapEntry* after = before->next;
  MapEntry* const nearest = after;
  for (unsigned misses = 0; after != nullptr; ++misses) {
    if (fits(after, &at)) return VirtAddr{at};
    if (misses == kMaxMisses && alignment > kPageSize && length + alignment > length) break;
    after = index_->next_gap(after, length);
  }
  if (after == nullptr) return std::nullopt;
  MapEntry* const sure = index_->next_gap(after, length + alignment);
  if (sure != nullptr && fits(sure, &at)) return VirtAddr{at};
  for (after = nearest; after != nullptr; after = index_->next_gap(after, length)) {
    if (fits(after, &at)) return VirtAddr{at};
  }
  return std::nullopt;
}

void MapEntries::validate() {
  std::size_t n = 0;
  for (const MapEntry* e = first(); e != &header_; e = e->next, ++n) {
    CHECK(e->start < e->end, e->start.value(), e->end.value());
    CHECK(e->prev->end <= e->start, e->prev->end.value(), e->start.value());
    CHECK(e->gap == (e->start - e->prev->end).value(), e->start.value());
    CHECK(e->next->prev == e && e->prev->next == e);
  }
  CHECK(header_.gap == (header_.start - header_.prev->end).value());
  CHECK(n == count_, n, count_);
  CHECK(index_->validate() == count_ + 1);
}

}  // namespace enchilada
