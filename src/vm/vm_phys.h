// VmPhys: the free frames. A binary buddy allocator over the frames that the machine has granted.
//
// Invariants: a free frame's Page is in state kFree; the first frame of a free block carries its order, the
// others kNotHead; no two free buddies of equal order exist unmerged. free_count() is the sum over the
// blocks; granted() the frames that are free or in use. Frames that were never granted or were retired are
// never touched.
#pragma once

#include <array>
#include <atomic>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/vm_system.h"
#include "vm/vm_types.h"

namespace enchilada {

/// For whom a frame is wanted: how far into the reserve an allocation may go (PageThresholds).
enum class FrameClass : std::uint8_t {
  kNormal,    // programs: not below free_reserved
  kSystem,    // a call in flight that must end: not below interrupt_free_min
  kInterrupt  // whatever there is
};

class VmPhys {
 public:
  static constexpr unsigned kOrders = 10;  // blocks of 1 .. 512 frames

  explicit VmPhys(VmSystem& system);

  /// Takes up to out.size() free frames, in as few consecutive runs as the free blocks allow; returns how
  /// many. The pages come exclusively busy, invalid, clean, in no object.
  std::size_t allocate(std::span<FrameNumber> out, FrameClass who = FrameClass::kNormal);
  /// A run of consecutive frames, at most `most` of them, as long as can be had; count 0 when nothing is
  /// free.
  FrameRun allocate_run(PageCount most, FrameClass who = FrameClass::kNormal);
  /// Frames that an allocation could have now.
  [[nodiscard]] std::uint64_t available(FrameClass who) const;
  /// Gives frames back. Their pages are busy, unmapped, in no object and on no queue; they end idle.
  void free(std::span<const FrameNumber> frames);

  /// The machine granted these frames.
  void add(FrameRun run);
  /// Takes a run of free frames out of the engine for good, at most `most`, the largest that is there; count
  /// 0 = none.
  FrameRun take_out(PageCount most);

  [[nodiscard]] std::uint64_t free_count() const { return free_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t granted() const { return granted_.load(std::memory_order_relaxed); }

  /// Calls visit(order, first frame) for every free block.
  void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit);
  /// Checks the invariants above; stops the program when one is broken.
  void validate();

 private:
  void push_block(std::uint32_t first, unsigned order) REQUIRES(lock_);
  void unlink_block(std::uint32_t first, unsigned order) REQUIRES(lock_);
  void free_block(std::uint32_t first, unsigned order) REQUIRES(lock_);
  void free_range(std::uint32_t first, std::uint64_t n) REQUIRES(lock_);
  FrameRun take_run(std::uint64_t most) REQUIRES(lock_);
  void publish() REQUIRES(lock_);

  VmSystem& system_;
  const std::uint64_t limit_;
  Mutex lock_{LockRank::kFreeList};
  std::array<std::uint32_t, kOrders> head_ GUARDED_BY(lock_);
  std::uint32_t nonempty_ GUARDED_BY(lock_) = 0;  // bit per order
  std::atomic<std::uint64_t> free_{0};            // changed under the lock, read without
  std::atomic<std::uint64_t> granted_{0};
  std::uint64_t most_granted_ GUARDED_BY(lock_) = 0;  // so many Pages have been touched
};

}  // namespace enchilada
