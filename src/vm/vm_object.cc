// VmObjectZone: birth, references, pages and death of objects. Chains (shadow, split, collapse) are in
// vm_object_shadow.cc. Invariants: see vm_object.h.
#include "vm/vm_object.h"

#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {
constexpr std::size_t kBatch = 64;
constexpr PageIndex kNoEnd{~std::uint64_t{0}};
}  // namespace

VmObjectZone::VmObjectZone(VmSystem& system)
    : system_(system),
      policy_(CollapsePolicy::make(system.modes().get<CollapseMode>())),
      fates_(SourceFates::of(system.modes().get<CowMoveMode>(), system.modes().get<DeadPagesMode>())),
      slab_(system.arena(), 16),
      nodes_(system.arena()) {}

bool VmObjectZone::reserve() {
  return slab_.reserve(16) && nodes_.reserve();
}

VmObject* VmObjectZone::allocate_anonymous(PageCount size) {
  return allocate(ObjectKind::kAnonymous, size, system_.swap(), {});
}

VmObject* VmObjectZone::allocate(ObjectKind kind, PageCount size, Pager& pager, const PagerHandle& handle) {
  VmObject* object = nullptr;
  {
    MutexLock guard(lock_);
    object = idle_.pop_front();
  }
  if (object == nullptr) object = slab_.create();
  if (object == nullptr) return nullptr;
  object->flags = kind == ObjectKind::kAnonymous ? VmObject::kOneMapping : 0;
  object->size = size;
  object->kind = kind;
  object->pager = &pager;
  object->handle = handle;
  object->neighbours.reset(static_cast<std::uint32_t>(system_.tunables().readahead_min.value()));
  object->colour.store(system_.free_frames().base_colour(size), std::memory_order_relaxed);
  // Last: whoever looks late at a dead object (hold_next_stored()) sees no reference, or a whole object.
  object->ref_count.store(1, std::memory_order_release);
  MutexLock guard(lock_);
  object->live = true;
  live_.push_back(object);
  return object;
}

void VmObject::await_paging() {
  const std::uint32_t now = pip.fetch_or(kPagingAwaited, std::memory_order_acquire) | kPagingAwaited;
  if (now >= kPagingOne) futex_wait(pip, now);
}

/// Makes a dead object ready for reuse. Its lock and its memory stay, so a late look at it harms nobody.
void VmObjectZone::recycle(VmObject& object) {
  CHECK(object.pages.count() == 0 && object.shadow_count == 0 && object.backing == nullptr);
  CHECK(!object.paging());
  object.pip.store(0, std::memory_order_relaxed);
  system_.free_frames().object_gone(object);
  object.pager->forget_all(object.handle);
  object.handle = {};
  object.ref_count.store(0, std::memory_order_relaxed);
  object.flags = 0;
  object.reads.clear();
  object.fills.clear();
  object.copied.clear();
  object.copied_from.clear();
  object.bypass_retry = 0;
  object.backing_offset = PageCount{0};
  MutexLock guard(lock_);
  object.live = false;
  live_.remove(&object);
  idle_.push_front(&object);
}

void VmObjectZone::reference(VmObject& object) {
  const std::uint32_t old = object.ref_count.fetch_add(1, std::memory_order_relaxed);
  DCHECK(old > 0);
  (void)old;
}

bool VmObjectZone::try_drop_reference(VmObject& object) {
  std::uint32_t refs = object.ref_count.load(std::memory_order_relaxed);
  while (refs > 2) {
    if (object.ref_count.compare_exchange_weak(refs, refs - 1, std::memory_order_release)) return true;
  }
  return false;
}

void VmObjectZone::deallocate(VmObject* object) {
  while (object != nullptr) object = drop_reference(*object);
}

/// Drops one reference; returns the object that loses one in turn (the backing object of one that died).
VmObject* VmObjectZone::drop_reference(VmObject& object) NO_THREAD_SAFETY_ANALYSIS {  // terminate() unlocks
  if (try_drop_reference(object)) return nullptr;
  // Nobody else refers to it, so what is written now is all there will ever be.
  const bool last = object.ref_count.load(std::memory_order_relaxed) == 1;
  if (object.kind == ObjectKind::kFile && last) (void)clean(object, PageIndex{0}, kNoEnd, Clean::kKeep);
  object.lock.lock();
  const std::uint32_t refs = object.ref_count.fetch_sub(1, std::memory_order_acq_rel) - 1;
  if (refs == 0) return terminate(object);
  VmObject* heir = nullptr;
  if (refs == 1 && object.shadow_count == 0 && object.anonymous()) object.flags |= VmObject::kOneMapping;
  if (refs == 1 && object.shadow_count == 1 && object.anonymous()) {
    heir = object.shadows.front();  // cannot go: an object leaves this list before it waits for its pip
    heir->begin_paging();
  }
  object.lock.unlock();
  if (heir != nullptr) {
    collapse_at(CollapseMoment::kDereference, *heir);
    heir->end_paging();
  }
  return nullptr;
}

