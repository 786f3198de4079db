// SoftPmap and SoftPmapSystem: address spaces of the soft machine, whose page tables a simulated CPU walks.
//
// Invariants: the law of the pmap (every unwired mapping may be thrown away, with its bits reported first); a
// store through access() is visible, and its dirty bit set, before the operation that removes or
// write-protects the mapping returns. Page tables and pv entries come from an arena; when they run out,
// enter() throws its own family's unwired mappings away, then those of others that nobody uses just now.
// Lock order: a family's lock -> a frame's pv lock -> pools. From a frame to a family, and from one family to
// another, the family is try-locked.
#pragma once

#include <memory>

#include "pmap/soft/fork_policy.h"
#include "pmap/soft/page_tables.h"
#include "vm/pmap.h"

namespace enchilada {

class SoftPmapSystem;

class SoftPmap final : public Pmap {
 public:
  SoftPmap(SoftPmapSystem& system, SoftSpace& space) : system_(system), space_(space) {}
  ~SoftPmap() override;

  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access access,
                  Wiring wiring) override;
  void expect(VirtAddr va, FrameNumber frame) const override;
  void remove(VirtRange range) override;
  void remove_pages() override;
  void protect(VirtRange range, Prot prot) override;
  void unwire(VirtRange range) override;
  /// What the mode of fork_tables says: nothing, or copies, read-only and unwired, while memory lasts.
  void copy_from(Pmap& source, VirtRange range) override;
  /// With fork_tables=throw, where nothing is wired.
  bool throw_away_for_fork() override;

  /// One access as the CPU makes it: walks the tables, sets accessed and dirty bits, and lets `use` have the
  /// byte at `va` and those after it in the same page. False: page fault, nothing done. `use` must not access
  /// or map anything.
  bool access(VirtAddr va, Access access, FunctionRef<void(std::byte*)> use);

  /// Throws away unwired mappings for which `drop` says true. Always legal: the law of the pmap.
  void drop_if(FunctionRef<bool(const SoftMapping&)> drop);
  /// Throws the whole pmap away, all but what is wired.
  void throw_away();
  void for_each_mapping(FunctionRef<void(const SoftMapping&)> visit) const;
  /// What is mapped at va; kNoFrame: nothing. No access: bits stay as they are. For checks.
  [[nodiscard]] FrameNumber frame_at(VirtAddr va) const;
  [[nodiscard]] std::uint64_t mappings() const;
  [[nodiscard]] std::uint64_t tables() const;
  [[nodiscard]] SpaceId id() const { return space_.id; }

 private:
  bool enter_one(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring, bool may_reclaim)
      REQUIRES(space_.family->lock);
  bool reclaim(EnterResult shortage, VirtAddr keep) REQUIRES(space_.family->lock);

  SoftPmapSystem& system_;
  SoftSpace& space_;
};

class SoftPmapSystem final : public PmapSystem, private PvPool::Victims, private FamilyKeeper {
 public:
  /// `frame_bytes`: frame n's bytes are at frame_bytes + n * kPageSize. Memory for tables comes from the
  /// arena.
  SoftPmapSystem(Arena& arena, std::byte* frame_bytes, PageCount frames, const SoftPmapOptions& options = {});
  ~SoftPmapSystem() override = default;

