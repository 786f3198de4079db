// VmMap: the entries of one address space, in a search structure (a mode) that also knows the free gaps.
//
// Reference: freebsd-vm.md §1.3 and §3. Every operation is O(log n) plus the entries it changes.
// Lock: one shared lock inside (rank kMap); timestamp() grows at every exclusive acquire. Object references
// are dropped only after the map is unlocked. Ranges must be page aligned, not empty and within bounds():
// otherwise kInvalidArgument (alignment, empty) or kInvalidAddress (bounds). An operation that fails has
// changed nothing, unless it says otherwise.
#pragma once

#include <memory>
#include <optional>

#include "base/arena.h"
#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/pmap.h"
#include "vm/vm_system.h"
#include "vm/vm_types.h"

namespace enchilada {

class MapImage;
class VmObject;

/// What an entry maps. Foreign: the machine's own mapping lies there (a file, shared memory); the engine only
/// keeps the addresses taken and never faults them.
enum class EntryKind : std::uint8_t { kObject, kGuard, kForeign };

/// Who wires. The user's wiring (mlock) does not nest; the system's (memory that a system call is using)
/// does.
enum class WireKind : std::uint8_t { kSystem, kUser };

struct MapEntry;  // vm_map_entry.h
struct MapEntryZone;

/// What a fault needs to know about an address; valid while the map is locked (shared) or timestamp is
/// unchanged.
struct MapLookup {
  VmObject* object = nullptr;  // the entry's object (first_object); made if there was none
  PageIndex index;             // page of the object at the address
  Prot prot = Prot::kNone;     // what may be entered: without kWrite while the entry still needs a copy
  bool wired = false;
  Advice advice = Advice::kNormal;
  VirtRange entry_range;        // for prefault and clustering: the entry's addresses ...
  PageIndex entry_first_index;  // ... and the object page at entry_range.start
  std::uint64_t timestamp = 0;
};

class VmMap {
 public:
  /// An empty map over `bounds`, with its own pmap. Null: no pmap to be had.
  static std::unique_ptr<VmMap> create(VmSystem& system, VirtRange bounds);
  /// The map must not be in use any more; unmaps everything.
  ~VmMap();
  VmMap(const VmMap&) = delete;
  VmMap& operator=(const VmMap&) = delete;

  struct MapRequest {
    ByteCount length{};
    VirtAddr hint{0};  // fixed: the address; else the lowest address to try
    std::uint64_t alignment = kPageSize;
    Prot prot = Prot::kReadWrite;
    Prot max_prot = Prot::kAll;
    Inherit inherit = Inherit::kCopy;
    EntryKind kind = EntryKind::kObject;
    enum class Placement : std::uint8_t {
      kAnywhere,
      kFixedReplace,
      kFixedExclusive
    } placement = Placement::kAnywhere;
    /// What to map, from page `offset` on; the map takes a reference of its own. Null: anonymous memory.
    VmObject* object = nullptr;
    PageIndex offset{0};
    /// With an object: writes go to it and forks share it (MAP_SHARED), else to copies of this map's own.
    bool shared = false;
  };
  /// mmap: finds room (or replaces / refuses), inserts an entry (without an object yet if it is anonymous,
  /// which reads as zeros), merges. A mapping may reach beyond a file's end; accesses there are out of
  /// bounds. The length is rounded up to pages. Anywhere: the lowest fit at or above the hint, else kNoSpace.
  KernReturn map(const MapRequest& request, VirtAddr* address);

  /// munmap; holes are fine. Wired memory is unwired first.
  KernReturn remove(VirtRange range);
  /// mprotect, all or nothing: a hole is kInvalidAddress, rights beyond an entry's maximum
  /// kProtectionFailure, and then nothing has changed. Guards and foreign entries are skipped. More rights
  /// are given lazily, by faults.
  KernReturn protect(VirtRange range, Prot prot);
  /// minherit; holes are skipped, kZero has no effect on guards and foreign entries.
  KernReturn inherit(VirtRange range, Inherit inherit);
  /// madvise; holes, guards and foreign entries are skipped. kDiscard refuses wired memory
  /// (kInvalidArgument); on an entry that is inherited by sharing it drops mappings only, as for Linux's
  /// shared memory; a private mapping of a file loses its copies and shows the file again.
  KernReturn advise(VirtRange range, Advice advice);
  /// mlock/munlock. wire: holes and inaccessible entries are kInvalidAddress; all or nothing. unwire: does
  /// what it can; kInvalidAddress when there was a hole.
  KernReturn wire(VirtRange range, WireKind kind = WireKind::kUser);
  KernReturn unwire(VirtRange range, WireKind kind = WireKind::kUser);
  /// mremap: moves the entries of `from` (no hole allowed) to `to` (same length or longer; the tail is new
  /// zero-fill memory, or more of the file); contents move with their objects, nothing is copied. keep_source
  /// leaves fresh zero-fill memory, or the file, behind. What lies in `to` is unmapped first. The ranges may
  /// not overlap, except that equal starts mean growth in place (the tail must be free then: kNoSpace).
  /// Foreign entries cannot move (kInvalidArgument).
  KernReturn remap(VirtRange from, VirtRange to, bool keep_source);
  /// The same to the lowest free place that place.length, hint and alignment allow (the rest of `place` is
  /// ignored); finding it and moving are one step, so that no other thread can map there in between.
  KernReturn remap_anywhere(VirtRange from, const MapRequest& place, bool keep_source, VirtAddr* address);
  /// msync: the files behind the range, also those behind private mappings. length 0 = the entry that
  /// contains the start. wait: their dirty pages are written now (kFailure: some could not be, and stay
  /// dirty); else the laundry will do it. invalidate: also frees them, so that the next access reads the file
  /// again. A hole is kInvalidAddress; invalidate of mlocked memory kInvalidArgument; then nothing is done.
  struct SyncRequest {
    bool wait = true;
    bool invalidate = false;
  };
  KernReturn sync(VirtRange range, SyncRequest request);
  /// Is [range] free of entries / fully covered? Addresses outside the bounds are neither.
  [[nodiscard]] bool is_free(VirtRange range);
  [[nodiscard]] bool is_covered(VirtRange range);
  [[nodiscard]] std::optional<VirtAddr> find_space(VirtAddr lowest, ByteCount length,
                                                   std::uint64_t alignment);
  /// Strictest protection over the range; kNone also where there is a hole.
  [[nodiscard]] Prot check_protection(VirtRange range);

