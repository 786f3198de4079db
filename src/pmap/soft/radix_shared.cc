// Leaf tables that several spaces of a family use, and write protection of whole tables from above.
//
// After McCracken's shared page tables and on-demand-fork (designs.md §3): fork shares the table, both sides
// lose the right to write in the entry above it, and whoever changes something gets a copy first. What they
// left open is settled so: one lock for all that can share (the family's); `users` of each table says whom an
// invalidation must reach; a pv entry stands for the table's entry, whoever shows it.
#include "pmap/soft/radix_tables.h"

namespace enchilada {

using x86::Pte;

void RadixTables::share_tables(SoftSpace& parent, SoftSpace& child, VirtRange range,
                               FunctionRef<void(VirtRange)> not_shared) {
  for_each_leaf(parent, range, [&](TableInfo& leaf, unsigned first, unsigned end) {
    if (share(parent, child, leaf, first, end)) return shared_.counts.decide(PmapEvent::kForkShared);
    shared_.counts.decide(PmapEvent::kForkNotShared);
    not_shared({leaf.base + ByteCount{first * kPageSize}, leaf.base + ByteCount{end * kPageSize}});
  });
}

bool RadixTables::share(SoftSpace& parent, SoftSpace& child, TableInfo& leaf, unsigned first, unsigned end) {
  const VirtAddr base = leaf.base;
  if (leaf.promoted || leaf.wired != 0 || !holds_all(leaf, first, end)) return false;
  if (walk(child, base).level == 1) return false;
  const TableIndex upper = make_table(child, base, 2);
  if (upper == kNoTable) return false;
  Shootdown told(shared_.counts);
  if (!leaf.write_protected) {
    branch(parent, base).fetch_and(~x86::kWritable, std::memory_order_relaxed);
    leaf.write_protected = true;
    shared_.counts.note(PmapEvent::kPteWrite);
    told.add(*leaf.family, leaf.users, {base, base + ByteCount{x86::span_of(2)}}, leaf.used);
  }
  pool_.entry(upper, x86::slot_of(base, 2))
      .store(x86::make_entry(leaf.self, x86::kAccessed), std::memory_order_relaxed);
  ++pool_.info(upper).used;
  leaf.users |= child.bit();
  ++child.tables;
  child.mappings += leaf.used;
  shared_.counts.note(PmapEvent::kPteWrite);
  return true;
}

/// A copy of the table for this space: entries without rights to write, without bits. Where pv entries run
/// out mappings are left away, where tables do the space lets go of the table: the law of the pmap.
TableInfo* RadixTables::unshare(SoftSpace& space, TableInfo& leaf, const SlotSet& without, Shootdown& told) {
  TableIndex fresh = kNoTable;
  if (!pool_.take(std::span(&fresh, 1))) {
    detach(space, leaf, RemoveCause::kThrownAway, told);
    return nullptr;
  }
  TableInfo& copy = pool_.info(fresh);
  copy.family = space.family;
  copy.users = space.bit();
  copy.level = 1;
  copy.base = leaf.base;
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    const std::uint64_t entry = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) continue;
    --space.mappings;
    if (without.test(slot)) continue;
    PvEntry* const pv = shared_.pv_pool->create(*space.family);
    if (pv == nullptr) {
      ++space.owed;
      continue;
    }
    const FrameNumber frame = x86::frame_of(entry);
    Pte& pte = pool_.entry(fresh, slot);
    pv->pte = &pte;
    MutexLock guard(shared_.pvs.lock(frame));
    pte.store(x86::make_entry(frame.value(), 0), std::memory_order_relaxed);
    shared_.pvs.of(frame).push_front(pv);
    ++copy.used;
    ++space.mappings;
  }
  leaf.users &= ~space.bit();
  Pte& above = branch(space, leaf.base);
  above.store(x86::make_entry(fresh, x86::kWritable | x86::kAccessed), std::memory_order_relaxed);
  space.family->leaves.push_back(&copy);
  shared_.counts.note(PmapEvent::kTableAllocated);
  shared_.counts.note(PmapEvent::kPteWrite, copy.used + 1u);
  shared_.counts.decide(PmapEvent::kTableUnshared);
  told.add(*copy.family, copy.users, range_of(above), leaf.used);
  if (copy.used != 0) return &copy;
  free_if_empty(copy);
  return nullptr;
}

/// The space lets go of a table that others go on using.
void RadixTables::detach(SoftSpace& space, TableInfo& leaf, RemoveCause cause, Shootdown& told) {
  told.add(*leaf.family, space.bit(), {leaf.base, leaf.base + ByteCount{x86::span_of(2)}}, leaf.used);
  leaf.users &= ~space.bit();
  space.mappings -= leaf.used;
  if (cause == RemoveCause::kThrownAway) space.owed += leaf.used;
  unhook(space, leaf.base);
  shared_.counts.decide(PmapEvent::kTableDetached);
}

/// With shared tables: takes the right to write where it leads to the table, once for all entries, if no
/// entry outside [first, end) could lose by it.
bool RadixTables::protect_table(TableInfo& leaf, unsigned first, unsigned end, Shootdown& told) {
  if (!shares_ || !holds_all(leaf, first, end)) return false;
  Pte& above = branch(owner_of(leaf), leaf.base);
  above.fetch_and(~x86::kWritable, std::memory_order_relaxed);
  leaf.write_protected = true;
  shared_.counts.note(PmapEvent::kPteWrite);
  told.add(*leaf.family, leaf.users, range_of(above), leaf.used);
  return true;
}

/// The protection of a whole table becomes that of its entries; then one of them may be made writable.
void RadixTables::push_down(TableInfo& leaf, Shootdown& told) {
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    Pte& pte = pool_.entry(leaf.self, slot);
    if ((pte.load(std::memory_order_relaxed) & x86::kWritable) != 0) take_write(pte, told);
  }
  branch(owner_of(leaf), leaf.base).fetch_or(x86::kWritable, std::memory_order_relaxed);
  leaf.write_protected = false;
  shared_.counts.decide(PmapEvent::kTablePushedDown);
}

}  // namespace enchilada
