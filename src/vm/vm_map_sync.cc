// msync: the files behind a range are written, and read again if asked (freebsd-vm.md §3, sync).
// Invariant: the map is unlocked while a file is written; a reference keeps the file, and the map may change.
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {

KernReturn VmMap::Impl::check_sync(VirtRange range, SyncRequest request) {
  if (!covered(range)) return KernReturn::kInvalidAddress;
  if (!request.invalidate) return KernReturn::kSuccess;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->user_wired) return KernReturn::kInvalidArgument;
  }
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::sync(VirtRange range, SyncRequest request) NO_THREAD_SAFETY_ANALYSIS {
  bool good = true;
  VmObject* file = nullptr;
  PageIndex first;
  PageCount pages;
  {
    ReadLock guard(lock);
    if (range.start == range.end) {
      MapEntry* entry;
      if (!entries.lookup(range.start, &entry)) return KernReturn::kInvalidAddress;
      range = entry->range();
    }
    if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
    if (const KernReturn bad = check_sync(range, request); bad != KernReturn::kSuccess) return bad;
  }
  if (!request.wait && !request.invalidate) return KernReturn::kSuccess;
  const auto how = request.invalidate ? VmObjectZone::Clean::kInvalidate : VmObjectZone::Clean::kKeep;
  for (VirtAddr at = range.start; at < range.end;) {
    {
      ReadLock guard(lock);
      MapEntry* const e = entries.first_ending_after(at);
      if (e == entries.header() || e->start >= range.end) break;
      const VirtRange part = overlap(*e, {at, range.end});
      first = e->index_of(part.start);
      pages = to_pages(part.size());
      file = e->object == nullptr ? nullptr : objects().reference_bottom(*e->object, &first);
      at = part.end;
    }
    if (file == nullptr) continue;
    if (file->kind == ObjectKind::kFile) {
      good = objects().clean(*file, first, first + pages, how) == KernReturn::kSuccess && good;
    }
    objects().deallocate(file);
  }
  return good ? KernReturn::kSuccess : KernReturn::kFailure;
}

}  // namespace enchilada
