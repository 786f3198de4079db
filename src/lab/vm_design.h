// VmDesign: a whole virtual memory system of the laboratory, as programs and experiments see it.
//
// Every design runs on the simulated machine (frames with real bytes, TLBs, caches, disks, one clock) and is
// charged for what it does by the machine's counters. What programs do is the first group of calls; all
// designs give the same bytes for the same calls, which tests check against a flat model. The second group is
// what experiments do to one page, the third the oracle: the truth that the page tables hold, and what the
// design's reverse map says of it. Invariants: deterministic; addresses are page aligned unless it is an
// access; one host thread at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "machine/kernel_memory.h"
#include "vm/vm_types.h"

namespace enchilada::lab {

using ProcessId = Unit<struct ProcessIdTag, std::uint32_t>;
using FileId = Unit<struct FileIdTag, std::uint32_t>;

struct DesignOptions {
  PageCount frames{256};
  PageCount swap{1024};
  PageCount table_pages{1024};
  std::size_t map_entries = 16384;  // of all processes: what metadata is set aside for
  std::size_t pv_limit = 0;         // of designs with pv entries; 0: none
  HardwareOptions hardware{};
};

/// mmap(2) at a fixed address: what lies there is replaced.
struct MapCall {
  VirtAddr at;
  PageCount pages;
  Prot prot = Prot::kReadWrite;
  std::optional<FileId> file{};  // none: anonymous memory, private
  PageIndex offset{0};           // in the file; the mapping ends within it
  bool shared = false;           // writes go to the file
};

/// One page of one address space that shows a frame.
struct Mapping {
  ProcessId process;
  VirtAddr va;
  FrameNumber frame;
  friend auto operator<=>(const Mapping&, const Mapping&) = default;
};

/// A design's memory, by type of structure.
using KernelAccounts = std::array<KernelAccount, kKernelTypes>;

class VmDesign {
 public:
  virtual ~VmDesign() = default;

  // --- What programs do. False or nothing: refused, and nothing has changed.
  /// A file of zeros.
  virtual FileId create_file(PageCount pages) = 0;
  virtual ProcessId spawn() = 0;
  virtual ProcessId fork(ProcessId parent) = 0;
  /// execve(2) with an empty image: the address space goes, the process stays.
  virtual void exec(ProcessId process) = 0;
  virtual void exit(ProcessId process) = 0;
  virtual bool map(ProcessId process, const MapCall& call) = 0;
  /// Holes are fine.
  virtual bool unmap(ProcessId process, VirtRange range) = 0;
  /// A hole refuses.
  virtual bool protect(ProcessId process, VirtRange range, Prot prot) = 0;
  /// madvise(2), Linux's MADV_DONTNEED: private pages are lost; a file, or zeros, show again.
  virtual bool discard(ProcessId process, VirtRange range) = 0;
  /// mremap(2) to a place that does not overlap; what lies there is replaced. A hole in `from` refuses.
  virtual bool remap(ProcessId process, VirtRange from, VirtAddr to) = 0;
  /// One access: `use` gets the byte at va and those after it in the page. False: a signal.
  virtual bool access(ProcessId process, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) = 0;
  /// Memory is short: frees so many frames, if it can.
  virtual void reclaim(PageCount frames) = 0;

  // --- What experiments do to one page.
  /// The frame that the page tables show at va; kNoFrame: none.
  [[nodiscard]] virtual FrameNumber frame_at(ProcessId process, VirtAddr va) = 0;
  /// Takes all mappings of the frame away, wherever they are; the page itself may stay.
  virtual void unmap_page(FrameNumber frame) = 0;
  /// Tests and clears the frame's reference bits; how many it found.
  virtual unsigned referenced(FrameNumber frame) = 0;

  // --- The oracle.
  /// Every mapping, read off all page tables.
  virtual void for_each_mapping(FunctionRef<void(const Mapping&)> visit) = 0;
  /// The frame's mappings as the reverse map has them. Counts and charges like unmap_page()'s search.
  virtual void find_mappings(FrameNumber frame, FunctionRef<void(const Mapping&)> visit) = 0;
  /// What is inconsistent inside, or nullptr.
  [[nodiscard]] virtual const char* find_error() = 0;

  // --- The accounts.
  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual Hardware& hardware() = 0;
  [[nodiscard]] virtual KernelAccounts accounts() = 0;
  /// Map entries of a process: VMAs.
  [[nodiscard]] virtual std::size_t map_entries(ProcessId process) = 0;
  /// Frames that hold nothing.
  [[nodiscard]] virtual PageCount free_frames() = 0;
};

}  // namespace enchilada::lab
