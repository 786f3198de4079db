// Hardware: the CPUs of a simulated machine: TLBs, caches, shoot-downs, and the clock that all of it moves.
//
// It listens to the pmaps (PmapEventSink): each access that they translate is looked up in the running CPU's
// TLB; a miss reads the page-table entries through the caches, then the data itself. It decides nothing: what
// an access finds is the tables' affair, so a wrong model costs wrong time, never wrong bytes. A TLB entry
// that disagrees with the tables is counted as stale: somebody forgot an invalidation.
// Invariants: each CPU's time only grows and the clock shows the latest; every charge is in exactly one
// Charge. Deterministic; one host thread at a time may use a machine with hardware. No allocation after
// construction.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "machine/cache.h"
#include "machine/cost_model.h"
#include "machine/kernel_events.h"
#include "machine/tlb.h"
#include "machine/virtual_clock.h"
#include "pmap/soft/pmap_events.h"

namespace enchilada {

struct HardwareOptions {
  unsigned cpus = 1;  // at most 64
  TlbShape tlb{};
  bool space_ids = true;                   // TLB entries are tagged; else a switch of spaces flushes
  std::uint64_t flush_above_pages = 32;    // an invalidation of more pages flushes the space instead
  CacheShape l1{ByteCount{32 << 10}, 8};   // each CPU's
  CacheShape l2{ByteCount{1 << 20}, 16};   // each CPU's
  CacheShape l3{ByteCount{16 << 20}, 16};  // shared
  CostModel cost{};
};

/// What time went to.
enum class Charge : std::uint8_t { kCache, kTlb, kWalk, kFault, kPmap, kShootdown, kPages, kDisk, kKernel };
inline constexpr std::array<const char*, 9> kChargeNames = {"cache",     "tlb",   "walk", "fault", "pmap",
                                                            "shootdown", "pages", "disk", "kernel"};

struct HardwareCounts {
  std::uint64_t accesses = 0;
  std::uint64_t writes = 0;
  std::uint64_t faults = 0;
  std::uint64_t walks = 0;
  std::uint64_t walk_reads = 0;     // page-table entries that walks read
  std::uint64_t dirty_assists = 0;  // walks to set a dirty bit through a TLB entry that had not written yet
  std::uint64_t stale = 0;          // TLB entries that disagreed with the tables: must stay 0
  std::uint64_t memory_reads = 0;   // lines that no cache had
  std::uint64_t memory_writes = 0;  // lines written back to memory
  std::uint64_t switches = 0;       // a CPU took up another space
  std::uint64_t shootdowns = 0;     // that interrupted at least one CPU
  std::uint64_t interrupts = 0;     // CPUs interrupted
  std::uint64_t pages_invalidated = 0;
  std::uint64_t spaces_flushed = 0;
  std::uint64_t deferred = 0;  // CPUs that held entries, but ran something else: told at their switch
  std::uint64_t zeroed = 0;    // pages
  std::uint64_t copied = 0;    // pages
  std::uint64_t disk_seeks = 0;
  std::uint64_t disk_pages = 0;
  std::array<std::uint64_t, kPmapEventKinds> pmap{};
  std::array<std::uint64_t, kKernelEventKinds> kernel{};
  Picoseconds locks_held{0};  // by the simulated kernel, added up over all its locks
  std::array<Picoseconds, kChargeNames.size()> time{};

  [[nodiscard]] Picoseconds spent(Charge charge) const { return time[static_cast<std::size_t>(charge)]; }
  [[nodiscard]] std::uint64_t of(PmapEvent event) const { return pmap[static_cast<std::size_t>(event)]; }
  [[nodiscard]] std::uint64_t of(KernelEvent event) const { return kernel[static_cast<std::size_t>(event)]; }
};

class Hardware final : public PmapEventSink {
 public:
  /// Page tables lie behind `frames` frames of memory.
  Hardware(const HardwareOptions& options, PageCount frames, VirtualClock& clock);

  /// The CPU that makes the accesses to come, and is charged for what software does.
  void run_on(unsigned cpu);
  [[nodiscard]] unsigned cpu() const { return current_; }
  [[nodiscard]] unsigned cpus() const { return static_cast<unsigned>(cpus_.size()); }

  // PmapEventSink.
  void note(PmapEvent event, std::uint64_t n) override;
  void walked(const PmapWalk& walk) override;
  void invalidated(std::span<const SpaceId> spaces, VirtRange range) override;

  // The kernel's own structures (kernel_memory.h).
  void note(KernelEvent event, std::uint64_t n);
  void note_lock_held(Picoseconds time) { counts_.locks_held = counts_.locks_held + time; }

  /// A read or write of physical memory by the running CPU, through its caches.
  void touch(PhysAddr address, bool write, Charge charge);
  void pages_zeroed(PageCount n);
  void pages_copied(PageCount n);
  void disk_transfer(bool seek, PageCount pages);
  void charge(Charge to, Picoseconds time);

  [[nodiscard]] const HardwareCounts& counts() const { return counts_; }
  [[nodiscard]] const Tlb& tlb(unsigned cpu) const { return cpus_[cpu].tlb; }
  /// Level 1 and 2 are each CPU's, 3 is shared.
  [[nodiscard]] const Cache& cache(unsigned level, unsigned cpu = 0) const;
  [[nodiscard]] Picoseconds time_of(unsigned cpu) const { return cpus_[cpu].time; }
  /// Where a byte of the memory of all page tables lies.
  [[nodiscard]] PhysAddr table_address(std::uint64_t offset) const { return PhysAddr{tables_at_ + offset}; }
  [[nodiscard]] const CostModel& cost() const { return options_.cost; }
  /// Counts of everything start again; contents of TLBs and caches and the time stay.
  void reset_counts();

 private:
  static constexpr std::uint32_t kNoSpace = ~std::uint32_t{0};
  struct Cpu {
    explicit Cpu(const HardwareOptions& o) : tlb(o.tlb), l1(o.l1), l2(o.l2) {}
    Tlb tlb;
    Cache l1;
    Cache l2;
    std::uint32_t space = kNoSpace;
    Picoseconds time{0};
  };

  void switch_space(Cpu& cpu, SpaceId space);
  void walk_tables(const PmapWalk& walk);
  [[nodiscard]] static bool agrees(const Tlb::Hit& hit, const PmapWalk& walk);
  void translate(Cpu& cpu, const PmapWalk& walk);
  void note_stale(const Tlb::Hit& hit, const PmapWalk& walk);
  void forget(unsigned cpu, SpaceId space, VirtRange range, bool charged);
  void settle_shootdown();
  bool fetch(Cpu& cpu, std::uint64_t line, bool write, Picoseconds* time);
  void take_from_others(std::uint64_t line, bool write);
  void put_back(Cache* below, Cache* further, std::uint64_t line);
  void show_time(const Cpu& cpu);

  const HardwareOptions options_;
  const std::uint64_t tables_at_;  // physical address
  VirtualClock& clock_;
  std::vector<Cpu> cpus_;
  Cache l3_;
  unsigned current_ = 0;
  std::uint64_t interrupted_ = 0;       // CPUs of the shoot-down that is going on
  std::vector<std::uint64_t> holders_;  // by space: CPUs whose TLB may have entries of it
  HardwareCounts counts_;
};

}  // namespace enchilada
