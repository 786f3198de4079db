// Frames: each is free, in an object, or in limbo, and its Page says so.
#include <vector>

#include "validate/problems.h"
#include "vm/vm_object.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

void check_page(FrameNumber frame, const Page& page, Report& report) {
  const auto f = frame.value();
  if (page.is_busy()) report.add("frame %u: busy (%x) at rest", f, page.busy.load());
  const bool queued = page.queue() != PageQueue::kNone && page.queue() != PageQueue::kLimbo;
  if (page.is_wired() && queued)
    report.add("frame %u: wired and on queue %d", f, static_cast<int>(page.queue()));
  if (!page.is_wired() && !queued) report.add("frame %u: in an object, neither wired nor queued", f);
  if (!page.is_valid()) report.add("frame %u: in an object and not valid", f);
  if (page.queue() == PageQueue::kCache && page.is_dirty())
    report.add("frame %u: dirty on the cache queue", f);
  if (page.act_count() > kActMax) report.add("frame %u: act_count %u", f, page.act_count());
}

}  // namespace

void check_frames(const Whole& whole, Problems& problems) {
  Report report(problems);
  std::uint64_t free = 0;
  std::uint64_t owned = 0;
  std::uint64_t device = 0;  // never granted
  std::uint64_t limbo = 0;
  std::uint64_t wired = 0;
  whole.system.for_each_page([&](FrameNumber frame, Page& page) {
    const bool in_object = page.object != nullptr;
    if (page.queue() == PageQueue::kFree) {
      ++free;
      if (in_object) report.add("frame %u: free and in an object", frame.value());
      if (page.is_wired() || page.is_busy()) report.add("frame %u: free, but wired or busy", frame.value());
    } else if (page.queue() == PageQueue::kLimbo) {
      ++limbo;
      if (in_object) report.add("frame %u: in limbo and in an object", frame.value());
    } else if (in_object) {
      ++(page.object->kind != ObjectKind::kDevice ? owned : device);
      if (page.is_wired()) ++wired;
      check_page(frame, page, report);
    } else if (page.queue() != PageQueue::kNone) {
      report.add("frame %u: in no object and on queue %d", frame.value(), static_cast<int>(page.queue()));
    } else if (page.is_busy() || page.is_wired()) {
      report.add("frame %u: in no object, busy or wired", frame.value());
    }
  });
  const VmCounters& counters = whole.system.counters();
  const std::uint64_t granted = whole.system.free_frames().granted();
  if (free != whole.system.free_frames().free_count()) {
    report.add("%llu frames say that they are free, the allocator has %llu", number(free),
               number(whole.system.free_frames().free_count()));
  }
  if (free + owned + limbo != granted) {
    report.add("frames lost: %llu free + %llu in objects + %llu in limbo, %llu granted", number(free),
               number(owned), number(limbo), number(granted));
  }
  std::uint64_t queued = 0;
  for (const PageQueue q :
       {PageQueue::kActive, PageQueue::kInactive, PageQueue::kLaundry, PageQueue::kCache}) {
    queued += whole.system.queues().length(q);
  }
  if (queued + wired != owned + device) {
    report.add("%llu frames are on queues and %llu wired, but %llu in objects", number(queued), number(wired),
               number(owned + device));
  }
  if (wired != counters.wire_count.load()) {
    report.add("%llu frames are wired, wire_count is %llu", number(wired),
               number(counters.wire_count.load()));
  }
}

}  // namespace enchilada
