// The virtual scan. Invariants: see virtual_scan.h.
#include "lab/designs/linux24/virtual_scan.h"

#include <algorithm>

namespace enchilada::lab {
namespace {

constexpr VirtRange kAll{VirtAddr{0}, VirtAddr{x86::kAddressLimit}};

}  // namespace

void VirtualScan::locate(LinuxPage& page, std::vector<Place>* found) {
  Hardware& hardware = memory_.hardware();
  for (const auto& process : processes_) {
    Mm& mm = *process.second;
    tables_.for_each_until(mm, kAll, [&](VirtAddr va, x86::Pte& pte) {
      hardware.note(PmapEvent::kPteRead, 1);
      hardware.touch(tables_.line_of(pte), false, Charge::kKernel);
      if (LinuxTables::shows(pte, page.frame)) found->push_back({&mm, va, &pte});
      return found->size() < page.mapcount;
    });
    if (found->size() >= page.mapcount) return;
  }
}

std::uint64_t VirtualScanReclaim::reclaim(LinuxVm& kernel, std::uint64_t wanted) {
  std::uint64_t freed = free_unmapped(kernel, wanted);
  // Two rounds through every address space: the first may only clear bits.
  const std::uint64_t turns = 2 * kShare * (kernel.processes().size() + 1) + 2;
  for (std::uint64_t turn = 0; turn < turns && freed < wanted; ++turn) {
    Mm* const victim = next_victim(kernel);
    if (victim == nullptr) return freed;
    freed += scan(kernel, *victim, wanted - freed);
  }
  return freed;
}

/// Pages of the page cache that no address space shows, oldest first.
std::uint64_t VirtualScanReclaim::free_unmapped(LinuxVm& kernel, std::uint64_t wanted) {
  std::uint64_t freed = 0;
  LinuxPage* next = nullptr;
  for (LinuxPage* page = kernel.queue().front(); page != nullptr && freed < wanted; page = next) {
    next = LinuxQueue::next(page);
    if (page->mapcount != 0) continue;
    kernel.write_and_free(*page);
    ++freed;
  }
  return freed;
}

/// The address space with the largest share of the round left; all have had theirs: a new round.
Mm* VirtualScanReclaim::next_victim(LinuxVm& kernel) {
  for (int round = 0; round < 2; ++round) {
    Mm* best = nullptr;
    for (auto& [id, mm] : kernel.processes()) {
      if (mm->rss == 0) mm->shadow_rss = 0;
      if (mm->shadow_rss > (best == nullptr ? 0 : best->shadow_rss)) best = mm.get();
    }
    if (best != nullptr) return best;
    for (auto& [id, mm] : kernel.processes()) {
      mm->shadow_rss = mm->rss == 0 ? 0 : std::max(kLeast, mm->rss / kShare);
    }
  }
  return nullptr;
}

/// Goes on where the last walk through this address space ended: an entry that was used loses its bit, one
/// that was not loses its page.
std::uint64_t VirtualScanReclaim::scan(LinuxVm& kernel, Mm& mm, std::uint64_t wanted) {
  Hardware& hardware = kernel.hardware();
  LinuxTables& tables = kernel.tables();
  std::uint64_t freed = 0;
  bool to_the_end = true;
  tables.for_each_until(mm, {mm.cursor, kAll.end}, [&](VirtAddr va, x86::Pte& pte) {
    const std::uint64_t entry = pte.load(std::memory_order_relaxed);
    hardware.note(PmapEvent::kPteRead, 1);
    hardware.touch(tables.line_of(pte), false, Charge::kKernel);
    mm.cursor = va + ByteCount{kPageSize};
    if (!LinuxTables::shows_page(entry)) return true;
    if (mm.shadow_rss > 0) --mm.shadow_rss;
    LinuxPage& page = kernel.page(x86::frame_of(entry));
    if ((entry & x86::kAccessed) != 0) {
      tables.set_bits(pte, x86::kAccessed, 0);
    } else if (kernel.unmap_entry(page, {&mm, va, &pte}) && page.mapcount == 0) {
      kernel.write_and_free(page);
      ++freed;
    }
    to_the_end = freed < wanted && mm.shadow_rss > 0;
    return to_the_end;
  });
  if (!to_the_end) return freed;
  mm.cursor = VirtAddr{0};
  mm.shadow_rss = 0;
  return freed;
}

LinuxParts make_linux24(const LinuxCore& core) {
  auto scan = std::make_shared<VirtualScan>(core);
  return {scan, scan, std::make_unique<VirtualScanReclaim>()};
}

}  // namespace enchilada::lab
