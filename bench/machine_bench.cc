// The simulated machine: references a second. hardware: TLB, walk, caches and clock alone, the tables known
// beforehand; whole_machine: a program's accesses through the soft pmap with everything on.
#include <benchmark/benchmark.h>

#include <vector>

#include "machine/soft_engine.h"
#include "model/random_source.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kPages = 16384;

/// Addresses of 8 bytes: nine of ten in the page used last or the next one, the rest anywhere among `pages`.
std::vector<std::uint64_t> references(std::uint64_t pages) {
  model::Random random(3);
  std::vector<std::uint64_t> all(1 << 18);
  std::uint64_t page = 0;
  for (std::uint64_t& address : all) {
    page = random.one_in(10) ? random.below(pages) : (page + (random.one_in(4) ? 1 : 0)) % pages;
    address = page * kPageSize + random.below(512) * 8;
  }
  return all;
}

void hardware(benchmark::State& state) {
  VirtualClock clock;
  Hardware hw({.cpus = static_cast<unsigned>(state.range(1))}, PageCount{kPages}, clock);
  const auto pages = static_cast<std::uint64_t>(state.range(0));
  const std::vector<std::uint64_t> all = references(pages);
  std::size_t i = 0;
  for (auto _ : state) {
    const std::uint64_t address = all[i++ % all.size()];
    const std::uint64_t page = address >> kPageShift;
    PmapWalk walk{.space = 1,
                  .va = VirtAddr{(std::uint64_t{1} << 30) + address},
                  .write = (address & 24) == 0,
                  .found = true,
                  .frame = FrameNumber{static_cast<std::uint32_t>(page)}};
    walk.reads = 4;
    for (unsigned level = 0; level < 4; ++level) {
      walk.entry[level] =
          (level * 64 + (page >> 9 * (3 - level)) / 512) * kPageSize + (page >> 9 * (3 - level)) % 512 * 8;
    }
    hw.walked(walk);
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  const HardwareCounts& c = hw.counts();
  state.counters["tlb_misses_per_1000"] =
      1000.0 * static_cast<double>(c.walks) / static_cast<double>(c.accesses);
  state.counters["virtual_ns"] = static_cast<double>(clock.now().value()) / static_cast<double>(c.accesses);
}
BENCHMARK(hardware)->ArgsProduct({{256, kPages}, {1, 4}});

void whole_machine(benchmark::State& state) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{kPages};
  options.machine.hardware.emplace();
  SoftEngine engine(options);
  auto map = engine.create_map(PageCount{2 * kPages});
  const auto pages = static_cast<std::uint64_t>(state.range(0));
  VirtAddr base{0};
  CHECK(map->map({.length = to_bytes(PageCount{pages})}, &base) == KernReturn::kSuccess);
  const std::vector<std::uint64_t> all = references(pages);
  std::size_t i = 0;
  std::uint64_t sum = 0;
  for (auto _ : state) {
    const VirtAddr va = base + ByteCount{all[i++ % all.size()]};
    const auto result =
        engine.machine().touch(*map, va, (va.value() & 24) == 0 ? Access::kWrite : Access::kRead,
                               [&](std::byte* p) { sum += static_cast<std::uint64_t>(*p); });
    CHECK(result == FaultResult::kResolved);
  }
  benchmark::DoNotOptimize(sum);
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  const HardwareCounts& c = engine.machine().hardware()->counts();
  state.counters["accesses_seen"] = static_cast<double>(c.accesses) / static_cast<double>(state.iterations());
}
BENCHMARK(whole_machine)->Arg(256)->Arg(kPages / 2);

}  // namespace
}  // namespace enchilada
