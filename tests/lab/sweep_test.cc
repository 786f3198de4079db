// Sweeps and reports: what is kept, joined and judged; and that experiments are well made.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>

#include "lab/baselines/bare_map.h"
#include "lab/designs/designs.h"
#include "lab/experiments/report.h"
#include "lab/policies/replay.h"

namespace enchilada::lab {
namespace {

/// A file's name that is nobody else's, and the file goes with it.
class CellsFile {
 public:
  explicit CellsFile(const std::string& name) : name_(::testing::TempDir() + "enchilada_lab_" + name) {
    std::remove(name_.c_str());
  }
  ~CellsFile() { std::remove(name_.c_str()); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::size_t lines() const {
    std::ifstream in(name_);
    std::string line;
    std::size_t n = 0;
    while (std::getline(in, line)) ++n;
    return n;
  }

 private:
  std::string name_;
};

const Experiment* const kSmall = find_experiment("W9");  // 18 tiny cells
constexpr std::size_t kSmallCells = 18;

std::string run(const SweepOptions& options) {
  return json_report({&kSmall, 1}, run_sweep({&kSmall, 1}, options).results);
}

SweepOptions with_threads(unsigned threads) {
  SweepOptions options;
  options.threads = threads;
  return options;
}

SweepOptions with_cells(const std::string& file, unsigned shard = 0, unsigned shards = 1) {
  SweepOptions options;
  options.cells_file = file;
  options.shard = shard;
  options.shards = shards;
  return options;
}

TEST(Experiments, HaveUniqueNamesKnownDesignsAndSayWhatTheyPredict) {
  std::set<std::string_view> ids;
  for (const Experiment& experiment : experiments()) {
    EXPECT_TRUE(ids.insert(experiment.id).second) << experiment.id;
    EXPECT_FALSE(experiment.prediction.empty() || experiment.rule.empty()) << experiment.id;
    for (const std::string_view design : experiment.designs) {
      EXPECT_TRUE(find_design(design) != nullptr || find_policy(design) != nullptr ||
                  find_map_index(design) != nullptr)
          << experiment.id << " " << design;
    }
  }
}

TEST(Sweep, ThreadsShardsAndMergingGiveTheSameReport) {
  const std::string whole = run(with_threads(1));
  EXPECT_EQ(run(with_threads(3)), whole);
  const CellsFile first("first");
  const CellsFile second("second");
  (void)run(with_cells(first.name(), 0, 2));
  (void)run(with_cells(second.name(), 1, 2));
  Results joined;
  ASSERT_TRUE(load_cells(first.name(), &joined));
  EXPECT_FALSE(is_complete(*kSmall, joined));
  ASSERT_TRUE(load_cells(second.name(), &joined));
  EXPECT_EQ(json_report({&kSmall, 1}, joined), whole);
}

TEST(Sweep, GoesOnWhereItWasStopped) {
  const CellsFile cells("stopped");
  std::atomic<bool> stop{false};
  SweepOptions options = with_cells(cells.name());
  options.stop = &stop;
  options.progress = [&](std::size_t done, std::size_t) { stop = done == 5; };
  EXPECT_EQ(run_sweep({&kSmall, 1}, options).done, 5u);
  EXPECT_EQ(cells.lines(), 5u);
  std::ofstream(cells.name(), std::ios::app) << "{\"experiment\": \"W9\", \"des\n";  // a crash cut a line off
  options.stop = nullptr;
  options.progress = nullptr;
  EXPECT_EQ(run(options), run(with_threads(1)));
  EXPECT_EQ(cells.lines(), kSmallCells + 1);
}

TEST(Sweep, AFileThatCannotBeWrittenIsSaidInOneLine) {
  try {
    (void)run(with_cells("/nonexistent/cells"));
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "/nonexistent/cells: cannot be written");
  }
}

TEST(Report, HasNoVerdictUntilAllCellsAreThere) {
  const Results none;
  EXPECT_NE(text_report(*kSmall, none).find("verdict     none"), std::string::npos);
  EXPECT_NE(json_report({&kSmall, 1}, none).find("\"verdict\": null"), std::string::npos);
}

TEST(Explain, SaysEveryCallAndTheSameEachTime) {
  const std::string text = explain("anon_vma_chain", 3, 30);
  EXPECT_EQ(text, explain("anon_vma_chain", 3, 30));
  EXPECT_NE(text.find("  1  spawn"), std::string::npos);
  EXPECT_NE(text.find(" 30  "), std::string::npos);
}

TEST(Rules, AllPartsNonePartsAndSomeParts) {
  EXPECT_EQ(verdict_of({true, true}), Verdict::kHeld);
  EXPECT_EQ(verdict_of({false, false}), Verdict::kRefuted);
  EXPECT_EQ(verdict_of({true, false}), Verdict::kDepends);
  EXPECT_NEAR(exponent(10, 100, 100, 10'000), 2.0, 1e-9);
}

}  // namespace
}  // namespace enchilada::lab
