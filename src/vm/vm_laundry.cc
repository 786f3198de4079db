// PageoutOps, laundering: dirty pages go to the backing store in clusters of neighbours (freebsd-vm.md §1.6,
// §1.9). Invariants: pages being written are busy, unmapped and on no queue; no lock is held during the
// write; a page whose write fails stays dirty and in its object.
#include <algorithm>

#include "vm/vm_object.h"
#include "vm/vm_pageout_ops.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {

/// Pages that are unmapped and written together; all busy. Their objects are kept by paging-in-progress.
struct PageoutOps::Batch {
  std::size_t n = 0;
  std::size_t objects_n = 0;
  std::array<FrameNumber, kWrite> frames;
  std::array<VmObject*, kWrite> objects;
};

bool PageoutOps::worth_laundering(const PageoutRun& run) {
  constexpr std::uint64_t kWorthWhile =
      64;  // dirty pages that make a write worth while if nobody waits for it
  const std::uint64_t waiting = system_.queues().length(PageQueue::kLaundry);
  if (!run.ahead) return waiting > 0;
  return waiting >= kWorthWhile && !system_.swap().put_would_wait();
}

/// Takes the page at `index` for the batch if it is one that waits to be cleaned. The object is locked.
bool PageoutOps::join(const VmObject& object, PageIndex index, FrameNumber* frame) {
  *frame = object.pages.find(index);
  if (*frame == kNoFrame) return false;
  Page& page = system_.page(*frame);
  const auto waits = [&] {
    const PageQueue q = page.queue();
    return (q == PageQueue::kLaundry || q == PageQueue::kInactive) && page.is_dirty() && !page.referenced();
  };
  if (!waits() || !page.try_busy()) return false;
  if (!waits() || page.is_wired() || !page.is_valid()) {
    page.unbusy();
    return false;
  }
  return true;
}

/// Adds the head (busy, on no queue) and its neighbours: back to an aligned boundary, then forward.
void PageoutOps::gather(Batch& batch, FrameNumber head) {
  Page& page = system_.page(head);
  VmObject& object = *page.object;
  const std::uint64_t cluster = system_.tunables().pageout_cluster.value();
  const std::uint64_t boundary = page.pindex.value() - page.pindex.value() % cluster;
  const std::size_t room = std::min<std::size_t>(cluster, batch.frames.size() - batch.n);
  std::array<FrameNumber, kWrite> before;
  std::size_t b = 0;
  ReadLock guard(object.lock);
  for (std::uint64_t i = page.pindex.value(); i > boundary && b + 1 < room; --i) {
    if (!join(object, PageIndex{i - 1}, &before[b])) break;
    ++b;
  }
  const std::size_t begin = batch.n;
  for (std::size_t i = 0; i < b; ++i) batch.frames[batch.n++] = before[b - 1 - i];
  batch.frames[batch.n++] = head;
  const PageIndex first{page.pindex.value() - b};
  for (std::size_t i = b + 1; i < room; ++i) {
    if (!join(object, first + PageCount{i}, &batch.frames[batch.n])) break;
    ++batch.n;
  }
  system_.queues().move({batch.frames.data() + begin, batch.n - begin}, PageQueue::kNone);
  hold(batch, object);
}

/// Keeps an object of the batch alive. Its lock, even shared, keeps terminate() from looking at pip
/// meanwhile.
void PageoutOps::hold(Batch& batch, VmObject& object) {
  object.begin_paging();
  batch.objects[batch.objects_n++] = &object;
}

void PageoutOps::let_go(Batch& batch) {
  for (std::size_t i = 0; i < batch.objects_n; ++i) batch.objects[i]->end_paging();
  batch.n = batch.objects_n = 0;
}

std::size_t PageoutOps::launder(PageoutRun& run, AfterWrite after, std::size_t heads) {
  Batch batch;
  // A whole write's worth, whatever the run wants: what is too much waits on the cache queue.
  while (batch.n < batch.frames.size() && heads > 0) {
    FrameNumber head;
    if (system_.queues().take(PageQueue::kLaundry, {&head, 1}, &run.busy) == 0) break;
    ++run.looked;
    if (const unsigned refs = references(system_.page(head), head); refs > 0) {
      reactivate(head, refs);
      continue;
    }
    const std::size_t before = batch.n;
    gather(batch, head);
    --heads;
    run.looked += batch.n - before - 1;
  }
  const std::size_t written = write(batch, run, after);
  let_go(batch);
  return written;
}

