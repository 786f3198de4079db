// The soft machine's pmap operations: what pmap.h promises, over page tables and pv lists.
#include "pmap/soft/soft_pmap.h"

#include <new>

namespace enchilada {

using x86::Pte;

// ---- SoftPmap
// ----------------------------------------------------------------------------------------------------

SoftPmap::~SoftPmap() {
  {
    WriteLock guard(space_.lock);
    space_.remove({VirtAddr{0}, VirtAddr{x86::kAddressLimit}});
  }
  system_.release(space_);
}

PageCount SoftPmap::enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access /*access*/,
                          Wiring wiring) {
  DCHECK(page_aligned(va) && !frames.empty() && allows(prot, Prot::kRead), va.value());
  DCHECK(va.value() + frames.size() * kPageSize <= x86::kAddressLimit, va.value());
  if (system_.options().one_address) system_.steal(space_, va, frames);
  WriteLock guard(space_.lock);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    DCHECK(frames[i].value() < system_.shared().pvs.frames().value(), frames[i].value());
    // Only the first frame is worth throwing something away for; the others are a prefault.
    if (!enter_one(va + ByteCount{i * kPageSize}, frames[i], prot, wiring, i == 0)) return PageCount{i};
  }
  return PageCount{frames.size()};
}

bool SoftPmap::enter_one(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring, bool may_reclaim) {
  for (;;) {
    const SoftSpace::EnterResult result = space_.enter(va, frame, prot, wiring);
    if (result == SoftSpace::EnterResult::kEntered) return true;
    if (!may_reclaim || !reclaim(result, va)) return false;
  }
}

bool SoftPmap::reclaim(SoftSpace::EnterResult shortage, VirtAddr keep) {
  const bool want_table = shortage == SoftSpace::EnterResult::kNoTable;
  if (want_table ? space_.reclaim_table() : space_.reclaim_pv(keep)) return true;
  return system_.reclaim_from_others(space_, want_table);
}

void SoftPmap::remove(VirtRange range) {
  WriteLock guard(space_.lock);
  if (space_.remove(range) != 0) system_.shared().note(PmapEvent::kShootdown);
}

void SoftPmap::protect(VirtRange range, Prot prot) {
  if (!allows(prot, Prot::kRead)) return remove(range);
  if (allows(prot, Prot::kWrite)) return;
  WriteLock guard(space_.lock);
  if (space_.remove_write(range) != 0) system_.shared().note(PmapEvent::kShootdown);
}

void SoftPmap::unwire(VirtRange range) {
  WriteLock guard(space_.lock);
  space_.unwire(range);
}

void SoftPmap::copy_from(Pmap& source, VirtRange range) NO_THREAD_SAFETY_ANALYSIS {
  // The law allows not to copy; a machine with one address per frame would only move the mapping away.
  if (system_.options().one_address) return;
  SoftSpace& from = static_cast<SoftPmap&>(source).space_;
  WriteLock guard(space_.lock);
  // While the source is locked no mapping of it can go, so a remove_all() under way will still find the
  // copies.
  if (!from.lock.try_lock_shared()) return;
  bool room = true;
  from.for_each([&](const SoftMapping& mapping) NO_THREAD_SAFETY_ANALYSIS {
    if (!room || !range.contains(mapping.va)) return;
    room = space_.enter(mapping.va, mapping.frame, Prot::kRead, Wiring::kNotWired) ==
           SoftSpace::EnterResult::kEntered;
  });
  from.lock.unlock_shared();
}

bool SoftPmap::access(VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  const SoftShared& shared = system_.shared();
  const std::uint64_t rights = x86::kPresent | (access == Access::kWrite ? x86::kWritable : 0);
  const std::uint64_t marks =
      (shared.options.reference_bits ? x86::kAccessed : 0) | (access == Access::kWrite ? x86::kDirty : 0);
  shared.note(PmapEvent::kWalk);
  ReadLock guard(space_.lock);
  Pte* const pte = va.value() < x86::kAddressLimit ? space_.find(va) : nullptr;
  const std::uint64_t entry = pte == nullptr ? 0 : pte->load(std::memory_order_relaxed);
  if ((entry & rights) != rights) {
    shared.note(PmapEvent::kFault);
    return false;
  }
  if ((entry & marks) != marks) pte->fetch_or(marks, std::memory_order_relaxed);
  use(system_.bytes_of(x86::frame_of(entry)) + (va.value() & kPageMask));
  return true;
}

void SoftPmap::drop_if(FunctionRef<bool(const SoftMapping&)> drop) {
  WriteLock guard(space_.lock);
  space_.drop_if(drop);
}

