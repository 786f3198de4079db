// anon_vma (Arcangeli, 2004): an anonymous page points at the head of a list of the VMAs that may show it.
//
// VMAs that come from one another by fork, split or move share one head; a page's index is an offset in the
// space of offsets that they have in common, so that moving costs nothing. Invariants: a VMA with a head is
// on the head's list; a VMA that has, or had, anonymous pages has a head; a head has a VMA.
#pragma once

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

/// A neighbour that the VMA could become one with, if rights were equal, and that has anonymous pages; or
/// null. Neighbours that share from the start can be merged later (find_mergeable_anon_vma()).
[[nodiscard]] Vma* mergeable_neighbour(const Vma& vma, FunctionRef<bool(const Vma&)> may_share);

class AnonVmaList final : public ReverseMap {
 public:
  explicit AnonVmaList(const LinuxCore& core) : ReverseMap(core.memory, core.tables) {}
  void linked(Vma& vma) override;
  void unlinked(Vma& vma) override;
  void cloned(Vma& from, Vma& fresh, CloneKind kind) override;
  bool may_merge(const Vma& left, const Vma& right) const override;
  void merging(Vma& kept, Vma& gone) override;
  void prepare(Vma& vma) override;
  bool keeps_offsets() const override { return true; }
  void mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& pte, MapKind kind) override;
  void unmapping(LinuxPage&, x86::Pte&) override {}
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  struct Head : AnonHead {
    PhysAddr at;
    Vma* first = nullptr;
  };
  [[nodiscard]] static Head* head_of(AnonHead* anon) { return static_cast<Head*>(anon); }
  void link(Vma& vma);
};

/// Linux 2.6.7: files by prio tree, anonymous pages by anon_vma.
[[nodiscard]] LinuxParts make_anon_vma(const LinuxCore& core);

}  // namespace enchilada::lab
