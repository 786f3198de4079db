// swapoff and swapon: devices go and come while the engine works (freebsd-vm.md §1.6).
//
// As in FreeBSD: refused unless what is there fits elsewhere; the device is CLOSING, so that nobody gets a
// block of it any more; all objects are walked, and walked again, until nobody has a block of it. Unlike
// there, pages move to other devices without coming into memory; only what finds no room is brought in. One
// that cannot be read stays where it is, and the device then stays, too, as good as before.
#pragma once

#include <cstdint>

#include "base/units.h"
#include "swap/swap_pager.h"
#include "vm/vm_system.h"

namespace enchilada {

enum class [[nodiscard]] SwapoffResult : std::uint8_t{
    kOk,
    kNoDevice,  // there is none in this slot, or it is closing
    kNoRoom,    // other devices and free memory do not suffice
    kIoError,   // a page could not be read or written
    kBusy,      // somebody still has blocks there: another process, or objects that were busy all the time
};

struct SwapoffOptions {
  bool force = false;     // try, though there does not seem to be room
  unsigned rounds = 100;  // walks over all objects
};

/// What a swapoff has done.
struct SwapoffReport {
  std::uint64_t brought_in = 0;  // pages; those that moved are in SwapPagerStats::evacuated
  unsigned rounds = 0;
};

/// No lock held; other threads may use the engine. Unless kOk the device is open again, but for what was
/// moved away. After kOk nobody does I/O on the device. One at a time.
SwapoffResult swapoff(VmSystem& system, SwapPager& pager, unsigned slot, const SwapoffOptions& options = {},
                      SwapoffReport* report = nullptr);

}  // namespace enchilada
