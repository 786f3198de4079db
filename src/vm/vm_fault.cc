// vm_fault: the driver, the steps for a page that is resident, and wiring. Zero-fill and copy-on-write are in
// vm_fault_fill.cc, page-in in vm_fault_io.cc. Invariants: see vm_fault_state.h.
#include "vm/vm_fault.h"

#include <algorithm>

#include "vm/vm_fault_state.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

constexpr unsigned kOutOfMemoryVotes = 12;           // FreeBSD's pageout_oom_seq
constexpr unsigned kOutOfMemoryRounds = 500;         // at most, whatever others gain meanwhile
constexpr std::uint64_t kFirstPause = 2'000'000;     // ns; doubled with each vote
constexpr std::uint64_t kLongestPause = 64'000'000;  // longer than a thread with a page in hand may have to
                                                     // wait for a processor

}  // namespace

FaultResult FaultState::run() {
  for (;;) {
    Step step = look_up();
    if (step == Step::kNext) step = find_in_top();
    if (step == Step::kNext) step = walk_chain();
    switch (step) {
      case Step::kDone:
        after_fault();
        if (kept_ != nullptr) kept_->unbusy();
        return FaultResult::kResolved;
      case Step::kFailed:
        return failure_;
      case Step::kBusy:
        count(system_.counters().intrans);
        wait_on_->wait_not_busy();
        break;
      case Step::kNeedFrames:
        if (!wait_for_frames()) return FaultResult::kNoMemory;
        break;
      case Step::kPageIn:
        if (!read_pages()) return FaultResult::kIoError;
        continue;  // planned, not a restart
      case Step::kNext:
      case Step::kRestart:
        break;
    }
    count(system_.counters().fault_restarts);
  }
}

FaultState::Step FaultState::look_up() {
  switch (map_.lookup(va_, access_, &look_)) {
    case KernReturn::kSuccess:
      return Step::kNext;
    case KernReturn::kProtectionFailure:
      return fail(FaultResult::kProtection);
    case KernReturn::kResourceShortage:
      return fail(FaultResult::kNoMemory);
    case KernReturn::kFailure:
      return fail(FaultResult::kIoError);
    case KernReturn::kOutOfBounds:
      return fail(FaultResult::kOutOfBounds);
    case KernReturn::kInvalidAddress:
    case KernReturn::kNoSpace:
    case KernReturn::kInvalidArgument:
      return fail(FaultResult::kNotMapped);
  }
  return fail(FaultResult::kNotMapped);
}

// ------------------------------------------------------------------------------------------------ resident
// pages

/// Fast path: the page is in the top object. Only that object's lock is taken, shared.
FaultState::Step FaultState::find_in_top() NO_THREAD_SAFETY_ANALYSIS {
  VmObject& object = top();
  object.lock.lock_shared();
  const FrameNumber frame = object.pages.find(look_.index);
  if (frame == kNoFrame) {
    object.lock.unlock_shared();
    return Step::kNext;
  }
  // The page's own line, the machine's entry for it and its reverse mapping are each a cache miss in a large
  // memory: this way they are fetched at the same time.
  map_.pmap().expect(va_, frame);
  Page& page = system_.page(frame);
  if (!page.try_busy()) {
    wait_on_ = &page;
    object.lock.unlock_shared();
    return leave(Step::kBusy);
  }
  DCHECK(page.is_valid(), frame.value());
  Batch batch;
  batch.low = look_.index;
  batch.count = 1;
  batch.frames[0] = frame;
  if (!wire_ && !page.is_wired()) add_neighbours(object, 0, batch);
  object.lock.unlock_shared();
  return map_resident(batch, look_.prot);
}

/// May this resident neighbour be mapped along with the wanted page? (§1.10) Pages on active: yes. Pages on
/// inactive wait there for a proof of use, so only the nearest are taken along: those that were read ahead
/// when the wanted one was, too (it has just shown that the guess was good), and withdrawn ones in the same
/// aligned group of four.
bool FaultState::worth_mapping(const Page& page, const Page& wanted, PageIndex index) const {
  if (!page.is_valid() || page.is_wired()) return false;
  switch (page.queue()) {
    case PageQueue::kActive:
      return true;
    case PageQueue::kInactive:
      if (page.has(Page::kReadAhead)) return wanted.has(Page::kReadAhead);
      return index.value() / refault_group_ == look_.index.value() / refault_group_;
    case PageQueue::kNone:
    case PageQueue::kFree:
    case PageQueue::kLaundry:
    case PageQueue::kCache:
    case PageQueue::kLimbo:
      return false;
  }
  return false;
}

