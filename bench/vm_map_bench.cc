// The map's own costs, on a machine that maps nothing, with each of the search structures: page-by-page
// mprotect over a million pages (in order, at random, leaving a million entries or none), Electric Fence's
// pattern, a distributed shared memory's, insert and remove, find_space in a fragmented map, lookup, fork.
// The original's entries were a list: the same work was O(n) an operation there. docs/mechanisms/map.md says
// what is asked.
//
// Counters: visits = nodes that the index looked at, and searches = lookups that the hint left to it, both
// for one operation; bytes_per_entry = metadata (entry, its share of index nodes) at the largest number of
// entries.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "lab/baselines/bare_map.h"
#include "vm/vm_map_binary.h"
#include "vm/vm_map_tree.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = std::uint64_t{1} << 32;

/// A map, and what the benchmarks report of it.
class Setup : public BareMap {
 public:
  using BareMap::BareMap;
  void forget_counts() {
    visits_ = counters.map_nodes.load();
    searches_ = counters.map_lookups.load();
  }
  void note_size() {
    bytes_per_entry_ =
        static_cast<double>(bytes()) / static_cast<double>(std::max<std::size_t>(map->entry_count(), 1));
  }
  void report(benchmark::State& state, std::uint64_t operations) {
    const auto n = static_cast<double>(operations * static_cast<std::uint64_t>(state.iterations()));
    state.counters["visits"] = static_cast<double>(counters.map_nodes.load() - visits_) / n;
    state.counters["searches"] = static_cast<double>(counters.map_lookups.load() - searches_) / n;
    if (bytes_per_entry_ != 0) state.counters["bytes_per_entry"] = bytes_per_entry_;
    if (operations != 1) {  // seconds of one operation, where an iteration is many
      state.counters["per_op"] =
          benchmark::Counter(n, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
    }
  }

 private:
  std::uint64_t visits_ = 0;
  std::uint64_t searches_ = 0;
  double bytes_per_entry_ = 0;
};

/// Each page of `order` (times `step`) read-only, one call each, then each back: one entry at the start and
/// at the end.
void protect_forth_and_back(benchmark::State& state, MapIndexFactory index, std::uint64_t step) {
  const auto pages = static_cast<std::uint64_t>(state.range(0));
  Setup s(index);
  s.insert(0, pages);
  const auto order = order_of(pages / step, state.range(1) != 0);
  s.forget_counts();
  for (auto _ : state) {
    for (const Prot prot : {Prot::kRead, Prot::kReadWrite}) {
      s.protect_each(order, step, prot);
      if (step != 1 && prot == Prot::kRead) s.note_size();
    }
    if (s.map->entry_count() != 1) std::abort();
  }
  s.report(state, 2 * order.size());
}
void protect_page_by_page(benchmark::State& state, MapIndexFactory index) {
  protect_forth_and_back(state, index, 1);
}
/// As many entries as pages stand at the turn.
void protect_every_other_page(benchmark::State& state, MapIndexFactory index) {
  protect_forth_and_back(state, index, 2);
}

/// Electric Fence: every allocation is a page of its own behind an inaccessible one. Free makes it
/// inaccessible too (three entries become one), malloc accessible again; `entries` of them stand all the
/// time.
void electric_fence(benchmark::State& state, MapIndexFactory index) {
  const auto n = static_cast<std::uint64_t>(state.range(0));
  Setup s(index);
  s.insert(0, n + 1, Prot::kNone);
  const auto order = order_of(n / 2, true);
  for (const std::uint64_t i : order) s.must(s.map->protect(Setup::page(2 * i + 1), Prot::kReadWrite));
  s.note_size();
  s.forget_counts();
  std::mt19937_64 rng(1);
  for (auto _ : state) {
    const std::uint64_t p = 2 * (rng() % (n / 2)) + 1;
    s.must(s.map->protect(Setup::page(p), Prot::kNone));
    s.must(s.map->protect(Setup::page(p), Prot::kReadWrite));
  }
  s.report(state, 2);
}

/// Distributed shared memory: 10,000 pages, of which 64 are in use at a time and a twentieth of the accesses
/// fault on protection and toggle it; the 64 change slowly.
void shared_memory_pattern(benchmark::State& state, MapIndexFactory index) {
  constexpr std::uint64_t kPages = 10000;
  constexpr std::uint64_t kInUse = 64;
  Setup s(index);
  s.fill_by_protection(kPages);
  std::mt19937_64 rng(1);
  std::vector<std::uint64_t> in_use(kInUse);
  for (std::uint64_t& p : in_use) p = rng() % kPages;
  s.forget_counts();
  for (auto _ : state) {
    const std::uint64_t r = rng();
    std::uint64_t& p = in_use[r % kInUse];
    if (r >> 32 & 0x3f) {
      benchmark::DoNotOptimize(s.look_up(p));
    } else {
      p = (r >> 40) % kPages;
    }
    if (r >> 8 & 0x1f) continue;
    s.must(s.map->protect(Setup::page(p), r >> 16 & 1 ? Prot::kRead : Prot::kReadWrite));
  }
  s.report(state, 1);
}

void insert_remove(benchmark::State& state, MapIndexFactory index) {
  Setup s(index);
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(2 * p, 1);
  s.note_size();
  s.forget_counts();
  std::mt19937_64 rng(1);
  for (auto _ : state) {
    const std::uint64_t p = 2 * (rng() % n);
    s.must(s.map->remove(Setup::page(p)));
    s.insert(p, 1);
  }
  s.report(state, 2);
}

/// Gaps of one page everywhere, the first gap of two pages at the very end.
void find_space_fragmented(benchmark::State& state, MapIndexFactory index) {
  Setup s(index);
  const auto n = static_cast<std::uint64_t>(state.range(0));
  for (std::uint64_t p = 0; p < n; ++p) s.insert(2 * p, 1);
  std::mt19937_64 rng(1);
  for (auto _ : state) {
    const VirtAddr lowest = Setup::page(rng() % n).start;
    benchmark::DoNotOptimize(s.map->find_space(lowest, ByteCount{2 * kPageSize}, kPageSize));
  }
}

void lookup_random(benchmark::State& state, MapIndexFactory index) {
  Setup s(index);
  const auto n = static_cast<std::uint64_t>(state.range(0));
  s.fill_by_protection(n);
  std::mt19937_64 rng(1);
  for (int i = 0; i < 1000; ++i)
    benchmark::DoNotOptimize(s.look_up(rng() % n));  // a splay tree is one long chain so far
  s.forget_counts();
  for (auto _ : state) benchmark::DoNotOptimize(s.look_up(rng() % n));
  s.report(state, 1);
}

/// The same on one map by several threads; what a fault pays for its lookup when others fault too.
void lookup_threads(benchmark::State& state, MapIndexFactory index) {
  static Setup* shared;  // made and unmade by the first thread, between google-benchmark's barriers
  const auto n = static_cast<std::uint64_t>(state.range(0));
  if (state.thread_index() == 0) {
    shared = new Setup(index);
    shared->fill_by_protection(n);
  }
  std::mt19937_64 rng(static_cast<std::uint64_t>(state.thread_index()));
  for (auto _ : state) benchmark::DoNotOptimize(shared->look_up(rng() % n));
  state.SetItemsProcessed(state.iterations());
  if (state.thread_index() == 0) delete shared;
}

void fork_and_exit(benchmark::State& state, MapIndexFactory index) {
  Setup s(index);
  s.fill_by_protection(static_cast<std::uint64_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(s.map->fork());
}

/// What the seam costs: the AVL tree asked through MapIndex (virtual:1), and by its own final type, which the
/// compiler sees through.
void seam(benchmark::State& state) {
  VmCounters counters{};
  const auto n = static_cast<std::uint64_t>(state.range(0));
  std::vector<MapEntry> entries(n);
  AvlMapIndex tree(counters);
  MapIndex* any = &tree;
  benchmark::DoNotOptimize(any);
  for (std::uint64_t i = 0; i < n; ++i) {  // backwards: next is in already
    MapEntry& e = entries[n - 1 - i];
    e.start = VirtAddr{kBase + (n - 1 - i) * kPageSize};
    e.next = i == 0 ? &e : &entries[n - i];
    e.prev = &e;
    tree.insert(&e);
  }
  std::mt19937_64 rng(1);
  std::uint64_t visited = 0;
  for (auto _ : state) {
    const VirtAddr at{kBase + rng() % n * kPageSize};
    benchmark::DoNotOptimize(state.range(1) != 0 ? any->find_at_or_before(at, &visited)
                                                 : tree.find_at_or_before(at, &visited));
  }
}
BENCHMARK(seam)->ArgsProduct({{16, 1024}, {0, 1}})->ArgNames({"entries", "virtual"});

/// The anchor: a step along a random cycle through as many lines as a million entries have.
void anchor_cache_miss(benchmark::State& state) {
  constexpr std::uint64_t kEntries = 1000000;
  std::vector<MapEntry> entries(kEntries);
  const auto order = order_of(kEntries, true);
  for (std::uint64_t i = 0; i < kEntries; ++i) entries[order[i]].next = &entries[order[(i + 1) % kEntries]];
  const MapEntry* at = entries.data();
  for (auto _ : state) at = at->next;
  benchmark::DoNotOptimize(at);
}
BENCHMARK(anchor_cache_miss);

using Bench = void (*)(benchmark::State&, MapIndexFactory);

void register_for(const std::string& name, MapIndexFactory index, bool linear) {
  const auto add = [&](const char* what, Bench bench) {
    return benchmark::RegisterBenchmark((what + ("/" + name)).c_str(),
                                        [=](benchmark::State& state) { bench(state, index); });
  };
  const std::int64_t most = linear ? 10000 : 1000000;
  const auto add_protect = [&](const char* what, Bench bench) {
    add(what, bench)
        ->ArgsProduct({benchmark::CreateRange(10000, most, 100), {0, 1}})
        ->ArgNames({"pages", "random"})
        ->Unit(benchmark::kMillisecond);
  };
  add_protect("protect_page_by_page", protect_page_by_page);
  add_protect("protect_every_other_page", protect_every_other_page);
  add("electric_fence", electric_fence)->RangeMultiplier(100)->Range(100, most)->ArgName("entries");
  add("shared_memory_pattern", shared_memory_pattern);
  add("lookup_random", lookup_random)->RangeMultiplier(10)->Range(100, most)->ArgName("entries");
  add("lookup_few", lookup_random)->RangeMultiplier(2)->Range(4, 128)->ArgName("entries");
  add("lookup_threads", lookup_threads)->Arg(10000)->ArgName("entries")->ThreadRange(1, 2)->UseRealTime();
  add("find_space_fragmented", find_space_fragmented)
      ->RangeMultiplier(100)
      ->Range(100, most)
      ->ArgName("entries");
  add("insert_remove", insert_remove)->RangeMultiplier(100)->Range(100, most)->ArgName("entries");
  add("fork_and_exit", fork_and_exit)->RangeMultiplier(100)->Range(100, 10000)->ArgName("entries");
}

const bool registered = [] {
  for (std::size_t i = 0; i < ModeOf<MapIndexMode>::kNames.size(); ++i) {
    register_for(std::string(ModeOf<MapIndexMode>::kNames[i]),
                 map_index_factory(static_cast<MapIndexMode>(i)), false);
  }
  register_for("list", ListMapIndex::make, true);
  return true;
}();

}  // namespace
}  // namespace enchilada
