// mprotect and minherit.
// Invariant: protect() checks everything before it changes anything; it takes rights from the pmap at once
// and gives them lazily (the next fault enters them).
#include "vm/vm_map_impl.h"

namespace enchilada {

// One walk over the entries. Their neighbours will be needed next, to be changed or to merge with: with a
// million entries each is a cache miss, so they are fetched side by side.
KernReturn VmMap::Impl::check_protect(VirtRange range, Prot prot, ProtectCheck* check) {
  if (!entries.lookup(range.start, &check->first)) return KernReturn::kInvalidAddress;
  entries.prefetch_neighbours(check->first);
  bool refused = false;
  for (MapEntry* e = check->first;; e = e->next) {
    if (e->kind == EntryKind::kObject) {
      refused = refused || !allows(e->max_prot, prot);
      check->changes = check->changes || e->prot != prot;
      check->wired = check->wired || e->wired_count != 0;
    }
    if (e->end >= range.end) break;
    if (e->next == entries.header() || e->next->start != e->end) return KernReturn::kInvalidAddress;
  }
  return refused ? KernReturn::kProtectionFailure : KernReturn::kSuccess;
}

// Page after page in one direction is the common pattern (loaders, collectors): each call takes a piece off
// one end of an entry that becomes like the neighbour there. Then only the boundary between the two moves: no
// clip, no merge.
bool VmMap::Impl::protect_by_shift(MapEntry* e, VirtRange range, Prot prot) {
  if (e->kind != EntryKind::kObject || e->wired_count != 0) return false;
  if (range.start < e->start || range.end > e->end) return false;
  const bool at_start = range.start == e->start && range.end < e->end;
  const bool at_end = range.end == e->end && range.start > e->start;
  MapEntry* const neighbour = at_start ? e->prev : e->next;
  if (!(at_start || at_end) || neighbour == entries.header()) return false;
  MapEntry piece = *e;
  piece.start = range.start;
  piece.end = range.end;
  piece.offset = e->object == nullptr ? e->offset : e->index_of(range.start);
  piece.prot = prot;
  if (!(at_start ? mergeable(*neighbour, piece) : mergeable(piece, *neighbour))) return false;
  if (e->object != nullptr && without(e->prot, prot) != Prot::kNone) pmap->protect(range, pmap_prot(prot));
  if (at_start) {
    if (e->object != nullptr) e->offset = e->index_of(range.end);
    entries.move_boundary(neighbour, e, range.end);
  } else {
    entries.move_boundary(e, neighbour, range.start);
    neighbour->offset = piece.offset;
  }
  return true;
}

KernReturn VmMap::Impl::protect(VirtRange range, Prot prot) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  if (!allows(Prot::kAll, prot)) return KernReturn::kInvalidArgument;
  Writer writer(*this);
  writer.wait_until_stable(range);
  ProtectCheck check;
  const KernReturn verdict = check_protect(range, prot, &check);
  if (verdict != KernReturn::kSuccess || !check.changes) return verdict;
  if (protect_by_shift(check.first, range, prot)) return KernReturn::kSuccess;
  if (!clip(range, writer)) return KernReturn::kResourceShortage;
  {
    RangeRuns reduced([&](VirtRange run) { pmap->protect(run, pmap_prot(prot)); });
    for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
         e = e->next) {
      if (e->kind != EntryKind::kObject) continue;
      if (e->object != nullptr && without(e->prot, prot) != Prot::kNone) reduced.add(e->range());
      e->prot = prot;
    }
  }
  if (check.wired) copy_wired_writable(range);
  simplify(range, writer);
  return KernReturn::kSuccess;
}

// Wired pages are promised never to fault, so the copy cannot wait for the first write; and after that write
// the page in use would not be the wired one. rewire_entry() unlocks the map, hence the new lookup each time.
void VmMap::Impl::copy_wired_writable(VirtRange range) {
  for (VirtAddr at = range.start; at < range.end;) {
    MapEntry* const e = entries.first_ending_after(at);
    if (e == entries.header() || e->start >= range.end) return;
    at = e->end;
    if (e->wired_count == 0 || !e->needs_copy || !allows(e->prot, Prot::kWrite) || e->in_transition) continue;
    rewire_entry(e);
  }
}

KernReturn VmMap::Impl::inherit(VirtRange range, Inherit how) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  if (!clip(range, writer)) return KernReturn::kResourceShortage;
  for (MapEntry* e = entries.first_ending_after(range.start); e != entries.header() && e->start < range.end;
       e = e->next) {
    if (how == Inherit::kZero && e->kind != EntryKind::kObject) continue;
    e->inherit = how;
  }
  simplify(range, writer);
  return KernReturn::kSuccess;
}

}  // namespace enchilada