bool FaultState::take_neighbour(VmObject& object, PageIndex index, const Page& wanted, FrameNumber* frame) {
  *frame = object.pages.find(index);
  if (*frame == kNoFrame) return false;
  Page& page = system_.page(*frame);
  if (!worth_mapping(page, wanted, index) || !page.try_busy()) return false;
  if (worth_mapping(page, wanted, index)) return true;
  page.unbusy();
  return false;
}

/// Withdrawn pages prove their use one small group at a time; but where all pages before the wanted one are
/// active, a sequential pass is probably going on, and groups as large as the prefault cluster save it most
/// of its faults.
void FaultState::choose_refault_group(const VmObject& object) {
  constexpr std::uint64_t kProof = 8;
  const std::uint64_t at = look_.index.value();
  refault_group_ = 4;
  for (std::uint64_t i = 1; i <= kProof; ++i) {
    const FrameNumber frame = at >= i ? object.pages.find(PageIndex{at - i}) : kNoFrame;
    if (frame == kNoFrame || system_.page(frame).queue() != PageQueue::kActive) return;
  }
  refault_group_ = system_.tunables().prefault_cluster.value();
}

/// Grows a batch of one. Page i of the top is page i + shift of `object`, which is locked and not necessarily
/// the top; nothing above it may hide a neighbour.
class FaultState::Neighbours final : public NeighbourRun {
 public:
  Neighbours(FaultState& fault, VmObject& object, std::uint64_t shift, const Page& wanted)
      : fault_(fault),
        object_(object),
        shift_(shift),
        wanted_(wanted),
        low_(fault.look_.index.value()),
        high_(low_ + 1) {}

  Growth grow_down() override {
    if (low_ == fault_.look_.entry_first_index.value() || full()) return Growth::kEdge;
    if (!take(low_ - 1, &before_[below_])) return Growth::kMissing;
    ++below_;
    --low_;
    return Growth::kLonger;
  }
  Growth grow_up() override {
    if (high_ == fault_.entry_end().value() || full()) return Growth::kEdge;
    if (!take(high_, &after_[above_])) return Growth::kMissing;
    ++above_;
    ++high_;
    return Growth::kLonger;
  }
  /// The wanted page is frames[0] of the batch.
  void put_into(Batch& batch) const {
    if (below_ + above_ == 0) return;
    const FrameNumber middle = batch.frames[0];
    for (std::size_t i = 0; i < below_; ++i) batch.frames[i] = before_[below_ - 1 - i];
    batch.frames[below_] = middle;
    std::copy_n(after_.begin(), above_, batch.frames.begin() + static_cast<std::ptrdiff_t>(below_) + 1);
    batch.low = PageIndex{low_};
    batch.pos = below_;
    batch.count = below_ + 1 + above_;
  }

 private:
  [[nodiscard]] bool full() const { return 1 + below_ + above_ == kMax; }
  bool take(std::uint64_t index, FrameNumber* frame) {
    if (&object_ != &fault_.top() && !fault_.is_open(PageIndex{index})) return false;
    return fault_.take_neighbour(object_, PageIndex{index + shift_}, wanted_, frame);
  }

  FaultState& fault_;
  VmObject& object_;
  const std::uint64_t shift_;
  const Page& wanted_;
  std::uint64_t low_;  // the run, as indexes of the top: [low, high)
  std::uint64_t high_;
  std::size_t below_ = 0;
  std::size_t above_ = 0;
  std::array<FrameNumber, kMax> before_;  // from the wanted page downwards
  std::array<FrameNumber, kMax> after_;
};

