// Units as types: page indexes, frame numbers, addresses and counts that cannot be mixed up.
// Invariant: no naked integer crosses a seam; conversions are named and explicit.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace enchilada {

inline constexpr std::uint64_t kPageShift = 12;
inline constexpr std::uint64_t kPageSize = std::uint64_t{1} << kPageShift;
inline constexpr std::uint64_t kPageMask = kPageSize - 1;

/// An integer that carries its unit. Arithmetic is defined below only where it has a meaning.
template <class Tag, class Rep>
class Unit {
 public:
  using rep = Rep;
  constexpr Unit() = default;
  constexpr explicit Unit(Rep v) : value_(v) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  constexpr auto operator<=>(const Unit&) const = default;
  constexpr Unit& operator++() {
    ++value_;
    return *this;
  }
  constexpr Unit& operator--() {
    --value_;
    return *this;
  }

 private:
  Rep value_ = 0;
};

/// Index of a page inside a VmObject (byte offset >> kPageShift).
using PageIndex = Unit<struct PageIndexTag, std::uint64_t>;
/// A number of pages.
using PageCount = Unit<struct PageCountTag, std::uint64_t>;
/// Number of a physical frame of one VmSystem, from 0.
using FrameNumber = Unit<struct FrameNumberTag, std::uint32_t>;
/// A virtual address.
using VirtAddr = Unit<struct VirtAddrTag, std::uint64_t>;
/// A number of bytes.
using ByteCount = Unit<struct ByteCountTag, std::uint64_t>;
/// Number of a page-sized block of the linear swap space, from 0.
using SwapBlock = Unit<struct SwapBlockTag, std::uint32_t>;
/// Nanoseconds of a Clock.
using Nanoseconds = Unit<struct NanosecondsTag, std::uint64_t>;

inline constexpr FrameNumber kNoFrame{~std::uint32_t{0}};
inline constexpr SwapBlock kNoBlock{~std::uint32_t{0}};

constexpr PageIndex operator+(PageIndex a, PageCount n) {
  return PageIndex{a.value() + n.value()};
}
constexpr PageIndex operator-(PageIndex a, PageCount n) {
  return PageIndex{a.value() - n.value()};
}
constexpr PageCount operator-(PageIndex a, PageIndex b) {
  return PageCount{a.value() - b.value()};
}
constexpr VirtAddr operator+(VirtAddr a, ByteCount n) {
  return VirtAddr{a.value() + n.value()};
}
constexpr VirtAddr operator-(VirtAddr a, ByteCount n) {
  return VirtAddr{a.value() - n.value()};
}
constexpr ByteCount operator-(VirtAddr a, VirtAddr b) {
  return ByteCount{a.value() - b.value()};
}
constexpr PageCount operator+(PageCount a, PageCount b) {
  return PageCount{a.value() + b.value()};
}
constexpr PageCount operator-(PageCount a, PageCount b) {
  return PageCount{a.value() - b.value()};
}
constexpr ByteCount operator+(ByteCount a, ByteCount b) {
  return ByteCount{a.value() + b.value()};
}
constexpr ByteCount operator-(ByteCount a, ByteCount b) {
  return ByteCount{a.value() - b.value()};
}
constexpr FrameNumber operator+(FrameNumber a, PageCount n) {
  return FrameNumber{static_cast<std::uint32_t>(a.value() + n.value())};
}
constexpr SwapBlock operator+(SwapBlock a, PageCount n) {
  return SwapBlock{static_cast<std::uint32_t>(a.value() + n.value())};
}
constexpr Nanoseconds operator+(Nanoseconds a, Nanoseconds b) {
  return Nanoseconds{a.value() + b.value()};
}
constexpr Nanoseconds operator-(Nanoseconds a, Nanoseconds b) {
  return Nanoseconds{a.value() - b.value()};
}

constexpr ByteCount to_bytes(PageCount n) {
  return ByteCount{n.value() << kPageShift};
}
constexpr PageCount to_pages(ByteCount n) {
  return PageCount{(n.value() + kPageMask) >> kPageShift};
}
constexpr VirtAddr page_floor(VirtAddr a) {
  return VirtAddr{a.value() & ~kPageMask};
}
constexpr VirtAddr page_ceil(VirtAddr a) {
  return VirtAddr{(a.value() + kPageMask) & ~kPageMask};
}
constexpr bool page_aligned(VirtAddr a) {
  return (a.value() & kPageMask) == 0;
}

/// Half-open range [start, end) of addresses.
struct VirtRange {
  VirtAddr start;
  VirtAddr end;
  [[nodiscard]] constexpr bool empty() const { return start >= end; }
  [[nodiscard]] constexpr ByteCount size() const { return end - start; }
  [[nodiscard]] constexpr bool contains(VirtAddr a) const { return a >= start && a < end; }
  [[nodiscard]] constexpr bool overlaps(VirtRange o) const { return start < o.end && o.start < end; }
  constexpr bool operator==(const VirtRange&) const = default;
};

/// `count` frames with consecutive numbers.
struct FrameRun {
  FrameNumber first = kNoFrame;
  PageCount count;
};

/// `count` swap blocks with consecutive numbers.
struct BlockRun {
  SwapBlock first = kNoBlock;
  PageCount count;
  [[nodiscard]] constexpr bool empty() const { return count.value() == 0; }
};

}  // namespace enchilada
