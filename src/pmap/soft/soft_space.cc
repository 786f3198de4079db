// The page-table code of one address space.
#include "pmap/soft/soft_space.h"

#include <algorithm>
#include <array>

namespace enchilada {

using x86::Pte;

// ---- finding and making tables
// -----------------------------------------------------------------------------------

SoftSpace::Walk SoftSpace::walk(VirtAddr va) const {
  if (root_ == kNoTable) return {};
  TableIndex table = root_;
  for (unsigned level = x86::kLevels; level > 1; --level) {
    const std::uint64_t entry =
        shared_.tables.entry(table, x86::slot_of(va, level)).load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) return {table, level};
    table = x86::number_of(entry);
  }
  return {table, 1};
}

Pte* SoftSpace::find(VirtAddr va) const {
  const Walk w = walk(va);
  return w.level == 1 ? &shared_.tables.entry(w.table, x86::slot_of(va, 1)) : nullptr;
}

void SoftSpace::link_table(TableIndex table, unsigned level, TableIndex parent, VirtAddr va) {
  TableInfo& info = shared_.tables.info(table);
  info.space = this;
  info.level = static_cast<std::uint8_t>(level);
  info.parent = parent;
  info.base = VirtAddr{level == x86::kLevels ? 0 : va.value() & ~(x86::span_of(level + 1) - 1)};
  if (parent == kNoTable) {
    root_ = table;
  } else {
    shared_.tables.entry(parent, x86::slot_of(va, level + 1))
        .store(x86::make_entry(table, x86::kWritable | x86::kAccessed), std::memory_order_relaxed);
    ++shared_.tables.info(parent).used;
  }
  if (level == 1) leaves_.push_back(&info);
  ++tables_;
}

TableIndex SoftSpace::make_leaf(VirtAddr va) {
  Walk w = walk(va);
  if (w.level == 1) return w.table;
  // All missing levels at once: a half-made branch would be an empty table that nobody frees.
  const unsigned top = w.level == 0 ? x86::kLevels : w.level - 1;
  std::array<TableIndex, x86::kLevels> fresh;
  if (!shared_.tables.take(std::span(fresh).first(top))) return kNoTable;
  shared_.note(PmapEvent::kTableAllocated, top);
  TableIndex parent = w.table;
  for (unsigned level = top; level >= 1; --level) {
    link_table(fresh[level - 1], level, parent, va);
    parent = fresh[level - 1];
  }
  return parent;
}

void SoftSpace::free_if_empty(TableIndex table) {
  while (table != kNoTable) {
    TableInfo& info = shared_.tables.info(table);
    if (info.used != 0) return;
    const TableIndex parent = info.parent;
    if (info.level == 1) leaves_.remove(&info);
    if (parent == kNoTable) {
      root_ = kNoTable;
    } else {
      shared_.tables.entry(parent, x86::slot_of(info.base, info.level + 1u))
          .store(0, std::memory_order_relaxed);
      --shared_.tables.info(parent).used;
    }
    --tables_;
    shared_.tables.give(table);
    shared_.note(PmapEvent::kTableFreed);
    table = parent;
  }
}

template <class F>
void SoftSpace::for_each_leaf(VirtRange range, F&& f) {
  std::uint64_t va = range.start.value();
  const std::uint64_t end = std::min(range.end.value(), x86::kAddressLimit);
  while (va < end) {
    const Walk w = walk(VirtAddr{va});
    // Where the way ends, everything that the missing entry would cover is empty.
    const std::uint64_t covered = w.level == 0   ? x86::kAddressLimit
                                  : w.level == 1 ? x86::span_of(2)
                                                 : x86::span_of(w.level);
    const std::uint64_t next = (va & ~(covered - 1)) + covered;
    if (w.level == 1) {
      const std::uint64_t stop = std::min(next, end);
      const unsigned first = x86::slot_of(VirtAddr{va}, 1);
      f(shared_.tables.info(w.table), first, first + static_cast<unsigned>((stop - va) >> kPageShift));
    }
    va = next;
  }
}

// ---- entries
// -----------------------------------------------------------------------------------------------------

void SoftSpace::report(std::uint64_t entry) const {
  const std::uint64_t modified = shared_.options.dirty_bits ? x86::kDirty : x86::kWritable;
  if ((entry & modified) != 0) shared_.sink->note_modified(x86::frame_of(entry));
  if ((entry & x86::kAccessed) != 0) shared_.sink->note_referenced(x86::frame_of(entry));
}

void SoftSpace::set_wired(Pte& pte, TableInfo& info) {
  if ((pte.fetch_or(x86::kWired, std::memory_order_relaxed) & x86::kWired) == 0) ++info.wired;
}

void SoftSpace::take_write(Pte& pte) {
  // The report precedes the change that hides it, and the space's lock keeps the hardware from writing
  // meanwhile.
  const std::uint64_t old = pte.load(std::memory_order_relaxed);
  report(old & ~x86::kAccessed);
  pte.fetch_and(~(x86::kWritable | x86::kDirty), std::memory_order_relaxed);
  shared_.note(PmapEvent::kUpdate);
  shared_.note(PmapEvent::kInvalidation);
}

