// VmObject: a thing that can be mapped, page by page: anonymous memory with a chain of backing objects, a
// file, or frames that stay where they are. Only anonymous objects have a backing object, and only they are
// split, collapsed and bypassed; the others end a chain.
//
// Reference: freebsd-vm.md §1.1-1.4. Lock order among objects: shadow before backing.
// Invariants: page.object/pindex agree with the trie; for every object shadow_count = length of its shadow
// list = number of objects whose backing it is; ref_count >= shadow_count; the backing chain has no cycle; an
// object that shadows hang on is not written through (needs-copy in every entry that maps it), so its pages
// never change. A freed object has no pages, no shadows, no paging in progress and no swap; its memory stays
// a VmObject for ever.
#pragma once

#include <atomic>
#include <span>

#include "base/function_ref.h"
#include "base/intrusive_list.h"
#include "base/mutex.h"
#include "vm/fixed_pager.h"
#include "vm/vm_collapse.h"
#include "vm/vm_page.h"
#include "vm/vm_pager.h"
#include "vm/vm_precopy.h"
#include "vm/vm_radix.h"
#include "vm/vm_sequence.h"
#include "vm/vm_system.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject {
 public:
  /// At most one range of one map maps any page of it.
  static constexpr std::uint32_t kOneMapping = 1;
  /// On its way out: has no reference, waits for I/O to end.
  static constexpr std::uint32_t kDead = 2;
  /// A collapse into this object or of it is running (both locks are held throughout).
  static constexpr std::uint32_t kCollapsing = 4;
  /// Of pip.
  static constexpr std::uint32_t kPagingAwaited = 1, kPagingOne = 2;

  SharedMutex lock{LockRank::kObject};
  std::atomic<std::uint32_t> ref_count{0};  // to 1 or 0 only with the lock held
  // Paging in progress, up under the lock: the object cannot go away. kPagingOne each, and kPagingAwaited
  // while somebody sleeps until there is none.
  std::atomic<std::uint32_t> pip{0};
  std::uint32_t flags = 0;                   // lock
  PageCount size;                            // lock
  VmRadix pages;                             // lock; pages.count() = resident pages
  ObjectKind kind = ObjectKind::kAnonymous;  // constant while live, as is the pager: read without the lock
  Pager* pager = nullptr;                    // its backing store; never null while live
  PagerHandle handle;                        // the pager's

  VmObject* backing = nullptr;     // lock
  PageCount backing_offset;        // lock; page i of this is page i + offset of backing
  std::uint32_t shadow_count = 0;  // lock
  ListLink<VmObject> shadow_link;  // the backing object's lock
  IntrusiveList<VmObject, &VmObject::shadow_link> shadows;  // lock

  SequenceTable reads;             // lock; clusters that were paged in
  SequenceTable fills;             // lock; clusters that were zero-filled
  CopyHistory copied;              // lock; pages that were copied or moved up into this
  CopyHistory copied_from;         // lock; pages that a shadow copied or moved up from this
  NeighbourGuess neighbours;       // any time; for page-ins that continue nothing
  std::uint64_t bypass_retry = 0;  // try again to bypass when this many pages are here

  // Colour of page 0 (FrameOrder), and whether it was chosen or inherited; then it stays.
  static constexpr std::uint32_t kColourFixed = 1u << 31;
  std::atomic<std::uint32_t> colour{0};
  std::uint32_t reservations = ~std::uint32_t{0};  // the frame order's: its first reservation

  ListLink<VmObject> zone_link;  // the zone's lock
  bool live = false;             // the zone's lock

  [[nodiscard]] bool anonymous() const { return kind == ObjectKind::kAnonymous; }
  [[nodiscard]] bool one_mapping() const { return (flags & kOneMapping) != 0; }
  [[nodiscard]] bool dead() const { return (flags & kDead) != 0; }
  [[nodiscard]] std::uint32_t refs() const { return ref_count.load(std::memory_order_acquire); }

  /// Pages that the backing store holds: a hint unless nothing is being written.
  [[nodiscard]] std::uint64_t copies() const {
    return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(handle.pages))
        .load(std::memory_order_relaxed);
  }
  /// Page `index` in the terms of this object's pager.
  [[nodiscard]] PagerRun stored(PageIndex index, PageCount before = PageCount{0},
                                PageCount after = PageCount{0}) const {
    return pager->has_page(handle, index, before, after);
  }

  [[nodiscard]] bool has_base_colour() const {
    return (colour.load(std::memory_order_relaxed) & kColourFixed) != 0;
  }
  [[nodiscard]] std::uint32_t base_colour() const {
    return colour.load(std::memory_order_relaxed) & ~kColourFixed;
  }
  void set_base_colour(std::uint32_t c) { colour.store(c | kColourFixed, std::memory_order_relaxed); }
  /// This object's page i stands for page i + offset of `source`: it wants the same colour.
  void inherit_colour(const VmObject& source, PageCount offset) {
    const std::uint32_t other = source.colour.load(std::memory_order_relaxed);
    const std::uint32_t shifted = other + static_cast<std::uint32_t>(offset.value());
    colour.store((other & kColourFixed) | (shifted & ~kColourFixed), std::memory_order_relaxed);
  }

  /// Paging in progress; begin with the lock held, end without.
  void begin_paging() { pip.fetch_add(kPagingOne, std::memory_order_acquire); }
  void end_paging() {
    // Afterwards the object may be gone; its memory stays (a slab's), so waking at its address harms nobody.
    if (pip.fetch_sub(kPagingOne, std::memory_order_release) == (kPagingOne | kPagingAwaited)) {
      futex_wake(pip, 1 << 30);
    }
  }
  [[nodiscard]] bool paging() const { return pip.load(std::memory_order_acquire) >= kPagingOne; }
  /// Sleeps while there is paging in progress, or returns early. For the only thread that still refers to the
  /// object; without its lock.
  void await_paging();
};

