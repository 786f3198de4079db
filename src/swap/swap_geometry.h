// SwapGeometry: how the linear block space lies on the devices (interleaving as in FreeBSD 4.x).
//
// With D slots and a stripe of S blocks: linear block b is in stripe s = b / S, on device s mod D, at device
// block (s / D) * S + b mod S; the inverse is (d / S * D + device) * S + d mod S. The space has room for D
// times the largest device rounded up to S; what lies beyond the end of a shorter (or absent) device is a
// hole, which the blist simply never gets to see as free. With one slot the mapping is the identity.
// Invariants: locate() and linear() are each other's inverse; a run inside one stripe is contiguous on one
// device.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

/// A place on a device.
struct DeviceBlock {
  unsigned device = 0;
  std::uint64_t block = 0;
};

struct SwapGeometry {
  static constexpr unsigned kMaxDevices = 4;
  static constexpr std::uint64_t kMaxBlocks = std::uint64_t{1} << 31;

  std::array<std::uint64_t, kMaxDevices> device_pages{};  // 0 = the slot is empty
  unsigned slots = 1;                                     // D; the article always takes 4
  std::uint64_t stripe = 64;                              // S, a power of two; unused with one slot
  std::uint64_t reserved = 0;                             // first blocks of each device that are never used
  std::uint64_t room = 0;  // numbers for so many blocks of each device at least, for one that comes later

  [[nodiscard]] constexpr bool valid() const {
    if (slots == 0 || slots > kMaxDevices || !std::has_single_bit(stripe) || stripe > (1u << 20))
      return false;
    for (std::uint64_t pages : device_pages) {
      if (pages > kMaxBlocks) return false;
    }
    if (room > kMaxBlocks) return false;
    return linear_blocks() <= kMaxBlocks && linear_blocks() > 0;
  }
  /// Size of the linear space, holes included.
  [[nodiscard]] constexpr std::uint64_t linear_blocks() const {
    const std::uint64_t most =
        std::max(room, *std::max_element(device_pages.begin(), device_pages.begin() + slots));
    return slots == 1 ? most : (most + stripe - 1) / stripe * stripe * slots;
  }
  [[nodiscard]] constexpr DeviceBlock locate(SwapBlock b) const {
    if (slots == 1) return {0, b.value()};
    const std::uint64_t s = b.value() / stripe;
    return {static_cast<unsigned>(s % slots), s / slots * stripe + b.value() % stripe};
  }
  [[nodiscard]] constexpr SwapBlock linear(DeviceBlock d) const {
    if (slots == 1) return SwapBlock{static_cast<std::uint32_t>(d.block)};
    return SwapBlock{
        static_cast<std::uint32_t>((d.block / stripe * slots + d.device) * stripe + d.block % stripe)};
  }
  /// Room for blocks of one device.
  [[nodiscard]] constexpr std::uint64_t device_room() const { return linear_blocks() / slots; }
  /// Is there a device block behind it that may be used?
  [[nodiscard]] constexpr bool usable(SwapBlock b) const {
    if (b.value() >= linear_blocks()) return false;
    const DeviceBlock d = locate(b);
    return d.block >= reserved && d.block < device_pages[d.device];
  }
  /// How many there are of these.
  [[nodiscard]] constexpr std::uint64_t usable_blocks() const {
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < slots; ++i) sum += device_pages[i] - std::min(device_pages[i], reserved);
    return sum;
  }
  /// No run may cross a multiple of this; 0 = no such limit.
  [[nodiscard]] constexpr std::uint64_t boundary() const { return slots == 1 ? 0 : stripe; }
  /// Can b and b+1 be one I/O?
  [[nodiscard]] constexpr bool contiguous_with_next(SwapBlock b) const {
    return slots == 1 || (std::uint64_t{b.value()} + 1) % stripe != 0;
  }
};

}  // namespace enchilada
