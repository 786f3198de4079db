// SwapTrie: swap metadata as FreeBSD has them today, a trie for each object.
//
// A path-compressed trie of fan-out 16 over leaves of 16 pages (FreeBSD's pctrie of swblk): page index ->
// SwapCopy. Lazily made: the root is PagerHandle::root, null while the object has no copy. Ordered,
// so that find_least and ranges are cheap. Invariants: every leaf has at least one entry; every node has at
// least two children, so a trie of L leaves has at most L-1 nodes, and memory for as many nodes as leaves is
// set aside: making a node never fails once a leaf could be made; put may use only half of the leaves, the
// other half is for moves (transfer, split), which must not fail and need at most two leaves for one. Not
// thread-safe: the pager's lock guards it. Never calls malloc.
#pragma once

#include <array>
#include <cstdint>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/units.h"
#include "swap/swap_copy.h"
#include "vm/vm_pager.h"

namespace enchilada {

class SwapTrie {
 public:
  /// Takes `bytes` of address space from the arena; the memory is touched only as it is used.
  SwapTrie(Arena& arena, std::size_t bytes);

  // As SwapMetaStore says (swap_meta.h).
  [[nodiscard]] SwapCopy get(const PagerHandle& handle, PageIndex index) const;
  [[nodiscard]] bool set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                         SwapCopy* old);
  void remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                    FunctionRef<void(PageIndex, const SwapCopy&)> use);
  void visit(const PagerHandle& handle, PageIndex first, PageIndex last,
             FunctionRef<bool(PageIndex, const SwapCopy&)> use) const;
  /// Leaves.
  [[nodiscard]] std::uint64_t entries() const { return leaf_count_; }
  [[nodiscard]] std::uint64_t max_entries() const { return max_leaves_; }
  [[nodiscard]] const SwapMetaStats& stats() const { return stats_; }
  [[nodiscard]] bool verify(const PagerHandle& handle, std::uint64_t pages) const;

 private:
  static constexpr unsigned kFanBits = 4;
  static constexpr unsigned kFan = 1u << kFanBits;
  static constexpr std::uint64_t kFanMask = kFan - 1;

  struct Leaf;
  struct Node;
  SwapTrie(std::byte* memory, std::size_t bytes, Arena& parent);
  static bool is_leaf(const void* p) { return (reinterpret_cast<std::uintptr_t>(p) & 1) != 0; }
  static Leaf* as_leaf(const void* p);
  static Node* as_node(const void* p);
  static void* tag(Leaf* leaf);
  static std::uint64_t key_of(const void* p);
  static bool covers(const Node& node, std::uint64_t key);

  [[nodiscard]] static Leaf* find(const void* root, std::uint64_t key);
  [[nodiscard]] static Leaf* least(const void* at, std::uint64_t from);
  [[nodiscard]] static Leaf* leftmost(const void* at);
  [[nodiscard]] Leaf* find_or_create(void*& root, std::uint64_t key, MetaPurpose purpose);
  [[nodiscard]] Leaf* create_leaf(std::uint64_t key, MetaPurpose purpose);
  void join(void** slot, Leaf* leaf);
  void erase(void*& root, std::uint64_t key);
  [[nodiscard]] bool verify_node(const void* at, std::uint64_t* pages) const;

  Arena memory_;
  Slab<Leaf> leaf_slab_;
  Slab<Node> node_slab_;
  std::uint64_t max_leaves_ = 0;
  std::uint64_t leaf_count_ = 0;
  SwapMetaStats stats_{};
};

}  // namespace enchilada
