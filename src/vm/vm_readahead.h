// Read-ahead: how much a page-in reads beside the page that is wanted (freebsd-vm.md §1.10).
//
// Invariant: a policy is stateless; what it learns is in the object (SequenceTable, NeighbourGuess), so that
// it is guarded by the object's lock and goes when the object goes.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_sequence.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;
struct VmTunables;

/// What one page-in would like to read: `pages` in all, `before` of them before the wanted one.
struct ReadWindow {
  std::uint64_t pages = 1;
  std::uint64_t before = 0;
  /// Part of a sequence: what comes unasked is mapped at once and counts as used; else it waits on inactive,
  /// marked, until it proves its use.
  bool sequential = false;
};

class ReadAheadPolicy {
 public:
  virtual ~ReadAheadPolicy() = default;
  /// For a page-in of page `index`. `last`: the sequence that it continues, or null. Object locked
  /// exclusively.
  virtual ReadWindow choose(VmObject& object, PageIndex index, Advice advice,
                            const SequenceTable::Sequence* last) const = 0;
};

[[nodiscard]] std::unique_ptr<ReadAheadPolicy> make_readahead(ReadAheadMode mode, const VmTunables& tunables);

}  // namespace enchilada
