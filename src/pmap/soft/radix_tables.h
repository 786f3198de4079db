// RadixTables: x86-64 page tables, four levels, a tree of them per space.
//
// Invariants: tables exist only where something is mapped (an empty table goes back to the pool at once);
// `used` and `wired` of a table count its entries; a leaf table is on its family's list, and `users` says
// whose trees it hangs in. A table with several users is write-protected in all their trees and holds nothing
// wired; before one of them changes it, it gets a copy of its own. A promoted table has one user, is full and
// lies beside the tree: the entry above maps its 2 MiB as a whole.
#pragma once

#include <algorithm>
#include <bitset>

#include "pmap/soft/page_tables.h"

namespace enchilada {

class RadixTables final : public PageTables {
 public:
  RadixTables(Arena& arena, SoftShared& shared)
      : shared_(shared),
        pool_(arena, shared.options.table_pages),
        promotes_(shared.options.modes.get<SuperpagesMode>() == SuperpagesMode::kPromote),
        shares_(shared.options.modes.get<SharedTablesMode>() == SharedTablesMode::kOn) {}

  EnterResult enter(SoftSpace& space, VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) override;
  void expect(const SoftSpace& space, VirtAddr va) const override;
  void remove(SoftSpace& space, VirtRange range) override;
  void remove_write(SoftSpace& space, VirtRange range) override;
  void unwire(SoftSpace& space, VirtRange range) override;
  FrameNumber translate(SoftSpace& space, VirtAddr va, Access access) override;

  TableFamily& family_of(const PvEntry& pv) const override { return *info_of(*pv.pte).family; }
  void remove_pv(PvEntry& pv, RemoveCause cause, Shootdown& told) override;
  void remove_write_pv(PvEntry& pv, Shootdown& told) override { take_write(*pv.pte, told); }
  void for_each_place(const PvEntry& pv, FrameNumber frame,
                      FunctionRef<void(SoftSpace&, VirtAddr, bool)> visit) const override;
  void split_superpage(PvEntry& pv, Shootdown& told) override;
  void share_tables(SoftSpace& parent, SoftSpace& child, VirtRange range,
                    FunctionRef<void(VirtRange)> not_shared) override;

  bool cast_off(SoftSpace& space, SoftSpace& relic) override;
  void reap(SoftSpace& relic, std::uint64_t most) override;

  bool reclaim_table(TableFamily& family) override;
  bool reclaim_mapping(TableFamily& family, VirtAddr keep) override;
  void drop_if(SoftSpace& space, FunctionRef<bool(const SoftMapping&)> drop) override;

  void for_each(SoftSpace& space, VirtRange range,
                FunctionRef<void(const SoftMapping&)> visit) const override;
  std::size_t bytes() const override { return (pool_.size() - pool_.free_count()) * kPageSize; }
  std::size_t free_tables() const override { return pool_.free_count(); }
  const char* find_error(TableFamily& family, std::uint64_t* entries) override;
  const char* find_lost() override;

 private:
  struct Walk {
    TableIndex table = kNoTable;  // deepest table on the way to the address
    unsigned level = 0;           // its level; 0: not even a root
  };
  [[nodiscard]] Walk walk(const SoftSpace& space, VirtAddr va) const;
  /// The first address beyond the leaf table where the way to va ended; else beyond what the missing entry
  /// would cover, which is all empty.
  [[nodiscard]] static VirtAddr next_after(const Walk& w, VirtAddr va) {
    const std::uint64_t covered = w.level == 0   ? x86::kAddressLimit
                                  : w.level == 1 ? x86::span_of(2)
                                                 : x86::span_of(w.level);
    return VirtAddr{(va.value() & ~(covered - 1)) + covered};
  }
  [[nodiscard]] TableInfo& info_of(const x86::Pte& pte) const { return pool_.info(pool_.table_of(&pte)); }
  /// The entry of level 2 that leads to the space's leaf table at `base`.
  [[nodiscard]] x86::Pte& branch(const SoftSpace& space, VirtAddr base) const;
  [[nodiscard]] VirtAddr address_of(const x86::Pte& pte) const;
  [[nodiscard]] VirtRange range_of(const x86::Pte& pte) const;

  // Tables.
  /// The table of `level` (1 or 2) for va, made if it is missing.
  [[nodiscard]] TableIndex make_table(SoftSpace& space, VirtAddr va, unsigned level);
  void link_table(SoftSpace& space, TableIndex table, unsigned level, TableIndex parent, VirtAddr va);
  void free_if_empty(TableInfo& leaf);
  void unhook(SoftSpace& space, VirtAddr base);
  /// Calls f(leaf table, first slot, end slot) for each one of the space that meets the range; f may free it.
  template <class F>
  void for_each_leaf(const SoftSpace& space, VirtRange range, F&& f) const;

