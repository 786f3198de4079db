// VmPhys: a textbook buddy allocator (Knuth 2.5) with 32-bit links in the page array. Invariants: see
// vm_phys.h.
#include "vm/vm_phys.h"

#include <algorithm>
#include <bit>

#include "vm/vm_page.h"

namespace enchilada {
namespace {
constexpr std::uint32_t kEnd = ~std::uint32_t{0};
}  // namespace

VmPhys::VmPhys(VmSystem& system) : system_(system), limit_(system.phys().frame_limit().value()) {
  head_.fill(kEnd);
}

void VmPhys::push_block(std::uint32_t first, unsigned order) {
  Page& page = system_.page(FrameNumber{first});
  page.order = static_cast<std::uint8_t>(order);
  page.prev = kEnd;
  page.next = head_[order];
  if (page.next != kEnd) system_.page(FrameNumber{page.next}).prev = first;
  head_[order] = first;
  nonempty_ |= 1u << order;
}

void VmPhys::unlink_block(std::uint32_t first, unsigned order) {
  Page& page = system_.page(FrameNumber{first});
  if (page.prev != kEnd) {
    system_.page(FrameNumber{page.prev}).next = page.next;
  } else {
    head_[order] = page.next;
    if (page.next == kEnd) nonempty_ &= ~(1u << order);
  }
  if (page.next != kEnd) system_.page(FrameNumber{page.next}).prev = page.prev;
  page.order = Page::kNotHead;
}

void VmPhys::free_block(std::uint32_t first, unsigned order) {
  while (order + 1 < kOrders) {
    const std::uint32_t buddy = first ^ (1u << order);
    if (std::uint64_t{buddy} + (1u << order) > limit_) break;
    const Page& other = system_.page(FrameNumber{buddy});
    if (other.queue() != PageQueue::kFree || other.order != order) break;
    unlink_block(buddy, order);
    first &= ~(1u << order);
    ++order;
  }
  push_block(first, order);
}

/// Frees a run of any length and alignment as the fewest aligned blocks.
void VmPhys::free_range(std::uint32_t first, std::uint64_t n) {
  while (n > 0) {
    const auto align = static_cast<unsigned>(std::countr_zero(first | (1u << (kOrders - 1))));
    const auto fit = static_cast<unsigned>(std::bit_width(n) - 1);
    const unsigned order = align < fit ? align : fit;
    free_block(first, order);
    first += 1u << order;
    n -= std::uint64_t{1} << order;
  }
}

/// Takes the smallest block that holds `most`, else the largest; what is not wanted of it goes back.
FrameRun VmPhys::take_run(std::uint64_t most) {
  if (nonempty_ == 0 || most == 0) return {};
  unsigned want = static_cast<unsigned>(std::bit_width(most - 1));
  if (want >= kOrders) want = kOrders - 1;
  const std::uint32_t enough = nonempty_ >> want << want;
  const unsigned order = enough != 0 ? static_cast<unsigned>(std::countr_zero(enough))
                                     : static_cast<unsigned>(std::bit_width(nonempty_)) - 1;
  const std::uint32_t first = head_[order];
  unlink_block(first, order);
  const std::uint64_t size = std::uint64_t{1} << order;
  const std::uint64_t n = size < most ? size : most;
  for (std::uint64_t i = 0; i < n; ++i) {
    Page& page = system_.page(FrameNumber{static_cast<std::uint32_t>(first + i)});
    DCHECK(page.queue() == PageQueue::kFree, first + i);
    page.set_queue(PageQueue::kNone);
  }
  free_range(static_cast<std::uint32_t>(first + n), size - n);
  free_.store(free_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed);
  return {FrameNumber{first}, PageCount{n}};
}

void VmPhys::publish() {
  VmCounters& c = system_.counters();
  const std::uint64_t free = free_count();
  const std::uint64_t used = granted() - free;
  c.free_count.store(free, std::memory_order_relaxed);
  c.granted.store(granted(), std::memory_order_relaxed);
  c.metadata_bytes.store(system_.arena().touched(), std::memory_order_relaxed);
  if (used > c.peak_resident.load(std::memory_order_relaxed)) {
    c.peak_resident.store(used, std::memory_order_relaxed);
  }
}

std::uint64_t VmPhys::available(FrameClass who) const {
  std::uint64_t reserve = 0;
  switch (who) {
    case FrameClass::kNormal:
      reserve = system_.thresholds().at(&PageThresholds::free_reserved);
      break;
    case FrameClass::kSystem:
      reserve = system_.thresholds().at(&PageThresholds::interrupt_free_min);
      break;
    case FrameClass::kInterrupt:
      break;
  }
  const std::uint64_t free = free_count();
  return free > reserve ? free - reserve : 0;
}

FrameRun VmPhys::allocate_run(PageCount most, FrameClass who) {
  MutexLock guard(lock_);
  const FrameRun run = take_run(std::min(most.value(), available(who)));
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    system_.page(run.first + PageCount{i}).busy.store(Page::kExclusive, std::memory_order_relaxed);
  }
  publish();
  return run;
}

