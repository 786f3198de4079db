// SwapArray3x: swap metadata as before the article: an array for the whole object, made when its first page
// goes to swap.
//
// FreeBSD 3.x (swap_pager.c): the first page-out of an object allocates entries for all of its pages, from
// the kernel's memory, in the page daemon, which runs because there is no memory: it waits for itself, or for
// a piece of the kernel's map that is not to be had. Here the arrays come from a pool beside everything else,
// which ends just the same: then a page-out is refused, as an error and not as a hang. An array reaches from
// 0 to the highest page that went to swap (a power of two: a handle does not know its object's size), so one
// page far out needs it all, and a larger one needs both old and new while it is copied. Invariants: a page's
// copy is in the array or in the table, never in both. A move must not fail, where 3.x waited: what finds no
// room then goes to a table of single pages, set aside for that (stats().dips), which has room for every page
// that was ever let in. Roots: an Array, or the table's. Not thread-safe but for reading.
#pragma once

#include <cstdint>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/units.h"
#include "swap/blist.h"
#include "swap/swap_copy.h"
#include "swap/swap_hash.h"
#include "vm/vm_pager.h"

namespace enchilada {

class SwapArray3x {
 public:
  /// Takes `bytes` of address space from the arena.
  SwapArray3x(Arena& arena, std::size_t bytes);

  // As SwapMetaStore says (swap_meta.h).
  [[nodiscard]] SwapCopy get(const PagerHandle& handle, PageIndex index) const;
  [[nodiscard]] bool set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                         SwapCopy* old);
  void remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                    FunctionRef<void(PageIndex, const SwapCopy&)> use);
  void visit(const PagerHandle& handle, PageIndex first, PageIndex last,
             FunctionRef<bool(PageIndex, const SwapCopy&)> use) const;
  /// Units of the pool (512 bytes each).
  [[nodiscard]] std::uint64_t entries() const { return max_entries_ - pool_.available().value(); }
  [[nodiscard]] std::uint64_t max_entries() const { return max_entries_; }
  [[nodiscard]] const SwapMetaStats& stats() const { return stats_; }
  [[nodiscard]] bool verify(const PagerHandle& handle, std::uint64_t pages) const;

  /// Pages that have a copy, all objects together, and how many may have one.
  [[nodiscard]] std::uint64_t pages() const { return pages_; }
  [[nodiscard]] std::uint64_t max_pages() const { return aside_.max_entries(); }

 private:
  static constexpr std::size_t kUnit = 512;
  struct Array;

  [[nodiscard]] static Array* array_of(const PagerHandle& handle);
  [[nodiscard]] static const void* aside_root(const PagerHandle& handle);
  [[nodiscard]] static void*& aside_root(PagerHandle& handle);
  [[nodiscard]] Array* make_array(PagerHandle& handle, std::uint64_t pages);
  void free_array(PagerHandle& handle);
  [[nodiscard]] static std::uint64_t units_for(std::uint64_t pages);
  [[nodiscard]] SwapCopy remove_one(PagerHandle& handle, PageIndex index);
  [[nodiscard]] bool next(const PagerHandle& handle, PageIndex first, PageIndex last, PageIndex* index,
                          SwapCopy* copy) const;

  std::byte* pool_memory_ = nullptr;
  Arena* arena_;
  Blist pool_;
  std::uint64_t max_entries_ = 0;
  BasicSwapHash<0> aside_;
  std::uint64_t pages_ = 0;
  SwapMetaStats stats_{};
};

}  // namespace enchilada
