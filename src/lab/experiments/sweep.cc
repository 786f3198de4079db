// The work of a sweep. Invariants: see sweep.h.
#include "lab/experiments/sweep.h"

#include <fmt/format.h>

#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

namespace enchilada::lab {
namespace {

std::string line_of(const Cell& cell, const Values& values) {
  const nlohmann::json line = {
      {"experiment", cell.experiment}, {"design", cell.design}, {"point", cell.point}, {"values", values}};
  return line.dump() + "\n";
}

/// A line that was cut off by a crash, or is not ours, is no cell.
void take_line(const std::string& text, Results* results) {
  const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
  if (line.is_discarded() || !line.contains("values")) return;
  const Experiment* const experiment = find_experiment(line.value("experiment", ""));
  if (experiment == nullptr) return;
  const std::string design = line.value("design", "");
  const Cell cell{experiment->id, design, line.value("point", std::uint64_t{0})};
  Values values;
  for (const auto& [name, value] : line["values"].items()) values[name] = value.get<double>();
  (*results)[std::string(experiment->id)].set(cell, values);
}

/// What the threads of a sweep share.
class Work {
 public:
  Work(std::vector<Cell> todo, const SweepOptions& options, SweepOutcome* outcome)
      : todo_(std::move(todo)), options_(options), outcome_(*outcome) {
    if (options.cells_file.empty()) return;
    file_.open(options.cells_file, std::ios::app);
    if (!file_) throw std::runtime_error(fmt::format("{}: cannot be written", options.cells_file));
  }

  void run_all() {
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < options_.threads; ++i) threads.emplace_back([this] { work(); });
    work();
    for (std::thread& thread : threads) thread.join();
  }

 private:
  void work() {
    for (;;) {
      const std::size_t at = next_.fetch_add(1);
      if (at >= todo_.size() || (options_.stop != nullptr && options_.stop->load())) return;
      const Cell& cell = todo_[at];
      const Values values = find_experiment(cell.experiment)->run(cell.design, cell.point);
      finish(cell, values);
    }
  }

  void finish(const Cell& cell, const Values& values) {
    const std::lock_guard guard(lock_);
    outcome_.results[std::string(cell.experiment)].set(cell, values);
    ++outcome_.done;
    if (file_.is_open()) file_ << line_of(cell, values) << std::flush;
    if (options_.progress) options_.progress(outcome_.done, outcome_.all);
  }

  const std::vector<Cell> todo_;
  const SweepOptions& options_;
  std::atomic<std::size_t> next_{0};
  std::mutex lock_;  // the outcome, the file, progress
  SweepOutcome& outcome_;
  std::ofstream file_;
};

}  // namespace

std::vector<Cell> cells_of(std::span<const Experiment* const> wanted) {
  std::vector<Cell> cells;
  for (const Experiment* const experiment : wanted) {
    for (const std::string_view design : experiment->designs) {
      for (const std::uint64_t point : experiment->points) cells.push_back({experiment->id, design, point});
    }
  }
  return cells;
}

bool load_cells(const std::string& file, Results* results) {
  std::ifstream in(file);
  if (!in) return false;
  std::string line;
  while (std::getline(in, line)) take_line(line, results);
  return true;
}

bool is_complete(const Experiment& experiment, const Results& results) {
  const auto table = results.find(experiment.id);
  if (table == results.end()) return false;
  const Experiment* const one = &experiment;
  for (const Cell& cell : cells_of({&one, 1})) {
    if (table->second.find(cell.design, cell.point) == nullptr) return false;
  }
  return true;
}

SweepOutcome run_sweep(std::span<const Experiment* const> wanted, const SweepOptions& options) {
  SweepOutcome outcome;
  if (!options.cells_file.empty()) (void)load_cells(options.cells_file, &outcome.results);
  const std::vector<Cell> cells = cells_of(wanted);
  std::vector<Cell> todo;
  for (std::size_t i = options.shard; i < cells.size(); i += options.shards) {
    ++outcome.all;
    const bool known =
        outcome.results[std::string(cells[i].experiment)].find(cells[i].design, cells[i].point);
    known ? void(++outcome.done) : todo.push_back(cells[i]);
  }
  Work(std::move(todo), options, &outcome).run_all();
  return outcome;
}

}  // namespace enchilada::lab
