// Superpages of the x86-64 format: promotion, demotion, and what is done to a superpage as a whole.
//
// After FreeBSD's pmap_promote_pde() and pmap_demote_pde() (freebsd-vm.md §1.12), with one difference:
// whether the entries agree is decided before any of them is changed. The table page stays allocated, so
// demotion needs no page; it needs 511 pv entries, and where there are none the mapping is thrown away.
#include <array>

#include "pmap/soft/radix_tables.h"

namespace enchilada {

using x86::Pte;

Mutex& RadixTables::pv_lock_of(const TableInfo& promoted) const {
  return shared_.pvs.lock(x86::frame_of(pool_.entry(promoted.self, 0).load(std::memory_order_relaxed)));
}

/// Neighbouring, aligned frames, all used, and all alike: no one dirty or all. `fresh` was entered just now
/// for an access that will mark it.
RadixTables::Uniform RadixTables::uniform(const TableInfo& leaf, const Pte* fresh) const {
  const std::uint64_t modified = shared_.options.dirty_bits ? x86::kDirty : x86::kWritable;
  const FrameNumber first = x86::frame_of(pool_.entry(leaf.self, 0).load(std::memory_order_relaxed));
  if (first.value() % x86::kSlots != 0) return Uniform::kNo;
  unsigned dirty = 0;
  bool fresh_may_be = false;
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    const Pte& pte = pool_.entry(leaf.self, slot);
    const std::uint64_t entry = pte.load(std::memory_order_relaxed);
    if (x86::frame_of(entry) != first + PageCount{slot}) return Uniform::kNo;
    const bool used = (entry & x86::kAccessed) != 0 || !shared_.options.reference_bits;
    if (!used && &pte != fresh) return Uniform::kNo;
    if ((entry & modified) != 0) {
      ++dirty;
    } else if (&pte == fresh) {
      fresh_may_be = (entry & x86::kWritable) != 0;
    }
  }
  // A fresh entry that may be written is going to be dirty, so it goes with 511 dirty ones only.
  if (dirty + unsigned{fresh_may_be} == x86::kSlots) return Uniform::kDirty;
  return dirty == 0 && !fresh_may_be ? Uniform::kReadOnly : Uniform::kNo;
}

void RadixTables::promote_if_full(SoftSpace& space, TableInfo* leaf, const Pte* fresh, Shootdown& told) {
  if (!promotes_ || leaf == nullptr || leaf->used != x86::kSlots || leaf->wired != 0 || leaf->promoted)
    return;
  if (leaf->users != space.bit()) return;
  if (leaf->write_protected) push_down(*leaf, told);
  // Reference bits may be cleared meanwhile by whoever holds the pv lock: so it is held.
  MutexLock guard(pv_lock_of(*leaf));
  const Uniform how = uniform(*leaf, fresh);
  if (how == Uniform::kNo) return shared_.counts.decide(PmapEvent::kPromotionFailed);
  promote(space, *leaf, how, told);
}

void RadixTables::promote(SoftSpace& space, TableInfo& leaf, Uniform how, Shootdown& told) {
  Pte& above = branch(space, leaf.base);
  const FrameNumber first = x86::frame_of(pool_.entry(leaf.self, 0).load(std::memory_order_relaxed));
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    Pte& pte = pool_.entry(leaf.self, slot);
    // One dirty bit for all: a clean page that may be written would make 511 others dirty.
    const bool writable = (pte.load(std::memory_order_relaxed) & x86::kWritable) != 0;
    if (how == Uniform::kReadOnly && writable) take_write(pte, told);
    PvEntry* const pv = &shared_.pv_of(pte);
    shared_.pvs.of(first + PageCount{slot}).remove(pv);
    if (slot != 0) {
      shared_.pv_pool->destroy(pv);
      continue;
    }
    pv->pte = &above;
    shared_.pvs.super_of(first).push_front(pv);
  }
  const std::uint64_t dirty = how == Uniform::kDirty ? x86::kWritable | x86::kDirty : 0;
  const std::uint64_t used = shared_.options.reference_bits ? x86::kAccessed : 0;
  above.store(x86::make_entry(leaf.self, x86::kLarge | dirty | used), std::memory_order_relaxed);
  leaf.promoted = true;
  shared_.counts.note(PmapEvent::kPteWrite);
  shared_.counts.decide(PmapEvent::kPromotion);
  told.add(*leaf.family, leaf.users, range_of(above), x86::kSlots);
}

/// As many entries as asked for, or none.
bool RadixTables::take_pvs(TableFamily& family, std::span<PvEntry*> pvs) {
  for (std::size_t i = 0; i < pvs.size(); ++i) {
    pvs[i] = shared_.pv_pool->create(family);
    if (pvs[i] != nullptr) continue;
    while (i-- > 0) shared_.pv_pool->destroy(pvs[i]);
    return false;
  }
  return true;
}

