// Pv entries: for each frame, the list of its mappings ("physical to virtual"), the reverse map of the soft
// machine.
//
// Invariants: every present leaf entry has exactly one PvEntry, on the list of the frame it maps, and every
// PvEntry's leaf entry is present and maps that frame. The list of a frame changes only with lock(frame)
// held, by a thread that holds the lock of the entry's space exclusively; so either lock alone keeps a
// mapping from vanishing.
#pragma once

#include <array>

#include "base/arena.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "pmap/soft/x86_format.h"

namespace enchilada {

class SoftSpace;

/// One mapping of one frame. The address follows from the leaf entry's place.
struct PvEntry {
  ListLink<PvEntry> link;
  SoftSpace* space = nullptr;
  x86::Pte* pte = nullptr;
};
using PvList = IntrusiveList<PvEntry, &PvEntry::link>;

class PvLists {
 public:
  /// At most `limit` entries at a time (the article's fixed pool); 0: as many as the arena holds.
  PvLists(Arena& arena, PageCount frames, std::size_t limit);

  [[nodiscard]] Mutex& lock(FrameNumber frame) { return locks_[frame.value() % kLocks].mutex; }
  /// The caller holds lock(frame).
  [[nodiscard]] PvList& of(FrameNumber frame) { return frames_[frame.value()].list; }
  /// nullptr when the limit or the arena is reached.
  [[nodiscard]] PvEntry* create();
  void destroy(PvEntry* pv);

  /// The machine uses the frame just now (a system call, DMA): remove_all() refuses it.
  void pin(FrameNumber frame) { frames_[frame.value()].pins.fetch_add(1, std::memory_order_relaxed); }
  void unpin(FrameNumber frame) { frames_[frame.value()].pins.fetch_sub(1, std::memory_order_relaxed); }
  [[nodiscard]] bool pinned(FrameNumber frame) const {
    return frames_[frame.value()].pins.load(std::memory_order_relaxed) != 0;
  }

  [[nodiscard]] std::size_t live() const { return live_.load(std::memory_order_relaxed); }
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
  FrameState* frames_ = nullptr;
  std::size_t limit_;
  std::atomic<std::size_t> live_{0};
  Slab<PvEntry> slab_;
  std::array<HashedLock, kLocks> locks_;
};

}  // namespace enchilada
