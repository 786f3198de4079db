// The soft machine's pmap operations: what pmap.h promises, over page tables and pv lists.
#include "pmap/soft/soft_pmap.h"

#include <algorithm>
#include <new>

#include "pmap/soft/hashed_tables.h"
#include "pmap/soft/radix_tables.h"

namespace enchilada {

// ---- SoftPmap

SoftPmap::~SoftPmap() {
  remove_pages();
  remove({VirtAddr{0}, VirtAddr{x86::kAddressLimit}});
  system_.release(space_);
}

void SoftPmap::remove_pages() {
  system_.remove_own_entries(space_);
}

// Whoever comes back to what was thrown away pays for its removal: it is gone when half of it is back.
constexpr std::uint64_t kReapedPerEntered = 2;

PageCount SoftPmap::enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access /*access*/,
                          Wiring wiring) {
  DCHECK(page_aligned(va) && !frames.empty() && allows(prot, Prot::kRead), va.value());
  DCHECK(va.value() + frames.size() * kPageSize <= x86::kAddressLimit, va.value());
  if (system_.options().one_address) system_.steal(space_, va, frames);
  std::size_t entered = 0;
  {
    WriteLock guard(space_.family->lock);
    for (; entered < frames.size(); ++entered) {
      DCHECK(frames[entered].value() < system_.shared().pvs.frames().value(), frames[entered].value());
      // Only the first frame is worth throwing something away for; the others are a prefault.
      const VirtAddr here = va + ByteCount{entered * kPageSize};
      if (!enter_one(here, frames[entered], prot, wiring, entered == 0)) break;
    }
    if (space_.family->cast_off != 0) system_.reap(*space_.family, kReapedPerEntered * entered);
  }
  if (system_.shared().pv_pool->above_high_water()) system_.collect_pvs(frames.first(entered));
  return PageCount{entered};
}

bool SoftPmap::enter_one(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring, bool may_reclaim) {
  for (;;) {
    const EnterResult result = system_.tables().enter(space_, va, frame, prot, wiring);
    if (result == EnterResult::kEntered) return true;
    if (!may_reclaim || !reclaim(result, va)) return false;
  }
}

bool SoftPmap::reclaim(EnterResult shortage, VirtAddr keep) {
  TableFamily& family = *space_.family;
  return shortage == EnterResult::kNoTable ? system_.reclaim_table(family) : system_.reclaim_pv(family, keep);
}

void SoftPmap::expect(VirtAddr va, FrameNumber frame) const {
  system_.shared().pvs.expect(frame);
  system_.tables().expect(space_, va);
}

void SoftPmap::remove(VirtRange range) {
  WriteLock guard(space_.family->lock);
  system_.tables().remove(space_, range);
}

void SoftPmap::protect(VirtRange range, Prot prot) {
  if (!allows(prot, Prot::kRead)) return remove(range);
  if (allows(prot, Prot::kWrite)) return;
  WriteLock guard(space_.family->lock);
  system_.tables().remove_write(space_, range);
}

void SoftPmap::unwire(VirtRange range) {
  WriteLock guard(space_.family->lock);
  system_.tables().unwire(space_, range);
}

void SoftPmap::copy_from(Pmap& source, VirtRange range) {
  // The law allows not to copy; a machine with one address per frame would only move the mapping away.
  if (system_.options().one_address) return;
  system_.fork_policy().fork(static_cast<SoftPmap&>(source).space_, space_, range);
}

bool SoftPmap::throw_away_for_fork() {
  return system_.fork_policy().throw_away(space_);
}

bool SoftPmap::access(VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  ReadLock guard(space_.family->lock);
  const FrameNumber frame = system_.tables().translate(space_, va, access);
  if (frame == kNoFrame) return false;
  use(system_.bytes_of(frame) + (va.value() & kPageMask));
  return true;
}

void SoftPmap::drop_if(FunctionRef<bool(const SoftMapping&)> drop) {
  WriteLock guard(space_.family->lock);
  system_.tables().drop_if(space_, drop);
}

