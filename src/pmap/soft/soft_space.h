// SoftSpace: the page tables of one address space, and what of the machine all of them share.
//
// Invariants: tables exist only where something is mapped (an empty table goes back to the pool at once);
// `used` and `wired` of a table count its entries. Locks: `lock` exclusively for every change of the tables;
// shared for the hardware's walk, which may set accessed and dirty bits. Spaces are type-stable: a stale
// pointer to one may be locked and looked at, which is how a thread gets from a frame's pv list to the spaces
// that map it.
#pragma once

#include "base/function_ref.h"
#include "base/mutex.h"
#include "pmap/soft/pmap_events.h"
#include "pmap/soft/pv_lists.h"
#include "pmap/soft/table_pool.h"
#include "vm/pmap.h"

namespace enchilada {

struct SoftPmapOptions {
  PageCount table_pages{1024};  // page-table pages of all spaces together
  std::size_t pv_limit = 0;     // pv entries at most; 0: as many as the arena holds
  bool reference_bits = true;   // the hardware has accessed bits
  bool dirty_bits = true;       // the hardware has dirty bits; without them "was writable" counts as modified
  bool one_address =
      false;  // a frame has one mapping at a time, as on the host; entering it elsewhere steals it
};

/// One mapping, for checkers and reports.
struct SoftMapping {
  VirtAddr va;
  FrameNumber frame;
  bool writable;
  bool wired;
  bool accessed;
  bool dirty;
};

/// What every space of one machine uses.
struct SoftShared {
  SoftShared(Arena& arena, PageCount frames, const SoftPmapOptions& o)
      : options(o), tables(arena, o.table_pages), pvs(arena, frames, o.pv_limit) {}
  void note(PmapEvent event, std::uint64_t n = 1) const {
    if (events != nullptr && n != 0) events->note(event, n);
  }

  SoftPmapOptions options;
  TablePool tables;
  PvLists pvs;
  PageStateSink* sink = nullptr;
  PmapEventSink* events = nullptr;
};

class SoftSpace {
 public:
  explicit SoftSpace(SoftShared& shared) : shared_(shared) {}
  SoftSpace(const SoftSpace&) = delete;
  SoftSpace& operator=(const SoftSpace&) = delete;

  SharedMutex lock{LockRank::kPmap};
  ListLink<SoftSpace> link;  // all spaces of the machine, or the free ones; the system's

  enum class EnterResult : std::uint8_t { kEntered, kNoTable, kNoPv };
  /// Makes or changes one mapping. Throws nothing else away; the caller reclaims and tries again.
  EnterResult enter(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) REQUIRES(lock);
  /// The leaf entry of va, or nullptr when there is no table.
  [[nodiscard]] x86::Pte* find(VirtAddr va) const REQUIRES_SHARED(lock);

  /// Both return how many mappings changed.
  std::uint64_t remove(VirtRange range) REQUIRES(lock);
  std::uint64_t remove_write(VirtRange range) REQUIRES(lock);
  void unwire(VirtRange range) REQUIRES(lock);
  /// Removes the mapping of one pv entry of this space; the caller holds its frame's pv lock.
  void remove_pv(PvEntry& pv) REQUIRES(lock);
  /// The same for write access.
  void remove_write_pv(PvEntry& pv) REQUIRES(lock);

  /// Throws away the least recently made leaf table that has no wired mapping; false if there is none.
  bool reclaim_table() REQUIRES(lock);
  /// Throws away some mapping, not that of `keep`; prefers whole tables.
  bool reclaim_pv(VirtAddr keep) REQUIRES(lock);
  /// Calls `drop` for each unwired mapping and removes those for which it says true.
  void drop_if(FunctionRef<bool(const SoftMapping&)> drop) REQUIRES(lock);

  void for_each(FunctionRef<void(const SoftMapping&)> visit) const REQUIRES_SHARED(lock);
  [[nodiscard]] std::uint64_t mappings() const REQUIRES_SHARED(lock) { return mappings_; }
  [[nodiscard]] std::uint64_t tables() const REQUIRES_SHARED(lock) { return tables_; }
  [[nodiscard]] VirtAddr address_of(const x86::Pte& pte) const;
  /// Recounts everything; an explanation of what is wrong, or nullptr.
  [[nodiscard]] const char* find_error() const REQUIRES(lock);

 private:
  struct Walk {
    TableIndex table = kNoTable;  // deepest table on the way to the address
    unsigned level = 0;           // its level; 0: not even a root
  };
  [[nodiscard]] Walk walk(VirtAddr va) const REQUIRES_SHARED(lock);
  [[nodiscard]] TableIndex make_leaf(VirtAddr va) REQUIRES(lock);
  void link_table(TableIndex table, unsigned level, TableIndex parent, VirtAddr va) REQUIRES(lock);
  void free_if_empty(TableIndex table) REQUIRES(lock);
  void set_wired(x86::Pte& pte, TableInfo& info) REQUIRES(lock);
  void update(x86::Pte& pte, TableInfo& info, Prot prot, Wiring wiring) REQUIRES(lock);
  void take_write(x86::Pte& pte) REQUIRES(lock);
  void unmap(PvEntry& pv) REQUIRES(lock);
  void remove_entry(x86::Pte& pte) REQUIRES(lock);
  void empty_table(TableInfo& info) REQUIRES(lock);
  void report(std::uint64_t entry) const;
  [[nodiscard]] SoftMapping describe(const TableInfo& info, unsigned slot, std::uint64_t entry) const;
  /// Calls f(table info, first slot, end slot) for each leaf table that meets the range.
  template <class F>
  void for_each_leaf(VirtRange range, F&& f) REQUIRES_SHARED(lock);

  SoftShared& shared_;
  TableIndex root_ = kNoTable;
  TableList leaves_ GUARDED_BY(lock);  // in the order they were made
  std::uint64_t mappings_ GUARDED_BY(lock) = 0;
  std::uint64_t tables_ GUARDED_BY(lock) = 0;
};

}  // namespace enchilada
