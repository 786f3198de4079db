// CostModel: what every event of the simulated machine costs. All constants of the machine's clock are here.
//
// The defaults are of a server of the 2020s at about 3.5 GHz: latencies of caches and TLBs as vendors'
// manuals give them (L1 4 cycles, L2 14, L3 50, second-level TLB 7), software and devices as DESIGN.md §6
// measured them. `enchilada lab calibrate` measures them anew on the machine at hand.
#pragma once

#include <array>
#include <cstdint>

#include "base/units.h"
#include "machine/kernel_events.h"
#include "pmap/soft/pmap_events.h"

namespace enchilada {

/// Thousandths of a nanosecond: cache hits are not whole nanoseconds.
using Picoseconds = Unit<struct PicosecondsTag, std::uint64_t>;

constexpr Picoseconds operator+(Picoseconds a, Picoseconds b) {
  return Picoseconds{a.value() + b.value()};
}
constexpr Picoseconds operator*(Picoseconds a, std::uint64_t n) {
  return Picoseconds{a.value() * n};
}
constexpr Picoseconds picoseconds(std::uint64_t ns) {
  return Picoseconds{ns * 1000};
}

/// A disk: what it costs to go elsewhere, and to move a page.
struct DiskCosts {
  Picoseconds seek;
  Picoseconds page;
};
/// Random 4 KiB / 64 KiB reads in 100 / 110 us (DESIGN.md §6).
inline constexpr DiskCosts kFlashDisk{picoseconds(99'300), picoseconds(670)};
/// A disk of the article's year: 8 ms seek and half a turn at 7200/min, 20 MB/s.
inline constexpr DiskCosts kDiskOf2000{picoseconds(12'200'000), picoseconds(205'000)};

struct CostModel {
  // The hit itself, added up on the way down: a miss everywhere costs all four.
  Picoseconds l1{1'150};
  Picoseconds l2{2'850};
  Picoseconds l3{10'300};
  Picoseconds memory{75'000};
  Picoseconds tlb_second{2'000};      // found in the second level
  Picoseconds fault_trap{350'000};    // into the kernel and back
  Picoseconds space_switch{100'000};  // load of the root of other tables
  // Shoot-downs.
  Picoseconds invalidate_page{60'000};  // INVLPG
  Picoseconds flush{200'000};
  Picoseconds interrupt_send{1'000'000};  // to all targets, and the wait for the first
  Picoseconds interrupt_wait{150'000};    // for each further target
  Picoseconds interrupt_taken{700'000};   // by a target
  // Page-sized work, past the caches.
  Picoseconds zero_page{110'000};
  Picoseconds copy_page{280'000};
  DiskCosts disk = kFlashDisk;

  /// What software pays for an event of the pmap, beside what the hardware is charged for.
  [[nodiscard]] Picoseconds of(PmapEvent event) const { return events[static_cast<std::size_t>(event)]; }
  std::array<Picoseconds, kPmapEventKinds> events = default_events();

  /// The instructions that an event of the kernel's structures takes; the lines that it touches are charged
  /// as they are found in the caches, and a fault's trap as such.
  [[nodiscard]] Picoseconds of(KernelEvent event) const { return kernel[static_cast<std::size_t>(event)]; }
  std::array<Picoseconds, kKernelEventKinds> kernel = default_kernel();

  static constexpr std::array<Picoseconds, kKernelEventKinds> default_kernel() {
    std::array<Picoseconds, kKernelEventKinds> costs{};
    const auto set = [&](KernelEvent event, std::uint64_t ps) {
      costs[static_cast<std::size_t>(event)] = Picoseconds{ps};
    };
    set(KernelEvent::kWalkMiss, 500);
    set(KernelEvent::kIndexNode, 1'000);
    set(KernelEvent::kVmaVisit, 1'000);
    set(KernelEvent::kChainBlock, 1'000);
    set(KernelEvent::kAllocation, 25'000);  // a slab's fast path
    set(KernelEvent::kFree, 15'000);
    set(KernelEvent::kLock, 6'000);  // uncontended, the line at hand
    set(KernelEvent::kMinorFault, 150'000);
    set(KernelEvent::kMajorFault, 800'000);
    return costs;
  }

  static constexpr std::array<Picoseconds, kPmapEventKinds> default_events() {
    std::array<Picoseconds, kPmapEventKinds> costs{};
    const auto set = [&](PmapEvent event, std::uint64_t ns) {
      costs[static_cast<std::size_t>(event)] = picoseconds(ns);
    };
    set(PmapEvent::kEnter, 30);
    set(PmapEvent::kUpdate, 15);
    set(PmapEvent::kRemove, 30);
    set(PmapEvent::kTableAllocated, 250);  // zeroed
    set(PmapEvent::kTableFreed, 50);
    set(PmapEvent::kPvListStep, 10);
    set(PmapEvent::kHashProbe, 5);
    return costs;
  }
};

}  // namespace enchilada
