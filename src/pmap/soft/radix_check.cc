// The brute-force scan of all page tables: the oracle of counts, lists and reverse maps.
#include <utility>

#include "pmap/soft/radix_tables.h"

namespace enchilada {

using x86::Pte;

/// A promoted table: neighbouring frames, one user, one pv entry for all.
const char* RadixTables::find_error_in_super(const TableInfo& leaf) {
  if (leaf.used != x86::kSlots || leaf.wired != 0) return "a promoted table is not full, or wired";
  if (leaf.users != owner_of(leaf).bit() || leaf.write_protected) return "a promoted table is shared";
  Pte& above = branch(owner_of(leaf), leaf.base);
  const std::uint64_t entry = above.load(std::memory_order_relaxed);
  if ((entry & x86::kLarge) == 0 || x86::number_of(entry) != leaf.self)
    return "a promoted table whose superpage is gone";
  if ((entry & x86::kDirty) != 0 && (entry & x86::kWritable) == 0) return "a read-only superpage is dirty";
  const FrameNumber first = x86::frame_of(pool_.entry(leaf.self, 0).load(std::memory_order_relaxed));
  if (first.value() % x86::kSlots != 0) return "a superpage's frames are not aligned";
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    const std::uint64_t kept = pool_.entry(leaf.self, slot).load(std::memory_order_relaxed);
    if ((kept & x86::kPresent) == 0 || x86::frame_of(kept) != first + PageCount{slot})
      return "a promoted table's frames are not neighbours";
  }
  MutexLock guard(shared_.pvs.lock(first));
  unsigned pvs = 0;
  const PvList& list = shared_.pvs.super_of(first);
  for (PvEntry* pv = list.front(); pv != nullptr; pv = PvList::next(pv)) pvs += pv->pte == &above;
  return pvs != 1 ? "a superpage has not exactly one pv entry" : nullptr;
}

/// Counts the entries of a leaf table and looks for the pv entry of each.
const char* RadixTables::find_error_in_leaf(const TableInfo& leaf, unsigned* used) {
  unsigned wired = 0;
  *used = 0;
  for (unsigned slot = 0; slot < x86::kSlots; ++slot) {
    Pte& pte = pool_.entry(leaf.self, slot);
    const std::uint64_t entry = pte.load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) {
      if (entry != 0) return "an entry that is not present is not zero";
      continue;
    }
    ++*used;
    if ((entry & x86::kWired) != 0) ++wired;
    if ((entry & x86::kDirty) != 0 && (entry & x86::kWritable) == 0) return "a read-only entry is dirty";
    const FrameNumber frame = x86::frame_of(entry);
    if (frame.value() >= shared_.pvs.frames().value()) return "an entry maps a frame that does not exist";
    MutexLock guard(shared_.pvs.lock(frame));
    unsigned pvs = 0;
    for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
      if (pv->pte == &pte) ++pvs;
    }
    if (pvs != 1) return "a present entry has not exactly one pv entry";
  }
  if (*used != leaf.used) return "a leaf table's count of entries is wrong";
  if (wired != leaf.wired) return "a leaf table's count of wired entries is wrong";
  return nullptr;
}

/// Walks a space's tree from its root and counts what is there.
const char* RadixTables::find_error_in_space(const SoftSpace& space) {
  std::uint64_t mappings = 0;
  std::uint64_t tables = 0;
  std::uint64_t wired = 0;
  if (space.root == kNoTable) {
    return space.tables + space.mappings + space.wired == 0 ? nullptr : "no root, but a count";
  }
  std::array<TableIndex, x86::kLevels> path;   // tables on the way down, by depth
  std::array<unsigned, x86::kLevels> next{};   // slot to look at next
  std::array<unsigned, x86::kLevels> found{};  // entries seen
  unsigned depth = 0;
  path[0] = space.root.load(std::memory_order_relaxed);
  for (;;) {
    const TableInfo& info = pool_.info(path[depth]);
    if (next[depth] == 0) {
      ++tables;
      if (info.family != space.family || (info.users & space.bit()) == 0) return "a table is not its user's";
      if (info.level != x86::kLevels - depth) return "a table is at another level";
      if (info.used == 0) return "an empty table was kept";
      if (info.level > 1 && info.users != space.bit()) return "a table above the leaves has two users";
    }
    if (info.level == 1) {
      mappings += info.used;
      wired += info.wired;
      next[depth] = x86::kSlots;
    }
    if (next[depth] == x86::kSlots) {
      if (info.level > 1 && found[depth] != info.used) return "a table's count of tables below is wrong";
      if (depth == 0) break;
      --depth;
      continue;
    }
    const unsigned slot = next[depth]++;
    const std::uint64_t entry = pool_.entry(path[depth], slot).load(std::memory_order_relaxed);
    if ((entry & x86::kPresent) == 0) continue;
    ++found[depth];
    const TableIndex below = x86::number_of(entry);
    if (pool_.info(below).base.value() != info.base.value() + slot * x86::span_of(info.level))
      return "a table hangs at the wrong address";
    ++depth;
    path[depth] = below;
    next[depth] = found[depth] = 0;
  }
  if (mappings != space.mappings) return "a space's count of mappings is wrong";
  if (tables != space.tables) return "a space's count of tables is wrong";
  if (wired != space.wired) return "a space's count of wired mappings is wrong";
  return nullptr;
}

const char* RadixTables::find_error(TableFamily& family, std::uint64_t* entries) {
  std::uint64_t hanging = 0;  // leaf tables, once for each user
  const char* error = nullptr;
  family.for_each_member(family.slots, [&](const SoftSpace& space) {
    if (error == nullptr) error = find_error_in_space(space);
  });
  if (error != nullptr) return error;
  for (TableInfo* leaf = family.leaves.front(); leaf != nullptr; leaf = TableList::next(leaf)) {
    unsigned used = 1;  // pv entries
    error = leaf->promoted ? find_error_in_super(*leaf) : find_error_in_leaf(*leaf, &used);
    if (error != nullptr) return error;
    if (leaf->family != &family || leaf->level != 1) return "a leaf table is on another family's list";
    if ((leaf->users & ~family.slots) != 0 || leaf->users == 0) return "a leaf table has a user that is gone";
    *entries += used;
    ++seen_;
    if (leaf->wired != 0 && !std::has_single_bit(leaf->users)) return "a shared table has wired entries";
    bool reachable = true;
    bool protects = true;
    family.for_each_member(leaf->users, [&](const SoftSpace& space) {
      reachable = reachable && walk(space, leaf->base).table == leaf->self;
      const std::uint64_t above = branch(space, leaf->base).load(std::memory_order_relaxed);
      protects = protects && (above & x86::kWritable) == 0;
      ++hanging;
    });
    if (!reachable) return "a leaf table does not hang where its users say";
    if (!leaf->promoted && leaf->write_protected != protects)
      return "the entries above a leaf table do not protect it as it says";
    if (!leaf->write_protected && !std::has_single_bit(leaf->users)) return "a shared table can be written";
  }
  std::uint64_t all = 0;
  family.for_each_member(family.slots, [&](const SoftSpace& space) { all += space.tables; });
  seen_ += static_cast<std::size_t>(all - hanging);  // each space's own, above the leaves
  return nullptr;
}

const char* RadixTables::find_lost() {
  const std::size_t seen = std::exchange(seen_, 0);
  return seen + pool_.free_count() != pool_.size() ? "page tables were lost" : nullptr;
}

}  // namespace enchilada
