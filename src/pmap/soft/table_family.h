// Address spaces and their families: a family is the spaces that may have leaf tables in common.
//
// A space begins in a family of its own; with shared tables (docs/mechanisms/shared-page-tables.md) a fork
// puts the child into the parent's. Invariants: one lock per family, held exclusively for every change of its
// tables, shared for the hardware's walk, which may set accessed and dirty bits. Families are type-stable: a
// stale pointer to one may be locked and looked at, which is how a thread gets from a frame's pv list to the
// tables that map it. A space changes its family only while it is empty and only its creator knows it.
#pragma once

#include <array>
#include <bit>

#include "base/mutex.h"
#include "pmap/soft/pmap_events.h"
#include "pmap/soft/pv_chunk.h"
#include "pmap/soft/table_pool.h"
#include "vm/vm_types.h"

namespace enchilada {

struct SoftSpace;
inline constexpr std::uint32_t kNoHashedEntry = ~std::uint32_t{0};

struct TableFamily {
  static constexpr unsigned kMembers = 64;  // bits of TableInfo::users

  SharedMutex lock{LockRank::kPmap};
  ListLink<TableFamily> link;  // all families of the machine, or the free ones; the system's
  std::array<SoftSpace*, kMembers> members{};
  std::uint64_t slots = 0;     // members in use
  std::uint64_t cast_off = 0;  // of them, those that only hold tables which another one threw away whole
  TableList leaves;            // in the order in which they were made
  PvChunkList chunks;          // pv=chunk: those with free entries first

  /// Members in which a CPU may run.
  [[nodiscard]] std::uint64_t live() const { return slots & ~cast_off; }
  /// Calls f(space) for each member in the mask.
  template <class F>
  void for_each_member(std::uint64_t mask, F&& f) const {
    for (; mask != 0; mask &= mask - 1) f(*members[static_cast<unsigned>(std::countr_zero(mask))]);
  }
};

/// One address space.
struct SoftSpace {
  ListLink<SoftSpace> link;  // the free ones
  TableFamily* family = nullptr;
  unsigned slot = 0;  // in the family
  SpaceId id = 0;
  std::atomic<TableIndex> root{kNoTable};  // page_table=radix; the lock, or a look without it (expect())
  std::uint32_t newest = kNoHashedEntry;   // page_table=hashed: the space's entries, in a list
  std::uint32_t oldest = kNoHashedEntry;
  std::uint64_t mappings = 0;  // of this space, those in shared tables too
  std::uint64_t wired = 0;     // of them (page_table=radix)
  std::uint64_t tables = 0;    // that it uses, shared ones too
  std::uint64_t owed = 0;      // mappings thrown away or not copied, for which no enter has made up yet
  VirtAddr reaped;             // cast off: nothing below is left

  [[nodiscard]] std::uint64_t bit() const { return std::uint64_t{1} << slot; }
};

}  // namespace enchilada
