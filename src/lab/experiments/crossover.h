// Where the curves of two designs cross: from which size on the other one is the better choice.
//
// Invariant: differences within one percent are none, so that curves which lie on each other do not cross.
#pragma once

#include <string_view>
#include <vector>

#include "lab/experiments/experiment.h"

namespace enchilada::lab {

struct Crossover {
  std::string_view lower_before;  // the design whose values are lower up to the crossing
  std::string_view lower_after;
  std::uint64_t left = 0;  // points of the sweep on both sides
  std::uint64_t right = 0;
  double at = 0;  // between them, on a straight line in a log-log plot where all values are positive
};

/// Of every pair of the experiment's designs, by the values of `metric`. None where points are cases.
[[nodiscard]] std::vector<Crossover> crossovers(const Experiment& experiment, const Table& table,
                                                std::string_view metric);

}  // namespace enchilada::lab