  // Entries.
  void set_wired(x86::Pte& pte, TableInfo& leaf);
  void update(x86::Pte& pte, TableInfo& leaf, Prot prot, Wiring wiring, Shootdown& told);
  void take_write(x86::Pte& pte, Shootdown& told);
  void unmap(PvEntry& pv, RemoveCause cause, Shootdown& told);
  void remove_entry(x86::Pte& pte, RemoveCause cause, Shootdown& told);
  void empty_table(TableInfo& leaf, RemoveCause cause, Shootdown& told);
  [[nodiscard]] SoftMapping describe(const TableInfo& leaf, unsigned slot, std::uint64_t entry) const;

  // Before a change. nullptr: the space has no table there any more.
  using SlotSet = std::bitset<x86::kSlots>;
  [[nodiscard]] TableInfo* own(SoftSpace& space, TableInfo& leaf, const SlotSet& without, Shootdown& told);
  [[nodiscard]] bool allows_already(const SoftSpace& space, const TableInfo& leaf, unsigned slot,
                                    FrameNumber frame, Prot prot, Wiring wiring) const;
  [[nodiscard]] bool holds_all(const TableInfo& leaf, unsigned first, unsigned end) const;

  // Superpages (radix_super.cc). Those marked (pv) are called with the frames' pv lock held.
  [[nodiscard]] SoftSpace& owner_of(const TableInfo& leaf) const {
    return *leaf.family->members[static_cast<unsigned>(std::countr_zero(leaf.users))];
  }
  void promote_if_full(SoftSpace& space, TableInfo* leaf, const x86::Pte* fresh, Shootdown& told);
  enum class Uniform : std::uint8_t { kNo, kReadOnly, kDirty };
  [[nodiscard]] Uniform uniform(const TableInfo& leaf, const x86::Pte* fresh) const;
  void promote(SoftSpace& space, TableInfo& leaf, Uniform how, Shootdown& told);
  [[nodiscard]] bool take_pvs(TableFamily& family, std::span<PvEntry*> pvs);
  void demote(TableInfo& leaf, Shootdown& told);                         // (pv) may leave it empty
  void drop_super(TableInfo& leaf, RemoveCause cause, Shootdown& told);  // (pv) leaves it empty
  unsigned report_super(const TableInfo& leaf, std::uint64_t entry) const;
  [[nodiscard]] bool demote_leaf(TableInfo& leaf, Shootdown& told);  // false: it is gone
  void drop_super_leaf(TableInfo& leaf, RemoveCause cause, Shootdown& told);
  void protect_super(TableInfo& leaf, Shootdown& told);
  [[nodiscard]] Mutex& pv_lock_of(const TableInfo& promoted) const;

  // Shared and write-protected tables (radix_shared.cc).
  [[nodiscard]] bool share(SoftSpace& parent, SoftSpace& child, TableInfo& leaf, unsigned first,
                           unsigned end);
  [[nodiscard]] TableInfo* unshare(SoftSpace& space, TableInfo& leaf, const SlotSet& without,
                                   Shootdown& told);
  void detach(SoftSpace& space, TableInfo& leaf, RemoveCause cause, Shootdown& told);
  [[nodiscard]] bool protect_table(TableInfo& leaf, unsigned first, unsigned end, Shootdown& told);
  void push_down(TableInfo& leaf, Shootdown& told);

  // Checks.
  [[nodiscard]] const char* find_error_in_super(const TableInfo& leaf);
  [[nodiscard]] const char* find_error_in_leaf(const TableInfo& leaf, unsigned* used);
  [[nodiscard]] const char* find_error_in_space(const SoftSpace& space);

  SoftShared& shared_;
  TablePool pool_;
  const bool promotes_;   // superpages=promote
  const bool shares_;     // shared_tables=on: whole tables are write-protected from above
  std::size_t seen_ = 0;  // tables met by find_error()
};

template <class F>
void RadixTables::for_each_leaf(const SoftSpace& space, VirtRange range, F&& f) const {
  std::uint64_t va = range.start.value();
  const std::uint64_t end = std::min(range.end.value(), x86::kAddressLimit);
  while (va < end) {
    const Walk w = walk(space, VirtAddr{va});
    const std::uint64_t next = next_after(w, VirtAddr{va}).value();
    if (w.level == 1) {
      const std::uint64_t stop = std::min(next, end);
      const unsigned first = x86::slot_of(VirtAddr{va}, 1);
      f(pool_.info(w.table), first, first + static_cast<unsigned>((stop - va) >> kPageShift));
    }
    va = next;
  }
}

}  // namespace enchilada
