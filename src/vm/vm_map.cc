// VmMap: making maps, the exclusive lock's holder, entries' memory, clip, merge, and mmap.
// Invariants: see vm_map_entry.h and vm_map_tree.h; no two neighbours are left mergeable by an operation.
#include "vm/vm_map.h"

#include <new>
#include <utility>

#include "base/check.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"
#include "vm/vm_prefault.h"

namespace enchilada {

std::unique_ptr<VmMap> VmMap::create(VmSystem& system, VirtRange bounds) {
  return create_with(system, bounds, std::make_shared<MapEntryZone>(system.arena()));
}

std::unique_ptr<VmMap> VmMap::create_with(VmSystem& system, VirtRange bounds,
                                          std::shared_ptr<MapEntryZone> zone) {
  CHECK(page_aligned(bounds.start) && page_aligned(bounds.end) && !bounds.empty());
  std::unique_ptr<Pmap> pmap = system.pmaps().create_pmap();
  if (pmap == nullptr) return nullptr;
  std::unique_ptr<VmMap> map(new VmMap);
  map->impl_ = new Impl(*map, system, bounds, std::move(pmap), std::move(zone));
  return map;
}

VmMap::~VmMap() {
  delete impl_;
}

VmMap::Impl::Impl(VmMap& owner, VmSystem& engine, VirtRange range, std::unique_ptr<Pmap> mappings,
                  std::shared_ptr<MapEntryZone> entry_zone)
    : self(owner),
      system(engine),
      bounds(range),
      pmap(std::move(mappings)),
      zone(std::move(entry_zone)),
      entries(range, engine.map_index()({zone->nodes, engine.counters()}), engine.counters()) {}

VmMap::Impl::~Impl() {
  {
    Writer writer(*this);
    writer.wait_until_stable(bounds);
    pmap->remove_pages();
    CHECK(unwire_all(bounds, writer) && remove_locked(bounds, writer));
  }
  WriteLock guard(lock);
  return_entries_to_zone();
}

void VmMap::Impl::return_entries_to_zone() {
  for (MapEntry* list : {free_entries, returned.exchange(nullptr)}) {
    while (list != nullptr) {
      MapEntry* const next = list->next;
      zone->slab.destroy(list);
      list = next;
    }
  }
  free_entries = nullptr;
}

// --- The lock
// ---------------------------------------------------------------------------------------------------

void VmMap::Impl::lock_exclusive() {
  lock.lock();
  advance_timestamp();
  if (entries.restless()) entries.settle();
}

// Nobody else writes it, so no locked instruction is needed.
void VmMap::Impl::advance_timestamp() {
  timestamp.store(timestamp.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

void VmMap::Impl::unlock_exclusive() {
  lock.unlock();
}

void VmMap::Impl::Writer::wait_until_stable(VirtRange range) {
  while (map_.in_transition != 0 && map_.transition_in(range)) {
    const std::uint32_t seen = map_.transition_event.load(std::memory_order_acquire);
    map_.unlock_exclusive();
    futex_wait(map_.transition_event, seen);
    map_.lock_exclusive();
  }
}

// Deallocating an object may take long and needs no map: after the unlock. `deferred` tells a process fork
// that references are still being dropped; it is raised under the lock so that the fork cannot miss it.
void VmMap::Impl::Writer::finish() {
  if (dead_ == nullptr) {
    map_.unlock_exclusive();
    return;
  }
  map_.deferred.fetch_add(1, std::memory_order_relaxed);
  map_.unlock_exclusive();
  while (dead_ != nullptr) {
    MapEntry* const entry = dead_;
    dead_ = entry->next;
    if (entry->object != nullptr) map_.objects().deallocate(entry->object);
    map_.free_entry(entry);
  }
  // Sequentially consistent, with the waiter's order of the two: no wake-up is missed, and nearly none is
  // paid for.
  if (map_.deferred.fetch_sub(1) == 1 && map_.fork_waits.load() != 0) futex_wake(map_.deferred, 1 << 30);
}

bool VmMap::Impl::transition_in(VirtRange range) {
  for (MapEntry* e = entries.first_ending_after(range.start); e->start < range.end; e = e->next) {
    if (e->in_transition) return true;
  }
  return false;
}

void VmMap::Impl::end_transition(MapEntry* entry) {
  entry->in_transition = false;
  --in_transition;
}

void VmMap::Impl::wake_transition_waiters() {
  transition_event.fetch_add(1, std::memory_order_release);
  futex_wake(transition_event, 1 << 30);
}

void VmMap::lock_for_process_fork() NO_THREAD_SAFETY_ANALYSIS {
  impl_->lock_exclusive();
  while (impl_->in_transition != 0) {
    const std::uint32_t seen = impl_->transition_event.load(std::memory_order_acquire);
    impl_->unlock_exclusive();
    futex_wait(impl_->transition_event, seen);
    impl_->lock_exclusive();
  }
  impl_->fork_waits.store(1);
  for (std::uint32_t n; (n = impl_->deferred.load()) != 0;) futex_wait(impl_->deferred, n);
  impl_->fork_waits.store(0);
}

void VmMap::unlock_after_process_fork() NO_THREAD_SAFETY_ANALYSIS {
  impl_->unlock_exclusive();
}

// --- Entries
// ----------------------------------------------------------------------------------------------------

VmObjectZone& VmMap::Impl::objects() const {
  return system.objects();
}

KernReturn VmMap::Impl::check_range(VirtRange range) const {
  if (!page_aligned(range.start) || !page_aligned(range.end) || range.empty())
    return KernReturn::kInvalidArgument;
  if (range.start < bounds.start || range.end > bounds.end) return KernReturn::kInvalidAddress;
  return KernReturn::kSuccess;
}

// Entries come back on a stack that is only ever pushed and taken whole, so that freeing needs no lock; the
// slab's own lock is taken under the map's exclusive lock only, and a process fork finds it free.
MapEntry* VmMap::Impl::new_entry() {
  if (free_entries == nullptr) free_entries = returned.exchange(nullptr, std::memory_order_acquire);
  if (free_entries == nullptr) {
    if (!adopt_entry()) return nullptr;
    MapEntry* const fresh = zone->slab.create();
    if (fresh == nullptr) --own_entries;
    return fresh;
  }
  MapEntry* const entry = free_entries;
  free_entries = entry->next;
  *entry = MapEntry{};
  return entry;
}

bool VmMap::Impl::adopt_entry() {
  if (!entries.reserve(own_entries + 1)) return false;
  ++own_entries;
  return true;
}

void VmMap::Impl::free_entry(MapEntry* entry) noexcept {
  MapEntry* top = returned.load(std::memory_order_relaxed);
  do {
    entry->next = top;
  } while (!returned.compare_exchange_weak(top, entry, std::memory_order_release, std::memory_order_relaxed));
}

VmMap::Impl::SpareEntries::~SpareEntries() {
  while (list_ != nullptr) map_.free_entry(take());
}

bool VmMap::Impl::SpareEntries::reserve(std::size_t n) {
  for (; n != 0; --n) {
    MapEntry* const entry = map_.new_entry();
    if (entry == nullptr) return false;
    entry->next = list_;
    list_ = entry;
  }
  return true;
}

MapEntry* VmMap::Impl::SpareEntries::take() {
  MapEntry* const entry = list_;
  DCHECK(entry != nullptr);
  list_ = entry->next;
  return entry;
}

void VmMap::Impl::link(MapEntry* prev, MapEntry* entry) {
  entries.insert_after(prev, entry);
  if (entry->kind != EntryKind::kGuard) mapped_bytes += (entry->end - entry->start).value();
}

void VmMap::Impl::unlink(MapEntry* entry) {
  entries.erase(entry);
  if (entry->kind != EntryKind::kGuard) mapped_bytes -= (entry->end - entry->start).value();
}

bool VmMap::Impl::covered(VirtRange range) {
  MapEntry* e;
  if (!entries.lookup(range.start, &e)) return false;
  for (; e->end < range.end; e = e->next) {
    if (e->next == entries.header() || e->next->start != e->end) return false;
  }
  return true;
}

bool VmMap::Impl::ensure_object(MapEntry* entry) {
  if (entry->object != nullptr) return true;
  entry->object = objects().allocate_anonymous(entry->pages());
  entry->offset = PageIndex{0};
  return entry->object != nullptr;
}

// --- Clip and merge
// ---------------------------------------------------------------------------------------------

bool VmMap::Impl::clip_at(VirtAddr address) {
  MapEntry* entry;
  if (!entries.lookup(address, &entry) || entry->start == address) return true;
  DCHECK(!entry->in_transition);
  MapEntry* const upper = new_entry();
  if (upper == nullptr) return false;
  // Both halves should share one object, or they could never become one entry again after a fault. Going on
  // without is only less neat, so a failure to make the object is none.
  if (entry->kind == EntryKind::kObject) (void)ensure_object(entry);
  upper->copy_attributes(*entry);
  upper->needs_copy = entry->needs_copy;
  upper->shared = entry->shared;
  upper->user_wired = entry->user_wired;
  upper->wired_count = entry->wired_count;
  upper->start = address;
  upper->end = entry->end;
  if (entry->object != nullptr) {
    upper->object = entry->object;
    upper->offset = entry->index_of(address);
    objects().reference(*entry->object);
  }
  entry->end = address;  // directly: the gap behind the pair stays as it is
  entries.insert_after(entry, upper);
  return true;
}

bool VmMap::Impl::clip(VirtRange range, Writer& writer) {
  if (clip_at(range.start) && clip_at(range.end)) return true;
  simplify(range, writer);
  return false;
}

bool VmMap::Impl::mergeable(const MapEntry& a, const MapEntry& b) {
  if (a.end != b.start || a.object != b.object) return false;
  if (a.object != nullptr && a.index_of(a.end) != b.offset) return false;
  return a.same_attributes(b) && a.needs_copy == b.needs_copy && a.wired_count == b.wired_count &&
         a.shared == b.shared && a.user_wired == b.user_wired && !a.in_transition && !b.in_transition;
}

// The entry that it went up in has a reference to the same object, so nearly always nothing hangs on this
// one; then it is at once, and still in the cache, what new_entry() gives next.
void VmMap::Impl::retire_merged(MapEntry* entry, Writer& writer) {
  if (entry->object != nullptr && !objects().try_drop_reference(*entry->object)) {
    writer.defer(entry);
    return;
  }
  entry->next = free_entries;
  free_entries = entry;
}

void VmMap::Impl::simplify(VirtRange range, Writer& writer) {
  MapEntry* entry;
  (void)entries.lookup(range.start, &entry);
  if (entry->prev != entries.header() && entry != entries.header()) entry = entry->prev;
  if (entry == entries.header()) entry = entry->next;
  while (entry != entries.header() && entry->start < range.end) {
    MapEntry* const next = entry->next;
    if (next == entries.header()) return;
    if (!mergeable(*entry, *next)) {
      entry = next;
      continue;
    }
    entry->end = next->end;  // directly: the gap behind stays
    entries.erase(next);
    retire_merged(next, writer);
  }
}

// --- mmap
// -------------------------------------------------------------------------------------------------------

void VmMap::Impl::show_file_below(const MapEntry& like, VirtAddr address, MapEntry* entry) {
  if (like.object == nullptr) return;
  PageIndex index{like.offset.value() + (address.value() - like.start.value()) / kPageSize};
  VmObject* const file = objects().reference_bottom(*like.object, &index);
  if (file == nullptr) return;
  entry->object = file;
  entry->offset = index;
  entry->shared = like.shared && file == like.object;
  entry->needs_copy = !entry->shared;
}

void VmMap::Impl::insert(MapEntry* entry, Writer& writer) {
  MapEntry* prev;
  CHECK(!entries.lookup(entry->start, &prev));
  // Like FreeBSD: grow the neighbour's object rather than make one more. A neighbour that awaits a copy
  // shares its object with another map and must not spread it.
  if (entry->object == nullptr && prev != entries.header() && prev->end == entry->start &&
      entry->kind == EntryKind::kObject && prev->object != nullptr && !prev->needs_copy &&
      !prev->in_transition && prev->inherit == entry->inherit &&
      objects().coalesce(*prev->object, prev->offset, prev->pages(), entry->pages())) {
    entry->object = prev->object;
    entry->offset = prev->index_of(prev->end);
    entry->shared = prev->shared;
    objects().reference(*entry->object);
  }
  link(prev, entry);
  simplify(entry->range(), writer);
}

namespace {

void fill_entry(MapEntry* entry, const VmMap::MapRequest& request, VirtRange range) {
  entry->start = range.start;
  entry->end = range.end;
  entry->kind = request.kind;
  entry->prot = request.kind == EntryKind::kGuard ? Prot::kNone : request.prot;
  entry->max_prot = request.kind == EntryKind::kGuard ? Prot::kNone : request.max_prot;
  entry->inherit = request.inherit == Inherit::kZero && request.kind != EntryKind::kObject ? Inherit::kCopy
                                                                                           : request.inherit;
}

}  // namespace

void VmMap::Impl::insert_as_asked(MapEntry* entry, const MapRequest& request, VirtRange range,
                                  Writer& writer) {
  fill_entry(entry, request, range);
  if (request.object != nullptr) {
    objects().reference(*request.object);
    entry->object = request.object;
    entry->offset = request.offset;
    entry->shared = request.shared;
    entry->needs_copy = !request.shared;
    if (request.shared) entry->inherit = Inherit::kShare;
  }
  insert(entry, writer);
}

KernReturn VmMap::Impl::map_fixed(const MapRequest& request, VirtRange range) {
  Writer writer(*this);
  writer.wait_until_stable(range);
  const bool occupied = entries.first_ending_after(range.start)->start < range.end;
  if (occupied && request.placement == MapRequest::Placement::kFixedExclusive) return KernReturn::kNoSpace;
  SpareEntries spares(*this);
  if (!spares.reserve(1)) return KernReturn::kResourceShortage;
  if (occupied && !(unwire_all(range, writer) && remove_locked(range, writer))) {
    return KernReturn::kResourceShortage;
  }
  MapEntry* const entry = spares.take();
  insert_as_asked(entry, request, range, writer);
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::map_anywhere(const MapRequest& request, ByteCount length, VirtAddr* address) {
  Writer writer(*this);
  const auto at = entries.find_space(request.hint, length.value(), request.alignment);
  if (!at) return KernReturn::kNoSpace;
  MapEntry* const entry = new_entry();
  if (entry == nullptr) return KernReturn::kResourceShortage;
  insert_as_asked(entry, request, {*at, *at + length}, writer);
  *address = *at;
  return KernReturn::kSuccess;
}

KernReturn VmMap::Impl::map(const MapRequest& request, VirtAddr* address) {
  const std::uint64_t alignment = request.alignment;
  if (request.length.value() == 0 || alignment < kPageSize || (alignment & (alignment - 1)) != 0 ||
      !allows(request.max_prot, request.prot) ||
      (request.object != nullptr && request.kind != EntryKind::kObject)) {
    return KernReturn::kInvalidArgument;
  }
  if (request.length.value() > bounds.size().value()) return KernReturn::kNoSpace;
  const ByteCount length = to_bytes(to_pages(request.length));
  if (request.placement == MapRequest::Placement::kAnywhere) return map_anywhere(request, length, address);
  const VirtRange range{request.hint, request.hint + length};
  if ((request.hint.value() & (alignment - 1)) != 0) return KernReturn::kInvalidArgument;
  if (range.empty() || check_range(range) != KernReturn::kSuccess) return KernReturn::kInvalidAddress;
  const KernReturn verdict = map_fixed(request, range);
  if (verdict == KernReturn::kSuccess) *address = range.start;
  return verdict;
}

// --- The public face
// --------------------------------------------------------------------------------------------

KernReturn VmMap::map(const MapRequest& request, VirtAddr* address) {
  const KernReturn verdict = impl_->map(request, address);
  if (verdict == KernReturn::kSuccess && request.object != nullptr) {
    (void)vm_prefault_map(*this, {*address, *address + to_bytes(to_pages(request.length))});
  }
  return verdict;
}
KernReturn VmMap::remove(VirtRange range) {
  return impl_->remove(range);
}
KernReturn VmMap::protect(VirtRange range, Prot prot) {
  return impl_->protect(range, prot);
}
KernReturn VmMap::inherit(VirtRange range, Inherit inherit) {
  return impl_->inherit(range, inherit);
}
KernReturn VmMap::advise(VirtRange range, Advice advice) {
  return impl_->advise(range, advice);
}
KernReturn VmMap::wire(VirtRange range, WireKind kind) {
  return impl_->wire(range, kind);
}
KernReturn VmMap::unwire(VirtRange range, WireKind kind) {
  return impl_->unwire(range, kind);
}
KernReturn VmMap::remap(VirtRange from, VirtRange to, bool keep_source) {
  return impl_->remap(from, to, keep_source);
}
KernReturn VmMap::remap_anywhere(VirtRange from, const MapRequest& place, bool keep_source,
                                 VirtAddr* address) {
  return impl_->remap_anywhere(from, place, keep_source, address);
}
KernReturn VmMap::sync(VirtRange range, SyncRequest request) {
  return impl_->sync(range, request);
}
std::unique_ptr<VmMap> VmMap::fork() {
  return impl_->fork();
}
KernReturn VmMap::lookup(VirtAddr address, Access access, MapLookup* found) {
  return impl_->lookup(address, access, found);
}

bool VmMap::is_free(VirtRange range) {
  if (range.empty()) return true;
  ReadLock guard(impl_->lock);
  return impl_->entries.first_ending_after(range.start)->start >= range.end;
}

bool VmMap::is_covered(VirtRange range) {
  if (range.empty()) return true;
  ReadLock guard(impl_->lock);
  return impl_->covered(range);
}

std::optional<VirtAddr> VmMap::find_space(VirtAddr lowest, ByteCount length, std::uint64_t alignment) {
  if (alignment < kPageSize || (alignment & (alignment - 1)) != 0) return std::nullopt;
  if (length.value() == 0 || length.value() > impl_->bounds.size().value()) return std::nullopt;
  ReadLock guard(impl_->lock);
  return impl_->entries.find_space(lowest, to_bytes(to_pages(length)).value(), alignment);
}

Prot VmMap::check_protection(VirtRange range) {
  ReadLock guard(impl_->lock);
  if (range.empty() || !impl_->covered(range)) return Prot::kNone;
  Prot prot = Prot::kAll;
  for (MapEntry* e = impl_->entries.first_ending_after(range.start); e->start < range.end; e = e->next) {
    prot = prot & e->prot;
    if (e->end >= range.end) break;
  }
  return prot;
}

void VmMap::for_each_entry(FunctionRef<void(const EntryView&)> visit) {
  ReadLock guard(impl_->lock);
  for (MapEntry* e = impl_->entries.first(); e != impl_->entries.header(); e = e->next) {
    visit(EntryView{.range = e->range(),
                    .kind = e->kind,
                    .prot = e->prot,
                    .max_prot = e->max_prot,
                    .inherit = e->inherit,
                    .needs_copy = e->needs_copy,
                    .advice = e->advice,
                    .wired_count = e->wired_count,
                    .object = e->object,
                    .offset = e->offset});
  }
}

Pmap& VmMap::pmap() const {
  return *impl_->pmap;
}
VmSystem& VmMap::system() const {
  return impl_->system;
}
VirtRange VmMap::bounds() const {
  return impl_->bounds;
}
std::uint64_t VmMap::timestamp() const {
  return impl_->timestamp.load(std::memory_order_relaxed);
}

std::size_t VmMap::entry_count() const {
  ReadLock guard(impl_->lock);
  return impl_->entries.count();
}

ByteCount VmMap::size() const {
  ReadLock guard(impl_->lock);
  return ByteCount{impl_->mapped_bytes};
}

void VmMap::validate() {
  ReadLock guard(impl_->lock);
  impl_->validate();
}

void VmMap::Impl::validate() {
  entries.validate();
  std::uint64_t bytes = 0;
  std::uint32_t marked = 0;
  for (const MapEntry* e = entries.first(); e != entries.header(); e = e->next) {
    const std::uint64_t at = e->start.value();
    CHECK(page_aligned(e->start) && page_aligned(e->end), at);
    CHECK(e->start >= bounds.start && e->end <= bounds.end, at);
    CHECK(e->kind == EntryKind::kObject || (e->object == nullptr && e->wired_count == 0), at);
    CHECK(!e->needs_copy || e->object != nullptr, at);
    CHECK(allows(e->max_prot, e->prot), at);
    CHECK(!e->user_wired || e->wired_count != 0, at);
    CHECK(!e->shared || (e->object != nullptr && !e->needs_copy), at);
    CHECK(e->next == entries.header() || !mergeable(*e, *e->next), at);
    if (e->kind != EntryKind::kGuard) bytes += (e->end - e->start).value();
    if (e->in_transition) ++marked;
  }
  CHECK(bytes == mapped_bytes, bytes, mapped_bytes);
  CHECK(marked == in_transition, marked, in_transition);
}

}  // namespace enchilada
