// Pv lists: for each frame, the list of its mappings ("physical to virtual"), the reverse map of the soft
// machine.
//
// Invariants: every present leaf entry has exactly one PvEntry, on the list of the frame it maps, and every
// PvEntry's leaf entry is present and maps that frame; a superpage has one for all its frames, on the list of
// those 2 MiB of frames. A list changes only with lock(frame) held, by a thread
// that holds the lock of the entry's family exclusively; so either lock alone keeps a mapping from vanishing.
#pragma once

#include <array>

#include "base/mutex.h"
#include "pmap/soft/pv_pool.h"

namespace enchilada {

class PvLists {
 public:
  static constexpr unsigned kSuperBits = 9;  // a superpage is 2^9 frames

  /// With superpages one lock guards all frames that one of them may map.
  PvLists(Arena& arena, PageCount frames, bool superpages);

  [[nodiscard]] Mutex& lock(FrameNumber frame) {
    return locks_[(frame.value() >> lock_shift_) % kLocks].mutex;
  }
  /// The caller holds lock(frame).
  [[nodiscard]] PvList& of(FrameNumber frame) { return frames_[frame.value()].list; }
  /// The superpages that map the frame; also under lock(frame).
  [[nodiscard]] PvList& super_of(FrameNumber frame) { return supers_[frame.value() >> kSuperBits]; }
  [[nodiscard]] const PvList& super_of(FrameNumber frame) const {
    return supers_[frame.value() >> kSuperBits];
  }

  /// A hint: the frame's list will be wanted soon. Without any lock.
  void expect(FrameNumber frame) const { __builtin_prefetch(&frames_[frame.value()], 1); }

  /// The machine uses the frame just now (a system call, DMA): remove_all() refuses it.
  void pin(FrameNumber frame) { frames_[frame.value()].pins.fetch_add(1, std::memory_order_relaxed); }
  void unpin(FrameNumber frame) { frames_[frame.value()].pins.fetch_sub(1, std::memory_order_relaxed); }
  [[nodiscard]] bool pinned(FrameNumber frame) const {
    return frames_[frame.value()].pins.load(std::memory_order_relaxed) != 0;
  }
  [[nodiscard]] PageCount frames() const { return count_; }

 private:
  struct FrameState {
    PvList list;
    std::atomic<std::uint32_t> pins{0};
  };
  struct HashedLock {
    Mutex mutex{LockRank::kPvList};
  };
  static constexpr std::size_t kLocks = 64;

  PageCount count_;
  unsigned lock_shift_;
  FrameState* frames_ = nullptr;
  PvList* supers_ = nullptr;
  std::array<HashedLock, kLocks> locks_;
};

}  // namespace enchilada
