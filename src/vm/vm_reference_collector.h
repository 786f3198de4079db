// ReferenceCollector: how the page daemon learns that a page was used. A seam: FreeBSD's way is below; the
// laboratory's rivals bring their own (a walk over page tables, a sample of pages).
//
// Invariant: what it answers is about the time since it last answered for that page; a page's software flag
// REFERENCED counts as one. Pages are busy. Thread-safe.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {

class ReferenceCollector {
 public:
  virtual ~ReferenceCollector() = default;
  /// Uses of the page since the last look.
  [[nodiscard]] virtual unsigned collect(Page& page, FrameNumber frame) = 0;
  /// Use shows only while a page is unmapped, because then it faults: so a page that is suspected of being
  /// idle must be unmapped.
  [[nodiscard]] virtual bool by_absence() const = 0;
};

[[nodiscard]] std::unique_ptr<ReferenceCollector> make_reference_collector(ReferenceMode mode,
                                                                           PmapSystem& pmaps);

}  // namespace enchilada
