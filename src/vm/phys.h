// PhysicalMemory: the frames of one machine, as the engine sees them.
//
// The engine numbers frames 0 .. frame_limit()-1. At any moment some of them are *granted* to the engine; the
// others do not exist for it (memory hot-plug). A simulated machine grants all at the start. The host machine
// grants runs as its process tree's RAM budget allows and takes them back when a sibling needs them.
// Invariants: granted frames are on the engine's free list or in use; the engine touches bytes only through
// with_frame(), and only of frames that it holds exclusively (page busy) or that nobody can write.
#pragma once

#include <cstddef>
#include <span>

#include "base/function_ref.h"
#include "vm/vm_types.h"

namespace enchilada {

class PhysicalMemory {
 public:
  virtual ~PhysicalMemory() = default;

  /// Upper bound of frame numbers; constant. Sizes the array of Page.
  [[nodiscard]] virtual PageCount frame_limit() const = 0;

  /// Asks for about `wanted` more frames. Calls `sink` once per granted run (any number of times, also
  /// never). Called with no lock held. Returns what was granted. Thread-safe.
  virtual PageCount grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) = 0;

  /// Gives a run of free frames back; their contents are gone. Called with no lock held. Thread-safe.
  virtual void retire(FrameRun run) = 0;

  /// Frames that the machine would like to have back now (a sibling process is short). 0 = none.
  [[nodiscard]] virtual PageCount surplus_wanted() const { return PageCount{0}; }

  /// Makes the frames read as zeros. They are free or exclusively busy and unmapped.
  virtual void zero(FrameRun run) = 0;

  /// Copies one frame. `to` is exclusively busy and unmapped; `from` is busy (it may be mapped read-only or
  /// be home).
  virtual void copy(FrameNumber from, FrameNumber to) = 0;

  /// Calls `use` with the bytes of `run` (count * kPageSize, contiguous). The frames are busy; for kWrite
  /// they are also unmapped. The pointer is valid only during the call.
  virtual void with_frames(FrameRun run, Access access, FunctionRef<void(std::byte*)> use) = 0;
};

}  // namespace enchilada
