// swapoff: the walk over all objects.
#include "swap/swapoff.h"

#include <atomic>

#include "vm/vm_bring_in.h"
#include "vm/vm_object.h"
#include "vm/vm_phys.h"

namespace enchilada {
namespace {

constexpr std::uint32_t kPauseNs = 1'000'000;

class Swapoff {
 public:
  Swapoff(VmSystem& system, SwapPager& pager, unsigned slot, SwapoffReport& report)
      : system_(system), pager_(pager), slot_(slot), report_(report) {}

  [[nodiscard]] bool has_room() const {
    const SwapSpace& space = pager_.space();
    const std::uint64_t needed = space.used_on(slot_).value() + SwapMarks::low(space.capacity());
    return space.available().value() + system_.free_frames().free_count() >= needed;
  }

  SwapoffResult run(unsigned rounds) {
    for (unsigned i = 0; i < rounds; ++i) {
      ++report_.rounds;
      const std::uint64_t before = pager_.space().used_on(slot_).value();
      const SwapoffResult result = walk();
      if (result != SwapoffResult::kOk) return result;
      pager_.finish_writes();
      const std::uint64_t left = pager_.space().used_on(slot_).value();
      if (left == 0 && pager_.remove_device(slot_)) return SwapoffResult::kOk;
      if (left >= before) pause();
    }
    return SwapoffResult::kBusy;
  }

 private:
  SwapoffResult walk() {
    VmObjectZone& objects = system_.objects();
    SwapoffResult result = SwapoffResult::kOk;
    for (VmObject* o = objects.hold_next_stored(nullptr); o != nullptr; o = objects.hold_next_stored(o)) {
      result = empty(*o);
      if (result == SwapoffResult::kOk) continue;
      o->end_paging();
      break;
    }
    return result;
  }

  SwapoffResult empty(VmObject& object) {
    switch (pager_.evacuate(object.handle, slot_)) {
      case EvacuateResult::kDone:
        return SwapoffResult::kOk;
      case EvacuateResult::kError:
        return SwapoffResult::kIoError;
      case EvacuateResult::kNoRoom:
        return bring_in_all(object);
    }
    return SwapoffResult::kBusy;
  }

  SwapoffResult bring_in_all(VmObject& object) {
    PageIndex at{0};
    while (pager_.find_on_device(object.handle, slot_, at, &at)) {
      switch (bring_in(system_, object, at)) {
        case BringIn::kDone:
          ++report_.brought_in;
          break;
        case BringIn::kGone:
          break;
        case BringIn::kNoMemory:
          return SwapoffResult::kNoRoom;
        case BringIn::kError:
          return SwapoffResult::kIoError;
      }
      ++at;
    }
    return SwapoffResult::kOk;
  }

  /// Somebody else must get on first: an object is being torn down, or collapsed.
  static void pause() {
    std::atomic<std::uint32_t> nobody{0};
    futex_wait(nobody, 0, kPauseNs);
  }

  VmSystem& system_;
  SwapPager& pager_;
  unsigned slot_;
  SwapoffReport& report_;
};

}  // namespace

SwapoffResult swapoff(VmSystem& system, SwapPager& pager, unsigned slot, const SwapoffOptions& options,
                      SwapoffReport* report) {
  SwapoffReport unread;
  if (report == nullptr) report = &unread;
  if (!pager.space().begin_close(slot)) return SwapoffResult::kNoDevice;
  Swapoff off(system, pager, slot, *report);
  const SwapoffResult result =
      options.force || off.has_room() ? off.run(options.rounds) : SwapoffResult::kNoRoom;
  if (result != SwapoffResult::kOk) pager.space().cancel_close(slot);
  return result;
}

}  // namespace enchilada
