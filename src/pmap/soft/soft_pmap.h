// SoftPmap and SoftPmapSystem: address spaces of the soft machine, x86-64 page tables that a simulated CPU
// walks.
//
// Invariants: the law of the pmap (every unwired mapping may be thrown away, with its bits reported first); a
// store through access() is visible, and its dirty bit set, before the operation that removes or
// write-protects the mapping returns. Page tables and pv entries come from an arena; when they run out,
// enter() throws its own space's unwired mappings away, then those of other spaces that nobody uses just now.
// Lock order: a space's lock -> a frame's pv lock -> pools. From a frame to a space, and from one space to
// another, the space is try-locked.
#pragma once

#include <memory>

#include "pmap/soft/soft_space.h"
#include "vm/pmap.h"

namespace enchilada {

class SoftPmapSystem;

class SoftPmap final : public Pmap {
 public:
  SoftPmap(SoftPmapSystem& system, SoftSpace& space) : system_(system), space_(space) {}
  ~SoftPmap() override;

  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access access,
                  Wiring wiring) override;
  void remove(VirtRange range) override;
  void protect(VirtRange range, Prot prot) override;
  void unwire(VirtRange range) override;
  /// Copies present mappings, read-only and unwired, while page-table memory lasts.
  void copy_from(Pmap& source, VirtRange range) override;

  /// One access as the CPU makes it: walks the tables, sets accessed and dirty bits, and lets `use` have the
  /// byte at `va` and those after it in the same page. False: page fault, nothing done. `use` must not access
  /// or map anything.
  bool access(VirtAddr va, Access access, FunctionRef<void(std::byte*)> use);

  /// Throws away unwired mappings for which `drop` says true. Always legal: the law of the pmap.
  void drop_if(FunctionRef<bool(const SoftMapping&)> drop);
  void for_each_mapping(FunctionRef<void(const SoftMapping&)> visit) const;
  [[nodiscard]] std::uint64_t mappings() const;
  [[nodiscard]] std::uint64_t tables() const;

 private:
  bool enter_one(VirtAddr va, FrameNumber frame, Prot prot, Wiring wiring, bool may_reclaim)
      REQUIRES(space_.lock);
  bool reclaim(SoftSpace::EnterResult shortage, VirtAddr keep) REQUIRES(space_.lock);

  SoftPmapSystem& system_;
  SoftSpace& space_;
};

class SoftPmapSystem final : public PmapSystem {
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
  void set_events(PmapEventSink& events) { shared_.events = &events; }
  void pin(FrameNumber frame) { shared_.pvs.pin(frame); }
  void unpin(FrameNumber frame) { shared_.pvs.unpin(frame); }

  /// Calls `visit` for each mapping of the frame, from its pv list.
  void for_each_mapping_of(FrameNumber frame, FunctionRef<void(VirtAddr, bool writable)> visit);
  [[nodiscard]] std::size_t pv_entries() const { return shared_.pvs.live(); }
  [[nodiscard]] std::size_t free_tables() const { return shared_.tables.free_count(); }
  [[nodiscard]] const SoftPmapOptions& options() const { return shared_.options; }
  /// Checks all spaces, tables and pv lists against each other; an explanation, or nullptr. Nothing else may
  /// run.
  [[nodiscard]] const char* find_error();

  // For SoftPmap.
  [[nodiscard]] const SoftShared& shared() const { return shared_; }
  [[nodiscard]] std::byte* bytes_of(FrameNumber frame) const {
    return frame_bytes_ + frame.value() * kPageSize;
  }
  /// Removes the unwired mappings that the frames have elsewhere than at va, va + 1 page ... of `space`.
  void steal(const SoftSpace& space, VirtAddr va, std::span<const FrameNumber> frames);
  /// Throws mappings of another space away; false when every other one is in use or has nothing to give.
  bool reclaim_from_others(const SoftSpace& self, bool want_table);
  /// The space is empty and its pmap gone: it may be used again.
  void release(SoftSpace& space);

 private:
  using SpaceList = IntrusiveList<SoftSpace, &SoftSpace::link>;

  template <class Want, class Act>
  std::uint64_t for_each_locked(FrameNumber frame, Want&& want, Act&& act);
  /// Some other space, locked exclusively; nullptr when none can be locked at once.
  SoftSpace* lock_another(const SoftSpace& self);

  Arena& arena_;
  std::byte* frame_bytes_;
  SoftShared shared_;
  Mutex spaces_lock_{LockRank::kPvList};
  SpaceList spaces_ GUARDED_BY(spaces_lock_);
  SpaceList free_spaces_ GUARDED_BY(spaces_lock_);
};

}  // namespace enchilada
