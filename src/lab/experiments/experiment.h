// Experiment: one question of the argument, asked of several designs over a sweep, with the answer that was
// predicted before.
//
// Everything that walks experiments (the runner, reports, the command, tests) walks experiments().
// Invariants: a cell's values depend on nothing but the experiment, the design, the point and the code;
// predictions and rules were committed before the first sweep that tests them.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace enchilada::lab {

/// What a cell measured, by metric.
using Values = std::map<std::string, double, std::less<>>;

/// One run: a design at a point of the sweep.
struct Cell {
  std::string_view experiment;
  std::string_view design;
  std::uint64_t point = 0;
  friend auto operator<=>(const Cell&, const Cell&) = default;
};

/// The cells of one experiment that have been run.
class Table {
 public:
  void set(const Cell& cell, const Values& values) {
    values_[{std::string(cell.design), cell.point}] = values;
  }
  [[nodiscard]] const Values* find(std::string_view design, std::uint64_t point) const;
  /// Of a cell that has been run; stops if it has not, or has no such metric.
  [[nodiscard]] double at(std::string_view design, std::uint64_t point, std::string_view metric) const;

 private:
  std::map<std::pair<std::string, std::uint64_t>, Values> values_;
};

enum class Verdict : std::uint8_t { kHeld, kRefuted, kDepends };
inline constexpr std::string_view kVerdictNames[] = {"held", "refuted", "depends"};

struct Judgement {
  Verdict verdict = Verdict::kDepends;
  std::string measured;  // the figures that decide, in a sentence
};

inline constexpr double kNoBound = std::numeric_limits<double>::infinity();

/// A figure of the prediction: the range in which a metric of a cell was said to be.
struct Forecast {
  std::string_view design;
  std::uint64_t point = 0;
  std::string_view metric;
  double low = 0;
  double high = kNoBound;
};

struct Experiment {
  std::string_view id;
  std::string_view title;
  std::string_view question;
  std::string_view workload;
  std::string_view sweep;   // what the points are
  std::string_view metric;  // the one that is drawn; cells have more
  std::string_view prediction;
  std::string_view rule;                  // what is held, what refuted
  std::vector<std::string_view> designs;  // or replacement policies, or search structures of the map
  std::vector<std::uint64_t> points;
  Values (*run)(std::string_view design, std::uint64_t point);
  Judgement (*judge)(const Table& table);
  std::vector<std::string_view> point_names = {};  // where points are cases, not sizes
  std::vector<Forecast> forecasts = {};            // what of the prediction is a figure
  std::string_view why = {};  // why it failed, as far as the figures say; not shown if held
};

/// All experiments, by the order of designs.md.
[[nodiscard]] std::span<const Experiment> experiments();
[[nodiscard]] const Experiment* find_experiment(std::string_view id);

// The folder's files, one for each argument.
[[nodiscard]] std::vector<Experiment> file_experiments();
[[nodiscard]] std::vector<Experiment> anonymous_experiments();
[[nodiscard]] std::vector<Experiment> table_experiments();
[[nodiscard]] std::vector<Experiment> replacement_experiments();
[[nodiscard]] std::vector<Experiment> map_experiments();

/// All parts of a rule hold, none does, or some.
[[nodiscard]] Verdict verdict_of(std::initializer_list<bool> parts);
/// Slope between two points in a log-log plot: the exponent of the growth.
[[nodiscard]] double exponent(double x1, double y1, double x2, double y2);

}  // namespace enchilada::lab
