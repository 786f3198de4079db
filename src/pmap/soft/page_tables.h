// PageTables: the translations of all address spaces of one machine. The seam between page-table formats.
//
// Locks: what changes a space's translations needs its family's lock exclusively; translate() and looking
// need it shared. What is given a PvEntry needs in addition the pv lock of the frame.
#pragma once

#include "base/function_ref.h"
#include "pmap/soft/pv_lists.h"
#include "pmap/soft/shootdown.h"
#include "pmap/soft/table_family.h"
#include "vm/pmap.h"
#include "vm/vm_modes.h"

namespace enchilada {

struct SoftPmapOptions {
  PageCount table_pages{1024};  // page-table pages of all spaces together
  std::size_t pv_limit = 0;     // pv entries at most; 0: as many as the arena holds
  bool reference_bits = true;   // the hardware has accessed bits
  bool dirty_bits = true;       // the hardware has dirty bits; without them "was writable" counts as modified
  bool one_address =
      false;        // a frame has one mapping at a time, as on the host; entering it elsewhere steals it
  VmModes modes{};  // those of page tables count: pv, fork_tables, superpages, shared_tables
};

/// One mapping, for checkers and reports.
struct SoftMapping {
  VirtAddr va;
  FrameNumber frame;
  bool writable;
  bool wired;
  bool accessed;
  bool dirty;
  bool superpage = false;
};

/// What the tables of one machine work with.
struct SoftShared {
  SoftShared(Arena& arena, PageCount frames, const SoftPmapOptions& o)
      : options(o),
        pvs(arena, frames, o.modes.get<SuperpagesMode>() != SuperpagesMode::kOff),
        pv_pool(make_pv_pool(o.modes.get<PvMode>(), arena, o.pv_limit, counts)) {}

  /// What an entry that maps a frame knows goes to the engine; returns how many bits that were.
  unsigned report(std::uint64_t entry) const {
    const bool dirty = (entry & (options.dirty_bits ? x86::kDirty : x86::kWritable)) != 0;
    const bool used = (entry & x86::kAccessed) != 0;
    if (dirty) sink->note_modified(x86::frame_of(entry));
    if (used) sink->note_referenced(x86::frame_of(entry));
    return unsigned{dirty} + unsigned{used};
  }
  /// Takes write access from an entry. The report precedes the change that hides it, and the family's lock
  /// keeps the hardware from writing meanwhile.
  void take_write(x86::Pte& pte) {
    (void)report(pte.load(std::memory_order_relaxed) & ~x86::kAccessed);
    pte.fetch_and(~(x86::kWritable | x86::kDirty), std::memory_order_relaxed);
    counts.note(PmapEvent::kUpdate);
    counts.note(PmapEvent::kPteWrite);
  }
  /// The pv entry of a present entry, whose frame's pv lock is held.
  PvEntry& pv_of(const x86::Pte& pte) {
    const FrameNumber frame = x86::frame_of(pte.load(std::memory_order_relaxed));
    std::uint64_t steps = 1;
    PvEntry* pv = pvs.of(frame).front();
    for (; pv != nullptr && pv->pte != &pte; pv = PvList::next(pv)) ++steps;
    CHECK(pv != nullptr, frame.value());
    counts.note(PmapEvent::kPvListStep, steps);
    return *pv;
  }
  /// A mapping was made: if mappings of this space were thrown away, it makes up for one.
  void pay_back(SoftSpace& space) {
    if (space.owed == 0) return;
    --space.owed;
    counts.decide(PmapEvent::kRefault);
  }

  SoftPmapOptions options;
  SoftCounts counts;
  PvLists pvs;
  std::unique_ptr<PvPool> pv_pool;
  PageStateSink* sink = nullptr;
};

enum class EnterResult : std::uint8_t { kEntered, kNoTable, kNoPv };

/// Why mappings are removed: the engine asks, or the pmap uses the law of the pmap.
enum class RemoveCause : std::uint8_t { kAsked, kThrownAway };

class PageTables {
 public:
  virtual ~PageTables() = default;

