// FaultDispatch: one SIGBUS handler for all Vms of the process, which finds whose memory an access was to.
//
// Invariants: a slot is read without a lock by handlers and changed under a lock by few; a Vm leaves its slot
// before its window is unmapped, and nobody accesses a window whose Vm is going (its regions are gone).
// Faults outside of all windows go to the handler that was installed before, unchanged.
#pragma once

#include "vm/vm_types.h"

namespace enchilada::library {

/// Resolves faults of one window. Called in signal context with all signals blocked.
class FaultTarget {
 public:
  /// False: the access is an error that the program must see as SIGSEGV or SIGBUS.
  virtual bool resolve(VirtAddr address, Access access) = 0;
  /// The address belongs to memory that a region had and has no longer, or never had: for the message.
  [[nodiscard]] virtual VirtRange window() const = 0;

 protected:
  ~FaultTarget() = default;
};

/// Installs the handler with the first target. False: as many Vms as there are slots live already.
[[nodiscard]] bool add_fault_target(FaultTarget& target);
void remove_fault_target(FaultTarget& target);

}  // namespace enchilada::library