/// Completes a batch of one to the run of neighbours that are resident, idle and worth it, within the entry.
/// How far, is the prefault policy's. `object` is locked; page i of the top is page i + shift there.
void FaultState::add_neighbours(VmObject& object, std::uint64_t shift, Batch& batch) {
  if (look_.advice == Advice::kRandom) return;
  const Page& wanted = system_.page(batch.wanted());
  if (wanted.queue() == PageQueue::kInactive && &object == &top()) choose_refault_group(object);
  Neighbours run(*this, object, shift, wanted);
  system_.prefault().grow(look_.index, just_read(), run);
  run.put_into(batch);
}

/// What this fault has read in one sequence, which is mapped together.
PageSpan FaultState::just_read() const {
  if (!map_what_was_read_) return {};
  return {io_.first, io_.first + PageCount{io_.count}};
}

/// Maps a batch of valid busy pages and lets go of everything. The objects are unlocked, the map is locked.
FaultState::Step FaultState::map_resident(Batch& batch, Prot prot) {
  Page& page = system_.page(batch.wanted());
  if (!did_io_ && !ahead_) count(system_.counters().soft_faults);
  touch(page);
  settle_neighbours(batch);
  if (access_ == Access::kWrite && allows(prot, Prot::kWrite)) note_write(page);
  if (wire_) wire_page(page);
  enter(batch, prot);
  unbusy_all(batch);
  return leave(Step::kDone);
}

/// The page was used: what its queue, its use count and the read-ahead statistics learn from that.
void FaultState::touch(Page& page) {
  if (page.has(Page::kReadAhead)) {
    page.clear(Page::kReadAhead);
    count(system_.counters().readahead_hits);
    page.object->neighbours.used(page.read_stamp);  // busy: stable
  }
  if (page.is_wired()) return;
  if (system_.queues().activate(page) && !did_io_) count(system_.counters().reactivated);
}

/// Neighbours that were inactive are mapped now, so they belong on active. Nothing is known of their use yet,
/// but in a sequential pass they stay as old as the wanted page, for the sake of long runs
/// (finish_page_in()).
void FaultState::settle_neighbours(const Batch& batch) {
  std::array<FrameNumber, kMax> moved;
  std::size_t n = 0;
  for (const FrameNumber frame : batch.all()) {
    Page& page = system_.page(frame);
    if (page.queue() != PageQueue::kInactive) continue;
    page.set_act_count(std::max(page.act_count(), refault_group_ > 4 ? kActInit : kActDecline));
    moved[n++] = frame;
  }
  if (n > 0) system_.queues().move({moved.data(), n}, PageQueue::kActive);
}

/// A write is coming: the page will differ from its copy in the store. The copy is kept (the pager compares
/// when it is written out) unless the store is short of space.
void FaultState::note_write(Page& page) {
  page.set_dirty(true);
  if (page.has(Page::kPrecopied) && !ahead_) system_.note_modified(system_.frame_of(page));
  VmObject& object = *page.object;
  if (object.copies() != 0 && object.pager->nearly_full()) {
    object.pager->forget(object.handle, page.pindex, PageCount{1});
  }
}

void FaultState::wire_page(Page& page) {
  if (page.wire_count.fetch_add(1, std::memory_order_relaxed) != 0) return;
  system_.queues().move(system_.frame_of(page), PageQueue::kNone);
  count(system_.counters().wire_count);
}

/// Enters a batch with one call. If the machine stopped before the wanted page, that and what follows get a
/// second one.
void FaultState::enter(const Batch& batch, Prot prot) {
  for (const FrameNumber frame : batch.all()) system_.page(frame).set_mapped();
  const VirtAddr va = look_.entry_range.start + to_bytes(batch.low - look_.entry_first_index);
  const bool wired = system_.page(batch.wanted()).is_wired() && (wire_ || look_.wired);
  const Wiring wiring = wired ? Wiring::kWired : Wiring::kNotWired;
  const Access access = ahead_ ? Access::kRead : access_;  // ahead of its fault a page is not used yet
  std::uint64_t mapped = map_.pmap().enter(va, batch.all(), prot, access, wiring).value();
  if (mapped <= batch.pos && batch.pos > 0) {
    const auto rest = batch.all().subspan(batch.pos);
    mapped += map_.pmap().enter(va_, rest, prot, access, wiring).value();
  }
  if (mapped > 1) count(system_.counters().prefaulted, mapped - 1);
}

