// SwapAllocator: the seam between SwapSpace and the allocators of swap blocks.
//
// An allocator is a class that formats a piece of shared storage and whose objects are one process's view of
// it; BlockAllocator says what it must offer. Which one a space uses is decided when the space is made
// (SwapAllocatorMode); this class holds a view of that one and passes calls on.
// It is a variant, not a base class: a view is a value (SwapSpace is copied, and lives where nothing may be
// allocated), the number of allocators is closed, and the default one stays a direct call that the compiler
// sees through. No pointer to code ever lies in the storage.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "base/function_ref.h"
#include "base/units.h"
#include "swap/blist.h"
#include "swap/blist1999.h"
#include "swap/swap_list3x.h"
#include "vm/vm_modes.h"

namespace enchilada {

/// What an allocator of blocks is. Storage is aligned to 64 and zeroed; a new list is all free; a boundary (0
/// or a power of two) is never crossed by a run; reset() makes everything free whatever state the storage is
/// in, since a process may be killed between any two stores.
template <class A>
concept BlockAllocator = std::copyable<A> && std::default_initializable<A> &&
    requires(A list, const A seen, std::span<std::byte> storage, PageCount n, BlockRun run, SwapBlock block,
             FunctionRef<void(BlockRun)> use) {
  { A::kMaxBlocks } -> std::convertible_to<std::uint64_t>;
  { A::required_bytes(n) } -> std::same_as<std::size_t>;
  { A::create(storage, n, n) } -> std::same_as<A>;
  { A::attach(storage) } -> std::same_as<A>;
  // min to max blocks, empty when the allocator finds no run of min.
  { list.allocate(n, n) } -> std::same_as<BlockRun>;
  // False, with nothing changed, when not all of the run was allocated.
  { list.free(run) } -> std::same_as<bool>;
  { list.fill(run) } -> std::same_as<PageCount>;
  { list.reset() } -> std::same_as<void>;
  { list.rewind() } -> std::same_as<void>;
  // Where the next search starts; 0 for those that always start there.
  { seen.cursor() } -> std::same_as<SwapBlock>;
  // No allocation is longer, unless the answer is Blist::kLeafBlocks or more.
  { seen.largest() } -> std::same_as<PageCount>;
  { seen.is_free(block) } -> std::same_as<bool>;
  // All that is free, upwards, in runs that may touch each other. For validation and reports: not on the way
  // of an allocation.
  { seen.for_each_free(use) } -> std::same_as<void>;
  { seen.available() } -> std::same_as<PageCount>;
  { seen.verify() } -> std::same_as<bool>;
};

/// One that may lose track of blocks, and counts how often it did. It does not know which: the owner's
/// reset() and fill() find them again.
template <class A>
concept LossyAllocator = BlockAllocator<A> && requires(const A seen) {
  { seen.nodeless() } -> std::same_as<std::uint64_t>;
};

/// As long a run as the allocator finds, up to `max`: as long as its hint says, then half and half again, as
/// the swap pager of FreeBSD 4.x asked.
template <BlockAllocator A>
[[nodiscard]] BlockRun allocate_longest(A& list, PageCount max) {
  std::uint64_t min = std::min(max.value(), list.largest().value());
  // From there on a hint says only "so much or more".
  if (min == Blist::kLeafBlocks) min = max.value();
  BlockRun run;
  while (min > 0 && run.empty()) {
    run = list.allocate(PageCount{min}, max);
    min = min > Blist::kLeafBlocks ? std::max(min / 2, Blist::kLeafBlocks) : min / 2;
  }
  return run;
}

class SwapAllocator {
 public:
  [[nodiscard]] static std::size_t required_bytes(SwapAllocatorMode mode, PageCount blocks);
  [[nodiscard]] static SwapAllocator create(SwapAllocatorMode mode, std::span<std::byte> storage,
                                            PageCount blocks, PageCount boundary);
  [[nodiscard]] static SwapAllocator attach(SwapAllocatorMode mode, std::span<std::byte> storage);

  SwapAllocator() = default;

  [[nodiscard]] BlockRun allocate_longest(PageCount max) {
    return std::visit([max](auto& list) { return enchilada::allocate_longest(list, max); }, list_);
  }
  [[nodiscard]] bool free(BlockRun run) {
    return std::visit([run](auto& list) { return list.free(run); }, list_);
  }
  PageCount fill(BlockRun run) {
    return std::visit([run](auto& list) { return list.fill(run); }, list_);
  }
  void reset() {
    std::visit([](auto& list) { list.reset(); }, list_);
  }
  void rewind() {
    std::visit([](auto& list) { list.rewind(); }, list_);
  }
  [[nodiscard]] SwapBlock cursor() const {
    return std::visit([](const auto& list) { return list.cursor(); }, list_);
  }
  void for_each_free(FunctionRef<void(BlockRun)> use) const {
    std::visit([use](const auto& list) { list.for_each_free(use); }, list_);
  }
  [[nodiscard]] PageCount available() const {
    return std::visit([](const auto& list) { return list.available(); }, list_);
  }
  [[nodiscard]] bool verify() const {
    return std::visit([](const auto& list) { return list.verify(); }, list_);
  }
  /// Of a LossyAllocator; zero for the others.
  [[nodiscard]] std::uint64_t nodeless() const {
    return std::visit(
        []<class A>(const A& list) {
          if constexpr (LossyAllocator<A>) return list.nodeless();
          return std::uint64_t{0};
        },
        list_);
  }

 private:
  std::variant<Blist, Blist1999, SwapList3x> list_;
};

}  // namespace enchilada
