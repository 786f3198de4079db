// HostClock: this machine's time for an engine.
// Invariant: usable in signal handlers (base/monotonic_clock.h).
#pragma once

#include "base/monotonic_clock.h"
#include "vm/clock.h"

namespace enchilada {

class HostClock final : public Clock {
 public:
  Nanoseconds now() override { return Nanoseconds{monotonic_ns()}; }
};

}  // namespace enchilada
