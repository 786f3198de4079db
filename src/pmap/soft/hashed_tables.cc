// The hashed page table: chains, entries, ranges.
#include "pmap/soft/hashed_tables.h"

#include <algorithm>
#include <bit>
#include <new>

namespace enchilada {

using x86::Pte;

HashedTables::HashedTables(Arena& arena, SoftShared& shared) : shared_(shared) {
  const std::size_t wanted =
      static_cast<std::size_t>(shared.options.table_pages.value()) * kPageSize / sizeof(Entry);
  bucket_bits_ = static_cast<unsigned>(std::bit_width(std::max<std::size_t>(wanted, 2) - 1));
  entries_ = arena.allocate_array<Entry>(wanted);
  buckets_ = arena.allocate_array<std::uint32_t>(std::size_t{1} << bucket_bits_);
  if (entries_ == nullptr || buckets_ == nullptr) return;
  std::fill_n(buckets_, std::size_t{1} << bucket_bits_, kNoHashedEntry);
  size_ = wanted;
  MutexLock guard(free_lock_);
  for (std::size_t i = size_; i-- > 0;) {
    Entry* const entry = new (&entries_[i]) Entry;
    entry->chain = free_;
    free_ = static_cast<std::uint32_t>(i);
  }
  free_count_ = size_;
}

std::size_t HashedTables::bucket_of(const SoftSpace& space, std::uint64_t page) const {
  const std::uint64_t key = page ^ (std::uint64_t{space.id} << 40);
  return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> (64 - bucket_bits_));
}

HashedTables::Entry* HashedTables::find(const SoftSpace& space, std::uint64_t page, PmapWalk* walk) const {
  const std::size_t bucket = bucket_of(space, page);
  MutexLock guard(lock_of(bucket));
  unsigned probes = 0;
  std::uint32_t at = buckets_[bucket];
  while (at != kNoHashedEntry) {
    ++probes;
    const Entry& entry = entries_[at];
    if (walk != nullptr && walk->reads < PmapWalk::kMostReads) {
      walk->entry[walk->reads++] = std::uint64_t{at} * sizeof(Entry);
    }
    if (entry.page == page && entry.space == &space) break;
    at = entry.chain;
  }
  shared_.counts.note(PmapEvent::kHashProbe, probes);
  shared_.counts.note(PmapEvent::kPteRead, probes);
  return at == kNoHashedEntry ? nullptr : &entries_[at];
}

HashedTables::Entry* HashedTables::create(SoftSpace& space, std::uint64_t page) {
  std::uint32_t index = kNoHashedEntry;
  {
    MutexLock guard(free_lock_);
    index = free_;
    if (index == kNoHashedEntry) return nullptr;
    free_ = entries_[index].chain;
    --free_count_;
  }
  Entry& entry = entries_[index];
  entry.page = page;
  entry.space = &space;
  entry.newer = kNoHashedEntry;
  entry.older = space.newest;
  (space.newest != kNoHashedEntry ? entries_[space.newest].newer : space.oldest) = index;
  space.newest = index;
  const std::size_t bucket = bucket_of(space, page);
  MutexLock guard(lock_of(bucket));
  entry.chain = buckets_[bucket];
  buckets_[bucket] = index;
  return &entry;
}

void HashedTables::destroy(Entry& entry) {
  SoftSpace& space = *entry.space;
  (entry.newer != kNoHashedEntry ? entries_[entry.newer].older : space.newest) = entry.older;
  (entry.older != kNoHashedEntry ? entries_[entry.older].newer : space.oldest) = entry.newer;
  const std::size_t bucket = bucket_of(space, entry.page);
  {
    MutexLock guard(lock_of(bucket));
    std::uint32_t* link = &buckets_[bucket];
    while (*link != index_of(entry)) link = &entries_[*link].chain;
    *link = entry.chain;
  }
  MutexLock guard(free_lock_);
  entry.space = nullptr;
  entry.chain = free_;
  free_ = index_of(entry);
  ++free_count_;
}

