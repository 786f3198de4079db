// Address spaces of the Linux-like kernel: VMAs split, merged, moved and copied, with the entries in them.
#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

// ---------------------------------------------------------------------------------------------------
// address spaces

Mm& LinuxVm::new_mm(ProcessId process, Mm* parent) {
  auto space = std::make_unique<Mm>();
  space->process = process;
  if (free_spaces_.empty()) {
    CHECK(next_space_ != 0, process.value());  // 65,535 at a time
    space->space = next_space_++;
  } else {
    space->space = free_spaces_.back();
    free_spaces_.pop_back();
  }
  Mm& made = *space;
  processes_[process.value()] = std::move(space);
  each_map([&](ReverseMap& map) { map.mm_born(made, parent); });
  return made;
}

void LinuxVm::drop_mm(Mm& space) {
  zap(space, {VirtAddr{0}, VirtAddr{x86::kAddressLimit}});
  while (!space.vmas.empty()) remove_vma(*space.vmas.begin()->second);
  each_map([&](ReverseMap& map) { map.mm_gone(space); });
  CHECK(space.root == kNoTable && space.rss == 0, space.rss);
  free_spaces_.push_back(space.space);
  processes_.erase(space.process.value());
}

ProcessId LinuxVm::fork(ProcessId parent) {
  Mm& from = mm(parent);
  const ProcessId child{next_process_++};
  Mm& to = new_mm(child, &from);
  for (const auto& mapping : from.vmas) {
    Vma& vma = *mapping.second;
    std::unique_ptr<Vma> copy = new_vma(to, vma);
    each_map([&](ReverseMap& map) { map.cloned(vma, *copy, CloneKind::kFork); });
    Vma& made = add_vma(to, std::move(copy));
    copy_entries(vma, made);
    tables_.invalidate(from, vma.range);
  }
  return child;
}

void LinuxVm::copy_entries(Vma& from, Vma& to) {
  tables_.for_each(*from.mm, from.range, [&](VirtAddr va, x86::Pte& pte) { copy_entry(to, va, pte); });
}

void LinuxVm::copy_entry(Vma& to, VirtAddr va, x86::Pte& pte) {
  std::uint64_t entry = pte.load(std::memory_order_relaxed);
  hardware().note(PmapEvent::kPteRead, 1);
  x86::Pte& copy = tables_.make(*to.mm, va);
  if (LinuxTables::in_swap(entry)) {
    swap_.refer(x86::number_of(entry));
    return tables_.set(*to.mm, copy, entry);
  }
  if (!to.shared && (entry & x86::kWritable) != 0) {
    tables_.set_bits(pte, x86::kWritable, 0);
    entry &= ~x86::kWritable;
  }
  LinuxPage& shown = page(x86::frame_of(entry));
  ++shown.mapcount;
  ++to.mm->rss;
  tables_.set(*to.mm, copy, entry & ~(x86::kAccessed | x86::kDirty));
  map_of(shown).mapped(shown, to, va, copy, MapKind::kFork);
}

// ---------------------------------------------------------------------------------------------------
// VMAs

std::map<std::uint64_t, std::unique_ptr<Vma>>::iterator LinuxVm::first_vma(Mm& space, VirtAddr va) {
  auto at = space.vmas.upper_bound(va.value());
  if (at != space.vmas.begin() && std::prev(at)->second->range.end > va) --at;
  return at;
}

Vma* LinuxVm::find_vma(Mm& space, VirtAddr va) {
  const auto at = first_vma(space, va);
  return at != space.vmas.end() && at->second->range.contains(va) ? at->second.get() : nullptr;
}

bool LinuxVm::covered(Mm& space, VirtRange range) {
  VirtAddr at = range.start;
  for (auto it = first_vma(space, at); at < range.end; ++it) {
    if (it == space.vmas.end() || it->second->range.start > at) return false;
    at = it->second->range.end;
  }
  return true;
}

/// Like `pattern`, but nobody's yet: without the reverse maps' links.
std::unique_ptr<Vma> LinuxVm::new_vma(Mm& space, const Vma& pattern) {
  auto vma = std::make_unique<Vma>();
  vma->mm = &space;
  vma->range = pattern.range;
  vma->prot = pattern.prot;
  vma->shared = pattern.shared;
  vma->file = pattern.file;
  vma->offset = pattern.offset;
  vma->at = memory_.allocate(KernelType::kVma, ByteCount{sizeof(Vma)});
  return vma;
}

Vma& LinuxVm::add_vma(Mm& space, std::unique_ptr<Vma> vma) {
  Vma& added = *vma;
  space.vmas.emplace(added.range.start.value(), std::move(vma));
  each_map([&](ReverseMap& map) { map.linked(added); });
  return added;
}