void SoftPmap::throw_away() {
  drop_if([](const SoftMapping&) { return true; });
}

void SoftPmap::for_each_mapping(FunctionRef<void(const SoftMapping&)> visit) const {
  ReadLock guard(space_.family->lock);
  system_.tables().for_each(space_, {VirtAddr{0}, VirtAddr{x86::kAddressLimit}}, visit);
}

FrameNumber SoftPmap::frame_at(VirtAddr va) const {
  FrameNumber found = kNoFrame;
  ReadLock guard(space_.family->lock);
  system_.tables().for_each(space_, {va, va + ByteCount{kPageSize}},
                            [&](const SoftMapping& mapping) { found = mapping.frame; });
  return found;
}

std::uint64_t SoftPmap::mappings() const {
  ReadLock guard(space_.family->lock);
  return space_.mappings;
}

std::uint64_t SoftPmap::tables() const {
  ReadLock guard(space_.family->lock);
  return space_.tables;
}

// ---- SoftPmapSystem

namespace {

std::unique_ptr<PageTables> make_page_tables(Arena& arena, SoftShared& shared) {
  switch (shared.options.modes.get<PageTableMode>()) {
    case PageTableMode::kRadix:
      return std::make_unique<RadixTables>(arena, shared);
    case PageTableMode::kHashed:
      return std::make_unique<HashedTables>(arena, shared);
  }
  return nullptr;
}

}  // namespace

SoftPmapSystem::SoftPmapSystem(Arena& arena, std::byte* frame_bytes, PageCount frames,
                               const SoftPmapOptions& options)
    : arena_(arena),
      frame_bytes_(frame_bytes),
      shared_(arena, frames, options),
      tables_(make_page_tables(arena, shared_)),
      fork_policy_(make_fork_policy(shared_, *tables_, *this)) {}

SoftSpace* SoftPmapSystem::take_space() {
  MutexLock guard(spaces_lock_);
  if (SoftSpace* const used = free_spaces_.pop_front(); used != nullptr) return used;
  void* const memory = next_id_ == SpaceId(~0u) ? nullptr : arena_.allocate(sizeof(SoftSpace));
  if (memory == nullptr) return nullptr;
  auto* const space = new (memory) SoftSpace;
  space->id = next_id_++;
  return space;
}

void SoftPmapSystem::give_space(SoftSpace& space) {
  MutexLock guard(spaces_lock_);
  free_spaces_.push_front(&space);
}

std::unique_ptr<Pmap> SoftPmapSystem::create_pmap() {
  CHECK(shared_.sink != nullptr);
  SoftSpace* const space = take_space();
  if (space == nullptr) return nullptr;
  MutexLock guard(spaces_lock_);
  TableFamily* family = free_families_.pop_front();
  if (family == nullptr) {
    void* const memory = arena_.allocate(sizeof(TableFamily));
    if (memory == nullptr) {
      free_spaces_.push_front(space);
      return nullptr;
    }
    family = new (memory) TableFamily;
  }
  space->family = family;
  space->slot = 0;
  space->owed = 0;
  family->members[0] = space;
  family->slots = 1;
  families_.push_back(family);
  return std::make_unique<SoftPmap>(*this, *space);
}

void SoftPmapSystem::abandon(TableFamily& family) {
  MutexLock guard(spaces_lock_);
  families_.remove(&family);
  free_families_.push_front(&family);
}

void SoftPmapSystem::release(SoftSpace& space) {
  TableFamily& family = *space.family;
  bool last = false;
  {
    WriteLock guard(family.lock);
    family.slots &= ~space.bit();
    if (family.live() == 0) {
      family.for_each_member(family.cast_off, [&](SoftSpace& relic) {
        tables_->remove(relic, {VirtAddr{0}, VirtAddr{x86::kAddressLimit}});
        retire(relic);
      });
    }
    last = family.slots == 0;
  }
  if (last) abandon(family);
  give_space(space);
}

