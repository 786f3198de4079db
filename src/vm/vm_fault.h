// vm_fault: resolves one page fault. Reference: freebsd-vm.md §1.2, §1.3, §1.10.
#pragma once

#include "vm/vm_map.h"
#include "vm/vm_types.h"

namespace enchilada {

/// What became of a fault.
enum class [[nodiscard]] FaultResult : std::uint8_t{
    kResolved,     // try the access again
    kNotMapped,    // no entry: SIGSEGV, SEGV_MAPERR
    kProtection,   // entry forbids it: SIGSEGV, SEGV_ACCERR
    kIoError,      // page-in failed: SIGBUS
    kOutOfBounds,  // beyond the end of the mapped file: SIGBUS, BUS_ADRERR
    kNoMemory,     // nothing can be reclaimed and swap takes nothing: the program cannot go on
};

/// Resolves a fault at `address` (any alignment) in `map`. Holds no lock on entry and exit. Never allocates
/// from the C library. Reclaims memory itself when frames are short.
FaultResult vm_fault(VmMap& map, VirtAddr address, Access access);

/// Resolves a write fault that has not happened yet (vm_precopy.h): the page becomes this map's own and is
/// mapped for writing, without a sign of use. Same rules.
FaultResult vm_fault_ahead(VmMap& map, VirtAddr address);

/// Makes [range] resident and wires each page once more / unwires it (vm_map_wire's worker). All or nothing.
KernReturn vm_fault_wire(VmMap& map, VirtRange range);
void vm_fault_unwire(VmMap& map, VirtRange range);

}  // namespace enchilada