/// Lets go of the batch; of the wanted page only once the fault has seen to free frames, lest that takes the
/// very page: where nothing else can be evicted the access would fault for ever.
void FaultState::unbusy_all(const Batch& batch) {
  if (allocated_) kept_ = &system_.page(batch.wanted());
  for (const FrameNumber frame : batch.all()) {
    Page& page = system_.page(frame);
    if (&page != kept_) page.unbusy();
  }
}

// ------------------------------------------------------------------------------------------------ the chain

/// Slow path: down the chain of backing objects, each locked before its shadow is let go (the top stays
/// locked). Ends where the page is: in memory, in the store, or nowhere.
FaultState::Step FaultState::walk_chain() NO_THREAD_SAFETY_ANALYSIS {
  VmObject* object = &top();
  object->lock.lock();
  fill_width_ = fill_width(*object);
  open_window(std::max(fill_width_, static_cast<unsigned>(system_.tunables().prefault_cluster.value())));
  PageIndex index = look_.index;
  for (;;) {
    const FrameNumber frame = object->pages.find(index);
    if (frame != kNoFrame) {
      if (object != &top()) return found_below(*object, index, frame);
      return leave_objects(*object, Step::kRestart);  // it came since find_in_top()
    }
    if (object->copies() != 0) {
      const Step step = start_page_in(*object, index);
      if (step != Step::kNext) return step;
    }
    note_present(*object, index.value() - look_.index.value());
    VmObject* const below = object->backing;
    if (below == nullptr) {
      if (object->anonymous()) return zero_fill(*object);
      return leave_objects(*object, fail(FaultResult::kOutOfBounds));
    }
    below->lock.lock();
    index = index + object->backing_offset;
    if (object != &top()) object->lock.unlock();
    object = below;
  }
}

/// The aligned window of `width` pages around the wanted one, within the entry.
void FaultState::open_window(unsigned width) {
  const std::uint64_t at = look_.index.value();
  const std::uint64_t start = std::max(at - at % width, look_.entry_first_index.value());
  const std::uint64_t end = std::min(at - at % width + width, entry_end().value());
  window_.low = PageIndex{start};
  window_.count = static_cast<unsigned>(end - start);
  window_.open = window_.count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << window_.count) - 1;
}

/// Closes the window's bits for what `object` has, in memory or in the store. Page i of the top is i + shift
/// here.
void FaultState::note_present(VmObject& object, std::uint64_t shift) {
  const std::uint64_t low = window_.low.value() + shift;
  const PageIndex end{low + window_.count};
  VmRadix::Item item;
  for (PageIndex at{low}; object.pages.find_least(at, &item) && item.index < end;
       at = item.index + PageCount{1}) {
    window_.open &= ~(std::uint64_t{1} << (item.index.value() - low));
  }
  if (object.copies() == 0) return;
  PageIndex copy;
  for (PageIndex at{low}; object.pager->find_least(object.handle, at, &copy) && copy < end;
       at = copy + PageCount{1}) {
    window_.open &= ~(std::uint64_t{1} << (copy.value() - low));
  }
}

bool FaultState::is_open(PageIndex index) const {
  const std::uint64_t i = index.value() - window_.low.value();
  return index >= window_.low && i < window_.count && (window_.open >> i & 1) != 0;
}

FaultState::Step FaultState::found_below(VmObject& object, PageIndex index, FrameNumber frame) {
  Page& page = system_.page(frame);
  if (!page.try_busy()) return busy(object, page);
  DCHECK(page.is_valid(), frame.value());
  return access_ == Access::kWrite ? copy_up(object, page) : map_from_below(object, index, page);
}

/// A read of a page of a backing object: mapped where it is, without the right to write. Neighbours in the
/// same object come along if nothing above hides them.
FaultState::Step FaultState::map_from_below(VmObject& object, PageIndex index, Page& page) {
  Batch batch;
  batch.low = look_.index;
  batch.count = 1;
  batch.frames[0] = system_.frame_of(page);
  if (!wire_) add_neighbours(object, index.value() - look_.index.value(), batch);
  unlock_objects(object);
  return map_resident(batch, without(look_.prot, Prot::kWrite));
}

// ------------------------------------------------------------------------------------------------ ends

