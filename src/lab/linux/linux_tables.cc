// Radix tables of a Linux-like kernel. Invariants: see linux_tables.h.
#include "lab/linux/linux_tables.h"

#include <algorithm>

namespace enchilada::lab {
namespace {

constexpr std::uint64_t kBranch = x86::kWritable;

std::uint64_t value_of(const x86::Pte& pte) {
  return pte.load(std::memory_order_relaxed);
}

}  // namespace

LinuxTables::LinuxTables(Arena& arena, PageCount tables, KernelMemory& memory)
    : pool_(arena, tables), memory_(memory), owners_(tables.value(), nullptr) {
  CHECK(pool_.size() == tables.value(), pool_.size());
}

TableIndex LinuxTables::child(TableIndex table, unsigned slot) const {
  const std::uint64_t entry = value_of(pool_.entry(table, slot));
  return entry == 0 ? kNoTable : x86::number_of(entry);
}

LinuxTables::Path LinuxTables::path_to(const Mm& mm, VirtAddr va) const {
  Path path;
  path.at.fill(kNoTable);
  path.at[x86::kLevels] = mm.root;
  for (unsigned level = x86::kLevels; level > 1 && path.at[level] != kNoTable; --level) {
    path.at[level - 1] = child(path.at[level], x86::slot_of(va, level));
  }
  return path;
}

x86::Pte* LinuxTables::peek(const Mm& mm, VirtAddr va) const {
  const Path path = path_to(mm, va);
  return path.at[1] == kNoTable ? nullptr : &pool_.entry(path.at[1], x86::slot_of(va, 1));
}

x86::Pte* LinuxTables::look(const Mm& mm, VirtAddr va) const {
  const Path path = path_to(mm, va);
  Hardware& hardware = memory_.hardware();
  for (unsigned level = x86::kLevels; level >= 1 && path.at[level] != kNoTable; --level) {
    hardware.note(PmapEvent::kPteRead, 1);
    hardware.touch(line_of(pool_.entry(path.at[level], x86::slot_of(va, level))), false, Charge::kKernel);
  }
  return path.at[1] == kNoTable ? nullptr : &pool_.entry(path.at[1], x86::slot_of(va, 1));
}

TableIndex LinuxTables::new_table(Mm& mm, VirtAddr va, unsigned level) {
  TableIndex table = kNoTable;
  CHECK(pool_.take({&table, 1}), pool_.size());
  TableInfo& info = pool_.info(table);
  info.level = static_cast<std::uint8_t>(level);
  info.base = VirtAddr{va.value() & ~(x86::span_of(level + 1) - 1)};
  owners_[table] = &mm;
  memory_.hardware().note(PmapEvent::kTableAllocated, 1);
  memory_.grow(KernelType::kPageTable, ByteCount{kPageSize});
  return table;
}

x86::Pte& LinuxTables::make(Mm& mm, VirtAddr va) {
  if (mm.root == kNoTable) mm.root = new_table(mm, va, x86::kLevels);
  TableIndex table = mm.root;
  for (unsigned level = x86::kLevels; level > 1; --level) {
    const unsigned slot = x86::slot_of(va, level);
    TableIndex next = child(table, slot);
    if (next == kNoTable) {
      next = new_table(mm, va, level - 1);
      set(mm, pool_.entry(table, slot), x86::make_entry(next, kBranch));
    }
    table = next;
  }
  return pool_.entry(table, x86::slot_of(va, 1));
}

void LinuxTables::set(Mm& mm, x86::Pte& pte, std::uint64_t entry) {
  const std::uint64_t before = value_of(pte);
  Hardware& hardware = memory_.hardware();
  hardware.note(PmapEvent::kPteWrite, 1);
  hardware.touch(line_of(pte), true, Charge::kKernel);
  pte.store(entry, std::memory_order_relaxed);
  TableInfo& info = pool_.info(pool_.table_of(&pte));
  if (before == 0 && entry != 0) ++info.used;
  if (before == 0 || entry != 0) return;
  --info.used;
  if (info.used == 0 && info.level == 1) free_empty(mm, address_of(pte));
}

void LinuxTables::set_bits(x86::Pte& pte, std::uint64_t clear, std::uint64_t set) {
  Hardware& hardware = memory_.hardware();
  hardware.note(PmapEvent::kPteWrite, 1);
  hardware.touch(line_of(pte), true, Charge::kKernel);
  pte.store((value_of(pte) & ~clear) | set, std::memory_order_relaxed);
}

/// Gives empty tables on the way to an address back, from the leaf up.
void LinuxTables::free_empty(Mm& mm, VirtAddr va) {
  const Path path = path_to(mm, va);
  for (unsigned level = 1; level <= x86::kLevels; ++level) {
    const TableIndex table = path.at[level];
    if (table == kNoTable || pool_.info(table).used != 0) return;
    if (level < x86::kLevels) {
      pool_.entry(path.at[level + 1], x86::slot_of(va, level + 1)).store(0, std::memory_order_relaxed);
      --pool_.info(path.at[level + 1]).used;
    } else {
      mm.root = kNoTable;
    }
    owners_[table] = nullptr;
    pool_.give(table);
    memory_.hardware().note(PmapEvent::kTableFreed, 1);
    memory_.shrink(KernelType::kPageTable, ByteCount{kPageSize});
  }
}

FrameNumber LinuxTables::translate(Mm& mm, VirtAddr va, Access access) {
  PmapWalk walk;
  walk.space = mm.space;
  walk.va = va;
  walk.write = access == Access::kWrite;
  const Path path = path_to(mm, va);
  for (unsigned level = x86::kLevels; level >= 1 && path.at[level] != kNoTable; --level) {
    walk.entry[walk.reads++] = place_of(pool_.entry(path.at[level], x86::slot_of(va, level)));
  }
  if (path.at[1] != kNoTable) {
    x86::Pte& pte = pool_.entry(path.at[1], x86::slot_of(va, 1));
    const std::uint64_t entry = value_of(pte);
    const std::uint64_t wanted = x86::kPresent | (walk.write ? x86::kWritable : 0);
    walk.found = (entry & wanted) == wanted;
    walk.frame = x86::frame_of(entry);
    if (walk.found) {
      pte.store(entry | x86::kAccessed | (walk.write ? x86::kDirty : 0), std::memory_order_relaxed);
    }
  }
  memory_.hardware().walked(walk);
  return walk.found ? walk.frame : kNoFrame;
}

bool LinuxTables::is_leaf_of(TableIndex table, const Mm& mm, VirtAddr va) const {
  const TableInfo& info = pool_.info(table);
  return owners_[table] == &mm && info.level == 1 &&
         info.base.value() == (va.value() & ~(x86::span_of(2) - 1));
}

void LinuxTables::for_each(Mm& mm, VirtRange range, FunctionRef<void(VirtAddr, x86::Pte&)> visit) {
  for_each_until(mm, range, [&](VirtAddr va, x86::Pte& pte) {
    visit(va, pte);
    return true;
  });
}

void LinuxTables::for_each_until(Mm& mm, VirtRange range, FunctionRef<bool(VirtAddr, x86::Pte&)> visit) {
  std::uint64_t va = range.start.value();
  while (va < range.end.value()) {
    const Path path = path_to(mm, VirtAddr{va});
    unsigned missing = 0;
    for (unsigned level = 1; level <= x86::kLevels && path.at[level] == kNoTable; ++level) missing = level;
    if (missing != 0) {
      const std::uint64_t span = missing == x86::kLevels ? x86::kAddressLimit : x86::span_of(missing + 1);
      va = (va & ~(span - 1)) + span;
      continue;
    }
    const std::uint64_t stop = std::min(range.end.value(), (va & ~(x86::span_of(2) - 1)) + x86::span_of(2));
    for (; va < stop; va += kPageSize) {
      // The last entry that goes takes its table along.
      if (!is_leaf_of(path.at[1], mm, VirtAddr{va})) break;
      x86::Pte& pte = pool_.entry(path.at[1], x86::slot_of(VirtAddr{va}, 1));
      if (value_of(pte) != 0 && !visit(VirtAddr{va}, pte)) return;
    }
    va = stop;
  }
}

VirtAddr LinuxTables::address_of(const x86::Pte& pte) const {
  const TableInfo& info = pool_.info(pool_.table_of(&pte));
  return info.base + ByteCount{TablePool::slot_in_table(&pte) * x86::span_of(info.level)};
}

PhysAddr LinuxTables::line_of(const x86::Pte& pte) const {
  return memory_.hardware().table_address(place_of(pte));
}

void LinuxTables::invalidate(const Mm& mm, VirtRange range) {
  Hardware& hardware = memory_.hardware();
  hardware.note(PmapEvent::kInvalidation, to_pages(range.size()).value());
  hardware.invalidated({&mm.space, 1}, range);
  hardware.note(PmapEvent::kShootdownTarget, 1);
  hardware.note(PmapEvent::kShootdown, 1);
}

}  // namespace enchilada::lab