void SoftPmapSystem::remove_own_entries(SoftSpace& space) {
  TableFamily& family = *space.family;
  WriteLock family_guard(family.lock);
  if (family.live() != space.bit()) return;
  Shootdown told(shared_.counts);
  shared_.pv_pool->for_each_of(family, [&](PvEntry& pv) {
    const std::uint64_t entry = pv.pte->load(std::memory_order_relaxed);
    if ((entry & x86::kLarge) != 0) return;
    MutexLock guard(shared_.pvs.lock(x86::frame_of(entry)));
    tables_->remove_pv(pv, RemoveCause::kAsked, told);
  });
}

// One relic after the other.
void SoftPmapSystem::reap(TableFamily& family, std::uint64_t most) {
  for (std::uint64_t relics = family.cast_off; relics != 0; relics &= relics - 1) {
    SoftSpace& relic = *family.members[static_cast<unsigned>(std::countr_zero(relics))];
    tables_->reap(relic, most);
    if (relic.mappings != 0) return;
    retire(relic);
  }
}

void SoftPmapSystem::retire(SoftSpace& relic) {
  TableFamily& family = *relic.family;
  family.cast_off &= ~relic.bit();
  family.slots &= ~relic.bit();
  give_space(relic);
}

// Small mappings are made of the superpages that map the frame and that `want` chooses; the pv lock is held.
// Returns a family that is in use, if any.
template <class Want>
TableFamily* SoftPmapSystem::split_superpages(FrameNumber frame, Want&& want, Shootdown& told,
                                              std::uint64_t* steps) NO_THREAD_SAFETY_ANALYSIS {
  TableFamily* busy = nullptr;
  const PvList& supers = shared_.pvs.super_of(frame);
  for (PvEntry *pv = supers.front(), *next = nullptr; pv != nullptr; pv = next) {
    next = PvList::next(pv);
    ++*steps;
    if (!want(*pv)) continue;
    TableFamily& family = tables_->family_of(*pv);
    if (family.lock.try_lock()) {
      tables_->split_superpage(*pv, told);
      family.lock.unlock();
    } else {
      busy = &family;
    }
  }
  return busy;
}

// Calls act(pv) for each pv entry of the frame that `want` chooses, with its family and the pv list locked. A
// list is found first and its families only then, against the lock order: so families are tried, and one that
// is in use is waited for with nothing held, after which all its entries are done at once; that makes sure of
// progress. `want` is asked of superpages too, before they are split.
template <class Want, class Act>
void SoftPmapSystem::for_each_locked(FrameNumber frame, Shootdown& told, Want&& want,
                                     Act&& act) NO_THREAD_SAFETY_ANALYSIS {
  std::uint64_t steps = 0;
  PvList& list = shared_.pvs.of(frame);
  for (;;) {
    TableFamily* busy = nullptr;
    {
      MutexLock guard(shared_.pvs.lock(frame));
      busy = split_superpages(frame, want, told, &steps);
      for (PvEntry *pv = list.front(), *next = nullptr; pv != nullptr; pv = next) {
        next = PvList::next(pv);
        ++steps;
        if (!want(*pv)) continue;
        TableFamily& family = tables_->family_of(*pv);
        if (!family.lock.try_lock()) {
          busy = &family;
          continue;
        }
        act(*pv);
        family.lock.unlock();
      }
    }
    if (busy == nullptr) break;
    WriteLock family_guard(busy->lock);
    MutexLock guard(shared_.pvs.lock(frame));
    const auto of_busy = [&](const PvEntry& pv) { return &tables_->family_of(pv) == busy && want(pv); };
    const PvList& supers = shared_.pvs.super_of(frame);
    for (PvEntry *pv = supers.front(), *next = nullptr; pv != nullptr; pv = next) {
      next = PvList::next(pv);
      ++steps;
      if (of_busy(*pv)) tables_->split_superpage(*pv, told);
    }
    for (PvEntry *pv = list.front(), *next = nullptr; pv != nullptr; pv = next) {
      next = PvList::next(pv);
      ++steps;
      if (of_busy(*pv)) act(*pv);
    }
  }
  shared_.counts.note(PmapEvent::kPvListStep, steps);
}

