// Pv lists: the array of list heads, hashed locks, and the capped pool of entries.
#include "pmap/soft/pv_lists.h"

#include <new>

namespace enchilada {
PvLists::PvLists(Arena& arena, PageCount frames, std::size_t limit)
    : count_(frames), limit_(limit), slab_(arena, 64) {
  frames_ = arena.allocate_array<FrameState>(static_cast<std::size_t>(frames.value()));
  CHECK(frames_ != nullptr, frames.value());
  for (std::uint64_t i = 0; i < frames.value(); ++i) new (&frames_[i]) FrameState;
  // Without any entry nothing could ever be mapped, so some are set aside before others use the arena up.
  constexpr std::size_t kSetAside = 64;
  CHECK(slab_.reserve(kSetAside));
}

PvEntry* PvLists::create() {
  if (live_.fetch_add(1, std::memory_order_relaxed) >= limit_ && limit_ != 0) {
    live_.fetch_sub(1, std::memory_order_relaxed);
    return nullptr;
  }
  PvEntry* const pv = slab_.create();
  if (pv == nullptr) live_.fetch_sub(1, std::memory_order_relaxed);
  return pv;
}

void PvLists::destroy(PvEntry* pv) {
  slab_.destroy(pv);
  live_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace enchilada