void LinuxVm::remove_vma(Vma& vma) {
  each_map([&](ReverseMap& map) { map.unlinked(vma); });
  memory_.free(KernelType::kVma, vma.at, ByteCount{sizeof(Vma)});
  vma.mm->vmas.erase(vma.range.start.value());
}

/// The new range overlaps the old one; offsets go on as they were.
void LinuxVm::resize_vma(Vma& vma, VirtRange range) {
  each_map([&](ReverseMap& map) { map.before_resize(vma); });
  if (range.start != vma.range.start) {
    auto node = vma.mm->vmas.extract(vma.range.start.value());
    node.key() = range.start.value();
    vma.mm->vmas.insert(std::move(node));
    const bool shrinks = range.start > vma.range.start;
    vma.offset = shrinks ? vma.offset + to_pages(range.start - vma.range.start)
                         : vma.offset - to_pages(vma.range.start - range.start);
  }
  vma.range = range;
  each_map([&](ReverseMap& map) { map.after_resize(vma); });
}

void LinuxVm::split_vma(Vma& vma, VirtAddr at) {
  std::unique_ptr<Vma> upper = new_vma(*vma.mm, vma);
  upper->offset = vma.index_of(at);
  upper->range.start = at;
  resize_vma(vma, {vma.range.start, at});
  each_map([&](ReverseMap& map) { map.cloned(vma, *upper, CloneKind::kSplit); });
  (void)add_vma(*vma.mm, std::move(upper));
}

void LinuxVm::split_at_ends(Mm& space, VirtRange range) {
  for (const VirtAddr at : {range.start, range.end}) {
    Vma* const vma = find_vma(space, at);
    if (vma != nullptr && vma->range.start < at) split_vma(*vma, at);
  }
}

bool LinuxVm::fits(const Vma& left, const Vma& right) const {
  if (left.range.end != right.range.start || left.prot != right.prot || left.shared != right.shared ||
      left.file != right.file) {
    return false;
  }
  const bool offsets_matter = left.file != nullptr || parts_.anon->keeps_offsets();
  if (offsets_matter && left.offset + left.pages() != right.offset) return false;
  return parts_.file->may_merge(left, right) && parts_.anon->may_merge(left, right);
}

/// Neighbours in, and on both sides of, the range become one where they may.
void LinuxVm::merge_around(Mm& space, VirtRange range) {
  auto it = first_vma(space, range.start);
  if (it != space.vmas.begin()) --it;
  while (it != space.vmas.end()) {
    Vma& left = *it->second;
    const auto next = std::next(it);
    if (next == space.vmas.end() || left.range.start > range.end) return;
    Vma& right = *next->second;
    if (!fits(left, right)) {
      it = next;
      continue;
    }
    const VirtRange both{left.range.start, right.range.end};
    each_map([&](ReverseMap& map) { map.merging(left, right); });
    remove_vma(right);
    resize_vma(left, both);
  }
}

// ---------------------------------------------------------------------------------------------------
// calls

bool LinuxVm::map(ProcessId process, const MapCall& call) {
  if (call.pages.value() == 0 || !page_aligned(call.at)) return false;
  const VirtRange range{call.at, call.at + to_bytes(call.pages)};
  (void)unmap(process, range);
  Mm& space = mm(process);
  Vma pattern;
  pattern.range = range;
  pattern.prot = call.prot;
  pattern.file = call.file.has_value() ? files_[call.file->value()].get() : nullptr;
  pattern.shared = call.shared && pattern.file != nullptr;
  pattern.offset = pattern.file != nullptr ? call.offset : PageIndex{call.at.value() >> kPageShift};
  (void)add_vma(space, new_vma(space, pattern));
  merge_around(space, range);
  return true;
}

bool LinuxVm::unmap(ProcessId process, VirtRange range) {
  Mm& space = mm(process);
  split_at_ends(space, range);
  zap(space, range);
  for (auto it = first_vma(space, range.start);
       it != space.vmas.end() && it->second->range.start < range.end;) {
    Vma& vma = *it->second;
    ++it;
    remove_vma(vma);
  }
  return true;
}

