// BareMap: one map on a machine that maps nothing, to see what the map alone costs with any search structure.
//
// Invariants: every page has at most one entry; a call that a workload relies on and that is refused stops
// the run; metadata lies in memory that costs nothing until it is used.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string_view>
#include <vector>

#include "base/arena.h"
#include "base/check.h"
#include "lab/baselines/map_list.h"
#include "vm/clock.h"
#include "vm/fixed_pager.h"
#include "vm/phys.h"
#include "vm/pmap.h"
#include "vm/vm_map.h"
#include "vm/vm_system.h"

namespace enchilada {

/// The structure of this name: a mode's, or "list"; nullptr: there is none.
[[nodiscard]] inline MapIndexFactory find_map_index(std::string_view name) {
  if (name == "list") return ListMapIndex::make;
  constexpr auto& kNames = ModeOf<MapIndexMode>::kNames;
  const auto* const found = std::find(kNames.begin(), kNames.end(), name);
  return found == kNames.end() ? nullptr
                               : map_index_factory(static_cast<MapIndexMode>(found - kNames.begin()));
}

/// 0 to n - 1, in order or shuffled.
[[nodiscard]] inline std::vector<std::uint64_t> order_of(std::uint64_t n, bool shuffled,
                                                         std::uint64_t seed = 1) {
  std::vector<std::uint64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (shuffled) std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  return order;
}

/// No frames, no mappings, no time.
class NoMachine final : public PmapSystem, public PhysicalMemory, public Clock {
 public:
  std::unique_ptr<Pmap> create_pmap() override { return std::make_unique<NoPmap>(); }
  void set_sink(PageStateSink&) override {}
  bool has_reference_bits() const override { return true; }
  void remove_all(std::span<const FrameNumber>, std::span<bool> refused) override {
    std::fill(refused.begin(), refused.end(), false);
  }
  void remove_write(FrameNumber) override {}
  unsigned ts_referenced(FrameNumber) override { return 0; }
  bool is_modified(FrameNumber) override { return false; }
  void clear_modify(FrameNumber) override {}

  PageCount frame_limit() const override { return PageCount{1}; }
  PageCount grow(PageCount, FunctionRef<void(FrameRun)>) override { return PageCount{0}; }
  void retire(FrameRun) override {}
  void zero(FrameRun) override {}
  void copy(FrameNumber, FrameNumber) override {}
  void with_frames(FrameRun, Access, FunctionRef<void(std::byte*)>) override {}

  Nanoseconds now() override { return Nanoseconds{0}; }

 private:
  class NoPmap final : public Pmap {
   public:
    PageCount enter(VirtAddr, std::span<const FrameNumber> frames, Prot, Access, Wiring) override {
      return PageCount{frames.size()};
    }
    void remove(VirtRange) override {}
    void protect(VirtRange, Prot) override {}
  };
};

/// An engine and one map of 2^34 bytes.
class BareMap {
 public:
  explicit BareMap(MapIndexFactory index)
      : memory_(static_cast<std::byte*>(mmap(nullptr, kArena, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        arena_(memory_, kArena),
        system_(VmSystem::create({.phys = machine_,
                                  .pmaps = machine_,
                                  .swap = no_swap_,
                                  .clock = machine_,
                                  .counters = counters,
                                  .arena = arena_,
                                  .map_index = index})),
        map(VmMap::create(*system_, {VirtAddr{kBase}, VirtAddr{kBase + (std::uint64_t{1} << 34)}})),
        empty_bytes_(arena_.touched()) {}
  ~BareMap() {
    map.reset();
    system_.reset();
    munmap(memory_, kArena);
  }
  BareMap(const BareMap&) = delete;
  BareMap& operator=(const BareMap&) = delete;

  static void must(KernReturn verdict) { CHECK(verdict == KernReturn::kSuccess); }
  void insert(std::uint64_t page, std::uint64_t count, Prot prot = Prot::kReadWrite) {
    VirtAddr at;
    must(map->map({.length = ByteCount{count * kPageSize},
                   .hint = VirtAddr{kBase + page * kPageSize},
                   .prot = prot,
                   .placement = VmMap::MapRequest::Placement::kFixedExclusive},
                  &at));
  }
  /// n entries of one page and one object, without gaps.
  void fill_by_protection(std::uint64_t n) {
    insert(0, n);
    for (std::uint64_t p = 0; p < n; p += 2) must(map->protect(page(p), Prot::kRead));
  }
  MapLookup look_up(std::uint64_t p) {
    MapLookup found;
    must(map->lookup(page(p).start, Access::kRead, &found));
    map->unlock_shared();
    return found;
  }
  static VirtRange page(std::uint64_t p) {
    return {VirtAddr{kBase + p * kPageSize}, VirtAddr{kBase + (p + 1) * kPageSize}};
  }
  /// One call for each page.
  void protect_each(const std::vector<std::uint64_t>& pages, std::uint64_t step, Prot prot) {
    for (const std::uint64_t p : pages) must(map->protect(page(step * p), prot));
  }
  /// Metadata in use beyond an empty map's.
  [[nodiscard]] std::size_t bytes() const { return arena_.touched() - empty_bytes_; }

  VmCounters counters{};

 private:
  static constexpr std::size_t kArena = std::size_t{1} << 30;
  static constexpr std::uint64_t kBase = std::uint64_t{1} << 32;
  NoMachine machine_;
  FixedPager no_swap_;
  std::byte* memory_;
  Arena arena_;
  std::unique_ptr<VmSystem> system_;

 public:
  std::unique_ptr<VmMap> map;

 private:
  std::size_t empty_bytes_;
};

}  // namespace enchilada
