// The registry of modes, by name.
#include "vm/vm_modes.h"

#include "base/check.h"

namespace enchilada {

ModeVerdict VmModes::set_named(std::string_view mechanism, std::string_view mode) {
  for (std::size_t i = 0; i < kMechanisms.size(); ++i) {
    if (kMechanisms[i].name != mechanism) continue;
    for (std::size_t m = 0; m < kMechanisms[i].modes.size(); ++m) {
      if (kMechanisms[i].modes[m] != mode) continue;
      set_number(i, static_cast<std::uint8_t>(m));
      return ModeVerdict::kOk;
    }
    return ModeVerdict::kNoMode;
  }
  return ModeVerdict::kNoMechanism;
}

VmModes VmModes::on_live_machine() const {
  VmModes live = *this;
  for (std::size_t i = 0; i < kMechanisms.size(); ++i) {
    if (kMechanisms[i].scope == ModeScope::kSoftMachineOnly) live.chosen_[i] = VmModes().chosen_[i];
  }
  return live;
}

void VmModes::set_number(std::size_t mechanism, std::uint8_t mode) {
  CHECK(mechanism < kMechanisms.size() && mode < kMechanisms[mechanism].modes.size(), mechanism, mode);
  chosen_[mechanism] = mode;
}

}  // namespace enchilada
