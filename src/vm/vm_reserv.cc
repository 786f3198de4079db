// ReservedFrames: reservations by block number in one array, found by (object, first index) in a hash table
// of fixed size. Invariants: see vm_reserv.h.
#include "vm/vm_reserv.h"

#include <algorithm>
#include <bit>
#include <new>

#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {

ReservedFrames::ReservedFrames(VmSystem& system)
    : system_(system),
      buddy_(system),
      order_(std::clamp(system.tunables().reservation_order, 1u, kMostOrder)),
      size_(1u << order_),
      blocks_(static_cast<std::uint32_t>(system.phys().frame_limit().value() >> order_)),
      buckets_(std::bit_ceil(std::max(blocks_, 1u))) {}

bool ReservedFrames::reserve_metadata() {
  reservations_ = system_.arena().allocate_array<Reservation>(std::max(blocks_, 1u));
  heads_ = system_.arena().allocate_array<std::uint32_t>(buckets_);
  if (reservations_ == nullptr || heads_ == nullptr) return false;
  for (std::uint32_t i = 0; i < blocks_; ++i) new (&reservations_[i]) Reservation;
  std::fill_n(heads_, buckets_, kEnd);
  return true;
}

// ------------------------------------------------------------------------------------------------ the index

/// First page of the range that holds `index`. The object's colour shifts the ranges, so that they begin at
/// superpage boundaries of the address space. May wrap below 0.
PageIndex ReservedFrames::first_of(const VmObject& object, PageIndex index) const {
  const std::uint64_t colour = object.base_colour();
  return PageIndex{((index.value() + colour) & ~std::uint64_t{size_ - 1}) - colour};
}

std::uint32_t ReservedFrames::bucket_of(const VmObject& object, PageIndex first) const {
  const std::uint64_t key = reinterpret_cast<std::uintptr_t>(&object) / 64 + (first.value() >> order_) * 31;
  return static_cast<std::uint32_t>((key * 0x9e3779b97f4a7c15ull) >> 32) & (buckets_ - 1);
}

std::uint32_t ReservedFrames::find(const VmObject& object, PageIndex first) const {
  std::uint32_t block = heads_[bucket_of(object, first)];
  while (block != kEnd && !(reservations_[block].object == &object && reservations_[block].first == first)) {
    block = reservations_[block].hash_next;
  }
  return block;
}

void ReservedFrames::attach(std::uint32_t block, VmObject& object, PageIndex first) {
  Reservation& r = reservations_[block];
  r.object = &object;
  r.first = first;
  std::uint32_t& head = heads_[bucket_of(object, first)];
  r.hash_next = head;
  head = block;
  r.object_prev = kEnd;
  r.object_next = object.reservations;
  if (r.object_next != kEnd) reservations_[r.object_next].object_prev = block;
  object.reservations = block;
}

void ReservedFrames::detach(std::uint32_t block) {
  Reservation& r = reservations_[block];
  std::uint32_t* link = &heads_[bucket_of(*r.object, r.first)];
  while (*link != block) link = &reservations_[*link].hash_next;
  *link = r.hash_next;
  (r.object_prev != kEnd ? reservations_[r.object_prev].object_next : r.object->reservations) = r.object_next;
  if (r.object_next != kEnd) reservations_[r.object_next].object_prev = r.object_prev;
  r.object = nullptr;
}

// -------------------------------------------------------------------------------- the queue of the partly
// used

void ReservedFrames::enqueue(std::uint32_t block) {
  Reservation& r = reservations_[block];
  r.queue_next = kEnd;
  r.queue_prev = newest_;
  (newest_ != kEnd ? reservations_[newest_].queue_next : oldest_) = block;
  newest_ = block;
}

void ReservedFrames::dequeue(std::uint32_t block) {
  const Reservation& r = reservations_[block];
  (r.queue_prev != kEnd ? reservations_[r.queue_prev].queue_next : oldest_) = r.queue_next;
  (r.queue_next != kEnd ? reservations_[r.queue_next].queue_prev : newest_) = r.queue_prev;
}

