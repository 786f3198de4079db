// Workloads' shorthands. Invariants: see rig.h.
#include "lab/experiments/rig.h"

namespace enchilada::lab {

void Rig::map_file(ProcessId process, std::uint64_t at, std::uint64_t pages, FileId file,
                   std::uint64_t offset) {
  CHECK(design_->map(process, {.at = rig_page(at),
                               .pages = PageCount{pages},
                               .file = file,
                               .offset = PageIndex{offset},
                               .shared = true}),
        at);
}

void Rig::map_memory(ProcessId process, std::uint64_t at, std::uint64_t pages) {
  CHECK(design_->map(process, {.at = rig_page(at), .pages = PageCount{pages}}), at);
}

void Rig::touch(ProcessId process, std::uint64_t page, Access access) {
  const bool done = design_->access(process, rig_page(page), access, [&](std::byte* at) {
    if (access == Access::kWrite) *at = std::byte{1};
  });
  CHECK(done, process.value(), page);
}

FrameNumber Rig::frame(ProcessId process, std::uint64_t page) {
  FrameNumber found = design_->frame_at(process, rig_page(page));
  if (found == kNoFrame) {  // a design may throw mappings away
    read(process, page);
    found = design_->frame_at(process, rig_page(page));
  }
  CHECK(found != kNoFrame, process.value(), page);
  return found;
}

Values Rig::end(double per) const {
  const HardwareCounts& now = design_->hardware().counts();
  Values values;
  const auto put = [&](std::string_view name, std::uint64_t after, std::uint64_t before) {
    values[std::string(name)] = static_cast<double>(after - before) / per;
  };
  for (std::size_t i = 0; i < kKernelEventKinds; ++i) {
    put(kKernelEventNames[i], now.kernel[i], before_.kernel[i]);
  }
  const auto pmap = [&](std::string_view name, PmapEvent event) {
    put(name, now.of(event), before_.of(event));
  };
  pmap("pte_reads", PmapEvent::kPteRead);
  pmap("pte_writes", PmapEvent::kPteWrite);
  pmap("pv_steps", PmapEvent::kPvListStep);
  pmap("entered", PmapEvent::kEnter);
  put("copies", now.copied, before_.copied);
  put("accesses", now.accesses, before_.accesses);
  std::uint64_t after = 0;
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < now.time.size(); ++i) {
    after += now.time[i].value();
    before += before_.time[i].value();
  }
  put("time_us", after / 1'000'000, before / 1'000'000);
  put("lock_us", now.locks_held.value() / 1'000'000, before_.locks_held.value() / 1'000'000);
  return values;
}

void Rig::add_bytes(Values* values) {
  const KernelAccounts accounts = design_->accounts();
  double of_map = 0;
  for (std::size_t i = 0; i < accounts.size(); ++i) {
    const auto type = static_cast<KernelType>(i);
    const auto bytes = static_cast<double>(accounts[i].bytes);
    if (type == KernelType::kVma) {
      (*values)["vma_bytes"] = bytes;
    } else if (type == KernelType::kPageTable) {
      (*values)["table_bytes"] = bytes;
    } else {
      of_map += bytes;
    }
  }
  (*values)["bytes"] = of_map;
}

std::vector<ProcessId> fork_family(VmDesign& design, ProcessId parent, std::uint64_t children) {
  std::vector<ProcessId> all{parent};
  for (std::uint64_t i = 0; i < children; ++i) all.push_back(design.fork(parent));
  return all;
}

}  // namespace enchilada::lab