/// Neighbours that leave together tend to be wanted together. The pager stores what has changed at a new
/// place and leaves what is equal where it is, so in time neighbours lie apart, and read-ahead, which reads
/// what lies together, finds nothing. So where the copies of such neighbours lie apart they are given up: the
/// write that is due anyway stores all of them side by side.
void PageoutOps::regroup(std::span<const PutRequest> leaving) {
  const std::uint64_t cluster = system_.tunables().regroup_cluster.value();
  if (cluster <= 1 || system_.swap().nearly_full()) return;
  while (!leaving.empty()) {
    const PutRequest& first = leaving[0];
    const std::uint64_t room = cluster - first.index.value() % cluster;
    std::size_t n = 1;
    while (n < leaving.size() && n < room && leaving[n].handle == first.handle &&
           leaving[n].index == first.index + PageCount{n}) {
      ++n;
    }
    const VmObject& object = *system_.page(first.frame).object;
    if (n > 1 && object.anonymous() && object.copies() != 0) regroup_run(first, PageCount{n});
    leaving = leaving.subspan(n);
  }
}

/// The pages from `first` on are busy, unmapped and marked dirty, so memory has all that their copies have. A
/// new place parts them from what surrounds them: two breaks, so there must be as many now, or long runs
/// would be cut.
void PageoutOps::regroup_run(const PutRequest& first, PageCount pages) {
  Pager& swap = system_.swap();
  const auto with_next = [&](PageIndex at) {
    return swap.has_page(*first.handle, at, PageCount{0}, PageCount{1});
  };
  const PageCount others = pages - PageCount{1};
  const PagerRun together = swap.has_page(*first.handle, first.index, PageCount{0}, others);
  if (together.present && together.after == others) return;
  unsigned breaks =
      first.index.value() > 0 && with_next(first.index - PageCount{1}).after.value() == 1 ? 0 : 1;
  bool stored = false;
  for (PageIndex at = first.index; at < first.index + pages; ++at) {
    const PagerRun run = with_next(at);
    stored = stored || run.present;
    breaks += run.after.value() == 1 ? 0 : 1;
  }
  if (!stored || breaks < 2) return;
  swap.forget(*first.handle, first.index, pages);
  count(system_.counters().regrouped, pages.value());
}

/// Unmaps the batch and hands what is dirty to the pager in one call; clean pages are dropped. Returns how
/// many pages it tried to write.
std::size_t PageoutOps::write(Batch& batch, PageoutRun& run, AfterWrite after) {
  std::array<FrameNumber, kWrite> left = batch.frames;
  const std::size_t n = unmap(left, batch.n);  // takes refused ones out, keeps the order
  std::array<FrameNumber, kWrite> clean;
  std::array<PutRequest, kWrite> dirty;
  std::size_t clean_n = 0;
  std::size_t dirty_n = 0;
  for (const FrameNumber frame : std::span(left).first(n)) {
    const Page& page = system_.page(frame);
    if (page.is_dirty()) {
      dirty[dirty_n++] = {&page.object->handle, page.pindex, frame};
    } else {
      clean[clean_n++] = frame;
    }
  }
  drop_clean({clean.data(), clean_n}, run);
  if (dirty_n == 0) return 0;
  lock_order::assert_none_held();
  regroup({dirty.data(), dirty_n});
  store({dirty.data(), dirty_n});
  return settle({dirty.data(), dirty_n}, run, after);
}

/// Hands pages to the pagers of their objects, in one call while they have the same.
void PageoutOps::store(std::span<PutRequest> requests) {
  const auto pager_of = [&](const PutRequest& r) { return system_.page(r.frame).object->pager; };
  while (!requests.empty()) {
    std::size_t n = 1;
    while (n < requests.size() && pager_of(requests[n]) == pager_of(requests[0])) ++n;
    pager_of(requests[0])->put(requests.first(n));
    requests = requests.subspan(n);
  }
}

