// The objects of the Linux-like kernel that all Linux designs share: address spaces, VMAs, pages, files.
//
// What a reverse map needs in them lies in fields that are the reverse maps' own (marked so): the kernel
// (linux_vm.h) never looks at those. Invariants: a VMA is in exactly one Mm, keyed by its start; a page's
// mapcount is the number of page-table entries that show it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/intrusive_list.h"
#include "lab/linux/interval_tree.h"
#include "lab/linux/linux_disk.h"
#include "lab/vm_design.h"
#include "pmap/soft/table_pool.h"

namespace enchilada::lab {

struct Vma;
struct Mm;
struct AnonVmaLink;
struct AnonHead;
struct PrioNode;

/// What stands for a group of VMAs (or address spaces) in an anonymous page's descriptor. A design's own.
struct AnonHead {};

/// A file, and which of its pages are in memory.
struct LinuxFile {
  LinuxFile(PageCount size, Hardware& hardware) : pages(size), disk(size, hardware) {}
  PageCount pages;
  LinuxDisk disk;
  std::map<std::uint64_t, FrameNumber> cache;
  // The index of its mappings: the reverse maps'.
  Vma* first = nullptr;
  PrioNode* prio_root = nullptr;
  IntervalTree<Vma> intervals;
};

/// A mapping, with the reverse maps' links.
struct Vma {
  Mm* mm = nullptr;
  VirtRange range;
  Prot prot = Prot::kNone;
  bool shared = false;
  LinuxFile* file = nullptr;
  PageIndex offset;  // of range.start: in the file, or in the space of offsets of anonymous memory
  PhysAddr at;       // in kernel memory

  // A file's index.
  Vma* file_prev = nullptr;
  Vma* file_next = nullptr;
  PrioNode* prio_node = nullptr;
  IntervalNode<Vma> file_interval;
  // Anonymous pages.
  AnonHead* anon = nullptr;
  Vma* anon_prev = nullptr;
  Vma* anon_next = nullptr;
  std::vector<AnonVmaLink*> links;

  [[nodiscard]] PageCount pages() const { return to_pages(range.size()); }
  [[nodiscard]] PageIndex last() const { return offset + PageCount{pages().value() - 1}; }
  /// Linux's linear_page_index() and vma_address().
  [[nodiscard]] PageIndex index_of(VirtAddr va) const { return offset + to_pages(va - range.start); }
  [[nodiscard]] bool covers(PageIndex index) const { return index >= offset && index <= last(); }
  [[nodiscard]] VirtAddr address_of(PageIndex index) const { return range.start + to_bytes(index - offset); }
};

/// An address space.
struct Mm {
  ProcessId process;
  SpaceId space = 0;
  TableIndex root = kNoTable;
  std::uint64_t rss = 0;
  std::map<std::uint64_t, std::unique_ptr<Vma>> vmas;  // by start
  // The virtual scan's.
  VirtAddr cursor{0};
  std::uint64_t shadow_rss = 0;
  // anonmm's.
  AnonHead* anonmm = nullptr;
};

inline constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};

/// A frame's descriptor.
struct LinuxPage {
  enum class Use : std::uint8_t { kFree, kFile, kAnon };
  ListLink<LinuxPage> link;  // free list, or queue
  FrameNumber frame;
  Use use = Use::kFree;
  bool dirty = false;
  LinuxFile* file = nullptr;     // kFile
  PageIndex index;               // in the file; kAnon: a reverse map's, in its own terms
  std::uint32_t slot = kNoSlot;  // kAnon: the swap copy, which is current unless dirty
  std::uint32_t mapcount = 0;    // page-table entries
  AnonHead* anon = nullptr;      // kAnon: a reverse map's
  std::uintptr_t chain = 0;      // a reverse map's: entry or chain
};

/// One place where a page shows.
struct Place {
  Mm* mm;
  VirtAddr va;
  x86::Pte* pte;
};

}  // namespace enchilada::lab
