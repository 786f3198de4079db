// PageDaemon, laundering: dirty pages go to the backing store in clusters of neighbours (freebsd-vm.md §1.6,
// §1.9). Invariants: pages being written are busy, unmapped and on no queue; no lock is held during the
// write; a page whose write fails stays dirty and in its object.
#include "vm/vm_object.h"
#include "vm/vm_pageout_run.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {

/// Takes the page at `index` for the cluster if it is one that waits to be cleaned. The object is locked.
bool PageDaemon::join(Cluster& cluster, PageIndex index, FrameNumber* frame) {
  *frame = cluster.object->pages.find(index);
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

/// The head (busy, on no queue) and its neighbours: back to an aligned boundary, then forward.
void PageDaemon::gather(Cluster& cluster, FrameNumber head) {
  Page& page = system_.page(head);
  cluster.object = page.object;
  const std::uint64_t most = system_.tunables().pageout_cluster.value();
  const std::uint64_t boundary = page.pindex.value() - page.pindex.value() % most;
  std::array<FrameNumber, 64> before;
  std::size_t b = 0;
  ReadLock guard(cluster.object->lock);
  for (std::uint64_t i = page.pindex.value(); i > boundary; --i) {
    if (!join(cluster, PageIndex{i - 1}, &before[b])) break;
    ++b;
  }
  cluster.first = PageIndex{page.pindex.value() - b};
  for (std::size_t i = 0; i < b; ++i) cluster.frames[i] = before[b - 1 - i];
  cluster.frames[b] = head;
  cluster.n = b + 1;
  while (cluster.n < most) {
    if (!join(cluster, cluster.first + PageCount{cluster.n}, &cluster.frames[cluster.n])) break;
    ++cluster.n;
  }
  system_.queues().move({cluster.frames.data(), cluster.n}, PageQueue::kNone);
  cluster.object->begin_paging();  // shared lock: enough, it keeps terminate() from looking at pip meanwhile
}

void PageDaemon::launder(Run& run) {
  FrameNumber head;
  if (system_.queues().take(PageQueue::kLaundry, {&head, 1}, &run.busy) == 0) return;
  ++run.looked;
  Page& page = system_.page(head);
  if (page.take_referenced()) {
    reactivate(head, 1);
    return;
  }
  Cluster cluster;
  gather(cluster, head);
  run.looked += cluster.n - 1;
  VmObject* const object = cluster.object;
  write(cluster, run);
  object->end_paging();
}

/// Unmaps the cluster and writes what the machine lets go, in runs of consecutive pages.
void PageDaemon::write(Cluster& cluster, Run& run) {
  std::array<FrameNumber, 64> left = cluster.frames;
  const std::size_t n = unmap(left, cluster.n);  // takes refused ones out, keeps the order
  for (std::size_t i = 0; i < n;) {
    const PageIndex first = system_.page(left[i]).pindex;
    std::size_t k = 1;
    const bool dirty = system_.page(left[i]).is_dirty();
    const auto goes_on = [&](std::size_t j) {
      const Page& page = system_.page(left[j]);
      return page.pindex == first + PageCount{j - i} && page.is_dirty() == dirty;
    };
    while (i + k < n && goes_on(i + k)) ++k;
    write_run(*cluster.object, first, {left.data() + i, k}, run);
    i += k;
  }
}

void PageDaemon::write_run(VmObject& object, PageIndex first, std::span<const FrameNumber> frames, Run& run) {
  std::array<PagerReturn, 64> verdicts;
  verdicts.fill(PagerReturn::kClean);
  if (system_.page(frames[0]).is_dirty()) {  // and so are the others
    lock_order::assert_none_held();
    system_.swap().put_pages(object.swap, first, frames, {verdicts.data(), frames.size()});
    count(system_.counters().swapout);
  }
  settle(object, frames, {verdicts.data(), frames.size()}, run);
}

/// What the pager said: clean pages are freed or cached, the others stay dirty and come round again much
/// later.
void PageDaemon::settle(VmObject& object, std::span<const FrameNumber> frames,
                        std::span<const PagerReturn> verdicts, Run& run) {
  VmCounters& c = system_.counters();
  std::array<FrameNumber, 64> clean;
  std::size_t clean_n = 0;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Page& page = system_.page(frames[i]);
    switch (verdicts[i]) {
      case PagerReturn::kOk:
      case PagerReturn::kClean:
        if (page.is_dirty()) {
          count(verdicts[i] == PagerReturn::kOk ? c.swappgsout : c.swap_clean);
          count(c.laundered);
        }
        page.set_dirty(false);
        clean[clean_n++] = frames[i];
        continue;
      case PagerReturn::kFail:
        // No space. The old copy, if any, is of no use while the page is in memory: its block may help the
        // next one.
        system_.swap().forget(object.swap, page.pindex, PageCount{1});
        break;
      case PagerReturn::kError:
      case PagerReturn::kBad:
        count(c.io_errors);
        break;
    }
    page.set_dirty(true);
    page.set_act_count(kActInit);
    system_.queues().move(frames[i], PageQueue::kActive);
    page.unbusy();
  }
  drop_clean({clean.data(), clean_n}, run);
}

/// Takes up to a cluster of consecutive pages from `at` on, whatever queue they are on; `at` moves past them.
void PageDaemon::gather_any(Cluster& cluster, VmObject& object, PageIndex* at, PageIndex end) {
  cluster.object = &object;
  cluster.n = 0;
  VmRadix::Item item;
  ReadLock guard(object.lock);
  while (cluster.n < cluster.frames.size() && object.pages.find_least(*at, &item) && item.index < end) {
    if (cluster.n > 0 && item.index != *at) break;
    *at = item.index + PageCount{1};
    Page& page = system_.page(item.frame);
    if (!page.try_busy()) continue;
    if (!page.is_valid() || page.is_wired()) {
      page.unbusy();
      continue;
    }
    (void)page.take_referenced();
    if (cluster.n == 0) cluster.first = item.index;
    cluster.frames[cluster.n++] = item.frame;
  }
  if (cluster.n == 0) *at = end;
  system_.queues().move({cluster.frames.data(), cluster.n}, PageQueue::kNone);
  object.begin_paging();
}

void PageDaemon::pageout_object(VmObject& object, PageIndex first, PageCount n) {
  MutexLock guard(run_lock_);
  Run run;
  run.goal = n.value();
  Cluster cluster;
  for (PageIndex at = first, end = first + n; at < end;) {
    gather_any(cluster, object, &at, end);
    write(cluster, run);
    object.end_paging();
  }
}

void PageDaemon::deactivate_object(VmObject& object, PageIndex first, PageCount n) {
  Cluster cluster;
  for (PageIndex at = first, end = first + n; at < end;) {
    gather_any(cluster, object, &at, end);
    std::array<FrameNumber, 64> left = cluster.frames;
    const std::size_t m = unmap(left, cluster.n);
    for (std::size_t i = 0; i < m; ++i) system_.page(left[i]).set_act_count(0);
    system_.queues().move({left.data(), m}, PageQueue::kInactive);
    for (std::size_t i = 0; i < m; ++i) system_.page(left[i]).unbusy();
    count(system_.counters().deactivated, m);
    object.end_paging();
  }
}

}  // namespace enchilada