void ReservedFrames::use(std::uint32_t block, std::uint32_t slot) {
  Reservation& r = reservations_[block];
  if (r.used_count > 0) dequeue(block);  // it had a free frame: this one
  r.used[slot / 64] |= std::uint64_t{1} << (slot % 64);
  if (++r.used_count < size_) {
    enqueue(block);
  } else {
    count(system_.counters().reservations_full);
  }
}

/// A frame of a reservation was freed; with the last one the reservation ends.
void ReservedFrames::unuse(std::uint32_t block, std::uint32_t slot) {
  Reservation& r = reservations_[block];
  CHECK(is_used(r, slot), block, slot);
  if (r.used_count < size_) dequeue(block);
  r.used[slot / 64] &= ~(std::uint64_t{1} << (slot % 64));
  if (--r.used_count > 0) return enqueue(block);
  detach(block);
  buddy_.put({frame_of(block, 0), PageCount{size_}});
}

/// The unused frames become ordinary free ones; the used ones stay where they are, and are ordinary, too.
void ReservedFrames::break_up(std::uint32_t block) {
  Reservation& r = reservations_[block];
  if (r.used_count < size_) dequeue(block);
  for (std::uint32_t slot = 0; slot < size_;) {
    std::uint32_t end = slot;
    while (end < size_ && !is_used(r, end)) ++end;
    if (end > slot) buddy_.put({frame_of(block, slot), PageCount{end - slot}});
    slot = end + 1;
  }
  detach(block);
  r.used.fill(0);
  r.used_count = 0;
  count(system_.counters().reservations_broken);
}

bool ReservedFrames::reclaim_oldest() {
  if (oldest_ == kEnd) return false;
  break_up(oldest_);
  count(system_.counters().reservations_reclaimed);
  return true;
}

// --------------------------------------------------------------------------------------------- taking,
// putting

/// May the range from `first` on be reserved for its page `index`? It lies inside the object, whose end an
/// anonymous one may outgrow, and holds no page yet: then no other reservation reaches into it either.
bool ReservedFrames::fits(const VmObject& object, PageIndex first, PageIndex index) const {
  if (first > index) return false;  // would begin before page 0
  if (!object.anonymous() && (first + PageCount{size_}).value() > object.size.value()) return false;
  VmRadix::Item next;
  return !object.pages.find_least(first, &next) || next.index >= first + PageCount{size_};
}

std::uint32_t ReservedFrames::reserve(VmObject& object, PageIndex first) {
  const FrameNumber frame = buddy_.take_block(order_);
  if (frame == kNoFrame) return kEnd;
  const std::uint32_t block = frame.value() >> order_;
  attach(block, object, first);
  count(system_.counters().reservations_made);
  return block;
}

FrameNumber ReservedFrames::take_reserved(const FrameWish& wish, PageIndex index, VirtAddr va) {
  VmObject& object = *wish.object;
  if (!object.has_base_colour()) {  // vm_object_color(): ranges begin where the address space's do
    object.set_base_colour(static_cast<std::uint32_t>((va.value() >> kPageShift) - index.value()) &
                           (size_ - 1));
  }
  const PageIndex first = first_of(object, index);
  const auto slot = static_cast<std::uint32_t>(index.value() - first.value());
  std::uint32_t block = find(object, first);
  if (block == kEnd && fits(object, first, index)) block = reserve(object, first);
  if (block == kEnd || is_used(reservations_[block], slot)) return kNoFrame;
  use(block, slot);
  return frame_of(block, slot);
}

FrameNumber ReservedFrames::take_plain() {
  if (buddy_.empty()) CHECK(reclaim_oldest());
  return buddy_.take_run(PageCount{1}).first;
}

void ReservedFrames::take(const FrameWish& wish, std::span<FrameNumber> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const PageCount ahead{i};
    FrameNumber frame = kNoFrame;
    if (wish.object != nullptr) frame = take_reserved(wish, wish.first + ahead, wish.va + to_bytes(ahead));
    out[i] = frame != kNoFrame ? frame : take_plain();
  }
}

FrameRun ReservedFrames::take_run(PageCount most) {
  if (buddy_.empty() && !reclaim_oldest()) return {};
  return buddy_.take_run(most);
}

