// LinuxVm: the Linux-like kernel that all Linux designs share: VMAs, faults, fork, swap, page-out. What
// differs between them is behind two seams: ReverseMap (who shows a page?) and Reclaimer (which pages go?).
//
// It is Linux's structure (an anonymous page lives in page-table entries alone and has no object), without
// what the experiments do not ask about; README.md in this folder says what that is. Invariants: the page
// tables are the truth; every page is free, of a file or anonymous; pages in use are on the one queue; no TLB
// keeps what an entry no longer says.
#pragma once

#include <functional>
#include <string>

#include "lab/linux/linux_swap.h"
#include "lab/linux/linux_tables.h"
#include "lab/linux/reverse_map.h"
#include "machine/soft_machine.h"

namespace enchilada::lab {

class LinuxVm;
using LinuxQueue = IntrusiveList<LinuxPage, &LinuxPage::link>;

/// Chooses pages and frees them. Second seam of the Linux designs.
class Reclaimer {
 public:
  virtual ~Reclaimer() = default;
  /// Frees up to so many frames; returns how many. `kernel` does what is done to a page.
  virtual std::uint64_t reclaim(LinuxVm& kernel, std::uint64_t wanted) = 0;
};

using LinuxProcesses = std::map<std::uint32_t, std::unique_ptr<Mm>>;

/// The parts that make one design. `file` and `anon` may be the same object.
struct LinuxParts {
  std::shared_ptr<ReverseMap> file;
  std::shared_ptr<ReverseMap> anon;
  std::unique_ptr<Reclaimer> reclaimer;
};
/// What a maker of parts may use.
struct LinuxCore {
  KernelMemory& memory;
  LinuxTables& tables;
  LinuxProcesses& processes;
  PageCount frames;
};
using LinuxPartsMaker = LinuxParts (*)(const LinuxCore& core);

class LinuxVm final : public VmDesign {
 public:
  LinuxVm(std::string_view name, const DesignOptions& options, LinuxPartsMaker make);
  ~LinuxVm() override;

  FileId create_file(PageCount pages) override;
  ProcessId spawn() override;
  ProcessId fork(ProcessId parent) override;
  void exec(ProcessId process) override;
  void exit(ProcessId process) override;
  bool map(ProcessId process, const MapCall& call) override;
  bool unmap(ProcessId process, VirtRange range) override;
  bool protect(ProcessId process, VirtRange range, Prot prot) override;
  bool discard(ProcessId process, VirtRange range) override;
  bool remap(ProcessId process, VirtRange from, VirtAddr to) override;
  bool access(ProcessId process, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) override;
  void reclaim(PageCount frames) override;
  FrameNumber frame_at(ProcessId process, VirtAddr va) override;
  void unmap_page(FrameNumber frame) override;
  unsigned referenced(FrameNumber frame) override;
  void for_each_mapping(FunctionRef<void(const Mapping&)> visit) override;
  void find_mappings(FrameNumber frame, FunctionRef<void(const Mapping&)> visit) override;
  const char* find_error() override;
  std::string_view name() const override { return name_; }
  Hardware& hardware() override { return *machine_.hardware(); }
  KernelAccounts accounts() override;
  std::size_t map_entries(ProcessId process) override { return mm(process).vmas.size(); }
  PageCount free_frames() override { return PageCount{free_.size()}; }

  // --- For reclaimers.
  [[nodiscard]] LinuxQueue& queue() { return queue_; }
  [[nodiscard]] LinuxTables& tables() { return tables_; }
  [[nodiscard]] LinuxProcesses& processes() { return processes_; }
  [[nodiscard]] LinuxPage& page(FrameNumber frame) { return pages_[frame.value()]; }
  /// By the reverse map; false: swap is full, some mappings may be gone.
  bool unmap_everywhere(LinuxPage& page);
  unsigned test_referenced(LinuxPage& page);
  /// One entry gives its page up; what it knew goes to the page. False: swap is full, nothing done.
  bool unmap_entry(LinuxPage& page, const Place& place);
  /// Writes the page if it is dirty and frees its frame. It is not mapped.
  void write_and_free(LinuxPage& page);

