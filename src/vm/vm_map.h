// VmMap: the entries of one address space, in a balanced tree with the largest free gap per subtree.
//
// DRAFT OF THE SEAM (what vm_fault, the runtime and the tests call); the owner of this file completes it.
// Reference: freebsd-vm.md §1.3 and §3. Every operation is O(log n) plus the entries it changes.
// Lock: map.lock() (rank kMap); timestamp() grows at every exclusive acquire. Object references are dropped only
// after the map is unlocked.
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

class VmObject;

/// What an entry maps. Foreign: the machine's own mapping lies there (a file, shared memory); the engine only keeps
/// the addresses taken and never faults them.
enum class EntryKind : std::uint8_t { kObject, kGuard, kForeign };

struct MapEntry;  // vm_map_entry.h

/// What a fault needs to know about an address; valid while the map is locked (shared) or timestamp is unchanged.
struct MapLookup {
  VmObject* object = nullptr;   // the entry's object (first_object); made if there was none
  PageIndex index;              // page of the object at the address
  Prot prot = Prot::kNone;      // what may be entered: without kWrite while the entry still needs a copy
  bool wired = false;
  Advice advice = Advice::kNormal;
  VirtRange entry_range;        // for prefault and clustering: the entry's addresses ...
  PageIndex entry_first_index;  // ... and the object page at entry_range.start
  std::uint64_t timestamp = 0;
};

class VmMap {
 public:
  /// An empty map over `bounds`, with its own pmap.
  static std::unique_ptr<VmMap> create(VmSystem& system, VirtRange bounds);
  ~VmMap();

  struct MapRequest {
    ByteCount length;
    VirtAddr hint{0};                 // fixed: the address; else the lowest address to try
    std::uint64_t alignment = kPageSize;
    Prot prot = Prot::kReadWrite;
    Prot max_prot = Prot::kAll;
    Inherit inherit = Inherit::kCopy;
    EntryKind kind = EntryKind::kObject;
    enum class Placement : std::uint8_t { kAnywhere, kFixedReplace, kFixedExclusive } placement = Placement::kAnywhere;
  };
  /// mmap: finds room (or replaces / refuses), inserts an anonymous zero-fill entry (no object yet), merges.
  KernReturn map(const MapRequest& request, VirtAddr* address);

  /// munmap: holes are fine. protect: all or nothing. advise/inherit/wire as §3.
  KernReturn remove(VirtRange range);
  KernReturn protect(VirtRange range, Prot prot);
  KernReturn inherit(VirtRange range, Inherit inherit);
  KernReturn advise(VirtRange range, Advice advice);
  KernReturn wire(VirtRange range);
  KernReturn unwire(VirtRange range);
  /// mremap: moves the entries of `from` (no hole allowed) to `to` (same length or longer; the tail is new zero-fill
  /// memory); contents move with their objects, nothing is copied. keep_source leaves fresh zero-fill memory behind.
  KernReturn remap(VirtRange from, VirtRange to, bool keep_source);
  /// Is [range] free of entries / fully covered?
  [[nodiscard]] bool is_free(VirtRange range);
  [[nodiscard]] bool is_covered(VirtRange range);
  [[nodiscard]] std::optional<VirtAddr> find_space(VirtAddr lowest, ByteCount length, std::uint64_t alignment);
  /// Strictest protection over the range; kNone also where there is a hole.
  [[nodiscard]] Prot check_protection(VirtRange range);

  /// fork(2): a new map in the same VmSystem with what each entry's inheritance says (§1.3). Null: resources.
  [[nodiscard]] std::unique_ptr<VmMap> fork();

  /// For vm_fault: finds the entry, resolves needs-copy for writes (creating the shadow), creates a missing object.
  /// kSuccess leaves the map locked SHARED (the caller unlocks with unlock_shared()); anything else leaves it
  /// unlocked. Guard/foreign/hole: kInvalidAddress. Access not allowed: kProtectionFailure.
  KernReturn lookup(VirtAddr address, Access access, MapLookup* found);
  void unlock_shared();
  /// Try to take the shared lock again after sleeping; false when the map changed since `timestamp` (then unlocked).
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
    unsigned wired_count;
    VmObject* object;
    PageIndex offset;
  };
  void for_each_entry(FunctionRef<void(const EntryView&)> visit);

  /// Process fork support (runtime): take/release the map lock exclusively around a kernel fork.
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
  VmMap();
  struct Impl;
  Impl* impl_;
};

}  // namespace enchilada
