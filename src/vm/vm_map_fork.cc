// fork(2) of an address space, lazily: no page is copied and, for private memory, no object made.
// Invariant: an entry that is copied on write is marked needs-copy on both sides, and neither pmap holds a
// writable mapping of it from then on; the shadows appear at the first write of each side (lookup()).
#include "base/check.h"
#include "vm/vm_fault.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"
#include "vm/vm_precopy.h"

namespace enchilada {
namespace {

// Memory into which somebody goes on writing cannot be copied on write: wired writable memory, which must
// stay where it is for the parent, and memory that other maps share, whose writes nobody else would fault on.
bool copied_at_once(const MapEntry& entry) {
  if (entry.object == nullptr || entry.inherit != Inherit::kCopy) return false;
  return (entry.wired_count != 0 && allows(entry.prot, Prot::kWrite)) ||
         (entry.shared && (entry.object->refs() > 1 || !entry.object->anonymous()));
}

}  // namespace

void VmMap::Impl::for_each_shown(const VmObject& object, PageIndex first, VirtRange range,
                                 FunctionRef<void(VirtRange)> add) {
  VmRadix::Item item;
  const PageIndex end = first + to_pages(range.size());
  for (PageIndex i = first; object.pages.find_least(i, &item) && item.index < end;
       i = item.index + PageCount{1}) {
    const VirtAddr at = range.start + to_bytes(item.index - first);
    add({at, at + ByteCount{kPageSize}});
  }
}

// Only pages of the top object are ever mapped writable. When it holds few (little was written since the last
// fork) naming them is cheaper than having the pmap look at every address.
void VmMap::Impl::for_each_writable(const MapEntry& entry, FunctionRef<void(VirtRange)> add) {
  constexpr std::uint64_t kFew = 16;  // one page in so many
  if (entry.object == nullptr || entry.needs_copy || !allows(entry.prot, Prot::kWrite)) return;
  ReadLock guard(entry.object->lock);
  if (entry.object->pages.count() * kFew > entry.pages().value()) return add(entry.range());
  for_each_shown(*entry.object, entry.offset, entry.range(), add);
}

bool VmMap::Impl::share_with_child(MapEntry* entry, MapEntry* copy) {
  if (!ensure_object(entry)) return false;
  if (entry->needs_copy) {  // now, so that both share the shadow rather than make one each
    if (!objects().shadow(&entry->object, &entry->offset, entry->pages())) return false;
    entry->needs_copy = false;
  }
  objects().reference(*entry->object);
  objects().clear_one_mapping(*entry->object);
  copy->object = entry->object;
  copy->offset = entry->offset;
  entry->shared = copy->shared = true;
  return true;
}

bool VmMap::Impl::copy_on_write_with_child(MapEntry* entry, MapEntry* copy) {
  if (entry->object == nullptr) return true;
  entry->shared = false;  // no other map has it any more
  // A clipped entry of an object that only this map shows: its range becomes an object, so that the parts'
  // fates are separate. Where that fails sharing the whole object is right too, only less tidy. Both steps
  // also for an entry that awaits a copy already: since its sharers left, the object may count as mapped once
  // again.
  (void)objects().split(&entry->object, &entry->offset, entry->pages());
  objects().reference(*entry->object);
  objects().prepare_for_copy(*entry->object);
  entry->needs_copy = true;
  copy->object = entry->object;
  copy->offset = entry->offset;
  copy->needs_copy = true;
  return true;
}

// The parent (and whoever shares the object) is not marked and goes on writing into the object; the child's
// pages are copied at once (finish_fork), as FreeBSD does for wired memory. The mark is `raised`.
bool VmMap::Impl::copy_now_with_child(MapEntry* entry, MapEntry* copy) {
  CHECK(entry->object != nullptr);
  objects().reference(*entry->object);
  objects().clear_one_mapping(*entry->object);
  copy->object = entry->object;
  copy->offset = entry->offset;
  copy->needs_copy = true;
  copy->raised = true;
  return true;
}

bool VmMap::Impl::fork_entry(MapEntry* entry, bool at_once, Impl& child) NO_THREAD_SAFETY_ANALYSIS {
  if (entry->inherit == Inherit::kNone) return true;
  MapEntry* const copy = new_entry();  // of this map, whose lock is held, and which may have some in store
  if (copy == nullptr) return false;
  if (!child.adopt_entry()) {
    free_entry(copy);
    return false;
  }
  --own_entries;
  copy->start = entry->start;
  copy->end = entry->end;
  copy->copy_attributes(*entry);
  bool done = true;
  if (entry->kind == EntryKind::kObject && entry->inherit != Inherit::kZero) {
    done = entry->inherit == Inherit::kShare ? share_with_child(entry, copy)
           : at_once                         ? copy_now_with_child(entry, copy)
                                             : copy_on_write_with_child(entry, copy);
  }
  if (!done) {
    child.free_entry(copy);
    return false;
  }
  child.link(child.entries.header()->prev, copy);
  return true;
}

// Nobody else knows the child, so its entries stay though the lock is not held; vm_fault() takes it.
bool VmMap::Impl::finish_fork() NO_THREAD_SAFETY_ANALYSIS {
  for (MapEntry* e = entries.first(); e != entries.header(); e = e->next) {
    if (!e->raised) continue;
    e->raised = false;
    const Prot prot = e->prot;
    e->prot = prot | Prot::kReadWrite;  // for the copying; nobody sees it
    for (VirtAddr at = e->start; at < e->end; at = at + ByteCount{kPageSize}) {
      const FaultResult result = vm_fault(self, at, Access::kWrite);
      if (result == FaultResult::kOutOfBounds) continue;  // beyond a file's end there is nothing to copy
      if (result != FaultResult::kResolved) return false;
    }
    e->prot = prot;
    if (!allows(prot, Prot::kReadWrite)) pmap->protect(e->range(), pmap_prot(prot));
    objects().collapse(
        *e->object);  // all is hidden now: let go of the object that the parent goes on writing to
  }
  Writer writer(*this);
  simplify(bounds, writer);
  return true;
}

// The child is reachable by nobody else yet, so its lock is not taken (two maps' locks have no order).
std::unique_ptr<VmMap> VmMap::Impl::fork() NO_THREAD_SAFETY_ANALYSIS {
  std::unique_ptr<VmMap> child = VmMap::create_with(system, bounds, zone);
  if (child == nullptr) return nullptr;
  bool done = true;
  {
    Writer writer(*this);
    writer.wait_until_stable(bounds);
    const bool none_mapped = pmap->throw_away_for_fork();
    RangeRuns no_write([this](VirtRange run) { pmap->protect(run, without(Prot::kAll, Prot::kWrite)); });
    RangeRuns inherited([&](VirtRange run) { child->impl_->pmap->copy_from(*pmap, run); });
    for (MapEntry* e = entries.first(); done && e != entries.header(); e = e->next) {
      const bool at_once = copied_at_once(*e);  // asked once: another map's exit may change the answer
      const bool copied = e->inherit == Inherit::kCopy && e->object != nullptr && !at_once;
      // Before it is marked, while the map is held: nobody can enter a page meanwhile.
      if (copied && !none_mapped) for_each_writable(*e, [&](VirtRange run) { no_write.add(run); });
      done = fork_entry(e, at_once, *child->impl_);
      if (done && (copied || (e->inherit == Inherit::kShare && e->object != nullptr)))
        inherited.add(e->range());
    }
    no_write.done();
    inherited.done();
    simplify(bounds, writer);
  }
  if (!done || !child->impl_->finish_fork()) return nullptr;
  system.precopy().after_fork(self, *child);
  return child;
}

}  // namespace enchilada
