// The pool of B-tree nodes: promises, and memory that is touched as late as possible.
#include "vm/vm_map_nodes.h"

#include <algorithm>

#include "base/check.h"

namespace enchilada {

bool MapNodePool::promise(std::size_t nodes) {
  MutexLock guard(lock_);
  if (promised_ + nodes > nodes_) {
    const std::size_t more = std::max(promised_ + nodes - nodes_, kChunk);
    auto* const chunk = static_cast<Chunk*>(arena_.reserve(more * sizeof(MapNode)));
    if (chunk == nullptr) return false;
    arena_.note_touched(sizeof(MapNode));
    chunk->next = chunks_;
    chunk->nodes = more;
    chunks_ = chunk;
    nodes_ += more;
  }
  promised_ += nodes;
  return true;
}

void MapNodePool::release(std::size_t nodes) {
  MutexLock guard(lock_);
  DCHECK(nodes <= promised_);
  promised_ -= nodes;
}

MapNode* MapNodePool::take() {
  MutexLock guard(lock_);
  if (free_ != nullptr) {
    MapNode* const node = free_;
    free_ = node->next_free;
    return node;
  }
  if (fresh_left_ == 0) {
    CHECK(chunks_ != nullptr);  // the caller has taken more than it was promised
    Chunk* const chunk = chunks_;
    chunks_ = chunk->next;
    fresh_left_ = chunk->nodes;
    fresh_ = reinterpret_cast<MapNode*>(chunk);
  } else {
    arena_.note_touched(sizeof(MapNode));
  }
  --fresh_left_;
  return fresh_++;
}

void MapNodePool::give_back(MapNode* node) {
  MutexLock guard(lock_);
  node->next_free = free_;
  free_ = node;
}

}  // namespace enchilada
