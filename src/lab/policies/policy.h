// What every replacement policy offers, and what it tells while it works.
//
// A policy is a class with a constructor (const Trace&, const PolicyOptions&) and
//   template <class Sink> bool touch(Reference, Sink&)   true: the page was in memory
//   void prefetch(std::uint32_t page) const              the page will be touched soon
// It is a template's argument, never a base class: no call of a replay goes through a pointer. The sink hears
// of every victim, every write of a dirty page, and every page that was looked at in the search for victims.
// Invariant: a policy has at most `frames` pages in memory.
#pragma once

#include <concepts>
#include <cstdint>

#include "lab/policies/trace.h"

namespace enchilada::lab {

struct PolicyOptions {
  std::uint32_t frames = 1;
  std::uint64_t seed = 1;          // of random
  std::uint32_t record_bytes = 0;  // clock-pro: what a record of a page that is gone takes from memory
};

/// A sink that counts.
struct PolicyCounts {
  std::uint64_t evictions = 0;
  std::uint64_t page_outs = 0;
  std::uint64_t looks = 0;
  void evicted(std::uint32_t) { ++evictions; }
  void wrote(std::uint32_t) { ++page_outs; }
  void looked() { ++looks; }
};

template <class P>
concept ReplacementPolicy = std::constructible_from<P, const Trace&, const PolicyOptions&> &&
    requires(P policy, Reference ref, PolicyCounts& sink) {
  { policy.touch(ref, sink) } -> std::same_as<bool>;
  policy.prefetch(ref.page());
};

/// A page at a time, all policies keep this byte: the low bits are the policy's own.
inline constexpr std::uint8_t kDirtyBit = 0x80;
inline constexpr std::uint8_t kYoungBit = 0x40;  // the hardware's: set by every access

inline std::uint8_t access_bits(Reference ref) {
  return static_cast<std::uint8_t>(kYoungBit | (ref.is_write() ? kDirtyBit : 0));
}

/// What the hardware does to a page that is in memory.
inline void note_access(std::uint8_t* state, Reference ref) {
  *state = static_cast<std::uint8_t>(*state | access_bits(ref));
}

inline void clear_bits(std::uint8_t* state, std::uint8_t bits) {
  *state = static_cast<std::uint8_t>(*state & ~bits);
}

/// The page leaves memory; what was written to it has to be kept.
template <class Sink>
void evict(std::uint8_t* state, std::uint32_t page, Sink& sink) {
  if ((*state & kDirtyBit) != 0) sink.wrote(page);
  *state = 0;
  sink.evicted(page);
}

}  // namespace enchilada::lab
