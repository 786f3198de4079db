// VmMap::Impl: what the vm_map*.cc files share. No other file includes this.
//
// How an operation is built: a Writer locks the map, waits until nobody works on the range with the map
// unlocked, and collects entries that leave the map; checks come first, then both ends are clipped (the last
// thing that can fail), then entries change, then simplify() merges equal neighbours. ~Writer unlocks and
// only then drops the collected entries' object references.
#pragma once

#include <atomic>
#include <memory>

#include "base/mutex.h"
#include "vm/vm_map.h"
#include "vm/vm_map_entry.h"
#include "vm/vm_map_tree.h"

namespace enchilada {

class VmObjectZone;

struct VmMap::Impl {
  class Writer;
  class SpareEntries;

  Impl(VmMap& self, VmSystem& system, VirtRange bounds, std::unique_ptr<Pmap> pmap,
       std::shared_ptr<MapEntryZone> zone);
  ~Impl();

  // --- vm_map.cc: locking, entries, clipping, merging, insertion
  void lock_exclusive() ACQUIRE(lock);
  void unlock_exclusive() RELEASE(lock);
  void advance_timestamp() REQUIRES(lock);
  [[nodiscard]] VmObjectZone& objects() const;
  [[nodiscard]] KernReturn check_range(VirtRange range) const;
  [[nodiscard]] MapEntry* new_entry() REQUIRES(lock);
  void free_entry(MapEntry* entry) noexcept;  // any thread, any time
  void return_entries_to_zone() REQUIRES(lock);
  /// One entry more belongs to this map: its index must have room for it.
  [[nodiscard]] bool adopt_entry() REQUIRES(lock);
  [[nodiscard]] bool covered(VirtRange range) REQUIRES_SHARED(lock);
  [[nodiscard]] bool transition_in(VirtRange range) REQUIRES(lock);
  void end_transition(MapEntry* entry) REQUIRES(lock);
  void wake_transition_waiters();
  bool ensure_object(MapEntry* entry) REQUIRES(lock);

  /// Makes `address` a boundary between entries, if it lies inside one. False: no memory for the new entry.
  [[nodiscard]] bool clip_at(VirtAddr address) REQUIRES(lock);
  [[nodiscard]] bool clip(VirtRange range, Writer& writer) REQUIRES(lock);
  [[nodiscard]] static bool mergeable(const MapEntry& first, const MapEntry& second);
  /// An entry whose addresses another one has taken over.
  void retire_merged(MapEntry* entry, Writer& writer) REQUIRES(lock);
  /// Merges what can be merged among the entries that overlap or touch the range.
  void simplify(VirtRange range, Writer& writer) REQUIRES(lock);
  /// Puts `entry` (range and attributes set) in; without an object it shares the previous entry's where it
  /// can.
  void insert(MapEntry* entry, Writer& writer) REQUIRES(lock);
  /// Does a file lie below the page at `address` of `like`? Then it, and the page's place in it, become
  /// `entry`'s.
  void show_file_below(const MapEntry& like, VirtAddr address, MapEntry* entry) REQUIRES(lock);
  void link(MapEntry* prev, MapEntry* entry) REQUIRES(lock);
  void unlink(MapEntry* entry) REQUIRES(lock);
  KernReturn map(const MapRequest& request, VirtAddr* address);
  void insert_as_asked(MapEntry* entry, const MapRequest& request, VirtRange range, Writer& writer)
      REQUIRES(lock);
  KernReturn map_fixed(const MapRequest& request, VirtRange range);
  KernReturn map_anywhere(const MapRequest& request, ByteCount length, VirtAddr* address);

  // --- vm_map_remove.cc
  KernReturn remove(VirtRange range);
  /// Empties the range: the part of remove() after the checks. False: no memory to clip, nothing done.
  [[nodiscard]] bool remove_locked(VirtRange range, Writer& writer) REQUIRES(lock);
  /// Frees what of the object's contents nobody else sees, and its mappings with it.
  void free_unshared(const MapEntry& entry, VirtRange range) REQUIRES(lock);
  void free_unshared(VirtRange range) REQUIRES(lock);
  void remove_mappings(VirtRange range) REQUIRES(lock);

