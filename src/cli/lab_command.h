// `enchilada lab`: the laboratory's experiments from the command line.
//
// Reports go to standard output, progress to a terminal's standard error alone. Invariant: an interrupt ends
// a sweep after the cells that are running; what was done is in the cells file, if there is one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace enchilada::cli {

struct LabOptions {
  std::vector<std::string> names;  // of experiments, or "all"; lab merge, lab report: of files
  unsigned jobs = 0;               // 0: all cores
  std::string shard;               // "i/n", i from 1; empty: everything
  std::string cells_file;
  std::string json_file;  // "-": standard output, instead of text
  std::string html_file;  // likewise
  std::string design;     // lab explain
  std::uint64_t seed = 1;
  unsigned steps = 24;
};

int lab_list();
/// 0; 130 after an interrupt. Throws UserError for names that do not exist.
int lab_experiment(const LabOptions& options);
int lab_merge(const LabOptions& options);
int lab_report(const LabOptions& options);
/// The disk that is read is $ENCHILADA_SWAP_DIR's, otherwise /var/tmp's.
int lab_calibrate(const LabOptions& options);
int lab_explain(const LabOptions& options);

}  // namespace enchilada::cli
