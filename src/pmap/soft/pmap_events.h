// What a soft pmap does, as events: the cost model above (src/machine, src/lab) charges for them.
//
// Invariant: a pmap only reports; it never includes anything of the machine and works without a sink. note()
// may be called from any thread with pmap and pv locks held, so an implementation must be lock-free.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

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
  // What the cost tables of designs.md charge for.
  kPteRead,          // page-table entries read, by hardware and software
  kPteWrite,         // ... and written
  kShootdownTarget,  // address spaces told, over all shoot-downs: a shared table has several
  // Pv entries.
  kPvHighWater,       // enters that left 90 % of the pool in use
  kPvExhausted,       // enters that found none free
  kPvCollected,       // mappings destroyed to get pv entries back
  kPvChunkAllocated,  // page-sized chunks
  kPvChunkFreed,
  kPvChunkReclaimed,  // chunks emptied to make room
  // Tables thrown away, and forked.
  kHarvest,      // reference and dirty bits carried to the frames by throwing mappings away
  kRefault,      // enters that replace mappings thrown away or not copied (at most: any enter until so many)
  kForkDropped,  // mappings that a fork did not give to the child
  kForkCopied,   // mappings that it copied
  kForkShared,   // leaf tables that it shared
  kForkNotShared,    // leaf tables that it could not share: wired, partly inherited, too many sharers
  kTableUnshared,    // leaf tables copied before a change
  kTableDetached,    // sharers that let go of a shared table without a copy
  kTablePushedDown,  // write protection of a whole table moved into its entries
  // Superpages.
  kPromotion,
  kPromotionFailed,  // tables full, but their entries did not agree
  kDemotion,
  kDemotionDropped,  // mappings removed instead: not referenced, or no pv entries
  // Hashed page table.
  kHashProbe,  // entries compared in lookups
};
inline constexpr std::size_t kPmapEventKinds = static_cast<std::size_t>(PmapEvent::kHashProbe) + 1;

/// Number of an address space, as the tags of a TLB have it. Reused once all its
/// mappings were invalidated.
using SpaceId = std::uint16_t;

/// One access by the program, and what the hardware had to read to translate it without a TLB.
struct PmapWalk {
  static constexpr unsigned kMostReads = 8;
  SpaceId space = 0;
  VirtAddr va;
  bool write = false;
  bool found = false;                             // false: page fault
  FrameNumber frame;                              // of the 4 KiB page at va, where found
  unsigned page_shift = kPageShift;               // of the mapping: 12 or 21
  unsigned reads = 0;                             // entries read, in this order:
  std::array<std::uint64_t, kMostReads> entry{};  // their addresses in the memory of all tables
};

class PmapEventSink {
 public:
  virtual void note(PmapEvent event, std::uint64_t n) = 0;
  /// An access was translated (or not). For models of TLBs and caches.
  virtual void walked(const PmapWalk& walk) { (void)walk; }
  /// Translations of these spaces in the range became invalid or lost rights or bits: their TLBs must forget
  /// them. Called before the operation that caused it returns; one shoot-down may make several calls.
  virtual void invalidated(std::span<const SpaceId> spaces, VirtRange range) { (void)spaces, (void)range; }

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
