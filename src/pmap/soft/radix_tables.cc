// The page-table code of the x86-64 format: tables, entries, ranges.
#include "pmap/soft/radix_tables.h"

#include <array>
#include <utility>

namespace enchilada {

using x86::Pte;

// ---- finding and making tables

RadixTables::Walk RadixTables::walk(const SoftSpace& space, VirtAddr va) const {
  TableIndex table = space.root.load(std::memory_order_relaxed);
  if (table == kNoTable) return {};
  for (unsigned level = x86::kLevels; level > 1; --level) {
    const std::uint64_t entry = pool_.entry(table, x86::slot_of(va, level)).load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) {
      shared_.counts.note(PmapEvent::kPteRead, x86::kLevels - level + 1);
      return {table, level};
    }
    table = x86::number_of(entry);
  }
  shared_.counts.note(PmapEvent::kPteRead, x86::kLevels - 1);
  return {table, 1};
}

// Without a lock: a table on the way may be given back and mean something else meanwhile, so each number is
// looked at before it is used. All tables are memory of the pool for ever.
void RadixTables::expect(const SoftSpace& space, VirtAddr va) const {
  TableIndex table = space.root.load(std::memory_order_relaxed);
  for (unsigned level = x86::kLevels; level > 1; --level) {
    if (table >= pool_.size()) return;
    const std::uint64_t entry = pool_.entry(table, x86::slot_of(va, level)).load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) return;
    table = x86::number_of(entry);
  }
  if (table < pool_.size()) __builtin_prefetch(&pool_.entry(table, x86::slot_of(va, 1)), 1);
}

VirtAddr RadixTables::address_of(const Pte& pte) const {
  const TableInfo& info = info_of(pte);
  return info.base + ByteCount{TablePool::slot_in_table(&pte) * x86::span_of(info.level)};
}

VirtRange RadixTables::range_of(const Pte& pte) const {
  const VirtAddr va = address_of(pte);
  return {va, va + ByteCount{x86::span_of(info_of(pte).level)}};
}

void RadixTables::link_table(SoftSpace& space, TableIndex table, unsigned level, TableIndex parent,
                             VirtAddr va) {
  TableInfo& info = pool_.info(table);
  info.family = space.family;
  info.users = space.bit();
  info.level = static_cast<std::uint8_t>(level);
  info.parent = level == 1 ? kNoTable : parent;
  info.base = VirtAddr{level == x86::kLevels ? 0 : va.value() & ~(x86::span_of(level + 1) - 1)};
  if (parent == kNoTable) {
    space.root.store(table, std::memory_order_relaxed);
  } else {
    pool_.entry(parent, x86::slot_of(va, level + 1))
        .store(x86::make_entry(table, x86::kWritable | x86::kAccessed), std::memory_order_relaxed);
    ++pool_.info(parent).used;
    shared_.counts.note(PmapEvent::kPteWrite);
  }
  if (level == 1) space.family->leaves.push_back(&info);
  ++space.tables;
}

TableIndex RadixTables::make_table(SoftSpace& space, VirtAddr va, unsigned level) {
  const Walk w = walk(space, va);
  if (w.level != 0 && w.level <= level) return w.table;
  // All missing levels at once: a half-made branch would be an empty table that nobody frees.
  const unsigned top = w.level == 0 ? x86::kLevels : w.level - 1;
  std::array<TableIndex, x86::kLevels> fresh;
  if (!pool_.take(std::span(fresh).first(top - level + 1))) return kNoTable;
  shared_.counts.note(PmapEvent::kTableAllocated, top - level + 1);
  TableIndex parent = w.table;
  for (unsigned at = top; at >= level; --at) {
    link_table(space, fresh[at - level], at, parent, va);
    parent = fresh[at - level];
  }
  return parent;
}

Pte& RadixTables::branch(const SoftSpace& space, VirtAddr base) const {
  TableIndex table = space.root.load(std::memory_order_relaxed);
  for (unsigned level = x86::kLevels; level > 2; --level) {
    table = x86::number_of(pool_.entry(table, x86::slot_of(base, level)).load(std::memory_order_relaxed));
  }
  return pool_.entry(table, x86::slot_of(base, 2));
}

