// SwapTrie. Keys are leaf numbers (page index / 16); a node of shift s tells keys apart by nibble
// s/4.
#include "swap/swap_trie.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace enchilada {

struct SwapTrie::Leaf {
  std::uint64_t key = 0;
  std::uint32_t used = 0;  // entries that exist
  std::array<SwapBlock, kFan> blocks{};
  std::array<Fingerprint, kFan> prints{};
};

struct SwapTrie::Node {
  std::uint64_t prefix = 0;  // key >> (shift + 4) of all below
  unsigned shift = 0;
  unsigned children = 0;
  std::array<void*, kFan> child{};
};

namespace {

constexpr std::size_t kChunk = 32;  // objects per slab chunk

constexpr std::size_t chunk_bytes(std::size_t object) {
  return (object * kChunk + 63) / 64 * 64;
}

std::byte* take(Arena& arena, std::size_t bytes) {
  return static_cast<std::byte*>(bytes == 0 ? nullptr : arena.reserve(bytes));
}

}  // namespace

SwapTrie::SwapTrie(Arena& arena, std::size_t bytes) : SwapTrie(take(arena, bytes), bytes, arena) {}

SwapTrie::SwapTrie(std::byte* memory, std::size_t bytes, Arena& parent)
    : memory_(memory, memory == nullptr ? 0 : bytes, &parent),
      leaf_slab_(memory_, kChunk),
      node_slab_(memory_, kChunk) {
  // Nothing else draws on memory_, so this many leaves and as many nodes are certain.
  max_leaves_ = memory_.size() / (chunk_bytes(sizeof(Leaf)) + chunk_bytes(sizeof(Node))) * kChunk;
}

SwapTrie::Leaf* SwapTrie::as_leaf(const void* p) {
  return reinterpret_cast<Leaf*>(reinterpret_cast<std::uintptr_t>(p) & ~std::uintptr_t{1});
}
SwapTrie::Node* SwapTrie::as_node(const void* p) {
  return static_cast<Node*>(const_cast<void*>(p));
}
void* SwapTrie::tag(Leaf* leaf) {
  return reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(leaf) | 1);
}

/// Some key below p: enough to see where another key leaves its path.
std::uint64_t SwapTrie::key_of(const void* p) {
  if (is_leaf(p)) return as_leaf(p)->key;
  return as_node(p)->prefix << (as_node(p)->shift + kFanBits);
}

bool SwapTrie::covers(const Node& node, std::uint64_t key) {
  return key >> (node.shift + kFanBits) == node.prefix;
}

SwapTrie::Leaf* SwapTrie::find(const void* root, std::uint64_t key) {
  const void* at = root;
  while (at != nullptr && !is_leaf(at)) {
    const Node& node = *as_node(at);
    if (!covers(node, key)) return nullptr;
    at = node.child[key >> node.shift & kFanMask];
  }
  if (at == nullptr || as_leaf(at)->key != key) return nullptr;
  return as_leaf(at);
}

SwapTrie::Leaf* SwapTrie::leftmost(const void* at) {
  while (!is_leaf(at)) {
    const Node& node = *as_node(at);
    at = *std::find_if(node.child.begin(), node.child.end(), [](void* c) { return c != nullptr; });
  }
  return as_leaf(at);
}

/// Leaf of the smallest key >= from below `at`; depth is at most 13.
SwapTrie::Leaf* SwapTrie::least(const void* at, std::uint64_t from) {
  if (at == nullptr) return nullptr;
  if (is_leaf(at)) return as_leaf(at)->key >= from ? as_leaf(at) : nullptr;
  const Node& node = *as_node(at);
  const std::uint64_t path = from >> (node.shift + kFanBits);
  if (path < node.prefix) return leftmost(at);
  if (path > node.prefix) return nullptr;
  const std::uint64_t i = from >> node.shift & kFanMask;
  if (Leaf* leaf = least(node.child[i], from)) return leaf;
  for (std::uint64_t j = i + 1; j < kFan; ++j) {
    if (node.child[j] != nullptr) return leftmost(node.child[j]);
  }
  return nullptr;
}

SwapTrie::Leaf* SwapTrie::create_leaf(std::uint64_t key, MetaPurpose purpose) {
  if (leaf_count_ >= max_leaves_ / 2) {
    count(purpose == MetaPurpose::kPut ? stats_.refused : stats_.dips);
    if (purpose == MetaPurpose::kPut || leaf_count_ >= max_leaves_) return nullptr;
  }
  Leaf* leaf = leaf_slab_.create();
  CHECK(leaf != nullptr, leaf_count_, max_leaves_);
  leaf->key = key;
  leaf->blocks.fill(kNoBlock);
  ++leaf_count_;
  return leaf;
}

/// Puts a node above *slot that holds what was there and the leaf.
void SwapTrie::join(void** slot, Leaf* leaf) {
  const std::uint64_t other = key_of(*slot);
  const auto top_bit = static_cast<unsigned>(63 - std::countl_zero(other ^ leaf->key));
  Node* node = node_slab_.create();
  CHECK(node != nullptr, leaf_count_, max_leaves_);
  node->shift = top_bit / kFanBits * kFanBits;
  node->prefix = leaf->key >> (node->shift + kFanBits);
  node->child[other >> node->shift & kFanMask] = *slot;
  node->child[leaf->key >> node->shift & kFanMask] = tag(leaf);
  node->children = 2;
  *slot = node;
}

