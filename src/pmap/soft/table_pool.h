// TablePool: the page-table pages of all address spaces of a soft machine, a fixed number of them.
//
// Invariants: a free table is all zero; a table in use belongs to one family of spaces and its TableInfo says
// which of them use it; take() is all or nothing. Thread-safe; TableInfo of a table in use is guarded by its
// family's lock.
#pragma once

#include <span>

#include "base/arena.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "pmap/soft/x86_format.h"

namespace enchilada {

struct TableFamily;

using TableIndex = std::uint32_t;
inline constexpr TableIndex kNoTable = ~TableIndex{0};

/// What the kernel side knows about one page-table page.
struct TableInfo {
  ListLink<TableInfo> link;  // leaf tables of a family, or free tables
  TableFamily* family = nullptr;
  VirtAddr base;            // first address that the table translates
  std::uint64_t users = 0;  // the family's members that use it, by slot: whom an invalidation must reach
  TableIndex self = kNoTable;
  TableIndex parent = kNoTable;  // of a table above the leaves; kNoTable for the root, and for leaves
  std::uint16_t used = 0;        // entries present
  std::uint16_t wired = 0;       // of them, wired mappings (leaf tables)
  std::uint8_t level = 0;
  bool promoted = false;         // kept for the demotion of a superpage; the hardware does not see it
  bool write_protected = false;  // the entries that lead here do not allow writing, whatever is in here
};
using TableList = IntrusiveList<TableInfo, &TableInfo::link>;

class TablePool {
 public:
  /// Takes all its memory from the arena at once; an arena too small gives a smaller pool.
  TablePool(Arena& arena, PageCount tables);

  /// out.size() zeroed tables, or false and nothing.
  [[nodiscard]] bool take(std::span<TableIndex> out);
  /// Gives an all-zero table back.
  void give(TableIndex table);

  [[nodiscard]] x86::Pte* entries(TableIndex table) const {
    return entries_ + std::size_t{table} * x86::kSlots;
  }
  [[nodiscard]] x86::Pte& entry(TableIndex table, unsigned slot) const { return entries(table)[slot]; }
  [[nodiscard]] TableInfo& info(TableIndex table) const { return infos_[table]; }
  [[nodiscard]] TableIndex table_of(const x86::Pte* pte) const {
    return static_cast<TableIndex>(static_cast<std::size_t>(pte - entries_) / x86::kSlots);
  }
  [[nodiscard]] static unsigned slot_in_table(const x86::Pte* pte) {
    return static_cast<unsigned>((reinterpret_cast<std::uintptr_t>(pte) / sizeof(x86::Pte)) % x86::kSlots);
  }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t free_count() const;

 private:
  x86::Pte* entries_ = nullptr;
  TableInfo* infos_ = nullptr;
  std::size_t size_ = 0;
  mutable Mutex lock_{LockRank::kLeaf};
  TableList free_ GUARDED_BY(lock_);
};

}  // namespace enchilada
