// Images of ranges: capture, restore, and what has changed since.
// Invariant of all three: what can fail (checks, clips, entries) comes before the first change.
#include "vm/vm_map_image.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "vm/vm_map_impl.h"
#include "vm/vm_object.h"

namespace enchilada {

void MapImage::for_each_object(FunctionRef<void(VmObject&)> visit) const {
  for (const MapEntry* e = entries_; e != nullptr; e = e->next) {
    if (e->object != nullptr) visit(*e->object);
  }
}

KernReturn VmMap::capture(VirtRange range, std::unique_ptr<MapImage>* image) {
  MapEntry* entries = nullptr;
  const KernReturn verdict = impl_->capture(range, &entries);
  if (verdict == KernReturn::kSuccess) *image = std::make_unique<MapImage>(*this, range, entries);
  return verdict;
}

KernReturn VmMap::restore(const MapImage& image, VirtAddr at) {
  if (&image.map() != this) return KernReturn::kInvalidArgument;
  return impl_->restore(image, at);
}

void VmMap::for_each_change(const MapImage& image, VirtAddr at, FunctionRef<void(VirtRange)> visit) {
  CHECK(&image.map() == this);
  impl_->for_each_change(image, at, visit);
}

void VmMap::release_image(MapEntry* entries) {
  while (entries != nullptr) {
    MapEntry* const entry = entries;
    entries = entry->next;
    if (entry->object != nullptr) impl_->objects().deallocate(entry->object);
    impl_->free_entry(entry);
  }
}

// --- Capture
// ------------------------------------------------------------------------------------------------

namespace {

// Memory into which somebody goes on writing without a fault has no image without copying it.
bool can_be_captured(const MapEntry& entry) {
  return entry.kind == EntryKind::kObject && !entry.shared &&
         (entry.wired_count == 0 || !allows(entry.prot, Prot::kWrite));
}

}  // namespace

KernReturn VmMap::Impl::capture(VirtRange range, MapEntry** image) {
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  if (!covered(range)) return KernReturn::kInvalidAddress;
  for (MapEntry* e = entries.first_ending_after(range.start); e->start < range.end; e = e->next) {
    if (!can_be_captured(*e)) return KernReturn::kInvalidArgument;
  }
  SpareEntries spares(*this);
  bool ready = clip(range, writer);
  for (MapEntry* e = entries.first_ending_after(range.start); ready && e->start < range.end; e = e->next) {
    ready = spares.reserve(1);
  }
  if (ready) {
    RangeRuns no_write([this](VirtRange run) { pmap->protect(run, without(Prot::kAll, Prot::kWrite)); });
    MapEntry** last = image;
    for (MapEntry* e = entries.first_ending_after(range.start); e->start < range.end; e = e->next) {
      for_each_writable(*e, [&](VirtRange run) { no_write.add(run); });
      MapEntry* const copy = spares.take();
      copy->copy_attributes(*e);
      copy->start = e->start;
      copy->end = e->end;
      CHECK(copy_on_write_with_child(e, copy));
      copy->next = nullptr;
      *last = copy;
      last = &copy->next;
    }
  }
  simplify(range, writer);
  return ready ? KernReturn::kSuccess : KernReturn::kResourceShortage;
}

// --- Restore
// ------------------------------------------------------------------------------------------------

// What was written since the image was taken lies in shadows above the image's object: only those pages lose
// their mappings, what is below is mapped read-only and stays. Unmapping is always allowed, so it does no
// harm when the object turns out not to be there (bypassed, or another history).
// The next object is locked before this one is let go, so that the chain is one that there was.
bool VmMap::Impl::unmap_down_to(const MapEntry& entry, const VmObject* target,
                                PageIndex target_offset) NO_THREAD_SAFETY_ANALYSIS {
  VmObject* object = entry.object;
  PageIndex first = entry.offset;
  object->lock.lock_shared();
  while (object != target) {
    RangeRuns mapped([this](VirtRange run) { pmap->remove(run); });
    for_each_shown(*object, first, entry.range(), [&](VirtRange run) { mapped.add(run); });
    mapped.done();
    first = first + object->backing_offset;
    VmObject* const below = object->backing;
    if (below != nullptr) below->lock.lock_shared();
    object->lock.unlock_shared();
    if (below == nullptr) return false;
    object = below;
  }
  object->lock.unlock_shared();
  return first == target_offset;
}

// The image may be the only one that still had the object, which then counts as mapped once: no longer.
void VmMap::Impl::refer_to(VmObject& object) {
  objects().reference(object);
  objects().clear_one_mapping(object);
}

// `entry` spans what `saved` spans. True: it shows the saved contents again and keeps its other mappings.
bool VmMap::Impl::put_back_in_place(MapEntry* entry, const MapEntry& saved, SpareEntries& spares,
                                    Writer& writer) {
  if (!entry->same_attributes(saved) || entry->shared || entry->object == nullptr ||
      saved.object == nullptr) {
    return false;
  }
  if (entry->object == saved.object && entry->offset == saved.offset && entry->needs_copy) return true;
  // Whatever comes of this, the entry's own contents go: first of all, while they are mapped
  // (vm_map_remove.cc says why).
  objects().remove_range(*entry->object, entry->offset, entry->pages());
  if (!unmap_down_to(*entry, saved.object, saved.offset)) return false;
  MapEntry* const carrier = spares.take();  // of the reference, until the map is unlocked
  carrier->object = entry->object;
  refer_to(*saved.object);
  entry->object = saved.object;
  entry->offset = saved.offset;
  entry->needs_copy = true;
  writer.defer(carrier);
  return true;
}

KernReturn VmMap::Impl::restore(const MapImage& image, VirtAddr at) {
  const VirtRange range{at, at + image.length()};
  if (const KernReturn bad = check_range(range); bad != KernReturn::kSuccess) return bad;
  Writer writer(*this);
  writer.wait_until_stable(range);
  for (MapEntry* e = entries.first_ending_after(range.start); e->start < range.end; e = e->next) {
    if (e->kind == EntryKind::kForeign || e->wired_count != 0) return KernReturn::kInvalidArgument;
  }
  const auto moved = [&](VirtAddr was) { return at + (was - image.range().start); };
  SpareEntries spares(*this);
  bool ready = clip(range, writer);
  for (const MapEntry* saved = image.entries(); ready && saved != nullptr; saved = saved->next) {
    ready = clip_at(moved(saved->start)) && clip_at(moved(saved->end)) && spares.reserve(1);
  }
  for (const MapEntry* saved = image.entries(); ready && saved != nullptr; saved = saved->next) {
    const VirtRange place{moved(saved->start), moved(saved->end)};
    MapEntry* there;
    const bool alone = entries.lookup(place.start, &there) && there->range() == place;
    if (alone && put_back_in_place(there, *saved, spares, writer)) continue;
    CHECK(remove_locked(place, writer));  // its ends are boundaries already
    MapEntry* const entry = spares.take();
    entry->copy_attributes(*saved);
    entry->start = place.start;
    entry->end = place.end;
    entry->object = saved->object;
    entry->offset = saved->offset;
    entry->needs_copy = saved->needs_copy;
    if (entry->object != nullptr) refer_to(*entry->object);
    MapEntry* prev;
    CHECK(!entries.lookup(entry->start, &prev));
    link(prev, entry);
  }
  simplify(range, writer);
  return ready ? KernReturn::kSuccess : KernReturn::kResourceShortage;
}

// --- What has changed
// ---------------------------------------------------------------------------------------

namespace {

/// The chain of objects behind one place of an address space, seen from page 0 of a window.
class Chain {
 public:
  Chain(VmSystem& system, VmObject* object, PageIndex first) : system_(system), top_(object), first_(first) {}

