// SwapCopy: what swap metadata say of one page, and what all forms of metadata share.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "vm/vm_meter.h"

namespace enchilada {

/// 128-bit hash of a page's bytes.
struct Fingerprint {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  constexpr bool operator==(const Fingerprint&) const = default;
};

/// The swap copy of one page.
struct SwapCopy {
  SwapBlock block = kNoBlock;
  Fingerprint print{};
  [[nodiscard]] constexpr bool exists() const { return block != kNoBlock; }
  [[nodiscard]] constexpr bool on_device() const { return block.value() < (std::uint32_t{1} << 31); }
  constexpr bool operator==(const SwapCopy&) const = default;
};

/// Block number of a page that is all zeros: a copy without a block.
inline constexpr SwapBlock kZeroBlock{~std::uint32_t{0} - 1};

/// Who asks for metadata: a page-out, which may be refused, or a move from object to object, which may not
/// and so has a reserve.
enum class MetaPurpose : std::uint8_t { kPut, kMove };

/// What one form of metadata has done and has. Counters only grow.
struct SwapMetaStats {
  Counter refused;  // page-outs refused, because there was no memory for metadata
  Counter dips;     // moves that had to take from the reserve
  Counter lookups;  // hash: entries looked for
  Counter probes;   // hash: entries looked at for that
  Counter scans;    // hash: walks over the whole table, to find what comes next in an object
  Counter grown;    // array: times that an object's array was made, or made anew larger
  Counter copied;   // array: pages whose copies were carried over into a larger one
};

}  // namespace enchilada
