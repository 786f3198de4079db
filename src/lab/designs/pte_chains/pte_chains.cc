// PTE chains. Invariants: see pte_chains.h.
#include "lab/designs/pte_chains/pte_chains.h"

#include <algorithm>

namespace enchilada::lab {
namespace {

constexpr ByteCount kBlockBytes{KernelMemory::kLine};

}  // namespace

PteChains::PteChains(const LinuxCore& core) : ReverseMap(core.memory, core.tables) {
  memory_.grow(KernelType::kPagePointer, ByteCount{core.frames.value() * sizeof(void*)});
}

PteChains::Block* PteChains::new_block(Block* next) {
  auto* const block = new Block;
  block->at = memory_.allocate(KernelType::kPteChain, kBlockBytes);
  block->next = next;
  return block;
}

void PteChains::free_block(Block* block) {
  memory_.free(KernelType::kPteChain, block->at, kBlockBytes);
  delete block;
}

void PteChains::add(LinuxPage& page, x86::Pte& pte) {
  if (page.chain == 0) {
    page.chain = reinterpret_cast<std::uintptr_t>(&pte);
    return;
  }
  Block* block = nullptr;
  if (!is_chain(page.chain)) {
    block = new_block(nullptr);
    block->entries[block->used++] = reinterpret_cast<x86::Pte*>(page.chain);
  } else {
    block = block_of(page.chain);
    memory_.note(KernelEvent::kChainBlock);
    memory_.read(block->at);
    if (block->used == kPerBlock) block = new_block(block);
  }
  block->entries[block->used++] = &pte;
  memory_.write(block->at);
  page.chain = reinterpret_cast<std::uintptr_t>(block) | kChain;
}

/// The last entry of the first block takes the place of the one that goes.
void PteChains::remove(LinuxPage& page, x86::Pte& pte) {
  if (!is_chain(page.chain)) {
    CHECK(page.chain == reinterpret_cast<std::uintptr_t>(&pte), page.frame.value());
    page.chain = 0;
    return;
  }
  Block* const head = block_of(page.chain);
  for (Block* block = head;; block = block->next) {
    CHECK(block != nullptr, page.frame.value());
    memory_.note(KernelEvent::kChainBlock);
    memory_.read(block->at);
    const auto end = block->entries.begin() + block->used;
    const auto hole = std::find(block->entries.begin(), end, &pte);
    if (hole == end) continue;
    *hole = head->entries[head->used - 1];
    --head->used;
    memory_.write(block->at);
    if (block != head) memory_.write(head->at);
    break;
  }
  if (head->used != 0) return;
  page.chain = head->next == nullptr ? 0 : reinterpret_cast<std::uintptr_t>(head->next) | kChain;
  free_block(head);
}

void PteChains::mapped(LinuxPage& page, Vma& /*vma*/, VirtAddr /*va*/, x86::Pte& pte, MapKind /*kind*/) {
  const KernelLockHold lock(memory_.hardware());  // pte_chain_lock: a bit of the page
  add(page, pte);
}

void PteChains::unmapping(LinuxPage& page, x86::Pte& pte) {
  const KernelLockHold lock(memory_.hardware());
  remove(page, pte);
}

void PteChains::moved(LinuxPage& page, x86::Pte& from, Vma& /*to*/, VirtAddr /*va*/, x86::Pte& pte) {
  const KernelLockHold lock(memory_.hardware());
  remove(page, from);
  add(page, pte);
}

/// A chain of one entry becomes a direct pointer again, here only: as in page_referenced().
void PteChains::collapse_single(LinuxPage& page) {
  Block* const head = block_of(page.chain);
  if (head->used != 1 || head->next != nullptr) return;
  page.chain = reinterpret_cast<std::uintptr_t>(head->entries[0]);
  free_block(head);
}

void PteChains::locate(LinuxPage& page, std::vector<Place>* found) {
  const KernelLockHold lock(memory_.hardware());
  const auto take = [&](x86::Pte* pte) {
    memory_.hardware().note(PmapEvent::kPteRead, 1);
    memory_.read(tables_.line_of(*pte));
    found->push_back({tables_.mm_of(*pte), tables_.address_of(*pte), pte});
  };
  if (page.chain == 0) return;
  if (!is_chain(page.chain)) return take(reinterpret_cast<x86::Pte*>(page.chain));
  for (const Block* block = block_of(page.chain); block != nullptr; block = block->next) {
    memory_.note(KernelEvent::kChainBlock);
    memory_.read(block->at);
    for (std::uint32_t i = 0; i < block->used; ++i) take(block->entries[i]);
  }
  collapse_single(page);
}

LinuxParts make_pte_chains(const LinuxCore& core) {
  auto chains = std::make_shared<PteChains>(core);
  return {chains, chains, std::make_unique<SecondChance>()};
}

}  // namespace enchilada::lab
