// VmRadix: the pages of one object by index. A radix trie with 64 slots a node and only as many levels as the
// largest index needs (FreeBSD's vm_radix is path-compressed; here the height adapts, which for dense objects
// is smaller).
//
// Invariants: no node is empty; a bit of a node's bitmap is set exactly when the slot is used, and an unused
// slot holds null or kNoFrame; count() is the
// number of pages. Leaves hold frame numbers (4 bytes a page). Lock: the object's (shared to look, exclusive
// to change). Nodes come from slabs in the arena; insert() is the only thing that can fail, and changes
// nothing then.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "base/arena.h"
#include "vm/vm_types.h"

namespace enchilada {

// Unused slots say so themselves, so that a lookup touches one cache line a level.
struct VmRadixLeaf {
  VmRadixLeaf() { frames.fill(kNoFrame.value()); }
  alignas(64) std::array<std::uint32_t, 64> frames;
  std::uint64_t used = 0;
};
struct VmRadixInner {
  alignas(64) std::array<void*, 64> children{};
  std::uint64_t used = 0;
};

/// Where the nodes of all objects come from.
struct VmRadixPool {
  explicit VmRadixPool(Arena& arena) : leaves(arena, 64), inners(arena, 16) {}
  /// Sets nodes aside so that a fault under pressure finds some even when the arena has just been used up.
  [[nodiscard]] bool reserve() { return leaves.reserve(64) && inners.reserve(32); }
  Slab<VmRadixLeaf> leaves;
  Slab<VmRadixInner> inners;
};

class VmRadix {
 public:
  struct Item {
    PageIndex index;
    FrameNumber frame;
  };

  [[nodiscard]] std::uint64_t count() const { return count_; }

  /// The frame at `index`, or kNoFrame.
  [[nodiscard]] FrameNumber find(PageIndex index) const {
    if (!covers(index)) return kNoFrame;
    const void* node = root_;
    for (unsigned level = levels_; level > 1; --level) {
      node = static_cast<const VmRadixInner*>(node)->children[slot_of(index, level)];
      if (node == nullptr) return kNoFrame;
    }
    return FrameNumber{static_cast<const VmRadixLeaf*>(node)->frames[slot_of(index, 1)]};
  }

  /// Puts a frame at an empty index. False: no node to be had, nothing changed.
  [[nodiscard]] bool insert(VmRadixPool& pool, PageIndex index, FrameNumber frame) {
    CHECK(index.value() < kEnd);
    if (!grow_to(pool, index)) return false;
    Path path;
    VmRadixLeaf* leaf = descend_making(pool, index, path);
    if (leaf == nullptr) {
      prune(pool, path, index);
      return false;
    }
    const unsigned slot = slot_of(index, 1);
    CHECK((leaf->used >> slot & 1) == 0, index.value());
    leaf->used |= std::uint64_t{1} << slot;
    leaf->frames[slot] = frame.value();
    ++count_;
    return true;
  }

  /// Takes the frame at `index` out; kNoFrame when there is none.
  FrameNumber remove(VmRadixPool& pool, PageIndex index) {
    if (!covers(index)) return kNoFrame;
    Path path;
    VmRadixLeaf* leaf = descend(index, path);
    const unsigned slot = slot_of(index, 1);
    if (leaf == nullptr || (leaf->used >> slot & 1) == 0) return kNoFrame;
    const FrameNumber frame{leaf->frames[slot]};
    leaf->used &= ~(std::uint64_t{1} << slot);
    leaf->frames[slot] = kNoFrame.value();
    --count_;
    if (leaf->used == 0) prune(pool, path, index);
    return frame;
  }

  /// The page with the smallest index >= from; false when there is none.
  [[nodiscard]] bool find_least(PageIndex from, Item* found) const {
    std::uint64_t at = from.value();
    while (levels_ != 0 && (at >> (levels_ * kBits)) == 0) {
      const Probe probe = probe_from(at);
      if (probe.hit) {
        *found = probe.item;
        return true;
      }
      at = probe.next;
    }
    return false;
  }

 private:
  static constexpr unsigned kBits = 6;
  static constexpr unsigned kMaxLevels = 8;
  static constexpr std::uint64_t kEnd = std::uint64_t{1} << (kBits * kMaxLevels);
  struct Path {
    std::array<VmRadixInner*, kMaxLevels + 1> inner{};  // [level]: the inner node passed at that level
    VmRadixLeaf* leaf = nullptr;
    unsigned lowest = 0;  // lowest level reached; 1 = the leaf
  };
  struct Probe {
    bool hit;
    Item item;
    std::uint64_t next;  // where to go on when there was no hit
  };