  [[nodiscard]] std::unique_ptr<Pmap> create_pmap() override;
  void set_sink(PageStateSink& sink) override { shared_.sink = &sink; }
  [[nodiscard]] bool has_reference_bits() const override { return shared_.options.reference_bits; }
  void remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) override;
  void remove_write(FrameNumber frame) override;
  unsigned ts_referenced(FrameNumber frame) override;
  [[nodiscard]] bool is_modified(FrameNumber frame) override;
  void clear_modify(FrameNumber frame) override;

  /// Set before the first use, or never.
  void set_events(PmapEventSink& events) { shared_.counts.events = &events; }
  /// What was decided since the start: events of pv entries, forks, superpages, shared tables.
  [[nodiscard]] const CountingPmapEvents& decisions() const { return shared_.counts.decisions; }
  void pin(FrameNumber frame) { shared_.pvs.pin(frame); }
  void unpin(FrameNumber frame) { shared_.pvs.unpin(frame); }

  /// What the mappings of a frame are: page-table entries, or places where it shows. They differ where tables
  /// are shared: an entry in a table of three spaces is one or three (designs.md §3 asks for both).
  enum class MapCount : std::uint8_t { kEntries, kSharers };
  [[nodiscard]] unsigned mapcount(FrameNumber frame, MapCount what);
  /// Calls `visit` for each mapping of the frame, from its pv list; once for each sharer of a shared table,
  /// and not for what was thrown away whole and is still to be reaped. For checks: no fork may run, which
  /// changes who shares.
  void for_each_mapping_of(FrameNumber frame, FunctionRef<void(VirtAddr, bool writable)> visit);
  /// The same, with the space that each mapping is of.
  void for_each_place_of(FrameNumber frame, FunctionRef<void(SpaceId, VirtAddr, bool writable)> visit);
  [[nodiscard]] std::size_t pv_entries() const { return shared_.pv_pool->live(); }
  [[nodiscard]] std::size_t pv_bytes() const { return shared_.pv_pool->bytes(); }
  [[nodiscard]] std::size_t free_tables() const { return tables_->free_tables(); }
  [[nodiscard]] std::size_t table_bytes() const { return tables_->bytes(); }
  [[nodiscard]] const SoftPmapOptions& options() const { return shared_.options; }
  /// Checks all spaces, tables and pv lists against each other; an explanation, or nullptr. Nothing else may
  /// run.
  [[nodiscard]] const char* find_error();

  // For SoftPmap.
  [[nodiscard]] SoftShared& shared() { return shared_; }
  [[nodiscard]] PageTables& tables() { return *tables_; }
  [[nodiscard]] ForkPolicy& fork_policy() { return *fork_policy_; }
  [[nodiscard]] std::byte* bytes_of(FrameNumber frame) const {
    return frame_bytes_ + frame.value() * kPageSize;
  }
  /// Removes the unwired mappings that the frames have elsewhere than at va, va + 1 page ... of `space`.
  void steal(const SoftSpace& space, VirtAddr va, std::span<const FrameNumber> frames);
  /// Gets pv entries back, or a table page, for a family that is locked exclusively.
  bool reclaim_pv(TableFamily& self, VirtAddr keep) { return shared_.pv_pool->reclaim(self, keep, *this); }
  bool reclaim_table(TableFamily& self);
  /// Above the high-water mark of pv entries: destroys mappings of frames that are not in use, a bounded
  /// number of frames at a time; the frames in `keep` were entered just now.
  void collect_pvs(std::span<const FrameNumber> keep);
  /// Removes mappings that a member of the family threw away whole, up to `most` and a little.
  void reap(TableFamily& family, std::uint64_t most);
  /// Removes the small mappings of a space that shares no tables without a search for their pv entries, where
  /// the pool knows them by owner. What may be left are superpages.
  void remove_own_entries(SoftSpace& space);
  /// The space is empty and its pmap gone: it may be used again.
  void release(SoftSpace& space);

 private:
  using FamilyList = IntrusiveList<TableFamily, &TableFamily::link>;
  using SpaceList = IntrusiveList<SoftSpace, &SoftSpace::link>;

  // PvPool::Victims
  bool throw_some_away(TableFamily& family, VirtAddr keep) override;
  bool throw_others_away(TableFamily& self) override;
  bool remove(PvEntry& pv, TableFamily& self, VirtAddr keep) override;

  // FamilyKeeper
  void abandon(TableFamily& family) override;
  SoftSpace* take_space() override;
  void give_space(SoftSpace& space) override;

  template <class Want>
  TableFamily* split_superpages(FrameNumber frame, Want&& want, Shootdown& told, std::uint64_t* steps);
  template <class Want, class Act>
  void for_each_locked(FrameNumber frame, Shootdown& told, Want&& want, Act&& act);
  /// A cast-off space that is empty leaves its family.
  void retire(SoftSpace& relic);
  /// Calls take(family) for other families that can be locked at once, until it says true.
  bool try_others(const TableFamily& self, FunctionRef<bool(TableFamily&)> take);
  TableFamily* lock_another(const TableFamily& self);
  [[nodiscard]] bool any_mapping(FrameNumber frame, std::uint64_t bits);
  [[nodiscard]] bool stands_for_all(const PvEntry& pv, FrameNumber frame);

  Arena& arena_;
  std::byte* frame_bytes_;
  SoftShared shared_;
  std::unique_ptr<PageTables> tables_;
  std::unique_ptr<ForkPolicy> fork_policy_;
  Mutex spaces_lock_{LockRank::kPvList};
  FamilyList families_ GUARDED_BY(spaces_lock_);
  FamilyList free_families_ GUARDED_BY(spaces_lock_);
  SpaceList free_spaces_ GUARDED_BY(spaces_lock_);
  SpaceId next_id_ GUARDED_BY(spaces_lock_) = 0;
  // The hand of collect_pvs().
  std::atomic<bool> collecting_{false};
  std::uint32_t hand_ = 0;
  bool idle_only_ = true;
};

}  // namespace enchilada
