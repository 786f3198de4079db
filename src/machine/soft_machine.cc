// The computer put together, and the loop of access and fault.
#include "machine/soft_machine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace enchilada {
namespace {

/// Metadata of an engine and its pmaps, generously: address space that nobody touches costs nothing.
std::size_t default_arena(const SoftMachineOptions& options) {
  const std::size_t per_frame = 1024;
  return (std::size_t{16} << 20) + options.memory.frames.value() * per_frame +
         (options.pmap.table_pages.value() + 1) * (kPageSize + sizeof(TableInfo));
}

/// Zeroed pages that cost memory only when touched.
std::byte* allocate_block(std::size_t bytes) {
  void* const block = std::calloc(bytes + kPageSize, 1);
  CHECK(block != nullptr, bytes);
  return static_cast<std::byte*>(block);
}

std::byte* page_aligned_start(std::byte* p) {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + kPageMask) & ~kPageMask);
}

}  // namespace

SoftMachine::SoftMachine(const SoftMachineOptions& options)
    : memory_bytes_(options.memory.frames.value() * kPageSize),
      arena_bytes_(options.arena_bytes != 0 ? options.arena_bytes : default_arena(options)),
      block_(allocate_block(memory_bytes_ + arena_bytes_)),
      arena_(page_aligned_start(block_) + memory_bytes_, arena_bytes_),
      counters_(std::make_unique<VmCounters>()) {
  std::byte* const frames = page_aligned_start(block_);
  memory_ = std::make_unique<SoftMemory>(arena_, frames, options.memory);
  pmaps_ = std::make_unique<SoftPmapSystem>(arena_, frames, options.memory.frames, options.pmap);
  if (!options.hardware.has_value()) return;
  hardware_ = std::make_unique<Hardware>(*options.hardware, options.memory.frames, clock_);
  charged_ = std::make_unique<ChargedMemory>(*memory_, *hardware_);
  pmaps_->set_events(*hardware_);
}

SoftMachine::~SoftMachine() {
  pmaps_.reset();
  memory_.reset();
  std::free(block_);
}

VmSystemConfig SoftMachine::config(Pager& swap, const VmTunables& tunables, const VmModes& modes) {
  PhysicalMemory* const frames =
      charged_ != nullptr ? charged_.get() : static_cast<PhysicalMemory*>(memory_.get());
  return {*frames, *pmaps_, swap, clock_, *counters_, arena_, tunables, modes};
}

FaultResult SoftMachine::touch(VmMap& map, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  auto& pmap = static_cast<SoftPmap&>(map.pmap());
  for (;;) {
    if (pmap.access(va, access, use)) return FaultResult::kResolved;
    const FaultResult result = vm_fault(map, va, access);
    if (result != FaultResult::kResolved) return result;
  }
}

AccessOutcome SoftMachine::for_each_page(VmMap& map, VirtRange range, Access access,
                                         FunctionRef<void(std::byte*, ByteCount, ByteCount)> use) {
  AccessOutcome outcome;
  while (outcome.done < range.size()) {
    const VirtAddr va = range.start + outcome.done;
    const ByteCount here{
        std::min(kPageSize - (va.value() & kPageMask), (range.size() - outcome.done).value())};
    const ByteCount done = outcome.done;
    outcome.result = touch(map, va, access, [&](std::byte* p) { use(p, done, here); });
    if (outcome.result != FaultResult::kResolved) break;
    outcome.done = outcome.done + here;
  }
  return outcome;
}

AccessOutcome SoftMachine::load(VmMap& map, VirtAddr va, std::span<std::byte> out) {
  return for_each_page(map, {va, va + ByteCount{out.size()}}, Access::kRead,
                       [&](std::byte* p, ByteCount done, ByteCount here) {
                         std::memcpy(out.data() + done.value(), p, here.value());
                       });
}

AccessOutcome SoftMachine::store(VmMap& map, VirtAddr va, std::span<const std::byte> bytes) {
  return for_each_page(map, {va, va + ByteCount{bytes.size()}}, Access::kWrite,
                       [&](std::byte* p, ByteCount done, ByteCount here) {
                         std::memcpy(p, bytes.data() + done.value(), here.value());
                       });
}

AccessOutcome SoftMachine::fill(VmMap& map, VirtAddr va, ByteCount length, std::byte value) {
  return for_each_page(map, {va, va + length}, Access::kWrite, [&](std::byte* p, ByteCount, ByteCount here) {
    std::memset(p, static_cast<int>(value), here.value());
  });
}

}  // namespace enchilada