void SoftPmap::for_each_mapping(FunctionRef<void(const SoftMapping&)> visit) const {
  ReadLock guard(space_.lock);
  space_.for_each(visit);
}

std::uint64_t SoftPmap::mappings() const {
  ReadLock guard(space_.lock);
  return space_.mappings();
}

std::uint64_t SoftPmap::tables() const {
  ReadLock guard(space_.lock);
  return space_.tables();
}

// ---- SoftPmapSystem
// ----------------------------------------------------------------------------------------------

SoftPmapSystem::SoftPmapSystem(Arena& arena, std::byte* frame_bytes, PageCount frames,
                               const SoftPmapOptions& options)
    : arena_(arena), frame_bytes_(frame_bytes), shared_(arena, frames, options) {}

std::unique_ptr<Pmap> SoftPmapSystem::create_pmap() {
  CHECK(shared_.sink != nullptr);
  MutexLock guard(spaces_lock_);
  SoftSpace* space = free_spaces_.pop_front();
  if (space == nullptr) {
    void* const memory = arena_.allocate(sizeof(SoftSpace));
    if (memory == nullptr) return nullptr;
    space = new (memory) SoftSpace(shared_);
  }
  spaces_.push_back(space);
  return std::make_unique<SoftPmap>(*this, *space);
}

void SoftPmapSystem::release(SoftSpace& space) {
  MutexLock guard(spaces_lock_);
  spaces_.remove(&space);
  free_spaces_.push_front(&space);
}

// Calls act(space, pv) for each pv entry of the frame that `want` chooses, with its space and the pv list
// locked. A list is found first and its spaces only then, against the lock order: so spaces are tried, and
// one that is in use is waited for with nothing held, after which all its entries are done at once; that
// makes sure of progress.
template <class Want, class Act>
std::uint64_t SoftPmapSystem::for_each_locked(FrameNumber frame, Want&& want,
                                              Act&& act) NO_THREAD_SAFETY_ANALYSIS {
  std::uint64_t done = 0;
  std::uint64_t steps = 0;
  PvList& list = shared_.pvs.of(frame);
  for (;;) {
    SoftSpace* busy = nullptr;
    {
      MutexLock guard(shared_.pvs.lock(frame));
      for (PvEntry *pv = list.front(), *next = nullptr; pv != nullptr; pv = next) {
        next = PvList::next(pv);
        ++steps;
        if (!want(*pv)) continue;
        SoftSpace& space = *pv->space;
        if (!space.lock.try_lock()) {
          busy = &space;
          continue;
        }
        act(space, *pv);
        space.lock.unlock();
        ++done;
      }
    }
    if (busy == nullptr) break;
    WriteLock space_guard(busy->lock);
    MutexLock guard(shared_.pvs.lock(frame));
    for (PvEntry *pv = list.front(), *next = nullptr; pv != nullptr; pv = next) {
      next = PvList::next(pv);
      ++steps;
      if (pv->space != busy || !want(*pv)) continue;
      act(*busy, *pv);
      ++done;
    }
  }
  shared_.note(PmapEvent::kPvListStep, steps);
  return done;
}

void SoftPmapSystem::remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  DCHECK(refused.size() == frames.size());
  std::uint64_t removed = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    refused[i] = shared_.pvs.pinned(frames[i]);
    if (refused[i]) continue;
    removed += for_each_locked(
        frames[i], [](const PvEntry&) { return true; },
        [](SoftSpace& space, PvEntry& pv) NO_THREAD_SAFETY_ANALYSIS { space.remove_pv(pv); });
  }
  if (removed != 0) shared_.note(PmapEvent::kShootdown);
}

void SoftPmapSystem::remove_write(FrameNumber frame) {
  const std::uint64_t changed = for_each_locked(
      frame,
      [](const PvEntry& pv) { return (pv.pte->load(std::memory_order_relaxed) & x86::kWritable) != 0; },
      [](SoftSpace& space, PvEntry& pv) NO_THREAD_SAFETY_ANALYSIS { space.remove_write_pv(pv); });
  if (changed != 0) shared_.note(PmapEvent::kShootdown);
}

void SoftPmapSystem::steal(const SoftSpace& space, VirtAddr va, std::span<const FrameNumber> frames) {
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const VirtAddr here = va + ByteCount{i * kPageSize};
    for_each_locked(
        frames[i],
        [&](const PvEntry& pv) {
          const bool wired = (pv.pte->load(std::memory_order_relaxed) & x86::kWired) != 0;
          return !wired && (pv.space != &space || pv.space->address_of(*pv.pte) != here);
        },
        [](SoftSpace& other, PvEntry& pv) NO_THREAD_SAFETY_ANALYSIS { other.remove_pv(pv); });
  }
}

