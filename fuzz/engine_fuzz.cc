// libFuzzer: the input is a script of the model tests (tests/model): machine, swap, troubles and every
// operation are read off it; the engine must agree with the flat model, and be whole at the end.
#include <cstdio>
#include <cstdlib>
#include <span>

#include "base/check.h"
#include "random_run.h"

namespace {

using namespace enchilada::model;

constexpr unsigned kMostSteps = 300;

const ModelRig* running = nullptr;

void report_running() {
  if (running == nullptr) return;
  std::fprintf(stderr, "%s\n%s", describe(running->config()).c_str(), running->history().c_str());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  enchilada::set_check_hook(report_running);
  Random script(std::span{data, size});
  RigConfig config = choose_config(script);
  config.validate_every = kMostSteps;  // a validation costs more than all the steps
  ModelRig rig(config);
  running = &rig;
  RandomRun(rig, script).run(kMostSteps);
  if (!rig.ok()) {
    std::fprintf(stderr, "%s\n", rig.failure().c_str());
    report_running();
    std::abort();
  }
  running = nullptr;
  return 0;
}
