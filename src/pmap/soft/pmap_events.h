// What a soft pmap does, as events: the cost model above (src/machine, src/lab) charges for them.
//
// Invariant: a pmap only reports; it never includes anything of the machine and works without a sink. note()
// may be called from any thread with pmap and pv locks held, so an implementation must be lock-free.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

enum class PmapEvent : std::uint8_t {
  kEnter,           // a mapping was made
  kUpdate,          // a mapping's protection or wiring changed in place
  kRemove,          // a mapping was removed
  kWalk,            // the hardware walked the tables (one access)
  kFault,           // ... and found no mapping that allows the access
  kTableAllocated,  // page-table pages
  kTableFreed,
  kTableReclaimed,  // a leaf table with its mappings was thrown away to make room
  kPvListStep,      // entries of a frame's pv list looked at
  kInvalidation,    // translations that a TLB may hold became invalid
  kShootdown,       // operations that had to tell other CPUs
};
inline constexpr std::size_t kPmapEventKinds = static_cast<std::size_t>(PmapEvent::kShootdown) + 1;

class PmapEventSink {
 public:
  virtual void note(PmapEvent event, std::uint64_t n) = 0;

 protected:
  ~PmapEventSink() = default;
};

/// Adds events up.
class CountingPmapEvents final : public PmapEventSink {
 public:
  void note(PmapEvent event, std::uint64_t n) override {
    counts_[static_cast<std::size_t>(event)].fetch_add(n, std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t operator[](PmapEvent event) const {
    return counts_[static_cast<std::size_t>(event)].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::uint64_t>, kPmapEventKinds> counts_{};
};

}  // namespace enchilada
