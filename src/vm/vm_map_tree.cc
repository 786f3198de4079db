// The list of map entries around an index, and which index belongs to which mode.
// Invariant: see vm_map_tree.h; the index is told of every change after the list has it.
#include "vm/vm_map_tree.h"

#include <algorithm>

#include "base/check.h"
#include "vm/vm_map_binary.h"
#include "vm/vm_map_btree.h"
#include "vm/vm_map_splay.h"

namespace enchilada {
namespace {

/// `address` rounded up; false when that overflows.
bool align_up(std::uint64_t address, std::uint64_t alignment, std::uint64_t* aligned) {
  *aligned = (address + alignment - 1) & ~(alignment - 1);
  return *aligned >= address;
}

template <class Tree>
std::unique_ptr<MapIndex> make_binary(const MapIndexParts& parts) {
  return std::make_unique<Tree>(parts.counters);
}

std::unique_ptr<MapIndex> make_b_tree(const MapIndexParts& parts) {
  return std::make_unique<BTreeMapIndex>(parts);
}

}  // namespace

MapIndexFactory map_index_factory(MapIndexMode mode) {
  switch (mode) {
    case MapIndexMode::kAvl:
      return make_binary<AvlMapIndex>;
    case MapIndexMode::kSplay:
      return make_binary<SplayMapIndex>;
    case MapIndexMode::kRedBlack:
      return make_binary<RedBlackMapIndex>;
    case MapIndexMode::kBTree:
      return make_b_tree;
  }
  CHECK(false);
  return nullptr;
}

MapEntries::MapEntries(VirtRange bounds, std::unique_ptr<MapIndex> index, VmCounters& counters)
    : index_(std::move(index)), counters_(counters), patience_(index_->patience()), hint_(&header_) {
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
  std::uint64_t visited = 0;
  MapEntry* at = index_->find_at_or_before(address, &visited);
  enchilada::count(counters_.map_lookups);
  enchilada::count(counters_.map_nodes, visited);
  if (visited > patience_) restless_.store(true, std::memory_order_relaxed);
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
  enchilada::count(counters_.map_inserts);
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
  enchilada::count(counters_.map_erases);
}

void MapEntries::move_boundary(MapEntry* lower, MapEntry* upper, VirtAddr boundary) {
  DCHECK(lower->next == upper && lower->end == upper->start);
  DCHECK(boundary > lower->start && boundary < upper->end);
  const VirtAddr old = upper->start;
  lower->end = boundary;
  upper->start = boundary;
  index_->start_changed(upper, old);
}

void MapEntries::settle() {
  restless_.store(false, std::memory_order_relaxed);
  index_->settle(hint_.load(std::memory_order_relaxed)->start);
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