void SoftSpace::update(Pte& pte, TableInfo& info, Prot prot, Wiring wiring) {
  const bool was_writable = (pte.load(std::memory_order_relaxed) & x86::kWritable) != 0;
  if (allows(prot, Prot::kWrite)) {
    pte.fetch_or(x86::kWritable, std::memory_order_relaxed);
    if (!was_writable) shared_.note(PmapEvent::kUpdate);
  } else if (was_writable) {
    take_write(pte);
  }
  // A prefault of a neighbour must not turn a wired mapping into one that may be thrown away.
  if (wiring == Wiring::kWired) set_wired(pte, info);
}

SoftSpace::EnterResult SoftSpace::enter(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) {
  const TableIndex leaf = make_leaf(va);
  if (leaf == kNoTable) return EnterResult::kNoTable;
  TableInfo& info = shared_.tables.info(leaf);
  Pte& pte = shared_.tables.entry(leaf, x86::slot_of(va, 1));
  const std::uint64_t old = pte.load(std::memory_order_relaxed);
  if ((old & x86::kPresent) != 0 && x86::frame_of(old) == frame) {
    update(pte, info, prot, wiring);
    return EnterResult::kEntered;
  }
  PvEntry* const pv = shared_.pvs.create();
  if (pv == nullptr) {
    free_if_empty(leaf);
    return EnterResult::kNoPv;
  }
  if ((old & x86::kPresent) != 0) remove_entry(pte);
  const std::uint64_t rights = allows(prot, Prot::kWrite) ? x86::kWritable : 0;
  pv->space = this;
  pv->pte = &pte;
  {
    MutexLock guard(shared_.pvs.lock(frame));
    pte.store(x86::make_entry(frame.value(), rights), std::memory_order_relaxed);
    shared_.pvs.of(frame).push_front(pv);
  }
  ++info.used;
  ++mappings_;
  if (wiring == Wiring::kWired) set_wired(pte, info);
  shared_.note(PmapEvent::kEnter);
  return EnterResult::kEntered;
}

void SoftSpace::unmap(PvEntry& pv) {
  Pte& pte = *pv.pte;
  const std::uint64_t old = pte.load(std::memory_order_relaxed);
  report(old);
  pte.store(0, std::memory_order_relaxed);
  shared_.pvs.of(x86::frame_of(old)).remove(&pv);
  shared_.pvs.destroy(&pv);
  TableInfo& info = shared_.tables.info(shared_.tables.table_of(&pte));
  --info.used;
  if ((old & x86::kWired) != 0) --info.wired;
  --mappings_;
  shared_.note(PmapEvent::kRemove);
  shared_.note(PmapEvent::kInvalidation);
}

void SoftSpace::remove_entry(Pte& pte) {
  const FrameNumber frame = x86::frame_of(pte.load(std::memory_order_relaxed));
  MutexLock guard(shared_.pvs.lock(frame));
  std::uint64_t steps = 1;
  PvEntry* pv = shared_.pvs.of(frame).front();
  for (; pv != nullptr && pv->pte != &pte; pv = PvList::next(pv)) ++steps;
  CHECK(pv != nullptr, frame.value());
  shared_.note(PmapEvent::kPvListStep, steps);
  unmap(*pv);
}

void SoftSpace::remove_pv(PvEntry& pv) {
  const TableIndex leaf = shared_.tables.table_of(pv.pte);
  unmap(pv);
  free_if_empty(leaf);
}

void SoftSpace::remove_write_pv(PvEntry& pv) {
  take_write(*pv.pte);
}

// ---- ranges
// ------------------------------------------------------------------------------------------------------

std::uint64_t SoftSpace::remove(VirtRange range) {
  std::uint64_t removed = 0;
  for_each_leaf(range, [&](TableInfo& info, unsigned first, unsigned end) NO_THREAD_SAFETY_ANALYSIS {
    for (unsigned slot = first; slot < end && info.used != 0; ++slot) {
      Pte& pte = shared_.tables.entry(info.self, slot);
      if ((pte.load(std::memory_order_relaxed) & x86::kPresent) == 0) continue;
      remove_entry(pte);
      ++removed;
    }
    free_if_empty(info.self);
  });
  return removed;
}

std::uint64_t SoftSpace::remove_write(VirtRange range) {
  std::uint64_t changed = 0;
  for_each_leaf(range, [&](TableInfo& info, unsigned first, unsigned end) NO_THREAD_SAFETY_ANALYSIS {
    for (unsigned slot = first; slot < end; ++slot) {
      Pte& pte = shared_.tables.entry(info.self, slot);
      if ((pte.load(std::memory_order_relaxed) & x86::kWritable) == 0) continue;
      take_write(pte);
      ++changed;
    }
  });
  return changed;
}

void SoftSpace::unwire(VirtRange range) {
  for_each_leaf(range, [&](TableInfo& info, unsigned first, unsigned end) {
    for (unsigned slot = first; slot < end && info.wired != 0; ++slot) {
      Pte& pte = shared_.tables.entry(info.self, slot);
      if ((pte.fetch_and(~x86::kWired, std::memory_order_relaxed) & x86::kWired) != 0) --info.wired;
    }
  });
}

