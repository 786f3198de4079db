// SoftEngine: a SoftMachine with swap devices in memory and an engine on it: what tests, benchmarks and
// fuzzers start.
//
// Every device can be made to fail (SoftEngine::disk). Invariants: deterministic (no clock, no address, no
// thread of its own takes part in what it does); the engine is destroyed before what it runs on. All maps go
// before the engine.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "machine/soft_machine.h"
#include "machine/timed_disk.h"
#include "pager/file_pager.h"
#include "swap/compressed_swap.h"
#include "swap/swap_device.h"
#include "swap/swap_pager.h"
#include "swap/swap_space.h"
#include "swap/swapoff.h"

namespace enchilada {

struct SoftEngineOptions {
  SoftMachineOptions machine{};
  std::vector<std::uint64_t> swap_pages{4096};  // one device each, at most four
  std::uint64_t swap_stripe = 16;
  std::size_t compressed_bytes = 0;     // of a compressed store before the devices; 0 = none
  std::size_t swap_metadata_bytes = 0;  // 0: the pager's own choice
  unsigned bounce_buffers = 2;          // with three and more, pages can be written behind
  unsigned async_looks = 0;             // FaultInjectingSwapDevice::set_async()
  VmTunables tunables{};
  VmModes modes{};                               // also of the machine's page tables
  ReplacementPolicyMaker make_policy = nullptr;  // null: FreeBSD's queues, in these modes
  std::uint64_t seed = 1;                        // of the fault injection
};

/// Zeroed pages that cost memory only when touched.
class ZeroedPages {
 public:
  explicit ZeroedPages(std::size_t bytes);
  ~ZeroedPages();
  ZeroedPages(const ZeroedPages&) = delete;
  ZeroedPages& operator=(const ZeroedPages&) = delete;
  [[nodiscard]] std::span<std::byte> span() const { return {data_, bytes_}; }

 private:
  std::size_t bytes_;
  void* block_;
  std::byte* data_;
};

class SoftEngine {
 public:
  explicit SoftEngine(const SoftEngineOptions& options = {});
  ~SoftEngine();
  SoftEngine(const SoftEngine&) = delete;
  SoftEngine& operator=(const SoftEngine&) = delete;

  [[nodiscard]] SoftMachine& machine() { return machine_; }
  [[nodiscard]] VmSystem& system() { return *system_; }
  [[nodiscard]] SwapPager& pager() { return *pager_; }
  [[nodiscard]] SwapSpace& space() { return *space_; }
  /// The compressed store; null without one.
  [[nodiscard]] CompressedStore* compressed() { return store_.has_value() ? &*store_ : nullptr; }
  [[nodiscard]] FaultInjectingSwapDevice& disk(std::size_t i) { return disks_[i]->faults; }
  /// Takes a device out, and puts it in again.
  SwapoffResult swapoff(unsigned slot, const SwapoffOptions& options = {}, SwapoffReport* report = nullptr) {
    return enchilada::swapoff(*system_, *pager_, slot, options, report);
  }
  [[nodiscard]] bool swapon(unsigned slot);
  [[nodiscard]] std::size_t disks() const { return disks_.size(); }
  /// An empty address space from 64 KiB on, of so many pages.
  [[nodiscard]] std::unique_ptr<VmMap> create_map(PageCount pages);
  /// The pager of files, made when first asked for.
  [[nodiscard]] FilePager& file_pager();

 private:
  void put_store_before(std::span<SwapDevice*> devices, const SoftEngineOptions& options);

  struct Disk {
    Disk(std::uint64_t pages, std::uint64_t seed)
        : memory(pages * kPageSize), device(memory.span()), faults(device, seed) {}
    ZeroedPages memory;
    MemorySwapDevice device;
    FaultInjectingSwapDevice faults;
    std::optional<TimedDisk> timed;  // before `faults`, on a machine with hardware
  };

  std::vector<std::unique_ptr<Disk>> disks_;
  std::unique_ptr<ZeroedPages> space_memory_;
  std::optional<SwapSpace> space_;
  std::unique_ptr<ZeroedPages> store_memory_;
  std::optional<CompressedStore> store_;
  SoftMachine machine_;
  std::unique_ptr<CompressedSwap> compressed_;
  std::unique_ptr<SwapPager> pager_;
  std::unique_ptr<FilePager> file_pager_;
  std::unique_ptr<VmSystem> system_;
};

}  // namespace enchilada