// The space uses the leaf table at `base` no more: clears the entry that leads there and frees what is empty
// above. The leaf table itself is the caller's.
void RadixTables::unhook(SoftSpace& space, VirtAddr base) {
  TableIndex table = pool_.table_of(&branch(space, base));
  --space.tables;
  for (unsigned level = 2;; ++level) {
    pool_.entry(table, x86::slot_of(base, level)).store(0, std::memory_order_relaxed);
    shared_.counts.note(PmapEvent::kPteWrite);
    TableInfo& info = pool_.info(table);
    if (--info.used != 0) return;
    const TableIndex parent = info.parent;
    pool_.give(table);
    --space.tables;
    shared_.counts.note(PmapEvent::kTableFreed);
    if (parent == kNoTable) break;
    table = parent;
  }
  space.root.store(kNoTable, std::memory_order_relaxed);
}

void RadixTables::free_if_empty(TableInfo& leaf) {
  if (leaf.used != 0) return;
  leaf.family->for_each_member(leaf.users, [&](SoftSpace& space) { unhook(space, leaf.base); });
  leaf.family->leaves.remove(&leaf);
  pool_.give(leaf.self);
  shared_.counts.note(PmapEvent::kTableFreed);
}

// ---- entries

void RadixTables::set_wired(Pte& pte, TableInfo& leaf) {
  if ((pte.fetch_or(x86::kWired, std::memory_order_relaxed) & x86::kWired) != 0) return;
  ++leaf.wired;
  ++owner_of(leaf).wired;
}

void RadixTables::take_write(Pte& pte, Shootdown& told) {
  shared_.take_write(pte);
  const TableInfo& info = info_of(pte);
  told.add(*info.family, info.users, range_of(pte));
}

void RadixTables::update(Pte& pte, TableInfo& leaf, Prot prot, Wiring wiring, Shootdown& told) {
  const bool was_writable = (pte.load(std::memory_order_relaxed) & x86::kWritable) != 0;
  if (allows(prot, Prot::kWrite)) {
    if (!was_writable) {
      pte.fetch_or(x86::kWritable, std::memory_order_relaxed);
      shared_.counts.note(PmapEvent::kUpdate);
      shared_.counts.note(PmapEvent::kPteWrite);
    }
  } else if (was_writable) {
    take_write(pte, told);
  }
  // A prefault of a neighbour must not turn a wired mapping into one that may be thrown away.
  if (wiring == Wiring::kWired) set_wired(pte, leaf);
}

/// A promoted or shared table shows the frame at the slot already, with no less than these rights.
bool RadixTables::allows_already(const SoftSpace& space, const TableInfo& leaf, unsigned slot,
                                 FrameNumber frame, Prot prot, Wiring wiring) const {
  const std::uint64_t entry = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
  if ((entry & x86::kPresent) == 0 || x86::frame_of(entry) != frame || wiring == Wiring::kWired) return false;
  const std::uint64_t above = branch(space, leaf.base).load(std::memory_order_relaxed);
  return ((above & x86::kWritable) != 0) == allows(prot, Prot::kWrite);
}

/// The leaf table as one that this space may change; entries in `without` may be left out. A copy if others
/// use it, small mappings if it was promoted. nullptr: the space has no table there any more.
TableInfo* RadixTables::own(SoftSpace& space, TableInfo& leaf, const SlotSet& without, Shootdown& told) {
  if (leaf.promoted) return demote_leaf(leaf, told) ? &leaf : nullptr;
  return leaf.users == space.bit() ? &leaf : unshare(space, leaf, without, told);
}

