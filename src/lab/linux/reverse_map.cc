// What searches through VMAs have in common. Invariants: see reverse_map.h.
#include "lab/linux/reverse_map.h"

namespace enchilada::lab {

bool ReverseMap::look_in(const Vma& vma, const LinuxPage& page, std::vector<Place>* found) {
  if (!vma.covers(page.index)) return false;
  return look_at(*vma.mm, vma.address_of(page.index), page, found);
}

bool ReverseMap::look_at(Mm& mm, VirtAddr va, const LinuxPage& page, std::vector<Place>* found) {
  x86::Pte* const pte = tables_.look(mm, va);
  const bool hit = pte != nullptr && LinuxTables::shows(*pte, page.frame);
  if (!hit) {
    memory_.note(KernelEvent::kWalkMiss);
    return false;
  }
  found->push_back({&mm, va, pte});
  return true;
}

}  // namespace enchilada::lab
