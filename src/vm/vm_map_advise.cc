// madvise: access patterns are kept in the entry; the rest acts at once and leaves nothing behind.
// Invariant: kDiscard makes the range read as zeros for this map and for nobody else.
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"
#include "vm/vm_pageout.h"

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
  return object.backing == nullptr && object.shadow_count == 0 &&
         (object.refs() == 1 || (object.one_mapping() && !entry.needs_copy));
}

// The object stays as it is for those who share it; this map forgets it and starts afresh. Right in every
// case. `carrier` takes the reference to the place where references are dropped: behind the unlock.
void VmMap::Impl::forget_object(MapEntry* entry, MapEntry* carrier, Writer& writer) {
  objects().remove_range(*entry->object, entry->offset, entry->pages());
  carrier->object = entry->object;
  writer.defer(carrier);
  entry->object = nullptr;
  entry->offset = PageIndex{0};
  entry->needs_copy = false;
}

KernReturn VmMap::Impl::discard(VirtRange range) {
  Writer writer(*this);
  writer.wait_until_stable(range);
  bool replace = false;  // some part must lose its object
  std::size_t count = 0;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->wired_count != 0) return KernReturn::kInvalidArgument;
    if (e->object == nullptr || e->inherit == Inherit::kShare) continue;
    replace = replace || !sole_user(*e);
    ++count;
  }
  SpareEntries carriers(*this);
  if (replace && !(carriers.reserve(count) && clip(range, writer))) return KernReturn::kResourceShortage;
  remove_mappings(range);
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->object == nullptr || e->inherit == Inherit::kShare) continue;
    const VirtRange part = overlap(*e, range);
    if (!replace || sole_user(*e)) {
      objects().remove_range(*e->object, e->index_of(part.start), to_pages(part.size()));
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
    const VirtRange part = overlap(*e, range);
    pmap->remove(part);
    objects().remove_range(*e->object, e->index_of(part.start), to_pages(part.size()));
  }
  return KernReturn::kSuccess;
}

// The page daemon sleeps for I/O, so it runs with the map unlocked; a reference keeps the object.
KernReturn VmMap::Impl::deactivate(VirtRange range) NO_THREAD_SAFETY_ANALYSIS {
  for (VirtAddr at = range.start; at < range.end;) {
    lock.lock_shared();
    MapEntry* const e = entries.first_ending_after(at);
    if (e == entries.header() || e->start >= range.end) {
      lock.unlock_shared();
      break;
    }
    const VirtRange part = overlap(*e, {at, range.end});
    VmObject* const object = e->wired_count == 0 ? e->object : nullptr;
    const PageIndex first = e->index_of(part.start);
    if (object != nullptr) objects().reference(*object);
    lock.unlock_shared();
    at = part.end;
    if (object == nullptr) continue;
    system.daemon().pageout_object(*object, first, to_pages(part.size()));
    objects().deallocate(object);
  }
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::advise(VirtRange range, Advice advice) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  switch (advice) {
    case Advice::kNormal:
    case Advice::kSequential:
    case Advice::kRandom:
      return set_advice(range, advice);
    case Advice::kWillNeed:  // best effort; the hook for prefault: nothing is promised, nothing is done yet
      return KernReturn::kSuccess;
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