  // --- vm_map_protect.cc: protect, inherit
  KernReturn protect(VirtRange range, Prot prot);
  /// What a protect() would meet: its first entry, whether any right changes, whether anything is wired.
  struct ProtectCheck {
    MapEntry* first = nullptr;
    bool changes = false;
    bool wired = false;
  };
  KernReturn check_protect(VirtRange range, Prot prot, ProtectCheck* check) REQUIRES(lock);
  bool protect_by_shift(MapEntry* entry, VirtRange range, Prot prot) REQUIRES(lock);
  /// Wired entries that became writable while they await a copy: the copy is made and wired now.
  void copy_wired_writable(VirtRange range) REQUIRES(lock);
  KernReturn inherit(VirtRange range, Inherit inherit);

  // --- vm_map_advise.cc
  KernReturn advise(VirtRange range, Advice advice);
  KernReturn set_advice(VirtRange range, Advice advice);
  KernReturn discard(VirtRange range);
  KernReturn free_contents(VirtRange range);
  bool sole_user(const MapEntry& entry) REQUIRES(lock);
  void forget_object(MapEntry* entry, MapEntry* carrier, Writer& writer) REQUIRES(lock);
  template <class Work>
  void for_each_object(VirtRange range, Work work);
  KernReturn deactivate(VirtRange range);
  KernReturn will_need(VirtRange range);

  // --- vm_map_sync.cc
  KernReturn sync(VirtRange range, SyncRequest request);
  KernReturn check_sync(VirtRange range, SyncRequest request) REQUIRES_SHARED(lock);
  bool next_in_swap(VmObject& object, PageIndex* index, PageIndex end);

  // --- vm_map_wire.cc
  KernReturn wire(VirtRange range, WireKind kind);
  KernReturn unwire(VirtRange range, WireKind kind);
  KernReturn check_wire(VirtRange range) REQUIRES(lock);
  /// Faults the entries' pages in; on failure `stopped` is the entry that failed. first..last are in
  /// transition.
  KernReturn wire_entries(MapEntry* first, MapEntry* last, WireKind kind, MapEntry** stopped) REQUIRES(lock);
  void undo_wiring(MapEntry* first, MapEntry* stopped) REQUIRES(lock);
  /// Lets go of an entry's pages with the lock dropped meanwhile; the entry stays where it is.
  void unwire_entry(MapEntry* entry) REQUIRES(lock);
  void rewire_entry(MapEntry* entry) REQUIRES(lock);
  /// Unwires whatever is wired in the range; the lock is dropped meanwhile, but when true comes back nothing
  /// there is wired or in transition. False: no memory to clip.
  [[nodiscard]] bool unwire_all(VirtRange range, Writer& writer) REQUIRES(lock);

  // --- vm_map_remap.cc
  KernReturn remap(VirtRange from, VirtRange to, bool keep_source);
  KernReturn remap_anywhere(VirtRange from, const MapRequest& place, bool keep_source, VirtAddr* address);
  /// Moves and extends; `from` is checked, nothing in `to` is wired. Nothing has changed when it fails.
  KernReturn move_range(VirtRange from, VirtRange to, bool keep_source, Writer& writer) REQUIRES(lock);
  KernReturn grow_in_place(VirtRange from, VirtRange to, Writer& writer) REQUIRES(lock);
  KernReturn check_remap(VirtRange from) REQUIRES(lock);
  void move_entries(VirtRange from, VirtRange to, bool keep_source, SpareEntries& spares) REQUIRES(lock);

  // --- vm_map_fork.cc
  /// Calls `add` for each resident page of an object (locked by the caller) whose page `first` a range starts
  /// with.
  static void for_each_shown(const VmObject& object, PageIndex first, VirtRange range,
                             FunctionRef<void(VirtRange)> add);
  /// Calls `add` for the ranges of a private entry that may be mapped writable: pages of its own object.
  void for_each_writable(const MapEntry& entry, FunctionRef<void(VirtRange)> add) REQUIRES(lock);
  std::unique_ptr<VmMap> fork();
  bool fork_entry(MapEntry* entry, bool at_once, Impl& child) REQUIRES(lock);
  bool share_with_child(MapEntry* entry, MapEntry* copy) REQUIRES(lock);
  bool copy_on_write_with_child(MapEntry* entry, MapEntry* copy) REQUIRES(lock);
  bool copy_now_with_child(MapEntry* entry, MapEntry* copy) REQUIRES(lock);
  /// In the child, after the parent is unlocked: writes to every page that must not stay shared.
  [[nodiscard]] bool finish_fork();

