// PageDaemon, the scans of inactive and active (freebsd-vm.md §1.8, §1.9).
// Invariant: a page taken from a queue is busy until it is on a queue again or free.
#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_pageout_run.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {

/// References to a page since the last look: the machine's bits where it has them, and what was noted
/// meanwhile.
unsigned PageDaemon::references(Page& page, FrameNumber frame) {
  unsigned refs = page.take_referenced() ? 1 : 0;
  if (system_.pmaps().has_reference_bits() && page.has(Page::kMapped))
    refs += system_.pmaps().ts_referenced(frame);
  return refs;
}

/// A busy page on no queue turned out to be in use: back to active.
void PageDaemon::reactivate(FrameNumber frame, unsigned refs) {
  Page& page = system_.page(frame);
  page.age(refs);
  if (page.act_count() < kActInit) page.set_act_count(kActInit);
  system_.queues().move(frame, PageQueue::kActive);
  page.unbusy();
}

/// Removes all mappings of busy pages. Pinned ones count as used and leave the batch; returns what remains.
std::size_t PageDaemon::unmap(std::span<FrameNumber> frames, std::size_t n) {
  std::array<FrameNumber, 64> mapped;
  std::array<bool, 64> refused{};
  std::size_t m = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (system_.page(frames[i]).has(Page::kMapped)) mapped[m++] = frames[i];
  }
  if (m == 0) return n;
  system_.pmaps().remove_all({mapped.data(), m}, {refused.data(), m});
  std::size_t kept = 0;
  for (std::size_t i = 0, k = 0; i < n; ++i) {
    Page& page = system_.page(frames[i]);
    const bool was_mapped = k < m && mapped[k] == frames[i];
    if (was_mapped && refused[k++]) {
      count(system_.counters().pdrefused);
      reactivate(frames[i], 1);
      continue;
    }
    page.clear(Page::kMapped);
    frames[kept++] = frames[i];
  }
  return kept;
}

/// The backing store may want to keep what leaves memory closer at hand than its copies are. Pages of one
/// object.
void PageDaemon::tell_evicted(std::span<const FrameNumber> frames) {
  std::array<PutRequest, 64> leaving;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Page& page = system_.page(frames[i]);
    leaving[i] = {&page.object->handle, page.pindex, frames[i]};
  }
  if (!frames.empty()) system_.page(frames[0]).object->pager->evicting({leaving.data(), frames.size()});
}

/// Frees clean, unmapped, busy pages while frames are wanted; the rest goes to the cache queue.
void PageDaemon::drop_clean(std::span<const FrameNumber> frames, Run& run) {
  while (!frames.empty()) {
    VmObject* const object = system_.page(frames[0]).object;
    std::size_t n = 1;
    while (n < frames.size() && system_.page(frames[n]).object == object) ++n;
    const std::uint64_t wanted = run.goal > run.gained ? run.goal - run.gained : 0;
    const std::size_t freed = run.freeing_cache ? n : std::min<std::size_t>(n, wanted);
    tell_evicted(frames.first(freed));
    {
      WriteLock guard(object->lock);
      system_.objects().remove_pages(*object, frames.first(freed));
    }
    system_.free_frames().free(frames.first(freed));
    run.gained += freed;
    count(system_.counters().dfree, freed);
    const auto kept = frames.first(n).subspan(freed);
    system_.queues().move(kept, PageQueue::kCache);
    for (const FrameNumber frame : kept) system_.page(frame).unbusy();
    frames = frames.subspan(n);
  }
}

/// Inactive: referenced pages go back to active, dirty ones to the laundry, clean ones are freed.
void PageDaemon::scan_inactive(Run& run) {
  std::array<FrameNumber, kBatch> batch;
  std::size_t n = system_.queues().take(PageQueue::kInactive, {batch.data(), run.batch()}, &run.busy);
  run.looked += n;
  std::size_t idle = 0;
  for (std::size_t i = 0; i < n; ++i) {
    Page& page = system_.page(batch[i]);
    const unsigned refs = references(page, batch[i]);
    if (refs > 0) {
      count(system_.counters().reactivated);
      reactivate(batch[i], refs);
    } else {
      batch[idle++] = batch[i];
    }
  }
  n = unmap(batch, idle);
  std::array<FrameNumber, kBatch> clean;
  std::size_t clean_n = 0;
  for (std::size_t i = 0; i < n; ++i) {
    Page& page = system_.page(batch[i]);
    if (page.take_referenced()) {  // the machine reported a use while it was unmapped
      reactivate(batch[i], 1);
    } else if (page.is_dirty()) {
      system_.queues().move(batch[i], PageQueue::kLaundry);
      page.unbusy();
    } else {
      clean[clean_n++] = batch[i];
    }
  }
  drop_clean({clean.data(), clean_n}, run);
}