 private:
  [[nodiscard]] Mm& mm(ProcessId process) { return *processes_.at(process.value()); }
  [[nodiscard]] ReverseMap& map_of(const LinuxPage& page) {
    return page.use == LinuxPage::Use::kFile ? *parts_.file : *parts_.anon;
  }
  /// Calls f(reverse map) for each.
  template <class F>
  void each_map(F&& f) {
    f(*parts_.file);
    if (parts_.anon != parts_.file) f(*parts_.anon);
  }

  // Address spaces and VMAs (linux_vmas.cc).
  Mm& new_mm(ProcessId process, Mm* parent);
  void drop_mm(Mm& space);
  [[nodiscard]] Vma* find_vma(Mm& space, VirtAddr va);
  /// First one that ends after va.
  [[nodiscard]] std::map<std::uint64_t, std::unique_ptr<Vma>>::iterator first_vma(Mm& space, VirtAddr va);
  [[nodiscard]] bool covered(Mm& space, VirtRange range);
  Vma& add_vma(Mm& space, std::unique_ptr<Vma> vma);
  [[nodiscard]] std::unique_ptr<Vma> new_vma(Mm& space, const Vma& pattern);
  void remove_vma(Vma& vma);
  void resize_vma(Vma& vma, VirtRange range);
  void split_vma(Vma& vma, VirtAddr at);
  void split_at_ends(Mm& space, VirtRange range);
  [[nodiscard]] bool fits(const Vma& left, const Vma& right) const;
  void merge_around(Mm& space, VirtRange range);
  void move_vma(Vma& vma, VirtRange part, VirtAddr to);
  void move_entry(Vma& from, Vma& to, VirtAddr va, x86::Pte& pte);

  // Entries.
  void zap(Mm& space, VirtRange range);
  void zap_entry(Mm& space, x86::Pte& pte);
  void copy_entries(Vma& from, Vma& to);
  void copy_entry(Vma& to, VirtAddr va, x86::Pte& pte);
  void enter(Vma& vma, VirtAddr va, LinuxPage& page, bool writable, MapKind kind);
  void take_knowledge(LinuxPage& page, std::uint64_t entry);

  // Faults (linux_fault.cc).
  enum class Fault : std::uint8_t { kMinor, kMajor, kSignal };
  [[nodiscard]] Fault fault(Mm& space, VirtAddr va, Access access);
  [[nodiscard]] Fault write_protected(Vma& vma, VirtAddr va, x86::Pte& pte);
  [[nodiscard]] Fault from_swap(Vma& vma, VirtAddr va, Access access, std::uint32_t slot);
  [[nodiscard]] Fault from_file(Vma& vma, VirtAddr va, Access access);
  [[nodiscard]] Fault zero_fill(Vma& vma, VirtAddr va);
  void copy_for(Vma& vma, VirtAddr va, LinuxPage& source);
  [[nodiscard]] bool only_ours(const LinuxPage& page) const;
  void make_ours(LinuxPage& page, Vma& vma);

  // Frames.
  [[nodiscard]] bool reserve(std::uint64_t frames);
  [[nodiscard]] LinuxPage& take_frame(LinuxPage::Use use);
  void free_page(LinuxPage& page);
  void free_if_unreachable(LinuxPage& page);
  [[nodiscard]] std::byte* bytes_of(const LinuxPage& page);

  const std::string name_;
  SoftMachine machine_;
  KernelMemory memory_;
  LinuxTables tables_;
  LinuxSwap swap_;
  std::vector<LinuxPage> pages_;  // by frame
  LinuxQueue free_;
  LinuxQueue queue_;  // in use, oldest first
  std::vector<std::unique_ptr<LinuxFile>> files_;
  LinuxProcesses processes_;
  std::uint32_t next_process_ = 1;
  std::vector<SpaceId> free_spaces_;
  SpaceId next_space_ = 1;
  LinuxParts parts_;
  std::vector<Place> places_;  // of a search, kept for its memory
};

/// One queue with a second chance for pages that were used; by the reverse map. Shared by all Linux designs
/// that have one, so that they choose alike.
class SecondChance final : public Reclaimer {
 public:
  std::uint64_t reclaim(LinuxVm& kernel, std::uint64_t wanted) override;
};

}  // namespace enchilada::lab
