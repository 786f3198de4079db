// The registry of experiments, and what rules are made of. Invariants: see experiment.h.
#include "lab/experiments/experiment.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/check.h"

namespace enchilada::lab {

const Values* Table::find(std::string_view design, std::uint64_t point) const {
  const auto found = values_.find({std::string(design), point});
  return found == values_.end() ? nullptr : &found->second;
}

double Table::at(std::string_view design, std::uint64_t point, std::string_view metric) const {
  const Values* const values = find(design, point);
  CHECK(values != nullptr, point);
  const auto found = values->find(metric);
  CHECK(found != values->end(), point);
  return found->second;
}

std::span<const Experiment> experiments() {
  static const std::vector<Experiment> kAll = [] {
    std::vector<Experiment> all = file_experiments();
    for (auto& part :
         {anonymous_experiments(), table_experiments(), replacement_experiments(), map_experiments()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return kAll;
}

const Experiment* find_experiment(std::string_view id) {
  for (const Experiment& experiment : experiments()) {
    if (experiment.id == id) return &experiment;
  }
  return nullptr;
}

Verdict verdict_of(std::initializer_list<bool> parts) {
  const auto held = std::count(parts.begin(), parts.end(), true);
  if (held == static_cast<std::ptrdiff_t>(parts.size())) return Verdict::kHeld;
  return held == 0 ? Verdict::kRefuted : Verdict::kDepends;
}

double exponent(double x1, double y1, double x2, double y2) {
  return std::log(y2 / y1) / std::log(x2 / x1);
}

}  // namespace enchilada::lab
