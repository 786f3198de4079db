// The map's part of a page fault: which object and page lie behind an address.
// Invariant: what lookup() returns stays true while the map is locked shared, or its timestamp unchanged.
#include <algorithm>

#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

bool permitted(const MapEntry& entry, Access access) {
  return access == Access::kWrite ? allows(entry.prot, Prot::kWrite) : entry.prot != Prot::kNone;
}

bool needs_work(const MapEntry& entry, Access access) {
  return entry.object == nullptr || (entry.needs_copy && access == Access::kWrite);
}

}  // namespace

// The entry gets what the access needs: an object of its own, made as late as this.
KernReturn VmMap::Impl::resolve(MapEntry* entry, Access access) {
  if (!ensure_object(entry)) return KernReturn::kResourceShortage;
  if (entry->needs_copy && access == Access::kWrite) {
    if (!objects().shadow(&entry->object, &entry->offset, entry->pages()))
      return KernReturn::kResourceShortage;
    entry->needs_copy = false;
  }
  return KernReturn::kSuccess;
}

// Locked shared at first, because nearly every fault finds its entry ready. The map may change between the
// shared and the exclusive lock, so the entry is looked up again then.
KernReturn VmMap::Impl::lookup(VirtAddr address, Access access, MapLookup* found) NO_THREAD_SAFETY_ANALYSIS {
  bool exclusive = false;
  lock.lock_shared();
  MapEntry* entry = nullptr;
  KernReturn verdict = KernReturn::kSuccess;
  for (;;) {
    const bool hit = entries.lookup(address, &entry);
    verdict = !hit || entry->kind != EntryKind::kObject ? KernReturn::kInvalidAddress
              : !permitted(*entry, access)              ? KernReturn::kProtectionFailure
                                                        : KernReturn::kSuccess;
    if (verdict != KernReturn::kSuccess || !needs_work(*entry, access)) break;
    if (!exclusive) {
      const bool upgraded = lock.try_upgrade();
      exclusive = true;
      if (!upgraded) {
        lock.unlock_shared();
        lock_exclusive();
        continue;
      }
      advance_timestamp();
    }
    verdict = resolve(entry, access);
    break;
  }
  if (verdict != KernReturn::kSuccess) {
    exclusive ? unlock_exclusive() : lock.unlock_shared();
    return verdict;
  }
  // A tree that moves what is used to its root does so only while nobody else looks.
  if (!exclusive && entries.restless() && lock.try_upgrade()) {
    entries.settle();
    exclusive = true;
  }
  if (exclusive) lock.downgrade();
  found->object = entry->object;
  found->index = entry->index_of(page_floor(address));
  found->prot = pmap_prot(entry->needs_copy ? without(entry->prot, Prot::kWrite) : entry->prot);
  if (found->prot == Prot::kNone) found->prot = Prot::kRead;  // writable only, and awaiting its copy
  found->wired = entry->wired_count != 0;
  found->advice = entry->advice;
  found->entry_range = entry->range();
  found->entry_first_index = entry->offset;
  found->timestamp = timestamp.load(std::memory_order_relaxed);
  return KernReturn::kSuccess;
}

void VmMap::unlock_shared() NO_THREAD_SAFETY_ANALYSIS {
  impl_->lock.unlock_shared();
}

// Never waits: the caller may hold a busy page that the map's exclusive holder is waiting for.
bool VmMap::relock_if_unchanged(std::uint64_t timestamp) NO_THREAD_SAFETY_ANALYSIS {
  if (!impl_->lock.try_lock_shared()) return false;
  if (impl_->timestamp.load(std::memory_order_relaxed) == timestamp) return true;
  impl_->lock.unlock_shared();
  return false;
}

}  // namespace enchilada
