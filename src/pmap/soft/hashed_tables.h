// HashedTables: one table for all spaces, found by hashing (space, page): what old SPARCs, PowerPCs and an
// IA-64 mode had. Chained, with a fixed pool of entries.
//
// It is here so that what is said of it can be measured: its size follows the mappings and not the address
// space, a walk is one probe or a few, and there is no subtree that could be shared or become a superpage
// (those modes do nothing with it). Invariants: an entry in use is in exactly one bucket's chain, on its
// space's list (newest first), and has one pv entry. Chains change, and are walked, with the bucket's lock
// held.
#pragma once

#include <array>

#include "pmap/soft/page_tables.h"

namespace enchilada {

class HashedTables final : public PageTables {
 public:
  /// The pool takes as much memory as options.table_pages would.
  HashedTables(Arena& arena, SoftShared& shared);

  EnterResult enter(SoftSpace& space, VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) override;
  void remove(SoftSpace& space, VirtRange range) override;
  void remove_write(SoftSpace& space, VirtRange range) override;
  void unwire(SoftSpace& space, VirtRange range) override;
  FrameNumber translate(SoftSpace& space, VirtAddr va, Access access) override;

  TableFamily& family_of(const PvEntry& pv) const override { return *entry_of(*pv.pte).space->family; }
  void remove_pv(PvEntry& pv, RemoveCause cause, Shootdown& told) override;
  void remove_write_pv(PvEntry& pv, Shootdown& told) override;
  void for_each_place(const PvEntry& pv, FrameNumber frame,
                      FunctionRef<void(SoftSpace&, VirtAddr, bool)> visit) const override;

  bool reclaim_table(TableFamily& family) override;
  bool reclaim_mapping(TableFamily& family, VirtAddr keep) override;
  void drop_if(SoftSpace& space, FunctionRef<bool(const SoftMapping&)> drop) override;

  void for_each(SoftSpace& space, VirtRange range,
                FunctionRef<void(const SoftMapping&)> visit) const override;
  std::size_t bytes() const override;
  std::size_t free_tables() const override;
  const char* find_error(TableFamily& family, std::uint64_t* entries) override;
  const char* find_lost() override;

 private:
  struct Entry {
    x86::Pte pte{0};
    std::uint64_t page = 0;
    SoftSpace* space = nullptr;
    std::uint32_t chain = kNoHashedEntry;  // the next in the bucket, or on the free list
    std::uint32_t newer = kNoHashedEntry;  // in the space
    std::uint32_t older = kNoHashedEntry;
  };
  struct BucketLock {
    Mutex mutex{LockRank::kLeaf};
  };
  static constexpr std::size_t kLocks = 64;

  [[nodiscard]] std::size_t bucket_of(const SoftSpace& space, std::uint64_t page) const;
  [[nodiscard]] Mutex& lock_of(std::size_t bucket) const { return locks_[bucket % kLocks].mutex; }
  [[nodiscard]] Entry& entry_of(const x86::Pte& pte) const {
    return entries_[static_cast<std::size_t>(reinterpret_cast<const std::byte*>(&pte) -
                                             reinterpret_cast<const std::byte*>(entries_)) /
                    sizeof(Entry)];
  }
  [[nodiscard]] std::uint32_t index_of(const Entry& entry) const {
    return static_cast<std::uint32_t>(&entry - entries_);
  }
  [[nodiscard]] Entry* find(const SoftSpace& space, std::uint64_t page, PmapWalk* walk = nullptr) const;
  [[nodiscard]] Entry* create(SoftSpace& space, std::uint64_t page);
  void destroy(Entry& entry);
  /// Calls f(entry) for each of the space in the range; f may remove that one.
  template <class F>
  void for_each_entry(SoftSpace& space, VirtRange range, F&& f) const;
  void unmap(PvEntry& pv, RemoveCause cause, Shootdown& told);
  void remove_entry(Entry& entry, RemoveCause cause, Shootdown& told);
  bool throw_away(TableFamily& family, VirtAddr keep, unsigned most);
  void take_write(Entry& entry, Shootdown& told);
  [[nodiscard]] static VirtRange range_of(const Entry& entry) {
    const VirtAddr va{entry.page << kPageShift};
    return {va, va + ByteCount{kPageSize}};
  }
  [[nodiscard]] static SoftMapping describe(const Entry& entry);

  SoftShared& shared_;
  Entry* entries_ = nullptr;
  std::uint32_t* buckets_ = nullptr;
  std::size_t size_ = 0;
  unsigned bucket_bits_ = 0;
  mutable std::array<BucketLock, kLocks> locks_;
  mutable Mutex free_lock_{LockRank::kLeaf};
  std::uint32_t free_ GUARDED_BY(free_lock_) = kNoHashedEntry;
  std::size_t free_count_ GUARDED_BY(free_lock_) = 0;
};

}  // namespace enchilada
