// Reports of experiments: text for a terminal, JSON with everything (docs/lab.md has the schema), HTML.
// Invariant: a verdict is the experiment's own rule applied to what was measured; without all cells there is
// none.
#pragma once

#include <string>

#include "lab/experiments/sweep.h"

namespace enchilada::lab {

/// One experiment: question, prediction, the metric as a table of designs and points, verdict.
[[nodiscard]] std::string text_report(const Experiment& experiment, const Results& results);
[[nodiscard]] std::string json_report(std::span<const Experiment* const> wanted, const Results& results);

/// The page of a JSON report: one file that needs no other and no network. Throws std::runtime_error with one
/// line where the JSON is not a report.
[[nodiscard]] std::string html_report(const std::string& json_text);
/// A measured value for a reader: at most three digits after the first where it is small.
[[nodiscard]] std::string figure(double value);

/// A tiny random program on a design: every call, what came of it, and what it cost in events.
[[nodiscard]] std::string explain(std::string_view design, std::uint64_t seed, unsigned steps);

}  // namespace enchilada::lab