/// The last reference is gone. Object locked on entry, recycled on return. Returns the former backing object,
/// whose reference the caller now has to drop.
VmObject* VmObjectZone::terminate(VmObject& object) NO_THREAD_SAFETY_ANALYSIS {
  CHECK(object.shadow_count == 0);
  object.flags |= VmObject::kDead;
  VmObject* const backing = object.backing;
  if (backing != nullptr) detach(object);
  do {
    while (object.paging()) {
      object.lock.unlock();
      object.await_paging();
      object.lock.lock();
    }
    // Unlocks while it waits for a busy page: the page daemon may then take others for a write.
    free_all_pages(object);
  } while (object.paging());
  object.lock.unlock();
  recycle(object);
  return backing;
}

void VmObjectZone::free_all_pages(VmObject& object) {
  if (object.kind == ObjectKind::kDevice) return free_device_pages(object);
  free_range(object, PageIndex{0}, kNoEnd);
}

/// Frees the pages of [first, end). Waits for busy ones; the object is unlocked meanwhile.
void VmObjectZone::free_range(VmObject& object, PageIndex first, PageIndex end) NO_THREAD_SAFETY_ANALYSIS {
  std::array<FrameNumber, kBatch> doomed;
  std::size_t n = 0;
  const auto flush = [&] {
    remove_pages(object, {doomed.data(), n});
    release({doomed.data(), n});
    n = 0;
  };
  VmRadix::Item item;
  PageIndex at = first;
  while (object.pages.find_least(at, &item) && item.index < end) {
    Page& page = system_.page(item.frame);
    if (page.try_busy()) {
      doomed[n++] = item.frame;
      at = item.index + PageCount{1};
      if (n == kBatch) flush();
      continue;
    }
    flush();
    object.lock.unlock();
    page.wait_not_busy();
    object.lock.lock();
    at = item.index;
  }
  flush();
}

void VmObjectZone::remove_range(VmObject& object, PageIndex first, PageCount count) {
  if (!object.anonymous()) return;  // a file's pages stay for whoever maps it next
  collapse_at(CollapseMoment::kRemoval, object);
  WriteLock guard(object.lock);
  const bool sole = object.one_mapping() || object.refs() == 1;
  if (!sole || object.shadow_count != 0) return;
  free_range(object, first, first + count);
  if (object.copies() != 0) object.pager->forget(object.handle, first, count);
}

void VmObjectZone::clear_one_mapping(VmObject& object) {
  WriteLock guard(object.lock);
  object.flags &= ~VmObject::kOneMapping;
}

bool VmObjectZone::insert_page(VmObject& object, PageIndex index, FrameNumber frame) {
  Page& page = system_.page(frame);
  DCHECK(page.is_exclusive() && page.object == nullptr, frame.value());
  if (!object.pages.insert(nodes_, index, frame)) return false;
  page.object = &object;
  page.pindex = index;
  return true;
}

void VmObjectZone::remove_pages(VmObject& object, std::span<const FrameNumber> frames) {
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    DCHECK(page.is_exclusive() && page.object == &object, frame.value());
    const FrameNumber removed = object.pages.remove(nodes_, page.pindex);
    CHECK(removed == frame, removed.value(), frame.value());
    page.object = nullptr;
    if (page.has(Page::kReadAhead)) count(system_.counters().readahead_waste);
    if (page.wire_count.exchange(0, std::memory_order_relaxed) != 0) {
      system_.counters().wire_count.fetch_sub(1, std::memory_order_relaxed);
    }
  }
  if (!frames.empty()) system_.queues().move(frames, PageQueue::kNone);
}

