// The argument about page tables: S1 of designs.md, by fork. Predictions are from there.
#include <fmt/format.h>

#include "lab/experiments/rig.h"

namespace enchilada::lab {
namespace {

constexpr std::uint64_t kS1Pages = 65'536;  // 256 MiB

Values run_s1(std::string_view design, std::uint64_t processes) {
  DesignOptions options;
  options.frames = PageCount{kS1Pages + 2'048};
  options.table_pages = PageCount{processes * (kS1Pages / 512 + 8) + 64};
  Rig rig(design, options);
  const FileId file = rig.design().create_file(PageCount{kS1Pages});
  const ProcessId first = rig.design().spawn();
  rig.map_file(first, 0, kS1Pages, file, 0);
  for (std::uint64_t page = 0; page < kS1Pages; ++page) rig.read(first, page);
  Values one;
  rig.add_bytes(&one);
  rig.begin();
  const auto all = fork_family(rig.design(), first, processes - 1);
  for (const ProcessId process : all) {
    for (std::uint64_t page = 0; page < kS1Pages; ++page) rig.read(process, page);
  }
  Values values = rig.end(1);
  rig.add_bytes(&values);
  values["one_process_bytes"] = one["table_bytes"];
  // In units of one process's leaf tables: 8 bytes a page.
  values["tables_of_one"] = values["table_bytes"] / (8.0 * kS1Pages);
  return values;
}

Judgement judge_s1(const Table& table) {
  const double apart = table.at("freebsd", 8, "tables_of_one");
  const double shared = table.at("freebsd_shared_tables", 8, "tables_of_one");
  const double faults = table.at("freebsd_shared_tables", 8, "minor_faults");
  return {verdict_of({apart >= 8, apart <= 8.5, shared >= 1, shared <= 1.3, faults == 0}),
          fmt::format("8 processes: {:.2f} times one process's leaf tables apart, {:.2f} times shared; "
                      "faults of the seven "
                      "children: {:.0f} apart, {:.0f} shared",
                      apart, shared, table.at("freebsd", 8, "minor_faults"), faults)};
}

}  // namespace

std::vector<Experiment> table_experiments() {
  return {
      {.id = "S1",
       .title = "Bytes of shared page tables",
       .question = "2 MiB of tables for a gigabyte in every process, or once?",
       .workload = "a process reads a file of 256 MiB (a quarter of designs.md's) and forks; the children "
                   "read all of it",
       .sweep = "processes",
       .metric = "table_bytes",
       .prediction = "private tables grow by 8 bytes a page and process (2 MiB a GiB), shared ones stay at "
                     "one process's "
                     "leaf tables and their upper levels; children that share do not fault",
       .rule = "held: with 8 processes 8 to 8.5 times one's leaf tables apart, 1 to 1.3 times shared, no "
               "fault shared",
       .designs = {"freebsd", "freebsd_shared_tables"},
       .points = {1, 2, 4, 8},
       .run = run_s1,
       .judge = judge_s1,
       .forecasts = {{"freebsd", 8, "tables_of_one", 8, 8.5},
                     {"freebsd_shared_tables", 8, "tables_of_one", 1, 1.3},
                     {"freebsd_shared_tables", 8, "minor_faults", 0, 0}},
       .why = "the tables are as small as predicted; where the faults of the sharing children come from is "
              "not known yet"},
  };
}

}  // namespace enchilada::lab
