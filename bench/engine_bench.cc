// What a fault, a fork and an unmapping cost in the engine itself: 10^6 resident pages in random order, on
// the soft machine's page tables, frames without bytes (engine_rig.h), locks and counters on.
//
// Each figure stands beside its bar (issue 3) and as a multiple of anchors measured in the same run: an
// uncontended lock pair, a cache miss, the copy of a page. Times are CPU time of the thread (the machine is
// seldom quiet), per operation; several rounds, of which --benchmark_repetitions makes a median. The scaling
// of two threads needs two idle CPUs, and stands beside that of two independent processes, which is what the
// machine itself allows at the time.
#include <benchmark/benchmark.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <functional>
#include <thread>

#include "engine_rig.h"
#include "vm/vm_page.h"

namespace enchilada::bench {
namespace {

constexpr std::uint64_t kMillion = 1'000'000;
constexpr double kNano = 1e9;

// ------------------------------------------------------------------------------------------------ anchors

double time_lock_pair() {
  constexpr int kTimes = 2'000'000;
  Mutex mutex;
  const double start = cpu_seconds();
  for (int i = 0; i < kTimes; ++i) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
  return (cpu_seconds() - start) * kNano / kTimes;
}

/// A walk along a random cycle of cache lines, as large as the metadata of a million pages.
double time_cache_miss() {
  struct alignas(64) Line {
    std::uint32_t next;
  };
  constexpr std::uint64_t kLines = kMillion * 2;
  const LazyMemory memory(kLines * sizeof(Line));
  auto* lines = reinterpret_cast<Line*>(memory.data());
  const auto order = random_order(kLines);
  for (std::uint64_t i = 0; i < kLines; ++i) lines[order[i]].next = order[(i + 1) % kLines];
  constexpr int kTimes = 1'000'000;
  std::uint32_t at = 0;
  const double start = cpu_seconds();
  for (int i = 0; i < kTimes; ++i) at = lines[at].next;
  benchmark::DoNotOptimize(at);
  return (cpu_seconds() - start) * kNano / kTimes;
}

double time_page_copy() {
  constexpr std::uint64_t kPages = 16384;
  const LazyMemory memory(kPages * 2 * kPageSize);
  std::memset(memory.data(), 1, kPages * 2 * kPageSize);
  const auto order = random_order(kPages);
  const double start = cpu_seconds();
  for (const std::uint64_t i : order) {
    std::memcpy(memory.data() + (kPages + i) * kPageSize, memory.data() + i * kPageSize, kPageSize);
    benchmark::ClobberMemory();
  }
  return (cpu_seconds() - start) * kNano / kPages;
}

struct Anchors {
  double lock_pair = time_lock_pair();
  double miss = time_cache_miss();
  double copy = time_page_copy();
};

const Anchors& anchors() {
  static const Anchors measured;
  return measured;
}

/// ns per operation, its bar (0 = none) and its multiples of the anchors.
void report(benchmark::State& state, double ns, double bar) {
  const Anchors& a = anchors();
  state.counters["ns"] = ns;
  if (bar > 0) state.counters["bar"] = bar;
  state.counters["lock_pairs"] = ns / a.lock_pair;
  state.counters["misses"] = ns / a.miss;
  state.counters["copies"] = ns / a.copy;
}

/// Times one operation many times over, in slices, each round after `prepare`. What is reported is the median
/// slice, and the tenth percentile beside it: on a machine that others use too, that is nearer to what a
/// quiet core would show.
template <class Operation>
void rounds(benchmark::State& state, const std::vector<std::uint32_t>& order, double bar,
            const std::function<void()>& prepare, Operation operation) {
  constexpr std::size_t kSlice = 2000;
  std::vector<double> slices;
  for (auto _ : state) {
    prepare();
    double took = 0;
    for (std::size_t i = 0; i < order.size();) {
      const std::size_t end = std::min(i + kSlice, order.size());
      const auto n = static_cast<double>(end - i);
      const double start = cpu_seconds();
      for (; i < end; ++i) operation(order[i]);
      const double slice = cpu_seconds() - start;
      slices.push_back(slice * kNano / n);
      took += slice;
    }
    state.SetIterationTime(took);
  }
  std::sort(slices.begin(), slices.end());
  report(state, slices[slices.size() / 2], bar);
  state.counters["p10"] = slices[slices.size() / 10];
}

void anchor(benchmark::State& state, double Anchors::*which) {
  for (auto _ : state) {
    const Anchors now;
    state.SetIterationTime(now.*which / kNano);
    state.counters["ns"] = now.*which;
  }
}
void anchor_lock_pair(benchmark::State& state) {
  anchor(state, &Anchors::lock_pair);
}
void anchor_cache_miss(benchmark::State& state) {
  anchor(state, &Anchors::miss);
}
void anchor_page_copy(benchmark::State& state) {
  anchor(state, &Anchors::copy);
}
BENCHMARK(anchor_lock_pair)->Iterations(1)->UseManualTime()->Unit(benchmark::kNanosecond);
BENCHMARK(anchor_cache_miss)->Iterations(1)->UseManualTime()->Unit(benchmark::kNanosecond);
BENCHMARK(anchor_page_copy)->Iterations(1)->UseManualTime()->Unit(benchmark::kNanosecond);

// ------------------------------------------------------------------------------------------------ faults

/// A map with a million pages, of which a fault maps one (told random) or its neighbours too.
struct Populated {
  explicit Populated(std::uint64_t frames, bool alone) : rig(frames), map(rig.make_map()) {
    EngineRig::map_pages(*map, 0, kMillion);
    if (alone) EngineRig::must(map->advise(range(), Advice::kRandom));
  }
  static VirtRange range() { return {EngineRig::page(0), EngineRig::page(kMillion)}; }
  EngineRig rig;
  std::unique_ptr<VmMap> map;
};

void soft_fault(benchmark::State& state) {
  const bool alone = state.range(0) == 0;
  Populated p(kMillion + 4096, alone);
  EngineRig::populate(*p.map, 0, kMillion);
  const auto order = random_order(kMillion);
  rounds(
      state, order, alone ? 120 : 0, [&] { EngineRig::drop_mappings(*p.map, 0, kMillion); },
      [&](std::uint64_t i) { EngineRig::fault(*p.map, i, Access::kRead); });
}
BENCHMARK(soft_fault)
    ->Arg(0)
    ->Arg(1)
    ->ArgName("prefault")
    ->Iterations(3)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

void zero_fill_fault(benchmark::State& state) {
  Populated p(kMillion + 4096, true);
  const auto order = random_order(kMillion);
  rounds(
      state, order, 200,
      [&] {
        EngineRig::must(p.map->remove(Populated::range()));
        EngineRig::map_pages(*p.map, 0, kMillion);
        EngineRig::must(p.map->advise(Populated::range(), Advice::kRandom));
        EngineRig::fault(*p.map, 0, Access::kRead);  // makes the object
        EngineRig::drop_mappings(*p.map, 0, 1);
      },
      [&](std::uint64_t i) { EngineRig::fault(*p.map, i, Access::kWrite); });
}
BENCHMARK(zero_fill_fault)->Iterations(3)->UseManualTime()->Unit(benchmark::kMillisecond);

/// The child writes every page once; whether its mappings were copied at fork, or taken away.
void cow_fault(benchmark::State& state) {
  Populated p(2 * kMillion + 4096, true);
  EngineRig::populate(*p.map, 0, kMillion);
  const auto order = random_order(kMillion);
  std::unique_ptr<VmMap> child;
  rounds(
      state, order, 250,
      [&] {
        child.reset();
        child = p.map->fork();
        if (state.range(0) == 0) EngineRig::drop_mappings(*child, 0, kMillion);
      },
      [&](std::uint64_t i) { EngineRig::fault(*child, i, Access::kWrite); });
}
BENCHMARK(cow_fault)->Arg(0)->Arg(1)->ArgName("mapped")->Iterations(3)->UseManualTime()->Unit(
    benchmark::kMillisecond);

// ------------------------------------------------------------------------------------------------ fork

/// 1 TiB mapped in `entries` pieces of alternating protection, 1 GiB of it resident and mapped; the parent's
/// tables are copied and protected, or thrown away. `refault_ms`: the parent writes all of it again.
void fork_1tib(benchmark::State& state) {
  constexpr std::uint64_t kTera = std::uint64_t{1} << 28;  // pages
  constexpr std::uint64_t kGiga = std::uint64_t{1} << 18;
  const auto entries = static_cast<std::uint64_t>(state.range(0));
  const auto mode = state.range(1) != 0 ? ForkTablesMode::kThrow : ForkTablesMode::kCopy;
  EngineRig rig(kGiga + 4096, {}, VmModes().set(mode));
  auto map = rig.make_map();
  for (std::uint64_t e = 0; e < entries; ++e) {
    EngineRig::map_pages(*map, e * (kTera / entries), kTera / entries,
                         e % 2 == 0 ? Prot::kReadWrite : Prot::kAll);
    EngineRig::populate(*map, e * (kTera / entries), kGiga / entries);
  }
  std::unique_ptr<VmMap> child;
  const double bar = 5000 + 100 * static_cast<double>(entries);
  double refault = 0;
  rounds(
      state, {0}, bar,
      [&] {
        // The parent writes everything again: its shadow collapses and its mappings are writable.
        child.reset();
        const double start = cpu_seconds();
        for (std::uint64_t e = 0; e < entries; ++e) {
          EngineRig::populate(*map, e * (kTera / entries), kGiga / entries);
        }
        refault = cpu_seconds() - start;
      },
      [&](std::uint64_t) { child = map->fork(); });
  state.counters["refault_ms"] = refault * 1e3;
}
BENCHMARK(fork_1tib)
    ->ArgsProduct({{1, 16, 256, 4096}, {0, 1}})
    ->ArgNames({"entries", "throw"})
    ->Iterations(5)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// ------------------------------------------------------------------------------------------------ unmapping

/// One page, mapped by `mappings` of 512 address spaces, is unmapped everywhere; a page of each of 64.
void unmap_everywhere(benchmark::State& state) {
  constexpr std::size_t kSpaces = 512;
  constexpr std::uint64_t kPages = 64;
  const auto mappings = static_cast<std::size_t>(state.range(0));
  EngineRig rig(65536);
  auto first = rig.make_map();
  EngineRig::map_pages(*first, 0, kPages);
  EngineRig::must(first->advise({EngineRig::page(0), EngineRig::page(kPages)}, Advice::kRandom));
  EngineRig::must(first->inherit({EngineRig::page(0), EngineRig::page(kPages)}, Inherit::kShare));
  EngineRig::populate(*first, 0, kPages);
  std::vector<std::unique_ptr<VmMap>> spaces;
  for (std::size_t i = 0; i < kSpaces; ++i) spaces.push_back(first->fork());
  std::vector<FrameNumber> frames;
  rig.system().for_each_page([&](FrameNumber frame, Page& page) {
    if (page.object != nullptr) frames.push_back(frame);
  });
  if (frames.size() != kPages) std::abort();
  rounds(
      state, random_order(kPages), 0,
      [&] {
        EngineRig::drop_mappings(*first, 0, kPages);
        for (auto& s : spaces) EngineRig::drop_mappings(*s, 0, kPages);
        for (std::size_t s = 0; s < mappings; ++s) {
          for (std::uint64_t i = 0; i < kPages; ++i) EngineRig::fault(*spaces[s], i, Access::kRead);
        }
      },
      [&](std::uint64_t i) {
        bool refused = false;
        rig.pmaps().remove_all({&frames[i], 1}, {&refused, 1});
      });
  state.counters["ns_per_mapping"] = state.counters["ns"] / static_cast<double>(mappings);
}
BENCHMARK(unmap_everywhere)
    ->RangeMultiplier(8)
    ->Range(1, 512)
    ->ArgName("mappings")
    ->Iterations(20)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// ------------------------------------------------------------------------------------------------ two
// threads

constexpr std::uint64_t kHalf = kMillion / 2;

/// Waits until both are here.
void meet(std::atomic<int>& here) {
  here.fetch_add(1);
  while (here.load() % 2 != 0) {
  }
}

void fault_half(VmMap& map, std::uint64_t first, const std::vector<std::uint32_t>& order) {
  for (const std::uint64_t i : order) EngineRig::fault(map, first + i, Access::kRead);
}

struct Halves {
  /// Two regions (two objects) of one address space, or one in each of two.
  explicit Halves(bool one_space) : rig(kMillion + 4096), a(rig.make_map()), b(rig.make_map()) {
    for (const std::uint64_t first : {std::uint64_t{0}, 2 * kHalf}) {
      VmMap& map = first == 0 || one_space ? *a : *b;
      EngineRig::map_pages(map, first, kHalf);
      EngineRig::must(map.advise({EngineRig::page(first), EngineRig::page(first + kHalf)}, Advice::kRandom));
      EngineRig::populate(map, first, kHalf);
    }
  }
  EngineRig rig;
  std::unique_ptr<VmMap> a;
  std::unique_ptr<VmMap> b;
};

/// Wall time of one thread doing half, and of two doing a half each; best of the rounds, as the machine is
/// shared.
void two_threads(benchmark::State& state) {
  const bool one_space = state.range(0) == 1;
  Halves h(one_space);
  VmMap& other = one_space ? *h.a : *h.b;
  const auto order = random_order(kHalf);
  const auto drop = [&] {
    EngineRig::drop_mappings(*h.a, 0, kHalf);
    EngineRig::drop_mappings(other, 2 * kHalf, kHalf);
  };
  double alone = 1e9;
  double both = 1e9;
  double both_cpu = 1e9;
  double alone_cpu = 1e9;
  for (auto _ : state) {
    drop();
    double start = wall_seconds();
    double cpu = cpu_seconds();
    fault_half(*h.a, 0, order);
    alone = std::min(alone, wall_seconds() - start);
    alone_cpu = std::min(alone_cpu, cpu_seconds() - cpu);
    drop();
    std::atomic<int> here{0};
    double second_cpu = 0;
    std::thread second([&] {
      meet(here);
      const double began = cpu_seconds();
      fault_half(other, 2 * kHalf, order);
      second_cpu = cpu_seconds() - began;
    });
    meet(here);
    start = wall_seconds();
    cpu = cpu_seconds();
    fault_half(*h.a, 0, order);
    cpu = cpu_seconds() - cpu;
    second.join();
    both = std::min(both, wall_seconds() - start);
    both_cpu = std::min(both_cpu, (cpu + second_cpu) / 2);
    state.SetIterationTime(both);
  }
  state.counters["scale"] = 2 * alone / both;
  state.counters["bar"] = 1.7;
  state.counters["cpu_scale"] = 2 * alone_cpu / both_cpu;  // what contention costs in CPU time
}
BENCHMARK(two_threads)
    ->Arg(0)
    ->Arg(1)
    ->ArgName("one_space")
    ->Iterations(5)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

/// The anchor: the same work in one process, and in two at once that share nothing.
void two_processes(benchmark::State& state) {
  Halves h(true);
  const auto order = random_order(kHalf);
  double alone = 1e9;
  double both = 1e9;
  for (auto _ : state) {
    for (const int processes : {1, 2}) {
      EngineRig::drop_mappings(*h.a, 0, kHalf);
      double start = 0;
      int ready[2];
      int go[2];
      if (pipe(ready) != 0 || pipe(go) != 0) std::abort();
      char byte = 0;
      for (int p = 0; p < processes; ++p) {
        if (fork() != 0) continue;
        fault_half(*h.a, 0, order);  // the kernel copies what is written
        EngineRig::drop_mappings(*h.a, 0, kHalf);
        if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
        fault_half(*h.a, 0, order);
        _exit(0);
      }
      for (int p = 0; p < processes; ++p) {
        if (read(ready[0], &byte, 1) != 1) std::abort();
      }
      start = wall_seconds();
      for (int p = 0; p < processes; ++p) {
        if (write(go[1], &byte, 1) != 1) std::abort();
      }
      for (int p = 0; p < processes; ++p) wait(nullptr);
      double& best = processes == 1 ? alone : both;
      best = std::min(best, wall_seconds() - start);
      for (const int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
    }
    state.SetIterationTime(both);
  }
  state.counters["scale"] = 2 * alone / both;
}
BENCHMARK(two_processes)->Iterations(3)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace enchilada::bench
