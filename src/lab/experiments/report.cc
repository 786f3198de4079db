// Reports. Invariants: see report.h.
#include "lab/experiments/report.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "lab/experiments/crossover.h"

namespace enchilada::lab {
namespace {

std::optional<Judgement> judge(const Experiment& experiment, const Results& results) {
  if (!is_complete(experiment, results)) return std::nullopt;
  return experiment.judge(results.find(experiment.id)->second);
}

std::string_view name_of_verdict(Verdict verdict) {
  return kVerdictNames[static_cast<std::size_t>(verdict)];
}

std::string command_of(const Experiment& experiment) {
  return fmt::format("enchilada lab experiment {}", experiment.id);
}

std::string metric_table(const Experiment& experiment, const Table& table) {
  std::string text = fmt::format("  {:<24}", experiment.sweep);
  for (const std::uint64_t point : experiment.points) text += fmt::format("{:>12}", point);
  text += "\n";
  for (const std::string_view design : experiment.designs) {
    text += fmt::format("  {:<24}", design);
    for (const std::uint64_t point : experiment.points) {
      const Values* const values = table.find(design, point);
      const auto found = values == nullptr ? Values::const_iterator{} : values->find(experiment.metric);
      const bool known = values != nullptr && found != values->end();
      text += fmt::format("{:>12}", known ? figure(found->second) : "-");
    }
    text += "\n";
  }
  return text;
}

nlohmann::json bound(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json json_of(const Forecast& forecast, const Table& table) {
  nlohmann::json json = {{"design", forecast.design},
                         {"point", forecast.point},
                         {"metric", forecast.metric},
                         {"low", bound(forecast.low)},
                         {"high", bound(forecast.high)},
                         {"measured", nullptr},
                         {"met", nullptr}};
  const Values* const values = table.find(forecast.design, forecast.point);
  const auto found = values == nullptr ? Values::const_iterator{} : values->find(forecast.metric);
  if (values == nullptr || found == values->end()) return json;
  const double measured = found->second;
  json["measured"] = measured;
  json["met"] = measured >= forecast.low && measured <= forecast.high;
  return json;
}

/// Every metric that any cell has.
std::set<std::string> metrics_of(const nlohmann::json& cells) {
  std::set<std::string> metrics;
  for (const auto& cell : cells) {
    for (const auto& [name, value] : cell["values"].items()) metrics.insert(name);
  }
  return metrics;
}

nlohmann::json crossovers_json(const Experiment& experiment, const Table& table, const std::string& metric) {
  nlohmann::json list = nlohmann::json::array();
  for (const Crossover& one : crossovers(experiment, table, metric)) {
    list.push_back({{"lower_before", one.lower_before},
                    {"lower_after", one.lower_after},
                    {"between", {one.left, one.right}},
                    {"at", one.at}});
  }
  return list;
}

nlohmann::json json_of(const Experiment& experiment, const Results& results) {
  nlohmann::json json = {{"id", experiment.id},
                         {"title", experiment.title},
                         {"question", experiment.question},
                         {"workload", experiment.workload},
                         {"sweep", experiment.sweep},
                         {"metric", experiment.metric},
                         {"prediction", experiment.prediction},
                         {"rule", experiment.rule},
                         {"designs", experiment.designs},
                         {"points", experiment.points},
                         {"command", command_of(experiment)},
                         {"verdict", nullptr},
                         {"measured", nullptr},
                         {"why", nullptr},
                         {"point_names", experiment.point_names},
                         {"forecasts", nlohmann::json::array()},
                         {"crossovers", nlohmann::json::object()},
                         {"cells", nlohmann::json::array()}};
  if (const auto judgement = judge(experiment, results)) {
    json["verdict"] = name_of_verdict(judgement->verdict);
    json["measured"] = judgement->measured;
    if (judgement->verdict != Verdict::kHeld && !experiment.why.empty()) json["why"] = experiment.why;
  }
  const auto table = results.find(experiment.id);
  if (table == results.end()) return json;
  const Experiment* const one = &experiment;
  for (const Cell& cell : cells_of({&one, 1})) {
    const Values* const values = table->second.find(cell.design, cell.point);
    if (values == nullptr) continue;
    json["cells"].push_back({{"design", cell.design}, {"point", cell.point}, {"values", *values}});
  }
  for (const Forecast& forecast : experiment.forecasts) {
    json["forecasts"].push_back(json_of(forecast, table->second));
  }
  for (const std::string& metric : metrics_of(json["cells"])) {
    json["crossovers"][metric] = crossovers_json(experiment, table->second, metric);
  }
  return json;
}

}  // namespace

std::string figure(double value) {
  return value >= 1000 || value == std::floor(value) ? fmt::format("{:.0f}", value)
                                                     : fmt::format("{:.3g}", value);
}

std::string text_report(const Experiment& experiment, const Results& results) {
  const auto table = results.find(experiment.id);
  const auto judgement = judge(experiment, results);
  std::string text = fmt::format(
      "{}  {}\n  question    {}\n  workload    {}\n  prediction  {}\n  rule        {}\n", experiment.id,
      experiment.title, experiment.question, experiment.workload, experiment.prediction, experiment.rule);
  text += fmt::format("\n  {} by {}:\n", experiment.metric, experiment.sweep);
  if (table != results.end()) {
    text += metric_table(experiment, table->second);
    for (const Crossover& one : crossovers(experiment, table->second, experiment.metric)) {
      text += fmt::format("  {} is lower up to about {}, {} from there on\n", one.lower_before,
                          figure(one.at), one.lower_after);
    }
  }
  if (!judgement) return text + "\n  verdict     none: not all cells have been run\n";
  return text + fmt::format("\n  measured    {}\n  verdict     {}\n  again       {}\n", judgement->measured,
                            name_of_verdict(judgement->verdict), command_of(experiment));
}

std::string json_report(std::span<const Experiment* const> wanted, const Results& results) {
  nlohmann::json report = {{"schema", 1}, {"experiments", nlohmann::json::array()}};
  for (const Experiment* const experiment : wanted) {
    report["experiments"].push_back(json_of(*experiment, results));
  }
  return report.dump(1) + "\n";
}

}  // namespace enchilada::lab