void VmObjectZone::release(std::span<const FrameNumber> frames) {
  while (!frames.empty()) {
    const std::size_t n = frames.size() < kBatch ? frames.size() : kBatch;
    std::array<FrameNumber, kBatch> mapped;
    std::array<FrameNumber, kBatch> idle;
    std::array<bool, kBatch> refused{};
    std::size_t mapped_n = 0;
    std::size_t idle_n = 0;
    for (const FrameNumber frame : frames.first(n)) {
      (system_.page(frame).has(Page::kMapped) ? mapped[mapped_n++] : idle[idle_n++]) = frame;
    }
    if (mapped_n > 0) system_.pmaps().discard_all({mapped.data(), mapped_n}, {refused.data(), mapped_n});
    for (std::size_t i = 0; i < mapped_n; ++i) {
      if (refused[i]) {
        system_.queues().move(mapped[i], PageQueue::kLimbo);
        system_.page(mapped[i]).unbusy();
      } else {
        idle[idle_n++] = mapped[i];
      }
    }
    for (std::size_t i = 0; i < idle_n; ++i) {  // what was written has been reported by now
      if (system_.page(idle[i]).has(Page::kPrecopied)) count(system_.counters().precopy_vain);
    }
    if (idle_n > 0) system_.free_frames().free({idle.data(), idle_n});
    frames = frames.subspan(n);
  }
}

bool VmObjectZone::rename_page(VmObject& from, Page& page, VmObject& to, PageIndex index) {
  const FrameNumber frame = system_.frame_of(page);
  if (!to.pages.insert(nodes_, index, frame)) return false;
  from.pages.remove(nodes_, page.pindex);
  if (from.copies() != 0) from.pager->forget(from.handle, page.pindex, PageCount{1});
  page.set_dirty(true);
  // It has lost its copy in the store, so it may not wait among those that are freed without a look.
  if (page.queue() == PageQueue::kCache) system_.queues().move(frame, PageQueue::kInactive);
  system_.free_frames().renamed(frame, from, page.pindex, to, index);
  page.object = &to;
  page.pindex = index;
  return true;
}

std::size_t VmObjectZone::live() const {
  MutexLock guard(lock_);
  return live_.size();
}

void VmObjectZone::for_each(FunctionRef<void(VmObject&)> visit) {
  MutexLock guard(lock_);
  for (VmObject* o = live_.front(); o != nullptr; o = live_.next(o)) visit(*o);
}

VmObject* VmObjectZone::hold_next_stored(VmObject* previous) {
  VmObject* at = previous;
  VmObject* found = nullptr;
  bool first = previous == nullptr;
  while (found == nullptr) {
    {
      MutexLock guard(lock_);
      // Without its zone's lock it may have gone, and with it the place.
      at = first ? live_.front() : at->live ? live_.next(at) : nullptr;
      first = false;
    }
    if (at == nullptr) break;
    WriteLock guard(at->lock);
    // In this order: with a reference it is a whole object again, whatever it was before. One that has just
    // been collapsed has no copies, and must not be held any more.
    if (at->refs() == 0 || at->dead() || !at->anonymous() || at->copies() == 0) continue;
    at->begin_paging();
    found = at;
  }
  if (previous != nullptr) previous->end_paging();
  return found;
}

void VmObjectZone::validate_object(VmObject& object) NO_THREAD_SAFETY_ANALYSIS {  // under for_each()'s lock
  CHECK(object.refs() >= 1 && object.refs() >= object.shadow_count, object.refs(), object.shadow_count);
  CHECK(!object.dead());
  CHECK(object.anonymous() || (object.backing == nullptr && !object.one_mapping()));
  CHECK(object.shadow_count == object.shadows.size(), object.shadow_count, object.shadows.size());
  for (VmObject* s = object.shadows.front(); s != nullptr; s = object.shadows.next(s))
    CHECK(s->backing == &object);
  VmRadix::Item item;
  std::uint64_t n = 0;
  for (PageIndex at{0}; object.pages.find_least(at, &item); at = item.index + PageCount{1}, ++n) {
    const Page& page = system_.page(item.frame);
    CHECK(page.object == &object && page.pindex == item.index, item.frame.value(), item.index.value());
    CHECK(page.queue() != PageQueue::kFree && page.queue() != PageQueue::kLimbo, item.frame.value());
    CHECK(page.is_valid() || page.is_busy(), item.frame.value());
    CHECK(page.is_busy() || page.is_wired() == (page.queue() == PageQueue::kNone), item.frame.value());
    CHECK(item.index.value() < object.size.value(), item.index.value(), object.size.value());
  }
  CHECK(n == object.pages.count(), n, object.pages.count());
  std::size_t steps = 0;
  for (const VmObject* o = &object; o != nullptr; o = o->backing) CHECK(++steps <= live_.size());
}

void VmObjectZone::validate() {
  std::uint64_t resident = 0;
  for_each([&](VmObject& object) NO_THREAD_SAFETY_ANALYSIS {  // for_each holds the zone's lock
    validate_object(object);
    if (object.kind != ObjectKind::kDevice) resident += object.pages.count();
  });
  const std::uint64_t held = system_.free_frames().granted() - system_.free_frames().free_count();
  CHECK(resident <= held, resident, held);
}

}  // namespace enchilada
