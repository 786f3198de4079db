// Blist1999: the bitmap of swap blocks of the article, as it went into FreeBSD 4.0 (Dillon, subr_blist.c,
// 1999).
//
// Leaves of 32 bits, 16-way metas, nodes of 8 bytes in one array in depth-first order: a meta is followed by
// its children's subtrees, so a child's place is a multiplication. About 2 bits a block. A leaf is {bitmap,
// hint}, a meta {number of free blocks below, hint}; a hint is an upper bound of what can be allocated in one
// piece below, lowered by failures, raised by frees. A meta with none free, or all, says so for its whole
// subtree: the nodes below are stale then, and are written only when somebody goes down there again. An end
// mark follows the last child of a meta that is only partly there.
// What it cannot do, and `Blist` can: a run never leaves its leaf (so it has at most 32 blocks, and a stripe
// of 32 needs no rule of its own); it gives exactly what was asked for, not what is there; and it searches
// from the start each time (the article's "it might be an idea" of a cursor came later).
// Added to it: the check that a block was not free already answers instead of panicking; fill() (it came in
// 2002, with swapoff); boundaries shorter than a leaf. Position independent; nothing is allocated after
// create; not thread-safe: the owner locks. docs/mechanisms/swap-allocators.md compares the allocators.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/units.h"
#include "swap/block_storage.h"

namespace enchilada {

class Blist1999 {
 public:
  static constexpr std::uint64_t kMaxBlocks = block_storage::kMaxBlocks;
  static constexpr std::uint64_t kLeafBlocks = 32;

  [[nodiscard]] static std::size_t required_bytes(PageCount blocks);
  /// Formats storage aligned to 64; everything is free. `boundary` as in Blist.
  [[nodiscard]] static Blist1999 create(std::span<std::byte> storage, PageCount blocks, PageCount boundary);
  [[nodiscard]] static Blist1999 attach(std::span<std::byte> storage);

  Blist1999() = default;

  /// The first `min` contiguous blocks in one leaf, from 0 on; never more. Empty when there are none.
  [[nodiscard]] BlockRun allocate(PageCount min, PageCount max);
  /// Frees a run. False, with nothing changed, when part of it was free already or is outside.
  [[nodiscard]] bool free(BlockRun run);
  /// Marks a run as allocated whatever it was; returns how many of its blocks had been free.
  PageCount fill(BlockRun run);
  /// Everything free, as after create. Legal on a list that a dead process left half-changed.
  void reset();

  [[nodiscard]] bool is_free(SwapBlock block) const;
  /// Calls use(run) for all that is free, upwards; runs may touch each other.
  void for_each_free(FunctionRef<void(BlockRun)> use) const;
  [[nodiscard]] PageCount available() const;
  [[nodiscard]] PageCount size() const;
  /// Where the next search starts: always at 0.
  [[nodiscard]] SwapBlock cursor() const { return SwapBlock{0}; }
  void rewind() {}
  /// No allocation is longer than this; it may be shorter.
  [[nodiscard]] PageCount largest() const;
  /// Counts are right, and no hint is too low.
  [[nodiscard]] bool verify() const;

 private:
  struct Header;
  struct Node {
    std::uint32_t free;  // leaf: a bit for each block, 1 = free; meta: how many
    std::uint32_t hint;  // nothing longer can be allocated below; kEnd: no node
  };
  /// A node, and what it stands for.
  struct Place {
    Node* node;
    std::uint64_t first;  // block
    unsigned level;       // 0 = leaf
  };
  static constexpr std::uint32_t kEnd = ~std::uint32_t{0};
  struct Audit;

  explicit Blist1999(Header* header) : header_(header) {}
  [[nodiscard]] Place root() const;
  [[nodiscard]] static Place child(Place parent, unsigned i);
  template <class Use>
  static void for_each_child(Place parent, Use use);
  template <class Use>
  static void for_each_part(Place parent, std::uint64_t first, std::uint64_t count, Use use);
  [[nodiscard]] static Node all_free(unsigned level);
  static void freshen_children(Place parent);
  static void format(Place place, std::uint64_t blocks);

  [[nodiscard]] std::uint64_t take(Place place, std::uint32_t n);
  [[nodiscard]] std::uint64_t take_in_leaf(Place leaf, std::uint32_t n);
  [[nodiscard]] static bool none_free(Place place, std::uint64_t first, std::uint64_t count);
  static void visit_free(Place place, FunctionRef<void(BlockRun)> use);
  [[nodiscard]] static bool put(Place place, std::uint64_t first, std::uint64_t count);
  static std::uint64_t fill(Place place, std::uint64_t first, std::uint64_t count);
  [[nodiscard]] Audit audit(Place place) const;
  [[nodiscard]] std::uint32_t longest_in(std::uint32_t bits) const;

  Header* header_ = nullptr;
};

}  // namespace enchilada