// ---- entries

EnterResult HashedTables::enter(SoftSpace& space, VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) {
  Shootdown told(shared_.counts);
  const std::uint64_t page = va.value() >> kPageShift;
  const bool writes = allows(prot, Prot::kWrite);
  Entry* entry = find(space, page);
  if (entry != nullptr && x86::frame_of(entry->pte.load(std::memory_order_relaxed)) == frame) {
    const std::uint64_t old = entry->pte.load(std::memory_order_relaxed);
    if (!writes && (old & x86::kWritable) != 0) take_write(*entry, told);
    if (writes && (old & x86::kWritable) == 0) {
      entry->pte.fetch_or(x86::kWritable, std::memory_order_relaxed);
      shared_.counts.note(PmapEvent::kUpdate);
      shared_.counts.note(PmapEvent::kPteWrite);
    }
    if (wiring == Wiring::kWired) entry->pte.fetch_or(x86::kWired, std::memory_order_relaxed);
    return EnterResult::kEntered;
  }
  PvEntry* const pv = shared_.pv_pool->create(*space.family);
  if (pv == nullptr) return EnterResult::kNoPv;
  if (entry != nullptr) remove_entry(*entry, RemoveCause::kAsked, told);
  entry = create(space, page);
  if (entry == nullptr) {
    shared_.pv_pool->destroy(pv);
    return EnterResult::kNoTable;
  }
  const std::uint64_t bits = (writes ? x86::kWritable : 0) | (wiring == Wiring::kWired ? x86::kWired : 0);
  pv->pte = &entry->pte;
  {
    MutexLock guard(shared_.pvs.lock(frame));
    entry->pte.store(x86::make_entry(frame.value(), bits), std::memory_order_relaxed);
    shared_.pvs.of(frame).push_front(pv);
  }
  ++space.mappings;
  shared_.counts.note(PmapEvent::kEnter);
  shared_.counts.note(PmapEvent::kPteWrite);
  shared_.pay_back(space);
  return EnterResult::kEntered;
}

FrameNumber HashedTables::translate(SoftSpace& space, VirtAddr va, Access access) {
  PmapWalk walk;
  walk.space = space.id;
  walk.va = va;
  walk.write = access == Access::kWrite;
  const std::uint64_t rights = x86::kPresent | (walk.write ? x86::kWritable : 0);
  const std::uint64_t marks =
      (shared_.options.reference_bits ? x86::kAccessed : 0) | (walk.write ? x86::kDirty : 0);
  Entry* const entry = find(space, va.value() >> kPageShift, &walk);
  if (entry != nullptr) {
    const std::uint64_t old = entry->pte.load(std::memory_order_relaxed);
    walk.found = (old & rights) == rights;
    if (walk.found && (old & marks) != marks) entry->pte.fetch_or(marks, std::memory_order_relaxed);
    if (walk.found) walk.frame = x86::frame_of(old);
  }
  shared_.counts.note(PmapEvent::kWalk);
  if (!walk.found) shared_.counts.note(PmapEvent::kFault);
  if (shared_.counts.events != nullptr) shared_.counts.events->walked(walk);
  return walk.found ? walk.frame : kNoFrame;
}

void HashedTables::take_write(Entry& entry, Shootdown& told) {
  shared_.take_write(entry.pte);
  told.add(*entry.space->family, entry.space->bit(), range_of(entry));
}

