// Linux 2.4: no reverse map. Who shows a page is found by looking at every entry of every address space.
//
// VirtualScan answers the question (experiments ask it); VirtualScanReclaim is how 2.4 lived without asking:
// it walks address spaces and drops entries, and a page goes when the walk has met its last one. Invariant:
// nothing is kept for an entry; the walk's position is the only state.
#pragma once

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

class VirtualScan final : public ReverseMap {
 public:
  explicit VirtualScan(const LinuxCore& core)
      : ReverseMap(core.memory, core.tables), processes_(core.processes) {}
  void mapped(LinuxPage&, Vma&, VirtAddr, x86::Pte&, MapKind) override {}
  void unmapping(LinuxPage&, x86::Pte&) override {}
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  LinuxProcesses& processes_;
};

class VirtualScanReclaim final : public Reclaimer {
 public:
  /// Of the walk through one address space before the next one's turn: rss / 32, and at least 8 (swap_cnt).
  static constexpr std::uint64_t kShare = 32;
  static constexpr std::uint64_t kLeast = 8;

  std::uint64_t reclaim(LinuxVm& kernel, std::uint64_t wanted) override;

 private:
  static std::uint64_t free_unmapped(LinuxVm& kernel, std::uint64_t wanted);
  [[nodiscard]] static Mm* next_victim(LinuxVm& kernel);
  static std::uint64_t scan(LinuxVm& kernel, Mm& mm, std::uint64_t wanted);
};

[[nodiscard]] LinuxParts make_linux24(const LinuxCore& core);

}  // namespace enchilada::lab
