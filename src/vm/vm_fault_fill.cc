// Faults that need a new page in the top object: zero-fill (in clusters) and copy-on-write (freebsd-vm.md
// §1.2, §1.3). Invariant: a new page is in the top object, busy and invalid, from the moment at which the
// chain was seen to need it until it is filled.
#include <algorithm>

#include "vm/vm_fault_state.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_precopy.h"

namespace enchilada {
namespace {
constexpr unsigned kFirstFill = 4;  // pages of a zero-fill that continues nothing, while memory is plentiful
}  // namespace

/// How many pages a zero-fill here may cover: doubles up to the tunable while faults follow each other
/// (upwards or downwards); a lone fault gets a few, or just its page when frames are scarce.
unsigned FaultState::fill_width(VmObject& object) const {
  const auto most = static_cast<unsigned>(system_.tunables().zero_fill_cluster.value());
  if (wire_ || look_.advice == Advice::kRandom) return 1;
  if (look_.advice == Advice::kSequential) return most;
  const SequenceTable::Sequence* const before = object.fills.continued_by(look_.index);
  if (before != nullptr) return std::min(before->window * 2, most);
  const bool scarce = !system_.may_grow() && system_.free_frames().free_count() < system_.free_target();
  return scarce ? 1 : std::min(kFirstFill, most);
}

/// The run of open window pages around the wanted one that a zero-fill takes: to the end of its aligned
/// cluster, and what is open before it.
void FaultState::fill_run(Batch& batch) const {
  const std::uint64_t at = look_.index.value();
  const std::uint64_t start = at - at % fill_width_;
  const bool sequence = fill_width_ > kFirstFill;
  const std::uint64_t most = std::max<std::uint64_t>(spare_frames(sequence), 1);
  std::uint64_t lo = at;
  std::uint64_t hi = at + 1;
  while (hi < start + fill_width_ && hi - lo < most && is_open(PageIndex{hi})) ++hi;
  while (lo > start && hi - lo < most && is_open(PageIndex{lo - 1})) --lo;
  batch.low = PageIndex{lo};
  batch.count = static_cast<std::size_t>(hi - lo);
}

/// Frames for the batch, which shrinks when there are fewer than hoped.
bool FaultState::take_frames(Batch& batch) {
  batch.pos = static_cast<std::size_t>((look_.index - batch.low).value());
  const std::span<FrameNumber> frames{batch.frames.data(), batch.count};
  if (system_.free_frames().take_zeroed(frames, frame_class())) {
    allocated_ = true;
    return true;
  }
  const FrameGrant grant = system_.free_frames().allocate(frame_wish(top(), batch.low, batch.pos), batch.pos,
                                                          frames, frame_class());
  if (grant.count == 0) return false;
  batch.low = batch.low + PageCount{grant.skipped};
  batch.pos -= grant.skipped;
  batch.count = grant.count;
  allocated_ = true;
  return true;
}

/// Puts the batch's frames into the top object as placeholders. False: metadata used up, nothing done.
bool FaultState::insert_batch(VmObject& object, Batch& batch) {
  for (std::size_t i = 0; i < batch.count; ++i) {
    if (system_.objects().insert_page(object, batch.low + PageCount{i}, batch.frames[i])) continue;
    system_.objects().remove_pages(object, {batch.frames.data(), i});
    system_.objects().release(batch.all());
    return false;
  }
  return true;
}

/// Nowhere in the chain: the page reads as zeros. `last` is the chain's end, locked like the top.
FaultState::Step FaultState::zero_fill(VmObject& last) {
  VmObject& object = top();
  Batch batch;
  fill_run(batch);
  if (!take_frames(batch)) return leave_objects(last, Step::kNeedFrames);
  map_.pmap().expect(va_, batch.wanted());
  const bool inserted = insert_batch(object, batch);
  object.fills.record(object.fills.continued_by(look_.index),
                      {batch.low, batch.low + PageCount{batch.count}, fill_width_, 0});
  if (fill_width_ > kFirstFill) wish(fill_width_);
  unlock_objects(last);
  if (!inserted) return leave(fail(FaultResult::kNoMemory));
  return fill_and_map(batch);
}

/// Zeroes what does not read as zeros already, in runs of consecutive frames.
void FaultState::zero_frames(const Batch& batch) {
  for (std::size_t i = 0; i < batch.count;) {
    Page& page = system_.page(batch.frames[i]);
    if (page.has(Page::kZeroed)) {
      DCHECK(reads_as_zeros(batch.frames[i]), batch.frames[i].value());
      page.clear(Page::kZeroed);
      count(system_.counters().ozfod);
      ++i;
      continue;
    }
    std::size_t n = 1;
    while (i + n < batch.count && batch.frames[i + n].value() == batch.frames[i].value() + n &&
           !system_.page(batch.frames[i + n]).has(Page::kZeroed)) {
      ++n;
    }
    system_.phys().zero({batch.frames[i], PageCount{n}});
    i += n;
  }
}

bool FaultState::reads_as_zeros(FrameNumber frame) const {
  bool zeros = true;
  system_.phys().with_frames({frame, PageCount{1}}, Access::kRead, [&zeros](const std::byte* bytes) {
    zeros = std::all_of(bytes, bytes + kPageSize, [](std::byte b) { return b == std::byte{0}; });
  });
  return zeros;
}

/// Zeroes placeholders and maps them all.
FaultState::Step FaultState::fill_and_map(Batch& batch) {
  zero_frames(batch);
  for (const FrameNumber frame : batch.all()) {
    Page& page = system_.page(frame);
    page.set_valid(true);
    page.set_act_count(kActInit);
  }
  system_.queues().move(batch.all(), PageQueue::kActive);
  Page& page = system_.page(batch.wanted());
  if (access_ == Access::kWrite) page.set_dirty(true);
  if (wire_) wire_page(page);
  count_made(system_.counters().zfod, page);
  count(system_.counters().zfod_pages, batch.count);
  enter(batch, look_.prot);
  unbusy_all(batch);
  return leave(Step::kDone);
}

/// The fault has made a page of the map's own, `page`: counts that, or that it was made ahead of its fault.
void FaultState::count_made(Counter& made, Page& page) {
  count(ahead_ ? system_.counters().precopied : made);
  if (ahead_) page.set(Page::kPrecopied);
}

/// What becomes of page `index` of `object` when the top has its contents. Only the top can still see it when
/// nobody else refers to the object, or when the one other shadow hides the page or does not reach it: *dead
/// then, for the page would be dead after a copy (§1.5; the article leaves such pages behind). Both objects
/// locked; the other is only tried.
SourceFate FaultState::fate_of(VmObject& object, PageIndex index, bool* dead) NO_THREAD_SAFETY_ANALYSIS {
  *dead = false;
  if (!object.anonymous() || &object != top().backing || object.refs() != object.shadow_count) {
    return SourceFate::kStays;
  }
  const SourceFates fates = system_.objects().source_fates();
  if (object.shadow_count == 1) return fates.last_owner;
  if (object.shadow_count != 2 || fates.dead == SourceFate::kStays) return SourceFate::kStays;
  VmObject* const first = object.shadows.front();
  VmObject& other = first == &top() ? *object.shadows.next(first) : *first;
  if (!other.lock.try_lock_shared()) return SourceFate::kStays;
  const std::uint64_t offset = other.backing_offset.value();
  *dead = index.value() < offset || index.value() - offset >= other.size.value();
  if (!*dead) {
    const PageIndex there{index.value() - offset};
    const FrameNumber frame = other.pages.find(there);
    *dead = frame != kNoFrame ? system_.page(frame).is_valid() : system_.objects().has_copy(other, there);
  }
  other.lock.unlock_shared();
  return *dead ? fates.dead : SourceFate::kStays;
}

/// A write to a page of a backing object. Moves it up when nobody else can see it there, else copies it.
FaultState::Step FaultState::copy_up(VmObject& object, Page& source) {
  bool dead = false;
  const SourceFate fate = source.is_wired() ? SourceFate::kStays : fate_of(object, source.pindex, &dead);
  if (fate == SourceFate::kMoves) {
    if (dead) count(system_.counters().dead_pages_reclaimed);
    return move_up(object, source);
  }
  Batch batch;
  batch.low = look_.index;
  batch.count = system_.free_frames()
                    .allocate(frame_wish(top(), batch.low, 0), 0, {batch.frames.data(), 1}, frame_class())
                    .count;
  if (batch.count == 0) {
    source.unbusy();
    return leave_objects(object, Step::kNeedFrames);
  }
  allocated_ = true;
  map_.pmap().expect(va_, batch.wanted());
  const bool inserted = insert_batch(top(), batch);
  if (inserted) system_.precopy().copied(top(), look_.index, object, source.pindex);
  const bool others_see_top = !top().one_mapping();
  unlock_objects(object);
  if (!inserted) {
    source.unbusy();
    return leave(fail(FaultResult::kNoMemory));
  }
  return copy_and_map(batch, source, others_see_top, fate);
}

/// The source stays busy until the copy is mapped: nobody may take it away or write to it meanwhile.
FaultState::Step FaultState::copy_and_map(Batch& batch, Page& source, bool others_see_top, SourceFate fate) {
  Page& page = system_.page(batch.wanted());
  const FrameNumber from = system_.frame_of(source);
  system_.phys().copy(from, batch.wanted());
  page.set_valid(true);
  page.set_dirty(true);
  page.set_act_count(kActInit);
  system_.queues().move(batch.all(), PageQueue::kActive);
  count_made(system_.counters().cow_faults, page);
  // Another map that shares the shadow may still have the source mapped; it must see the copy from now on
  // (CVE-2021-29626). A refusal means that the machine pins it for a call in flight, which may see either.
  if (others_see_top && source.has(Page::kMapped)) {
    bool refused = false;
    system_.pmaps().remove_all({&from, 1}, {&refused, 1});
    if (!refused) source.clear(Page::kMapped);
  }
  if (wire_) {
    wire_page(page);
  } else if (look_.wired &&
             source.is_wired()) {  // the entry was wired before it could write: the wiring follows
    wire_page(page);
    if (source.wire_count.fetch_sub(1, std::memory_order_relaxed) == 1) {
      system_.counters().wire_count.fetch_sub(1, std::memory_order_relaxed);
      system_.queues().move(from, PageQueue::kActive);
    }
  }
  enter(batch, look_.prot);
  let_go_of_source(source, fate);
  unbusy_all(batch);
  system_.objects().collapse_at(CollapseMoment::kCopy, top());  // the map's lock keeps the top alive
  return leave(Step::kDone);
}

/// The page that was copied from, busy, and unlocked since its fate was found: so that is asked again.
void FaultState::let_go_of_source(Page& source, SourceFate fate) {
  VmObject& object = *source.object;  // busy: stable
  const FrameNumber frame = system_.frame_of(source);
  bool freed = false;
  if (fate == SourceFate::kFreed) {
    bool dead = false;
    const ReadLock top_guard(top().lock);
    const WriteLock guard(object.lock);
    freed = !source.is_wired() && fate_of(object, source.pindex, &dead) == SourceFate::kFreed;
    if (freed) {
      if (object.copies() != 0) object.pager->forget(object.handle, source.pindex, PageCount{1});
      system_.objects().remove_pages(object, {&frame, 1});
      count(system_.counters().dead_pages_reclaimed);
    }
  }
  if (freed) {
    system_.objects().release({&frame, 1});
  } else {
    source.unbusy();
  }
}

/// Nobody but the top sees the page: it changes hands instead of being copied.
FaultState::Step FaultState::move_up(VmObject& object, Page& source) {
  const PageIndex from = source.pindex;
  const bool moved = system_.objects().rename_page(object, source, top(), look_.index);
  if (moved) system_.precopy().copied(top(), look_.index, object, from);
  unlock_objects(object);
  if (!moved) {
    source.unbusy();
    return leave(fail(FaultResult::kNoMemory));
  }
  count_made(system_.counters().cow_optim, source);
  Batch batch;
  batch.low = look_.index;
  batch.count = 1;
  batch.frames[0] = system_.frame_of(source);
  touch(source);
  if (wire_) wire_page(source);
  enter(batch, look_.prot);
  unbusy_all(batch);
  system_.objects().collapse_at(CollapseMoment::kCopy, top());
  return leave(Step::kDone);
}

}  // namespace enchilada