  // --- vm_map_image.cc
  KernReturn capture(VirtRange range, MapEntry** image);
  KernReturn restore(const MapImage& image, VirtAddr at);
  bool unmap_down_to(const MapEntry& entry, const VmObject* target, PageIndex target_offset) REQUIRES(lock);
  void refer_to(VmObject& object);
  bool put_back_in_place(MapEntry* entry, const MapEntry& saved, SpareEntries& spares, Writer& writer)
      REQUIRES(lock);
  void for_each_change(const MapImage& image, VirtAddr at, FunctionRef<void(VirtRange)> visit);
  void compare(const MapEntry* entry, const MapEntry& saved, VirtRange place, VirtAddr saved_at,
               FunctionRef<void(VirtRange)> visit) REQUIRES_SHARED(lock);

  // --- vm_map_lookup.cc
  KernReturn lookup(VirtAddr address, Access access, MapLookup* found);
  KernReturn resolve(MapEntry* entry, Access access) REQUIRES(lock);

  void validate() REQUIRES_SHARED(lock);

  VmMap& self;
  VmSystem& system;
  const VirtRange bounds;
  const std::unique_ptr<Pmap> pmap;
  const std::shared_ptr<MapEntryZone> zone;

  SharedMutex lock{LockRank::kMap};
  std::atomic<std::uint64_t> timestamp{0};
  MapEntries entries GUARDED_BY(lock);
  std::size_t own_entries GUARDED_BY(lock) = 0;       // in the map, in use, or ready for it
  std::uint64_t mapped_bytes GUARDED_BY(lock) = 0;    // lengths of all entries but guards
  MapEntry* free_entries GUARDED_BY(lock) = nullptr;  // ready for new_entry(), linked by next
  std::atomic<MapEntry*> returned{nullptr};  // entries freed by anyone; new_entry() takes them all at once
  std::uint32_t in_transition GUARDED_BY(lock) = 0;  // entries marked so
  std::atomic<std::uint32_t> transition_event{0};    // moves when a mark goes; waiters sleep on it
  std::atomic<std::uint32_t> deferred{0};    // Writers that are dropping references after their unlock
  std::atomic<std::uint32_t> fork_waits{0};  // a process fork sleeps on `deferred`
};

/// Holds the map exclusively; see the top of this file.
class SCOPED_CAPABILITY VmMap::Impl::Writer {
 public:
  explicit Writer(Impl& map) ACQUIRE(map.lock) : map_(map) { map_.lock_exclusive(); }
  ~Writer() RELEASE() { finish(); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  /// Waits (unlocked) until no entry that overlaps the range is in transition.
  void wait_until_stable(VirtRange range) NO_THREAD_SAFETY_ANALYSIS;
  /// `entry` has left the map: drops its object reference and frees it after the unlock.
  void defer(MapEntry* entry) {
    entry->next = dead_;
    dead_ = entry;
  }

 private:
  void finish() NO_THREAD_SAFETY_ANALYSIS;
  Impl& map_;
  MapEntry* dead_ = nullptr;
};

/// Entries set aside before an operation that must not fail half way; what is left over goes back.
class VmMap::Impl::SpareEntries {
 public:
  explicit SpareEntries(Impl& map) : map_(map) {}
  ~SpareEntries();
  SpareEntries(const SpareEntries&) = delete;
  SpareEntries& operator=(const SpareEntries&) = delete;
  /// Under the map's exclusive lock.
  [[nodiscard]] bool reserve(std::size_t n) NO_THREAD_SAFETY_ANALYSIS;
  [[nodiscard]] MapEntry* take();

 private:
  Impl& map_;
  MapEntry* list_ = nullptr;
};

/// Joins ranges that touch, given in ascending order, and calls `flush` once per run: one pmap call, one
/// shoot-down.
template <class Flush>
class RangeRuns {
 public:
  explicit RangeRuns(Flush flush) : flush_(flush) {}
  ~RangeRuns() { done(); }
  RangeRuns(const RangeRuns&) = delete;
  RangeRuns& operator=(const RangeRuns&) = delete;
  void add(VirtRange range) {
    if (!run_.empty() && run_.end == range.start) {
      run_.end = range.end;
      return;
    }
    done();
    run_ = range;
  }
  void done() {
    if (!run_.empty()) flush_(run_);
    run_ = {};
  }

 private:
  Flush flush_;
  VirtRange run_{};
};

/// The part of the entry inside the range.
inline VirtRange overlap(const MapEntry& entry, VirtRange range) {
  return {entry.start < range.start ? range.start : entry.start,
          entry.end > range.end ? range.end : entry.end};
}

/// What the pmap may be asked for: on every machine here what is writable or executable is also readable.
constexpr Prot pmap_prot(Prot prot) {
  return prot == Prot::kNone ? prot : prot | Prot::kRead;
}

}  // namespace enchilada
