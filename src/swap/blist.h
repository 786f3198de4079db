// Blist: a bitmap of blocks as a radix tree with hints, in memory that is set aside beforehand.
//
// After Dillon's blist (FreeBSD subr_blist.c, 1998) in its modern shape: leaves of 64 bits, 64-way metas, a
// next-fit cursor, allocation of a range [min, max], runs that cross leaves. Three things differ on purpose:
//  * a meta is one cache line of 64 one-byte hints, level by level in flat arrays, instead of nodes in
//  depth-first
//    order: a hint of 0 says "nothing free below", so no second bitmap is needed, and the next leaf is simply
//    +1;
//  * hints are exact, not upper bounds lowered by failures: recomputing a meta reads the one line that the
//  change
//    has just touched. So a search for up to 64 blocks never fails on the way down: O(levels), at most 6;
//  * bits and hints are stored upside down (1 = allocated; what a hint lacks to the greatest): zeroed storage
//    is a free list, so a new list of 32 GiB of swap touches a few pages and not a megabyte.
// hint(leaf) = min(64, longest allocation that starts in the leaf), hint(meta) = greatest hint of its
// children. With a boundary (the stripe), no allocation crosses a multiple of it. Invariants: position
// independent (offsets only); nothing is allocated after create; a new list is all free; hints are exact
// after every operation; available() = number of free blocks. Not thread-safe: the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/units.h"
#include "swap/block_storage.h"

namespace enchilada {

class Blist {
 public:
  static constexpr std::uint64_t kMaxBlocks = block_storage::kMaxBlocks;
  static constexpr std::uint64_t kLeafBlocks = 64;

  /// Bytes of storage for `blocks` blocks.
  [[nodiscard]] static std::size_t required_bytes(PageCount blocks);
  /// Formats zeroed storage aligned to 64. `boundary`: 0 = none, else a power of two that no run may cross.
  [[nodiscard]] static Blist create(std::span<std::byte> storage, PageCount blocks, PageCount boundary);
  /// A view of formatted storage, at whatever address it lies in this process.
  [[nodiscard]] static Blist attach(std::span<std::byte> storage);

  Blist() = default;

  /// min..max contiguous blocks from the first place at or after the cursor that has min, else from 0; as
  /// many as are free there up to max. Empty when no run of min exists. The cursor moves behind the run.
  [[nodiscard]] BlockRun allocate(PageCount min, PageCount max);
  /// Frees a run. False, with nothing changed, when part of it was free already or is outside.
  [[nodiscard]] bool free(BlockRun run);
  /// Marks a run as allocated whatever it was; returns how many of its blocks had been free.
  PageCount fill(BlockRun run);
  /// Everything free, cursor at 0, as after create. Legal on a list that a dead process left half-changed.
  void reset();

  [[nodiscard]] bool is_free(SwapBlock block) const;
  /// Calls use(run) for all that is free, upwards; runs may touch each other.
  void for_each_free(FunctionRef<void(BlockRun)> use) const;
  [[nodiscard]] PageCount available() const;
  [[nodiscard]] PageCount size() const;
  [[nodiscard]] SwapBlock cursor() const;
  /// The next search starts at 0.
  void rewind();
  /// Longest possible allocation, exact up to 64 (64 = 64 or more).
  [[nodiscard]] PageCount largest() const;

  struct Stats {
    std::uint64_t free_runs = 0;
    std::uint64_t longest = 0;  // not clipped at boundaries
  };
  [[nodiscard]] Stats stats() const;
  /// Every hint is exact and the count is right.
  [[nodiscard]] bool verify() const;

 private:
  static constexpr unsigned kMaxLevels = 6;
  struct Header;

  explicit Blist(Header* header) : header_(header) {}
  [[nodiscard]] std::uint64_t* taken() const;
  [[nodiscard]] std::uint64_t free_bits(std::uint64_t leaf) const { return ~taken()[leaf]; }
  [[nodiscard]] std::uint8_t* lacks(unsigned level) const;
  void mark_ends();
  [[nodiscard]] std::uint64_t leaf_count() const;

  [[nodiscard]] std::uint64_t allowed_starts(std::uint64_t length) const;
  [[nodiscard]] unsigned longest_within(std::uint64_t bits) const;
  [[nodiscard]] bool crosses(std::uint64_t leaf) const;
  [[nodiscard]] unsigned exact_hint(std::uint64_t leaf) const;
  [[nodiscard]] std::uint64_t run_length(std::uint64_t at, std::uint64_t limit) const;
  [[nodiscard]] std::uint64_t search_leaf(std::uint64_t leaf, unsigned from_bit, std::uint64_t min) const;
  [[nodiscard]] std::uint64_t search_from(std::uint64_t at, std::uint64_t min) const;
  [[nodiscard]] std::uint64_t next_leaf(std::uint64_t from, unsigned need) const;
  [[nodiscard]] bool none_free(std::uint64_t first, std::uint64_t count) const;
  void refresh(std::uint64_t first_leaf, std::uint64_t last_leaf);
  void refresh_metas(std::uint64_t first_leaf, std::uint64_t last_leaf);

  Header* header_ = nullptr;
};

}  // namespace enchilada
