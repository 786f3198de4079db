// mremap: entries move to other addresses with their objects; nothing is copied, the new place faults lazily.
// Invariant: everything that can fail (checks, clips, new entries) comes before the first entry moves.
#include <algorithm>

#include "base/check.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {
KernReturn VmMap::Impl::check_remap(VirtRange from) {
  if (!covered(from)) return KernReturn::kInvalidAddress;
  for (MapEntry* e = entries.first_ending_after(from.start); e != entries.header() && e->start < from.end;
       e = e->next) {
    if (e->kind == EntryKind::kForeign) return KernReturn::kInvalidArgument;
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
  entry->copy_attributes(*last);
  entry->start = tail.start;
  entry->end = tail.end;
  show_file_below(*last, tail.start, entry);
  insert(entry, writer);
  return KernReturn::kSuccess;
}

// Objects keep their flags: each page is still mapped by one range at most, only not in the order of its
// index, and VmObjectZone::coalesce() does not rely on that.
void VmMap::Impl::move_entries(VirtRange from, VirtRange to, bool keep_source, SpareEntries& spares) {
  const std::uint64_t delta = to.start.value() - from.start.value();  // may wrap: addresses are modulo 2^64
  MapEntry* entry = entries.first_ending_after(from.start);
  while (entry != entries.header() && entry->start < from.end) {
    MapEntry* const next = entry->next;
    MapEntry* const before = entry->prev;
    const VirtRange old = entry->range();
    unlink(entry);
    if (keep_source) {
      MapEntry* const fresh = spares.take();
      fresh->copy_attributes(*entry);
      fresh->start = old.start;
      fresh->end = old.end;
      show_file_below(*entry, old.start, fresh);
      link(before, fresh);
    }
    entry->start = VirtAddr{old.start.value() + delta};
    entry->end = VirtAddr{old.end.value() + delta};
    MapEntry* prev;
    CHECK(!entries.lookup(entry->start, &prev));
    link(prev, entry);
    entry = next;
  }
}

KernReturn VmMap::Impl::move_range(VirtRange from, VirtRange to, bool keep_source, Writer& writer) {
  const bool tail = to.size() > from.size();
  SpareEntries spares(*this);
  bool ready = clip(from, writer);
  for (MapEntry* e = entries.first_ending_after(from.start);
       ready && keep_source && e != entries.header() && e->start < from.end; e = e->next) {
    ready = spares.reserve(1);
  }
  ready = ready && (!tail || spares.reserve(1)) && remove_locked(to, writer);
  if (!ready) {
    simplify(from, writer);
    return KernReturn::kResourceShortage;
  }
  remove_mappings(from);
  move_entries(from, to, keep_source, spares);
  if (tail) {
    MapEntry* const fresh = spares.take();
    MapEntry* last;
    const VirtAddr moved_end = to.start + from.size();
    CHECK(entries.lookup(moved_end - ByteCount{kPageSize}, &last));
    fresh->copy_attributes(*last);
    fresh->start = moved_end;
    fresh->end = to.end;
    show_file_below(*last, moved_end, fresh);
    insert(fresh, writer);
  }
  simplify(from, writer);
  simplify(to, writer);
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::remap(VirtRange from, VirtRange to, bool keep_source) {
  if (const KernReturn bad = check_range(from); bad != KernReturn::kSuccess) return bad;
  if (const KernReturn bad = check_range(to); bad != KernReturn::kSuccess) return bad;
  const bool in_place = from.start == to.start;
  if (to.size() < from.size() || (from.overlaps(to) && (!in_place || keep_source))) {
    return KernReturn::kInvalidArgument;
  }
  Writer writer(*this);
  for (bool quiet = false; !quiet;) {  // unwiring unlocks the map: then all is looked at again
    writer.wait_until_stable({std::min(from.start, to.start), std::max(from.end, to.end)});
    if (const KernReturn bad = check_remap(from); bad != KernReturn::kSuccess) return bad;
    if (in_place) return grow_in_place(from, to, writer);
    const std::uint64_t seen = timestamp.load(std::memory_order_relaxed);
    if (!unwire_all(to, writer)) return KernReturn::kResourceShortage;
    quiet = timestamp.load(std::memory_order_relaxed) == seen;
  }
  return move_range(from, to, keep_source, writer);
}

KernReturn VmMap::Impl::remap_anywhere(VirtRange from, const MapRequest& place, bool keep_source,
                                       VirtAddr* address) {
  if (const KernReturn bad = check_range(from); bad != KernReturn::kSuccess) return bad;
  const std::uint64_t alignment = place.alignment;
  if (place.length < from.size() || alignment < kPageSize || (alignment & (alignment - 1)) != 0) {
    return KernReturn::kInvalidArgument;
  }
  if (place.length > bounds.size()) return KernReturn::kNoSpace;
  const ByteCount length = to_bytes(to_pages(place.length));
  Writer writer(*this);
  writer.wait_until_stable(from);
  if (const KernReturn bad = check_remap(from); bad != KernReturn::kSuccess) return bad;
  const auto at = entries.find_space(place.hint, length.value(), alignment);
  if (!at) return KernReturn::kNoSpace;
  const KernReturn verdict = move_range(from, {*at, *at + length}, keep_source, writer);
  if (verdict == KernReturn::kSuccess) *address = *at;
  return verdict;
}

}  // namespace enchilada