unsigned SoftPmapSystem::ts_referenced(FrameNumber frame) {
  constexpr unsigned kEnough = 5;
  if (!shared_.options.reference_bits) return 0;
  MutexLock guard(shared_.pvs.lock(frame));
  PvList& list = shared_.pvs.of(frame);
  unsigned found = 0;
  // Each entry looked at goes to the end, so that with many mappings all of them are sampled in turn.
  for (std::size_t left = list.size(); left > 0 && found < kEnough; --left) {
    PvEntry* const pv = list.pop_front();
    list.push_back(pv);
    shared_.note(PmapEvent::kPvListStep);
    if ((pv->pte->fetch_and(~x86::kAccessed, std::memory_order_relaxed) & x86::kAccessed) == 0) continue;
    shared_.note(PmapEvent::kInvalidation);
    ++found;
  }
  return found;
}

bool SoftPmapSystem::is_modified(FrameNumber frame) {
  const std::uint64_t modified = shared_.options.dirty_bits ? x86::kDirty : x86::kWritable;
  MutexLock guard(shared_.pvs.lock(frame));
  for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
    if ((pv->pte->load(std::memory_order_relaxed) & modified) != 0) return true;
  }
  return false;
}

void SoftPmapSystem::clear_modify(FrameNumber frame) {
  MutexLock guard(shared_.pvs.lock(frame));
  for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
    pv->pte->fetch_and(~x86::kDirty, std::memory_order_relaxed);
  }
}

SoftSpace* SoftPmapSystem::lock_another(const SoftSpace& self) NO_THREAD_SAFETY_ANALYSIS {
  MutexLock guard(spaces_lock_);
  // Each one tried goes to the end, so that the spaces lose mappings in turn.
  for (std::size_t left = spaces_.size(); left > 0; --left) {
    SoftSpace* const space = spaces_.pop_front();
    spaces_.push_back(space);
    if (space == &self || !space->lock.try_lock()) continue;
    if (space->mappings() != 0) return space;
    space->lock.unlock();
  }
  return nullptr;
}

bool SoftPmapSystem::reclaim_from_others(const SoftSpace& self, bool want_table) NO_THREAD_SAFETY_ANALYSIS {
  std::size_t tries = 0;
  {
    MutexLock guard(spaces_lock_);
    tries = spaces_.size();
  }
  for (; tries > 0; --tries) {
    SoftSpace* const space = lock_another(self);
    if (space == nullptr) return false;
    const bool gained = want_table ? space->reclaim_table() : space->reclaim_pv(VirtAddr{x86::kAddressLimit});
    space->lock.unlock();
    if (gained) return true;
  }
  return false;
}

void SoftPmapSystem::for_each_mapping_of(FrameNumber frame,
                                         FunctionRef<void(VirtAddr, bool writable)> visit) {
  MutexLock guard(shared_.pvs.lock(frame));
  for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
    visit(pv->space->address_of(*pv->pte), (pv->pte->load(std::memory_order_relaxed) & x86::kWritable) != 0);
  }
}

const char* SoftPmapSystem::find_error() NO_THREAD_SAFETY_ANALYSIS {
  std::uint64_t mappings = 0;
  std::uint64_t tables = 0;
  for (SoftSpace* space = spaces_.front(); space != nullptr; space = SpaceList::next(space)) {
    WriteLock guard(space->lock);
    if (const char* error = space->find_error(); error != nullptr) return error;
    mappings += space->mappings();
    tables += space->tables();
  }
  if (tables + shared_.tables.free_count() != shared_.tables.size()) return "page tables were lost";
  std::uint64_t listed = 0;
  for (std::uint32_t i = 0; i < shared_.pvs.frames().value(); ++i) {
    const FrameNumber frame{i};
    for (PvEntry* pv = shared_.pvs.of(frame).front(); pv != nullptr; pv = PvList::next(pv)) {
      const std::uint64_t entry = pv->pte->load(std::memory_order_relaxed);
      if ((entry & x86::kPresent) == 0) return "a pv entry of a mapping that is gone";
      if (x86::frame_of(entry) != frame) return "a pv entry on the list of another frame";
      ++listed;
    }
  }
  if (listed != mappings || listed != shared_.pvs.live()) return "pv entries and mappings differ in number";
  return nullptr;
}

}  // namespace enchilada
