// Ablation: which mechanism is worth what. Runs every workload with the default modes, and once more for each
// other mode of each mechanism in the registry (VmModes), and for each preset; prints what changes.
//
// Costs are counted, not timed: faults, page-ins, copies, zero-fills, operations of the device. One number
// for all of them comes from a cost model with fixed prices (below, from DESIGN.md §6), so the table is the
// same on a busy machine; CPU time is printed beside it for what counts cannot show (searches, scans), and is
// noisy. Every run is a process of its own: a mode that breaks is reported and does not end the others.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "workload.h"

namespace enchilada::ablation {
namespace {

struct Costs {
  std::uint64_t faults = 0;
  std::uint64_t soft = 0;
  std::uint64_t page_ins = 0;    // faults that waited for the device
  std::uint64_t copies = 0;      // pages, pre-copied ones too
  std::uint64_t zeroed = 0;      // pages, in the fault
  std::uint64_t prezeroed = 0;   // pages that had been zeroed in idle time
  std::uint64_t prefaulted = 0;  // pages mapped along
  std::uint64_t ahead_hits = 0;  // pages read ahead and used, and not
  std::uint64_t ahead_waste = 0;
  std::uint64_t precopied = 0;  // pages copied before they were written, and for nothing
  std::uint64_t precopy_vain = 0;
  std::uint64_t reads = 0;  // operations, pages
  std::uint64_t read_pages = 0;
  std::uint64_t writes = 0;
  std::uint64_t written_pages = 0;
  std::uint64_t scanned = 0;  // pages that the page daemon looked at
  double cpu_ms = 0;
  /// The price of all that in microseconds.
  [[nodiscard]] double modelled() const {
    constexpr double kFault = 1.0;  // trap, look-up, mapping: a kernel's soft fault
    constexpr double kCopy = 0.8;   // of a page
    constexpr double kZero = 0.4;
    constexpr double kOperation = 100;  // random read or write of a disk
    constexpr double kTransfer = 1.5;   // a page more in the same operation
    constexpr double kScan = 0.1;
    const auto n = [](std::uint64_t v) { return static_cast<double>(v); };
    return kFault * n(faults) + kCopy * n(copies) + kZero * n(zeroed) + kOperation * n(reads + writes) +
           kTransfer * n(read_pages + written_pages) + kScan * n(scanned);
  }
};

struct CostName {
  const char* name;
  std::uint64_t Costs::*field;
};
constexpr CostName kCosts[] = {
    {"faults", &Costs::faults},
    {"soft_faults", &Costs::soft},
    {"page_ins", &Costs::page_ins},
    {"copies", &Costs::copies},
    {"zeroed", &Costs::zeroed},
    {"reads", &Costs::reads},
    {"read_pages", &Costs::read_pages},
    {"writes", &Costs::writes},
    {"written_pages", &Costs::written_pages},
    {"scanned", &Costs::scanned},
    {"prezeroed", &Costs::prezeroed},
    {"prefaulted", &Costs::prefaulted},
    {"ahead_hits", &Costs::ahead_hits},
    {"ahead_waste", &Costs::ahead_waste},
    {"precopied", &Costs::precopied},
    {"precopy_vain", &Costs::precopy_vain},
};

Costs costs_of(const VmCounters& c) {
  return {.faults = c.vm_faults.load(),
          .soft = c.soft_faults.load(),
          .page_ins = c.io_faults.load(),
          .copies = c.cow_faults.load() + c.precopied.load(),
          .zeroed = c.zfod_pages.load() - c.ozfod.load(),
          .prezeroed = c.ozfod.load(),
          .prefaulted = c.prefaulted.load() + c.prefaulted_at_map.load(),
          .ahead_hits = c.readahead_hits.load(),
          .ahead_waste = c.readahead_waste.load(),
          .precopied = c.precopied.load(),
          .precopy_vain = c.precopy_vain.load(),
          .reads = c.swapin.load() + c.vnodein.load(),
          .read_pages = c.swappgsin.load() + c.vnodepgsin.load(),
          .writes = c.swapout.load() + c.vnodeout.load(),
          .written_pages = c.swappgsout.load() + c.vnodepgsout.load(),
          .scanned = c.pdpages.load()};
}

double cpu_ms() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e3 +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-3;
}

/// In a child process; nothing when it died.
std::optional<Costs> run(const VmModes& modes, const Workload& workload) {
  int ends[2];
  if (pipe(ends) != 0) return std::nullopt;
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    alarm(300);
    Stage stage(modes);
    const double start = cpu_ms();
    workload.run(stage);
    Costs costs = costs_of(stage.engine().machine().counters());
    costs.cpu_ms = cpu_ms() - start;
    _exit(write(ends[1], &costs, sizeof costs) == sizeof costs ? 0 : 1);
  }
  close(ends[1]);
  Costs costs;
  const bool whole = read(ends[0], &costs, sizeof costs) == sizeof costs;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  if (!whole) return std::nullopt;
  return costs;
}

