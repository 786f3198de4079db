// Faults of the Linux-like kernel: what an access that the page tables refuse leads to.
//
// Frames are reserved before anything is looked at, so that no step has to give up what it has found.
#include <cstring>

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

LinuxVm::Fault LinuxVm::fault(Mm& space, VirtAddr va, Access access) {
  Vma* const vma = find_vma(space, va);
  if (vma == nullptr || vma->prot == Prot::kNone) return Fault::kSignal;
  if (access == Access::kWrite && !allows(vma->prot, Prot::kWrite)) return Fault::kSignal;
  if (!reserve(2)) return Fault::kSignal;
  x86::Pte* const pte = tables_.look(space, va);
  const std::uint64_t entry = pte == nullptr ? 0 : pte->load(std::memory_order_relaxed);
  if (LinuxTables::in_swap(entry)) return from_swap(*vma, va, access, x86::number_of(entry));
  if (LinuxTables::shows_page(entry)) return write_protected(*vma, va, *pte);
  return vma->file != nullptr ? from_file(*vma, va, access) : zero_fill(*vma, va);
}

/// A write to a page that is shown without the right to write.
LinuxVm::Fault LinuxVm::write_protected(Vma& vma, VirtAddr va, x86::Pte& pte) {
  LinuxPage& source = page(x86::frame_of(pte.load(std::memory_order_relaxed)));
  if (vma.shared) {
    tables_.set_bits(pte, 0, x86::kWritable);
    return Fault::kMinor;
  }
  if (only_ours(source)) {
    make_ours(source, vma);
    tables_.set_bits(pte, 0, x86::kWritable);
    return Fault::kMinor;
  }
  if (vma.anon == nullptr) parts_.anon->prepare(vma);
  const std::uint64_t entry = pte.load(std::memory_order_relaxed);
  map_of(source).unmapping(source, pte);
  take_knowledge(source, entry);
  --source.mapcount;
  --vma.mm->rss;
  copy_for(vma, va, source);
  tables_.invalidate(*vma.mm, {va, va + ByteCount{kPageSize}});
  free_if_unreachable(source);
  return Fault::kMinor;
}

/// An anonymous page that one entry shows, and nothing else can reach.
bool LinuxVm::only_ours(const LinuxPage& page) const {
  return page.use == LinuxPage::Use::kAnon && page.mapcount == 1 &&
         (page.slot == kNoSlot || swap_.references(page.slot) == 0);
}

/// It is about to be written: its copy in swap will be old.
void LinuxVm::make_ours(LinuxPage& page, Vma& vma) {
  if (page.slot != kNoSlot) swap_.uncache(page);
  page.dirty = true;
  parts_.anon->owned(page, vma);
}

/// A new page for one entry, with what `source` holds. The entry shows nothing else any more.
void LinuxVm::copy_for(Vma& vma, VirtAddr va, LinuxPage& source) {
  LinuxPage& fresh = take_frame(LinuxPage::Use::kAnon);
  fresh.dirty = true;
  std::memcpy(bytes_of(fresh), bytes_of(source), kPageSize);
  hardware().pages_copied(PageCount{1});
  enter(vma, va, fresh, allows(vma.prot, Prot::kWrite), MapKind::kFresh);
}

LinuxVm::Fault LinuxVm::from_swap(Vma& vma, VirtAddr va, Access access, std::uint32_t slot) {
  LinuxPage* page = swap_.cached(slot);
  Fault kind = Fault::kMinor;
  if (page == nullptr) {
    page = &take_frame(LinuxPage::Use::kAnon);
    swap_.cache(slot, *page);
    swap_.disk().read(slot, bytes_of(*page));
    kind = Fault::kMajor;
  }
  if (vma.anon == nullptr) parts_.anon->prepare(vma);
  (void)swap_.drop(slot);
  const bool must_copy = page->mapcount != 0 && !parts_.anon->can_show(*page, vma, va);
  if (must_copy) {
    copy_for(vma, va, *page);
    free_if_unreachable(*page);
    return kind;
  }
  enter(vma, va, *page, false, MapKind::kFromSwap);
  if (access == Access::kWrite) (void)write_protected(vma, va, *tables_.look(*vma.mm, va));
  return kind;
}

LinuxVm::Fault LinuxVm::from_file(Vma& vma, VirtAddr va, Access access) {
  LinuxFile& file = *vma.file;
  const PageIndex index = vma.index_of(va);
  const auto cached = file.cache.find(index.value());
  Fault kind = Fault::kMinor;
  LinuxPage* page = cached == file.cache.end() ? nullptr : &this->page(cached->second);
  if (page == nullptr) {
    page = &take_frame(LinuxPage::Use::kFile);
    page->file = &file;
    page->index = index;
    file.cache.emplace(index.value(), page->frame);
    file.disk.read(index.value(), bytes_of(*page));
    kind = Fault::kMajor;
  }
  if (access == Access::kWrite && !vma.shared) {
    if (vma.anon == nullptr) parts_.anon->prepare(vma);
    copy_for(vma, va, *page);
    return kind;
  }
  enter(vma, va, *page, vma.shared && allows(vma.prot, Prot::kWrite), MapKind::kFresh);
  return kind;
}

LinuxVm::Fault LinuxVm::zero_fill(Vma& vma, VirtAddr va) {
  if (vma.anon == nullptr) parts_.anon->prepare(vma);
  LinuxPage& page = take_frame(LinuxPage::Use::kAnon);
  page.dirty = true;
  std::memset(bytes_of(page), 0, kPageSize);
  hardware().pages_zeroed(PageCount{1});
  enter(vma, va, page, allows(vma.prot, Prot::kWrite), MapKind::kFresh);
  return Fault::kMinor;
}

/// Makes the entry that shows the page.
void LinuxVm::enter(Vma& vma, VirtAddr va, LinuxPage& page, bool writable, MapKind kind) {
  Mm& space = *vma.mm;
  x86::Pte& pte = tables_.make(space, va);
  ++page.mapcount;
  ++space.rss;
  tables_.set(space, pte,
              x86::make_entry(page.frame.value(), x86::kAccessed | (writable ? x86::kWritable : 0)));
  hardware().note(PmapEvent::kEnter, 1);
  map_of(page).mapped(page, vma, va, pte, kind);
}

}  // namespace enchilada::lab
