// ReverseMap: how a Linux finds the page-table entries that show a page. The seam between the Linux designs.
//
// A kernel has one for pages of files and one for anonymous pages; they may be the same object. The kernel
// tells them what happens to address spaces, VMAs and entries; they keep what they need in the fields of
// linux_types.h that are theirs. Invariant: locate() finds every entry of the page; after each hook the
// answer is right again.
#pragma once

#include <memory>
#include <vector>

#include "lab/linux/linux_tables.h"
#include "lab/linux/linux_types.h"

namespace enchilada::lab {

/// Why a VMA is made after the pattern of another.
enum class CloneKind : std::uint8_t { kSplit, kMove, kFork };

/// How a page comes to be shown by an entry: nobody else can have it, or others may (fork, swap).
enum class MapKind : std::uint8_t { kFresh, kFork, kFromSwap };

class ReverseMap {
 public:
  explicit ReverseMap(KernelMemory& memory, LinuxTables& tables) : memory_(memory), tables_(tables) {}
  virtual ~ReverseMap() = default;
  ReverseMap(const ReverseMap&) = delete;
  ReverseMap& operator=(const ReverseMap&) = delete;

  // --- Address spaces. parent: forked from it; null: made by exec.
  virtual void mm_born(Mm& /*mm*/, Mm* /*parent*/) {}
  /// All its VMAs are gone.
  virtual void mm_gone(Mm& /*mm*/) {}

  // --- VMAs.
  /// New, in its place with its final range; a clone's pattern has been told by cloned() before.
  virtual void linked(Vma& /*vma*/) {}
  virtual void unlinked(Vma& /*vma*/) {}
  /// Around every change of range and offset.
  virtual void before_resize(Vma& /*vma*/) {}
  virtual void after_resize(Vma& /*vma*/) {}
  virtual void cloned(Vma& /*from*/, Vma& /*fresh*/, CloneKind /*kind*/) {}
  /// They fit otherwise: may they become one?
  [[nodiscard]] virtual bool may_merge(const Vma& /*left*/, const Vma& /*right*/) const { return true; }
  /// `gone` is about to be unlinked; its range becomes part of `kept`.
  virtual void merging(Vma& /*kept*/, Vma& /*gone*/) {}
  /// Before the VMA's first anonymous page.
  virtual void prepare(Vma& /*vma*/) {}
  /// Does a VMA that moves keep its offsets, because pages refer to them?
  [[nodiscard]] virtual bool keeps_offsets() const { return false; }

  // --- Entries. The page's mapcount includes the entry.
  virtual void mapped(LinuxPage& page, Vma& vma, VirtAddr va, x86::Pte& pte, MapKind kind) = 0;
  virtual void unmapping(LinuxPage& page, x86::Pte& pte) = 0;
  /// The only one that can see the page writes it from now on.
  virtual void owned(LinuxPage& /*page*/, Vma& /*vma*/) {}
  /// May the page show at `va` of `vma` while it shows elsewhere?
  [[nodiscard]] virtual bool can_show(const LinuxPage& /*page*/, const Vma& /*vma*/, VirtAddr /*va*/) const {
    return true;
  }
  /// An entry moves from one place to another; can_show() has said yes, or it is the only one.
  virtual void moved(LinuxPage& /*page*/, x86::Pte& /*from*/, Vma& /*to*/, VirtAddr /*va*/,
                     x86::Pte& /*pte*/) {}

  // --- The search.
  virtual void locate(LinuxPage& page, std::vector<Place>* found) = 0;

 protected:
  /// Looks where `vma` would show the page; true when it does.
  bool look_in(const Vma& vma, const LinuxPage& page, std::vector<Place>* found);
  bool look_at(Mm& mm, VirtAddr va, const LinuxPage& page, std::vector<Place>* found);

  KernelMemory& memory_;
  LinuxTables& tables_;
};

}  // namespace enchilada::lab
