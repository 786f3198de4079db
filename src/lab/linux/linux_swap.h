// LinuxSwap: swap slots with reference counts, and the swap cache.
//
// A slot is referred to by page-table entries that say it; the page that holds the same bytes, if one is in
// memory, is the slot's cached page. Invariants: a slot is free when nobody refers to it and no page has it;
// a cached page is the only one for its slot.
#pragma once

#include <vector>

#include "lab/linux/linux_types.h"

namespace enchilada::lab {

class LinuxSwap {
 public:
  LinuxSwap(PageCount slots, Hardware& hardware) : disk_(slots, hardware), slots_(slots.value()) {}

  /// A free slot, which `page` has from now on; kNoSlot: swap is full.
  [[nodiscard]] std::uint32_t allocate(LinuxPage& page);
  void refer(std::uint32_t slot) { ++slots_[slot].references; }
  /// Drops one reference; returns how many are left.
  std::uint32_t drop(std::uint32_t slot);
  [[nodiscard]] std::uint32_t references(std::uint32_t slot) const { return slots_[slot].references; }
  [[nodiscard]] LinuxPage* cached(std::uint32_t slot) const { return slots_[slot].page; }
  void cache(std::uint32_t slot, LinuxPage& page);
  /// The page is the slot's no more.
  void uncache(LinuxPage& page);
  [[nodiscard]] LinuxDisk& disk() { return disk_; }
  [[nodiscard]] std::uint64_t used() const { return used_; }

 private:
  struct Slot {
    std::uint32_t references = 0;
    LinuxPage* page = nullptr;
  };
  void note_change(std::uint32_t slot, bool was_used);
  [[nodiscard]] bool in_use(std::uint32_t slot) const {
    return slots_[slot].references != 0 || slots_[slot].page != nullptr;
  }

  LinuxDisk disk_;
  std::vector<Slot> slots_;
  std::uint32_t next_ = 0;  // where the search for a free one goes on
  std::uint64_t used_ = 0;
};

}  // namespace enchilada::lab
