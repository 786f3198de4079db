// PageoutOps, what is done to batches of pages and to queues. Writing is in vm_laundry.cc. Invariants: see
// vm_pageout_ops.h.
#include "vm/vm_pageout_ops.h"

#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {

PageoutOps::PageoutOps(VmSystem& system)
    : system_(system),
      collector_(make_reference_collector(system.modes().get<ReferenceMode>(), system.pmaps())),
      clean_rule_(clean_rule(system.modes().get<CacheQueueMode>())) {}

unsigned PageoutOps::references(Page& page, FrameNumber frame) {
  const unsigned refs = collector_->collect(page, frame);
  if (refs > 0) count(system_.counters().pdreferenced);
  return refs;
}

/// A busy page on no queue turned out to be in use: back to active.
void PageoutOps::reactivate(FrameNumber frame, unsigned refs) {
  Page& page = system_.page(frame);
  page.age(refs);
  if (page.act_count() < kActInit) page.set_act_count(kActInit);
  system_.queues().move(frame, PageQueue::kActive);
  page.clear(Page::kWentRound);
  page.unbusy();
}

/// Removes all mappings of busy pages. Pinned ones count as used and leave the batch; returns what remains.
std::size_t PageoutOps::unmap(std::span<FrameNumber> frames, std::size_t n) {
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

void PageoutOps::put(std::span<const FrameNumber> frames, PageQueue to) {
  if (frames.empty()) return;
  system_.queues().move(frames, to);
  if (to == PageQueue::kLaundry) count(system_.counters().pdtolaundry, frames.size());
  for (const FrameNumber frame : frames) system_.page(frame).unbusy();
}

/// The backing store may want to keep what leaves memory closer at hand than its copies are. Pages of one
/// object.
void PageoutOps::tell_leaving(std::span<const FrameNumber> frames) {
  std::array<PutRequest, 64> leaving;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const Page& page = system_.page(frames[i]);
    leaving[i] = {&page.object->handle, page.pindex, frames[i]};
  }
  if (frames.empty()) return;
  policy_->leaving(frames);
  system_.page(frames[0]).object->pager->evicting({leaving.data(), frames.size()});
}

void PageoutOps::drop_clean(std::span<const FrameNumber> frames, PageoutRun& run) {
  while (!frames.empty()) {
    VmObject* const object = system_.page(frames[0]).object;
    std::size_t n = 1;
    while (n < frames.size() && system_.page(frames[n]).object == object) ++n;
    const std::size_t freed = run.freeing_cache ? n : clean_rule_(n, run.missing());
    tell_leaving(frames.first(freed));
    {
      WriteLock guard(object->lock);
      system_.objects().remove_pages(*object, frames.first(freed));
    }
    system_.free_frames().free(frames.first(freed));
    run.gained += freed;
    count(system_.counters().dfree, freed);
    const auto kept = frames.first(n).subspan(freed);
    put(kept, PageQueue::kCache);
    count(system_.counters().pdtocache, kept.size());
    if (run.cache_counts) run.gained += kept.size();
    frames = frames.subspan(n);
  }
}

/// Swap is short: a page that stays in memory needs no copy there. It is dirty then, whatever it was.
void PageoutOps::forget_copies(std::span<const FrameNumber> frames) {
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    if (!page.object->anonymous() || page.object->copies() == 0) continue;
    page.set_dirty(true);
    system_.swap().forget(page.object->handle, page.pindex, PageCount{1});
  }
}

/// Completes victims to clusters with neighbours that are nearly as idle: one shoot-down for all of them.
std::size_t PageoutOps::add_idle_neighbours(std::span<FrameNumber> victims, std::size_t n,
                                            unsigned idle_enough) {
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
    if (page.queue() != PageQueue::kActive || page.act_count() > idle_enough) break;
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

std::size_t PageoutOps::withdraw(std::span<FrameNumber> victims, std::size_t n, unsigned idle_enough) {
  if (!collector_->by_absence()) return n;
  n = unmap(victims, add_idle_neighbours(victims, n, idle_enough));
  // What the machine says now is about the time before: only a fault proves use from now on.
  for (const FrameNumber frame : victims.first(n)) (void)system_.page(frame).take_referenced();
  return n;
}

/// A batch from the head of inactive: referenced pages go back to active, the others are unmapped and sorted.
void PageoutOps::take_idle(PageoutRun& run, Idle* idle) {
  std::array<FrameNumber, PageoutRun::kBatch> batch;
  std::size_t n = system_.queues().take(PageQueue::kInactive, {batch.data(), run.batch()}, &run.busy);
  run.looked += n;
  run.pass_left -= std::min<std::uint64_t>(n, run.pass_left);
  std::size_t unused = 0;
  for (const FrameNumber frame : std::span(batch).first(n)) {
    const unsigned refs = references(system_.page(frame), frame);
    if (refs > 0) {
      count(system_.counters().reactivated);
      reactivate(frame, refs);
    } else {
      batch[unused++] = frame;
    }
  }
  n = unmap(batch, unused);
  for (const FrameNumber frame : std::span(batch).first(n)) {
    Page& page = system_.page(frame);
    if (page.take_referenced()) {  // the machine reported a use while it was unmapped
      reactivate(frame, 1);
    } else if (page.is_dirty()) {
      idle->dirty[idle->dirty_n++] = frame;
    } else {
      idle->clean[idle->clean_n++] = frame;
    }
  }
}

void PageoutOps::free_cache(PageoutRun& run, std::uint64_t most) {
  std::array<FrameNumber, PageoutRun::kBatch> batch;
  const std::size_t wanted = static_cast<std::size_t>(std::min<std::uint64_t>(most, batch.size()));
  const std::size_t n = system_.queues().take(PageQueue::kCache, {batch.data(), wanted}, &run.busy);
  run.looked += n;
  run.freeing_cache = true;
  drop_clean({batch.data(), n}, run);
  run.freeing_cache = false;
}

/// Pages whose object is gone, but which the machine held pinned: perhaps it has let go.
void PageoutOps::free_limbo(PageoutRun& run) {
  std::array<FrameNumber, PageoutRun::kBatch> batch;
  const std::size_t n = system_.queues().take(PageQueue::kLimbo, batch, &run.busy);
  const std::uint64_t before = system_.free_frames().free_count();
  system_.objects().release({batch.data(), n});  // what is still pinned goes back to limbo
  const std::uint64_t after = system_.free_frames().free_count();
  if (after > before) run.gained += std::min<std::uint64_t>(after - before, n);
  run.looked += n;
}

}  // namespace enchilada
