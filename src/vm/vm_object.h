// VmObject: a thing that can be mapped, page by page: anonymous memory with a chain of backing objects.
//
// DRAFT OF THE SEAM (what vm_map, vm_fault and the tests call); the owner of this file completes it.
// Reference: freebsd-vm.md §1.1-1.4. Lock order among objects: shadow before backing.
#pragma once

#include "base/mutex.h"
#include "vm/vm_pager.h"
#include "vm/vm_system.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;

/// Makes, references and destroys objects; fork and collapse live here too. All calls may be made under a map lock
/// unless said otherwise, and take object locks themselves.
class VmObjectZone {
 public:
  explicit VmObjectZone(VmSystem& system);
  ~VmObjectZone();

  /// A new anonymous object with one reference, ONEMAPPING set; nullptr when metadata is used up.
  [[nodiscard]] VmObject* allocate_anonymous(PageCount size);

  void reference(VmObject& object);
  /// Drops one reference; destroys or collapses as §1.1 says; iterative along the chain. May free pages and swap.
  void deallocate(VmObject* object);

  /// Puts a new, empty shadow object between an entry and *object: *object becomes the shadow (one reference, the
  /// entry's), *offset becomes 0; the entry's old reference becomes the shadow's backing reference. Does nothing but
  /// clear the need when the object is anonymous with exactly one reference. False: metadata used up, nothing done.
  [[nodiscard]] bool shadow(VmObject** object, PageIndex* offset, PageCount length);

  /// Tries to make `object` (an entry maps [offset, offset+size) of it and ends there) cover `extra` further pages.
  /// True: the object now reaches offset+size+extra, with nothing in the extension.
  [[nodiscard]] bool coalesce(VmObject& object, PageIndex offset, PageCount size, PageCount extra);

  /// At fork of an entry of a ONEMAPPING object with several references: gives the range its own object.
  /// *object/*offset are replaced (references moved). False: not possible, nothing done.
  [[nodiscard]] bool split(VmObject** object, PageIndex* offset, PageCount size);

  /// At fork: collapses what can be, clears ONEMAPPING.
  void prepare_for_copy(VmObject& object);
  void clear_one_mapping(VmObject& object);

  /// Frees pages and swap of [first, first+count) of an object that only this range maps (ONEMAPPING or one
  /// reference); the mappings are gone already. Does nothing when others may still see them.
  void remove_range(VmObject& object, PageIndex first, PageCount count);

  /// Collapse and bypass as far as possible (§1.4). Object unlocked on entry.
  void collapse(VmObject& object);

  /// Depth of the backing chain, 1 = no backing.
  [[nodiscard]] unsigned depth(const VmObject& object) const;
  [[nodiscard]] std::size_t live() const;

 private:
  VmSystem& system_;
  struct Impl;
  Impl* impl_;
};

}  // namespace enchilada
