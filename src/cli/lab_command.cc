// The laboratory's commands. Invariants: see lab_command.h.
#include "cli/lab_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "cli/output_file.h"
#include "cli/user_error.h"
#include "lab/calibrate/calibrate.h"
#include "lab/designs/designs.h"
#include "lab/experiments/report.h"
#include "lab/policies/replay.h"

namespace enchilada::cli {
namespace {

constexpr int kStatusInterrupted = 130;

/// The one thing that a signal handler can reach.
std::atomic<bool>& interrupted() {
  static std::atomic<bool> flag{false};
  return flag;
}

using Wanted = std::vector<const lab::Experiment*>;

Wanted wanted_experiments(const std::vector<std::string>& names) {
  Wanted wanted;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const lab::Experiment& experiment : lab::experiments()) wanted.push_back(&experiment);
      continue;
    }
    const lab::Experiment* const experiment = lab::find_experiment(name);
    if (experiment == nullptr) {
      throw UserError(
          fmt::format("lab experiment: {}: no such experiment; enchilada lab list lists them", name));
    }
    wanted.push_back(experiment);
  }
  if (wanted.empty()) throw UserError("lab experiment: which one? enchilada lab experiment NAME... or all");
  return wanted;
}

void set_shard(const std::string& text, lab::SweepOptions* options) {
  if (text.empty()) return;
  unsigned part = 0;
  unsigned parts = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%u/%u%c", &part, &parts, &rest) != 2 || part == 0 || part > parts) {
    throw UserError(fmt::format("--shard {}: not a part of a whole (1/4 .. 4/4)", text));
  }
  options->shard = part - 1;
  options->shards = parts;
}

/// How far the sweep is, and about how long it will take, on one line that is written over.
class Progress {
 public:
  void operator()(std::size_t done, std::size_t all) {
    if (first_ == 0) first_ = done - 1;  // what an earlier run did took no time
    const auto spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const double left = spent / static_cast<double>(done - first_) * static_cast<double>(all - done);
    const auto seconds = static_cast<unsigned>(left);
    fmt::print(stderr, "\r{} of {} cells, about {}:{:02} left \x1b[K", done, all, seconds / 60, seconds % 60);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::size_t first_ = 0;
};

void report(const Wanted& wanted, const lab::Results& results, const LabOptions& options) {
  const std::string json = lab::json_report(wanted, results);
  if (!options.html_file.empty()) write_output("--html", options.html_file, lab::html_report(json));
  if (!options.json_file.empty()) write_output("--json", options.json_file, json);
  if (options.html_file == "-" || options.json_file == "-") return;
  for (const lab::Experiment* const experiment : wanted) {
    fmt::print("{}\n", lab::text_report(*experiment, results));
  }
}

}  // namespace

int lab_list() {
  fmt::print("Experiments (enchilada lab experiment NAME):\n");
  for (const lab::Experiment& experiment : lab::experiments()) {
    fmt::print("  {:<5} {}\n", experiment.id, experiment.title);
  }
  fmt::print("\nDesigns:\n");
  for (const lab::DesignEntry& design : lab::designs()) {
    fmt::print("  {:<22} {:<5} {}\n", design.name, design.when, design.what);
  }
  fmt::print("\nReplacement policies (enchilada lab replay TRACE --policy NAME):\n");
  for (const lab::PolicyEntry& policy : lab::policies()) {
    fmt::print("  {:<22} {:<5} {}\n", policy.name, policy.when, policy.what);
  }
  return 0;
}

int lab_experiment(const LabOptions& options) {
  const Wanted wanted = wanted_experiments(options.names);
  check_writable("--json", options.json_file);
  check_writable("--html", options.html_file);
  lab::SweepOptions sweep;
  set_shard(options.shard, &sweep);
  sweep.threads = options.jobs != 0 ? options.jobs : std::max(1u, std::thread::hardware_concurrency());
  sweep.cells_file = options.cells_file;
  sweep.stop = &interrupted();
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (terminal) sweep.progress = Progress();
  std::signal(SIGINT, [](int) { interrupted().store(true); });
  std::signal(SIGTERM, [](int) { interrupted().store(true); });
  const lab::SweepOutcome outcome = lab::run_sweep(wanted, sweep);
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (outcome.done < outcome.all) {
    fmt::print(stderr, "enchilada: interrupted after {} of {} cells{}\n", outcome.done, outcome.all,
               options.cells_file.empty() ? "" : "; the same command goes on from there");
    return kStatusInterrupted;
  }
  report(wanted, outcome.results, options);
  return 0;
}

int lab_merge(const LabOptions& options) {
  lab::Results results;
  for (const std::string& name : options.names) {
    if (!lab::load_cells(name, &results)) throw UserError(fmt::format("lab merge: {}: cannot be read", name));
  }
  Wanted wanted;
  for (const lab::Experiment& experiment : lab::experiments()) {
    if (results.find(experiment.id) != results.end()) wanted.push_back(&experiment);
  }
  if (wanted.empty()) throw UserError("lab merge: no cells of any experiment in these files");
  report(wanted, results, options);
  return 0;
}

int lab_report(const LabOptions& options) {
  const std::string& name = options.names.front();
  std::ifstream in(name);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) throw UserError(fmt::format("lab report: {}: cannot be read", name));
  std::string html;
  try {
    html = lab::html_report(text.str());
  } catch (const std::runtime_error& error) {
    throw UserError(fmt::format("lab report: {}: {}", name, error.what()));
  }
  write_output("--html", options.html_file, html);
  return 0;
}

int lab_calibrate(const LabOptions& options) {
  lab::CalibrateOptions wanted;
  if (const char* const folder = std::getenv("ENCHILADA_SWAP_DIR")) wanted.folder = folder;
  const bool terminal = isatty(STDERR_FILENO) == 1;
  if (terminal) {
    wanted.progress = [](const std::string& what) { fmt::print(stderr, "\rmeasuring {} \x1b[K", what); };
  }
  const auto measured = lab::calibrate(CostModel(), wanted);
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (options.json_file != "-") fmt::print("{}", lab::calibration_text(measured));
  if (!options.json_file.empty()) write_output("--json", options.json_file, lab::calibration_json(measured));
  return 0;
}

int lab_explain(const LabOptions& options) {
  if (lab::find_design(options.design) == nullptr) {
    throw UserError(
        fmt::format("lab explain: {}: no such design; enchilada lab list lists them", options.design));
  }
  fmt::print("{}", lab::explain(options.design, options.seed, options.steps));
  return 0;
}

}  // namespace enchilada::cli
