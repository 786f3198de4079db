// VmObjectZone, chains: shadow, coalesce, split, collapse and the all-shadowed bypass (freebsd-vm.md §1.3,
// §1.4).
//
// Invariants: a collapse moves one page at a time and each state between is right (the same bytes are found
// through the parent), so it may stop anywhere; it never waits for a busy page. Swap-only pages count on both
// sides. Where the parent has a page, the backing object's swap copy is dropped before copies are handed
// over: a clean page of the parent could otherwise be replaced later by what it had hidden.
#include <algorithm>
#include <array>

#include "vm/vm_object.h"
#include "vm/vm_phys.h"

namespace enchilada {

void VmObjectZone::attach(VmObject& shadow, VmObject& backing, PageCount offset) {
  shadow.backing = &backing;
  shadow.backing_offset = offset;
  WriteLock guard(backing.lock);
  backing.shadows.push_back(&shadow);
  ++backing.shadow_count;
  backing.flags &= ~VmObject::kOneMapping;
}

void VmObjectZone::detach(VmObject& shadow) {
  VmObject& backing = *shadow.backing;
  shadow.backing = nullptr;
  WriteLock guard(backing.lock);
  backing.shadows.remove(&shadow);
  --backing.shadow_count;
}

bool VmObjectZone::shadow(VmObject** object, PageIndex* offset, PageCount length) {
  VmObject* const source = *object;
  if (source->anonymous() && source->refs() == 1) return true;  // the entry's own: nobody else sees it
  VmObject* const fresh = allocate_anonymous(length);
  if (fresh == nullptr) return false;
  attach(*fresh, *source, PageCount{offset->value()});
  fresh->inherit_colour(*source, PageCount{offset->value()});
  *object = fresh;
  *offset = PageIndex{0};
  count(system_.counters().object_shadows);
  return true;
}

bool VmObjectZone::coalesce(VmObject& object, PageIndex offset, PageCount size, PageCount extra) {
  if (!object.anonymous()) return false;
  collapse_at(CollapseMoment::kCoalesce, object);
  WriteLock guard(object.lock);
  if (object.backing != nullptr) return false;
  const PageIndex end = offset + size;
  // With other references the indexes behind the entry may belong to somebody (a moved piece): only at the
  // very end.
  if (object.refs() > 1 && object.size.value() != end.value()) return false;
  if (end.value() < object.size.value()) {
    free_range(object, end, end + extra);
    if (object.copies() != 0) object.pager->forget(object.handle, end, extra);
  }
  if (end.value() + extra.value() > object.size.value()) object.size = PageCount{end.value() + extra.value()};
  return true;
}

void VmObjectZone::prepare_for_copy(VmObject& object) {
  collapse_at(CollapseMoment::kFork, object);
  clear_one_mapping(object);
}

bool VmObjectZone::busy_range(VmObject& object, PageIndex first, PageIndex end) {
  VmRadix::Item item;
  for (PageIndex at = first; object.pages.find_least(at, &item) && item.index < end;
       at = item.index + PageCount{1}) {
    if (system_.page(item.frame).try_busy()) continue;
    unbusy_range(object, first, item.index);
    return false;
  }
  return true;
}

void VmObjectZone::unbusy_range(VmObject& object, PageIndex first, PageIndex end) {
  VmRadix::Item item;
  for (PageIndex at = first; object.pages.find_least(at, &item) && item.index < end;
       at = item.index + PageCount{1}) {
    system_.page(item.frame).unbusy();
  }
}

/// Moves the pages (all busy) and swap copies of a range to a fresh object. Metadata has been set aside.
void VmObjectZone::move_range(VmObject& from, PageIndex first, PageIndex end, VmObject& to) {
  VmRadix::Item item;
  while (from.pages.find_least(first, &item) && item.index < end) {
    Page& page = system_.page(item.frame);
    const PageIndex index{item.index.value() - first.value()};
    from.pages.remove(nodes_, item.index);
    CHECK(to.pages.insert(nodes_, index, item.frame));
    system_.free_frames().renamed(item.frame, from, item.index, to, index);
    page.object = &to;
    page.pindex = index;
    page.unbusy();
  }
  if (from.copies() != 0) from.pager->split(from.handle, first, end - first, to.handle);
}

bool VmObjectZone::split(VmObject** object, PageIndex* offset, PageCount size) {
  VmObject& source = **object;
  if (!source.anonymous()) return false;
  const PageIndex end = *offset + size;
  std::uint64_t pages = 0;
  const auto apt = [&source] {
    return source.one_mapping() && source.refs() > 1 && source.shadow_count == 0;
  };
  {
    ReadLock guard(source.lock);
    if (!apt()) return false;  // the usual case
    pages = std::min(size.value(), source.pages.count());
  }
  // At most a leaf for each 64 pages of the range, and for each page that is there with all that is above it.
  constexpr std::uint64_t kLevelsAbove = 7;
  const std::uint64_t leaves = std::min(size.value() / 64 + 2, pages + 2);
  const std::uint64_t inners = std::min(size.value() / 64 / 32, leaves * kLevelsAbove) + 8;
  if (!nodes_.leaves.reserve(static_cast<std::size_t>(leaves)) ||
      !nodes_.inners.reserve(static_cast<std::size_t>(inners))) {
    return false;
  }
  VmObject* const fresh = allocate_anonymous(size);
  if (fresh == nullptr) return false;
  {
    WriteLock guard(source.lock);
    const bool enough = source.pages.count() <= pages || leaves > size.value() / 64;
    if (apt() && enough && busy_range(source, *offset, end)) {
      WriteLock fresh_guard(fresh->lock);  // the page daemon finds it by way of the first page that has moved
      if (source.backing != nullptr) {
        reference(*source.backing);
        attach(*fresh, *source.backing, PageCount{source.backing_offset.value() + offset->value()});
      }
      fresh->inherit_colour(source, PageCount{offset->value()});
      move_range(source, *offset, end, *fresh);
      source.ref_count.fetch_sub(1, std::memory_order_acq_rel);  // the entry's; at least one other is left
      *object = fresh;
      *offset = PageIndex{0};
      return true;
    }
  }
  deallocate(fresh);
  return false;
}

// ---------------------------------------------------------------------------------------------- collapse,
// bypass

/// Collapses `object` and then, when a bypass has left a sibling as the only one that shadows an object, that
/// one.
void VmObjectZone::collapse(VmObject& object) {
  VmObject* held = nullptr;
  VmObject* current = &object;
  for (;;) {
    VmObject* const sibling = collapse_chain(*current);
    if (held != nullptr) held->end_paging();
    if (sibling == nullptr) return;
    current = held = sibling;
  }
}

/// Returns an object, kept alive by paging-in-progress, whose backing object has just become its own; or
/// null.
VmObject* VmObjectZone::collapse_chain(VmObject& object)
    NO_THREAD_SAFETY_ANALYSIS {  // locks follow the chain
  VmObject* sibling = nullptr;
  WriteLock guard(object.lock);
  if (object.dead()) return nullptr;
  while (object.backing != nullptr && object.backing->anonymous()) {
    VmObject& backing = *object.backing;
    backing.lock.lock();
    count(system_.counters().object_collapse_tries);
    const bool own = backing.refs() == 1;
    const bool done = own ? merge_backing(object, backing) : bypass(object, backing);
    VmObject* other = nullptr;
    if (done && !own && backing.refs() == 1 && backing.shadow_count == 1) {
      other = backing.shadows.front();
      other->begin_paging();
    }
    backing.lock.unlock();
    if (!done) break;
    if (own) {
      // Until it left the list of its own backing object, somebody may have found it there as the only shadow
      // and held it to collapse it: there is nothing left in it to collapse.
      while (backing.paging()) backing.await_paging();
      recycle(backing);
    }
    if (other == nullptr) continue;
    if (sibling != nullptr) sibling->end_paging();
    sibling = other;
  }
  return sibling;
}

/// Only `object` refers to `backing`: takes over all it has. Both locked. False: something is busy, try
/// another time.
bool VmObjectZone::merge_backing(VmObject& object, VmObject& backing) {
  if (backing.paging()) return false;
  object.flags |= VmObject::kCollapsing;
  backing.flags |= VmObject::kCollapsing;
  const bool moved = move_backing_pages(object, backing);
  if (moved) {
    hand_over_swap(object, backing);
    take_backing_of(object, backing);
    count(system_.counters().object_collapses);
  }
  object.flags &= ~VmObject::kCollapsing;
  backing.flags &= ~VmObject::kCollapsing;
  return moved;
}

bool VmObjectZone::move_backing_pages(VmObject& object, VmObject& backing) {
  std::array<FrameNumber, 64> doomed;
  std::size_t n = 0;
  bool all = true;
  std::uint64_t moved = 0;
  std::uint64_t freed = 0;
  VmRadix::Item item;
  for (PageIndex at{0}; all && backing.pages.find_least(at, &item); at = item.index + PageCount{1}) {
    switch (absorb_page(object, backing, item)) {
      case Absorbed::kMoved:
        ++moved;
        break;
      case Absorbed::kHidden:
        ++freed;
        doomed[n++] = item.frame;
        break;
      case Absorbed::kStuck:
        all = false;
        break;
    }
    if (n == doomed.size() || !all) {
      remove_pages(backing, {doomed.data(), n});
      release({doomed.data(), n});
      n = 0;
    }
  }
  remove_pages(backing, {doomed.data(), n});
  release({doomed.data(), n});
  count(system_.counters().object_collapse_moved, moved);
  count(system_.counters().object_collapse_freed, freed);
  return all;
}

/// One page of the backing object: moves into the parent, or is hidden there (then it stays busy, to be
/// freed).
VmObjectZone::Absorbed VmObjectZone::absorb_page(VmObject& object, VmObject& backing, VmRadix::Item item) {
  Page& page = system_.page(item.frame);
  if (!page.try_busy()) return Absorbed::kStuck;
  const std::uint64_t offset = object.backing_offset.value();
  const std::uint64_t at = item.index.value();
  if (at < offset || at - offset >= object.size.value()) return Absorbed::kHidden;
  const PageIndex index{at - offset};
  const FrameNumber above = object.pages.find(index);
  if (above != kNoFrame && !system_.page(above).is_valid()) {  // being filled: let that end first
    page.unbusy();
    return Absorbed::kStuck;
  }
  if (above != kNoFrame || has_copy(object, index)) return Absorbed::kHidden;
  const bool moved = page.is_valid() && rename_page(backing, page, object, index);
  page.unbusy();
  return moved ? Absorbed::kMoved : Absorbed::kStuck;
}

void VmObjectZone::hand_over_swap(VmObject& object, VmObject& backing) {
  if (backing.copies() == 0) return;
  Pager& pager = *object.pager;  // the system's swap: both are anonymous
  const PageCount offset = object.backing_offset;
  PageIndex at;
  for (PageIndex from{0}; pager.find_least(backing.handle, from, &at); from = at + PageCount{1}) {
    if (at.value() < offset.value()) continue;
    const bool hidden = object.pages.find(PageIndex{at.value() - offset.value()}) != kNoFrame;
    if (hidden) pager.forget(backing.handle, at, PageCount{1});
  }
  pager.transfer(backing.handle, PageIndex{offset.value()}, object.size, object.handle);
}

/// `object` takes the place of `backing` (locked, empty, about to go) below.
void VmObjectZone::take_backing_of(VmObject& object, VmObject& backing) {
  backing.shadows.remove(&object);
  --backing.shadow_count;
  for (const CopyHistory::Copy& given : backing.copied_from.all()) {
    if (given.by == &object || given.index.value() < object.backing_offset.value()) continue;
    object.copied_from.note(given.index - object.backing_offset, given.by);
  }
  VmObject* const next = backing.backing;
  object.backing = next;
  object.backing_offset = object.backing_offset + backing.backing_offset;
  backing.backing = nullptr;
  if (next == nullptr) return;
  WriteLock guard(next->lock);  // the reference of `backing` becomes the object's
  next->shadows.insert_before(&backing, &object);
  next->shadows.remove(&backing);
}

bool VmObjectZone::has_copy(const VmObject& object, PageIndex index) {
  return object.copies() != 0 && object.stored(index).present;
}

/// Does `object` hide every page that `backing` has in its window? Pages being filled or written do not
/// count.
bool VmObjectZone::all_shadowed(const VmObject& object, const VmObject& backing) {
  const PageIndex end{object.backing_offset.value() + object.size.value()};
  VmRadix::Item page;
  PageIndex copy;
  PageIndex from{object.backing_offset.value()};
  for (;; ++from) {
    const bool has_page = backing.pages.find_least(from, &page) && page.index < end;
    const bool in_swap =
        backing.copies() != 0 && backing.pager->find_least(backing.handle, from, &copy) && copy < end;
    if (!has_page && !in_swap) return true;
    from = !in_swap || (has_page && page.index < copy) ? page.index : copy;
    if (has_page && page.index == from) {
      const Page& below = system_.page(page.frame);
      if (below.is_busy() || !below.is_valid()) return false;
    }
    const PageIndex index{from.value() - object.backing_offset.value()};
    const FrameNumber above = object.pages.find(index);
    if (above != kNoFrame ? !system_.page(above).is_valid() : !has_copy(object, index)) return false;
  }
}

/// Others refer to `backing`, too, but `object` hides all of it: looks past it. Both locked.
bool VmObjectZone::bypass(VmObject& object, VmObject& backing) {
  if (!all_shadowed(object, backing)) {
    const std::uint64_t have = object.pages.count() + object.copies();
    object.bypass_retry = have + have / 8 + 1;
    return false;
  }
  VmObject* const next = backing.backing;
  backing.shadows.remove(&object);
  --backing.shadow_count;
  object.backing = nullptr;
  if (next != nullptr) {
    reference(*next);
    attach(object, *next, object.backing_offset + backing.backing_offset);
  }
  object.bypass_retry = 0;
  backing.ref_count.fetch_sub(1, std::memory_order_acq_rel);  // more than one before: never the last
  if (backing.refs() == 1 && backing.shadow_count == 0) backing.flags |= VmObject::kOneMapping;
  count(system_.counters().object_bypasses);
  return true;
}

/// Is page `index` of an object that only shadows refer to in none of their views? Nothing is locked.
bool VmObjectZone::hidden_by_all(const VmObject& object, PageIndex index) {
  for (VmObject* s = object.shadows.front(); s != nullptr; s = object.shadows.next(s)) {
    const std::uint64_t offset = s->backing_offset.value();
    if (index.value() < offset || index.value() - offset >= s->size.value()) continue;
    const PageIndex there{index.value() - offset};
    if (s->pages.find(there) == kNoFrame && !has_copy(*s, there)) return false;
  }
  return true;
}

std::uint64_t VmObjectZone::count_dead_pages() NO_THREAD_SAFETY_ANALYSIS {  // at rest: nothing is locked
  std::uint64_t dead = 0;
  for (VmObject* o = live_.front(); o != nullptr; o = live_.next(o)) {
    if (!o->anonymous() || o->shadow_count == 0 || o->refs() != o->shadow_count) continue;
    VmRadix::Item item;
    for (PageIndex at{0}; o->pages.find_least(at, &item); at = item.index + PageCount{1}) {
      dead += hidden_by_all(*o, item.index) ? 1 : 0;
    }
    PageIndex copy;
    for (PageIndex at{0}; o->copies() != 0 && o->pager->find_least(o->handle, at, &copy);
         at = copy + PageCount{1}) {
      dead += o->pages.find(copy) == kNoFrame && hidden_by_all(*o, copy) ? 1 : 0;
    }
  }
  system_.counters().dead_pages.store(dead, std::memory_order_relaxed);
  return dead;
}

unsigned VmObjectZone::depth(const VmObject& object) const {
  unsigned n = 0;
  for (const VmObject* o = &object; o != nullptr; o = o->backing) ++n;
  return n;
}

}  // namespace enchilada