void SoftPmapSystem::remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  DCHECK(refused.size() == frames.size());
  Shootdown told(shared_.counts);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    refused[i] = shared_.pvs.pinned(frames[i]);
    if (refused[i]) continue;
    for_each_locked(
        frames[i], told, [](const PvEntry&) { return true; },
        [&](PvEntry& pv) { tables_->remove_pv(pv, RemoveCause::kAsked, told); });
  }
}

void SoftPmapSystem::remove_write(FrameNumber frame) {
  Shootdown told(shared_.counts);
  for_each_locked(
      frame, told,
      [](const PvEntry& pv) { return (pv.pte->load(std::memory_order_relaxed) & x86::kWritable) != 0; },
      [&](PvEntry& pv) { tables_->remove_write_pv(pv, told); });
}

void SoftPmapSystem::steal(const SoftSpace& space, VirtAddr va, std::span<const FrameNumber> frames) {
  Shootdown told(shared_.counts);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const VirtAddr here = va + ByteCount{i * kPageSize};
    for_each_locked(
        frames[i], told,
        [&](const PvEntry& pv) {
          if ((pv.pte->load(std::memory_order_relaxed) & x86::kWired) != 0) return false;
          bool elsewhere = false;
          tables_->for_each_place(pv, frames[i], [&](SoftSpace& other, VirtAddr at, bool) {
            elsewhere |= &other != &space || at != here;
          });
          return elsewhere;
        },
        [&](PvEntry& pv) { tables_->remove_pv(pv, RemoveCause::kThrownAway, told); });
  }
}

unsigned SoftPmapSystem::ts_referenced(FrameNumber frame) {
  constexpr unsigned kEnough = 5;
  if (!shared_.options.reference_bits) return 0;
  MutexLock guard(shared_.pvs.lock(frame));
  unsigned found = 0;
  PvList& supers = shared_.pvs.super_of(frame);
  for (PvEntry* pv = supers.front(); pv != nullptr && found < kEnough; pv = PvList::next(pv)) {
    shared_.counts.note(PmapEvent::kPvListStep);
    if ((pv->pte->load(std::memory_order_relaxed) & x86::kAccessed) == 0) continue;
    ++found;
    if (stands_for_all(*pv, frame)) pv->pte->fetch_and(~x86::kAccessed, std::memory_order_relaxed);
  }
  PvList& list = shared_.pvs.of(frame);
  // Each entry looked at goes to the end, so that with many mappings all of them are sampled in turn.
  for (std::size_t left = list.size(); left > 0 && found < kEnough; --left) {
    PvEntry* const pv = list.pop_front();
    list.push_back(pv);
    shared_.counts.note(PmapEvent::kPvListStep);
    if ((pv->pte->fetch_and(~x86::kAccessed, std::memory_order_relaxed) & x86::kAccessed) == 0) continue;
    shared_.counts.note(PmapEvent::kInvalidation);
    ++found;
  }
  return found;
}

// A superpage has one reference bit for 512 pages. Of a scan over all of them one may clear it, lest the
// first make the others look idle: the one that a hash chooses, another for each mapping (freebsd-vm.md
// §1.8).
bool SoftPmapSystem::stands_for_all(const PvEntry& pv, FrameNumber frame) {
  std::uint64_t hash = frame.value();
  tables_->for_each_place(pv, frame, [&](SoftSpace& space, VirtAddr va, bool) {
    hash ^= (va.value() >> (kPageShift + x86::kSlotBits)) ^ space.id;
  });
  return hash % x86::kSlots == 0;
}

