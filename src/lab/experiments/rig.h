// Rig: a design at work in an experiment: shorthands for what workloads do, and the counts of a stretch of
// it. Invariant: a call that a workload relies on and that is refused stops the run.
#pragma once

#include <memory>
#include <vector>

#include "lab/designs/designs.h"
#include "lab/experiments/experiment.h"
#include "lab/workload.h"

namespace enchilada::lab {

inline constexpr VirtAddr kRigBase{std::uint64_t{1} << 32};

constexpr VirtAddr rig_page(std::uint64_t n) {
  return kRigBase + to_bytes(PageCount{n});
}
constexpr VirtRange rig_range(std::uint64_t first, std::uint64_t pages) {
  return {rig_page(first), rig_page(first + pages)};
}

class Rig {
 public:
  Rig(std::string_view design, const DesignOptions& options) : design_(make_design(design, options)) {}
  [[nodiscard]] VmDesign& design() { return *design_; }

  void map_file(ProcessId process, std::uint64_t at, std::uint64_t pages, FileId file, std::uint64_t offset);
  void map_memory(ProcessId process, std::uint64_t at, std::uint64_t pages);
  void read(ProcessId process, std::uint64_t page) { touch(process, page, Access::kRead); }
  void write(ProcessId process, std::uint64_t page) { touch(process, page, Access::kWrite); }
  [[nodiscard]] FrameNumber frame(ProcessId process, std::uint64_t page);

  /// What the counters and the clock have gained since the last begin(), each divided by `per`.
  void begin() { before_ = design_->hardware().counts(); }
  [[nodiscard]] Values end(double per) const;
  /// Bytes that structures take now: "bytes" for the reverse map's, "table_bytes", "vma_bytes".
  void add_bytes(Values* values);

 private:
  void touch(ProcessId process, std::uint64_t page, Access access);
  std::unique_ptr<VmDesign> design_;
  HardwareCounts before_;
};

/// One process that maps a file, and others forked from it.
[[nodiscard]] std::vector<ProcessId> fork_family(VmDesign& design, ProcessId parent, std::uint64_t children);

}  // namespace enchilada::lab
