// PageDaemon: frees frames. Reference: freebsd-vm.md §1.8, §1.9.
//
// It has no thread of its own: whoever is short of frames runs it (a faulting thread, a helper thread, a test's step).
// One run at a time; a second caller waits for it instead of competing.
#pragma once

#include "vm/vm_system.h"

namespace enchilada {

class PageDaemon {
 public:
  explicit PageDaemon(VmSystem& system);

  /// Frees frames until free_target is reached or nothing more can be done; first asks the machine for more frames.
  /// False: not one frame could be gained (swap full or failing and nothing clean). No lock held by the caller.
  bool reclaim();

  /// Pages out until at most `resident` frames are in use (a fork or a sibling needs them); frees are given back to
  /// the machine with retire(). Returns frames given back.
  PageCount shrink_to(PageCount resident);
  PageCount give_back(PageCount frames);

  /// Moves all the pages of the range of an object towards eviction now (MADV_PAGEOUT); best effort.
  void pageout_object(VmObject& object, PageIndex first, PageCount count);

 private:
  VmSystem& system_;
};

}  // namespace enchilada