bool SoftPmapSystem::any_mapping(FrameNumber frame, std::uint64_t bits) {
  MutexLock guard(shared_.pvs.lock(frame));
  for (const PvList* list : {&shared_.pvs.of(frame), &shared_.pvs.super_of(frame)}) {
    for (PvEntry* pv = list->front(); pv != nullptr; pv = PvList::next(pv)) {
      if ((pv->pte->load(std::memory_order_relaxed) & bits) != 0) return true;
    }
  }
  return false;
}

bool SoftPmapSystem::is_modified(FrameNumber frame) {
  return any_mapping(frame, shared_.options.dirty_bits ? x86::kDirty : x86::kWritable);
}

// Superpages that could be dirty were split by remove_write().
void SoftPmapSystem::clear_modify(FrameNumber frame) {
  MutexLock guard(shared_.pvs.lock(frame));
  for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
    pv->pte->fetch_and(~x86::kDirty, std::memory_order_relaxed);
  }
}

// ---- making room

bool SoftPmapSystem::throw_some_away(TableFamily& family, VirtAddr keep) {
  return tables_->reclaim_mapping(family, keep);
}

bool SoftPmapSystem::throw_others_away(TableFamily& self) {
  return try_others(self, [&](TableFamily& family) {
    return tables_->reclaim_mapping(family, VirtAddr{x86::kAddressLimit});
  });
}

bool SoftPmapSystem::remove(PvEntry& pv, TableFamily& self, VirtAddr keep) {
  const std::uint64_t entry = pv.pte->load(std::memory_order_relaxed);
  if ((entry & (x86::kWired | x86::kLarge)) != 0) return false;
  bool kept = false;
  tables_->for_each_place(pv, x86::frame_of(entry), [&](SoftSpace& space, VirtAddr va, bool) {
    kept |= space.family == &self && va == keep;
  });
  if (kept) return false;
  Shootdown told(shared_.counts);
  MutexLock guard(shared_.pvs.lock(x86::frame_of(entry)));
  tables_->remove_pv(pv, RemoveCause::kThrownAway, told);
  return true;
}

bool SoftPmapSystem::reclaim_table(TableFamily& self) {
  return tables_->reclaim_table(self) ||
         try_others(self, [&](TableFamily& family) { return tables_->reclaim_table(family); });
}

TableFamily* SoftPmapSystem::lock_another(const TableFamily& self) NO_THREAD_SAFETY_ANALYSIS {
  MutexLock guard(spaces_lock_);
  // Each one tried goes to the end, so that the families lose mappings in turn.
  for (std::size_t left = families_.size(); left > 0; --left) {
    TableFamily* const family = families_.pop_front();
    families_.push_back(family);
    if (family != &self && family->lock.try_lock()) return family;
  }
  return nullptr;
}

bool SoftPmapSystem::try_others(const TableFamily& self,
                                FunctionRef<bool(TableFamily&)> take) NO_THREAD_SAFETY_ANALYSIS {
  std::size_t tries = 0;
  {
    MutexLock guard(spaces_lock_);
    tries = families_.size();
  }
  for (; tries > 0; --tries) {
    TableFamily* const family = lock_another(self);
    if (family == nullptr) return false;
    const bool gained = take(*family);
    family->lock.unlock();
    if (gained) return true;
  }
  return false;
}

// FreeBSD 4's page daemon did this (pmap_collect) for all pages when the mark was passed; here it is done a
// little at a time by whoever passes it: idle frames in one lap of the hand, any in the next.
void SoftPmapSystem::collect_pvs(std::span<const FrameNumber> keep) {
  constexpr unsigned kLooks = 256;
  if (collecting_.exchange(true, std::memory_order_acquire)) return;
  shared_.counts.decide(PmapEvent::kPvHighWater);
  {
    Shootdown told(shared_.counts);
    std::uint64_t collected = 0;
    for (unsigned i = 0; i < kLooks && shared_.pv_pool->above_high_water(); ++i) {
      const FrameNumber frame{hand_};
      hand_ = (hand_ + 1) % static_cast<std::uint32_t>(shared_.pvs.frames().value());
      if (hand_ == 0) idle_only_ = !idle_only_;
      if (std::find(keep.begin(), keep.end(), frame) != keep.end()) continue;
      if (idle_only_ && any_mapping(frame, x86::kAccessed)) continue;
      for_each_locked(
          frame, told,
          [](const PvEntry& pv) {
            return (pv.pte->load(std::memory_order_relaxed) & (x86::kWired | x86::kLarge)) == 0;
          },
          [&](PvEntry& pv) {
            tables_->remove_pv(pv, RemoveCause::kThrownAway, told);
            ++collected;
          });
    }
    shared_.counts.decide(PmapEvent::kPvCollected, collected);
  }
  collecting_.store(false, std::memory_order_release);
}

