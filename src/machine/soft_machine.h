// SoftMachine: a complete computer for the engine: frames with real bytes, page tables, a clock, memory for
// metadata.
//
// It has no engine in it: VmSystem::create() is given config(). load() and store() act as a program on that
// machine would: an access that faults goes to vm_fault() and is tried again, until it succeeds or the fault
// is an error. Invariants: two machines share nothing; everything is in memory that the machine owns and
// frees.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/arena.h"
#include "machine/charged_memory.h"
#include "machine/soft_memory.h"
#include "machine/virtual_clock.h"
#include "pmap/soft/soft_pmap.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_meter.h"
#include "vm/vm_system.h"

namespace enchilada {

struct SoftMachineOptions {
  SoftMemoryOptions memory{};
  SoftPmapOptions pmap{};
  std::optional<HardwareOptions> hardware{};  // CPUs, TLBs, caches and their time; none: no time passes
  std::size_t arena_bytes = 0;  // for all metadata, the engine's too; 0: ample for the number of frames
};

/// What came of a program's access: how far it got, and why it stopped.
struct AccessOutcome {
  FaultResult result = FaultResult::kResolved;
  ByteCount done{0};
};

class SoftMachine {
 public:
  explicit SoftMachine(const SoftMachineOptions& options = {});
  ~SoftMachine();
  SoftMachine(const SoftMachine&) = delete;
  SoftMachine& operator=(const SoftMachine&) = delete;

  [[nodiscard]] SoftMemory& memory() { return *memory_; }
  [[nodiscard]] SoftPmapSystem& pmaps() { return *pmaps_; }
  [[nodiscard]] VirtualClock& clock() { return clock_; }
  /// Null without. One host thread at a time may use a machine that has it.
  [[nodiscard]] Hardware* hardware() { return hardware_.get(); }
  [[nodiscard]] VmCounters& counters() { return *counters_; }
  [[nodiscard]] Arena& arena() { return arena_; }
  /// This machine as an engine wants it.
  [[nodiscard]] VmSystemConfig config(Pager& swap, const VmTunables& tunables = {},
                                      const VmModes& modes = {});

  /// Reads, writes or fills memory of `map` as its program. Stops at the first byte whose fault is an error.
  AccessOutcome load(VmMap& map, VirtAddr va, std::span<std::byte> out);
  AccessOutcome store(VmMap& map, VirtAddr va, std::span<const std::byte> bytes);
  AccessOutcome fill(VmMap& map, VirtAddr va, ByteCount length, std::byte value);
  /// One access of the byte at va, and of those after it in its page.
  FaultResult touch(VmMap& map, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use);

 private:
  AccessOutcome for_each_page(VmMap& map, VirtRange range, Access access,
                              FunctionRef<void(std::byte*, ByteCount done, ByteCount here)> use);

  std::size_t memory_bytes_;
  std::size_t arena_bytes_;
  std::byte* block_;  // frames, then the arena
  Arena arena_;
  VirtualClock clock_;
  std::unique_ptr<VmCounters> counters_;
  std::unique_ptr<SoftMemory> memory_;
  std::unique_ptr<Hardware> hardware_;
  std::unique_ptr<ChargedMemory> charged_;
  std::unique_ptr<SoftPmapSystem> pmaps_;
};

}  // namespace enchilada
