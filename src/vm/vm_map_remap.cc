// mremap: entries move to other addresses with their objects; nothing is copied, the new place faults lazily.
// Invariant: everything that can fail (checks, clips, new entries) comes before the first entry moves.
#include <algorithm>

#include "base/check.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

void copy_attributes(const MapEntry& from, MapEntry* to) {
  to->kind = from.kind;
  to->prot = from.prot;
  to->max_prot = from.max_prot;
  to->inherit = from.inherit;
  to->advice = from.advice;
}

}  // namespace

KernReturn VmMap::Impl::check_remap(VirtRange from, VirtRange to) {
  if (!covered(from)) return KernReturn::kInvalidAddress;
  for (VirtRange range : {from, to}) {
    for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
         e = e->next) {
      if (range == from && e->kind == EntryKind::kForeign) return KernReturn::kInvalidArgument;
    }
  }
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::grow_in_place(VirtRange from, VirtRange to, Writer& writer) {
  if (from.end == to.end) return KernReturn::kSuccess;
  const VirtRange tail{from.end, to.end};
  if (entries.first_ending_after(tail.start)->start < tail.end) return KernReturn::kNoSpace;
  MapEntry* last;
  if (!entries.lookup(from.end - ByteCount{kPageSize}, &last)) return KernReturn::kInvalidAddress;
  MapEntry* const entry = new_entry();
  if (entry == nullptr) return KernReturn::kResourceShortage;
  copy_attributes(*last, entry);
  entry->start = tail.start;
  entry->end = tail.end;
  insert_zero_fill(entry, writer);
  return KernReturn::kSuccess;
}

// One entry after another, lowest first, so that both chains stay sorted. An object that other entries of this map
// show too must not be taken for one whose pages lie at consecutive addresses any more (coalesce() would extend it
// over pages that are mapped elsewhere): the moved part gets an object of its own, or the object loses ONEMAPPING.
void VmMap::Impl::move_entries(VirtRange from, VirtRange to, bool keep_source, SpareEntries& spares,
                               Writer& writer) {
  const std::uint64_t delta = to.start.value() - from.start.value();  // may wrap: addresses are modulo 2^64
  MapEntry* prev;
  (void)entries.lookup(to.start, &prev);
  MapEntry* entry = entries.first_ending_after(from.start);
  while (entry != entries.header() && entry->start < from.end) {
    MapEntry* const next = entry->next;
    const VirtRange old = entry->range();
    MapEntry* const before = entry->prev;
    unlink(entry);
    if (prev == entry) prev = before;
    entry->start = VirtAddr{old.start.value() + delta};
    entry->end = VirtAddr{old.end.value() + delta};
    if (entry->object != nullptr && !entry->needs_copy &&
        !objects().split(&entry->object, &entry->offset, entry->pages())) {
      objects().clear_one_mapping(*entry->object);
    }
    (void)entries.lookup(entry->start, &prev);
    link(prev, entry);
    prev = entry;
    if (keep_source && entry->kind == EntryKind::kObject) {
      MapEntry* const fresh = spares.take();
      copy_attributes(*entry, fresh);
      fresh->start = old.start;
      fresh->end = old.end;
      MapEntry* left;
      (void)entries.lookup(fresh->start, &left);
      link(left, fresh);
    }
    entry = next;
  }
  simplify(from, writer);
}

KernReturn VmMap::Impl::remap(VirtRange from, VirtRange to, bool keep_source) {
  if (const KernReturn bad = check_range(from); bad != KernReturn::kSuccess) return bad;
  if (const KernReturn bad = check_range(to); bad != KernReturn::kSuccess) return bad;
  const bool in_place = from.start == to.start;
  if (to.size() < from.size() || (from.overlaps(to) && (!in_place || keep_source))) {
    return KernReturn::kInvalidArgument;
  }
  Writer writer(*this);
  const VirtRange both{std::min(from.start, to.start), std::max(from.end, to.end)};
  writer.wait_until_stable(both);
  if (const KernReturn bad = check_remap(from, to); bad != KernReturn::kSuccess) return bad;
  if (in_place) return grow_in_place(from, to, writer);
  if (!unwire_all(to, writer) || !clip(from, writer)) return KernReturn::kResourceShortage;
  // unwire_all() may have unlocked the map: look again before anything changes.
  writer.wait_until_stable(both);
  if (const KernReturn bad = check_remap(from, to); bad != KernReturn::kSuccess) return bad;
  std::size_t count = 0;
  for (MapEntry* e = entries.first_ending_after(from.start); e != entries.header() && e->start < from.end;
       e = e->next) {
    ++count;
  }
  SpareEntries spares(*this);
  const bool tail = to.size() > from.size();
  if (!spares.reserve((keep_source ? count : 0) + (tail ? 1 : 0)) || !clip(from, writer) ||
      !remove_locked(to, writer)) {
    simplify(from, writer);
    return KernReturn::kResourceShortage;
  }
  remove_mappings(from);
  move_entries(from, to, keep_source, spares, writer);
  if (tail) {
    MapEntry* const fresh = spares.take();
    MapEntry* last;
    const VirtAddr moved_end = to.start + from.size();
    CHECK(entries.lookup(moved_end - ByteCount{kPageSize}, &last));
    copy_attributes(*last, fresh);
    fresh->start = moved_end;
    fresh->end = to.end;
    insert_zero_fill(fresh, writer);
  }
  simplify(to, writer);
  return KernReturn::kSuccess;
}

}  // namespace enchilada
