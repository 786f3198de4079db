// The two pools of pv entries: the article's list (one fixed pool) and today's chunks.
#include <algorithm>
#include <atomic>
#include <new>

#include "pmap/soft/pv_pool.h"
#include "pmap/soft/soft_counts.h"
#include "pmap/soft/table_family.h"

namespace enchilada {
namespace {

// Without any entry nothing could ever be mapped, so some are set aside before others use the arena up.
constexpr std::size_t kSetAside = 64;

/// The article's: single entries from one pool of all spaces, with a limit.
class PvListPool final : public PvPool {
 public:
  PvListPool(Arena& arena, std::size_t limit, SoftCounts& counts)
      : limit_(limit), high_(limit - limit / 10), counts_(counts), slab_(arena, 64) {
    CHECK(slab_.reserve(kSetAside));
  }

  PvEntry* create(TableFamily& /*owner*/) override {
    PvEntry* pv = nullptr;
    if (claim()) {
      pv = slab_.create();
      if (pv == nullptr) unclaim();
    }
    if (pv == nullptr) counts_.decide(PmapEvent::kPvExhausted);
    return pv;
  }
  void destroy(PvEntry* pv) override {
    slab_.destroy(pv);
    unclaim();
  }
  std::size_t live() const override { return slab_.live(); }
  std::size_t bytes() const override { return live() * sizeof(PvEntry); }
  bool above_high_water() const override { return limit_ != 0 && live() >= high_; }
  bool reclaim(TableFamily& self, VirtAddr keep, Victims& victims) override {
    return victims.throw_some_away(self, keep) || victims.throw_others_away(self);
  }
  const char* find_error() const override {
    return limit_ != 0 && live() > limit_ ? "more pv entries than the limit" : nullptr;
  }

 private:
  /// A place below the limit. Without a limit nothing is counted here: a count costs half as much as a lock.
  bool claim() {
    if (limit_ == 0 || claimed_.fetch_add(1, std::memory_order_relaxed) < limit_) return true;
    unclaim();
    return false;
  }
  void unclaim() {
    if (limit_ != 0) claimed_.fetch_sub(1, std::memory_order_relaxed);
  }

  std::size_t limit_;
  std::size_t high_;
  SoftCounts& counts_;
  std::atomic<std::size_t> claimed_{0};  // places in use, where there is a limit
  Slab<PvEntry> slab_;
};

/// Today's: pages of 168 entries that belong to one family each, in one list by age. The limit is in whole
/// chunks, at least one.
class PvChunkPool final : public PvPool {
 public:
  PvChunkPool(Arena& arena, std::size_t limit, SoftCounts& counts)
      : arena_(arena),
        most_(limit == 0 ? ~std::size_t{0} : std::max<std::size_t>(1, limit / PvChunk::kEntries)),
        counts_(counts) {
    MutexLock guard(lock_);
    CHECK(refill());
  }

  PvEntry* create(TableFamily& owner) override {
    PvChunk* chunk = owner.chunks.front();
    if (chunk == nullptr || chunk->free_count() == 0) chunk = take(owner);
    if (chunk == nullptr) {
      counts_.decide(PmapEvent::kPvExhausted);
      return nullptr;
    }
    unsigned word = 0;
    while (chunk->free[word] == 0) ++word;
    const auto bit = static_cast<unsigned>(std::countr_zero(chunk->free[word]));
    chunk->free[word] &= chunk->free[word] - 1;
    if (chunk->free_count() == 0) {
      owner.chunks.remove(chunk);
      owner.chunks.push_back(chunk);
    }
    live_.fetch_add(1, std::memory_order_relaxed);
    return &chunk->entries[word * 64 + bit];
  }
  void destroy(PvEntry* pv) override {
    PvChunk& chunk = PvChunk::of(pv);
    const auto i = static_cast<unsigned>(pv - chunk.entries.data());
    DCHECK(!chunk.is_free(i));
    const bool was_full = chunk.free_count() == 0;
    *pv = {};
    chunk.free[i / 64] |= std::uint64_t{1} << (i % 64);
    live_.fetch_sub(1, std::memory_order_relaxed);
    PvChunkList& chunks = chunk.owner->chunks;
    if (chunk.free_count() == PvChunk::kEntries) {
      chunks.remove(&chunk);
      give(chunk);
    } else if (was_full) {
      chunks.remove(&chunk);
      chunks.push_front(&chunk);
    }
  }
  void for_each_of(TableFamily& family, FunctionRef<void(PvEntry&)> visit) override {
    for (PvChunk *chunk = family.chunks.front(), *next = nullptr; chunk != nullptr; chunk = next) {
      next = PvChunkList::next(chunk);
      for_each_used(*chunk, visit);
    }
  }
  std::size_t live() const override { return live_.load(std::memory_order_relaxed); }
  std::size_t bytes() const override {
    MutexLock guard(lock_);
    return lru_.size() * sizeof(PvChunk);
  }
  bool above_high_water() const override { return false; }  // it reclaims when it must, not before
  bool reclaim(TableFamily& self, VirtAddr keep, Victims& victims) override;
  const char* find_error() const override;

