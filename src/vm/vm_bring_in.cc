// bring_in(): as a fault's page-in, without a map.
#include "vm/vm_bring_in.h"

#include "vm/vm_object.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

/// The page is valid and busy, the object locked: the frame is the only truth from now on.
void give_up_copy(VmSystem& system, VmObject& object, Page& page) {
  page.set_dirty(true);
  object.pager->forget(object.handle, page.pindex, PageCount{1});
  // Dirty pages are on no queue of clean ones.
  if (!page.is_wired()) system.queues().move(system.frame_of(page), PageQueue::kActive);
  page.unbusy();
}

enum class Look : std::uint8_t { kDone, kGone, kBusy, kNoFrame, kNoMetadata, kRead };

/// With the object locked. kBusy: *frame is; kRead: *frame is in the object, busy, and must be filled.
Look look_up(VmSystem& system, VmObject& object, PageIndex index, FrameNumber* frame) {
  *frame = object.pages.find(index);
  if (*frame != kNoFrame) {
    Page& page = system.page(*frame);
    if (!page.try_busy()) return Look::kBusy;
    give_up_copy(system, object, page);
    return Look::kDone;
  }
  if (!system.objects().has_copy(object, index)) return Look::kGone;
  if (system.free_frames().allocate({frame, 1}) == 0) return Look::kNoFrame;
  if (system.objects().insert_page(object, index, *frame)) return Look::kRead;
  system.objects().release({frame, 1});
  return Look::kNoMetadata;
}

BringIn read_in(VmSystem& system, VmObject& object, PageIndex index, FrameNumber frame) {
  const PagerReturn verdict = object.pager->get_pages(object.handle, index, {&frame, 1});
  {
    WriteLock guard(object.lock);
    if (verdict == PagerReturn::kOk) {
      Page& page = system.page(frame);
      page.set_act_count(kActInit);
      page.set_valid(true);
      give_up_copy(system, object, page);
      return BringIn::kDone;
    }
    system.objects().remove_pages(object, {&frame, 1});
  }
  system.objects().release({&frame, 1});
  return verdict == PagerReturn::kFail ? BringIn::kGone : BringIn::kError;
}

}  // namespace

BringIn bring_in(VmSystem& system, VmObject& object, PageIndex index) {
  for (;;) {
    FrameNumber frame = kNoFrame;
    Look look = Look::kGone;
    {
      WriteLock guard(object.lock);
      look = look_up(system, object, index, &frame);
    }
    switch (look) {
      case Look::kDone:
        return BringIn::kDone;
      case Look::kGone:
        return BringIn::kGone;
      case Look::kNoMetadata:
        return BringIn::kNoMemory;
      case Look::kRead:
        return read_in(system, object, index, frame);
      case Look::kBusy:
        system.page(frame).wait_not_busy();
        break;
      case Look::kNoFrame:
        if (!system.daemon().reclaim()) return BringIn::kNoMemory;
        break;
    }
  }
}

}  // namespace enchilada
