// What the fuzz targets over the model rig share: a run that says what it did when anything stops it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "base/check.h"
#include "random_run.h"

namespace enchilada::model {

inline const ModelRig* running = nullptr;

inline void report_running() {
  if (running == nullptr) return;
  std::fprintf(stderr, "%s\n%s", describe(running->config()).c_str(), running->history().c_str());
}

/// Calls steps(run) on a rig of this configuration; stops the program where engine and model differ.
template <class Steps>
void fuzz_rig(const RigConfig& config, Random& script, Steps steps) {
  set_check_hook(report_running);
  ModelRig rig(config);
  running = &rig;
  RandomRun run(rig, script);
  steps(run);
  if (!rig.ok()) {
    std::fprintf(stderr, "%s\n", rig.failure().c_str());
    report_running();
    std::abort();
  }
  running = nullptr;
}

}  // namespace enchilada::model