EnterResult RadixTables::enter(SoftSpace& space, VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) {
  Shootdown told(shared_.counts);
  const unsigned slot = x86::slot_of(va, 1);
  const bool writes = allows(prot, Prot::kWrite);
  TableInfo* leaf = nullptr;
  while (leaf == nullptr) {
    const std::uint64_t before = space.tables;
    TableInfo* const last = space.family->leaves.back();
    const TableIndex table = make_table(space, va, 1);
    if (table == kNoTable) return EnterResult::kNoTable;
    // Whoever fills memory from below has used the last table by the time he begins the next.
    if (space.tables != before) promote_if_full(space, last, nullptr, told);
    leaf = &pool_.info(table);
    if (!leaf->promoted && leaf->users == space.bit()) break;
    if (allows_already(space, *leaf, slot, frame, prot, wiring)) return EnterResult::kEntered;
    leaf = own(space, *leaf, SlotSet{}, told);
  }
  if (writes && leaf->write_protected) push_down(*leaf, told);
  Pte& pte = pool_.entry(leaf->self, slot);
  const std::uint64_t old = pte.load(std::memory_order_relaxed);
  if ((old & x86::kPresent) != 0 && x86::frame_of(old) == frame) {
    update(pte, *leaf, prot, wiring, told);
    promote_if_full(space, leaf, &pte, told);
    return EnterResult::kEntered;
  }
  PvEntry* const pv = shared_.pv_pool->create(*space.family);
  if (pv == nullptr) {
    free_if_empty(*leaf);
    return EnterResult::kNoPv;
  }
  if ((old & x86::kPresent) != 0) remove_entry(pte, RemoveCause::kAsked, told);
  pv->pte = &pte;
  {
    MutexLock guard(shared_.pvs.lock(frame));
    pte.store(x86::make_entry(frame.value(), writes ? x86::kWritable : 0), std::memory_order_relaxed);
    shared_.pvs.of(frame).push_front(pv);
  }
  ++leaf->used;
  ++space.mappings;
  if (wiring == Wiring::kWired) set_wired(pte, *leaf);
  shared_.counts.note(PmapEvent::kEnter);
  shared_.counts.note(PmapEvent::kPteWrite);
  shared_.pay_back(space);
  promote_if_full(space, leaf, &pte, told);
  return EnterResult::kEntered;
}

FrameNumber RadixTables::translate(SoftSpace& space, VirtAddr va, Access access) {
  PmapWalk walk;
  walk.space = space.id;
  walk.va = va;
  walk.write = access == Access::kWrite;
  const std::uint64_t rights = x86::kPresent | (access == Access::kWrite ? x86::kWritable : 0);
  const std::uint64_t marks =
      (shared_.options.reference_bits ? x86::kAccessed : 0) | (access == Access::kWrite ? x86::kDirty : 0);
  TableIndex table = va.value() < x86::kAddressLimit ? space.root.load(std::memory_order_relaxed) : kNoTable;
  for (unsigned level = x86::kLevels; table != kNoTable; --level) {
    Pte& pte = pool_.entry(table, x86::slot_of(va, level));
    walk.entry[walk.reads++] = (std::uint64_t{table} << kPageShift) + 8 * x86::slot_of(va, level);
    const std::uint64_t entry = pte.load(std::memory_order_relaxed);
    if ((entry & rights) != rights) break;
    if (level > 1 && (entry & x86::kLarge) == 0) {
      table = x86::number_of(entry);
      continue;
    }
    if ((entry & marks) != marks) pte.fetch_or(marks, std::memory_order_relaxed);
    walk.found = true;
    walk.frame = x86::frame_of(entry);
    if (level > 1) {
      const std::uint64_t first = pool_.entry(x86::number_of(entry), 0).load(std::memory_order_relaxed);
      walk.frame = x86::frame_of(first) + PageCount{x86::slot_of(va, 1)};
      walk.page_shift = kPageShift + x86::kSlotBits;
    }
    break;
  }
  if (shared_.counts.events != nullptr) {
    shared_.counts.note(PmapEvent::kWalk);
    shared_.counts.note(PmapEvent::kPteRead, walk.reads);
    if (!walk.found) shared_.counts.note(PmapEvent::kFault);
    shared_.counts.events->walked(walk);
  }
  return walk.found ? walk.frame : kNoFrame;
}

