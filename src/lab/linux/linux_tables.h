// LinuxTables: the page tables of all address spaces of a Linux-like kernel, in the x86-64 format.
//
// Unlike a pmap's they are the truth: an entry that shows no page may say where in swap it is. Bits beside
// the hardware's: kSwapped (an entry of a page in swap), kHidden (a page that no access may reach, PROT_NONE;
// not present for the hardware). Invariants: a table exists only while it has an entry that is not zero; the
// machine hears of every walk, read and write of entries.
#pragma once

#include <array>
#include <vector>

#include "base/function_ref.h"
#include "lab/linux/linux_types.h"
#include "machine/hardware.h"
#include "pmap/soft/table_pool.h"

namespace enchilada::lab {

class LinuxTables {
 public:
  static constexpr std::uint64_t kSwapped = 1u << 2;
  static constexpr std::uint64_t kHidden = 1u << 3;

  LinuxTables(Arena& arena, PageCount tables, KernelMemory& memory);

  [[nodiscard]] static bool shows_page(std::uint64_t entry) {
    return (entry & (x86::kPresent | kHidden)) != 0;
  }
  [[nodiscard]] static bool shows(const x86::Pte& pte, FrameNumber frame) {
    const std::uint64_t entry = pte.load(std::memory_order_relaxed);
    return shows_page(entry) && x86::frame_of(entry) == frame;
  }
  [[nodiscard]] static bool in_swap(std::uint64_t entry) { return (entry & kSwapped) != 0; }
  [[nodiscard]] static std::uint64_t swap_entry(std::uint32_t slot) {
    return (std::uint64_t{slot} << x86::kNumberShift) | kSwapped;
  }

  /// The kernel's look at the entry of an address; null: there is no table. Counts the entries read.
  [[nodiscard]] x86::Pte* look(const Mm& mm, VirtAddr va) const;
  /// The same, without counting: for checks.
  [[nodiscard]] x86::Pte* peek(const Mm& mm, VirtAddr va) const;
  /// The entry, with its tables made. All tables in use: stops (DesignOptions::table_pages is too small).
  [[nodiscard]] x86::Pte& make(Mm& mm, VirtAddr va);
  /// Changes an entry; `pte` may be gone with its table afterwards if it becomes zero.
  void set(Mm& mm, x86::Pte& pte, std::uint64_t entry);
  /// Changes bits of an entry that stays.
  void set_bits(x86::Pte& pte, std::uint64_t clear, std::uint64_t set);

  /// The hardware's walk of one access; sets accessed and dirty bits. kNoFrame: page fault.
  [[nodiscard]] FrameNumber translate(Mm& mm, VirtAddr va, Access access);

  /// Calls visit(va, pte) for each entry of the range that is not zero, ascending; it may clear the entry.
  void for_each(Mm& mm, VirtRange range, FunctionRef<void(VirtAddr, x86::Pte&)> visit);
  /// The same, until it says false.
  void for_each_until(Mm& mm, VirtRange range, FunctionRef<bool(VirtAddr, x86::Pte&)> visit);

  /// Where an entry lies: what the descriptor of a page-table page says.
  [[nodiscard]] Mm* mm_of(const x86::Pte& pte) const { return owners_[pool_.table_of(&pte)]; }
  [[nodiscard]] VirtAddr address_of(const x86::Pte& pte) const;
  [[nodiscard]] PhysAddr line_of(const x86::Pte& pte) const;

  /// TLBs must forget the range of the space.
  void invalidate(const Mm& mm, VirtRange range);

 private:
  [[nodiscard]] TableIndex child(TableIndex table, unsigned slot) const;
  [[nodiscard]] TableIndex new_table(Mm& mm, VirtAddr va, unsigned level);
  void free_empty(Mm& mm, VirtAddr va);
  [[nodiscard]] bool is_leaf_of(TableIndex table, const Mm& mm, VirtAddr va) const;
  /// Where an entry lies in the memory of all tables.
  [[nodiscard]] std::uint64_t place_of(const x86::Pte& pte) const {
    return (std::uint64_t{pool_.table_of(&pte)} << kPageShift) + 8 * TablePool::slot_in_table(&pte);
  }
  struct Path {
    std::array<TableIndex, x86::kLevels + 1> at{};  // by level; kNoTable: missing
  };
  [[nodiscard]] Path path_to(const Mm& mm, VirtAddr va) const;

  TablePool pool_;
  KernelMemory& memory_;
  std::vector<Mm*> owners_;  // by table
};

}  // namespace enchilada::lab
