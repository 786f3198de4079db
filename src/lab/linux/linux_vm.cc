// Processes, calls and frames of the Linux-like kernel. Invariants: see linux_vm.h.
#include "lab/linux/linux_vm.h"

#include <cstring>

namespace enchilada::lab {
namespace {

SoftMachineOptions machine_options(const DesignOptions& options) {
  SoftMachineOptions machine;
  machine.memory.frames = options.frames;
  machine.pmap.table_pages = PageCount{1};  // of a pmap, which a Linux has none of
  machine.hardware = options.hardware;
  // The tables are ours; a frame's pv heads are the unused pmap's.
  machine.arena_bytes = (std::size_t{4} << 20) + options.frames.value() * 512 +
                        (options.table_pages.value() + 2) * (kPageSize + sizeof(TableInfo) + 64);
  return machine;
}

}  // namespace

LinuxVm::LinuxVm(std::string_view name, const DesignOptions& options, LinuxPartsMaker make)
    : name_(name),
      machine_(machine_options(options)),
      memory_(*machine_.hardware()),
      tables_(machine_.arena(), options.table_pages, memory_),
      swap_(options.swap, *machine_.hardware()),
      pages_(options.frames.value()),
      parts_(make({memory_, tables_, processes_, options.frames})) {
  (void)machine_.memory().grow(options.frames, [&](FrameRun run) {
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      LinuxPage& page = pages_[run.first.value() + i];
      page.frame = run.first + PageCount{i};
      free_.push_back(&page);
    }
  });
  CHECK(free_.size() == options.frames.value(), free_.size());
}

LinuxVm::~LinuxVm() {
  while (!processes_.empty()) exit(processes_.begin()->second->process);
}

FileId LinuxVm::create_file(PageCount pages) {
  files_.push_back(std::make_unique<LinuxFile>(pages, hardware()));
  return FileId{static_cast<std::uint32_t>(files_.size() - 1)};
}

ProcessId LinuxVm::spawn() {
  const ProcessId process{next_process_++};
  new_mm(process, nullptr);
  return process;
}

void LinuxVm::exec(ProcessId process) {
  drop_mm(mm(process));
  new_mm(process, nullptr);
}

void LinuxVm::exit(ProcessId process) {
  drop_mm(mm(process));
}

bool LinuxVm::access(ProcessId process, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  Mm& space = mm(process);
  for (;;) {
    const FrameNumber frame = tables_.translate(space, va, access);
    if (frame != kNoFrame) {
      use(bytes_of(page(frame)) + (va.value() & kPageMask));
      return true;
    }
    const Fault result = fault(space, page_floor(va), access);
    if (result == Fault::kSignal) return false;
    memory_.note(result == Fault::kMajor ? KernelEvent::kMajorFault : KernelEvent::kMinorFault);
  }
}

// ---------------------------------------------------------------------------------------------------
// frames

std::byte* LinuxVm::bytes_of(const LinuxPage& page) {
  std::byte* bytes = nullptr;
  machine_.memory().with_frames({page.frame, PageCount{1}}, Access::kWrite,
                                [&](std::byte* at) { bytes = at; });
  return bytes;
}

bool LinuxVm::reserve(std::uint64_t frames) {
  constexpr std::uint64_t kBatch = 16;
  if (free_.size() < frames) (void)parts_.reclaimer->reclaim(*this, kBatch);
  return free_.size() >= frames;
}

void LinuxVm::reclaim(PageCount frames) {
  (void)parts_.reclaimer->reclaim(*this, frames.value());
}

LinuxPage& LinuxVm::take_frame(LinuxPage::Use use) {
  LinuxPage* const page = free_.pop_front();
  CHECK(page != nullptr && page->mapcount == 0);
  const FrameNumber frame = page->frame;
  *page = {};
  page->frame = frame;
  page->use = use;
  queue_.push_back(page);
  return *page;
}

void LinuxVm::free_page(LinuxPage& page) {
  CHECK(page.mapcount == 0 && page.use != LinuxPage::Use::kFree, page.frame.value(), page.mapcount);
  if (page.slot != kNoSlot) swap_.uncache(page);
  if (page.file != nullptr) page.file->cache.erase(page.index.value());
  queue_.remove(&page);
  const FrameNumber frame = page.frame;
  page = {};
  page.frame = frame;
  free_.push_back(&page);
}

/// An anonymous page that no entry shows, and none in swap refers to, is nobody's any more.
void LinuxVm::free_if_unreachable(LinuxPage& page) {
  if (page.use != LinuxPage::Use::kAnon || page.mapcount != 0) return;
  if (page.slot != kNoSlot && swap_.references(page.slot) != 0) return;
  free_page(page);
}

void LinuxVm::write_and_free(LinuxPage& page) {
  if (page.use == LinuxPage::Use::kFile) {
    if (page.dirty) page.file->disk.write(page.index.value(), bytes_of(page));
  } else if (page.dirty) {
    CHECK(page.slot != kNoSlot, page.frame.value());
    swap_.disk().write(page.slot, bytes_of(page));
  }
  free_page(page);
}

// ---------------------------------------------------------------------------------------------------
// what is done to one page

