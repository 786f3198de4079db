// objrmap: a file's page is found through the mappings of the file: page -> file -> VMAs -> one address in
// each.
//
// Nothing is kept for an entry. What differs is the index of a file's mappings (FileIndex): a list, a
// priority search tree, an interval tree. Invariant: a linked VMA of a file is in the file's index, under its
// range of offsets.
#pragma once

#include "lab/linux/linux_vm.h"

namespace enchilada::lab {

/// What finds the mappings of a file that may show one of its pages.
class FileIndex {
 public:
  explicit FileIndex(KernelMemory& memory) : memory_(memory) {}
  virtual ~FileIndex() = default;
  virtual void insert(Vma& vma) = 0;
  virtual void erase(Vma& vma) = 0;
  /// Calls visit(vma) for those that may cover the page, and perhaps others, until it says false.
  virtual void find(LinuxFile& file, PageIndex index, FunctionRef<bool(Vma&)> visit) = 0;
  /// Does the place of a VMA in the index depend on its range?
  [[nodiscard]] virtual bool by_range() const = 0;
  /// What a VMA needs to be in it, on a machine of 64 bits.
  [[nodiscard]] virtual ByteCount bytes_per_vma() const = 0;

 protected:
  KernelMemory& memory_;
};

class ObjRmap final : public ReverseMap {
 public:
  ObjRmap(const LinuxCore& core, std::unique_ptr<FileIndex> index)
      : ReverseMap(core.memory, core.tables), index_(std::move(index)) {}
  void linked(Vma& vma) override;
  void unlinked(Vma& vma) override;
  void before_resize(Vma& vma) override;
  void after_resize(Vma& vma) override;
  void mapped(LinuxPage&, Vma&, VirtAddr, x86::Pte&, MapKind) override {}
  void unmapping(LinuxPage&, x86::Pte&) override {}
  void locate(LinuxPage& page, std::vector<Place>* found) override;

 private:
  std::unique_ptr<FileIndex> index_;
};

[[nodiscard]] std::shared_ptr<ReverseMap> make_file_list(const LinuxCore& core);
[[nodiscard]] std::shared_ptr<ReverseMap> make_file_prio_tree(const LinuxCore& core);
[[nodiscard]] std::shared_ptr<ReverseMap> make_file_interval_tree(const LinuxCore& core);

/// "Partial" objrmap: files by objects, anonymous pages by PTE chains.
[[nodiscard]] LinuxParts make_objrmap_list(const LinuxCore& core);
[[nodiscard]] LinuxParts make_objrmap_prio(const LinuxCore& core);
[[nodiscard]] LinuxParts make_objrmap_interval(const LinuxCore& core);

}  // namespace enchilada::lab
