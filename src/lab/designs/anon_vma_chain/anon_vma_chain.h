// anon_vma_chain (van Riel, 2010): links between VMAs and anon_vmas, many to many.
//
// A VMA that comes from a fork is linked to all anon_vmas of its parent's and to one of its own, which its
// new pages belong to; so a page's anon_vma has only VMAs of the process that made it and of its descendants.
// Since 2012 an anon_vma finds its links by offset (an interval tree), since 2015 an anon_vma with fewer than
// two users is used again instead of making one more (Reuse). Invariants: a VMA's links are in the order of
// its ancestors, its own last; an anon_vma's root is the one of the first ancestor, which all descendants are
// linked to; an anon_vma without links does not exist.
#pragma once

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

struct AnonVma;

/// One VMA in one anon_vma (struct anon_vma_chain).
struct AnonVmaLink {
  PhysAddr at;
  AnonVma* anon = nullptr;
  Vma* vma = nullptr;
  IntervalNode<AnonVmaLink> node;
};

struct AnonVma : AnonHead {
  PhysAddr at;
  AnonVma* root = nullptr;
  AnonVma* parent = nullptr;
  std::uint32_t degree = 1;  // VMAs that make their pages here, and anon_vmas below; a root: and itself
  IntervalTree<AnonVmaLink> links;
};

enum class AnonVmaReuse : std::uint8_t { kNever, kByDegree };

class AnonVmaChains final : public ReverseMap {
 public:
  AnonVmaChains(const LinuxCore& core, AnonVmaReuse reuse)
      : ReverseMap(core.memory, core.tables), reuse_(reuse) {}
  void linked(Vma& vma) override;
  void unlinked(Vma& vma) override;
  void before_resize(Vma& vma) override;
  void after_resize(Vma& vma) override;
  void cloned(Vma& from, Vma& fresh, CloneKind kind) override;
  bool may_merge(const Vma& left, const Vma& right) const override;
  void merging(Vma& kept, Vma& gone) override;
  void prepare(Vma& vma) override;
  bool keeps_offsets() const override { return true; }
  void mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& pte, MapKind kind) override;
  void unmapping(LinuxPage&, x86::Pte&) override {}
  void owned(LinuxPage& page, Vma& vma) override;
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  struct Looker {
    KernelMemory& memory;
    void operator()(const IntervalNode<AnonVmaLink>& node) const {
      memory.note(KernelEvent::kIndexNode);
      memory.read(node.owner->at);
    }
  };
  [[nodiscard]] static AnonVma* anon_of(AnonHead* anon) { return static_cast<AnonVma*>(anon); }
  [[nodiscard]] AnonVma& new_anon(AnonVma* parent);
  void link(Vma& vma, AnonVma& anon);
  void link_all(const Vma& from, Vma& fresh, CloneKind kind);
  void index(AnonVmaLink& link);

  const AnonVmaReuse reuse_;
  Looker looker_{memory_};
};

/// Linux since 2015 and, without the reuse, since 2010.
[[nodiscard]] LinuxParts make_anon_vma_chain(const LinuxCore& core);
[[nodiscard]] LinuxParts make_anon_vma_chain_2010(const LinuxCore& core);

}  // namespace enchilada::lab