/// What the pager said: clean pages go where `after` says, the others stay dirty and come round again much
/// later. Returns how many are clean now.
std::size_t PageoutOps::settle(std::span<const PutRequest> written, PageoutRun& run, AfterWrite after) {
  std::array<FrameNumber, kWrite> clean;
  std::size_t clean_n = 0;
  for (const PutRequest& request : written) {
    Page& page = system_.page(request.frame);
    switch (request.verdict) {
      case PagerReturn::kOk:
      case PagerReturn::kClean:
        count(system_.counters().laundered);
        page.set_dirty(false);
        clean[clean_n++] = request.frame;
        continue;
      case PagerReturn::kFail:
        // No space. The old copy, if any, is of no use while the page is in memory: its block may help the
        // next one.
        page.object->pager->forget(*request.handle, page.pindex, PageCount{1});
        break;
      case PagerReturn::kError:
      case PagerReturn::kBad:
        break;
    }
    page.set_act_count(kActInit);
    put({&request.frame, 1}, PageQueue::kActive);
  }
  place_written({clean.data(), clean_n}, run, after);
  return clean_n;
}

void PageoutOps::place_written(std::span<const FrameNumber> clean, PageoutRun& run, AfterWrite after) {
  switch (after) {
    case AfterWrite::kDrop:
      return drop_clean(clean, run);
    case AfterWrite::kInactiveTail:
      return put(clean, PageQueue::kInactive);
    case AfterWrite::kInactiveFirst:
      system_.queues().move_first(clean, PageQueue::kInactive);
      for (const FrameNumber frame : clean) system_.page(frame).unbusy();
      return;
  }
}

/// Takes up to a batch of pages from `at` on, whatever queue they are on; `at` moves past them.
void PageoutOps::gather_any(Batch& batch, VmObject& object, PageIndex* at, PageIndex end) {
  VmRadix::Item item;
  ReadLock guard(object.lock);
  while (batch.n < batch.frames.size() && object.pages.find_least(*at, &item) && item.index < end) {
    *at = item.index + PageCount{1};
    Page& page = system_.page(item.frame);
    if (!page.try_busy()) continue;
    if (!page.is_valid() || page.is_wired()) {
      page.unbusy();
      continue;
    }
    (void)page.take_referenced();
    batch.frames[batch.n++] = item.frame;
  }
  if (batch.n < batch.frames.size()) *at = end;
  system_.queues().move({batch.frames.data(), batch.n}, PageQueue::kNone);
  hold(batch, object);
}

void PageoutOps::page_out(VmObject& object, PageIndex first, PageCount n, PageoutRun& run) {
  Batch batch;
  for (PageIndex at = first, end = first + n; at < end;) {
    gather_any(batch, object, &at, end);
    (void)write(batch, run, AfterWrite::kDrop);
    let_go(batch);
  }
}

/// The same of pages that are on a queue, and stay there.
void PageoutOps::gather_queued(Batch& batch, VmObject& object, PageIndex* at, PageIndex end) {
  VmRadix::Item item;
  ReadLock guard(object.lock);
  while (batch.n < batch.frames.size() && object.pages.find_least(*at, &item) && item.index < end) {
    *at = item.index + PageCount{1};
    Page& page = system_.page(item.frame);
    if (page.is_wired() || !page.try_busy()) continue;
    if (!page.is_valid() || page.queue() == PageQueue::kNone || page.queue() == PageQueue::kCache) {
      page.unbusy();
      continue;
    }
    batch.frames[batch.n++] = item.frame;
  }
  if (batch.n < batch.frames.size()) *at = end;
  hold(batch, object);
}

std::uint64_t PageoutOps::set_aside(VmObject& object, PageIndex first, PageCount n,
                                    FunctionRef<Aside(const Page&)> place) {
  Batch batch;
  std::uint64_t moved = 0;
  for (PageIndex at = first, end = first + n; at < end;) {
    gather_queued(batch, object, &at, end);
    std::array<FrameNumber, kWrite> left = batch.frames;
    const std::size_t m = unmap(left, batch.n);  // so that what mappings know of changes is known here
    for (const FrameNumber frame : std::span(left).first(m)) {
      Page& page = system_.page(frame);
      const Aside where = place(page);
      if (where != Aside::kStay) {
        (void)page.take_referenced();
        page.set_act_count(0);
        page.clear(Page::kWentRound);
        ++moved;
      }
      if (where == Aside::kInactiveTail) system_.queues().move(frame, PageQueue::kInactive);
      if (where == Aside::kInactiveFirst) system_.queues().move_first({&frame, 1}, PageQueue::kInactive);
      if (where == Aside::kLaundry) {
        put({&frame, 1}, PageQueue::kLaundry);
      } else {
        page.unbusy();
      }
    }
    let_go(batch);
  }
  count(system_.counters().deactivated, moved);
  return moved;
}

}  // namespace enchilada
