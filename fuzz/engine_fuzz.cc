// libFuzzer: the input is a script of the model tests (tests/model): machine, swap, troubles and every
// operation are read off it; the engine must agree with the flat model, and be whole at the end.
#include <span>

#include "model_fuzz.h"

namespace {

using namespace enchilada::model;

constexpr unsigned kMostSteps = 300;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Random script(std::span{data, size});
  RigConfig config = choose_config(script);
  config.validate_every = kMostSteps;  // a validation costs more than all the steps
  fuzz_rig(config, script, [](RandomRun& run) { run.run(kMostSteps); });
  return 0;
}
