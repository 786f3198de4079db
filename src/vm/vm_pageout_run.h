// What one run of the page daemon carries along. Private to vm_pageout*.cc and vm_laundry.cc.
#pragma once

#include <array>

#include "vm/vm_pageout.h"

namespace enchilada {

struct PageDaemon::Run {
  std::uint64_t goal = 0;           // frames to gain
  std::uint64_t gained = 0;         // frames freed so far
  std::uint64_t looked = 0;         // pages looked at: the bound on the work
  std::uint64_t active_looked = 0;  // of these, on active
  std::uint64_t last_resort = 0;    // that bound while nothing was gained
  std::size_t busy = 0;             // pages that were busy or pinned: trying later may help
  bool ahead = false;               // nobody waits for these frames: little work, and only whole writes
  bool exhaustive = false;          // the caller wants the goal, whatever it takes
  bool freeing_cache = false;       // the pages at hand come from the cache queue

  /// Pages of one scan step.
  [[nodiscard]] std::size_t batch() const { return ahead ? kAhead : kBatch; }
};

/// Pages that are unmapped and written together; all busy, on no queue. Their objects are kept by
/// paging-in-progress.
struct PageDaemon::Batch {
  std::size_t n = 0;
  std::size_t objects_n = 0;
  std::array<FrameNumber, 64> frames;
  std::array<VmObject*, 64> objects;
};

}  // namespace enchilada
