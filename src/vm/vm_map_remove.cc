// munmap. Order: unwire, free what only this map could see, remove the other mappings, take the entries out;
// the objects' references go after the unlock. Freeing comes before the mappings go: what is still mapped is
// dropped where it is, many pages at a time, and what is not would first have to be brought home.
#include "base/check.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {

// Only where an object was mapped: a foreign entry's addresses belong to the machine, and 1 TiB of reserved
// but untouched memory has no mappings. One call per run of neighbours.
void VmMap::Impl::remove_mappings(VirtRange range) {
  RangeRuns runs([this](VirtRange run) { pmap->remove(run); });
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->object != nullptr) runs.add(overlap(*e, range));
  }
}

void VmMap::Impl::free_unshared(const MapEntry& entry, VirtRange range) {
  const VirtRange part = overlap(entry, range);
  objects().remove_range(*entry.object, entry.index_of(part.start), to_pages(part.size()));
}

// The objects may live on in other entries of this map; what only this range showed is freed now, not with
// them.
void VmMap::Impl::free_unshared(VirtRange range) {
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->object != nullptr) free_unshared(*e, range);
  }
}

bool VmMap::Impl::remove_locked(VirtRange range, Writer& writer) {
  if (!clip(range, writer)) return false;
  free_unshared(range);
  remove_mappings(range);
  MapEntry* entry = entries.first_ending_after(range.start);
  while (entry != entries.header() && entry->start < range.end) {
    MapEntry* const next = entry->next;
    DCHECK(entry->wired_count == 0 && !entry->in_transition);
    unlink(entry);
    writer.defer(entry);
    entry = next;
  }
  return true;
}

KernReturn VmMap::Impl::remove(VirtRange range) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  const bool done = unwire_all(range, writer) && remove_locked(range, writer);
  return done ? KernReturn::kSuccess : KernReturn::kResourceShortage;
}

}  // namespace enchilada
