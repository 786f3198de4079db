// Replacement policies alone, references a second of CPU time: Zipf (exponent 1, a million pages, a quarter
// of the references written) with memory for 1, 10 and 50 % of the pages.
//
// bench_policies --benchmark_filter=lru/
#include <benchmark/benchmark.h>

#include <string>

#include "lab/policies/reference_strings.h"

namespace enchilada::lab {
namespace {

constexpr std::uint64_t kLength = 20'000'000;
constexpr std::uint32_t kPages = 1'000'000;

const Trace& zipf_trace() {
  static const Trace trace = [] {
    Trace t{"zipf", kPages, {}};
    std::mt19937_64 random(1);
    const Zipf zipf(kPages, 2);
    for (std::uint64_t i = 0; i < kLength; ++i) t.refs.emplace_back(zipf(random), i % 4 == 0);
    return t;
  }();
  return trace;
}

void run(benchmark::State& state, const PolicyEntry& policy, std::uint32_t percent) {
  ReplayResult last;
  for (auto _ : state) {
    last = policy.replay(zipf_trace(), {.frames = kPages / 100 * percent}, nullptr);
    state.SetIterationTime(last.seconds);
  }
  state.counters["miss_ratio"] = last.miss_ratio();
  state.counters["looks_per_eviction"] =
      static_cast<double>(last.counts.looks) / static_cast<double>(last.counts.evictions);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kLength));
}

const bool registered = [] {
  for (const PolicyEntry& policy : policies()) {
    for (const std::uint32_t percent : {1u, 10u, 50u}) {
      const std::string name = std::string(policy.name) + "/" + std::to_string(percent) + "%";
      benchmark::RegisterBenchmark(
          name.c_str(), [&policy, percent](benchmark::State& state) { run(state, policy, percent); })
          ->UseManualTime()
          ->Iterations(1);
    }
  }
  return true;
}();

}  // namespace
}  // namespace enchilada::lab
