// Sweep: runs the cells of experiments over the machine's cores, keeps what is done in a file, and goes on
// where it was stopped.
//
// The file has one line of JSON for each cell, appended as cells end, so that an interrupt loses only what is
// running. Shard i of n runs every n-th cell; files of shards are joined line by line. Invariants: a cell is
// run once per file; what a cell gives does not depend on threads or shards.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lab/experiments/experiment.h"

namespace enchilada::lab {

struct SweepOptions {
  unsigned threads = 1;
  unsigned shard = 0;  // of `shards`
  unsigned shards = 1;
  std::string cells_file;                                           // empty: nothing is kept
  const std::atomic<bool>* stop = nullptr;                          // set: no further cell is begun
  std::function<void(std::size_t done, std::size_t all)> progress;  // called by one thread at a time
};

using Results = std::map<std::string, Table, std::less<>>;  // by experiment

struct SweepOutcome {
  Results results;
  std::size_t done = 0;  // cells of this shard that have values now
  std::size_t all = 0;
};

[[nodiscard]] std::vector<Cell> cells_of(std::span<const Experiment* const> wanted);
/// Throws std::runtime_error with one line when the file cannot be read or written.
[[nodiscard]] SweepOutcome run_sweep(std::span<const Experiment* const> wanted, const SweepOptions& options);
/// Adds a file's cells; those of unknown experiments or designs are left out. False: there is no such file.
bool load_cells(const std::string& file, Results* results);
/// Every cell of the experiment is there.
[[nodiscard]] bool is_complete(const Experiment& experiment, const Results& results);

}  // namespace enchilada::lab
