// Reports. Invariants: see report.h.
#include "lab/experiments/report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

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

std::string figure(double value) {
  return value >= 1000 || value == static_cast<double>(static_cast<std::uint64_t>(value))
             ? fmt::format("{:.0f}", value)
             : fmt::format("{:.3g}", value);
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
                         {"cells", nlohmann::json::array()}};
  if (const auto judgement = judge(experiment, results)) {
    json["verdict"] = name_of_verdict(judgement->verdict);
    json["measured"] = judgement->measured;
  }
  const auto table = results.find(experiment.id);
  if (table == results.end()) return json;
  const Experiment* const one = &experiment;
  for (const Cell& cell : cells_of({&one, 1})) {
    const Values* const values = table->second.find(cell.design, cell.point);
    if (values == nullptr) continue;
    json["cells"].push_back({{"design", cell.design}, {"point", cell.point}, {"values", *values}});
  }
  return json;
}

}  // namespace

std::string text_report(const Experiment& experiment, const Results& results) {
  const auto table = results.find(experiment.id);
  const auto judgement = judge(experiment, results);
  std::string text = fmt::format(
      "{}  {}\n  question    {}\n  workload    {}\n  prediction  {}\n  rule        {}\n", experiment.id,
      experiment.title, experiment.question, experiment.workload, experiment.prediction, experiment.rule);
  text += fmt::format("\n  {} by {}:\n", experiment.metric, experiment.sweep);
  if (table != results.end()) text += metric_table(experiment, table->second);
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