void HashedTables::unmap(PvEntry& pv, RemoveCause cause, Shootdown& told) {
  Entry& entry = entry_of(*pv.pte);
  SoftSpace& space = *entry.space;
  const std::uint64_t old = entry.pte.load(std::memory_order_relaxed);
  const unsigned bits = shared_.report(old);
  entry.pte.store(0, std::memory_order_relaxed);
  told.add(*space.family, space.bit(), range_of(entry));
  shared_.pvs.of(x86::frame_of(old)).remove(&pv);
  shared_.pv_pool->destroy(&pv);
  destroy(entry);
  --space.mappings;
  if (cause == RemoveCause::kThrownAway) {
    ++space.owed;
    shared_.counts.decide(PmapEvent::kHarvest, bits);
  }
  shared_.counts.note(PmapEvent::kRemove);
  shared_.counts.note(PmapEvent::kPteWrite);
}

void HashedTables::remove_entry(Entry& entry, RemoveCause cause, Shootdown& told) {
  MutexLock guard(shared_.pvs.lock(x86::frame_of(entry.pte.load(std::memory_order_relaxed))));
  unmap(shared_.pv_of(entry.pte), cause, told);
}

void HashedTables::remove_pv(PvEntry& pv, RemoveCause cause, Shootdown& told) {
  unmap(pv, cause, told);
}

void HashedTables::remove_write_pv(PvEntry& pv, Shootdown& told) {
  take_write(entry_of(*pv.pte), told);
}

void HashedTables::for_each_place(const PvEntry& pv, FrameNumber /*frame*/,
                                  FunctionRef<void(SoftSpace&, VirtAddr, bool)> visit) const {
  const Entry& entry = entry_of(*pv.pte);
  const bool writable = (entry.pte.load(std::memory_order_relaxed) & x86::kWritable) != 0;
  visit(*entry.space, range_of(entry).start, writable);
}

// ---- ranges

// By probing each page, or by walking the space's list where that is shorter: nothing is in order here.
template <class F>
void HashedTables::for_each_entry(SoftSpace& space, VirtRange range, F&& f) const {
  const std::uint64_t first = range.start.value() >> kPageShift;
  const std::uint64_t end = range.end.value() >> kPageShift;
  if (end - first <= space.mappings) {
    for (std::uint64_t page = first; page < end; ++page) {
      if (Entry* const entry = find(space, page); entry != nullptr) f(*entry);
    }
    return;
  }
  for (std::uint32_t at = space.oldest; at != kNoHashedEntry;) {
    Entry& entry = entries_[at];
    at = entry.newer;
    if (entry.page >= first && entry.page < end) f(entry);
  }
}

void HashedTables::remove(SoftSpace& space, VirtRange range) {
  Shootdown told(shared_.counts);
  for_each_entry(space, range, [&](Entry& entry) { remove_entry(entry, RemoveCause::kAsked, told); });
}

void HashedTables::remove_write(SoftSpace& space, VirtRange range) {
  Shootdown told(shared_.counts);
  for_each_entry(space, range, [&](Entry& entry) {
    if ((entry.pte.load(std::memory_order_relaxed) & x86::kWritable) != 0) take_write(entry, told);
  });
}

void HashedTables::unwire(SoftSpace& space, VirtRange range) {
  for_each_entry(space, range,
                 [](Entry& entry) { entry.pte.fetch_and(~x86::kWired, std::memory_order_relaxed); });
}

// ---- throwing away

/// The oldest unwired mappings of the family, at most so many of each space, not that at `keep`.
bool HashedTables::throw_away(TableFamily& family, VirtAddr keep, unsigned most) {
  Shootdown told(shared_.counts);
  bool any = false;
  family.for_each_member(family.slots, [&](SoftSpace& space) {
    unsigned taken = 0;
    for (std::uint32_t at = space.oldest; at != kNoHashedEntry && taken < most;) {
      Entry& entry = entries_[at];
      at = entry.newer;
      const bool wired = (entry.pte.load(std::memory_order_relaxed) & x86::kWired) != 0;
      if (wired || range_of(entry).contains(keep)) continue;
      remove_entry(entry, RemoveCause::kThrownAway, told);
      ++taken;
    }
    any |= taken != 0;
  });
  return any;
}

