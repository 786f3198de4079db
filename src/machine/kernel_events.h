// What a simulated kernel does with its own data structures, as events that the machine counts and charges.
//
// The pmap's events (pmap/soft/pmap_events.h) are of page tables and pv entries; these are of everything
// above them: what designs.md wants counted so that designs can be compared. Invariant: an event says what
// was done, the cost model (cost_model.h) alone says what that costs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace enchilada {

enum class KernelEvent : std::uint8_t {
  kWalkMiss,     // an address that should show the page was looked up in page tables, and did not
  kIndexNode,    // nodes of trees visited
  kVmaVisit,     // mappings of a file, or of anonymous memory, looked at in the search for a page
  kChainBlock,   // blocks of a PTE chain looked at
  kLineRead,     // cache lines of the kernel's structures read
  kLineWritten,  // ... and dirtied
  kAllocation,
  kFree,
  kLock,        // lock acquisitions
  kMinorFault,  // faults that needed no device
  kMajorFault,  // faults that waited for one
};
inline constexpr std::size_t kKernelEventKinds = static_cast<std::size_t>(KernelEvent::kMajorFault) + 1;
inline constexpr std::array<std::string_view, kKernelEventKinds> kKernelEventNames = {
    "walk_misses", "index_nodes", "vma_visits", "chain_blocks", "lines_read",  "lines_written",
    "allocations", "frees",       "locks",      "minor_faults", "major_faults"};

}  // namespace enchilada