SwapTrie::Leaf* SwapTrie::find_or_create(void*& root, std::uint64_t key, MetaPurpose purpose) {
  void** slot = &root;
  while (*slot != nullptr && !is_leaf(*slot) && covers(*as_node(*slot), key)) {
    Node& node = *as_node(*slot);
    slot = &node.child[key >> node.shift & kFanMask];
    if (*slot != nullptr) continue;
    Leaf* leaf = create_leaf(key, purpose);
    if (leaf == nullptr) return nullptr;
    *slot = tag(leaf);
    ++node.children;
    return leaf;
  }
  if (*slot != nullptr && is_leaf(*slot) && as_leaf(*slot)->key == key) return as_leaf(*slot);
  Leaf* leaf = create_leaf(key, purpose);
  if (leaf == nullptr) return nullptr;
  if (*slot == nullptr) {
    *slot = tag(leaf);
  } else {
    join(slot, leaf);
  }
  return leaf;
}

/// Takes an (empty) leaf out; a node left with one child gives its place to it.
void SwapTrie::erase(void*& root, std::uint64_t key) {
  void** above = nullptr;
  void** slot = &root;
  while (!is_leaf(*slot)) {
    above = slot;
    slot = &as_node(*slot)->child[key >> as_node(*slot)->shift & kFanMask];
  }
  Leaf* leaf = as_leaf(*slot);
  CHECK(leaf->key == key && leaf->used == 0, key, leaf->key);
  *slot = nullptr;
  leaf_slab_.destroy(leaf);
  --leaf_count_;
  if (above == nullptr) return;
  Node* node = as_node(*above);
  if (--node->children > 1) return;
  *above = *std::find_if(node->child.begin(), node->child.end(), [](void* c) { return c != nullptr; });
  node_slab_.destroy(node);
}

SwapCopy SwapTrie::get(const PagerHandle& handle, PageIndex index) const {
  const Leaf* leaf = find(handle.root, index.value() >> kFanBits);
  if (leaf == nullptr) return {};
  const std::uint64_t i = index.value() & kFanMask;
  return {leaf->blocks[i], leaf->prints[i]};
}

bool SwapTrie::set(PagerHandle& handle, PageIndex index, const SwapCopy& copy, MetaPurpose purpose,
                   SwapCopy* old) {
  Leaf* leaf = find_or_create(handle.root, index.value() >> kFanBits, purpose);
  if (leaf == nullptr) return false;
  const std::uint64_t i = index.value() & kFanMask;
  *old = {leaf->blocks[i], leaf->prints[i]};
  if (!old->exists()) ++leaf->used;
  leaf->blocks[i] = copy.block;
  leaf->prints[i] = copy.print;
  return true;
}

void SwapTrie::remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                            FunctionRef<void(PageIndex, const SwapCopy&)> use) {
  void*& root = handle.root;
  const std::uint64_t last_key = last.value() >> kFanBits;
  for (std::uint64_t key = first.value() >> kFanBits; first <= last;) {
    Leaf* leaf = least(root, key);
    if (leaf == nullptr || leaf->key > last_key) return;
    key = leaf->key;
    const std::uint64_t base = key << kFanBits;
    const std::uint64_t from = std::max(first.value(), base) - base;
    const std::uint64_t to = std::min(last.value() - base, kFanMask);
    std::array<SwapCopy, kFan> gone{};
    for (std::uint64_t i = from; i <= to; ++i) {
      gone[i] = {leaf->blocks[i], leaf->prints[i]};
      if (gone[i].exists()) --leaf->used;
      leaf->blocks[i] = kNoBlock;
    }
    // Out of the trie before the caller hears of it: a move needs the leaf's memory for its destination.
    if (leaf->used == 0) erase(root, key);
    for (std::uint64_t i = from; i <= to; ++i) {
      if (gone[i].exists()) use(PageIndex{base + i}, gone[i]);
    }
    ++key;
  }
}

void SwapTrie::visit(const PagerHandle& handle, PageIndex first, PageIndex last,
                     FunctionRef<bool(PageIndex, const SwapCopy&)> use) const {
  const std::uint64_t last_key = last.value() >> kFanBits;
  for (std::uint64_t key = first.value() >> kFanBits; first <= last;) {
    const Leaf* leaf = least(handle.root, key);
    if (leaf == nullptr || leaf->key > last_key) return;
    const std::uint64_t base = leaf->key << kFanBits;
    for (std::uint64_t i = 0; i < kFan; ++i) {
      const PageIndex index{base + i};
      if (index < first || index > last || leaf->blocks[i] == kNoBlock) continue;
      if (!use(index, {leaf->blocks[i], leaf->prints[i]})) return;
    }
    key = leaf->key + 1;
  }
}

bool SwapTrie::verify_node(const void* at, std::uint64_t* pages) const {
  if (is_leaf(at)) {
    const Leaf& leaf = *as_leaf(at);
    const auto used =
        std::count_if(leaf.blocks.begin(), leaf.blocks.end(), [](SwapBlock b) { return b != kNoBlock; });
    *pages += leaf.used;
    return leaf.used > 0 && static_cast<std::uint64_t>(used) == leaf.used;
  }
  const Node& node = *as_node(at);
  unsigned children = 0;
  for (std::uint64_t i = 0; i < kFan; ++i) {
    if (node.child[i] == nullptr) continue;
    ++children;
    const std::uint64_t key = key_of(node.child[i]);
    if (!covers(node, key) || (key >> node.shift & kFanMask) != i || !verify_node(node.child[i], pages))
      return false;
  }
  return children >= 2 && children == node.children;
}

bool SwapTrie::verify(const PagerHandle& handle, std::uint64_t pages) const {
  std::uint64_t seen = 0;
  return (handle.root == nullptr || verify_node(handle.root, &seen)) && seen == pages;
}

}  // namespace enchilada
