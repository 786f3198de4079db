// FrameTable: where each frame's bytes are; 8 bytes a frame.
// Invariants: an all-zero entry is an unpopulated frame; an entry says kMapped* at page p only while the
// window index has this frame in slot p, and both change under slot p's lock. Entries of frames that are
// not mapped belong to the holder of the frame's busy.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

enum class FramePlace : std::uint8_t {
  kUnpopulated = 0,  // no memory behind it; reads as zeros
  kHome = 1,         // bytes in its pool slot
  kReadOnly = 2,     // in the window, write-protected
  kWritable = 3,     // in the window
};

struct FrameState {
  FramePlace place = FramePlace::kUnpopulated;
  std::uint64_t page = 0;  // window page, when mapped
  [[nodiscard]] bool mapped() const { return place >= FramePlace::kReadOnly; }
};

class FrameTable {
 public:
  /// `entries` is zeroed memory for `limit` frames.
  FrameTable(std::atomic<std::uint64_t>* entries, PageCount limit) : entries_(entries), limit_(limit) {}

  [[nodiscard]] PageCount limit() const { return limit_; }
  [[nodiscard]] FrameState load(FrameNumber frame) const {
    const std::uint64_t word = entries_[frame.value()].load(std::memory_order_acquire);
    return {static_cast<FramePlace>(word & 3), word >> 8};
  }
  void store(FrameNumber frame, FramePlace place, std::uint64_t page = 0) {
    entries_[frame.value()].store((page << 8) | static_cast<std::uint64_t>(place), std::memory_order_release);
  }

 private:
  std::atomic<std::uint64_t>* entries_;
  PageCount limit_;
};

}  // namespace enchilada
