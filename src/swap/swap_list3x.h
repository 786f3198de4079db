// SwapList3x: the linear list of free regions with which FreeBSD 3.x kept track of swap (kern/subr_rlist.c).
//
// It exists to be measured against: everything here is O(holes), and fragmentation makes holes. A region is a
// node {first, count, next}, in ascending order, never touching the next. Allocation is first fit and exact;
// a free walks to its place and merges with its neighbours, or needs a node for a hole of its own: **memory
// while freeing**, which 3.x took from the kernel, also when the page daemon was freeing because there was
// none left (the article, section 3: "creates low memory deadlock problems"; 3.x waited, or panicked).
// Here nodes come from a pool in the list's storage, and what happens when it has none left is defined: the
// blocks are **lost**, neither free nor anybody's, until the owner, who knows what is in use, makes the list
// anew (SwapSpace does, once nothing else is left). Cutting a piece out of the middle of a hole needs a node
// too and loses the shorter remainder instead. nodeless() says how often; how many blocks are lost only the
// owner can say, who knows how many are in use.
// Invariants: a block in a hole is free; position independent (indexes); nothing is allocated after create.
// Not thread-safe: the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/units.h"
#include "swap/block_storage.h"

namespace enchilada {

class SwapList3x {
 public:
  static constexpr std::uint64_t kMaxBlocks = block_storage::kMaxBlocks;

  /// With a node for 16 blocks: enough for holes of a cluster each, not for holes of single pages.
  [[nodiscard]] static std::size_t required_bytes(PageCount blocks);
  /// With just so many nodes.
  [[nodiscard]] static std::size_t bytes_with_nodes(std::uint64_t nodes);
  /// Formats storage aligned to 64; everything is free. All of the storage becomes nodes. `boundary` as in
  /// Blist.
  [[nodiscard]] static SwapList3x create(std::span<std::byte> storage, PageCount blocks, PageCount boundary);
  [[nodiscard]] static SwapList3x attach(std::span<std::byte> storage);

  SwapList3x() = default;

  /// The first `min` contiguous blocks from 0 on; never more. Empty when there are none.
  [[nodiscard]] BlockRun allocate(PageCount min, PageCount max);
  /// Frees a run. False, with nothing changed, when part of it was free already or is outside. True also when
  /// the run is lost for want of a node.
  [[nodiscard]] bool free(BlockRun run);
  /// Marks a run as allocated whatever it was; returns how many of its blocks had been free.
  PageCount fill(BlockRun run);
  /// Everything free, nothing lost, as after create. Legal on a list that a dead process left half-changed.
  void reset();

  [[nodiscard]] bool is_free(SwapBlock block) const;
  /// Calls use(run) for all that is free, upwards; runs may touch each other.
  void for_each_free(FunctionRef<void(BlockRun)> use) const;
  [[nodiscard]] PageCount available() const;
  [[nodiscard]] PageCount size() const;
  /// Where the next search starts: always at 0.
  [[nodiscard]] SwapBlock cursor() const { return SwapBlock{0}; }
  void rewind() {}
  /// No allocation is longer than this; the list knows no better than how much is free in all.
  [[nodiscard]] PageCount largest() const;
  /// Times that a node was needed and there was none, since create.
  [[nodiscard]] std::uint64_t nodeless() const;
  [[nodiscard]] std::uint64_t free_nodes() const;
  /// Order, distances and counts are right.
  [[nodiscard]] bool verify() const;

 private:
  struct Header;
  struct Node {
    std::uint32_t first;
    std::uint32_t count;
    std::uint32_t next;
    [[nodiscard]] std::uint64_t end() const { return std::uint64_t{first} + count; }
  };
  static constexpr std::uint32_t kNil = ~std::uint32_t{0};

  explicit SwapList3x(Header* header) : header_(header) {}
  [[nodiscard]] Node& node(std::uint32_t index) const;
  [[nodiscard]] std::uint32_t* reach(std::uint64_t block) const;
  [[nodiscard]] bool insert(std::uint32_t* link, std::uint64_t first, std::uint64_t count);
  void remove(std::uint32_t* link);
  void cut(std::uint32_t* link, std::uint64_t first, std::uint64_t count);

  Header* header_ = nullptr;
};

}  // namespace enchilada
