// Pre-zeroing: free frames are zeroed while the machine is idle, so that a zero-fill fault finds some ready
// (freebsd-vm.md §1.11, article section 5).
//
// The number is limited so as not to empty the caches, with hysteresis: zeroing stops at the high mark and
// begins again below the low one. Invariant: a frame on VmPhys's zeroed list reads as zeros until it is taken
// off it (checked at the fault in debug builds).
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmSystem;

class PreZeroPolicy {
 public:
  /// Frames zeroed in one step at most (FreeBSD's zero_idle maxrun).
  static constexpr std::uint64_t kMaxRun = 16;
  virtual ~PreZeroPolicy() = default;
  /// The machine has nothing to do: one slice of zeroing, if there is any to be done. No lock held; any
  /// thread. Returns how many frames were zeroed.
  virtual PageCount step() = 0;
};

[[nodiscard]] std::unique_ptr<PreZeroPolicy> make_prezero(PreZeroMode mode, VmSystem& system);

}  // namespace enchilada
