// The choices that object chains leave open: when a collapse is tried, and what becomes of a page that was
// copied from (freebsd-vm.md §1.3-1.5). Modes `collapse`, `cow_move`, `dead_pages`; chosen when the VmSystem
// is made.
//
// Invariant: any choice is right, that is no program sees a difference; only frames, swap and time differ.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;

/// When a collapse may be tried.
enum class CollapseMoment : std::uint8_t {
  kDereference,  // an object has one reference and one shadow left: that shadow may absorb it
  kCopy,         // a copy-on-write fault has given the object a page
  kFork,         // the object is about to be shared by a child
  kRemoval,      // an entry that maps part of it goes
  kCoalesce,     // a new mapping could extend it, if it had no backing object
};

/// Says at which moments a collapse is worth trying. Called with no object lock held.
class CollapsePolicy {
 public:
  virtual ~CollapsePolicy() = default;
  [[nodiscard]] virtual bool wants(CollapseMoment moment, VmObject& object) const = 0;
  [[nodiscard]] static std::unique_ptr<CollapsePolicy> make(CollapseMode mode);
};

/// What becomes of a page of a backing object once its contents have gone to the shadow that writes.
enum class SourceFate : std::uint8_t {
  kStays,  // as a dead page, if nobody else can see it
  kMoves,  // it is the shadow's page from now on: nothing is copied
  kFreed,  // freed after the copy, with its copy in swap
};

/// The fates of pages that only the writer can still see.
struct SourceFates {
  SourceFate last_owner = SourceFate::kMoves;  // because nobody else refers to the object
  SourceFate dead = SourceFate::kMoves;        // because the only other shadow hides it, or does not reach it

  [[nodiscard]] static SourceFates of(CowMoveMode move, DeadPagesMode dead);
};

}  // namespace enchilada
