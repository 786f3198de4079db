// Linux 2.5's PTE chains: every page knows its page-table entries one by one.
//
// A page that one entry shows points straight at it (PG_direct); otherwise at a list of blocks of one cache
// line, a next pointer and kPerBlock entries. Invariants: only the first block has free places, its entries
// are its last ones in use; a page points at as many entries as its mapcount says.
#pragma once

#include <array>

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

class PteChains final : public ReverseMap {
 public:
  /// Pointers of 8 bytes in a line of 64, less the one to the next block.
  static constexpr std::uint32_t kPerBlock = 7;
  struct Block {
    PhysAddr at;
    Block* next = nullptr;
    std::uint32_t used = 0;
    std::array<x86::Pte*, kPerBlock> entries{};
  };

  explicit PteChains(const LinuxCore& core);
  void mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& pte, MapKind kind) override;
  void unmapping(LinuxPage& page, x86::Pte& pte) override;
  void moved(LinuxPage& page, x86::Pte& from, Vma& to, VirtAddr va, x86::Pte& pte) override;
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  static constexpr std::uintptr_t kChain = 1;  // LinuxPage::chain: a block, not an entry
  [[nodiscard]] static bool is_chain(std::uintptr_t word) { return (word & kChain) != 0; }
  [[nodiscard]] static Block* block_of(std::uintptr_t word) {
    return reinterpret_cast<Block*>(word & ~kChain);
  }
  [[nodiscard]] Block* new_block(Block* next);
  void free_block(Block* block);
  void add(LinuxPage& page, x86::Pte& pte);
  void remove(LinuxPage& page, x86::Pte& pte);
  void collapse_single(LinuxPage& page);
};

[[nodiscard]] LinuxParts make_pte_chains(const LinuxCore& core);

}  // namespace enchilada::lab
