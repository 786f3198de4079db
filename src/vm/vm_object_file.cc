// VmObjectZone, files: birth, writing back, and changes of length (freebsd-vm.md §1.1, §3 sync).
//
// Invariants: a page of a file beyond its end is in no mapping and in no frame; a page that could not be
// written stays dirty; pages are written busy and write-protected, so what the store gets is what the page
// was at one moment. Locks: none is held while a page is waited for or written, except that cut_at() waits as
// VmObjectZone::free_range() does.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "vm/vm_object.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

constexpr std::size_t kBatch = 64;  // pages of one write
constexpr PageIndex kNoEnd{~std::uint64_t{0}};

void set_stored(PagerHandle& handle, PageCount pages) {
  std::atomic_ref<std::uint64_t>(handle.pages).store(pages.value(), std::memory_order_relaxed);
}

}  // namespace

VmObject* VmObjectZone::allocate_file(Pager& pager, const PagerHandle& handle) {
  return allocate(ObjectKind::kFile, PageCount{handle.pages}, pager, handle);
}

VmObject* VmObjectZone::reference_bottom(VmObject& object,
                                         PageIndex* index)
    NO_THREAD_SAFETY_ANALYSIS {  // locks follow the chain
  VmObject* at = &object;
  at->lock.lock_shared();
  while (at->backing != nullptr) {
    VmObject* const below = at->backing;
    below->lock.lock_shared();
    *index = *index + at->backing_offset;
    at->lock.unlock_shared();
    at = below;
  }
  VmObject* const found = at->anonymous() ? nullptr : at;
  if (found != nullptr) reference(*found);
  at->lock.unlock_shared();
  return found;
}

/// Makes up to out.size() pages of [*at, end) busy and moves *at past them. Waits for a busy page, but only
/// with none in hand: the answer is 0 then, and *at is where it was.
std::size_t VmObjectZone::take_idle(VmObject& file, PageIndex* at, PageIndex end,
                                    std::span<FrameNumber> out) {
  std::size_t n = 0;
  VmRadix::Item item;
  Page* busy = nullptr;
  {
    ReadLock guard(file.lock);
    while (n < out.size() && busy == nullptr) {
      if (!file.pages.find_least(*at, &item) || item.index >= end) {
        *at = end;
        break;
      }
      Page& page = system_.page(item.frame);
      if (page.try_busy()) {
        out[n++] = item.frame;
        *at = item.index + PageCount{1};
      } else {
        busy = &page;
      }
    }
  }
  if (busy != nullptr && n == 0) busy->wait_not_busy();
  return n;
}

/// Writes those of the busy pages that are dirty. False: not all of them could be.
bool VmObjectZone::write_dirty(VmObject& file, std::span<const FrameNumber> frames) {
  std::array<PutRequest, kBatch> dirty;
  std::size_t n = 0;
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    if (page.has(Page::kMapped) && (page.is_dirty() || system_.pmaps().is_modified(frame))) {
      system_.pmaps().remove_write(frame);
      system_.pmaps().clear_modify(frame);
    }
    if (page.is_dirty()) dirty[n++] = {&file.handle, page.pindex, frame};
  }
  if (n == 0) return true;
  lock_order::assert_none_held();
  file.pager->put({dirty.data(), n});
  bool all = true;
  for (const PutRequest& request : std::span(dirty).first(n)) {
    const bool written = request.verdict == PagerReturn::kOk || request.verdict == PagerReturn::kClean;
    if (written) {
      system_.page(request.frame).set_dirty(false);
      count(system_.counters().laundered);
    }
    all = all && written;
  }
  return all;
}

/// Frees those of the busy pages that nobody wires and that are clean once they are unmapped; the others
/// idle.
void VmObjectZone::free_clean(VmObject& file, std::span<const FrameNumber> frames) {
  std::array<FrameNumber, kBatch> gone;
  std::size_t n = 0;
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    bool refused = page.is_wired() || page.is_dirty();
    if (!refused && page.has(Page::kMapped)) {
      system_.pmaps().remove_all({&frame, 1}, {&refused, 1});
      if (!refused) page.clear(Page::kMapped);
    }
    if (refused || page.is_dirty()) {
      page.unbusy();
    } else {
      gone[n++] = frame;
    }
  }
  {
    WriteLock guard(file.lock);
    remove_pages(file, {gone.data(), n});
  }
  if (n > 0) system_.free_frames().free({gone.data(), n});
}

KernReturn VmObjectZone::clean(VmObject& file, PageIndex first, PageIndex end, Clean how) {
  std::array<FrameNumber, kBatch> frames;
  bool good = true;
  for (PageIndex at = first; at < end;) {
    const std::size_t n = take_idle(file, &at, end, frames);
    const std::span<const FrameNumber> taken{frames.data(), n};
    good = write_dirty(file, taken) && good;
    switch (how) {
      case Clean::kKeep:
        for (const FrameNumber frame : taken) system_.page(frame).unbusy();
        break;
      case Clean::kInvalidate:
        free_clean(file, taken);
        break;
    }
  }
  return good ? KernReturn::kSuccess : KernReturn::kFailure;
}

/// From here on no page at or beyond `pages` is found, and when this returns none is left.
void VmObjectZone::cut_at(VmObject& file, PageCount pages) {
  WriteLock guard(file.lock);
  file.size = pages;
  set_stored(file.handle, pages);
  free_range(file, PageIndex{pages.value()}, kNoEnd);
}

/// What lies behind `length` in its last page reads as zeros, if the page is in memory.
void VmObjectZone::zero_tail(VmObject& file, ByteCount length) {
  const std::uint64_t used = length.value() & kPageMask;
  if (used == 0) return;
  const PageIndex last{length.value() >> kPageShift};
  FrameNumber frame = kNoFrame;
  for (PageIndex at = last; at == last;) {
    if (take_idle(file, &at, last + PageCount{1}, {&frame, 1}) != 0) break;
  }
  if (frame == kNoFrame) return;
  Page& page = system_.page(frame);
  bool refused = false;
  if (page.has(Page::kMapped)) {
    system_.pmaps().remove_all({&frame, 1}, {&refused, 1});
    if (!refused) page.clear(Page::kMapped);
  }
  system_.phys().with_frames({frame, PageCount{1}}, Access::kWrite,
                             [&](std::byte* bytes) { std::memset(bytes + used, 0, kPageSize - used); });
  page.unbusy();
}

KernReturn VmObjectZone::resize_file(VmObject& file, ByteCount length) {
  CHECK(file.kind == ObjectKind::kFile);
  const PageCount before = file.size;  // the caller is the only one that changes it
  const PageCount after = to_pages(length);
  if (after < before) cut_at(file, after);
  zero_tail(file, std::min(length, file.pager->length(file.handle)));
  const PagerReturn verdict = file.pager->resize(file.handle, length);
  const bool good = verdict == PagerReturn::kOk;
  WriteLock guard(file.lock);
  file.size = good ? after : before;
  set_stored(file.handle, file.size);
  return good ? KernReturn::kSuccess : KernReturn::kFailure;
}

}  // namespace enchilada