/// The caller holds the frame's pv lock.
void RadixTables::unmap(PvEntry& pv, RemoveCause cause, Shootdown& told) {
  Pte& pte = *pv.pte;
  const std::uint64_t old = pte.load(std::memory_order_relaxed);
  const unsigned bits = shared_.report(old);
  pte.store(0, std::memory_order_relaxed);
  TableInfo& leaf = info_of(pte);
  told.add(*leaf.family, leaf.users, range_of(pte));
  shared_.pvs.of(x86::frame_of(old)).remove(&pv);
  shared_.pv_pool->destroy(&pv);
  --leaf.used;
  if ((old & x86::kWired) != 0) {
    --leaf.wired;
    --owner_of(leaf).wired;
  }
  const bool thrown = cause == RemoveCause::kThrownAway;
  leaf.family->for_each_member(leaf.users, [&](SoftSpace& space) {
    --space.mappings;
    if (thrown) ++space.owed;
  });
  if (thrown) shared_.counts.decide(PmapEvent::kHarvest, bits);
  shared_.counts.note(PmapEvent::kRemove);
  shared_.counts.note(PmapEvent::kPteWrite);
}

void RadixTables::remove_entry(Pte& pte, RemoveCause cause, Shootdown& told) {
  MutexLock guard(shared_.pvs.lock(x86::frame_of(pte.load(std::memory_order_relaxed))));
  unmap(shared_.pv_of(pte), cause, told);
}

void RadixTables::remove_pv(PvEntry& pv, RemoveCause cause, Shootdown& told) {
  TableInfo& leaf = info_of(*pv.pte);
  unmap(pv, cause, told);
  free_if_empty(leaf);
}

void RadixTables::for_each_place(const PvEntry& pv, FrameNumber frame,
                                 FunctionRef<void(SoftSpace&, VirtAddr, bool)> visit) const {
  const TableInfo& table = info_of(*pv.pte);
  const bool large = table.level > 1;
  const std::uint64_t within = large ? frame.value() % x86::kSlots : 0;
  const VirtAddr va = address_of(*pv.pte) + ByteCount{within * kPageSize};
  const bool writable =
      !table.write_protected && (pv.pte->load(std::memory_order_relaxed) & x86::kWritable) != 0;
  table.family->for_each_member(table.users, [&](SoftSpace& space) { visit(space, va, writable); });
}

// ---- ranges

/// All present entries of the table lie in [first, end).
bool RadixTables::holds_all(const TableInfo& leaf, unsigned first, unsigned end) const {
  if (first == 0 && end == x86::kSlots) return true;
  unsigned outside = 0;
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    if (slot >= first && slot < end) continue;
    outside += (pool_.entry(leaf.self, slot).load(std::memory_order_relaxed) & x86::kPresent) != 0;
  }
  shared_.counts.note(PmapEvent::kPteRead, x86::kSlots - (end - first));
  return outside == 0;
}

void RadixTables::remove(SoftSpace& space, VirtRange range) {
  Shootdown told(shared_.counts);
  for_each_leaf(space, range, [&](TableInfo& leaf, unsigned first, unsigned end) {
    if (leaf.promoted && first == 0 && end == x86::kSlots) {
      return drop_super_leaf(leaf, RemoveCause::kAsked, told);
    }
    if (leaf.users != space.bit() && holds_all(leaf, first, end)) {
      return detach(space, leaf, RemoveCause::kAsked, told);
    }
    SlotSet removed;
    for (unsigned slot = first; slot < end; ++slot) removed.set(slot);
    TableInfo* const mine = own(space, leaf, removed, told);
    if (mine == nullptr) return;
    for (unsigned slot = first; slot < end && mine->used != 0; ++slot) {
      Pte& pte = pool_.entry(mine->self, slot);
      if ((pte.load(std::memory_order_relaxed) & x86::kPresent) == 0) continue;
      remove_entry(pte, RemoveCause::kAsked, told);
    }
    free_if_empty(*mine);
  });
}

