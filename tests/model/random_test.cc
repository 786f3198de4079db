// Thousands of random sequences of every operation against the oracle.
//
// ENCHILADA_SEED=n test_model --gtest_filter=Model.RandomSequences replays one; ENCHILADA_SEEDS=n sets how
// many.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/check.h"
#include "random_run.h"

namespace enchilada::model {
namespace {

const ModelRig* running = nullptr;

/// A broken CHECK stops the program: say with which seed, and after what.
void report_running() {
  if (running == nullptr) return;
  std::fprintf(stderr, "replay with ENCHILADA_SEED=%llu (%s)\n%s",
               static_cast<unsigned long long>(running->config().seed), describe(running->config()).c_str(),
               running->history().c_str());
}

/// What all seeds together have made the engine do.
std::map<std::string, std::uint64_t> totals;

void add_counters(ModelRig& rig) {
  const VmCounters& counters = rig.engine().machine().counters();
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    if (!kCounterInfo[i].level) totals[kCounterInfo[i].name] += (counters.*kCounterInfo[i].field).load();
  }
  const SwapPagerStats& swap = rig.engine().pager().stats();
  totals["accepted shortage"] += rig.accepted().shortage;
  totals["accepted io failure"] += rig.accepted().io_failure;
  totals["accepted failed fork"] += rig.accepted().failed_fork;
  totals["accepted fault io"] += rig.accepted().fault_io_error;
  totals["accepted fault memory"] += rig.accepted().fault_no_memory;
  totals["swap zero_puts"] += swap.zero_puts.load();
  totals["swap fingerprint_bad"] += swap.fingerprint_bad.load();
  totals["swap no_space"] += swap.no_space.load();
  totals["swap write_errors"] += swap.write_errors.load();
  totals["swap read_errors"] += swap.read_errors.load();
  totals["swap evacuated"] += swap.evacuated.load();
  if (rig.engine().compressed() == nullptr) return;
  const CompressedStore::Stats compressed = rig.engine().compressed()->stats();
  totals["compressed got"] += compressed.got;
  totals["compressed moved"] += compressed.moved;
  totals["compressed left"] += compressed.left;
  totals["compressed rounds"] += compressed.rounds;
  totals["compressed stale"] += compressed.stale;
}

void run_seed(std::uint64_t seed) {
  RigConfig config = config_of(seed);
  if (std::getenv("ENCHILADA_SEED") != nullptr) config.validate_every = 1;  // looks, and changes nothing
  override_modes(&config.engine.modes);
  ModelRig rig(config);
  running = &rig;
  RandomRun(rig, Random(seed ^ 0x5eed)).run(300);
  running = nullptr;
  add_counters(rig);
  if (rig.ok()) return;
  ADD_FAILURE() << rig.failure() << "\nreplay with ENCHILADA_SEED=" << seed << " (" << describe(rig.config())
                << "), after\n"
                << rig.history();
}

TEST(Model, RandomSequences) {
  set_check_hook(report_running);
  if (const auto seed = replayed_seed()) return run_seed(*seed);
  const std::uint64_t seeds = seed_count(2000);
  const std::uint64_t first = first_seed();
  for (std::uint64_t seed = first; seed < first + seeds && !HasFailure(); ++seed) run_seed(seed);
  set_check_hook(nullptr);
  // A test that no longer reaches some mechanism is worth little: say so.
  for (const auto& [name, total] : totals) {
    std::printf("  %-22s %12llu\n", name.c_str(), static_cast<unsigned long long>(total));
    // (One takes a second thread, the other maps of more entries than these have.)
    if (seeds >= 1000 && name != "intrans" && name != "map_settles") {
      EXPECT_NE(total, 0u) << name << " never happened";
    }
  }
}

}  // namespace
}  // namespace enchilada::model
