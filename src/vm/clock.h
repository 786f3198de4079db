// Clock: where the engine reads time from. The host's is CLOCK_MONOTONIC; the simulated machine's is virtual.
#pragma once

#include "base/units.h"

namespace enchilada {

class Clock {
 public:
  virtual ~Clock() = default;
  /// Monotonic nanoseconds from an arbitrary start.
  [[nodiscard]] virtual Nanoseconds now() = 0;
};

}  // namespace enchilada
