// The packed words of the segment: pure functions, no state.
//
// Invariant: sequence numbers have 28 bits and are compared modulo 2^28; a number is never reused while
// anybody could still hold a word with its former use (2^28 changes of one slot in between).
#pragma once

#include <atomic>
#include <cstdint>

#include "runtime/tree/tree_layout.h"

namespace enchilada::words {

inline constexpr std::uint64_t kMaxFrames = (std::uint64_t{1} << 28) - 1;
inline constexpr std::uint32_t kSequenceMask = (std::uint32_t{1} << 28) - 1;

constexpr std::uint32_t next(std::uint32_t sequence) {
  return (sequence + 1) & kSequenceMask;
}
constexpr bool newer(std::uint32_t a, std::uint32_t b) {
  const std::uint32_t ahead = (a - b) & kSequenceMask;
  return ahead != 0 && ahead < (kSequenceMask >> 1);
}

// TreeHeader::budget
constexpr std::uint64_t budget(std::uint64_t available, std::uint32_t slot, std::uint32_t sequence) {
  return available << 36 | std::uint64_t{slot} << 28 | sequence;
}
constexpr std::uint64_t budget_available(std::uint64_t word) {
  return word >> 36;
}
constexpr std::uint32_t budget_slot(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 28 & 0xff);
}
constexpr std::uint32_t budget_sequence(std::uint64_t word) {
  return static_cast<std::uint32_t>(word) & kSequenceMask;
}
static_assert(kMaxProcesses <= 256);

// ChargeJournal
constexpr std::uint64_t journal(std::uint64_t frames, std::uint32_t sequence) {
  return frames << 32 | sequence;
}
constexpr std::uint64_t journal_negative(std::uint64_t frames, std::uint32_t sequence) {
  return (~frames + 1) << 32 | sequence;
}
constexpr std::uint64_t journal_frames(std::uint64_t word) {
  return word >> 32;
}
constexpr std::uint64_t journal_delta(std::uint64_t word) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(word) >> 32);
}
constexpr std::uint32_t journal_sequence(std::uint64_t word) {
  return static_cast<std::uint32_t>(word);
}

// TreeSlot::owner
inline constexpr std::uint32_t kGenerationMask = 0xff'ffff;
constexpr std::uint64_t owner(std::uint32_t pid, std::uint32_t generation, SlotState state) {
  return std::uint64_t{pid} << 32 | std::uint64_t{generation & kGenerationMask} << 8 |
         static_cast<std::uint64_t>(state);
}
constexpr std::uint32_t owner_pid(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 32);
}
constexpr std::uint32_t owner_generation(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 8) & kGenerationMask;
}
constexpr SlotState owner_state(std::uint64_t word) {
  return static_cast<SlotState>(word & 0xff);
}

// TreeSlot::start_time and ::image
constexpr std::uint64_t tagged_start(std::uint64_t ticks, std::uint32_t generation) {
  return ticks << 24 | (generation & kGenerationMask);
}
/// 0 when the tag is another generation's.
constexpr std::uint64_t start_of(std::uint64_t word, std::uint32_t generation) {
  return (word & kGenerationMask) == (generation & kGenerationMask) ? word >> 24 : 0;
}
inline constexpr std::uint64_t kImageTag = 0xf'ffff;
constexpr std::uint64_t tagged_image(std::uint64_t stack, std::uint32_t generation) {
  return (stack >> 4) << 20 | (generation & kImageTag);
}
constexpr std::uint64_t image_of(std::uint64_t word, std::uint32_t generation) {
  return (word & kImageTag) == (generation & kImageTag) ? (word >> 20) << 4 : 0;
}

/// Atomic maximum.
inline void raise(std::atomic<std::uint64_t>& word, std::uint64_t value) {
  std::uint64_t seen = word.load(std::memory_order_relaxed);
  while (seen < value && !word.compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

}  // namespace enchilada::words
