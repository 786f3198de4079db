// Crossings of curves. Invariants: see crossover.h.
#include "lab/experiments/crossover.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace enchilada::lab {
namespace {

constexpr double kAlike = 0.01;  // a difference of less is none

/// Two designs at a point.
struct Both {
  std::uint64_t point = 0;
  double a = 0;
  double b = 0;

  [[nodiscard]] int lower() const {  // -1: a, 1: b, 0: neither
    if (std::abs(a - b) <= kAlike * std::max(std::abs(a), std::abs(b))) return 0;
    return a < b ? -1 : 1;
  }
};

double crossing(const Both& left, const Both& right) {
  const double x1 = static_cast<double>(left.point);
  const double x2 = static_cast<double>(right.point);
  const bool logs = std::min({x1, left.a, left.b, right.a, right.b}) > 0;
  const double d1 = logs ? std::log(left.a / left.b) : left.a - left.b;
  const double d2 = logs ? std::log(right.a / right.b) : right.a - right.b;
  const double part = d1 / (d1 - d2);
  return logs ? x1 * std::pow(x2 / x1, part) : x1 + (x2 - x1) * part;
}

std::optional<double> value_of(const Table& table, std::string_view design, std::uint64_t point,
                               std::string_view metric) {
  const Values* const values = table.find(design, point);
  if (values == nullptr) return std::nullopt;
  const auto found = values->find(metric);
  return found == values->end() ? std::nullopt : std::optional(found->second);
}

std::vector<Both> curves(const Experiment& experiment, const Table& table, std::string_view metric,
                         std::string_view a, std::string_view b) {
  std::vector<Both> points;
  for (const std::uint64_t point : experiment.points) {
    const auto of_a = value_of(table, a, point, metric);
    const auto of_b = value_of(table, b, point, metric);
    if (of_a && of_b) points.push_back({point, *of_a, *of_b});
  }
  std::sort(points.begin(), points.end(), [](const Both& x, const Both& y) { return x.point < y.point; });
  return points;
}

}  // namespace

std::vector<Crossover> crossovers(const Experiment& experiment, const Table& table, std::string_view metric) {
  std::vector<Crossover> found;
  if (!experiment.point_names.empty()) return found;
  for (std::size_t i = 0; i < experiment.designs.size(); ++i) {
    for (std::size_t j = i + 1; j < experiment.designs.size(); ++j) {
      const Both* last = nullptr;  // the last point at which one of the two was lower
      const auto points = curves(experiment, table, metric, experiment.designs[i], experiment.designs[j]);
      for (const Both& both : points) {
        if (both.lower() == 0) continue;
        if (last != nullptr && last->lower() != both.lower()) {
          const bool a_first = last->lower() < 0;
          found.push_back({experiment.designs[a_first ? i : j], experiment.designs[a_first ? j : i],
                           last->point, both.point, crossing(*last, both)});
        }
        last = &both;
      }
    }
  }
  return found;
}

}  // namespace enchilada::lab
