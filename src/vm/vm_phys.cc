// VmPhys: counts and states of free frames; the order of frames is behind FrameOrder. Invariants: see
// vm_phys.h.
#include "vm/vm_phys.h"

#include <algorithm>

#include "vm/vm_page.h"

namespace enchilada {

VmPhys::VmPhys(VmSystem& system, std::unique_ptr<FrameOrder> order)
    : system_(system), order_(std::move(order)), follows_objects_(order_->follows_objects()) {}

VmPhys::~VmPhys() = default;

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

/// A frame that the order has just given away is its new holder's.
void VmPhys::claim(FrameNumber frame) {
  Page& page = system_.page(frame);
  DCHECK(page.queue() == PageQueue::kFree, frame.value());
  page.set_queue(PageQueue::kNone);
  page.busy.store(Page::kExclusive, std::memory_order_relaxed);
}

void VmPhys::free_zeroed(FrameRun run) {
  MutexLock guard(lock_);
  for (std::uint64_t i = run.count.value(); i-- > 0;) {  // so that they come off the list in order
    const FrameNumber frame = run.first + PageCount{i};
    Page& page = system_.page(frame);
    DCHECK(page.is_exclusive() && page.object == nullptr && page.queue() == PageQueue::kNone, frame.value());
    page.busy.store(0, std::memory_order_relaxed);
    page.order = Page::kNotHead;
    page.set(Page::kZeroed);
    page.set_queue(PageQueue::kFree);
    page.next = zeroed_head_.value();
    zeroed_head_ = frame;
  }
  zeroed_.store(zeroed_count() + run.count.value(), std::memory_order_relaxed);
  change_free(free_count() + run.count.value());
  publish();
}

FrameNumber VmPhys::pop_zeroed() {
  const FrameNumber frame = zeroed_head_;
  zeroed_head_ = FrameNumber{system_.page(frame).next};
  zeroed_.store(zeroed_count() - 1, std::memory_order_relaxed);
  return frame;
}

bool VmPhys::take_zeroed(std::span<FrameNumber> out, FrameClass who) {
  if (zeroed_count() < out.size()) return false;
  MutexLock guard(lock_);
  if (zeroed_count() < out.size() || available(who) < out.size()) return false;
  for (FrameNumber& frame : out) {
    frame = pop_zeroed();
    claim(frame);
  }
  change_free(free_count() - out.size());
  publish();
  return true;
}

/// The order is to have all free frames: the zeroed ones are frames like others from now on.
void VmPhys::forget_zeroed() {
  while (zeroed_head_ != kNoFrame) {
    const FrameNumber frame = pop_zeroed();
    system_.page(frame).clear(Page::kZeroed);
    order_->put({frame, PageCount{1}});
  }
}

FrameRun VmPhys::take_run(PageCount most) {
  if (most.value() == 0) return {};
  if (free_count() == zeroed_count()) forget_zeroed();
  const FrameRun run = order_->take_run(most);
  for (std::uint64_t i = 0; i < run.count.value(); ++i) claim(run.first + PageCount{i});
  change_free(free_count() - run.count.value());
  return run;
}

FrameRun VmPhys::allocate_run(PageCount most, FrameClass who) {
  MutexLock guard(lock_);
  const FrameRun run = take_run(std::min(most, PageCount{available(who)}));
  publish();
  return run;
}

FrameGrant VmPhys::allocate(const FrameWish& wish, std::size_t wanted, std::span<FrameNumber> out,
                            FrameClass who) {
  MutexLock guard(lock_);
  const std::size_t n = std::min<std::size_t>(out.size(), available(who));
  FrameGrant grant{.skipped = 0, .count = n};
  if (n == 0) return grant;
  if (n < out.size()) grant.skipped = std::min(wanted, out.size() - n);
  if (n > free_count() - zeroed_count()) forget_zeroed();
  const PageCount skipped{grant.skipped};
  order_->take({wish.object, wish.first + skipped, wish.va + to_bytes(skipped)}, out.first(n));
  for (const FrameNumber frame : out.first(n)) claim(frame);
  change_free(free_count() - n);
  publish();
  return grant;
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
    order_->put({frames[i], PageCount{n}});
    i += n;
  }
  change_free(free_count() + frames.size());
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
  order_->put(run);
  change_free(free_count() + run.count.value());
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
  const FrameRun run = take_run(most);
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    system_.page(run.first + PageCount{i}).busy.store(0, std::memory_order_relaxed);
  }
  granted_.store(granted_.load(std::memory_order_relaxed) - run.count.value(), std::memory_order_relaxed);
  system_.set_granted(PageCount{granted()});
  publish();
  return run;
}

void VmPhys::renamed(FrameNumber frame, const VmObject& from, PageIndex before, VmObject& to, PageIndex now) {
  if (!follows_objects_) return;
  MutexLock guard(lock_);
  order_->renamed(frame, from, before, to, now);
}

void VmPhys::object_gone(VmObject& object) {
  if (!follows_objects_) return;
  MutexLock guard(lock_);
  order_->object_gone(object);
}

void VmPhys::for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) {
  MutexLock guard(lock_);
  order_->for_each_block(visit);
  for (FrameNumber f = zeroed_head_; f != kNoFrame; f = FrameNumber{system_.page(f).next}) visit(0, f);
}

void VmPhys::validate() {
  {
    MutexLock guard(lock_);
    order_->validate();
    std::uint64_t zeroed = 0;
    for (FrameNumber f = zeroed_head_; f != kNoFrame; f = FrameNumber{system_.page(f).next}, ++zeroed) {
      CHECK(system_.page(f).has(Page::kZeroed), f.value());
    }
    CHECK(zeroed == zeroed_count(), zeroed, zeroed_count());
  }
  std::uint64_t sum = 0;
  for_each_block([&](unsigned order, FrameNumber first) {
    CHECK((first.value() & ((1u << order) - 1)) == 0, first.value(), order);
    for (std::uint32_t i = 0; i < (1u << order); ++i) {
      const Page& page = system_.page(FrameNumber{first.value() + i});
      CHECK(page.queue() == PageQueue::kFree && page.object == nullptr, first.value() + i);
      CHECK(page.wire_count.load() == 0, first.value() + i);
    }
    sum += std::uint64_t{1} << order;
  });
  CHECK(sum == free_count(), sum, free_count());
  CHECK(free_count() <= granted());
}

}  // namespace enchilada
