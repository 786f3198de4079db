// A report as one page of HTML. All text, tables and CSV are there without JavaScript; report.js adds charts,
// the choice of a metric, and copying.
//
// Invariants: the page needs nothing from outside; text of the report never becomes markup; the CSV has every
// value of the JSON, as exactly.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

#include "lab/experiments/report.h"
#include "lab/experiments/web_assets.h"

namespace enchilada::lab {
namespace {

using Json = nlohmann::json;

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// JSON inside a script element: nothing in it may look like the element's end, or like a comment.
std::string in_script(const Json& json) {
  std::string out;
  for (const char c : json.dump()) out += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return out;
}

std::string text_of(const Json& json, const char* key) {
  return escaped(json.at(key).get<std::string>());
}

std::string name_of_point(const Json& experiment, const Json& point) {
  const Json& points = experiment.at("points");
  const Json& names = experiment.at("point_names");
  const auto found = std::find(points.begin(), points.end(), point);
  const auto index = static_cast<std::size_t>(found - points.begin());
  return index < names.size() ? names[index].get<std::string>()
                              : fmt::format("{}", point.get<std::uint64_t>());
}

std::string verdict_of(const Json& experiment) {
  return experiment.at("verdict").is_null() ? "none" : experiment.at("verdict").get<std::string>();
}

std::string badge(const Json& experiment) {
  const std::string verdict = verdict_of(experiment);
  const std::string_view mark = verdict == "held"      ? "✓"
                                : verdict == "refuted" ? "✗"
                                : verdict == "depends" ? "±"
                                                       : "–";
  return fmt::format(R"(<span class="verdict {0}"><span aria-hidden="true">{1}</span> {0}</span>)",
                     escaped(verdict), mark);
}

// Data -----------------------------------------------------------------------------------------------------

const Json* value_at(const Json& experiment, const Json& design, const Json& point,
                     const std::string& metric) {
  for (const Json& cell : experiment.at("cells")) {
    if (cell.at("design") != design || cell.at("point") != point) continue;
    const auto found = cell.at("values").find(metric);
    return found == cell.at("values").end() || found->is_null() ? nullptr : &*found;
  }
  return nullptr;
}

std::string metric_table(const Json& experiment, const std::string& metric) {
  std::string head = fmt::format(R"(<th scope="col">{}</th>)", text_of(experiment, "sweep"));
  for (const Json& point : experiment.at("points")) {
    head += fmt::format(R"(<th scope="col">{}</th>)", escaped(name_of_point(experiment, point)));
  }
  std::string body;
  for (const Json& design : experiment.at("designs")) {
    body += fmt::format(R"(<tr><th scope="row">{}</th>)", escaped(design.get<std::string>()));
    for (const Json& point : experiment.at("points")) {
      const Json* const value = value_at(experiment, design, point, metric);
      body += fmt::format("<td>{}</td>", value == nullptr ? "–" : figure(value->get<double>()));
    }
    body += "</tr>\n";
  }
  return fmt::format(
      R"(<div class="wide" role="region" aria-label="{0} by design" tabindex="0"><table class="values">
<caption>{0}</caption>
<thead><tr>{1}</tr></thead>
<tbody>{2}</tbody></table></div>
)",
      escaped(metric), head, body);
}

std::string range_of(const Json& forecast) {
  const Json& low = forecast.at("low");
  const Json& high = forecast.at("high");
  if (high.is_null()) return low.is_null() ? "–" : fmt::format("≥ {}", figure(low.get<double>()));
  if (low.is_null() || (low == 0 && high != 0)) return fmt::format("≤ {}", figure(high.get<double>()));
  if (low == high) return figure(low.get<double>());
  return fmt::format("{} to {}", figure(low.get<double>()), figure(high.get<double>()));
}

std::string forecast_table(const Json& experiment) {
  if (experiment.at("forecasts").empty()) return "";
  std::string body;
  for (const Json& one : experiment.at("forecasts")) {
    const Json& met = one.at("met");
    const std::string_view mark = met.is_null()     ? "–"
                                  : met.get<bool>() ? "✓ as predicted"
                                                    : "✗ not as predicted";
    body += fmt::format(
        R"(<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>
)",
        text_of(one, "design"), escaped(name_of_point(experiment, one.at("point"))), text_of(one, "metric"),
        range_of(one), one.at("measured").is_null() ? "–" : figure(one.at("measured").get<double>()), mark);
  }
  return fmt::format(
      R"(<div class="wide" role="region" aria-label="Predicted figures" tabindex="0"><table class="forecasts">
<caption>Predicted and measured</caption>
<thead><tr><th scope="col">design</th><th scope="col">{}</th><th scope="col">metric</th><th scope="col">predicted</th><th scope="col">measured</th><th scope="col"></th></tr></thead>
<tbody>{}</tbody></table></div>
)",
      text_of(experiment, "sweep"), body);
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

std::string csv_of(const Json& experiment) {
  std::set<std::string> metrics;
  for (const Json& cell : experiment.at("cells")) {
    for (const auto& [name, value] : cell.at("values").items()) metrics.insert(name);
  }
  std::string csv = "design,point";
  for (const std::string& metric : metrics) csv += "," + csv_field(metric);
  csv += "\n";
  for (const Json& cell : experiment.at("cells")) {
    csv += fmt::format("{},{}", csv_field(cell.at("design").get<std::string>()), cell.at("point").dump());
    for (const std::string& metric : metrics) {
      const auto found = cell.at("values").find(metric);
      csv += "," + (found == cell.at("values").end() || found->is_null() ? "" : found->dump());
    }
    csv += "\n";
  }
  return csv;
}

