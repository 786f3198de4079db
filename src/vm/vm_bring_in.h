// bring_in(): a page comes into memory for good, and its copy in the store is given up. For swapoff.
#pragma once

#include <cstdint>

#include "vm/vm_types.h"

namespace enchilada {

class VmObject;
class VmSystem;

enum class [[nodiscard]] BringIn : std::uint8_t{
    kDone,      // it is resident and dirty, and has no copy
    kGone,      // it had no copy any more
    kNoMemory,  // no frame could be gained
    kError,     // the store could not give it
};

/// The object is held (paging in progress) and unlocked; no lock is held. Waits while the page is busy.
BringIn bring_in(VmSystem& system, VmObject& object, PageIndex index);

}  // namespace enchilada
