// Random modes for random machines.
#pragma once

#include "random_source.h"
#include "vm/vm_modes.h"

namespace enchilada::model {

template <class Mode>
void choose_mode(Random& random, VmModes& modes) {
  modes.set(static_cast<Mode>(random.below(ModeOf<Mode>::kNames.size())));
}

/// Any combination of the modes of choosing pages.
inline void choose_page_modes(Random& random, VmModes& modes) {
  choose_mode<ThresholdMode>(random, modes);
  choose_mode<ActiveScanMode>(random, modes);
  choose_mode<PageoutTargetMode>(random, modes);
  choose_mode<LaundryMode>(random, modes);
  choose_mode<CacheQueueMode>(random, modes);
  choose_mode<ProactiveMode>(random, modes);
  choose_mode<DropBehindMode>(random, modes);
  choose_mode<DontNeedMode>(random, modes);
  choose_mode<ReferenceMode>(random, modes);
}

}  // namespace enchilada::model
