// The map's own costs, on a machine that maps nothing: page-by-page mprotect over a million pages (in order,
// at random, leaving a million entries or none), insert and remove, find_space in a fragmented map, lookup,
// fork. The original's entries were a list: the same work was O(n) an operation there.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "vm/vm_map.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = std::uint64_t{1} << 32;
constexpr std::uint64_t kMillion = 1000000;

class NoPmap final : public Pmap {
 public:
  PageCount enter(VirtAddr, std::span<const FrameNumber> frames, Prot, Access, Wiring) override {
    return PageCount{frames.size()};
  }
  void remove(VirtRange) override {}
  void protect(VirtRange, Prot) override {}
};

class NoMachine final : public PmapSystem, public PhysicalMemory, public Pager, public Clock {
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

  PagerRun has_page(const PagerHandle&, PageIndex, PageCount, PageCount) override { return {}; }
  PagerReturn get_pages(PagerHandle&, PageIndex, std::span<const FrameNumber>) override {
    return PagerReturn::kFail;
  }
  void put(std::span<PutRequest> requests) override {
    for (PutRequest& r : requests) r.verdict = PagerReturn::kFail;
  }
  void forget(PagerHandle&, PageIndex, PageCount) override {}
  void forget_all(PagerHandle&) override {}
  void transfer(PagerHandle&, PageIndex, PageCount, PagerHandle&) override {}
  void split(PagerHandle&, PageIndex, PageCount, PagerHandle&) override {}
  bool find_least(const PagerHandle&, PageIndex, PageIndex*) override { return false; }
  Nanoseconds now() override { return Nanoseconds{0}; }
};

/// An engine and one map of 2^34 bytes; metadata in memory that costs nothing until it is used.
class Setup {
 public:
  Setup()
      : memory_(static_cast<std::byte*>(mmap(nullptr, kArena, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        arena_(memory_, kArena),
        system_(VmSystem::create({.phys = machine_,
                                  .pmaps = machine_,
                                  .swap = machine_,
                                  .clock = machine_,
                                  .counters = counters_,
                                  .arena = arena_})),
        map(VmMap::create(*system_, {VirtAddr{kBase}, VirtAddr{kBase + (std::uint64_t{1} << 34)}})) {}
  ~Setup() {
    map.reset();
    system_.reset();
    munmap(memory_, kArena);
  }
  void must(KernReturn verdict) {
    if (verdict != KernReturn::kSuccess) std::abort();
  }
  void insert(std::uint64_t page, std::uint64_t count, Prot prot = Prot::kReadWrite) {
    VirtAddr at;
    must(map->map({.length = ByteCount{count * kPageSize},
                   .hint = VirtAddr{kBase + page * kPageSize},
                   .prot = prot,
                   .placement = VmMap::MapRequest::Placement::kFixedExclusive},
                  &at));
  }
  static VirtRange page(std::uint64_t p) {
    return {VirtAddr{kBase + p * kPageSize}, VirtAddr{kBase + (p + 1) * kPageSize}};
  }

 private:
  static constexpr std::size_t kArena = std::size_t{1} << 30;
  NoMachine machine_;
  VmCounters counters_{};
  std::byte* memory_;
  Arena arena_;
  std::unique_ptr<VmSystem> system_;

 public:
  std::unique_ptr<VmMap> map;
};

std::vector<std::uint64_t> order_of(std::uint64_t n, bool shuffled) {
  std::vector<std::uint64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (shuffled) std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  return order;
}

// Every page read-only, one call each, then every page back: one entry at the start, in the middle and at the
// end.
void protect_page_by_page(benchmark::State& state) {
  Setup s;
  s.insert(0, kMillion);
  const auto order = order_of(kMillion, state.range(0) != 0);
  for (auto _ : state) {
    for (const Prot prot : {Prot::kRead, Prot::kReadWrite}) {
      for (const std::uint64_t p : order) s.must(s.map->protect(Setup::page(p), prot));
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(2 * kMillion) * state.iterations());
}
BENCHMARK(protect_page_by_page)->Arg(0)->Arg(1)->ArgName("random")->Unit(benchmark::kMillisecond);

// Every other page: a million entries stand at the turn.
void protect_every_other_page(benchmark::State& state) {
  Setup s;
  s.insert(0, kMillion);
  const auto order = order_of(kMillion / 2, state.range(0) != 0);
  for (auto _ : state) {
    for (const Prot prot : {Prot::kRead, Prot::kReadWrite}) {
      for (const std::uint64_t p : order) s.must(s.map->protect(Setup::page(2 * p), prot));
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(kMillion) * state.iterations());
}
BENCHMARK(protect_every_other_page)->Arg(0)->Arg(1)->ArgName("random")->Unit(benchmark::kMillisecond);

void insert_remove(benchmark::State& state) {
  Setup s;
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(2 * p, 1);
  std::mt19937_64 rng(1);
  for (auto _ : state) {
    const std::uint64_t p = 2 * (rng() % n);
    s.must(s.map->remove(Setup::page(p)));
    s.insert(p, 1);
  }
}
BENCHMARK(insert_remove)->RangeMultiplier(16)->Range(16, 1 << 20)->ArgName("entries");

// Gaps of one page everywhere, the first gap of two pages at the very end.
void find_space_fragmented(benchmark::State& state) {
  Setup s;
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(2 * p, 1);
  std::mt19937_64 rng(1);
  for (auto _ : state) {
    const VirtAddr lowest = Setup::page(rng() % n).start;
    benchmark::DoNotOptimize(s.map->find_space(lowest, ByteCount{2 * kPageSize}, kPageSize));
  }
}
BENCHMARK(find_space_fragmented)->RangeMultiplier(16)->Range(16, 1 << 20)->ArgName("entries");

void lookup_random(benchmark::State& state) {
  Setup s;
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(2 * p, 1);
  std::mt19937_64 rng(1);
  MapLookup found;
  for (std::uint64_t p = 0; p < n; ++p) {
    s.must(s.map->lookup(Setup::page(2 * p).start, Access::kRead, &found));
    s.map->unlock_shared();
  }
  for (auto _ : state) {
    s.must(s.map->lookup(Setup::page(2 * (rng() % n)).start, Access::kRead, &found));
    s.map->unlock_shared();
  }
}
BENCHMARK(lookup_random)->RangeMultiplier(16)->Range(16, 1 << 16)->ArgName("entries");

void fork_and_exit(benchmark::State& state) {
  Setup s;
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(p, 1, p % 2 == 0 ? Prot::kRead : Prot::kReadWrite);
  MapLookup found;
  for (std::uint64_t p = 0; p < n; ++p) {
    s.must(s.map->lookup(Setup::page(p).start, Access::kRead, &found));
    s.map->unlock_shared();
  }
  for (auto _ : state) benchmark::DoNotOptimize(s.map->fork());
}
BENCHMARK(fork_and_exit)->RangeMultiplier(16)->Range(16, 1 << 14)->ArgName("entries");

}  // namespace
}  // namespace enchilada
