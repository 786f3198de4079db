// PageoutTarget: how many frames a run of the page daemon tries to gain. Lock: the daemon's run lock.
#pragma once

#include <cstdint>
#include <memory>

#include "base/units.h"
#include "vm/clock.h"
#include "vm/vm_modes.h"

namespace enchilada {

class PageoutTarget {
 public:
  virtual ~PageoutTarget() = default;
  /// `level` pages are at hand and `target` should be; at least 1: somebody asks because he needs one.
  [[nodiscard]] virtual std::uint64_t goal(std::uint64_t level, std::uint64_t target) = 0;
  /// The same, asked from time to time by nobody in need: 0 = let it be. Only if wants_ticks().
  [[nodiscard]] virtual std::uint64_t due(std::uint64_t /*level*/, std::uint64_t /*target*/) { return 0; }
  [[nodiscard]] virtual bool wants_ticks() const { return false; }
};

/// Made when the engine is made.
[[nodiscard]] std::unique_ptr<PageoutTarget> make_pageout_target(PageoutTargetMode mode, Clock& clock);

}  // namespace enchilada
