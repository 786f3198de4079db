// VmObjectZone, frames that stay where they are: device memory and physical memory (freebsd-vm.md §1.1).
//
// Invariants: every page of such an object is resident from the object's birth to its end, valid, on no
// queue, and wired once by the object itself, so that no scan sees it and no unwiring brings it onto a queue.
// A device's frames were never granted: the free list never sees them.
#include "vm/vm_object.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {
constexpr std::size_t kBatch = 64;
}  // namespace

/// Puts busy pages into an object that nobody else knows, valid and wired. False: metadata used up; those
/// from the failing one on are the caller's still.
bool VmObjectZone::insert_fixed(VmObject& object, PageIndex first, std::span<const FrameNumber> frames) {
  WriteLock guard(object.lock);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (!insert_page(object, first + PageCount{i}, frames[i])) {
      remove_pages(object, frames.first(i));
      return false;
    }
    Page& page = system_.page(frames[i]);
    page.set_valid(true);
    page.wire_count.store(1, std::memory_order_relaxed);
    count(system_.counters().wire_count);
  }
  for (const FrameNumber frame : frames) system_.page(frame).unbusy();
  return true;
}

VmObject* VmObjectZone::allocate_physical(PageCount size) {
  VmObject* const object = allocate(ObjectKind::kPhysical, size, fixed_, {});
  if (object == nullptr) return nullptr;
  std::array<FrameNumber, kBatch> frames;
  for (PageIndex at{0}; at.value() < size.value();) {
    const std::size_t wanted = std::min<std::uint64_t>(kBatch, size.value() - at.value());
    const std::size_t n = system_.free_frames().allocate({frames.data(), wanted});
    for (const FrameNumber frame : std::span(frames).first(n)) system_.phys().zero({frame, PageCount{1}});
    if (n == 0 || !insert_fixed(*object, at, {frames.data(), n})) {
      system_.free_frames().free({frames.data(), n});
      deallocate(object);
      return nullptr;
    }
    at = at + PageCount{n};
  }
  return object;
}

VmObject* VmObjectZone::allocate_device(FrameRun run) {
  VmObject* const object = allocate(ObjectKind::kDevice, run.count, fixed_, {});
  if (object == nullptr) return nullptr;
  for (PageCount i{0}; i < run.count; ++i) {
    const FrameNumber frame = run.first + i;
    Page& page = system_.page(frame);
    const bool idle = page.queue() == PageQueue::kNone && page.try_busy();
    CHECK(idle && page.object == nullptr, frame.value());
    if (insert_fixed(*object, PageIndex{i.value()}, {&frame, 1})) continue;
    page.unbusy();
    deallocate(object);
    return nullptr;
  }
  return object;
}

/// The frames are as if they had never been in an object. Object locked; mappings are gone with the map
/// entries, but for those of machines that keep some longer.
void VmObjectZone::free_device_pages(VmObject& object) {
  VmRadix::Item item;
  while (object.pages.find_least(PageIndex{0}, &item)) {
    Page& page = system_.page(item.frame);
    CHECK(page.try_busy(), item.frame.value());  // no reference is left: nobody can have it busy
    if (page.has(Page::kMapped)) {
      bool refused = false;
      system_.pmaps().remove_all({&item.frame, 1}, {&refused, 1});
      page.clear(Page::kMapped);
    }
    remove_pages(object, {&item.frame, 1});
    page.set_valid(false);
    page.set_dirty(false);
    page.unbusy();
  }
}

}  // namespace enchilada
