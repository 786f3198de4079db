// PageQueues: list surgery. Invariants: see vm_pagequeue.h.
#include "vm/vm_pagequeue.h"

#include <algorithm>

namespace enchilada {
namespace {
constexpr std::uint32_t kEnd = ~std::uint32_t{0};
constexpr std::size_t kExtraLooks = 32;

bool is_paging_queue(PageQueue q) {
  return q != PageQueue::kNone && q != PageQueue::kFree;
}
}  // namespace

PageQueues::PageQueues(VmSystem& system) : system_(system) {
  for (List& list : lists_) list.head = list.tail = list.ordinary = list.hand = list.stop = kEnd;
}

void PageQueues::unlink(std::uint32_t frame, Page& page) {
  List& list = lists_[static_cast<std::size_t>(page.queue())];
  DCHECK(is_paging_queue(page.queue()), frame);
  for (std::uint32_t* mark : {&list.ordinary, &list.hand, &list.stop}) {
    if (*mark == frame) *mark = page.next;
  }
  (page.prev != kEnd ? system_.page(FrameNumber{page.prev}).next : list.head) = page.next;
  (page.next != kEnd ? system_.page(FrameNumber{page.next}).prev : list.tail) = page.prev;
  list.length.store(list.length.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  page.set_queue(PageQueue::kNone);
}

void PageQueues::append(std::uint32_t frame, Page& page, PageQueue to) {
  List& list = lists_[static_cast<std::size_t>(to)];
  if (list.ordinary == kEnd) list.ordinary = frame;
  if (list.stop == kEnd) list.stop = frame;
  insert_before(frame, page, to, kEnd);
}

void PageQueues::insert_before(std::uint32_t frame, Page& page, PageQueue to, std::uint32_t before) {
  List& list = lists_[static_cast<std::size_t>(to)];
  std::uint32_t& after_me = before != kEnd ? system_.page(FrameNumber{before}).prev : list.tail;
  page.next = before;
  page.prev = after_me;
  (after_me != kEnd ? system_.page(FrameNumber{after_me}).next : list.head) = frame;
  after_me = frame;
  list.length.store(list.length.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  page.set_queue(to);
}

void PageQueues::publish() {
  VmCounters& c = system_.counters();
  c.active_count.store(length(PageQueue::kActive), std::memory_order_relaxed);
  c.inactive_count.store(length(PageQueue::kInactive), std::memory_order_relaxed);
  c.laundry_count.store(length(PageQueue::kLaundry), std::memory_order_relaxed);
  c.cache_count.store(length(PageQueue::kCache), std::memory_order_relaxed);
}

void PageQueues::move(std::span<const FrameNumber> frames, PageQueue to) {
  MutexLock guard(lock_);
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    DCHECK(page.is_busy(), frame.value());
    if (is_paging_queue(page.queue())) unlink(frame.value(), page);
    if (to != PageQueue::kNone) append(frame.value(), page, to);
  }
  publish();
}

void PageQueues::move_first(std::span<const FrameNumber> frames, PageQueue to) {
  {
    MutexLock guard(lock_);
    List& list = lists_[static_cast<std::size_t>(to)];
    for (const FrameNumber frame : frames) {
      Page& page = system_.page(frame);
      DCHECK(page.is_busy(), frame.value());
      if (is_paging_queue(page.queue())) unlink(frame.value(), page);
      insert_before(frame.value(), page, to, list.ordinary);
    }
    publish();
  }
  count(system_.counters().pdheaded, frames.size());
}

bool PageQueues::activate(Page& page) {
  if (observer_ != nullptr) observer_->used(page);
  const PageQueue at = page.queue();  // stable: the caller holds the page busy
  if (at == PageQueue::kActive) {
    if (page.act_count() < kActInit) page.set_act_count(kActInit);
    return false;
  }
  const bool back = at == PageQueue::kInactive || at == PageQueue::kLaundry || at == PageQueue::kCache;
  if (back) page.age(1);
  if (page.act_count() < kActInit) page.set_act_count(kActInit);
  move(system_.frame_of(page), PageQueue::kActive);
  return back;
}

std::size_t PageQueues::take(PageQueue from, std::span<FrameNumber> out, std::size_t* refused) {
  MutexLock guard(lock_);
  List& list = lists_[static_cast<std::size_t>(from)];
  std::size_t looks = std::min<std::size_t>(out.size() + kExtraLooks, length(from));
  std::size_t n = 0;
  for (; looks > 0 && n < out.size() && list.head != kEnd; --looks) {
    const std::uint32_t frame = list.head;
    Page& page = system_.page(FrameNumber{frame});
    const bool mine = page.try_busy();
    unlink(frame, page);
    if (mine) {
      out[n++] = FrameNumber{frame};
    } else {
      append(frame, page, from);
      ++*refused;
    }
  }
  publish();
  return n;
}

std::size_t PageQueues::look(PageQueue at, std::span<FrameNumber> out, std::size_t* refused) {
  MutexLock guard(lock_);
  List& list = lists_[static_cast<std::size_t>(at)];
  if (list.hand == kEnd || list.hand == list.stop) {  // the next revolution: all that are here now
    list.hand = list.head;
    list.stop = kEnd;
  }
  std::size_t n = 0;
  std::size_t looks = out.size() + kExtraLooks;
  for (; looks > 0 && n < out.size() && list.hand != kEnd && list.hand != list.stop; --looks) {
    const std::uint32_t frame = list.hand;
    Page& page = system_.page(FrameNumber{frame});
    list.hand = page.next;
    if (page.try_busy()) {
      out[n++] = FrameNumber{frame};
    } else {
      ++*refused;
    }
  }
  return n;
}

void PageQueues::for_each(PageQueue q, FunctionRef<void(FrameNumber, const Page&)> visit) {
  MutexLock guard(lock_);
  const List& list = lists_[static_cast<std::size_t>(q)];
  for (std::uint32_t f = list.head; f != kEnd; f = system_.page(FrameNumber{f}).next) {
    visit(FrameNumber{f}, system_.page(FrameNumber{f}));
  }
}

void PageQueues::validate() {
  for (std::size_t q = static_cast<std::size_t>(PageQueue::kActive); q < kPageQueues; ++q) {
    const auto queue = static_cast<PageQueue>(q);
    std::uint64_t n = 0;
    std::uint32_t last = kEnd;
    const List& list = lists_[q];
    std::size_t marks = 0;  // that are among the pages
    for_each(queue, [&](FrameNumber frame, const Page& page) {
      CHECK(page.queue() == queue, frame.value(), q);
      CHECK(page.prev == last, frame.value(), q);
      CHECK(!page.is_wired(), frame.value(), q);
      CHECK(queue == PageQueue::kLimbo || page.object != nullptr, frame.value(), q);
      if (queue == PageQueue::kCache && !page.is_busy()) {
        CHECK(page.is_valid() && !page.is_dirty() && !page.has(Page::kMapped), frame.value());
      }
      for (const std::uint32_t mark : {list.ordinary, list.hand, list.stop}) marks += mark == frame.value();
      last = frame.value();
      ++n;
    });
    CHECK(n == length(queue), n, length(queue));
    for (const std::uint32_t mark : {list.ordinary, list.hand, list.stop}) marks += mark == kEnd;
    CHECK(marks == 3, marks, q);
  }
}

}  // namespace enchilada