void ReservedFrames::put(FrameRun run) {
  const std::uint32_t end = (run.first + run.count).value();
  for (std::uint32_t frame = run.first.value(); frame < end;) {
    const std::uint32_t block = frame >> order_;
    if (block < blocks_ && reservations_[block].object != nullptr) {
      unuse(block, frame & (size_ - 1));
      ++frame;
      continue;
    }
    const std::uint32_t stop = std::min(end, (block + 1) << order_);
    buddy_.put({FrameNumber{frame}, PageCount{stop - frame}});
    frame = stop;
  }
}

// -----------------------------------------------------------------------------------------------------
// objects

/// Collapse and split: the first page that moves takes the reservation with it (vm_reserv_rename()). Where it
/// would not lie at a boundary of the new object, or would meet another one, it ends.
void ReservedFrames::renamed(FrameNumber frame, const VmObject& from, PageIndex before, VmObject& to,
                             PageIndex now) {
  const std::uint32_t block = frame.value() >> order_;
  if (block >= blocks_) return;
  Reservation& r = reservations_[block];
  const PageCount slot{frame.value() & (size_ - 1)};
  if (r.object != &from || r.first + slot != before) return;
  const PageIndex first = now - slot;
  if (!to.has_base_colour()) {
    to.set_base_colour(static_cast<std::uint32_t>(std::uint64_t{0} - first.value()) & (size_ - 1));
  }
  if (first_of(to, now) != first || find(to, first) != kEnd) return break_up(block);
  detach(block);
  attach(block, to, first);
  count(system_.counters().reservations_moved);
}

void ReservedFrames::object_gone(VmObject& object) {
  while (object.reservations != kEnd) break_up(object.reservations);
}

// ----------------------------------------------------------------------------------------------------
// checkers

void ReservedFrames::for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) {
  buddy_.for_each_block(visit);
  for (std::uint32_t block = 0; block < blocks_; ++block) {
    if (reservations_[block].object == nullptr) continue;
    for (std::uint32_t slot = 0; slot < size_; ++slot) {
      if (!is_used(reservations_[block], slot)) visit(0, frame_of(block, slot));
    }
  }
}

void ReservedFrames::for_each_reservation(FunctionRef<void(const View&)> visit) const {
  for (std::uint32_t block = 0; block < blocks_; ++block) {
    const Reservation& r = reservations_[block];
    if (r.object != nullptr) visit({r.object, r.first, frame_of(block, 0), PageCount{r.used_count}});
  }
}

void ReservedFrames::validate_block(std::uint32_t block) {
  const Reservation& r = reservations_[block];
  if (r.object == nullptr) {
    CHECK(r.used_count == 0, block);
    return;
  }
  CHECK(find(*r.object, r.first) == block, block);
  CHECK(first_of(*r.object, r.first) == r.first, block);
  std::uint32_t used = 0;
  for (std::uint32_t slot = 0; slot < size_; ++slot) {
    const Page& page = system_.page(frame_of(block, slot));
    CHECK(is_used(r, slot) == (page.queue() != PageQueue::kFree), block, slot);
    CHECK(page.order == Page::kNotHead || is_used(r, slot), block, slot);
    if (is_used(r, slot)) ++used;
  }
  CHECK(used == r.used_count && used > 0, block, used);
  std::uint32_t on_list = r.object->reservations;
  while (on_list != kEnd && on_list != block) on_list = reservations_[on_list].object_next;
  CHECK(on_list == block, block);
}

void ReservedFrames::validate() {
  buddy_.validate();
  std::uint32_t partly = 0;
  for (std::uint32_t block = 0; block < blocks_; ++block) {
    validate_block(block);
    if (reservations_[block].object != nullptr && reservations_[block].used_count < size_) ++partly;
  }
  std::uint32_t last = kEnd;
  for (std::uint32_t block = oldest_; block != kEnd; block = reservations_[block].queue_next, --partly) {
    CHECK(partly > 0 && reservations_[block].object != nullptr, block);
    CHECK(reservations_[block].used_count < size_ && reservations_[block].queue_prev == last, block);
    last = block;
  }
  CHECK(partly == 0 && newest_ == last, partly);
}

}  // namespace enchilada
