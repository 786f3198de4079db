// What all allocators of swap blocks share: rules about their storage, about runs, and about boundaries.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/units.h"

namespace enchilada::block_storage {

/// Storage is aligned to this.
inline constexpr std::size_t kLine = 64;
/// "There is no such block."
inline constexpr std::uint64_t kNone = ~std::uint64_t{0};
/// Numbers are 32 bits wide and the last of them is kNoBlock: 16 TiB less one page.
inline constexpr std::uint64_t kMaxBlocks = kNoBlock.value();

constexpr std::uint64_t divide_up(std::uint64_t a, std::uint64_t b) {
  return (a + b - 1) / b;
}

/// Stops the machine when a list cannot be made like this.
inline void check_new(std::span<std::byte> storage, std::size_t needed, PageCount blocks,
                      PageCount boundary) {
  CHECK(storage.size() >= needed, storage.size(), needed);
  CHECK(reinterpret_cast<std::uintptr_t>(storage.data()) % kLine == 0);
  CHECK(blocks.value() <= kMaxBlocks, blocks.value());
  CHECK(boundary.value() == 0 || std::has_single_bit(boundary.value()), boundary.value());
}

/// The header of a list that was made in this storage.
template <class Header>
[[nodiscard]] Header* header_of(std::span<std::byte> storage, std::uint64_t magic) {
  auto* h = reinterpret_cast<Header*>(storage.data());
  CHECK(storage.size() >= sizeof(Header) && h->magic == magic && h->bytes <= storage.size());
  return h;
}

constexpr BlockRun run_at(std::uint64_t first, std::uint64_t count) {
  return {SwapBlock{static_cast<std::uint32_t>(first)}, PageCount{count}};
}

/// Calls use(run) for the runs of one bits in a word whose first bit is block `base`.
template <class Use>
void for_each_run(std::uint64_t bits, std::uint64_t base, Use use) {
  while (bits != 0) {
    const auto at = static_cast<unsigned>(std::countr_zero(bits));
    const auto count = static_cast<unsigned>(std::countr_one(bits >> at));
    use(run_at(base + at, count));
    bits = at + count == 64 ? 0 : bits & (~std::uint64_t{0} << (at + count));
  }
}

/// Does the whole run lie in a space of so many blocks?
constexpr bool inside(BlockRun run, std::uint64_t blocks) {
  return run.first.value() < blocks && run.count.value() <= blocks - run.first.value();
}

/// First block >= at from which `count` <= boundary blocks cross no multiple of the boundary (0 = none).
constexpr std::uint64_t uncrossed(std::uint64_t at, std::uint64_t count, std::uint64_t boundary) {
  if (boundary == 0) return at;
  const std::uint64_t past = at & (boundary - 1);
  return past + count <= boundary ? at : at - past + boundary;
}

}  // namespace enchilada::block_storage