FrameNumber LinuxVm::frame_at(ProcessId process, VirtAddr va) {
  const x86::Pte* const pte = tables_.peek(mm(process), page_floor(va));
  if (pte == nullptr) return kNoFrame;
  const std::uint64_t entry = pte->load(std::memory_order_relaxed);
  return LinuxTables::shows_page(entry) ? x86::frame_of(entry) : kNoFrame;
}

void LinuxVm::take_knowledge(LinuxPage& page, std::uint64_t entry) {
  if ((entry & x86::kDirty) == 0) return;
  page.dirty = true;
}

bool LinuxVm::unmap_entry(LinuxPage& page, const Place& place) {
  const std::uint64_t entry = place.pte->load(std::memory_order_relaxed);
  std::uint64_t after = 0;
  if (page.use == LinuxPage::Use::kAnon) {
    if (page.slot == kNoSlot) {
      if (swap_.allocate(page) == kNoSlot) return false;
      page.dirty = true;  // the slot holds nothing yet
    }
    swap_.refer(page.slot);
    after = LinuxTables::swap_entry(page.slot);
  }
  map_of(page).unmapping(page, *place.pte);
  take_knowledge(page, entry);
  Mm& space = *place.mm;
  --page.mapcount;
  --space.rss;
  tables_.set(space, *place.pte, after);
  tables_.invalidate(space, {place.va, place.va + ByteCount{kPageSize}});
  return true;
}

bool LinuxVm::unmap_everywhere(LinuxPage& page) {
  places_.clear();
  map_of(page).locate(page, &places_);
  for (const Place& place : places_) {
    if (!unmap_entry(page, place)) return false;
  }
  return true;
}

void LinuxVm::unmap_page(FrameNumber frame) {
  (void)unmap_everywhere(page(frame));
}

unsigned LinuxVm::test_referenced(LinuxPage& page) {
  places_.clear();
  map_of(page).locate(page, &places_);
  unsigned found = 0;
  for (const Place& place : places_) {
    if ((place.pte->load(std::memory_order_relaxed) & x86::kAccessed) == 0) continue;
    ++found;
    tables_.set_bits(*place.pte, x86::kAccessed, 0);
    tables_.invalidate(*place.mm, {place.va, place.va + ByteCount{kPageSize}});
  }
  return found;
}

unsigned LinuxVm::referenced(FrameNumber frame) {
  return test_referenced(page(frame));
}

std::uint64_t SecondChance::reclaim(LinuxVm& kernel, std::uint64_t wanted) {
  LinuxQueue& queue = kernel.queue();
  std::uint64_t freed = 0;
  // Twice round: the first clears the bits that the second finds clear.
  for (std::uint64_t left = 2 * queue.size(); left > 0 && freed < wanted && !queue.empty(); --left) {
    LinuxPage& page = *queue.front();
    queue.remove(&page);
    queue.push_back(&page);
    if (kernel.test_referenced(page) != 0) continue;
    if (!kernel.unmap_everywhere(page) || page.mapcount != 0) continue;
    kernel.write_and_free(page);
    ++freed;
  }
  return freed;
}

// ---------------------------------------------------------------------------------------------------
// the oracle

void LinuxVm::for_each_mapping(FunctionRef<void(const Mapping&)> visit) {
  for (const auto& process : processes_) {
    Mm& space = *process.second;
    tables_.for_each(space, {VirtAddr{0}, VirtAddr{x86::kAddressLimit}}, [&](VirtAddr va, x86::Pte& pte) {
      const std::uint64_t entry = pte.load(std::memory_order_relaxed);
      if (LinuxTables::shows_page(entry)) visit({space.process, va, x86::frame_of(entry)});
    });
  }
}

void LinuxVm::find_mappings(FrameNumber frame, FunctionRef<void(const Mapping&)> visit) {
  LinuxPage& target = page(frame);
  if (target.use == LinuxPage::Use::kFree) return;
  places_.clear();
  map_of(target).locate(target, &places_);
  for (const Place& place : places_) visit({place.mm->process, place.va, frame});
}

const char* LinuxVm::find_error() {
  std::vector<std::uint32_t> shown(pages_.size(), 0);
  for_each_mapping([&](const Mapping& mapping) { ++shown[mapping.frame.value()]; });
  for (const LinuxPage& page : pages_) {
    if (page.mapcount != shown[page.frame.value()]) return "a mapcount is not the number of entries";
    if (page.use == LinuxPage::Use::kFree && page.mapcount != 0) return "a free page is mapped";
    if (page.use == LinuxPage::Use::kAnon && page.slot != kNoSlot && swap_.cached(page.slot) != &page) {
      return "a page in the swap cache is not its slot's";
    }
  }
  if (free_.size() + queue_.size() != pages_.size()) return "a page is on no list";
  if (hardware().counts().stale != 0) return "a TLB kept what an entry no longer says";
  return nullptr;
}

KernelAccounts LinuxVm::accounts() {
  KernelAccounts accounts;
  for (std::size_t i = 0; i < accounts.size(); ++i) accounts[i] = memory_.account(static_cast<KernelType>(i));
  return accounts;
}

}  // namespace enchilada::lab