std::size_t VmPhys::allocate(std::span<FrameNumber> out, FrameClass who) {
  MutexLock guard(lock_);
  out = out.first(static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), available(who))));
  std::size_t n = 0;
  while (n < out.size()) {
    const FrameRun run = take_run(out.size() - n);
    if (run.count.value() == 0) break;
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      const FrameNumber frame = run.first + PageCount{i};
      system_.page(frame).busy.store(Page::kExclusive, std::memory_order_relaxed);
      out[n++] = frame;
    }
  }
  publish();
  return n;
}

void VmPhys::free(std::span<const FrameNumber> frames) {
  for (const FrameNumber frame : frames) {
    Page& page = system_.page(frame);
    DCHECK(page.is_exclusive() && page.object == nullptr && page.queue() == PageQueue::kNone, frame.value());
    page.set_dirty(false);
    page.set_valid(false);
    page.flags.store(0, std::memory_order_relaxed);
    page.state.store(static_cast<std::uint32_t>(PageQueue::kNone), std::memory_order_relaxed);
    page.unbusy();  // sleepers look up again and find something else
  }
  MutexLock guard(lock_);
  for (std::size_t i = 0; i < frames.size();) {
    std::size_t n = 1;
    while (i + n < frames.size() && frames[i + n].value() == frames[i].value() + n) ++n;
    for (std::size_t k = 0; k < n; ++k) {
      Page& page = system_.page(frames[i + k]);
      page.order = Page::kNotHead;
      page.set_queue(PageQueue::kFree);
    }
    free_range(frames[i].value(), n);
    i += n;
  }
  free_.store(free_.load(std::memory_order_relaxed) + frames.size(), std::memory_order_relaxed);
  publish();
}

void VmPhys::add(FrameRun run) {
  MutexLock guard(lock_);
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    Page& page = system_.page(run.first + PageCount{i});
    CHECK(page.queue() == PageQueue::kNone && page.object == nullptr, run.first.value() + i);
    page.order = Page::kNotHead;
    page.set_queue(PageQueue::kFree);
  }
  free_range(run.first.value(), run.count.value());
  free_.store(free_.load(std::memory_order_relaxed) + run.count.value(), std::memory_order_relaxed);
  const std::uint64_t now = granted_.load(std::memory_order_relaxed) + run.count.value();
  granted_.store(now, std::memory_order_relaxed);
  system_.set_granted(PageCount{now});
  if (now > most_granted_) {  // their Pages are in use from now on, also when the frames go back
    system_.arena().note_touched((now - most_granted_) * sizeof(Page));
    most_granted_ = now;
  }
  publish();
}

FrameRun VmPhys::take_out(PageCount most) {
  MutexLock guard(lock_);
  const FrameRun run = take_run(most.value());
  granted_.store(granted_.load(std::memory_order_relaxed) - run.count.value(), std::memory_order_relaxed);
  system_.set_granted(PageCount{granted()});
  publish();
  return run;
}

void VmPhys::for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) {
  MutexLock guard(lock_);
  for (unsigned order = 0; order < kOrders; ++order) {
    for (std::uint32_t f = head_[order]; f != kEnd; f = system_.page(FrameNumber{f}).next) {
      visit(order, FrameNumber{f});
    }
  }
}

void VmPhys::validate() {
  std::uint64_t sum = 0;
  for_each_block([&](unsigned order, FrameNumber first) {
    CHECK((first.value() & ((1u << order) - 1)) == 0, first.value(), order);
    CHECK(system_.page(first).order == order, first.value(), order);
    for (std::uint32_t i = 0; i < (1u << order); ++i) {
      const Page& page = system_.page(FrameNumber{first.value() + i});
      CHECK(page.queue() == PageQueue::kFree && page.object == nullptr, first.value() + i);
      CHECK(i == 0 || page.order == Page::kNotHead, first.value() + i);
      CHECK(page.wire_count.load() == 0, first.value() + i);
    }
    sum += std::uint64_t{1} << order;
  });
  CHECK(sum == free_count(), sum, free_count());
  CHECK(free_count() <= granted());
}

}  // namespace enchilada
