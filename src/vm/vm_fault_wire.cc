// Wiring: makes pages resident and keeps them (vm_map_wire's worker, freebsd-vm.md §3).
// Invariant: all or nothing; a wired page is on no queue and never leaves its frame or its object while it is
// mapped.
#include "vm/vm_fault.h"
#include "vm/vm_fault_state.h"
#include "vm/vm_pagequeue.h"

namespace enchilada {
namespace {

KernReturn verdict_of(FaultResult result) {
  switch (result) {
    case FaultResult::kResolved:
      return KernReturn::kSuccess;
    case FaultResult::kNotMapped:
      return KernReturn::kInvalidAddress;
    case FaultResult::kProtection:
      return KernReturn::kProtectionFailure;
    case FaultResult::kIoError:
      return KernReturn::kFailure;
    case FaultResult::kOutOfBounds:
      return KernReturn::kOutOfBounds;
    case FaultResult::kNoMemory:
      return KernReturn::kResourceShortage;
  }
  return KernReturn::kFailure;
}

FaultResult wire_one(VmMap& map, VirtAddr va) {
  // For writing where that is allowed, so that a copy-on-write page is copied now and not while it is wired.
  const FaultResult result = FaultState(map, va, Access::kWrite, FaultState::Purpose::kWire).run();
  return result == FaultResult::kProtection
             ? FaultState(map, va, Access::kRead, FaultState::Purpose::kWire).run()
             : result;
}

struct Place {
  VmObject* object = nullptr;
  PageIndex index;
};

/// The object behind an address. The entry cannot go: it is in transition, or the caller holds the map.
Place place_of(VmMap& map, VirtAddr va) {
  MapLookup look;
  if (map.lookup(va, Access::kRead, &look) == KernReturn::kSuccess) {
    map.unlock_shared();
    return {look.object, look.index};
  }
  Place place;  // no access any more (mprotect since): rare, so a walk over the entries will do
  map.for_each_entry([&](const VmMap::EntryView& e) {
    if (e.kind != EntryKind::kObject || e.object == nullptr || !e.range.contains(va)) return;
    place = {e.object, e.offset + to_pages(va - e.range.start)};
  });
  return place;
}

/// Takes one wiring off a busy page; the last one puts it back on active.
void unwire_page(VmSystem& system, Page& page) {
  if (!page.is_wired()) return;
  page.set_dirty(true);  // a system call may have written without the mapping's knowledge
  if (page.wire_count.fetch_sub(1, std::memory_order_relaxed) != 1) return;
  system.counters().wire_count.fetch_sub(1, std::memory_order_relaxed);
  page.set_act_count(kActInit);
  system.queues().move(system.frame_of(page), PageQueue::kActive);
}

/// Finds the first resident page down the chain and unwires it; waits while it is busy.
void unwire_one(VmSystem& system, Place place) NO_THREAD_SAFETY_ANALYSIS {  // locks follow the chain
  for (;;) {
    VmObject* object = place.object;
    PageIndex index = place.index;
    object->lock.lock_shared();
    while (object->pages.find(index) == kNoFrame) {
      VmObject* const below = object->backing;
      if (below == nullptr) {
        object->lock.unlock_shared();
        return;
      }
      below->lock.lock_shared();
      index = index + object->backing_offset;
      object->lock.unlock_shared();
      object = below;
    }
    Page& page = system.page(object->pages.find(index));
    const bool mine = page.try_busy();
    object->lock.unlock_shared();
    if (!mine) {
      page.wait_not_busy();
      continue;
    }
    unwire_page(system, page);
    page.unbusy();
    return;
  }
}

}  // namespace

KernReturn vm_fault_wire(VmMap& map, VirtRange range) {
  for (VirtAddr va = range.start; va < range.end; va = va + ByteCount{kPageSize}) {
    const FaultResult result = wire_one(map, va);
    if (result == FaultResult::kResolved) continue;
    if (va > range.start) vm_fault_unwire(map, {range.start, va});
    return verdict_of(result);
  }
  return KernReturn::kSuccess;
}

void vm_fault_unwire(VmMap& map, VirtRange range) {
  map.pmap().unwire(range);
  for (VirtAddr va = range.start; va < range.end; va = va + ByteCount{kPageSize}) {
    const Place place = place_of(map, va);
    if (place.object != nullptr) unwire_one(map.system(), place);
  }
}

}  // namespace enchilada