  /// fork(2): a new map in the same VmSystem with what each entry's inheritance says (§1.3). Null: resources.
  [[nodiscard]] std::unique_ptr<VmMap> fork();

  /// Remembers what the range holds (vm_map_image.h): O(entries), no page is copied; the range must be
  /// covered (kInvalidAddress). kInvalidArgument: foreign or shared entries, or wired writable memory, which
  /// is written to without faults and so cannot be copied on write. Allocates the image from the C library:
  /// not on a fault path.
  KernReturn capture(VirtRange range, std::unique_ptr<MapImage>* image);
  /// Maps the image at `at`, instead of what is there; the image stays as it is and may be used again. Where
  /// the map still shows the image's objects under what was written since, only pages that were written lose
  /// their mappings. kInvalidArgument: another map's image, or foreign or wired memory in the way.
  KernReturn restore(const MapImage& image, VirtAddr at);
  /// Calls `visit` for the ranges at `at` whose pages no longer come from where the image has them: a
  /// superset of what was written since capture() (a page written with what it held counts; so does a hole).
  /// Ascending. The cost grows with those pages, not with the range. The caller holds the gate exclusively.
  void for_each_change(const MapImage& image, VirtAddr at, FunctionRef<void(VirtRange)> visit);
  /// Only ~MapImage() calls it.
  void release_image(MapEntry* entries);

  /// Rights: writing needs kWrite, reading any right at all (as on x86: what is writable or executable is
  /// readable). For vm_fault: finds the entry, resolves needs-copy for writes (creating the shadow), creates
  /// a missing object. kSuccess leaves the map locked SHARED (the caller unlocks with unlock_shared());
  /// anything else leaves it unlocked. Guard/foreign/hole: kInvalidAddress. Access not allowed:
  /// kProtectionFailure.
  KernReturn lookup(VirtAddr address, Access access, MapLookup* found);
  void unlock_shared();
  /// Try to take the shared lock again after sleeping; false when the map changed since `timestamp` (then
  /// unlocked).
  [[nodiscard]] bool relock_if_unchanged(std::uint64_t timestamp);
  [[nodiscard]] std::uint64_t timestamp() const;

  /// Calls `visit` for each entry in address order, map locked shared.
  struct EntryView {
    VirtRange range;
    EntryKind kind;
    Prot prot;
    Prot max_prot;
    Inherit inherit;
    bool needs_copy;
    Advice advice;
    unsigned wired_count;
    VmObject* object;
    PageIndex offset;
  };
  void for_each_entry(FunctionRef<void(const EntryView&)> visit);

  /// Process fork support (runtime): take/release the map lock exclusively around a kernel fork, when no
  /// operation is half done by another thread (wiring, dropping references). The child may unlock what the
  /// parent's thread locked.
  void lock_for_process_fork();
  void unlock_after_process_fork();

  [[nodiscard]] Pmap& pmap() const;
  [[nodiscard]] VmSystem& system() const;
  [[nodiscard]] VirtRange bounds() const;
  [[nodiscard]] std::size_t entry_count() const;
  [[nodiscard]] ByteCount size() const;  // sum of the entries' lengths, guards excluded

  /// Invariants of §3 ("Map invariants"); stops the program with a message when one is broken.
  void validate();

 private:
  VmMap() = default;
  static std::unique_ptr<VmMap> create_with(VmSystem& system, VirtRange bounds,
                                            std::shared_ptr<MapEntryZone> zone);
  struct Impl;
  Impl* impl_ = nullptr;
};

}  // namespace enchilada