/// Nothing where there are no curves: points that are cases, or a single one.
std::string crossover_text(const Json& experiment) {
  if (experiment.at("points").size() < 2 || !experiment.at("point_names").empty()) return "";
  const Json& all = experiment.at("crossovers");
  const auto found = all.find(experiment.at("metric").get<std::string>());
  std::string items;
  for (const Json& one : found == all.end() ? Json::array() : *found) {
    items += fmt::format("<li><b>{}</b> is lower up to about {}, <b>{}</b> from there on</li>",
                         text_of(one, "lower_before"), figure(one.at("at").get<double>()),
                         text_of(one, "lower_after"));
  }
  if (items.empty()) items = "<li>none: no two curves change places</li>";
  return fmt::format("<div class=\"crossovers\"><h3>Crossovers</h3><ul>{}</ul></div>\n", items);
}

// The page -------------------------------------------------------------------------------------------------

std::string index_of(const Json& report) {
  std::string items;
  for (const Json& experiment : report.at("experiments")) {
    items += fmt::format(R"(<li><a href="#{0}"><span class="id">{0}</span><span>{1}</span>{2}</a></li>
)",
                         text_of(experiment, "id"), text_of(experiment, "title"), badge(experiment));
  }
  return fmt::format("<nav aria-label=\"Experiments\"><ol>\n{}</ol></nav>\n", items);
}

std::string section_of(const Json& experiment) {
  const std::string measured =
      experiment.at("measured").is_null() ? "not all cells have been run" : text_of(experiment, "measured");
  std::string html =
      fmt::format(R"(<section class="experiment" id="{0}" aria-labelledby="{0}-title">
<h2 id="{0}-title"><span class="id">{0}</span> {1}</h2>
<p class="question">{2}</p>
<div class="beside"><div><h3>Prediction</h3><p class="prediction">{3}</p></div>
<div><h3>Measurement</h3><p class="measured">{4}</p></div></div>
<p class="verdict-line {5}">{6} <span class="reason">the rule: “{7}”.</span>{8}</p>
)",
                  text_of(experiment, "id"), text_of(experiment, "title"), text_of(experiment, "question"),
                  text_of(experiment, "prediction"), measured, escaped(verdict_of(experiment)),
                  badge(experiment), text_of(experiment, "rule"),
                  experiment.at("why").is_null()
                      ? ""
                      : fmt::format(" <span class=\"why\">Why: {}.</span>", text_of(experiment, "why")));
  html += fmt::format(R"(<dl><dt>Workload</dt><dd>{}</dd></dl>
<figure class="chart" hidden></figure>
{})",
                      text_of(experiment, "workload"), crossover_text(experiment));
  html += forecast_table(experiment) + metric_table(experiment, experiment.at("metric").get<std::string>());
  html += fmt::format(R"(<details class="csv"><summary>All values as CSV</summary>
<pre tabindex="0">{}</pre></details>
<p class="again">Again: <code>{}</code></p>
</section>
)",
                      escaped(csv_of(experiment)), text_of(experiment, "command"));
  return html;
}

std::string counts_of(const Json& report) {
  std::map<std::string, unsigned> counts;
  for (const Json& experiment : report.at("experiments")) ++counts[verdict_of(experiment)];
  std::string text = fmt::format("{} experiments", report.at("experiments").size());
  for (const char* const verdict : {"held", "refuted", "depends", "none"}) {
    if (counts[verdict] != 0) text += fmt::format(", {} {}", counts[verdict], verdict);
  }
  return text;
}

std::string page_of(const Json& report) {
  std::string html = fmt::format(R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<title>Enchilada: the laboratory's report</title>
<style>{}{}</style></head><body>
<a class="skip" href="#experiments">To the experiments</a>
<header><h1>The laboratory’s report</h1><p>Designs of virtual memory on one simulated machine: what was predicted, what was measured. {}.</p></header>
<div class="page">
)",
                                 web::kUplotCss, web::kReportCss, counts_of(report));
  html += index_of(report) + "<main id=\"experiments\">\n";
  for (const Json& experiment : report.at("experiments")) html += section_of(experiment);
  html += fmt::format(R"(</main></div>
<footer><p>Made by <code>enchilada lab</code>. {}</p></footer>
<script type="application/json" id="report">{}</script>
<script>{}</script><script>{}
{}</script></body></html>
)",
                      web::kUplotJs.empty()
                          ? "Charts are plain SVG: uPlot could not be fetched when the command was built."
                          : "Charts are drawn by uPlot.",
                      in_script(report), web::kUplotJs, web::kChartJs, web::kReportJs);
  if (!web::kUplotLicense.empty()) html += fmt::format("<!-- uPlot:\n{}-->\n", web::kUplotLicense);
  return html;
}

}  // namespace

std::string html_report(const std::string& json_text) {
  const Json report = Json::parse(json_text, nullptr, false);
  if (!report.is_object() || !report.contains("schema") || report["schema"] != 1) {
    throw std::runtime_error("not a report of the laboratory (JSON, schema 1)");
  }
  try {
    return page_of(report);
  } catch (const Json::exception& error) {
    throw std::runtime_error(fmt::format("not a whole report of the laboratory: {}", error.what()));
  }
}

}  // namespace enchilada::lab
