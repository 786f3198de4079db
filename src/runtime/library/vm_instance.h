// VmInstance: the engine behind one enchilada::Vm: this process's memory as its machine, swap files, one map.
//
// Invariants: whoever calls the engine holds `lock` (operations of one Vm wait for each other) and has all
// signals blocked (Operation); faults hold neither. Every region lies in the map followed by a guard page, so
// that two regions' entries never merge. It goes when the last Vm, Region or Snapshot that refers to it goes.
#pragma once

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/signals_blocked.h"
#include "enchilada/enchilada.h"
#include "pmap/host/host_clock.h"
#include "pmap/host/host_machine.h"
#include "runtime/library/fault_dispatch.h"
#include "swap/async_writes.h"
#include "swap/io_ring.h"
#include "swap/swap_device.h"
#include "swap/swap_pager.h"
#include "swap/swap_space.h"
#include "vm/vm_map.h"
#include "vm/vm_map_image.h"
#include "vm/vm_modes.h"
#include "vm/vm_system.h"

namespace enchilada::library {

class VmInstance final : public FaultTarget {
 public:
  static Expected<std::shared_ptr<VmInstance>> create(const VmOptions& options);
  ~VmInstance();
  VmInstance(const VmInstance&) = delete;
  VmInstance& operator=(const VmInstance&) = delete;

  /// Holds the Vm's lock, signals blocked.
  class Operation {
   public:
    explicit Operation(VmInstance& vm) : guard_(vm.lock_) {}

   private:
    SignalsBlocked blocked_;  // before the lock, so that no handler of the program runs while it is held
    std::lock_guard<std::mutex> guard_;
  };

  // All of these within an Operation.
  /// Addresses for a region of so many bytes: a guard with the region to be put over it.
  [[nodiscard]] std::optional<VirtRange> reserve(ByteCount capacity);
  /// Gives a region's addresses, the guard page behind them too, back.
  void release(VirtRange place);
  [[nodiscard]] VmMap& map() { return *map_; }
  [[nodiscard]] VmSystem& system() { return *system_; }
  [[nodiscard]] HostMachine& host() { return *host_; }
  [[nodiscard]] VmStatistics statistics();
  [[nodiscard]] std::uint64_t next_region() { return ++regions_; }

  bool resolve(VirtAddr address, Access access) override;
  [[nodiscard]] VirtRange window() const override { return window_; }

 private:
  /// Zeroed memory of our own that costs what is touched.
  class OwnMemory {
   public:
    ~OwnMemory() {
      if (data_ != nullptr) munmap(data_, bytes_);
    }
    [[nodiscard]] bool map(std::size_t bytes);
    [[nodiscard]] std::span<std::byte> span() const { return {data_, bytes_}; }

   private:
    std::byte* data_ = nullptr;
    std::size_t bytes_ = 0;
  };
  struct SwapFile {
    int descriptor = -1;
    std::uint64_t bytes = 0;
    ~SwapFile();
  };

  VmInstance() = default;
  Status open_swap(const std::vector<SwapPlace>& places);
  Status make_machine(std::uint64_t ram_bytes);
  Status make_engine(const VmModes& modes);

  std::mutex lock_;
  std::uint64_t regions_ = 0;
  VirtRange window_{};
  // In the order they are made; destroyed from the end.
  std::array<SwapFile, SwapGeometry::kMaxDevices> files_{};
  unsigned file_count_ = 0;
  OwnMemory space_memory_;
  OwnMemory arena_memory_;
  std::optional<Arena> arena_;
  std::unique_ptr<VmCounters> counters_;
  HostClock clock_;
  std::optional<SwapSpace> space_;
  std::optional<IoRings> rings_;
  std::optional<AsyncWrites> writes_;
  std::array<std::optional<FileSwapDevice>, SwapGeometry::kMaxDevices> devices_{};
  std::array<SwapDevice*, SwapGeometry::kMaxDevices> device_list_{};
  std::optional<LocalRamBudget> budget_;
  HostMachine* host_ = nullptr;
  std::unique_ptr<SwapPager> pager_;
  std::unique_ptr<VmSystem> system_;
  std::unique_ptr<VmMap> map_;
  bool listening_ = false;
};

/// What a Region handle owns.
struct RegionState {
  std::shared_ptr<VmInstance> vm;
  std::uint64_t id = 0;  // of its Vm; snapshots remember it
  VirtRange place{};     // all its addresses, the guard page included
  ByteCount size{};
  [[nodiscard]] VirtAddr start() const { return place.start; }
  [[nodiscard]] ByteCount capacity() const { return place.size() - ByteCount{kPageSize}; }
  [[nodiscard]] VirtRange range() const { return {start(), start() + size}; }
  ~RegionState();
};

/// What a Snapshot handle owns.
struct SnapshotState {
  std::shared_ptr<VmInstance> vm;
  std::uint64_t region = 0;
  ByteCount capacity{};
  std::unique_ptr<MapImage> image;
  ~SnapshotState();
};

}  // namespace enchilada::library
