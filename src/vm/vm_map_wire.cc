// mlock and munlock: pages are faulted in, or let go, with the map unlocked.
// Invariant: while the lock is dropped the entry worked on (wire: every entry of the range) is in transition,
// so it cannot move, change or vanish; only lookup() may give it its object. Marks change under the exclusive
// lock.
#include "base/check.h"
#include "vm/vm_fault.h"
#include "vm/vm_map_impl.h"

namespace enchilada {

KernReturn VmMap::Impl::check_wire(VirtRange range) {
  if (!covered(range)) return KernReturn::kInvalidAddress;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (e->kind == EntryKind::kGuard) return KernReturn::kInvalidAddress;
    if (e->kind == EntryKind::kObject && e->prot == Prot::kNone) return KernReturn::kInvalidAddress;
  }
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::wire_entries(MapEntry* first, MapEntry* last, WireKind kind, MapEntry** stopped) {
  for (MapEntry* e = first;; e = e->next) {
    const bool counts = e->kind == EntryKind::kObject && !(kind == WireKind::kUser && e->user_wired);
    if (counts) {
      e->raised = true;
      ++e->wired_count;  // before the faults, so that they enter the pages wired
      if (e->wired_count == 1) {
        unlock_exclusive();
        const KernReturn verdict = vm_fault_wire(self, e->range());
        lock_exclusive();
        if (verdict != KernReturn::kSuccess) {
          e->wired_count = 0;
          e->raised = false;
          *stopped = e;
          return verdict;
        }
      }
    }
    if (e == last) return KernReturn::kSuccess;
  }
}

void VmMap::Impl::unwire_entry(MapEntry* entry) {
  DCHECK(entry->in_transition);
  unlock_exclusive();
  vm_fault_unwire(self, entry->range());
  lock_exclusive();
}

// The pages wired so far are the ones to be copied from. When the copies cannot be had the entry is wired no
// more.
void VmMap::Impl::rewire_entry(MapEntry* entry) {
  entry->in_transition = true;
  ++in_transition;
  unwire_entry(entry);
  KernReturn verdict = resolve(entry, Access::kWrite);
  if (verdict == KernReturn::kSuccess) {
    unlock_exclusive();
    verdict = vm_fault_wire(self, entry->range());
    lock_exclusive();
  }
  if (verdict != KernReturn::kSuccess) {
    entry->wired_count = 0;
    entry->user_wired = false;
  }
  end_transition(entry);
  wake_transition_waiters();
}

void VmMap::Impl::undo_wiring(MapEntry* first, MapEntry* stopped) {
  for (MapEntry* e = first; e != stopped; e = e->next) {
    if (!e->raised) continue;
    if (e->wired_count == 1) unwire_entry(e);
    --e->wired_count;
    e->raised = false;
  }
}

KernReturn VmMap::Impl::wire(VirtRange range, WireKind kind) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  if (const KernReturn bad = check_wire(range); bad != KernReturn::kSuccess) return bad;
  if (!clip(range, writer)) return KernReturn::kResourceShortage;
  MapEntry* const first = entries.first_ending_after(range.start);
  MapEntry* last = first;
  for (MapEntry* e = first; e != entries.header() && e->start < range.end; e = e->next) {
    e->in_transition = true;
    ++in_transition;
    last = e;
  }
  MapEntry* stopped = nullptr;
  const KernReturn verdict = wire_entries(first, last, kind, &stopped);
  if (verdict != KernReturn::kSuccess) undo_wiring(first, stopped);
  for (MapEntry* e = first;; e = e->next) {
    if (e->raised && kind == WireKind::kUser) e->user_wired = true;
    e->raised = false;
    end_transition(e);
    if (e == last) break;
  }
  wake_transition_waiters();
  simplify(range, writer);
  return verdict;
}

KernReturn VmMap::Impl::unwire(VirtRange range, WireKind kind) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  const bool hole = !covered(range);
  for (VirtRange rest = range; !rest.empty();) {
    writer.wait_until_stable(rest);
    if (!clip(rest, writer)) return KernReturn::kResourceShortage;
    MapEntry* const e = entries.first_ending_after(rest.start);
    if (e == entries.header() || e->start >= range.end) break;
    rest.start = e->end;
    const bool wired = kind == WireKind::kUser ? e->user_wired : e->wired_count > (e->user_wired ? 1u : 0u);
    if (!wired) continue;
    if (e->wired_count == 1) {
      e->in_transition = true;
      ++in_transition;
      unwire_entry(e);
      end_transition(e);
      wake_transition_waiters();
    }
    --e->wired_count;
    if (kind == WireKind::kUser) e->user_wired = false;
  }
  simplify(range, writer);
  return hole ? KernReturn::kInvalidAddress : KernReturn::kSuccess;
}

bool VmMap::Impl::unwire_all(VirtRange range, Writer& writer) {
  for (bool found = true; found;) {
    found = false;
    for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
         e = e->next) {
      if (e->wired_count == 0) continue;
      if (!clip(range, writer)) return false;
      if (e->end <= range.start)
        e = e->next;  // the clip left the wired part inside the range in the next entry
      e->in_transition = true;
      ++in_transition;
      unwire_entry(e);
      e->wired_count = 0;
      e->user_wired = false;
      end_transition(e);
      wake_transition_waiters();
      writer.wait_until_stable(range);
      found = true;
      break;  // the map may have changed while it was unlocked
    }
  }
  return true;
}

}  // namespace enchilada
