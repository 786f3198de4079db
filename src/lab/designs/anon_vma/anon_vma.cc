// anon_vma. Invariants: see anon_vma.h.
#include "lab/designs/anon_vma/anon_vma.h"

#include "lab/designs/objrmap/objrmap.h"

namespace enchilada::lab {
namespace {

/// A lock and a list head; and in each VMA a pointer and two links.
constexpr ByteCount kHeadBytes{24};
constexpr ByteCount kVmaBytes{24};

bool could_merge(const Vma& left, const Vma& right) {
  return left.range.end == right.range.start && left.file == right.file && left.shared == right.shared &&
         left.offset + left.pages() == right.offset;
}

}  // namespace

Vma* mergeable_neighbour(const Vma& vma, FunctionRef<bool(const Vma&)> may_share) {
  const auto at = vma.mm->vmas.find(vma.range.start.value());
  const auto next = std::next(at);
  if (next != vma.mm->vmas.end()) {
    Vma& right = *next->second;
    if (right.anon != nullptr && could_merge(vma, right) && may_share(right)) return &right;
  }
  if (at == vma.mm->vmas.begin()) return nullptr;
  Vma& left = *std::prev(at)->second;
  return left.anon != nullptr && could_merge(left, vma) && may_share(left) ? &left : nullptr;
}

void AnonVmaList::link(Vma& vma) {
  const KernelLockHold lock(memory_.hardware());
  Head& head = *head_of(vma.anon);
  vma.anon_prev = nullptr;
  vma.anon_next = head.first;
  if (head.first != nullptr) {
    head.first->anon_prev = &vma;
    memory_.write(head.first->at);
  }
  head.first = &vma;
  memory_.write(head.at);
  memory_.write(vma.at);
}

void AnonVmaList::linked(Vma& vma) {
  memory_.grow(KernelType::kAnonLinks, kVmaBytes);
  if (vma.anon != nullptr) link(vma);
}

void AnonVmaList::unlinked(Vma& vma) {
  memory_.shrink(KernelType::kAnonLinks, kVmaBytes);
  if (vma.anon == nullptr) return;
  const KernelLockHold lock(memory_.hardware());
  Head* const head = head_of(vma.anon);
  (vma.anon_prev != nullptr ? vma.anon_prev->anon_next : head->first) = vma.anon_next;
  if (vma.anon_next != nullptr) vma.anon_next->anon_prev = vma.anon_prev;
  memory_.write(vma.at);
  vma.anon = nullptr;
  if (head->first != nullptr) return;
  memory_.free(KernelType::kAnonVma, head->at, kHeadBytes);
  delete head;
}

void AnonVmaList::cloned(Vma& from, Vma& fresh, CloneKind /*kind*/) {
  fresh.anon = from.anon;
}

bool AnonVmaList::may_merge(const Vma& left, const Vma& right) const {
  return left.anon == right.anon || left.anon == nullptr || right.anon == nullptr;
}

void AnonVmaList::merging(Vma& kept, Vma& gone) {
  if (kept.anon != nullptr || gone.anon == nullptr) return;
  kept.anon = gone.anon;
  link(kept);
}

void AnonVmaList::prepare(Vma& vma) {
  const Vma* const neighbour = mergeable_neighbour(vma, [](const Vma&) { return true; });
  if (neighbour != nullptr) {
    vma.anon = neighbour->anon;
  } else {
    auto* const head = new Head;
    head->at = memory_.allocate(KernelType::kAnonVma, kHeadBytes);
    vma.anon = head;
  }
  link(vma);
}

void AnonVmaList::mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& /*pte*/, MapKind /*kind*/) {
  if (page.mapcount != 1) return;
  page.anon = vma.anon;
  page.index = vma.index_of(va);
}

void AnonVmaList::locate(LinuxPage& page, std::vector<Place>* found) {
  if (page.mapcount == 0) return;
  const KernelLockHold lock(memory_.hardware());
  const Head& head = *head_of(page.anon);
  memory_.read(head.at);
  for (const Vma* vma = head.first; vma != nullptr && found->size() < page.mapcount; vma = vma->anon_next) {
    memory_.note(KernelEvent::kVmaVisit);
    memory_.read(vma->at);
    if (vma->mm->rss != 0) (void)look_in(*vma, page, found);
  }
}

LinuxParts make_anon_vma(const LinuxCore& core) {
  return {make_file_prio_tree(core), std::make_shared<AnonVmaList>(core), std::make_unique<SecondChance>()};
}

}  // namespace enchilada::lab
