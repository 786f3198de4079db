// From a mode to the class that implements it.
#include "vm/vm_frame_order.h"

#include "base/check.h"
#include "vm/vm_phys_buddy.h"
#include "vm/vm_phys_coloured.h"
#include "vm/vm_reserv.h"

namespace enchilada {

std::unique_ptr<FrameOrder> make_frame_order(VmSystem& system, FrameOrderMode mode) {
  switch (mode) {
    case FrameOrderMode::kBuddy:
      return std::make_unique<BuddyFrames>(system);
    case FrameOrderMode::kColoured:
      return std::make_unique<ColouredFrames>(system);
    case FrameOrderMode::kReservation: {
      auto order = std::make_unique<ReservedFrames>(system);
      if (!order->reserve_metadata()) return nullptr;
      return order;
    }
  }
  check_failed(__FILE__, __LINE__, "no such frame order", static_cast<std::uint64_t>(mode));
}

}  // namespace enchilada