/// Makes, references and destroys objects; fork and collapse live here too. All calls may be made under a map
/// lock unless said otherwise, and take object locks themselves. They may wait for busy pages: whoever holds
/// a page busy never waits for a map lock.
class VmObjectZone {
 public:
  explicit VmObjectZone(VmSystem& system);
  /// Sets metadata aside so that the first faults under pressure find some. False: the arena is too small.
  [[nodiscard]] bool reserve();

  /// A new anonymous object with one reference, ONEMAPPING set; nullptr when metadata is used up.
  [[nodiscard]] VmObject* allocate_anonymous(PageCount size);

  // --- Files (vm_object_file.cc). No lock of the engine held.
  /// The object of a file, with one reference, the caller's, who makes one object a file. `pager` and what
  /// the handle names outlive it. When the last reference goes what is dirty is written.
  [[nodiscard]] VmObject* allocate_file(Pager& pager, const PagerHandle& handle);
  enum class Clean : std::uint8_t { kKeep, kInvalidate };
  /// Writes the dirty pages of [first, end) of a file to it; they stay mapped, but not for writing.
  /// kInvalidate: then frees pages that are clean and not wired. kFailure: something could not be written; it
  /// stays dirty.
  KernReturn clean(VmObject& file, PageIndex first, PageIndex end, Clean how);
  /// The file gets this length, one caller at a time. Pages beyond the end leave memory and every mapping,
  /// wired or not; the rest of the last page, and what an extension adds, reads as zeros. Private copies
  /// stay. kFailure: the store cannot; the length is as before, but pages beyond `length` have lost what was
  /// not written.
  KernReturn resize_file(VmObject& file, ByteCount length);
  /// The file, or frames, at the end of `object`'s chain, referenced; *index becomes its page there. Null:
  /// the chain ends in anonymous memory.
  [[nodiscard]] VmObject* reference_bottom(VmObject& object, PageIndex* index);

  // --- Frames that stay (vm_object_fixed.cc): never paged out, on no queue, and counted as wired.
  /// Zeroed frames, one reference; nullptr when there are not enough.
  [[nodiscard]] VmObject* allocate_physical(PageCount size);
  /// Frames that the machine has and never grants; they are nobody else's until the object goes.
  [[nodiscard]] VmObject* allocate_device(FrameRun frames);

  void reference(VmObject& object);
  /// Drops one reference if that means nothing to the object, because more than one other stays.
  [[nodiscard]] bool try_drop_reference(VmObject& object);
  /// Drops one reference; destroys or collapses as §1.1 says; iterative along the chain. May free pages and
  /// swap, and may wait for I/O on the object: not under a map lock.
  void deallocate(VmObject* object);

  /// Puts a new, empty shadow object between an entry and *object: *object becomes the shadow (one reference,
  /// the entry's), *offset becomes 0; the entry's old reference becomes the shadow's backing reference. Does
  /// nothing but clear the need when the object is anonymous with exactly one reference. False: metadata used
  /// up, nothing done.
  [[nodiscard]] bool shadow(VmObject** object, PageIndex* offset, PageCount length);

  /// Tries to make `object` (an entry maps [offset, offset+size) of it and ends there) cover `extra` further
  /// pages. True: the object now reaches offset+size+extra, with nothing in the extension.
  [[nodiscard]] bool coalesce(VmObject& object, PageIndex offset, PageCount size, PageCount extra);

  /// At fork of an entry of a ONEMAPPING object with several references: gives the range its own object.
  /// *object/*offset are replaced (references moved). False: not possible, nothing done.
  [[nodiscard]] bool split(VmObject** object, PageIndex* offset, PageCount size);

  /// At fork, once the copy has its reference: collapses what can be, clears ONEMAPPING. (Whoever gives the
  /// last other reference up sets the flag again, if it does not see that reference: pages were lost.)
  void prepare_for_copy(VmObject& object);
  void clear_one_mapping(VmObject& object);

  /// Frees pages and swap of [first, first+count) of an object that only this range maps (ONEMAPPING or one
  /// reference), and their mappings with them; the map is locked, so that no fault makes others. Does nothing
  /// when others may still see them.
  void remove_range(VmObject& object, PageIndex first, PageCount count);

