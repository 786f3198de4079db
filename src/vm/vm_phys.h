// VmPhys: the free frames: how many there are, and the state of their Pages. Which of them is handed out next
// is the FrameOrder's (buddy, coloured, reservation: docs/mechanisms/page-colouring.md).
//
// Invariants: a free frame's Page is in state kFree and in no object; free_count() is the number of frames
// that the order has, and of those known to be zero, which lie on a list beside it; granted() the frames that
// are free or in use. Frames that were never granted or were retired are never touched.
#pragma once

#include <atomic>
#include <memory>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/vm_frame_order.h"
#include "vm/vm_system.h"
#include "vm/vm_types.h"

namespace enchilada {

/// For whom a frame is wanted: how far into the reserve an allocation may go (PageThresholds).
enum class FrameClass : std::uint8_t {
  kNormal,    // programs: not below free_reserved
  kSystem,    // a call in flight that must end: not below interrupt_free_min
  kInterrupt  // whatever there is
};

/// Which part of a wish was granted: out[0 .. count) are for the pages from wish.first + skipped on.
struct FrameGrant {
  std::size_t skipped = 0;
  std::size_t count = 0;
};

class VmPhys {
 public:
  VmPhys(VmSystem& system, std::unique_ptr<FrameOrder> order);
  ~VmPhys();
  VmPhys(const VmPhys&) = delete;
  VmPhys& operator=(const VmPhys&) = delete;

  /// Takes frames for out.size() pages, as the wish says; when fewer are free, for some around page number
  /// `wanted` of them: it first, then those after it, then those before. The pages come exclusively busy,
  /// invalid, clean, in no object.
  FrameGrant allocate(const FrameWish& wish, std::size_t wanted, std::span<FrameNumber> out,
                      FrameClass who = FrameClass::kNormal);
  /// The same for nobody in particular; returns how many.
  std::size_t allocate(std::span<FrameNumber> out, FrameClass who = FrameClass::kNormal) {
    return allocate({}, 0, out, who).count;
  }
  /// A run of consecutive frames, at most `most` of them, as long as can be had; count 0 when nothing is
  /// free.
  FrameRun allocate_run(PageCount most, FrameClass who = FrameClass::kNormal);
  /// Frames that an allocation could have now.
  [[nodiscard]] std::uint64_t available(FrameClass who) const;
  /// Gives frames back. Their pages are busy, unmapped, in no object and on no queue; they end idle.
  void free(std::span<const FrameNumber> frames);

  /// Gives back a run that reads as zeros (PreZeroPolicy). Its frames are handed out by take_zeroed() until
  /// nothing else is free.
  void free_zeroed(FrameRun run);
  /// Like allocate(), but only frames that read as zeros, whose pages say so (Page::kZeroed), and all or
  /// nothing. The frame order is not asked.
  [[nodiscard]] bool take_zeroed(std::span<FrameNumber> out, FrameClass who);
  /// Of the free frames, how many are zeroed.
  [[nodiscard]] std::uint64_t zeroed_count() const { return zeroed_.load(std::memory_order_relaxed); }

  /// The machine granted these frames.
  void add(FrameRun run);
  /// Takes a run of free frames out of the engine for good, at most `most`, the largest that is there; count
  /// 0 = none.
  FrameRun take_out(PageCount most);

  /// FrameOrder::grow_batch().
  [[nodiscard]] PageCount grow_batch() const { return order_->grow_batch(); }
  /// Colour of the first page of a new object. No lock needed.
  [[nodiscard]] std::uint32_t base_colour(PageCount size) { return order_->base_colour(size); }
  /// The page in `frame` has changed its object or its place there. Both objects are locked exclusively.
  void renamed(FrameNumber frame, const VmObject& from, PageIndex before, VmObject& to, PageIndex now);
  /// The object has lost its last page and is about to be recycled.
  void object_gone(VmObject& object);

  [[nodiscard]] std::uint64_t free_count() const { return free_.load(std::memory_order_relaxed); }
  /// Frames that have become free so far, by whatever way (FreeBSD's v_tfree, and those granted).
  [[nodiscard]] std::uint64_t freed() const { return freed_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t granted() const { return granted_.load(std::memory_order_relaxed); }

  /// Calls visit(order, first frame) for pieces that make up all free frames.
  void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit);
  /// For tests of one order, and for whoever reports on it; at rest.
  [[nodiscard]] FrameOrder& order() { return *order_; }
  /// Checks the invariants above; stops the program when one is broken.
  void validate();

 private:
  FrameRun take_run(PageCount most) REQUIRES(lock_);
  void claim(FrameNumber frame) REQUIRES(lock_);
  FrameNumber pop_zeroed() REQUIRES(lock_);
  void forget_zeroed() REQUIRES(lock_);
  void publish() REQUIRES(lock_);
  void change_free(std::uint64_t now) REQUIRES(lock_) {
    if (now > free_count()) freed_.store(freed() + now - free_count(), std::memory_order_relaxed);
    free_.store(now, std::memory_order_relaxed);
  }

  VmSystem& system_;
  const std::unique_ptr<FrameOrder> order_;  // used with the lock held, see there
  const bool follows_objects_;
  Mutex lock_{LockRank::kFreeList};
  std::atomic<std::uint64_t> free_{0};                    // changed under the lock, read without
  std::atomic<std::uint64_t> freed_{0};                   // likewise
  FrameNumber zeroed_head_ GUARDED_BY(lock_) = kNoFrame;  // linked by Page::next
  std::atomic<std::uint64_t> zeroed_{0};                  // changed under the lock, part of free_
  std::atomic<std::uint64_t> granted_{0};
  std::uint64_t most_granted_ GUARDED_BY(lock_) = 0;  // so many Pages have been touched
};

}  // namespace enchilada
