// Pv lists: the array of list heads.
#include "pmap/soft/pv_lists.h"

#include <new>

namespace enchilada {

PvLists::PvLists(Arena& arena, PageCount frames, bool superpages)
    : count_(frames), lock_shift_(superpages ? kSuperBits : 0) {
  frames_ = arena.allocate_array<FrameState>(static_cast<std::size_t>(frames.value()));
  CHECK(frames_ != nullptr, frames.value());
  for (std::uint64_t i = 0; i < frames.value(); ++i) new (&frames_[i]) FrameState;
  const std::uint64_t supers = (frames.value() >> kSuperBits) + 1;
  supers_ = arena.allocate_array<PvList>(static_cast<std::size_t>(supers));
  CHECK(supers_ != nullptr, supers);
  for (std::uint64_t i = 0; i < supers; ++i) new (&supers_[i]) PvList;
}

}  // namespace enchilada
