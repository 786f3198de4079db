// The linear list of map entries. Invariant: hint_ is the header or an entry of the map.
#include "lab/baselines/map_list.h"

#include "base/check.h"

namespace enchilada {

void ListMapIndex::insert(MapEntry* entry) {
  if (header_ == nullptr) header_ = entry;
  hint_.store(entry, std::memory_order_relaxed);
}

void ListMapIndex::erase(MapEntry* entry) {
  if (hint_.load(std::memory_order_relaxed) == entry) hint_.store(entry->prev, std::memory_order_relaxed);
}

MapEntry* ListMapIndex::find_at_or_before(VirtAddr address, std::uint64_t* visited) const {
  if (address >= header_->start) return header_;
  const MapEntry* from = hint_.load(std::memory_order_relaxed);
  if (from == header_ || from->start > address) from = header_->next;
  std::uint64_t steps = 1;
  while (from != header_ && from->start <= address) {
    from = from->next;
    ++steps;
  }
  *visited += steps;
  MapEntry* const found = from->prev;
  if (found == header_) return nullptr;
  hint_.store(found, std::memory_order_relaxed);
  return found;
}

MapEntry* ListMapIndex::next_gap(MapEntry* entry, std::uint64_t length) const {
  while (entry != header_) {
    entry = entry->next;
    if (entry->gap >= length) return entry;
  }
  return nullptr;
}

std::size_t ListMapIndex::validate() const {
  std::size_t n = 1;
  bool hint_is_there = hint_.load() == header_;
  for (const MapEntry* e = header_->next; e != header_; e = e->next, ++n) {
    hint_is_there = hint_is_there || e == hint_.load();
  }
  CHECK(hint_is_there);
  return n;
}

}  // namespace enchilada
