// SwapHash: swap metadata as the article has them: one hash table for all objects.
//
// FreeBSD 4.x (swap_pager.c, 1999): about an eighth as many buckets as entries, a power of two; an entry has
// the blocks of 16 pages of one object and hangs in bucket (object address XOR index rounded down to 16) AND
// mask; entries come from a zone that is set aside when the system starts; an entry without blocks is freed.
// (The low four bits of the key come from the object alone, and objects are aligned: only a sixteenth of the
// buckets is used, or fewer. It was so, and stays so.) An entry may be any power of two of pages, SwapArray3x
// uses single ones. A handle's root is the number of its object's entries, marked with a set lowest bit.
// Invariants: every entry has at least one block; the zone's second half is for moves, which must not fail.
// There is no order in a hash: what comes next in an object is found by asking for one index after the other,
// and, after as many failures as there are buckets, by a walk over all. Not thread-safe but for reading.
#pragma once

#include <array>
#include <cstdint>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/units.h"
#include "swap/swap_copy.h"
#include "vm/vm_pager.h"

namespace enchilada {

template <unsigned kPagesBits>
class BasicSwapHash {
 public:
  /// Takes `bytes` of address space from the arena.
  BasicSwapHash(Arena& arena, std::size_t bytes);

  // As SwapMetaStore says (swap_meta.h).
  [[nodiscard]] SwapCopy get(const PagerHandle& handle, PageIndex index) const;
  [[nodiscard]] bool set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                         SwapCopy* old);
  void remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                    FunctionRef<void(PageIndex, const SwapCopy&)> use);
  void visit(const PagerHandle& handle, PageIndex first, PageIndex last,
             FunctionRef<bool(PageIndex, const SwapCopy&)> use) const;
  [[nodiscard]] std::uint64_t entries() const { return entry_count_; }
  [[nodiscard]] std::uint64_t max_entries() const { return max_entries_; }
  [[nodiscard]] const SwapMetaStats& stats() const { return stats_; }
  [[nodiscard]] bool verify(const PagerHandle& handle, std::uint64_t pages) const;

  [[nodiscard]] std::uint64_t buckets() const { return bucket_mask_ + 1; }
  /// Entries in the fullest bucket. For tests.
  [[nodiscard]] std::uint64_t longest_chain() const;

  // The same for whoever keeps the count of an object's entries elsewhere than in its handle.
  [[nodiscard]] SwapCopy get(const void* object, const void* root, PageIndex index) const;
  [[nodiscard]] bool set(const void* object, void*& root, PageIndex index, const SwapCopy& copy,
                         MetaPurpose purpose, SwapCopy* old);
  SwapCopy remove(const void* object, void*& root, PageIndex index);
  /// The first copy in [first, last]. False: there is none.
  [[nodiscard]] bool next(const void* object, const void* root, PageIndex first, PageIndex last,
                          PageIndex* index, SwapCopy* copy) const;
  /// Is it a root of ours, or null?
  [[nodiscard]] static bool is_root(const void* root) {
    return root == nullptr || (reinterpret_cast<std::uintptr_t>(root) & 1) != 0;
  }

 private:
  static constexpr std::uint64_t kPages = std::uint64_t{1} << kPagesBits;
  static constexpr std::uint64_t kPagesMask = kPages - 1;
  struct Entry;

  BasicSwapHash(std::byte* memory, std::size_t bytes, Arena& parent);
  [[nodiscard]] static std::uint64_t count_in(const void* root) {
    return reinterpret_cast<std::uintptr_t>(root) >> 1;
  }
  static void set_count(void*& root, std::uint64_t count) {
    root = count == 0 ? nullptr : reinterpret_cast<void*>(count << 1 | 1);
  }
  [[nodiscard]] Entry** bucket_of(const void* object, std::uint64_t key) const;
  [[nodiscard]] Entry* find(const void* object, const void* root, std::uint64_t key) const;
  [[nodiscard]] Entry* find_next(const void* object, const void* root, std::uint64_t from,
                                 std::uint64_t last) const;
  [[nodiscard]] Entry* least_of_all(const void* object, std::uint64_t from, std::uint64_t last) const;
  [[nodiscard]] Entry* create(const void* object, void*& root, std::uint64_t key, MetaPurpose purpose);
  void destroy(Entry* entry, void*& root);

  Arena memory_;
  Slab<Entry> zone_;
  Entry** buckets_ = nullptr;
  std::uint64_t bucket_mask_ = 0;
  std::uint64_t max_entries_ = 0;
  std::uint64_t entry_count_ = 0;
  mutable SwapMetaStats stats_{};
};

extern template class BasicSwapHash<0>;
extern template class BasicSwapHash<4>;

using SwapHash = BasicSwapHash<4>;

}  // namespace enchilada