/// Ages a batch (busy, on no queue). Idle ones at or below the pressure become victims (when ruthless, used
/// ones too); the others go back to the tail.
std::size_t PageDaemon::age_batch(std::span<FrameNumber> batch, bool ruthless,
                                  std::span<FrameNumber> victims) {
  std::size_t n = 0;
  std::array<FrameNumber, 64> stay;
  std::size_t stay_n = 0;
  for (const FrameNumber frame : batch) {
    Page& page = system_.page(frame);
    const unsigned refs = references(page, frame);
    page.age(refs);
    const bool victim = (refs == 0 || ruthless) && page.act_count() <= pressure_;
    (victim ? victims[n++] : stay[stay_n++]) = frame;
  }
  system_.queues().move({stay.data(), stay_n}, PageQueue::kActive);
  if (system_.swap().nearly_full()) forget_copies({stay.data(), stay_n});
  for (std::size_t i = 0; i < stay_n; ++i) system_.page(stay[i]).unbusy();
  return n;
}

/// Swap is short: a page that stays in memory needs no copy there. It is dirty then, whatever it was.
void PageDaemon::forget_copies(std::span<const FrameNumber> frames) {
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    if (!page.object->anonymous() || page.object->copies() == 0) continue;
    page.set_dirty(true);
    system_.swap().forget(page.object->handle, page.pindex, PageCount{1});
  }
}

/// Completes victims to clusters with neighbours that are nearly as idle: one shoot-down for all of them.
std::size_t PageDaemon::add_idle_neighbours(std::span<FrameNumber> victims, std::size_t n) {
  const std::size_t limit =
      std::min<std::size_t>(victims.size(), system_.tunables().withdraw_cluster.value());
  if (n == 0 || n >= limit) return n;
  const Page& last = system_.page(victims[n - 1]);
  VmObject& object = *last.object;
  ReadLock guard(object.lock);
  for (PageIndex at = last.pindex + PageCount{1}; n < limit; ++at) {
    const FrameNumber frame = object.pages.find(at);
    if (frame == kNoFrame) break;
    Page& page = system_.page(frame);
    if (page.queue() != PageQueue::kActive || page.act_count() > pressure_ + kActDecline) break;
    if (page.referenced() || !page.try_busy()) break;
    if (page.queue() != PageQueue::kActive) {  // it changed hands before we had it
      page.unbusy();
      break;
    }
    system_.queues().move(frame, PageQueue::kNone);
    victims[n++] = frame;
  }
  return n;
}

/// Puts victims (busy, on no queue) on inactive; unmapped first where that is the only way to see whether
/// they are used. Returns how many went.
std::size_t PageDaemon::withdraw(std::span<FrameNumber> victims, std::size_t n) {
  if (!system_.pmaps().has_reference_bits()) {
    n = add_idle_neighbours(victims, n);
    n = unmap(victims, n);
  }
  system_.queues().move(victims.first(n), PageQueue::kInactive);
  for (std::size_t i = 0; i < n; ++i) {
    system_.page(victims[i]).unbusy();
  }
  count(system_.counters().deactivated, n);
  return n;
}

std::size_t PageDaemon::scan_active(std::size_t pages) {
  MutexLock guard(run_lock_);
  std::array<FrameNumber, kBatch> batch;
  std::array<FrameNumber, 64> victims;
  std::size_t busy = 0;
  std::size_t gone = 0;
  while (pages > 0) {
    const std::size_t n =
        system_.queues().take(PageQueue::kActive, {batch.data(), std::min(pages, kBatch)}, &busy);
    if (n == 0) break;
    gone += withdraw(victims, age_batch({batch.data(), n}, false, victims));
    pages -= n;
  }
  return gone;
}

void PageDaemon::scan_active_step(Run& run) {
  std::array<FrameNumber, kBatch> batch;
  std::array<FrameNumber, 64> victims;
  const std::size_t n = system_.queues().take(PageQueue::kActive, {batch.data(), run.batch()}, &run.busy);
  run.looked += n;
  run.active_looked += n;
  // Every page was used since the last shortage, perhaps long ago: do not sweep all of memory for one frame.
  const bool ruthless = run.gained == 0 && run.looked > kRuthlessAfter;
  const std::size_t found = age_batch({batch.data(), n}, ruthless, victims);
  withdraw(victims, found);
  if (found * 4 < n && pressure_ < kActMax) ++pressure_;
}

}  // namespace enchilada
