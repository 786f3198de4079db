// Calibration: the constants of machine/cost_model.h, measured again on the machine at hand.
//
// Invariant: a constant that cannot be measured here has no figure and a reason.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "machine/cost_model.h"

namespace enchilada::lab {

struct Measurement {
  std::string constant;  // of CostModel, or a sum of some
  std::string what;
  std::optional<double> model_ns;     // none: the model has no such constant, it follows from others
  std::optional<double> measured_ns;  // none: `reason` says why
  std::string reason;
};

struct CalibrateOptions {
  std::string folder = "/var/tmp";  // of the disk that is read
  std::function<void(const std::string& what)> progress;
};

/// Takes some seconds; other work on the machine makes figures larger, never smaller.
[[nodiscard]] std::vector<Measurement> calibrate(const CostModel& model, const CalibrateOptions& options);

[[nodiscard]] std::string calibration_text(const std::vector<Measurement>& measurements);
[[nodiscard]] std::string calibration_json(const std::vector<Measurement>& measurements);

}  // namespace enchilada::lab
