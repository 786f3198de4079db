// An engine on the soft machine's page tables, with frames that have no bytes: benchmarks measure the engine,
// not memset and memcpy, so PhysicalMemory::zero() and copy() do nothing here, and a million pages cost their
// metadata only. No backing store. Locks, counters and page tables are the shipped ones.
#pragma once

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <vector>

#include "machine/virtual_clock.h"
#include "pmap/soft/soft_pmap.h"
#include "vm/fixed_pager.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_system.h"

namespace enchilada::bench {

/// Frames without bytes, all granted when first asked for.
class EmptyFrames final : public PhysicalMemory {
 public:
  explicit EmptyFrames(std::uint64_t frames) : frames_(frames) {}
  [[nodiscard]] PageCount frame_limit() const override { return PageCount{frames_}; }
  PageCount grow(PageCount /*wanted*/, FunctionRef<void(FrameRun)> sink) override {
    if (granted_) return PageCount{0};
    granted_ = true;
    sink({FrameNumber{0}, PageCount{frames_}});
    return PageCount{frames_};
  }
  void retire(FrameRun) override { std::abort(); }
  void zero(FrameRun) override {}
  void copy(FrameNumber, FrameNumber) override {}
  void with_frames(FrameRun, Access, FunctionRef<void(std::byte*)>) override { std::abort(); }

 private:
  std::uint64_t frames_;
  bool granted_ = false;
};

/// Address space that costs memory only where it is touched, in huge pages where the kernel has some.
class LazyMemory {
 public:
  explicit LazyMemory(std::size_t bytes)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                   0)) {
    if (data_ == MAP_FAILED) std::abort();
    (void)madvise(data_, bytes, MADV_HUGEPAGE);
  }
  ~LazyMemory() { munmap(data_, bytes_); }
  LazyMemory(const LazyMemory&) = delete;
  LazyMemory& operator=(const LazyMemory&) = delete;
  [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

class EngineRig {
 public:
  static constexpr VirtAddr kBase{std::uint64_t{1} << 32};

  explicit EngineRig(std::uint64_t frames, const VmTunables& tunables = {}, const VmModes& pmap_modes = {})
      : memory_(kArena),
        arena_(memory_.data(), kArena),
        frames_(frames),
        pmaps_(arena_, nullptr, PageCount{frames},
               {.table_pages = PageCount{frames / 64 + 65536}, .modes = pmap_modes}) {
    system_ = VmSystem::create({.phys = frames_,
                                .pmaps = pmaps_,
                                .swap = store_,
                                .clock = clock_,
                                .counters = counters_,
                                .arena = arena_,
                                .tunables = tunables});
    if (system_ == nullptr || system_->grow(PageCount{frames}).value() != frames) std::abort();
  }

  [[nodiscard]] std::unique_ptr<VmMap> make_map() {
    auto map = VmMap::create(*system_, {kBase, kBase + ByteCount{std::uint64_t{1} << 42}});
    if (map == nullptr) std::abort();
    return map;
  }
  static void must(KernReturn verdict) {
    if (verdict != KernReturn::kSuccess) std::abort();
  }
  static VirtAddr page(std::uint64_t i) { return kBase + ByteCount{i * kPageSize}; }
  /// Zero-fill memory at pages [first, first + pages).
  static void map_pages(VmMap& map, std::uint64_t first, std::uint64_t pages, Prot prot = Prot::kReadWrite) {
    VirtAddr at{0};
    must(map.map({.length = ByteCount{pages * kPageSize},
                  .hint = page(first),
                  .prot = prot,
                  .placement = VmMap::MapRequest::Placement::kFixedExclusive},
                 &at));
  }
  static void fault(VmMap& map, std::uint64_t i, Access access) {
    if (vm_fault(map, page(i), access) != FaultResult::kResolved) std::abort();
  }
  /// Makes every page resident, dirty and mapped.
  static void populate(VmMap& map, std::uint64_t first, std::uint64_t pages) {
    for (std::uint64_t i = first; i < first + pages; ++i) fault(map, i, Access::kWrite);
  }
  static void drop_mappings(VmMap& map, std::uint64_t first, std::uint64_t pages) {
    map.pmap().remove({page(first), page(first + pages)});
  }
  [[nodiscard]] VmSystem& system() { return *system_; }
  [[nodiscard]] SoftPmapSystem& pmaps() { return pmaps_; }
  [[nodiscard]] VmCounters& counters() { return counters_; }

 private:
  static constexpr std::size_t kArena = std::size_t{8} << 30;
  LazyMemory memory_;
  Arena arena_;
  VmCounters counters_{};
  VirtualClock clock_;
  EmptyFrames frames_;
  FixedPager store_;
  SoftPmapSystem pmaps_;
  std::unique_ptr<VmSystem> system_;
};

/// CPU time of the calling thread: what others do on a busy machine is left out, but for the caches.
inline double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

inline double wall_seconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// 0 .. n-1 in random order, the same each time.
inline std::vector<std::uint32_t> random_order(std::uint64_t n) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  return order;
}

}  // namespace enchilada::bench
