// Choosing pages, counted and not timed: page-ins of the presets and of each mode alone (the others as in the
// default) over reference strings, on the soft machine, beside what LRU and OPT would need with the same
// frames. Read-ahead and clusters of faults are off: what is compared is the choice. One line is one run; the
// figures are its counters, its time means nothing.
//
// bench_pageout --benchmark_filter=zipf      one string
// bench_pageout --benchmark_format=json      for bench/ablation
#include <benchmark/benchmark.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "lab/policies/reference_strings.h"
#include "machine/soft_engine.h"
#include "vm/vm_pageout.h"

namespace enchilada {
namespace {

using lab::page_ins;
using lab::Reference;
using lab::Trace;

constexpr std::uint32_t kFrames = 1024;
constexpr std::uint64_t kLength = 60000;
constexpr Nanoseconds kPerReference{1'000'000};  // a minute for all: background work falls due

struct Config {
  std::string name;
  VmModes modes;
};

/// The presets, and the default with one mechanism changed, for all modes of the mechanisms of choosing
/// pages.
std::vector<Config> configs() {
  std::vector<Config> all;
  for (std::size_t p = 0; p < kPresetNames.size(); ++p) {
    all.push_back({"preset=" + std::string(kPresetNames[p]), VmModes(static_cast<Preset>(p))});
  }
  constexpr std::string_view kMechanismsHere[] = {"thresholds",  "active_scan", "pageout_target",
                                                  "laundry",     "cache_queue", "proactive",
                                                  "drop_behind", "references"};
  for (const std::string_view mechanism : kMechanismsHere) {
    for (const Mechanism& m : kMechanisms) {
      if (m.name != mechanism) continue;
      for (const std::string_view mode : m.modes) {
        VmModes modes;
        CHECK(modes.set_named(mechanism, mode) == ModeVerdict::kOk);
        if (modes == VmModes()) continue;
        all.push_back({std::string(mechanism) + "=" + std::string(mode), modes});
      }
    }
  }
  return all;
}

SoftEngineOptions options(const VmModes& modes, std::uint64_t pages) {
  SoftEngineOptions o;
  o.machine.memory.frames = PageCount{kFrames};
  o.swap_pages = {4 * pages};
  o.modes = modes;
  o.tunables.zero_fill_cluster = PageCount{1};
  o.tunables.readahead_min = o.tunables.readahead_max = PageCount{1};
  o.tunables.prefault_cluster = PageCount{1};
  return o;
}

/// Plays the string; every page holds its number and that is checked at each read.
void play(SoftEngine& engine, const Trace& string) {
  const auto map = engine.create_map(PageCount{string.pages + 16});
  VirtAddr base{0};
  CHECK(map->map({.length = to_bytes(PageCount{string.pages})}, &base) == KernReturn::kSuccess);
  std::vector<bool> written(string.pages);
  for (const Reference& ref : string.refs) {
    const std::uint32_t page = ref.page();
    const VirtAddr va = base + to_bytes(PageCount{page});
    const Access access = ref.is_write() || !written[page] ? Access::kWrite : Access::kRead;
    const FaultResult result = engine.machine().touch(*map, va, access, [&](std::byte* p) {
      std::uint32_t there = 0;
      std::memcpy(&there, p, sizeof(there));
      CHECK(!written[page] || there == page, there, page);
      if (access == Access::kWrite) std::memcpy(p, &page, sizeof(page));
    });
    CHECK(result == FaultResult::kResolved);
    written[page] = true;
    engine.machine().clock().advance(kPerReference);
    engine.system().daemon().tick();
  }
}

struct Anchors {
  std::uint64_t lru;
  std::uint64_t opt;
};

void run(benchmark::State& state, const Trace& string, const VmModes& modes, const Anchors& anchors) {
  for (auto _ : state) {
    SoftEngine engine(options(modes, string.pages));
    play(engine, string);
    const VmCounters& c = engine.machine().counters();
    const auto get = [](const Counter& counter) { return static_cast<double>(counter.load()); };
    const double ins = get(c.swappgsin);
    state.counters["page_ins"] = ins;
    state.counters["page_outs"] = get(c.swappgsout);
    state.counters["lru"] = static_cast<double>(anchors.lru);
    state.counters["opt"] = static_cast<double>(anchors.opt);
    state.counters["of_lru"] = ins / static_cast<double>(std::max<std::uint64_t>(anchors.lru, 1));
    state.counters["examined"] = get(c.pdpages);
    state.counters["soft_faults"] = get(c.soft_faults);
  }
}

const bool registered = [] {
  static const std::vector<Trace> strings = lab::reference_strings(kFrames, kLength);
  static const std::vector<Config> all = configs();
  for (const Trace& string : strings) {
    const Anchors anchors{page_ins(string, "lru", kFrames), page_ins(string, "opt", kFrames)};
    CHECK(anchors.opt <= anchors.lru, anchors.opt, anchors.lru);
    for (const Config& config : all) {
      const std::string name = std::string(string.name) + "/" + config.name;
      benchmark::RegisterBenchmark(name.c_str(), [&string, &config, anchors](benchmark::State& state) {
        run(state, string, config.modes, anchors);
      })->Iterations(1);
    }
  }
  return true;
}();

}  // namespace
}  // namespace enchilada
