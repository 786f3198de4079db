// PvPool: where pv entries come from. The seam between the article's fixed pool and today's chunks.
//
// Invariant: an entry belongs to the family of spaces that it was made for until it is destroyed, and both
// happen with that family's lock held exclusively; so whoever holds the lock may keep pointers to entries.
#pragma once

#include <cstddef>
#include <memory>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/intrusive_list.h"
#include "pmap/soft/x86_format.h"
#include "vm/vm_modes.h"

namespace enchilada {

struct TableFamily;

/// One mapping of one frame: the page-table entry. Space and address follow from where the entry lies.
struct PvEntry {
  ListLink<PvEntry> link;  // on the list of its frame
  x86::Pte* pte = nullptr;
};
using PvList = IntrusiveList<PvEntry, &PvEntry::link>;

class PvPool {
 public:
  virtual ~PvPool() = default;

  /// nullptr when the pool is used up: the caller throws a mapping away (reclaim) or goes without.
  [[nodiscard]] virtual PvEntry* create(TableFamily& owner) = 0;
  virtual void destroy(PvEntry* pv) = 0;

  [[nodiscard]] virtual std::size_t live() const = 0;
  /// Memory that entries in use and their headers take; bytes() / live() is the cost of a mapping.
  [[nodiscard]] virtual std::size_t bytes() const = 0;
  /// 90 % of a limited pool is in use (the article's high-water mark): somebody should collect.
  [[nodiscard]] virtual bool above_high_water() const = 0;

  /// What reclaim() may do. All with `family` locked exclusively.
  class Victims {
   public:
    /// Throws whole tables (else single mappings) of the family away, not the mapping at `keep`.
    virtual bool throw_some_away(TableFamily& family, VirtAddr keep) = 0;
    /// The same in any other family that is not in use just now.
    virtual bool throw_others_away(TableFamily& self) = 0;
    /// Removes the mapping of one entry if that is legal; not that of `keep` in `self`.
    virtual bool remove(PvEntry& pv, TableFamily& self, VirtAddr keep) = 0;

   protected:
    ~Victims() = default;
  };
  /// Destroys mappings until create(self) has a chance again; `self` is locked exclusively, other families
  /// are only tried. False: nothing to be had.
  virtual bool reclaim(TableFamily& self, VirtAddr keep, Victims& victims) = 0;
  /// Calls visit(entry), which may destroy it, for the entries of the family as far as the pool knows them
  /// by owner; in any order. The family is locked exclusively. For one that ends: its mappings are found
  /// without a look at the lists of frames that others map too (FreeBSD's pmap_remove_pages).
  virtual void for_each_of(TableFamily& family, FunctionRef<void(PvEntry&)> visit) {
    (void)family, (void)visit;
  }
  /// What is wrong inside, or nullptr.
  [[nodiscard]] virtual const char* find_error() const = 0;
};

struct SoftCounts;

/// `limit`: entries at most at a time; 0: as many as the arena holds.
std::unique_ptr<PvPool> make_pv_pool(PvMode mode, Arena& arena, std::size_t limit, SoftCounts& counts);

}  // namespace enchilada
