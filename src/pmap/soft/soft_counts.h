// SoftCounts: where a soft pmap's events go: to the machine's sink, if there is one, and decisions (what is
// rare) into counters that are always on.
#pragma once

#include "pmap/soft/pmap_events.h"

namespace enchilada {

struct SoftCounts {
  /// Something that happens all the time.
  void note(PmapEvent event, std::uint64_t n = 1) const {
    if (events != nullptr && n != 0) events->note(event, n);
  }
  /// Something that was decided.
  void decide(PmapEvent event, std::uint64_t n = 1) {
    if (n == 0) return;
    decisions.note(event, n);
    note(event, n);
  }

  CountingPmapEvents decisions;
  PmapEventSink* events = nullptr;
};

}  // namespace enchilada
