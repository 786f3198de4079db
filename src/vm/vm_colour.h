// Page colours: which frames share cache lines, and the article's constants (FreeBSD 4.0 vm_page.h, PQ_*;
// reference/freebsd-vm.md §1.13).
//
// Two frames have the same colour when their numbers are equal modulo the number of colours; in a physically
// indexed cache of that many pages (times its ways) they compete for the same sets. Invariant: the number of
// colours is a power of two, at most kMaxColours.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "vm/vm_types.h"

namespace enchilada {

inline constexpr std::uint32_t kMaxColours = 256;

/// prime1 spreads the base colours of objects, prime2 the searches that have no colour of their own.
struct ColourTable {
  std::uint32_t colours;  // PQ_L2_SIZE
  std::uint32_t prime1;
  std::uint32_t prime2;
};

/// For a cache of this size. FreeBSD has 1024K to 64K; for a smaller one (its PQ_NOOPT has one colour), as
/// the article's example of a cache that holds four pages, here there is a colour for each page.
[[nodiscard]] constexpr ColourTable colour_table(ByteCount cache) {
  const std::uint64_t kib = cache.value() >> 10;
  if (kib >= 1024) return {256, 31, 23};
  if (kib >= 512) return {128, 31, 23};
  if (kib >= 256) return {64, 13, 7};
  if (kib >= 128) return {32, 9, 5};
  if (kib >= 64) return {16, 5, 3};
  const std::uint64_t pages = cache.value() >> kPageShift;
  return {pages == 0 ? 1u : static_cast<std::uint32_t>(std::bit_floor(pages)), 1, 1};
}

/// How far the base colour of the next object lies from this one's, whose size is given (§1.13).
[[nodiscard]] constexpr std::uint32_t colour_step(const ColourTable& table, PageCount size) {
  const std::uint32_t most = table.colours / 3 + table.prime1;
  return size.value() < most ? static_cast<std::uint32_t>(size.value()) : most;
}

/// A set of colours, with the article's search in O(1): a few words.
class ColourSet {
 public:
  explicit ColourSet(std::uint32_t colours) : colours_(colours) {}

  void insert(std::uint32_t colour) { words_[colour / 64] |= bit(colour); }
  void erase(std::uint32_t colour) { words_[colour / 64] &= ~bit(colour); }
  [[nodiscard]] bool contains(std::uint32_t colour) const { return (words_[colour / 64] & bit(colour)) != 0; }

  /// The colour itself; else the farthest that there is: for i = colours/2 down to 1, colour + i, then
  /// colour - i (FreeBSD's _vm_page_list_find: a neighbour's colour would compete with the pages next door).
  /// kMaxColours when the set is empty.
  [[nodiscard]] std::uint32_t find(std::uint32_t colour) const {
    if (contains(colour)) return colour;
    const std::uint32_t half = colours_ / 2;
    const std::uint32_t opposite = (colour + half) % colours_;
    const std::uint32_t down = steps_down(opposite);  // colour + half - down
    const std::uint32_t up = steps_up(opposite);      // colour + half + up = colour - (half - up)
    if (down == kMaxColours && up == kMaxColours) return kMaxColours;
    return down <= up ? (opposite + colours_ - down) % colours_ : (opposite + up) % colours_;
  }

 private:
  static constexpr std::uint64_t bit(std::uint32_t colour) { return std::uint64_t{1} << (colour % 64); }

  /// Steps from `from` upwards, round the circle, to the next member; kMaxColours: none.
  [[nodiscard]] std::uint32_t steps_up(std::uint32_t from) const {
    const std::uint32_t words = (colours_ + 63) / 64;
    for (std::uint32_t i = 0; i <= words; ++i) {
      const std::uint32_t w = (from / 64 + i) % words;
      std::uint64_t bits = words_[w];
      if (i == 0) bits &= ~std::uint64_t{0} << (from % 64);
      if (bits == 0) continue;
      const std::uint32_t found = w * 64 + static_cast<std::uint32_t>(std::countr_zero(bits));
      return (found + colours_ - from) % colours_;
    }
    return kMaxColours;
  }
  [[nodiscard]] std::uint32_t steps_down(std::uint32_t from) const {
    const std::uint32_t words = (colours_ + 63) / 64;
    for (std::uint32_t i = 0; i <= words; ++i) {
      const std::uint32_t w = (from / 64 + words - i % words) % words;
      std::uint64_t bits = words_[w];
      if (i == 0) bits &= ~std::uint64_t{0} >> (63 - from % 64);
      if (bits == 0) continue;
      const std::uint32_t found = w * 64 + 63 - static_cast<std::uint32_t>(std::countl_zero(bits));
      return (from + colours_ - found) % colours_;
    }
    return kMaxColours;
  }

  const std::uint32_t colours_;
  std::array<std::uint64_t, kMaxColours / 64> words_{};
};

}  // namespace enchilada