  [[nodiscard]] bool contains(const VmObject* object, PageIndex first) const {
    PageIndex offset = first_;
    for (const VmObject* o = top_; o != nullptr; offset = offset + o->backing_offset, o = o->backing) {
      if (o == object && offset == first) return true;
    }
    return false;
  }

  /// Smallest page >= i of the window, below `limit`, that an object above the part common with `other` has.
  [[nodiscard]] std::uint64_t next(const Chain& other, std::uint64_t i, std::uint64_t limit) const {
    std::uint64_t least = limit;
    PageIndex offset = first_;
    for (VmObject* o = top_; o != nullptr; offset = offset + o->backing_offset, o = o->backing) {
      if (other.contains(o, offset)) break;
      VmRadix::Item item;
      if (o->pages.find_least(offset + PageCount{i}, &item)) {
        least = std::min(least, (item.index - offset).value());
      }
      PageIndex copy;
      if (o->copies() != 0 && o->pager->find_least(o->handle, offset + PageCount{i}, &copy)) {
        least = std::min(least, (copy - offset).value());
      }
    }
    return least;
  }

  /// The object that page i of the window comes from; null: zeros.
  [[nodiscard]] const VmObject* source(std::uint64_t i) const {
    PageIndex offset = first_;
    for (VmObject* o = top_; o != nullptr; offset = offset + o->backing_offset, o = o->backing) {
      if (o->pages.find(offset + PageCount{i}) != kNoFrame) return o;
      if (o->copies() != 0 && system_.objects().has_copy(*o, offset + PageCount{i})) return o;
    }
    return nullptr;
  }

 private:
  VmSystem& system_;
  VmObject* top_;
  PageIndex first_;
};

}  // namespace

void VmMap::Impl::compare(const MapEntry* entry, const MapEntry& saved, VirtRange place, VirtAddr saved_at,
                          FunctionRef<void(VirtRange)> visit) {
  const Chain now(system, entry->object, entry->index_of(place.start));
  const Chain then(system, saved.object, saved.index_of(saved_at));
  const std::uint64_t pages = to_pages(place.size()).value();
  RangeRuns changed([&visit](VirtRange run) { visit(run); });
  for (std::uint64_t i = 0;; ++i) {
    i = std::min(now.next(then, i, pages), then.next(now, i, pages));
    if (i >= pages) break;
    if (now.source(i) == then.source(i)) continue;
    const VirtAddr at = place.start + to_bytes(PageCount{i});
    changed.add({at, at + ByteCount{kPageSize}});
  }
  changed.done();
}

// The caller keeps the engine at rest, so chains stay as they are without their locks.
void VmMap::Impl::for_each_change(const MapImage& image, VirtAddr at, FunctionRef<void(VirtRange)> visit) {
  ReadLock guard(lock);
  for (const MapEntry* saved = image.entries(); saved != nullptr; saved = saved->next) {
    const VirtAddr captured = image.range().start;
    const VirtRange place{at + (saved->start - captured), at + (saved->end - captured)};
    VirtAddr done = place.start;
    for (MapEntry* e = entries.first_ending_after(place.start); done < place.end; e = e->next) {
      const VirtAddr start = std::min(place.end, std::max(done, e->start));
      if (done < start) visit({done, start});  // a hole
      const VirtRange here{start, std::min(place.end, e->end)};
      if (here.start < here.end) compare(e, *saved, here, saved->start + (here.start - place.start), visit);
      done = std::max(start, here.end);
    }
  }
}

}  // namespace enchilada