struct Row {
  std::string name;  // mechanism=mode, or preset=name
  std::vector<std::optional<Costs>> costs;
};

Row run_all(std::string name, const VmModes& modes, const std::vector<Workload>& workloads) {
  Row row{std::move(name), {}};
  for (const Workload& w : workloads) row.costs.push_back(run(modes, w));
  return row;
}

/// The modelled cost of each workload as a multiple of the default's.
void print_row(const Row& row, const Row& base) {
  std::printf("%-28s", row.name.c_str());
  for (std::size_t i = 0; i < row.costs.size(); ++i) {
    if (!row.costs[i] || !base.costs[i]) {
      std::printf(" %11s", "FAILED");
    } else {
      std::printf(" %11.2f", row.costs[i]->modelled() / base.costs[i]->modelled());
    }
  }
  std::printf("\n");
  std::fflush(stdout);
}

/// What a workload costs with the default modes, count by count.
void print_base(const Row& base, const std::vector<Workload>& workloads) {
  std::printf("%-28s", "default modes");
  for (const Workload& w : workloads) std::printf(" %11s", std::string(w.name).c_str());
  std::printf("\n");
  for (const CostName& cost : kCosts) {
    std::printf("%-28s", cost.name);
    for (const auto& c : base.costs) {
      std::printf(" %11llu", c ? static_cast<unsigned long long>((*c).*cost.field) : 0ULL);
    }
    std::printf("\n");
  }
  std::printf("%-28s", "cpu_ms (noisy)");
  for (const auto& c : base.costs) std::printf(" %11.1f", c ? c->cpu_ms : 0);
  std::printf("\n%-28s", "modelled_ms");
  for (const auto& c : base.costs) std::printf(" %11.1f", c ? c->modelled() / 1000 : 0);
  std::printf("\n\nModelled cost as a multiple of the default's (1.00 = the same, more = worse):\n");
}

/// The three counts of a row that differ most from the default's, by workload.
std::vector<std::string> largest_differences(const Row& row, const Row& base,
                                             const std::vector<Workload>& workloads) {
  struct Difference {
    double ratio;
    std::string text;
  };
  std::vector<Difference> all;
  for (std::size_t w = 0; w < workloads.size(); ++w) {
    if (!row.costs[w] || !base.costs[w]) continue;
    for (const CostName& cost : kCosts) {
      const std::uint64_t here = (*row.costs[w]).*cost.field;
      const std::uint64_t there = (*base.costs[w]).*cost.field;
      const double ratio = (static_cast<double>(here) + 10) / (static_cast<double>(there) + 10);
      if (here == there) continue;
      all.push_back({std::max(ratio, 1 / ratio), std::string(workloads[w].name) + ": " + cost.name + " " +
                                                     std::to_string(there) + " -> " + std::to_string(here)});
    }
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Difference& a, const Difference& b) { return a.ratio > b.ratio; });
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < all.size() && i < 3; ++i) texts.push_back(all[i].text);
  return texts;
}

void print_differences(const std::vector<Row>& rows, const Row& base,
                       const std::vector<Workload>& workloads) {
  std::printf("\nThe counts that differ most from the default's, for each mode:\n");
  for (const Row& row : rows) {
    const auto texts = largest_differences(row, base, workloads);
    std::printf("%-28s %s\n", row.name.c_str(), texts.empty() ? "no difference" : texts.front().c_str());
    for (std::size_t i = 1; i < texts.size(); ++i) std::printf("%-28s %s\n", "", texts[i].c_str());
  }
}

