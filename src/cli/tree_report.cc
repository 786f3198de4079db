// Reads the segment; changes nothing in it.
#include "cli/tree_report.h"

#include <sys/stat.h>

#include <algorithm>

#include "runtime/tree/tree_words.h"

namespace enchilada::cli {
namespace {

std::uint64_t bytes_in_memory(int descriptor) {
  struct stat st {};
  return fstat(descriptor, &st) == 0 ? static_cast<std::uint64_t>(st.st_blocks) * 512 : 0;
}

const char* reason(UnmanagedWhy why) {
  switch (why) {
    case UnmanagedWhy::kNothing:
      return "?";
    case UnmanagedWhy::kStatic:
      return "statically linked";
    case UnmanagedWhy::kOtherKind:
      return "not a 64-bit program";
    case UnmanagedWhy::kFiltered:
      return "started behind a seccomp filter";
  }
  return "?";
}

std::string first_unmanaged(const TreeHeader& header) {
  std::string name;
  for (const std::atomic<char>& letter : header.unmanaged_name) {
    if (letter.load() == 0) break;
    name += letter.load();
  }
  return name + " (" + reason(static_cast<UnmanagedWhy>(header.unmanaged_why.load())) + ")";
}

}  // namespace

void gather(const ProcessTree& tree, TreeSwap& tree_swap, RunReport* report) {
  const SwapSpace& swap = tree_swap.space();
  const TreeHeader& header = tree.header();
  const TreeConfig& config = header.config;
  report->counters.add(header.ended);
  for (std::uint32_t i = 0; i < header.slots_used.load(); ++i) {
    const TreeSlot& slot = tree.slot(ProcessSlot{i});
    if (words::owner_state(slot.owner.load()) == SlotState::kFree) continue;
    report->counters.add(slot.counters);
    ++report->processes_alive;
  }
  report->processes = header.attached.load();
  report->unmanaged = header.unmanaged.load();
  if (report->unmanaged != 0) report->unmanaged_first = first_unmanaged(header);
  report->ram_bytes = config.ram_frames * kPageSize;
  report->peak_resident_bytes = header.peak_charge.load() * kPageSize;
  report->resident_bytes = (config.ram_frames - tree.available().value()) * kPageSize;
  report->swap_bytes = swap.capacity().value() * kPageSize;
  report->swap_used_bytes = swap.used().value() * kPageSize;
  report->swap_peak_bytes = swap.peak().value() * kPageSize;
  report->swap_allocator = name_of(swap.allocator_mode());
  report->swap_lost_bytes = swap.lost().value() * kPageSize;
  report->swap_nodeless = swap.nodeless();
  report->swap_recounts = swap.recounts();
  report->segment_bytes = bytes_in_memory(header.segment_descriptor);
  if (tree_swap.compressed() == nullptr) return;
  const CompressedStore::Stats store = tree_swap.compressed()->stats();
  report->compressed = {.limit_bytes = config.compressed_bytes,
                        .touched_bytes = store.touched,
                        .pages_in = store.put,
                        .packed_bytes = store.packed,
                        .pages_out = store.got,
                        .written_back = store.moved};
  // What holds the program's pages is not the system's own.
  report->ram_bytes += config.compressed_bytes;
  report->peak_resident_bytes += store.touched;
  report->resident_bytes += store.touched;
  report->segment_bytes -= std::min(report->segment_bytes, store.touched);
}

}  // namespace enchilada::cli