 private:
  using Lru = IntrusiveList<PvChunk, &PvChunk::lru>;
  static constexpr std::size_t kRefill = 16;

  /// `visit` may destroy the entry, and the chunk with the last one.
  static void for_each_used(PvChunk& chunk, FunctionRef<void(PvEntry&)> visit) {
    unsigned left = PvChunk::kEntries - chunk.free_count();
    for (unsigned i = 0; i < PvChunk::kEntries && left > 0; ++i) {
      if (chunk.is_free(i)) continue;
      --left;
      visit(chunk.entries[i]);
    }
  }
  bool refill() REQUIRES(lock_) {
    auto* raw = static_cast<std::byte*>(arena_.allocate((kRefill + 1) * kPageSize));
    if (raw == nullptr) return false;
    const auto start = (reinterpret_cast<std::uintptr_t>(raw) + kPageMask) & ~std::uintptr_t{kPageMask};
    for (std::size_t i = 0; i < kRefill; ++i) {
      free_.push_back(new (reinterpret_cast<void*>(start + i * kPageSize)) PvChunk);
    }
    return true;
  }
  PvChunk* take(TableFamily& owner) {
    MutexLock guard(lock_);
    if (lru_.size() >= most_ || (free_.empty() && !refill())) return nullptr;
    PvChunk* const chunk = free_.pop_front();
    chunk->owner = &owner;
    chunk->free = {~std::uint64_t{0}, ~std::uint64_t{0}, (std::uint64_t{1} << (PvChunk::kEntries - 128)) - 1};
    lru_.push_back(chunk);
    owner.chunks.push_front(chunk);
    counts_.decide(PmapEvent::kPvChunkAllocated);
    return chunk;
  }
  void give(PvChunk& chunk) {
    MutexLock guard(lock_);
    lru_.remove(&chunk);
    free_.push_front(&chunk);
    counts_.decide(PmapEvent::kPvChunkFreed);
  }
  /// The oldest chunk whose owner can be locked (or is `self`), now the youngest.
  PvChunk* next_victim(const TableFamily& self) NO_THREAD_SAFETY_ANALYSIS {
    MutexLock guard(lock_);
    PvChunk* const chunk = lru_.pop_front();
    if (chunk == nullptr) return nullptr;
    lru_.push_back(chunk);
    return chunk->owner == &self || chunk->owner->lock.try_lock() ? chunk : nullptr;
  }

  Arena& arena_;
  std::size_t most_;
  SoftCounts& counts_;
  std::atomic<std::size_t> live_{0};
  mutable Mutex lock_{LockRank::kLeaf};
  Lru lru_ GUARDED_BY(lock_);
  Lru free_ GUARDED_BY(lock_);
};

// Until a chunk is free or the own family has a free entry; what cannot be removed (wired, superpages) stays,
// and its chunk, now the youngest, is not met again soon.
bool PvChunkPool::reclaim(TableFamily& self, VirtAddr keep, Victims& victims) NO_THREAD_SAFETY_ANALYSIS {
  std::size_t tries = 0;
  {
    MutexLock guard(lock_);
    tries = lru_.size();
  }
  for (; tries > 0; --tries) {
    PvChunk* const chunk = next_victim(self);
    if (chunk == nullptr) continue;
    TableFamily& owner = *chunk->owner;
    unsigned removed = 0;
    for_each_used(*chunk, [&](PvEntry& pv) { removed += victims.remove(pv, self, keep) ? 1 : 0; });
    counts_.decide(PmapEvent::kPvCollected, removed);
    if (removed != 0) counts_.decide(PmapEvent::kPvChunkReclaimed);
    if (&owner != &self) owner.lock.unlock();
    MutexLock guard(lock_);
    if (removed != 0 && (&owner == &self || (lru_.size() < most_ && !free_.empty()))) return true;
  }
  return false;
}

const char* PvChunkPool::find_error() const {
  MutexLock guard(lock_);
  if (lru_.size() > most_) return "more pv chunks than the limit";
  std::size_t used = 0;
  for (const PvChunk* chunk = lru_.front(); chunk != nullptr; chunk = Lru::next(chunk)) {
    const unsigned here = PvChunk::kEntries - chunk->free_count();
    if (here == 0) return "an empty pv chunk was kept";
    used += here;
    for (unsigned i = 0; i < PvChunk::kEntries; ++i) {
      if (chunk->is_free(i) != (chunk->entries[i].pte == nullptr)) return "a pv chunk's free map is wrong";
    }
  }
  return used != live() ? "a count of pv entries in chunks is wrong" : nullptr;
}

}  // namespace

std::unique_ptr<PvPool> make_pv_pool(PvMode mode, Arena& arena, std::size_t limit, SoftCounts& counts) {
  switch (mode) {
    case PvMode::kList:
      return std::make_unique<PvListPool>(arena, limit, counts);
    case PvMode::kChunk:
      return std::make_unique<PvChunkPool>(arena, limit, counts);
  }
  return nullptr;
}

}  // namespace enchilada
