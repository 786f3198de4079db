// Page-in: which pages to read together, the read itself with no lock held, and what becomes of them.
//
// Read-ahead (as a policy: vm_readahead.h; this is the default): a page-in that starts where the last one
// ended (or a little further: what lies between was resident) doubles the object's window up to
// readahead_max, reads forward only, and maps everything it brings, so that sequential access costs one fault
// a window. A page-in that continues nothing reads an aligned cluster of up to readahead_min pages, as far as
// such guesses have proved good (NeighbourGuess); only the wanted page is mapped, the others wait on
// inactive, marked. A fault on a marked page is a hit and maps its marked neighbours, too. Truly random
// access therefore reads single pages. Frames for unasked pages come only from above free_min.
// readahead_hits: marked pages that were faulted on, and the unasked pages of a sequential window once the
// next window starts at its end (they were mapped, so their use is inferred).
#include <algorithm>

#include "vm/vm_fault_state.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_readahead.h"

namespace enchilada {
namespace {
// Resident pages that a sequential reader may meet between two page-ins.
constexpr std::uint64_t kSequenceGap = 64;
// Of one fault: what was read is evicted again before it can be used. Not an I/O error, but too little
// memory; with other threads competing for it a few rounds are no proof of that.
constexpr unsigned kMaxReads = 64;
}  // namespace

/// The sequence that a page-in at `index` continues upwards; what was left out must be resident.
SequenceTable::Sequence* FaultState::sequence_before(VmObject& object, PageIndex index) {
  SequenceTable::Sequence* const last = object.reads.continued_by(index, kSequenceGap);
  if (last == nullptr || last->high > index) return nullptr;
  for (PageIndex at = last->high; at < index; ++at) {
    if (object.pages.find(at) == kNoFrame) return nullptr;
  }
  return last;
}

/// How far to read before and after `index`, and whether that is part of a sequence.
void FaultState::read_limits(VmObject& object, PageIndex index, std::uint64_t* before, std::uint64_t* after) {
  const ReadWindow wanted =
      system_.readahead().choose(object, index, look_.advice, sequence_before(object, index));
  io_.sequential = wanted.sequential;
  io_.widest = io_.sequential && wanted.pages == system_.tunables().readahead_max.value();
  if (io_.sequential) wish(std::min(wanted.pages * 2, system_.tunables().readahead_max.value()));
  const std::uint64_t window = std::min(wanted.pages, spare_frames(io_.sequential) + 1);
  *before = std::min(wanted.before, window - 1);
  *after = window - 1 - *before;
  *before = std::min(*before, look_.index.value() - look_.entry_first_index.value());
  *after = std::min(*after, entry_end().value() - 1 - look_.index.value());
}

/// The stored pages around `index`, which is stored: what lies together with it, and further places as long
/// as one page-in may read so many. Those cost a read each, but not the fault that they save.
PagerRun FaultState::stored_around(VmObject& object, PageIndex index, PageCount before, PageCount after) {
  PagerRun all = object.stored(index, before, after);
  unsigned left = system_.tunables().readahead_runs - 1;
  for (; left > 0 && all.after < after; --left) {
    const PageCount next = all.after + PageCount{1};
    const PagerRun more = object.stored(index + next, PageCount{0}, after - next);
    if (!more.present) break;
    all.after = next + more.after;
  }
  for (; left > 0 && all.before < before; --left) {
    const PageCount next = all.before + PageCount{1};
    const PagerRun more = object.stored(index - next, before - next, PageCount{0});
    if (!more.present) break;
    all.before = next + more.before;
  }
  return all;
}

/// The page is absent in `object` (locked); is it in the store? Then takes frames for it and its neighbours,
/// puts them into the object, busy, and lets go of all locks.
FaultState::Step FaultState::start_page_in(VmObject& object, PageIndex index) {
  if (!object.stored(index).present) return Step::kNext;
  if (++reads_ > kMaxReads) return leave_objects(object, fail(FaultResult::kNoMemory));
  std::uint64_t before = 0;
  std::uint64_t after = 0;
  read_limits(object, index, &before, &after);
  const PagerRun run = stored_around(object, index, PageCount{before}, PageCount{after});
  // Only what is absent here and, seen through the top, not hidden by anything above.
  const auto wanted = [&](std::uint64_t top_index, PageIndex at) {
    return object.pages.find(at) == kNoFrame && (&object == &top() || is_open(PageIndex{top_index}));
  };
  std::uint64_t b = 0;
  std::uint64_t a = 0;
  while (b < std::min(before, run.before.value()) &&
         wanted(look_.index.value() - b - 1, index - PageCount{b + 1})) {
    ++b;
  }
  while (a < std::min(after, run.after.value()) &&
         wanted(look_.index.value() + a + 1, index + PageCount{a + 1})) {
    ++a;
  }
  return take_frames_for_io(object, index, b, b + 1 + a);
}

FaultState::Step FaultState::take_frames_for_io(VmObject& object, PageIndex index, std::uint64_t before,
                                                std::uint64_t n) {
  const FrameGrant grant = system_.free_frames().allocate(
      frame_wish(object, index - PageCount{before}, before), before, {io_.frames.data(), n}, frame_class());
  const std::size_t got = grant.count;
  if (got == 0) return leave_objects(object, Step::kNeedFrames);
  allocated_ = true;
  before -= grant.skipped;
  io_.object = &object;
  io_.first = index - PageCount{before};
  io_.pos = before;
  io_.count = got;
  for (std::size_t i = 0; i < got; ++i) {
    if (system_.objects().insert_page(object, io_.first + PageCount{i}, io_.frames[i])) continue;
    system_.objects().remove_pages(object, {io_.frames.data(), i});
    system_.objects().release(io_.all());
    return leave_objects(object, fail(FaultResult::kNoMemory));
  }
  SequenceTable::Sequence* const last = sequence_before(object, index);
  if (io_.sequential && last != nullptr) count(system_.counters().readahead_hits, last->pending);
  const auto unasked = static_cast<std::uint32_t>(io_.sequential ? got - 1 : 0);
  object.reads.record(io_.sequential ? last : nullptr,
                      {io_.first, io_.first + PageCount{got}, static_cast<std::uint32_t>(got), unasked});
  object.begin_paging();
  return leave_objects(object, Step::kPageIn);
}

/// Drops pages [from, to) of the page-in: out of the object, free.
void FaultState::discard_from_io(std::size_t from, std::size_t to) {
  const std::span<const FrameNumber> frames = io_.all().subspan(from, to - from);
  if (frames.empty()) return;
  {
    WriteLock guard(io_.object->lock);
    system_.objects().remove_pages(*io_.object, frames);
  }
  system_.objects().release(frames);
}

/// The read. When a cluster fails, the wanted page alone gets another chance: the error may be a neighbour's.
/// False: it cannot be read.
bool FaultState::read_pages() {
  lock_order::assert_none_held();
  VmCounters& c = system_.counters();
  Pager& pager = *io_.object->pager;
  if (!did_io_) count(c.io_faults);
  did_io_ = true;
  // The frames that this fault has used up are replaced while the device is at work.
  PagerReturn verdict = pager.get_pages_while(io_.object->handle, io_.first, io_.all(), [this] {
    system_.daemon().work_ahead();
    (void)system_.idle();
  });
  if (verdict != PagerReturn::kOk && io_.count > 1) {
    discard_from_io(io_.pos + 1, io_.count);
    discard_from_io(0, io_.pos);
    io_.frames[0] = io_.frames[io_.pos];
    io_.first = io_.first + PageCount{io_.pos};
    io_.pos = 0;
    io_.count = 1;
    verdict = pager.get_pages(io_.object->handle, io_.first, io_.all());
  }
  finish_page_in(verdict == PagerReturn::kOk);
  return verdict == PagerReturn::kOk || verdict == PagerReturn::kFail;  // kFail: gone meanwhile, look again
}

void FaultState::finish_page_in(bool good) {
  VmObject& object = *io_.object;
  VmCounters& c = system_.counters();
  if (!good) {
    discard_from_io(0, io_.count);
    object.end_paging();
    return;
  }
  count(c.readahead_pages, io_.count - 1);
  for (std::size_t i = 0; i < io_.count; ++i) {
    Page& page = system_.page(io_.frames[i]);
    const bool asked = i == io_.pos;
    // What a sequence brings in together keeps one age, so that it also goes together: runs of evicted pages
    // stay long, and the next pass reads them with few operations.
    page.set_act_count(asked || io_.sequential ? kActInit : kActDecline);
    page.read_stamp = object.neighbours.stamp();
    if (!asked && !io_.sequential) page.set(Page::kReadAhead);
    page.set_valid(true);
  }
  const PageQueue unasked = io_.sequential ? PageQueue::kActive : PageQueue::kInactive;
  system_.queues().move(io_.all(), unasked);
  if (unasked != PageQueue::kActive) system_.queues().move(io_.frames[io_.pos], PageQueue::kActive);
  map_what_was_read_ = io_.sequential && io_.object == look_.object;
  for (const FrameNumber frame : io_.all()) system_.page(frame).unbusy();
  if (io_.widest) system_.daemon().stream_passed(object, io_.first);
  object.end_paging();
}

}  // namespace enchilada