  static unsigned slot_of(PageIndex index, unsigned level) {
    return static_cast<unsigned>(index.value() >> (kBits * (level - 1))) & 63;
  }
  [[nodiscard]] bool covers(PageIndex index) const {
    return levels_ != 0 && (index.value() >> (levels_ * kBits)) == 0;
  }

  bool grow_to(VmRadixPool& pool, PageIndex index) {
    unsigned need = 1;
    while ((index.value() >> (need * kBits)) != 0) ++need;
    if (levels_ == 0) {
      void* node = need == 1 ? static_cast<void*>(pool.leaves.create()) : pool.inners.create();
      if (node == nullptr) return false;
      root_ = node;
      levels_ = need;
      return true;
    }
    while (levels_ < need) {
      VmRadixInner* above = pool.inners.create();
      if (above == nullptr) return false;  // a taller trie with one child is still a right one
      above->used = 1;
      above->children[0] = root_;
      root_ = above;
      ++levels_;
    }
    return true;
  }

  VmRadixLeaf* descend(PageIndex index, Path& path) const {
    void* node = root_;
    for (unsigned level = levels_; level > 1; --level) {
      auto* inner = static_cast<VmRadixInner*>(node);
      path.inner[level] = inner;
      path.lowest = level;
      const unsigned slot = slot_of(index, level);
      if ((inner->used >> slot & 1) == 0) return nullptr;
      node = inner->children[slot];
    }
    path.lowest = 1;
    path.leaf = static_cast<VmRadixLeaf*>(node);
    return path.leaf;
  }

  VmRadixLeaf* descend_making(VmRadixPool& pool, PageIndex index, Path& path) {
    while (descend(index, path) == nullptr) {
      VmRadixInner* above = path.inner[path.lowest];
      void* node = path.lowest == 2 ? static_cast<void*>(pool.leaves.create()) : pool.inners.create();
      if (node == nullptr) return nullptr;
      const unsigned slot = slot_of(index, path.lowest);
      above->children[slot] = node;
      above->used |= std::uint64_t{1} << slot;
    }
    return path.leaf;
  }

  /// Frees the empty nodes at the end of a path, upwards, and takes off levels that are not needed any more.
  void prune(VmRadixPool& pool, const Path& path, PageIndex index) {
    for (unsigned level = path.lowest; level >= 1 && levels_ != 0; ++level) {
      if (level == 1) {
        if (path.leaf == nullptr || path.leaf->used != 0) break;
        pool.leaves.destroy(path.leaf);
      } else {
        if (path.inner[level]->used != 0) break;
        pool.inners.destroy(path.inner[level]);
      }
      if (level == levels_) {
        root_ = nullptr;
        levels_ = 0;
        return;
      }
      const unsigned slot = slot_of(index, level + 1);
      path.inner[level + 1]->used &= ~(std::uint64_t{1} << slot);
      path.inner[level + 1]->children[slot] = nullptr;
    }
    while (levels_ > 1 && static_cast<VmRadixInner*>(root_)->used == 1) {
      auto* top = static_cast<VmRadixInner*>(root_);
      root_ = top->children[0];
      --levels_;
      pool.inners.destroy(top);
    }
  }

  [[nodiscard]] Probe probe_from(std::uint64_t at) const {
    const void* node = root_;
    for (unsigned level = levels_; level >= 1; --level) {
      const std::uint64_t used = level > 1 ? static_cast<const VmRadixInner*>(node)->used
                                           : static_cast<const VmRadixLeaf*>(node)->used;
      const unsigned slot = slot_of(PageIndex{at}, level);
      const std::uint64_t rest = used >> slot << slot;
      if (rest == 0) return {false, {}, ((at >> (kBits * level)) + 1) << (kBits * level)};
      const auto hit = static_cast<unsigned>(std::countr_zero(rest));
      if (hit != slot) {
        const unsigned shift = kBits * (level - 1);
        at = (((at >> shift) & ~std::uint64_t{63}) | hit) << shift;
      }
      if (level == 1) {
        return {true, {PageIndex{at}, FrameNumber{static_cast<const VmRadixLeaf*>(node)->frames[hit]}}, 0};
      }
      node = static_cast<const VmRadixInner*>(node)->children[hit];
    }
    return {false, {}, kEnd};
  }

  void* root_ = nullptr;
  unsigned levels_ = 0;  // 0 = empty, 1 = the root is a leaf
  std::uint64_t count_ = 0;
};

}  // namespace enchilada
