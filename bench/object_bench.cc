// What the modes of object chains cost and save: the workload "cascade" (tests/vm/article_objects_test.cc
// names the small one) with more pages, per mode of `collapse`, `cow_move` and `dead_pages`; and faults on
// pages of a file beside faults on anonymous ones. CPU time of the thread; frames without a device behind
// them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "engine_rig.h"
#include "machine/soft_engine.h"
#include "pager/memory_file.h"
#include "pager/vm_file.h"
#include "vm/vm_object.h"

namespace enchilada::bench {
namespace {

SoftEngineOptions options_of(const VmModes& modes) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{16384};
  options.modes = modes;
  return options;
}

void store(SoftEngine& engine, VmMap& map, VirtAddr va) {
  const auto touched =
      engine.machine().touch(map, va, Access::kWrite, [](std::byte* p) { *p = std::byte{1}; });
  if (touched != FaultResult::kResolved) std::abort();
}

/// Forks and exits at random among at most 12 processes with 256 pages of data; `writes` stores between two
/// forks.
void cascade(benchmark::State& state) {
  const auto writes = static_cast<unsigned>(state.range(3));
  VmModes modes;
  modes.set(static_cast<CollapseMode>(state.range(0)))
      .set(static_cast<CowMoveMode>(state.range(1)))
      .set(static_cast<DeadPagesMode>(state.range(2)));
  constexpr std::uint64_t kPages = 256;
  constexpr unsigned kForks = 300;
  SoftEngine engine(options_of(modes));
  VmObjectZone& objects = engine.system().objects();
  const VmCounters& counters = engine.machine().counters();
  std::uint64_t frames = 0;
  std::uint64_t depth = 0;
  std::uint64_t deepest = 0;
  std::uint64_t looks = 0;
  std::uint64_t dead = 0;
  for (auto _ : state) {
    std::mt19937_64 random(1);
    std::vector<std::unique_ptr<VmMap>> alive;
    alive.push_back(engine.create_map(PageCount{1024}));
    VirtAddr at{0};
    EngineRig::must(alive[0]->map({.length = to_bytes(PageCount{kPages})}, &at));
    for (std::uint64_t i = 0; i < kPages; ++i) store(engine, *alive[0], at + to_bytes(PageCount{i}));
    const double start = cpu_seconds();
    for (unsigned n = 0; n < kForks; ++n) {
      if (alive.size() == 12 || (alive.size() > 1 && random() % 3 == 0)) {
        alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(random() % alive.size()));
      }
      alive.push_back(alive[random() % alive.size()]->fork());
      for (unsigned i = 0; i < writes; ++i) {
        store(engine, *alive[random() % alive.size()], at + to_bytes(PageCount{random() % kPages}));
      }
      frames += counters.granted.load() - counters.free_count.load();
      alive.back()->for_each_entry([&](const VmMap::EntryView& e) {
        const std::uint64_t d = objects.depth(*e.object);
        depth += d;
        deepest = std::max(deepest, d);
      });
      ++looks;
    }
    state.SetIterationTime(cpu_seconds() - start);
    dead += objects.count_dead_pages();
  }
  const auto per = [&](std::uint64_t total) {
    return static_cast<double>(total) / static_cast<double>(looks);
  };
  state.counters["frames"] = per(frames);
  state.counters["depth"] = per(depth);
  state.counters["deepest"] = static_cast<double>(deepest);
  state.counters["tries"] = per(counters.object_collapse_tries.load());
  state.counters["collapses"] = per(counters.object_collapses.load());
  state.counters["bypasses"] = per(counters.object_bypasses.load());
  state.counters["copies"] = per(counters.cow_faults.load());
  state.counters["moves"] = per(counters.cow_optim.load());
  state.counters["dead_at_end"] = static_cast<double>(dead) / static_cast<double>(state.iterations());
  state.SetLabel(std::string(name_of(modes.get<CollapseMode>())) +
                 " cow_move=" + std::string(name_of(modes.get<CowMoveMode>())) +
                 " dead_pages=" + std::string(name_of(modes.get<DeadPagesMode>())));
}
BENCHMARK(cascade)
    ->ArgNames({"collapse", "move", "dead", "writes"})
    ->ArgsProduct({{0, 1, 2}, {1}, {0, 1}, {32, 512}})
    ->Args({0, 0, 0, 512})
    ->Args({0, 0, 1, 512})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

/// A fault on a resident page whose mapping was thrown away, one page at a time; prefault is off.
void soft_fault(benchmark::State& state) {
  constexpr std::uint64_t kPages = 4096;
  SoftEngineOptions options = options_of({});
  options.tunables.prefault_cluster = PageCount{1};
  SoftEngine engine(options);
  MemoryFile bytes(to_bytes(PageCount{kPages}));
  const auto file = VmFile::open(engine.system(), engine.file_pager(), bytes);
  const auto map = engine.create_map(PageCount{2 * kPages});
  VmMap::MapRequest request{.length = to_bytes(PageCount{kPages})};
  if (state.range(0) != 0)
    request = file->mapping(ByteCount{0}, to_bytes(PageCount{kPages}), state.range(0) == 1);
  VirtAddr at{0};
  EngineRig::must(map->map(request, &at));
  const Access access = state.range(0) == 2 ? Access::kRead : Access::kWrite;
  const auto order = random_order(kPages);
  const auto fault_all = [&] {
    for (const std::uint32_t i : order) {
      if (vm_fault(*map, at + to_bytes(PageCount{i}), access) != FaultResult::kResolved) std::abort();
    }
  };
  fault_all();
  double seconds = 0;
  for (auto _ : state) {
    map->pmap().remove({at, at + to_bytes(PageCount{kPages})});
    const double start = cpu_seconds();
    fault_all();
    const double taken = cpu_seconds() - start;
    state.SetIterationTime(taken);
    seconds += taken;
  }
  state.counters["ns_a_fault"] =
      seconds * 1e9 / static_cast<double>(kPages * static_cast<std::uint64_t>(state.iterations()));
  state.SetLabel(state.range(0) == 0   ? "anonymous"
                 : state.range(0) == 1 ? "shared file"
                                       : "private file, read");
}
BENCHMARK(soft_fault)->DenseRange(0, 2)->Iterations(50)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace enchilada::bench
