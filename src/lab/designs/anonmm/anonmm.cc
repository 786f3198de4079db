// anonmm. Invariants: see anonmm.h.
#include "lab/designs/anonmm/anonmm.h"

#include "lab/designs/objrmap/objrmap.h"

namespace enchilada::lab {
namespace {

/// 28 bytes on 32 bits (designs.md); on 64: five words and a count. A bundle: a lock and a list head.
constexpr ByteCount kNoteBytes{48};
constexpr ByteCount kBundleBytes{24};

PageIndex page_of(VirtAddr va) {
  return PageIndex{va.value() >> kPageShift};
}

}  // namespace

void AnonMms::mm_born(Mm& mm, Mm* parent) {
  auto* const note = new Note;
  note->at = memory_.allocate(KernelType::kAnonMm, kNoteBytes);
  note->mm = &mm;
  mm.anonmm = note;
  if (parent != nullptr) {
    note->bundle = note_of(parent->anonmm)->bundle;
  } else {
    note->bundle = new Bundle;
    note->bundle->at = memory_.allocate(KernelType::kAnonVma, kBundleBytes);
  }
  const KernelLockHold lock(memory_.hardware());
  Bundle& bundle = *note->bundle;
  note->next = bundle.first;
  if (note->next != nullptr) note->next->prev = note;
  bundle.first = note;
  memory_.write(bundle.at);
}

void AnonMms::mm_gone(Mm& mm) {
  Note* const note = note_of(mm.anonmm);
  note->mm = nullptr;
  mm.anonmm = nullptr;
  drop(note);
}

void AnonMms::drop(Note* note) {
  memory_.write(note->at);
  if (--note->users != 0) return;
  const KernelLockHold lock(memory_.hardware());
  Bundle* const bundle = note->bundle;
  (note->prev != nullptr ? note->prev->next : bundle->first) = note->next;
  if (note->next != nullptr) note->next->prev = note->prev;
  memory_.free(KernelType::kAnonMm, note->at, kNoteBytes);
  delete note;
  if (bundle->first != nullptr) return;
  memory_.free(KernelType::kAnonVma, bundle->at, kBundleBytes);
  delete bundle;
}

void AnonMms::assign(LinuxPage& page, Note& note) {
  Note* const old = note_of(page.anon);
  if (old == &note) return;
  ++note.users;
  memory_.write(note.at);
  page.anon = &note;
  if (old != nullptr) drop(old);
}

void AnonMms::mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& /*pte*/, MapKind /*kind*/) {
  if (page.mapcount != 1) return;
  assign(page, *note_of(vma.mm->anonmm));
  page.index = page_of(va);
}

void AnonMms::unmapping(LinuxPage& page, x86::Pte& /*pte*/) {
  if (page.mapcount != 1) return;
  Note* const note = note_of(page.anon);
  page.anon = nullptr;
  drop(note);
}

bool AnonMms::can_show(const LinuxPage& page, const Vma& /*vma*/, VirtAddr va) const {
  return page.index == page_of(va);
}

void AnonMms::moved(LinuxPage& page, x86::Pte& /*from*/, Vma& to, VirtAddr va, x86::Pte& /*pte*/) {
  assign(page, *note_of(to.mm->anonmm));
  page.index = page_of(va);
}

/// True: nothing more to look for.
bool AnonMms::search(Note& note, LinuxPage& page, std::vector<Place>* found) {
  memory_.note(KernelEvent::kVmaVisit);
  memory_.read(note.at);
  if (note.mm == nullptr || note.mm->rss == 0) return false;
  (void)look_at(*note.mm, VirtAddr{page.index.value() << kPageShift}, page, found);
  return found->size() >= page.mapcount;
}

void AnonMms::locate(LinuxPage& page, std::vector<Place>* found) {
  if (page.mapcount == 0) return;
  Note* const noted = note_of(page.anon);
  const KernelLockHold lock(memory_.hardware());
  if (search(*noted, page, found)) return;
  for (Note* note = noted->bundle->first; note != nullptr; note = note->next) {
    if (note != noted && search(*note, page, found)) break;
  }
  // A page of a space that is gone goes to one that has it.
  if (noted->mm == nullptr && !found->empty()) assign(page, *note_of(found->back().mm->anonmm));
}

LinuxParts make_anonmm(const LinuxCore& core) {
  return {make_file_prio_tree(core), std::make_shared<AnonMms>(core), std::make_unique<SecondChance>()};
}

}  // namespace enchilada::lab