void write_json(const char* path, const std::vector<Row>& rows, const std::vector<Workload>& workloads) {
  std::FILE* const out = std::fopen(path, "w");
  if (out == nullptr) {
    std::perror(path);
    std::exit(2);
  }
  std::fprintf(out, "{\"frames\": %llu, \"rows\": [", static_cast<unsigned long long>(kFrames));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::fprintf(out, "%s\n  {\"modes\": \"%s\", \"workloads\": {", r == 0 ? "" : ",", rows[r].name.c_str());
    for (std::size_t w = 0; w < workloads.size(); ++w) {
      std::fprintf(out, "%s\"%s\": ", w == 0 ? "" : ", ", std::string(workloads[w].name).c_str());
      if (!rows[r].costs[w]) {
        std::fprintf(out, "null");
        continue;
      }
      const Costs& c = *rows[r].costs[w];
      std::fprintf(out, "{\"cpu_ms\": %.3f, \"modelled_us\": %.1f", c.cpu_ms, c.modelled());
      for (const CostName& cost : kCosts) {
        std::fprintf(out, ", \"%s\": %llu", cost.name, static_cast<unsigned long long>(c.*cost.field));
      }
      std::fprintf(out, "}");
    }
    std::fprintf(out, "}}");
  }
  std::fprintf(out, "\n]}\n");
  std::fclose(out);
}

struct Options {
  std::string mechanism;  // empty: all
  std::string workload;
  std::string json;
};

[[noreturn]] void usage() {
  std::fprintf(stderr, "ablation [--mechanism NAME] [--workload NAME] [--json FILE]\nworkloads:\n");
  for (const Workload& w : all_workloads()) {
    std::fprintf(stderr, "  %-12s %s\n", std::string(w.name).c_str(), std::string(w.what).c_str());
  }
  std::fprintf(stderr, "mechanisms:\n");
  for (const Mechanism& m : kMechanisms) {
    std::fprintf(stderr, "  %-16s %s\n", std::string(m.name).c_str(), std::string(m.what).c_str());
  }
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) usage();
    const std::string_view name = argv[i];
    if (name == "--mechanism") {
      options.mechanism = argv[i + 1];
    } else if (name == "--workload") {
      options.workload = argv[i + 1];
    } else if (name == "--json") {
      options.json = argv[i + 1];
    } else {
      usage();
    }
  }
  return options;
}

int ablate(const Options& options) {
  std::vector<Workload> workloads;
  for (const Workload& w : all_workloads()) {
    if (options.workload.empty() || options.workload == w.name) workloads.push_back(w);
  }
  if (workloads.empty()) usage();
  std::vector<Row> rows;
  rows.push_back(run_all("default", VmModes(), workloads));
  const Row base = rows.front();
  print_base(base, workloads);
  const auto add = [&](const std::string& name, const VmModes& modes) {
    rows.push_back(run_all(name, modes, workloads));
    print_row(rows.back(), base);
  };
  for (std::size_t p = 1; options.mechanism.empty() && p < kPresetNames.size(); ++p) {
    add("preset=" + std::string(kPresetNames[p]), VmModes(static_cast<Preset>(p)));
  }
  bool known = options.mechanism.empty();
  for (std::size_t m = 0; m < kMechanisms.size(); ++m) {
    const Mechanism& mechanism = kMechanisms[m];
    if (!options.mechanism.empty() && options.mechanism != mechanism.name) continue;
    known = true;
    for (std::uint8_t mode = 0; mode < mechanism.modes.size(); ++mode) {
      VmModes modes;
      if (modes.number(m) == mode) continue;
      modes.set_number(m, mode);
      add(std::string(mechanism.name) + "=" + std::string(mechanism.modes[mode]), modes);
    }
  }
  if (!known) usage();
  print_differences({rows.begin() + 1, rows.end()}, base, workloads);
  if (!options.json.empty()) write_json(options.json.c_str(), rows, workloads);
  const bool failed = std::any_of(rows.begin(), rows.end(), [](const Row& row) {
    return std::any_of(row.costs.begin(), row.costs.end(), [](const auto& c) { return !c.has_value(); });
  });
  return failed ? 1 : 0;
}

}  // namespace
}  // namespace enchilada::ablation

int main(int argc, char** argv) {
  return enchilada::ablation::ablate(enchilada::ablation::parse(argc, argv));
}
