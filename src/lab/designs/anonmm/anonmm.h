// anonmm (Dickins, 2004; not merged): an anonymous page notes the address space that made it, and the
// address.
//
// All address spaces forked from one exec form a bundle. The search tries the noted one, then the others of
// its bundle, all at the same address. Invariants: a page shows at one address only, in however many spaces
// (so what moves while it is shared is copied); a note lives until its space and the last page that refers to
// it are gone.
#pragma once

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

class AnonMms final : public ReverseMap {
 public:
  explicit AnonMms(const LinuxCore& core) : ReverseMap(core.memory, core.tables) {}
  void mm_born(Mm& mm, Mm* parent) override;
  void mm_gone(Mm& mm) override;
  void mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& pte, MapKind kind) override;
  void unmapping(LinuxPage& page, x86::Pte& pte) override;
  bool can_show(const LinuxPage& page, const Vma& vma, VirtAddr va) const override;
  void moved(LinuxPage& page, x86::Pte& from, Vma& to, VirtAddr va, x86::Pte& pte) override;
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  struct Note;
  struct Bundle {
    PhysAddr at;
    Note* first = nullptr;
  };
  struct Note : AnonHead {
    PhysAddr at;
    Mm* mm = nullptr;  // null: gone, but pages still say it
    Bundle* bundle = nullptr;
    Note* prev = nullptr;
    Note* next = nullptr;
    std::uint64_t users = 1;  // its space, and pages
  };
  [[nodiscard]] static Note* note_of(AnonHead* anon) { return static_cast<Note*>(anon); }
  void assign(LinuxPage& page, Note& note);
  void drop(Note* note);
  bool search(Note& note, LinuxPage& page, std::vector<Place>* found);
};

/// Anonymous pages by anonmm, files by prio tree: what competed with anon_vma in 2004.
[[nodiscard]] LinuxParts make_anonmm(const LinuxCore& core);

}  // namespace enchilada::lab
