// Prefault: which resident neighbours are mapped along with a page (freebsd-vm.md §1.10, article section 5).
//
// A fault on a page that is in memory costs little, but many of them do, so a fault maps what lies around the
// page too, and mapping an object maps what is in memory of it. Only what is resident, valid and idle comes
// along: nothing sleeps, nothing is read, no frame is taken. Invariant: a policy is stateless; the fault owns
// the pages that it grows over.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmMap;
struct VmTunables;

/// What came of growing a run by a page: it is longer; its end is the entry's; the page cannot come along.
enum class Growth : std::uint8_t { kLonger, kEdge, kMissing };

/// The run of pages around a wanted one that a fault is about to map; grows by a page at either end.
class NeighbourRun {
 public:
  virtual Growth grow_down() = 0;
  virtual Growth grow_up() = 0;

 protected:
  ~NeighbourRun() = default;
};

/// Pages [first, end) of an object.
struct PageSpan {
  PageIndex first;
  PageIndex end;
  [[nodiscard]] bool contains(PageIndex at) const { return first <= at && at < end; }
};

class PrefaultPolicy {
 public:
  virtual ~PrefaultPolicy() = default;
  /// Grows the run around page `at` of the top object. `read`: what this fault has just read in one sequence
  /// (may be empty). Object locked.
  virtual void grow(PageIndex at, PageSpan read, NeighbourRun& run) const = 0;
  /// Pages that are mapped at most when an object is mapped.
  [[nodiscard]] virtual PageCount at_map_time() const { return PageCount{0}; }
};

[[nodiscard]] std::unique_ptr<PrefaultPolicy> make_prefault(PrefaultMode mode, const VmTunables& tunables);

/// Maps, read-only, what is resident of the objects behind the range, as far as the policy does that when an
/// object is mapped. No lock held; best effort. Returns how many pages.
PageCount vm_prefault_map(VmMap& map, VirtRange range);

}  // namespace enchilada