  /// Collapse and bypass as far as possible (§1.4). Object unlocked on entry.
  void collapse(VmObject& object);
  /// The same if this engine does it at such moments.
  void collapse_at(CollapseMoment moment, VmObject& object) {
    if (policy_->wants(moment, object)) collapse(object);
  }
  /// What becomes of pages that a copy-on-write fault leaves to nobody.
  [[nodiscard]] SourceFates source_fates() const { return fates_; }

  /// Pages, in memory or in the store alone, of anonymous objects that every shadow hides and no entry maps:
  /// the article's dead pages. The counter dead_pages becomes the answer. Looks at every page: the engine is
  /// at rest.
  [[nodiscard]] std::uint64_t count_dead_pages();

  /// Depth of the backing chain, 1 = no backing.
  [[nodiscard]] unsigned depth(const VmObject& object) const;
  [[nodiscard]] std::size_t live() const;

  // --- For fault and page daemon. The object is locked exclusively and the pages are exclusively busy.
  /// Puts a page that is in no object at index. False: no metadata, nothing done.
  [[nodiscard]] bool insert_page(VmObject& object, PageIndex index, FrameNumber frame);
  /// Takes pages out of their object and off their queues; they stay busy and mapped as they are.
  void remove_pages(VmObject& object, std::span<const FrameNumber> frames);
  /// Frees pages that are in no object and on no queue: unmaps them if they may be mapped, and their contents
  /// are lost; pinned ones go to limbo.
  void release(std::span<const FrameNumber> frames);
  /// Moves a page (busy) from one locked object to another; dirties it and drops its swap copy. False: no
  /// metadata.
  [[nodiscard]] bool rename_page(VmObject& from, Page& page, VmObject& to, PageIndex index);

  /// Does the object's own backing store hold this page of the object?
  [[nodiscard]] bool has_copy(const VmObject& object, PageIndex index);

  /// For walks over all objects while others work: the next one after `previous` (null: the first) that has
  /// copies in swap, held (paging in progress). `previous` is let go. An object that comes, goes or
  /// moves meanwhile may be left out: walk again. No lock held.
  [[nodiscard]] VmObject* hold_next_stored(VmObject* previous);

  // --- For validators.
  void for_each(FunctionRef<void(VmObject&)> visit);
  /// The invariants at the top of this file, for all objects. The engine is at rest.
  void validate();

 private:
  enum class Absorbed : std::uint8_t { kMoved, kHidden, kStuck };
  [[nodiscard]] VmObject* allocate(ObjectKind kind, PageCount size, Pager& pager, const PagerHandle& handle);
  std::size_t take_idle(VmObject& file, PageIndex* at, PageIndex end, std::span<FrameNumber> out);
  bool write_dirty(VmObject& file, std::span<const FrameNumber> frames);
  void free_clean(VmObject& file, std::span<const FrameNumber> frames);
  void cut_at(VmObject& file, PageCount pages);
  void zero_tail(VmObject& file, ByteCount length);
  [[nodiscard]] bool insert_fixed(VmObject& object, PageIndex first, std::span<const FrameNumber> frames);
  void free_device_pages(VmObject& object);
  VmObject* drop_reference(VmObject& object);
  VmObject* terminate(VmObject& object);
  void free_all_pages(VmObject& object);
  void free_range(VmObject& object, PageIndex first, PageIndex end);
  void attach(VmObject& shadow, VmObject& backing, PageCount offset);
  void detach(VmObject& shadow);
  bool busy_range(VmObject& object, PageIndex first, PageIndex end);
  void unbusy_range(VmObject& object, PageIndex first, PageIndex end);
  void move_range(VmObject& from, PageIndex first, PageIndex end, VmObject& to);
  VmObject* collapse_chain(VmObject& object);
  bool merge_backing(VmObject& object, VmObject& backing);
  bool move_backing_pages(VmObject& object, VmObject& backing);
  Absorbed absorb_page(VmObject& object, VmObject& backing, VmRadix::Item item);
  void hand_over_swap(VmObject& object, VmObject& backing);
  void take_backing_of(VmObject& object, VmObject& backing);
  [[nodiscard]] bool hidden_by_all(const VmObject& object, PageIndex index);
  bool bypass(VmObject& object, VmObject& backing);
  bool all_shadowed(const VmObject& object, const VmObject& backing);
  void recycle(VmObject& object);
  void validate_object(VmObject& object);

  VmSystem& system_;
  const std::unique_ptr<CollapsePolicy> policy_;
  const SourceFates fates_;
  FixedPager fixed_;
  Slab<VmObject> slab_;
  VmRadixPool nodes_;
  mutable Mutex lock_{LockRank::kLeaf};
  IntrusiveList<VmObject, &VmObject::zone_link> live_ GUARDED_BY(lock_);
  IntrusiveList<VmObject, &VmObject::zone_link> idle_ GUARDED_BY(lock_);
};

}  // namespace enchilada