bool LinuxVm::protect(ProcessId process, VirtRange range, Prot prot) {
  Mm& space = mm(process);
  if (!covered(space, range)) return false;
  split_at_ends(space, range);
  for (auto it = first_vma(space, range.start); it != space.vmas.end() && it->second->range.start < range.end;
       ++it) {
    it->second->prot = prot;
  }
  // Rights are taken at once and given by faults; what may not be reached at all is hidden.
  const bool hide = prot == Prot::kNone;
  const std::uint64_t taken = allows(prot, Prot::kWrite) ? 0 : x86::kWritable;
  tables_.for_each(space, range, [&](VirtAddr, x86::Pte& pte) {
    if (!LinuxTables::shows_page(pte.load(std::memory_order_relaxed))) return;
    tables_.set_bits(pte, taken | (hide ? x86::kPresent : LinuxTables::kHidden),
                     hide ? LinuxTables::kHidden : x86::kPresent);
  });
  tables_.invalidate(space, range);
  merge_around(space, range);
  return true;
}

bool LinuxVm::discard(ProcessId process, VirtRange range) {
  zap(mm(process), range);
  return true;
}

bool LinuxVm::remap(ProcessId process, VirtRange from, VirtAddr to) {
  Mm& space = mm(process);
  const VirtRange target{to, to + from.size()};
  if (!covered(space, from) || from.overlaps(target)) return false;
  (void)unmap(process, target);
  split_at_ends(space, from);
  while (true) {
    const auto it = first_vma(space, from.start);
    if (it == space.vmas.end() || it->second->range.start >= from.end) break;
    Vma& vma = *it->second;
    move_vma(vma, vma.range, to + (vma.range.start - from.start));
  }
  merge_around(space, target);
  return true;
}

void LinuxVm::move_vma(Vma& vma, VirtRange part, VirtAddr to) {
  Mm& space = *vma.mm;
  std::unique_ptr<Vma> copy = new_vma(space, vma);
  copy->range = {to, to + part.size()};
  // Anonymous pages that nothing refers to by offset may as well count from where they are now.
  const bool keeps = vma.file != nullptr || (parts_.anon->keeps_offsets() && vma.anon != nullptr);
  if (!keeps) copy->offset = PageIndex{to.value() >> kPageShift};
  each_map([&](ReverseMap& map) { map.cloned(vma, *copy, CloneKind::kMove); });
  Vma& moved = add_vma(space, std::move(copy));
  (void)reserve(2);
  tables_.for_each(space, part, [&](VirtAddr va, x86::Pte& pte) { move_entry(vma, moved, va, pte); });
  tables_.invalidate(space, part);
  remove_vma(vma);
}

void LinuxVm::move_entry(Vma& from, Vma& to, VirtAddr va, x86::Pte& pte) {
  Mm& space = *from.mm;
  const VirtAddr target = to.range.start + (va - from.range.start);
  const std::uint64_t entry = pte.load(std::memory_order_relaxed);
  x86::Pte& fresh = tables_.make(space, target);
  if (LinuxTables::in_swap(entry)) {
    tables_.set(space, fresh, entry);
    return tables_.set(space, pte, 0);
  }
  LinuxPage& shown = page(x86::frame_of(entry));
  if (shown.mapcount > 1 && !map_of(shown).can_show(shown, to, target)) {
    if (free_.empty()) {  // no frame for a copy: by way of swap, all of them
      CHECK(unmap_everywhere(shown), shown.frame.value());
      return move_entry(from, to, va, pte);
    }
    map_of(shown).unmapping(shown, pte);
    take_knowledge(shown, entry);
    --shown.mapcount;
    --space.rss;
    tables_.set(space, pte, 0);
    return copy_for(to, target, shown);
  }
  tables_.set(space, fresh, entry);
  map_of(shown).moved(shown, pte, to, target, fresh);
  tables_.set(space, pte, 0);
}

// ---------------------------------------------------------------------------------------------------
// entries

void LinuxVm::zap(Mm& space, VirtRange range) {
  tables_.for_each(space, range, [&](VirtAddr, x86::Pte& pte) { zap_entry(space, pte); });
  tables_.invalidate(space, range);
}

void LinuxVm::zap_entry(Mm& space, x86::Pte& pte) {
  const std::uint64_t entry = pte.load(std::memory_order_relaxed);
  hardware().note(PmapEvent::kPteRead, 1);
  if (LinuxTables::in_swap(entry)) {
    const std::uint32_t slot = x86::number_of(entry);
    (void)swap_.drop(slot);
    LinuxPage* const cached = swap_.cached(slot);
    if (cached != nullptr) free_if_unreachable(*cached);
    return tables_.set(space, pte, 0);
  }
  LinuxPage& shown = page(x86::frame_of(entry));
  map_of(shown).unmapping(shown, pte);
  take_knowledge(shown, entry);
  --shown.mapcount;
  --space.rss;
  hardware().note(PmapEvent::kRemove, 1);
  tables_.set(space, pte, 0);
  free_if_unreachable(shown);
}

}  // namespace enchilada::lab