void RadixTables::remove_write(SoftSpace& space, VirtRange range) {
  Shootdown told(shared_.counts);
  for_each_leaf(space, range, [&](TableInfo& leaf, unsigned first, unsigned end) {
    if (leaf.write_protected) return;  // a shared one always is
    if (leaf.promoted) {
      if ((branch(space, leaf.base).load(std::memory_order_relaxed) & x86::kWritable) == 0) return;
      if (first == 0 && end == x86::kSlots) return protect_super(leaf, told);
      if (!demote_leaf(leaf, told)) return;
    }
    if (protect_table(leaf, first, end, told)) return;
    for (unsigned slot = first; slot < end; ++slot) {
      Pte& pte = pool_.entry(leaf.self, slot);
      if ((pte.load(std::memory_order_relaxed) & x86::kWritable) != 0) take_write(pte, told);
    }
  });
}

void RadixTables::unwire(SoftSpace& space, VirtRange range) {
  for_each_leaf(space, range, [&](TableInfo& leaf, unsigned first, unsigned end) {
    for (unsigned slot = first; slot < end && leaf.wired != 0; ++slot) {
      Pte& pte = pool_.entry(leaf.self, slot);
      if ((pte.fetch_and(~x86::kWired, std::memory_order_relaxed) & x86::kWired) == 0) continue;
      --leaf.wired;
      --space.wired;
    }
  });
}

// ---- throwing away

// The tables name their user by its slot in the family: the relic takes the slot over, the space gets
// another.
bool RadixTables::cast_off(SoftSpace& space, SoftSpace& relic) {
  TableFamily& family = *space.family;
  Shootdown told(shared_.counts);
  told.add(family, space.bit(), {VirtAddr{0}, VirtAddr{x86::kAddressLimit}}, space.mappings);
  relic.family = &family;
  relic.slot = space.slot;
  relic.root.store(space.root.exchange(kNoTable, std::memory_order_relaxed), std::memory_order_relaxed);
  relic.mappings = std::exchange(space.mappings, 0);
  relic.tables = std::exchange(space.tables, 0);
  relic.reaped = VirtAddr{0};
  space.owed += relic.mappings;
  family.members[relic.slot] = &relic;
  family.cast_off |= relic.bit();
  space.slot = static_cast<unsigned>(std::countr_zero(~family.slots));
  family.members[space.slot] = &space;
  family.slots |= space.bit();
  return true;
}

void RadixTables::reap(SoftSpace& relic, std::uint64_t most) {
  constexpr std::uint64_t kLooksEach = 64;  // a look at an empty place costs a fraction of a removal
  Shootdown told(shared_.counts);
  for (std::uint64_t looks = most * kLooksEach; most > 0 && looks > 0 && relic.mappings != 0; --looks) {
    const Walk w = walk(relic, relic.reaped);
    if (w.level != 1) {
      relic.reaped = next_after(w, relic.reaped);
      continue;
    }
    TableInfo& leaf = pool_.info(w.table);
    if (leaf.promoted) {
      drop_super_leaf(leaf, RemoveCause::kThrownAway, told);
      --most;
      continue;
    }
    Pte& pte = pool_.entry(w.table, x86::slot_of(relic.reaped, 1));
    relic.reaped = relic.reaped + ByteCount{kPageSize};
    if ((pte.load(std::memory_order_relaxed) & x86::kPresent) == 0) continue;
    remove_entry(pte, RemoveCause::kThrownAway, told);
    free_if_empty(leaf);
    --most;
  }
}

void RadixTables::empty_table(TableInfo& leaf, RemoveCause cause, Shootdown& told) {
  if (leaf.promoted) return drop_super_leaf(leaf, cause, told);
  for (unsigned slot = 0; slot < x86::kSlots && leaf.used != 0; ++slot) {
    Pte& pte = pool_.entry(leaf.self, slot);
    if ((pte.load(std::memory_order_relaxed) & x86::kPresent) != 0) remove_entry(pte, cause, told);
  }
  free_if_empty(leaf);
}

