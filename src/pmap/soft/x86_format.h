// The x86-64 page-table format: four levels of 512 entries of eight bytes, 48 address bits.
//
// Invariant: an entry of zero maps nothing. Level 1 holds the leaf tables (2 MiB of addresses each), level 4
// the root. What a real machine keeps as a physical address is a frame number here (leaf) or the number of a
// table (branch).
#pragma once

#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace enchilada::x86 {

// A superpage's entry (level 2, kLarge) holds the number of the table that is kept for its demotion; the
// frame is the one in that table's first entry, where a real machine would have it in the entry itself.

/// One page-table entry. The hardware (SoftPmap::access) sets bits in it while the kernel side reads it:
/// atomic.
using Pte = std::atomic<std::uint64_t>;

inline constexpr std::uint64_t kPresent = 1u << 0;
inline constexpr std::uint64_t kWritable = 1u << 1;
inline constexpr std::uint64_t kAccessed = 1u << 5;
inline constexpr std::uint64_t kDirty = 1u << 6;
inline constexpr std::uint64_t kLarge = 1u << 7;  // level 2: maps 2 MiB, no table follows
inline constexpr std::uint64_t kWired = 1u << 9;  // one of the bits that the hardware leaves to software
inline constexpr unsigned kNumberShift = 12;

inline constexpr unsigned kLevels = 4;
inline constexpr unsigned kSlotBits = 9;
inline constexpr unsigned kSlots = 1u << kSlotBits;
inline constexpr std::uint64_t kAddressLimit = std::uint64_t{1} << (12 + kLevels * kSlotBits);

/// Bytes of address space that one entry of a table of `level` covers.
constexpr std::uint64_t span_of(unsigned level) {
  return std::uint64_t{1} << (kPageShift + kSlotBits * (level - 1));
}
constexpr unsigned slot_of(VirtAddr va, unsigned level) {
  return static_cast<unsigned>(va.value() >> (kPageShift + kSlotBits * (level - 1))) & (kSlots - 1);
}
constexpr std::uint64_t make_entry(std::uint32_t number, std::uint64_t bits) {
  return (std::uint64_t{number} << kNumberShift) | bits | kPresent;
}
constexpr std::uint32_t number_of(std::uint64_t entry) {
  return static_cast<std::uint32_t>(entry >> kNumberShift);
}
constexpr FrameNumber frame_of(std::uint64_t entry) {
  return FrameNumber{number_of(entry)};
}

}  // namespace enchilada::x86