bool HashedTables::reclaim_table(TableFamily& family) {
  constexpr unsigned kBatch = 64;
  if (!throw_away(family, VirtAddr{x86::kAddressLimit}, kBatch)) return false;
  shared_.counts.decide(PmapEvent::kTableReclaimed);
  return true;
}

bool HashedTables::reclaim_mapping(TableFamily& family, VirtAddr keep) {
  constexpr unsigned kBatch = 16;
  const std::size_t before = shared_.pv_pool->live();
  if (!throw_away(family, keep, kBatch)) return false;
  shared_.counts.decide(PmapEvent::kPvCollected, before - std::min(before, shared_.pv_pool->live()));
  return true;
}

void HashedTables::drop_if(SoftSpace& space, FunctionRef<bool(const SoftMapping&)> drop) {
  Shootdown told(shared_.counts);
  for_each_entry(space, {VirtAddr{0}, VirtAddr{x86::kAddressLimit}}, [&](Entry& entry) {
    const bool wired = (entry.pte.load(std::memory_order_relaxed) & x86::kWired) != 0;
    if (!wired && drop(describe(entry))) remove_entry(entry, RemoveCause::kThrownAway, told);
  });
}

// ---- looking

SoftMapping HashedTables::describe(const Entry& entry) {
  const std::uint64_t bits = entry.pte.load(std::memory_order_relaxed);
  return {range_of(entry).start,     x86::frame_of(bits),          (bits & x86::kWritable) != 0,
          (bits & x86::kWired) != 0, (bits & x86::kAccessed) != 0, (bits & x86::kDirty) != 0};
}

void HashedTables::for_each(SoftSpace& space, VirtRange range,
                            FunctionRef<void(const SoftMapping&)> visit) const {
  for_each_entry(space, range, [&](const Entry& entry) { visit(describe(entry)); });
}

std::size_t HashedTables::free_tables() const {
  MutexLock guard(free_lock_);
  return free_count_;
}

std::size_t HashedTables::bytes() const {
  return (size_ - free_tables()) * sizeof(Entry);
}

const char* HashedTables::find_error(TableFamily& family, std::uint64_t* entries) {
  const char* error = nullptr;
  const auto wrong = [&](const char* what) {
    if (error == nullptr) error = what;
  };
  family.for_each_member(family.slots, [&](SoftSpace& space) {
    std::uint64_t count = 0;
    for (std::uint32_t at = space.oldest; at != kNoHashedEntry; at = entries_[at].newer) {
      const Entry& entry = entries_[at];
      const std::uint64_t bits = entry.pte.load(std::memory_order_relaxed);
      ++count;
      if (entry.space != &space || find(space, entry.page) != &entry)
        return wrong("a hashed entry is not found");
      if ((bits & x86::kPresent) == 0) return wrong("a hashed entry maps nothing");
      if ((bits & x86::kDirty) != 0 && (bits & x86::kWritable) == 0)
        return wrong("a read-only entry is dirty");
      MutexLock guard(shared_.pvs.lock(x86::frame_of(bits)));
      unsigned pvs = 0;
      const PvList& list = shared_.pvs.of(x86::frame_of(bits));
      for (PvEntry* pv = list.front(); pv != nullptr; pv = PvList::next(pv)) pvs += pv->pte == &entry.pte;
      if (pvs != 1) return wrong("a hashed entry has not exactly one pv entry");
    }
    if (count != space.mappings) wrong("a space's count of hashed entries is wrong");
    *entries += count;
  });
  return error;
}

const char* HashedTables::find_lost() {
  std::size_t chained = 0;
  for (std::size_t bucket = 0; size_ != 0 && bucket < std::size_t{1} << bucket_bits_; ++bucket) {
    for (std::uint32_t at = buckets_[bucket]; at != kNoHashedEntry; at = entries_[at].chain) ++chained;
  }
  return chained + free_tables() != size_ ? "hashed entries were lost" : nullptr;
}

}  // namespace enchilada