void SoftSpace::empty_table(TableInfo& info) {
  for (unsigned slot = 0; slot < x86::kSlots && info.used != 0; ++slot) {
    Pte& pte = shared_.tables.entry(info.self, slot);
    if ((pte.load(std::memory_order_relaxed) & x86::kPresent) != 0) remove_entry(pte);
  }
  free_if_empty(info.self);
}

bool SoftSpace::reclaim_table() {
  for (TableInfo* info = leaves_.front(); info != nullptr; info = TableList::next(info)) {
    if (info->wired != 0) continue;
    shared_.note(PmapEvent::kTableReclaimed);
    empty_table(*info);
    return true;
  }
  return false;
}

bool SoftSpace::reclaim_pv(VirtAddr keep) {
  const std::uint64_t keep_base = keep.value() & ~(x86::span_of(2) - 1);
  for (TableInfo* info = leaves_.front(); info != nullptr; info = TableList::next(info)) {
    if (info->wired != 0 || info->base.value() == keep_base) continue;
    shared_.note(PmapEvent::kTableReclaimed);
    empty_table(*info);
    return true;
  }
  // Only this table, or tables with wired mappings: one mapping of those that are not wired.
  bool found = false;
  drop_if([&](const SoftMapping& mapping) {
    const bool take = !found && mapping.va != keep;
    found |= take;
    return take;
  });
  return found;
}

void SoftSpace::drop_if(FunctionRef<bool(const SoftMapping&)> drop) {
  for (TableInfo* info = leaves_.front(); info != nullptr;) {
    TableInfo* const next = TableList::next(info);
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      Pte& pte = shared_.tables.entry(info->self, slot);
      const std::uint64_t entry = pte.load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0 || (entry & x86::kWired) != 0) continue;
      if (drop(describe(*info, slot, entry))) remove_entry(pte);
    }
    free_if_empty(info->self);
    info = next;
  }
}

// ---- looking
// -----------------------------------------------------------------------------------------------------

SoftMapping SoftSpace::describe(const TableInfo& info, unsigned slot, std::uint64_t entry) const {
  return {info.base + ByteCount{std::uint64_t{slot} << kPageShift},
          x86::frame_of(entry),
          (entry & x86::kWritable) != 0,
          (entry & x86::kWired) != 0,
          (entry & x86::kAccessed) != 0,
          (entry & x86::kDirty) != 0};
}

VirtAddr SoftSpace::address_of(const Pte& pte) const {
  const TableInfo& info = shared_.tables.info(shared_.tables.table_of(&pte));
  return info.base + ByteCount{std::uint64_t{TablePool::slot_in_table(&pte)} << kPageShift};
}

void SoftSpace::for_each(FunctionRef<void(const SoftMapping&)> visit) const {
  for (const TableInfo* info = leaves_.front(); info != nullptr; info = info->link.next) {
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      const std::uint64_t entry = shared_.tables.entry(info->self, slot).load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) != 0) visit(describe(*info, slot, entry));
    }
  }
}

const char* SoftSpace::find_error() const {
  std::uint64_t total = 0;
  std::uint64_t leaf_tables = 0;
  for (const TableInfo* info = leaves_.front(); info != nullptr; info = info->link.next) {
    ++leaf_tables;
    if (info->space != this || info->level != 1) return "a leaf table belongs to another space";
    if (info->used == 0) return "an empty leaf table was kept";
    if (walk(info->base).table != info->self) return "a leaf table is not reachable at its address";
    unsigned used = 0;
    unsigned wired = 0;
    for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
      Pte& pte = shared_.tables.entry(info->self, slot);
      const std::uint64_t entry = pte.load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0) {
        if (entry != 0) return "an entry that is not present is not zero";
        continue;
      }
      ++used;
      if ((entry & x86::kWired) != 0) ++wired;
      if ((entry & x86::kDirty) != 0 && (entry & x86::kWritable) == 0) return "a read-only entry is dirty";
      const FrameNumber frame = x86::frame_of(entry);
      if (frame.value() >= shared_.pvs.frames().value()) return "an entry maps a frame that does not exist";
      MutexLock guard(shared_.pvs.lock(frame));
      unsigned pvs = 0;
      for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
        if (pv->pte == &pte && pv->space == this) ++pvs;
      }
      if (pvs != 1) return "a present entry has not exactly one pv entry";
    }
    if (used != info->used) return "a leaf table's count of entries is wrong";
    if (wired != info->wired) return "a leaf table's count of wired entries is wrong";
    total += used;
  }
  if (total != mappings_) return "a space's count of mappings is wrong";
  if ((root_ == kNoTable) != (leaf_tables == 0)) return "a root without leaves, or leaves without a root";
  if (tables_ < leaf_tables || tables_ > leaf_tables * x86::kLevels)
    return "a space's count of tables is wrong";
  return nullptr;
}

}  // namespace enchilada
