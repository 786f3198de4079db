// MapNode: a node of the B-tree of map entries; MapNodePool: where a family of maps has its nodes from.
//
// The pool promises nodes ahead of their use, so that an insert never fails half way, and touches memory only
// when a node is really taken: what is promised for the worst case costs address space only. Invariants:
// never more nodes are taken than promised; promised <= nodes in the pool's memory; memory stays a node's for
// ever.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/arena.h"
#include "base/mutex.h"

namespace enchilada {

struct MapEntry;

/// 15 keys and a count fill two cache lines, so that a search makes exactly four steps in them. A slot is a
/// key, what it leads to, and its gap.
struct alignas(64) MapNode {
  static constexpr unsigned kSlots = 15;
  static constexpr std::uint64_t kNoKey = ~std::uint64_t{0};

  std::uint64_t keys[kSlots];  // ascending; kNoKey where there is no slot
  std::uint64_t count = 0;
  union Child {
    MapEntry* entry;  // in a leaf: keys[i] == entry->start
    MapNode* node;    // above: keys[i] is the smallest key below
  } children[kSlots];
  MapNode* next_free = nullptr;  // while it is in no tree
  std::uint32_t gaps[kSlots];  // pages, at most kManyPages: the entry's gap, or the largest one below; else 0
};
static_assert(sizeof(MapNode) == 320);

class MapNodePool {
 public:
  explicit MapNodePool(Arena& arena) : arena_(arena) {}
  MapNodePool(const MapNodePool&) = delete;
  MapNodePool& operator=(const MapNodePool&) = delete;

  /// `nodes` more can be taken from now on. False: the arena is used up, nothing has changed.
  [[nodiscard]] bool promise(std::size_t nodes);
  /// Takes a promise back; the nodes taken under it are returned already.
  void release(std::size_t nodes);
  [[nodiscard]] MapNode* take();
  void give_back(MapNode* node);

 private:
  static constexpr std::size_t kChunk = 64;  // nodes
  /// Lies in the first node of a chunk that no node was taken from yet.
  struct Chunk {
    Chunk* next;
    std::size_t nodes;
  };

  Arena& arena_;
  Mutex lock_{LockRank::kLeaf};
  std::size_t promised_ GUARDED_BY(lock_) = 0;
  std::size_t nodes_ GUARDED_BY(lock_) = 0;
  MapNode* free_ GUARDED_BY(lock_) = nullptr;
  MapNode* fresh_ GUARDED_BY(lock_) = nullptr;  // never taken: fresh_left_ of them
  std::size_t fresh_left_ GUARDED_BY(lock_) = 0;
  Chunk* chunks_ GUARDED_BY(lock_) = nullptr;
};

}  // namespace enchilada
