// madvise: access patterns are kept in the entry; the rest acts at once and leaves nothing behind.
// Invariant: kDiscard makes the range read as zeros for this map and for nobody else.
#include "vm/vm_fault.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"
#include "vm/vm_pageout.h"
#include "vm/vm_phys.h"

namespace enchilada {

KernReturn VmMap::Impl::set_advice(VirtRange range, Advice advice) {
  Writer writer(*this);
  writer.wait_until_stable(range);
  if (!clip(range, writer)) return KernReturn::kResourceShortage;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->kind == EntryKind::kObject) e->advice = advice;
  }
  simplify(range, writer);
  return KernReturn::kSuccess;
}

// Nobody else sees the object's pages at this range, and there is nothing below that would shine through.
bool VmMap::Impl::sole_user(const MapEntry& entry) {
  VmObject& object = *entry.object;
  ReadLock guard(object.lock);
  return object.anonymous() && object.backing == nullptr && object.shadow_count == 0 &&
         (object.refs() == 1 || (object.one_mapping() && !entry.needs_copy));
}

// Discarding it for this map changes nothing that others see, or it is not this map's to discard.
bool shows_shared_contents(const MapEntry& entry) {
  return entry.inherit == Inherit::kShare || !entry.object->anonymous();
}

// The object stays as it is for those who share it; this map forgets it and starts afresh, with zeros or with
// the file below. Right in every case, once what only this map sees has gone. `carrier` takes the
// reference to the place where references are dropped: behind the unlock.
void VmMap::Impl::forget_object(MapEntry* entry, MapEntry* carrier, Writer& writer) {
  carrier->object = entry->object;
  writer.defer(carrier);
  const MapEntry old = *entry;
  entry->object = nullptr;
  entry->offset = PageIndex{0};
  entry->needs_copy = false;
  entry->shared = false;
  show_file_below(old, old.start, entry);
}

KernReturn VmMap::Impl::discard(VirtRange range) {
  Writer writer(*this);
  writer.wait_until_stable(range);
  bool replace = false;  // some part must lose its object
  std::size_t count = 0;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->wired_count != 0) return KernReturn::kInvalidArgument;
    if (e->object == nullptr || shows_shared_contents(*e)) continue;
    replace = replace || !sole_user(*e);
    ++count;
  }
  SpareEntries carriers(*this);
  if (replace && !(carriers.reserve(count) && clip(range, writer))) return KernReturn::kResourceShortage;
  // What only this map sees goes while it is mapped: vm_map_remove.cc says why.
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->object != nullptr && !shows_shared_contents(*e)) free_unshared(*e, range);
  }
  remove_mappings(range);
  for (MapEntry* e = entries.first_ending_after(range.start);
       replace && e != entries.header() && e->start < range.end; e = e->next) {
    if (e->object == nullptr || shows_shared_contents(*e)) continue;
    if (sole_user(*e)) {  // perhaps since a moment ago
      free_unshared(*e, range);
    } else {
      forget_object(e, carriers.take(), writer);
    }
  }
  simplify(range, writer);
  return KernReturn::kSuccess;
}

// Contents may go: they do where that costs nothing and is certain to be safe.
KernReturn VmMap::Impl::free_contents(VirtRange range) {
  Writer writer(*this);
  writer.wait_until_stable(range);
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->object == nullptr || e->inherit == Inherit::kShare || e->wired_count != 0 || !sole_user(*e))
      continue;
    free_unshared(*e, range);
    pmap->remove(overlap(*e, range));
  }
  return KernReturn::kSuccess;
}

/// Calls `work(object, entry's part of the range, its first page)` for each object in the range with the map
/// unlocked (the work may sleep for I/O); a reference keeps the object. The map may change between calls;
/// then so be it.
template <class Work>
void VmMap::Impl::for_each_object(VirtRange range, Work work) NO_THREAD_SAFETY_ANALYSIS {
  for (VirtAddr at = range.start; at < range.end;) {
    lock.lock_shared();
    MapEntry* const e = entries.first_ending_after(at);
    if (e == entries.header() || e->start >= range.end) {
      lock.unlock_shared();
      return;
    }
    const VirtRange part = overlap(*e, {at, range.end});
    VmObject* const object = e->wired_count == 0 ? e->object : nullptr;
    const PageIndex first = e->index_of(part.start);
    if (object != nullptr) objects().reference(*object);
    lock.unlock_shared();
    at = part.end;
    if (object == nullptr) continue;
    work(*object, part, first);
    objects().deallocate(object);
  }
}

KernReturn VmMap::Impl::deactivate(VirtRange range) {
  for_each_object(range, [this](VmObject& object, VirtRange part, PageIndex first) {
    system.daemon().unneeded(object, first, to_pages(part.size()));
  });
  return KernReturn::kSuccess;
}

// Brings in what was paged out, cluster by cluster, while frames are plenty: more would push out what is in
// use.
KernReturn VmMap::Impl::will_need(VirtRange range) {
  constexpr unsigned kMaxFaults = 64;
  unsigned faults = 0;
  for_each_object(range, [&](VmObject& object, VirtRange part, PageIndex first) {
    const PageIndex end = first + to_pages(part.size());
    for (PageIndex index = first; faults < kMaxFaults && next_in_swap(object, &index, end);
         ++index, ++faults) {
      if (system.free_frames().free_count() <= 2 * system.free_target()) return;
      if (vm_fault(self, part.start + to_bytes(index - first), Access::kRead) != FaultResult::kResolved)
        return;
    }
  });
  return KernReturn::kSuccess;
}

/// The first page at or after *index that the object has in its backing store and not in memory.
bool VmMap::Impl::next_in_swap(VmObject& object, PageIndex* index, PageIndex end) {
  ReadLock guard(object.lock);
  for (PageIndex from = *index; object.pager->find_least(object.handle, from, index) && *index < end;
       from = *index + PageCount{1}) {
    if (object.pages.find(*index) == kNoFrame) return true;
  }
  return false;
}

KernReturn VmMap::Impl::advise(VirtRange range, Advice advice) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  switch (advice) {
    case Advice::kNormal:
    case Advice::kSequential:
    case Advice::kRandom:
      return set_advice(range, advice);
    case Advice::kWillNeed:
      return will_need(range);
    case Advice::kDontNeed:
      return deactivate(range);
    case Advice::kFree:
      return free_contents(range);
    case Advice::kDiscard:
      return discard(range);
  }
  return KernReturn::kInvalidArgument;
}

}  // namespace enchilada