void RadixTables::demote(TableInfo& leaf, Shootdown& told) {
  Pte& above = branch(owner_of(leaf), leaf.base);
  const std::uint64_t old = above.load(std::memory_order_relaxed);
  const bool used = (old & x86::kAccessed) != 0 || !shared_.options.reference_bits;
  std::array<PvEntry*, x86::kSlots> pvs;
  if (!used || !take_pvs(*leaf.family, std::span(pvs).subspan(1))) {
    shared_.counts.decide(PmapEvent::kDemotionDropped);
    return drop_super(leaf, RemoveCause::kThrownAway, told);
  }
  const FrameNumber first = x86::frame_of(pool_.entry(leaf.self, 0).load(std::memory_order_relaxed));
  PvList& supers = shared_.pvs.super_of(first);
  pvs[0] = supers.front();
  while (pvs[0]->pte != &above) pvs[0] = PvList::next(pvs[0]);
  supers.remove(pvs[0]);
  const std::uint64_t bits = old & (x86::kWritable | x86::kAccessed | x86::kDirty);
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    const FrameNumber frame = first + PageCount{slot};
    Pte& pte = pool_.entry(leaf.self, slot);
    pte.store(x86::make_entry(frame.value(), bits), std::memory_order_relaxed);
    pvs[slot]->pte = &pte;
    shared_.pvs.of(frame).push_front(pvs[slot]);
  }
  above.store(x86::make_entry(leaf.self, x86::kWritable | x86::kAccessed), std::memory_order_relaxed);
  leaf.promoted = false;
  shared_.counts.note(PmapEvent::kPteWrite, x86::kSlots + 1);
  shared_.counts.decide(PmapEvent::kDemotion);
  told.add(*leaf.family, leaf.users, range_of(above));
}

/// What a superpage's one entry knows, it knows of all its frames.
unsigned RadixTables::report_super(const TableInfo& leaf, std::uint64_t entry) const {
  unsigned bits = 0;
  const std::uint64_t known = entry & (x86::kWritable | x86::kAccessed | x86::kDirty);
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    const std::uint64_t kept = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
    bits += shared_.report(x86::make_entry(x86::number_of(kept), known));
  }
  return bits;
}

void RadixTables::drop_super(TableInfo& leaf, RemoveCause cause, Shootdown& told) {
  SoftSpace& space = owner_of(leaf);
  Pte& above = branch(space, leaf.base);
  const std::uint64_t old = above.load(std::memory_order_relaxed);
  const unsigned bits = report_super(leaf, old);
  PvList& supers =
      shared_.pvs.super_of(x86::frame_of(pool_.entry(leaf.self, 0).load(std::memory_order_relaxed)));
  PvEntry* pv = supers.front();
  while (pv->pte != &above) pv = PvList::next(pv);
  supers.remove(pv);
  shared_.pv_pool->destroy(pv);
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    pool_.entry(leaf.self, slot).store(0, std::memory_order_relaxed);
  }
  above.store(x86::make_entry(leaf.self, x86::kWritable | x86::kAccessed), std::memory_order_relaxed);
  leaf.promoted = false;
  leaf.used = 0;
  space.mappings -= x86::kSlots;
  if (cause == RemoveCause::kThrownAway) {
    space.owed += x86::kSlots;
    shared_.counts.decide(PmapEvent::kHarvest, bits);
  }
  shared_.counts.note(PmapEvent::kRemove, x86::kSlots);
  shared_.counts.note(PmapEvent::kPteWrite);
  told.add(*leaf.family, leaf.users, range_of(above));
}

bool RadixTables::demote_leaf(TableInfo& leaf, Shootdown& told) {
  {
    MutexLock guard(pv_lock_of(leaf));
    demote(leaf, told);
  }
  const bool stays = leaf.used != 0;
  free_if_empty(leaf);
  return stays;
}

void RadixTables::drop_super_leaf(TableInfo& leaf, RemoveCause cause, Shootdown& told) {
  {
    MutexLock guard(pv_lock_of(leaf));
    drop_super(leaf, cause, told);
  }
  free_if_empty(leaf);
}

void RadixTables::split_superpage(PvEntry& pv, Shootdown& told) {
  TableInfo& leaf = pool_.info(x86::number_of(pv.pte->load(std::memory_order_relaxed)));
  demote(leaf, told);
  free_if_empty(leaf);
}

/// Takes write access from a superpage in place (pmap_protect_pde).
void RadixTables::protect_super(TableInfo& leaf, Shootdown& told) {
  Pte& above = branch(owner_of(leaf), leaf.base);
  (void)report_super(leaf, above.load(std::memory_order_relaxed) & ~x86::kAccessed);
  above.fetch_and(~(x86::kWritable | x86::kDirty), std::memory_order_relaxed);
  shared_.counts.note(PmapEvent::kUpdate);
  shared_.counts.note(PmapEvent::kPteWrite);
  told.add(*leaf.family, leaf.users, range_of(above));
}

}  // namespace enchilada