  /// Makes or changes one mapping. Throws nothing else away; the caller reclaims and tries again.
  virtual EnterResult enter(SoftSpace& space, VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring) = 0;
  /// A hint that enter() will follow (Pmap::expect). No lock is held: only atomic fields may be looked at,
  /// and what they say may be outdated.
  virtual void expect(const SoftSpace& space, VirtAddr va) const { (void)space, (void)va; }
  virtual void remove(SoftSpace& space, VirtRange range) = 0;
  virtual void remove_write(SoftSpace& space, VirtRange range) = 0;
  virtual void unwire(SoftSpace& space, VirtRange range) = 0;
  /// The hardware's walk; sets accessed and dirty bits. kNoFrame: page fault.
  [[nodiscard]] virtual FrameNumber translate(SoftSpace& space, VirtAddr va, Access access) = 0;

  [[nodiscard]] virtual TableFamily& family_of(const PvEntry& pv) const = 0;
  virtual void remove_pv(PvEntry& pv, RemoveCause cause, Shootdown& told) = 0;
  virtual void remove_write_pv(PvEntry& pv, Shootdown& told) = 0;
  /// Calls visit(space, va, writable) for each place where the entry shows `frame`: several in a shared
  /// table.
  virtual void for_each_place(const PvEntry& pv, FrameNumber frame,
                              FunctionRef<void(SoftSpace&, VirtAddr, bool)> visit) const = 0;
  /// Makes small mappings of a superpage, whose pv entry this is, or throws it away; so the entry is gone
  /// from the list of superpages.
  virtual void split_superpage(PvEntry& pv, Shootdown& told) { (void)pv, (void)told; }
  /// At fork, both in one locked family: lets the child use the parent's leaf tables too, without the right
  /// to write for either; calls not_shared(range) for what cannot be given so.
  virtual void share_tables(SoftSpace& parent, SoftSpace& child, VirtRange range,
                            FunctionRef<void(VirtRange)> not_shared) {
    (void)parent, (void)child;
    not_shared(range);
  }

  /// The translations of `space`, none of them wired, become those of `relic`, a fresh one, which joins the
  /// family as a cast-off member: for the frames' sake they stay, with their bits, but no CPU sees them.
  /// O(1). False, and nothing done: the format cannot.
  virtual bool cast_off(SoftSpace& space, SoftSpace& relic) {
    (void)space, (void)relic;
    return false;
  }
  /// Removes up to `most` mappings of a cast-off space in order of address, and gives up for this time when
  /// they are far between.
  virtual void reap(SoftSpace& relic, std::uint64_t most) { (void)relic, (void)most; }

  /// Throws away the least recently made leaf table that has no wired mapping; false if there is none.
  virtual bool reclaim_table(TableFamily& family) = 0;
  /// Throws away some mapping, not that at `keep`; prefers whole tables.
  virtual bool reclaim_mapping(TableFamily& family, VirtAddr keep) = 0;
  /// Throws away unwired mappings for which `drop` says true.
  virtual void drop_if(SoftSpace& space, FunctionRef<bool(const SoftMapping&)> drop) = 0;

  virtual void for_each(SoftSpace& space, VirtRange range,
                        FunctionRef<void(const SoftMapping&)> visit) const = 0;
  /// Bytes that the tables of all spaces take now.
  [[nodiscard]] virtual std::size_t bytes() const = 0;
  [[nodiscard]] virtual std::size_t free_tables() const = 0;
  /// Recounts a family by walking every table of its members; an explanation of what is wrong, or nullptr.
  /// Adds the number of the family's pv entries.
  [[nodiscard]] virtual const char* find_error(TableFamily& family, std::uint64_t* entries) = 0;
  /// After all families were looked at: nothing was lost.
  [[nodiscard]] virtual const char* find_lost() = 0;
};

}  // namespace enchilada
