// Swap slots of a Linux-like kernel. Invariants: see linux_swap.h.
#include "lab/linux/linux_swap.h"

namespace enchilada::lab {

void LinuxSwap::note_change(std::uint32_t slot, bool was_used) {
  if (!was_used && in_use(slot)) ++used_;
  if (was_used && !in_use(slot)) --used_;
}

std::uint32_t LinuxSwap::allocate(LinuxPage& page) {
  if (used_ == slots_.size()) return kNoSlot;
  while (in_use(next_)) next_ = (next_ + 1) % static_cast<std::uint32_t>(slots_.size());
  const std::uint32_t slot = next_;
  cache(slot, page);
  return slot;
}

std::uint32_t LinuxSwap::drop(std::uint32_t slot) {
  CHECK(slots_[slot].references > 0, slot);
  --slots_[slot].references;
  note_change(slot, true);
  return slots_[slot].references;
}

void LinuxSwap::cache(std::uint32_t slot, LinuxPage& page) {
  CHECK(slots_[slot].page == nullptr && page.slot == kNoSlot, slot, page.slot);
  const bool was_used = in_use(slot);
  slots_[slot].page = &page;
  page.slot = slot;
  note_change(slot, was_used);
}

void LinuxSwap::uncache(LinuxPage& page) {
  CHECK(slots_[page.slot].page == &page, page.slot);
  slots_[page.slot].page = nullptr;
  note_change(page.slot, true);
  page.slot = kNoSlot;
}

}  // namespace enchilada::lab