// ---- looking

void SoftPmapSystem::for_each_mapping_of(FrameNumber frame,
                                         FunctionRef<void(VirtAddr, bool writable)> visit) {
  for_each_place_of(frame, [&](SpaceId, VirtAddr va, bool writable) { visit(va, writable); });
}

void SoftPmapSystem::for_each_place_of(FrameNumber frame,
                                       FunctionRef<void(SpaceId, VirtAddr, bool writable)> visit) {
  MutexLock guard(shared_.pvs.lock(frame));
  for (const PvList* list : {&shared_.pvs.of(frame), &shared_.pvs.super_of(frame)}) {
    for (PvEntry* pv = list->front(); pv != nullptr; pv = PvList::next(pv)) {
      tables_->for_each_place(*pv, frame, [&](SoftSpace& space, VirtAddr va, bool writable) {
        if ((space.bit() & space.family->live()) != 0) visit(space.id, va, writable);
      });
    }
  }
}

unsigned SoftPmapSystem::mapcount(FrameNumber frame, MapCount what) {
  unsigned places = 0;
  for_each_mapping_of(frame, [&](VirtAddr, bool) { ++places; });
  if (what == MapCount::kSharers) return places;
  MutexLock guard(shared_.pvs.lock(frame));
  return static_cast<unsigned>(shared_.pvs.of(frame).size() + shared_.pvs.super_of(frame).size());
}

const char* SoftPmapSystem::find_error() NO_THREAD_SAFETY_ANALYSIS {
  std::uint64_t entries = 0;
  std::uint64_t mappings = 0;
  const char* error = nullptr;
  for (TableFamily* family = families_.front(); family != nullptr; family = FamilyList::next(family)) {
    WriteLock guard(family->lock);
    if (const char* found = tables_->find_error(*family, &entries); error == nullptr) error = found;
    family->for_each_member(family->live(), [&](const SoftSpace& space) { mappings += space.mappings; });
  }
  const char* const lost = tables_->find_lost();
  if (error != nullptr || lost != nullptr) return error != nullptr ? error : lost;
  std::uint64_t listed = 0;
  std::uint64_t shown = 0;  // by all entries in all sharers
  for (std::uint32_t i = 0; i < shared_.pvs.frames().value(); ++i) {
    const FrameNumber frame{i};
    for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
      const std::uint64_t entry = pv->pte->load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0) return "a pv entry of a mapping that is gone";
      if (x86::frame_of(entry) != frame) return "a pv entry on the list of another frame";
      ++listed;
    }
    if (i % x86::kSlots == 0) {
      const PvList& supers = shared_.pvs.super_of(frame);
      listed += supers.size();
      for (PvEntry* pv = supers.front(); pv != nullptr; pv = PvList::next(pv)) {
        if ((pv->pte->load(std::memory_order_relaxed) & x86::kLarge) == 0)
          return "a pv entry of no superpage";
      }
    }
    shown += mapcount(frame, MapCount::kSharers);
  }
  if (shown != mappings) return "pv entries show another number of mappings than the spaces count";
  if (listed != entries || listed != shared_.pv_pool->live())
    return "pv entries and mappings differ in number";
  return shared_.pv_pool->find_error();
}

}  // namespace enchilada
