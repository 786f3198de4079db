// SwapMeta: for each object, which of its pages have a copy in swap, where, and with which fingerprint.
//
// A path-compressed trie of fan-out 16 per object over leaves of 16 pages (FreeBSD's pctrie of swblk): page
// index -> SwapCopy. Lazily made: the root is PagerHandle::root, null while the object has no copy. Ordered,
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

namespace enchilada {

/// 128-bit hash of a page's bytes.
struct Fingerprint {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  constexpr bool operator==(const Fingerprint&) const = default;
};

/// The swap copy of one page.
struct SwapCopy {
  SwapBlock block = kNoBlock;
  Fingerprint print{};
  [[nodiscard]] constexpr bool exists() const { return block != kNoBlock; }
  [[nodiscard]] constexpr bool on_device() const { return block.value() < (std::uint32_t{1} << 31); }
};

/// Block number of a page that is all zeros: a copy without a block.
inline constexpr SwapBlock kZeroBlock{~std::uint32_t{0} - 1};

class SwapMeta {
 public:
  /// Takes `bytes` of address space from the arena; the memory is touched only as it is used.
  SwapMeta(Arena& arena, std::size_t bytes);

  [[nodiscard]] SwapCopy get(const void* root, PageIndex index) const;
  /// Who asks for a new leaf.
  enum class Purpose : std::uint8_t { kPut, kMove };
  /// Sets a page's copy; `*old` gets what was there. False, nothing changed: no metadata left.
  [[nodiscard]] bool set(void*& root, PageIndex index, const SwapCopy& copy, Purpose purpose, SwapCopy* old);
  /// Removes a page's copy and returns it.
  SwapCopy remove(void*& root, PageIndex index);
  /// Removes the copies of [first, last] (inclusive) and calls use(index, copy) for each, in order.
  void remove_range(void*& root, PageIndex first, PageIndex last,
                    FunctionRef<void(PageIndex, const SwapCopy&)> use);
  /// Calls use(index, copy) for each copy in [first, last], in order, until it returns false.
  void visit(const void* root, PageIndex first, PageIndex last,
             FunctionRef<bool(PageIndex, const SwapCopy&)> use) const;

  [[nodiscard]] std::uint64_t leaves() const { return leaf_count_; }
  [[nodiscard]] std::uint64_t max_leaves() const { return max_leaves_; }
  /// The shape invariants of one trie, and that it has `pages` entries.
  [[nodiscard]] bool verify(const void* root, std::uint64_t pages) const;

 private:
  static constexpr unsigned kFanBits = 4;
  static constexpr unsigned kFan = 1u << kFanBits;
  static constexpr std::uint64_t kFanMask = kFan - 1;

  struct Leaf;
  struct Node;
  SwapMeta(std::byte* memory, std::size_t bytes, Arena& parent);
  static bool is_leaf(const void* p) { return (reinterpret_cast<std::uintptr_t>(p) & 1) != 0; }
  static Leaf* as_leaf(const void* p);
  static Node* as_node(const void* p);
  static void* tag(Leaf* leaf);
  static std::uint64_t key_of(const void* p);
  static bool covers(const Node& node, std::uint64_t key);

  [[nodiscard]] static Leaf* find(const void* root, std::uint64_t key);
  [[nodiscard]] static Leaf* least(const void* at, std::uint64_t from);
  [[nodiscard]] static Leaf* leftmost(const void* at);
  [[nodiscard]] Leaf* find_or_create(void*& root, std::uint64_t key, Purpose purpose);
  [[nodiscard]] Leaf* create_leaf(std::uint64_t key, Purpose purpose);
  void join(void** slot, Leaf* leaf);
  void erase(void*& root, std::uint64_t key);
  [[nodiscard]] bool verify_node(const void* at, std::uint64_t* pages) const;

  Arena memory_;
  Slab<Leaf> leaf_slab_;
  Slab<Node> node_slab_;
  std::uint64_t max_leaves_ = 0;
  std::uint64_t leaf_count_ = 0;
};

}  // namespace enchilada
