// Thousands of random sequences of every operation against the oracle.
//
// ENCHILADA_SEED=n test_model --gtest_filter=Model.RandomSequences replays one; ENCHILADA_SEEDS=n sets how
// many.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

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

void run_seed(std::uint64_t seed) {
  RigConfig config = config_of(seed);
  if (std::getenv("ENCHILADA_SEED") != nullptr) config.validate_every = 1;  // looks, and changes nothing
  ModelRig rig(config);
  running = &rig;
  RandomRun(rig, seed).run(300);
  running = nullptr;
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
}

}  // namespace
}  // namespace enchilada::model
