// libFuzzer: the input is a script of map operations (map, remove, protect, inherit, advise, wire, remap,
// fork) on address spaces with any search structure, without memory pressure, against the flat model: every
// attribute of every page is compared after each operation. fuzz_engine has all that this leaves out.
#include <span>

#include "model_fuzz.h"

namespace {

using namespace enchilada;
using namespace enchilada::model;

constexpr unsigned kMostSteps = 400;

/// Ample memory; the map alone is what is tried.
RigConfig config_from(Random& script) {
  RigConfig config;
  config.map_pages = script.between(16, 300);
  config.max_maps = script.between(1, 4);
  config.engine.machine.memory.frames = PageCount{512};
  config.engine.machine.arena_bytes = std::size_t{12} << 20;
  config.engine.modes.set(static_cast<MapIndexMode>(script.below(ModeOf<MapIndexMode>::kNames.size())));
  config.max_wired = 64;
  config.sharing = script.one_in(2);
  return config;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Random script(std::span{data, size});
  const RigConfig config = config_from(script);
  fuzz_rig(config, script, [](RandomRun& run) { run.run_on_maps(kMostSteps); });
  return 0;
}