void FaultState::unlock_objects(VmObject& object) NO_THREAD_SAFETY_ANALYSIS {
  if (&object != &top()) object.lock.unlock();
  top().lock.unlock();
}

FaultState::Step FaultState::leave(Step step) {
  map_.unlock_shared();
  return step;
}

FaultState::Step FaultState::leave_objects(VmObject& object, Step step) {
  unlock_objects(object);
  return leave(step);
}

FaultState::Step FaultState::busy(VmObject& object, Page& page) {
  wait_on_ = &page;
  return leave_objects(object, Step::kBusy);
}

/// Free frames that may be used for pages nobody asked for. A sequence may dip into the reserve: what it
/// takes early it does not take later, and the fault replenishes the reserve when it is done.
std::uint64_t FaultState::spare_frames(bool sequential) const {
  const std::uint64_t free = system_.free_frames().free_count();
  const std::uint64_t least = sequential ? system_.free_min() / 4 : system_.free_min();
  return free > least ? free - least : 0;
}

/// No frame was free. False: nothing can be gained, not even by waiting.
bool FaultState::wait_for_frames() {
  const std::atomic<std::uint32_t> never{0};
  const auto some_free = [this] { return system_.free_frames().available(frame_class()) > 0; };
  const auto freed_so_far = [this] { return system_.free_frames().freed(); };
  std::uint64_t pause = kFirstPause;
  unsigned votes = 0;
  for (unsigned round = 0; round < kOutOfMemoryRounds && votes < kOutOfMemoryVotes; ++round) {
    const std::uint64_t freed = freed_so_far();
    const std::uint64_t rested = system_.daemon().at_rest();
    if (system_.daemon().refill() || some_free()) return true;
    const bool worth_waiting = system_.daemon().worth_waiting(rested);
    if (freed_so_far() != freed) {  // asked last: nobody can have taken a frame since but from these
      // Others were quicker to take what was freed meanwhile: so there are frames to be had.
      votes = 0;
      pause = kFirstPause;
    } else if (!worth_waiting) {
      break;
    } else {
      ++votes;
      pause = std::min(2 * pause, kLongestPause);
    }
    futex_wait(never, 0, pause);
  }
  if (some_free()) return true;
  count(system_.counters().pdoom);
  return false;
}

/// Keeps frames free for the next fault, as many as a sequence needs for its next cluster, and gives the
/// machine back what it wants. Nothing is held but the page that the fault was about.
void FaultState::after_fault() {
  if (!allocated_) return;
  const VmPhys& frames = system_.free_frames();
  if (frames.free_count() < std::max(wish_, system_.free_min()) && system_.may_grow()) {
    (void)system_.grow(PageCount{wish_});
  }
  const std::uint64_t least = std::max(system_.free_min(), std::min(wish_, frames.granted() / 8));
  const std::uint64_t at_hand = system_.at_hand();
  const bool others_at_it =
      at_hand > 0 && system_.daemon().run_lock().held();  // no need to queue up behind them
  if ((at_hand < least || system_.is_short()) && !others_at_it) {
    (void)system_.daemon().reclaim(PageCount{least});
  }
  system_.daemon().tick();
  const PageCount surplus = system_.phys().surplus_wanted();
  if (surplus.value() != 0) {
    (void)system_.daemon().give_back(PageCount{std::min(surplus.value(), PageDaemon::kGoal)});
  }
}

FaultResult vm_fault(VmMap& map, VirtAddr address, Access access) {
  VmSystem& system = map.system();
  VmCounters& counters = system.counters();
  lock_order::assert_none_held();
  ReadLock gate(system.gate());
  const Nanoseconds start = system.clock().now();
  count(counters.vm_faults);
  const FaultResult result = FaultState(map, address, access, FaultState::Purpose::kFault).run();
  if (result != FaultResult::kResolved) count(counters.fault_errors);
  counters.fault_time.add((system.clock().now() - start).value());
  return result;
}

FaultResult vm_fault_ahead(VmMap& map, VirtAddr address) {
  lock_order::assert_none_held();
  ReadLock gate(map.system().gate());
  return FaultState(map, address, Access::kWrite, FaultState::Purpose::kAhead).run();
}

}  // namespace enchilada