bool RadixTables::reclaim_table(TableFamily& family) {
  Shootdown told(shared_.counts);
  for (TableInfo* leaf = family.leaves.front(); leaf != nullptr; leaf = TableList::next(leaf)) {
    if (leaf->wired != 0) continue;
    shared_.counts.decide(PmapEvent::kTableReclaimed);
    empty_table(*leaf, RemoveCause::kThrownAway, told);
    return true;
  }
  return false;
}

bool RadixTables::reclaim_mapping(TableFamily& family, VirtAddr keep) {
  Shootdown told(shared_.counts);
  const std::uint64_t keep_base = keep.value() & ~(x86::span_of(2) - 1);
  for (TableInfo* leaf = family.leaves.front(); leaf != nullptr; leaf = TableList::next(leaf)) {
    if (leaf->wired != 0 || leaf->base.value() == keep_base) continue;
    shared_.counts.decide(PmapEvent::kTableReclaimed);
    shared_.counts.decide(PmapEvent::kPvCollected, leaf->used);
    empty_table(*leaf, RemoveCause::kThrownAway, told);
    return true;
  }
  // Only tables of this address, or with wired mappings: one mapping of those that are not wired.
  for (TableInfo* leaf = family.leaves.front(); leaf != nullptr; leaf = TableList::next(leaf)) {
    for (unsigned slot = 0; slot < x86::kSlots && !leaf->promoted; ++slot) {
      Pte& pte = pool_.entry(leaf->self, slot);
      const std::uint64_t entry = pte.load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0 || (entry & x86::kWired) != 0 || address_of(pte) == keep) continue;
      shared_.counts.decide(PmapEvent::kPvCollected);
      remove_entry(pte, RemoveCause::kThrownAway, told);
      free_if_empty(*leaf);
      return true;
    }
  }
  return false;
}

void RadixTables::drop_if(SoftSpace& space, FunctionRef<bool(const SoftMapping&)> drop) {
  Shootdown told(shared_.counts);
  const VirtRange everywhere{VirtAddr{0}, VirtAddr{x86::kAddressLimit}};
  for_each_leaf(space, everywhere, [&](TableInfo& leaf, unsigned, unsigned) {
    SlotSet chosen;
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      const std::uint64_t entry = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0 || (entry & x86::kWired) != 0) continue;
      if (drop(describe(leaf, slot, entry))) chosen.set(slot);
    }
    if (chosen.none()) return;
    const bool all = chosen.count() == leaf.used;
    if (all && leaf.promoted) return drop_super_leaf(leaf, RemoveCause::kThrownAway, told);
    if (all && leaf.users != space.bit()) return detach(space, leaf, RemoveCause::kThrownAway, told);
    TableInfo* const mine = own(space, leaf, chosen, told);
    if (mine == nullptr) return;
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      Pte& pte = pool_.entry(mine->self, slot);
      if (!chosen.test(slot) || (pte.load(std::memory_order_relaxed) & x86::kPresent) == 0) continue;
      remove_entry(pte, RemoveCause::kThrownAway, told);
    }
    free_if_empty(*mine);
  });
}

// ---- looking

SoftMapping RadixTables::describe(const TableInfo& leaf, unsigned slot, std::uint64_t entry) const {
  const std::uint64_t bits =
      leaf.promoted ? branch(owner_of(leaf), leaf.base).load(std::memory_order_relaxed) : entry;
  return {leaf.base + ByteCount{std::uint64_t{slot} << kPageShift},
          x86::frame_of(entry),
          (bits & x86::kWritable) != 0 && !leaf.write_protected,
          (entry & x86::kWired) != 0,
          (bits & x86::kAccessed) != 0,
          (bits & x86::kDirty) != 0,
          leaf.promoted};
}

void RadixTables::for_each(SoftSpace& space, VirtRange range,
                           FunctionRef<void(const SoftMapping&)> visit) const {
  for_each_leaf(space, range, [&](const TableInfo& leaf, unsigned first, unsigned end) {
    for (unsigned slot = first; slot < end; ++slot) {
      const std::uint64_t entry = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) != 0) visit(describe(leaf, slot, entry));
    }
  });
}

}  // namespace enchilada
