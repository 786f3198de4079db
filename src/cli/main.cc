// The command line of `enchilada`: what it takes, and how it says no. The only file that includes CLI11.
//
// Invariant: a bad argument gives exactly one line on standard error and status 2.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "cli/doctor.h"
#include "cli/lab_command.h"
#include "cli/replay_command.h"
#include "cli/run_command.h"
#include "cli/settings.h"
#include "cli/sizes.h"
#include "cli/user_error.h"

#ifndef ENCHILADA_VERSION
#define ENCHILADA_VERSION "0.1.0"
#endif

namespace enchilada::cli {
namespace {

constexpr char kExamples[] = R"(Examples:
  enchilada run --ram 128M -- sqlite3 big.db 'select count(*) from t'
  enchilada run --ram 1.5G --swap /mnt/fast:64G --stats run.json -- sort -S 4G huge.txt
  enchilada run --ram 256M --compressed 96M -- python3 analyse.py
  enchilada doctor
  enchilada lab experiment W1

Sizes: 64K 128M 4G 1.5G 1T. The exit status is the program's, 128 + signal when a signal ended it,
2 for a bad argument, 126 or 127 when the program cannot be executed or found.)";

struct Arguments {
  RunOptions run;
  LabOptions lab;
  ReplayCommand replay;
  std::string ram;
  std::string compressed;
};

/// CLI11 does not know of the program behind the options.
class RunFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* /*app*/, std::string /*name*/) const override {
    return "Usage: enchilada run [OPTIONS] -- PROGRAM [ARGUMENTS...]\n";
  }
};

void add_run(CLI::App& app, Arguments* a) {
  CLI::App* run =
      app.add_subcommand("run", "Run a program, and all its children, in a bounded amount of memory");
  run->add_option("--ram", a->ram,
                  "Memory for the program and its children together (default: half of what is available)")
      ->type_name("SIZE")
      ->take_last();
  run->add_option(
         "--swap", a->run.swap,
         "Where to page out: PATH[:SIZE], a directory (default $ENCHILADA_SWAP_DIR or /var/tmp), a file or a "
         "block device; may be repeated")
      ->type_name("SPEC")
      ->allow_extra_args(false);
  run->add_option("--compressed", a->compressed,
                  "Part of --ram that holds pages compressed before they go to swap (default: none)")
      ->type_name("SIZE")
      ->take_last();
  run->add_option("--stats", a->run.stats_file, "Write all counters to this file as JSON (docs/stats.md)")
      ->type_name("FILE")
      ->take_last();
  run->add_option("--set", a->run.settings,
                  "Choose how a mechanism works; '--set help' lists them; may be repeated")
      ->type_name("MECHANISM=MODE")
      ->allow_extra_args(false);
  run->add_flag("-q,--quiet", a->run.quiet, "No summary at the end");
  run->add_flag("-v,--verbose", a->run.verbose, "Say more about what is managed");
  run->add_flag("--force-copy", a->run.force_copy,
                "Use the transport of older kernels (copy instead of move)");
  run->footer(kExamples);
  run->formatter(std::make_shared<RunFormatter>());
}

void add_lab(CLI::App& app, LabOptions* a) {
  CLI::App* lab = app.add_subcommand("lab", "The laboratory: designs of virtual memory, compared");
  lab->require_subcommand(1);
  lab->add_subcommand("list", "The experiments and the designs");
  CLI::App* experiment =
      lab->add_subcommand("experiment", "Run experiments, and say what came of the predictions");
  experiment->add_option("names", a->names, "Names from `enchilada lab list`, or all")->type_name("NAME");
  experiment->add_option("-j,--jobs", a->jobs, "Cells at a time (default: one for each core)")
      ->check(CLI::Range(1u, 1024u));
  experiment->add_option("--shard", a->shard, "Run only the i-th of n parts of the cells")->type_name("i/n");
  experiment
      ->add_option("--cells", a->cells_file,
                   "Keep each cell's values in this file, and go on from what is there; for `lab merge`")
      ->type_name("FILE");
  CLI::App* merge = lab->add_subcommand("merge", "Join files of cells, and report on them");
  merge->add_option("files", a->names, "Files that --cells has made")->required()->type_name("FILE");
  CLI::App* calibrate =
      lab->add_subcommand("calibrate", "Measure on this machine what the simulated one charges for things");
  for (CLI::App* const command : {experiment, merge, calibrate}) {
    command
        ->add_option("--json", a->json_file,
                     "Write everything to this file as JSON (docs/lab.md); - is standard output")
        ->type_name("FILE");
  }
  for (CLI::App* const command : {experiment, merge}) {
    command->add_option("--html", a->html_file, "Write the report to this file as one page of HTML")
        ->type_name("FILE");
  }
  CLI::App* report = lab->add_subcommand("report", "The page of HTML of a report that --json has made");
  report->add_option("report", a->names, "A file that --json has made")
      ->required()
      ->expected(1)
      ->type_name("REPORT.json");
  report->add_option("--html", a->html_file, "The file to write; - is standard output")
      ->required()
      ->type_name("FILE");
  CLI::App* explain =
      lab->add_subcommand("explain", "A tiny program on a design, call by call, with what each costs");
  explain->add_option("design", a->design, "A design from `enchilada lab list`")
      ->required()
      ->type_name("DESIGN");
  explain->add_option("--seed", a->seed, "Another program");
  explain->add_option("--steps", a->steps, "Its length in calls")->check(CLI::Range(1u, 100'000u));
}

void add_replay(CLI::App& lab, ReplayCommand* a) {
  CLI::App* replay =
      lab.add_subcommand("replay", "A trace through replacement policies, with several sizes of memory");
  replay->add_option("trace", a->trace, "The trace, packed or not; - is standard input")->type_name("FILE");
  replay->add_option("--policy", a->policies, "Policies (default: all); --policy help lists them")
      ->type_name("NAME,...")
      ->delimiter(',');
  replay
      ->add_option("--mem", a->memory,
                   "Sizes of memory, as bytes or as a share of the trace's pages (default: auto)")
      ->type_name("64M,10%,auto")
      ->delimiter(',');
  replay->add_option("--format", a->format, "What the trace is written in (default: auto); --format help")
      ->type_name("NAME");
  replay->add_option("--page-size", a->page_size, "Of traces of addresses, and of --mem (default: 4K)")
      ->type_name("SIZE");
  replay->add_option("--skip", a->skip, "Leave out so many references at the start")->type_name("N");
  replay->add_option("--limit", a->limit, "Stop after so many references (default: all)")->type_name("N");
  replay->add_option("--seed", a->seed, "Of policies that draw")->type_name("N");
  replay->add_option("-j,--jobs", a->jobs, "Replays at a time (default: one for each core)")
      ->check(CLI::Range(1u, 1024u));
  replay
      ->add_option("--json", a->json_file,
                   "Write everything to this file as JSON (docs/lab.md); - is standard output")
      ->type_name("FILE");
  replay->add_option("--csv", a->csv_file, "Write the table to this file as CSV; - is standard output")
      ->type_name("FILE");
}

int do_lab(CLI::App& lab, const LabOptions& options, const ReplayCommand& replay) {
  if (lab.got_subcommand("replay")) return lab_replay(replay);
  if (lab.got_subcommand("list")) return lab_list();
  if (lab.got_subcommand("merge")) return lab_merge(options);
  if (lab.got_subcommand("report")) return lab_report(options);
  if (lab.got_subcommand("calibrate")) return lab_calibrate(options);
  if (lab.got_subcommand("explain")) return lab_explain(options);
  return lab_experiment(options);
}

int do_run(CLI::App& run, Arguments* a) {
  const auto& settings = a->run.settings;
  if (std::find(settings.begin(), settings.end(), "help") != settings.end()) {
    fmt::print("{}", settings_help());
    return 0;
  }
  if (a->run.command.empty())
    throw UserError("run: which program? enchilada run [OPTIONS] -- PROGRAM [ARGUMENTS...]");
  if (run.count("--ram") != 0) {
    const auto bytes = parse_size(a->ram);
    if (!bytes) throw UserError(fmt::format("--ram {}: not a size (64K, 128M, 4G, 1.5G)", a->ram));
    if (*bytes == 0) throw UserError(fmt::format("--ram {}: a program cannot run in no memory", a->ram));
    a->run.ram_bytes = bytes;
  }
  if (run.count("--compressed") != 0) {
    const auto bytes = parse_size(a->compressed);
    if (!bytes) throw UserError(fmt::format("--compressed {}: not a size (8M, 64M, 1G)", a->compressed));
    a->run.compressed_bytes = *bytes;
  }
  return run_command(a->run);
}

/// CLI11's texts may have several lines; ours have one.
std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

/// Takes the program and its arguments off the end of `words`: what follows "--", or the first word that is
/// neither an option of `run` nor an option's value. They are the program's business and must not be parsed
/// here.
std::vector<std::string> split_command(std::vector<std::string>* words, const CLI::App& run) {
  std::size_t at = 1;
  for (; at < words->size() && (*words)[at] != "--"; ++at) {
    const std::string& word = (*words)[at];
    if (!word.starts_with("-")) break;
    const CLI::Option* option = run.get_option_no_throw(word);
    if (option != nullptr && option->get_expected_min() > 0) ++at;
  }
  at = std::min(at, words->size());
  const bool marked = at < words->size() && (*words)[at] == "--";
  std::vector<std::string> command(words->begin() + static_cast<std::ptrdiff_t>(marked ? at + 1 : at),
                                   words->end());
  words->resize(at);
  return command;
}

int dispatch(int argc, char** argv) {
  CLI::App app("Enchilada: the whole virtual memory system in user space", "enchilada");
  app.set_version_flag("--version", std::string("enchilada ") + ENCHILADA_VERSION);
  app.footer(kExamples);
  app.require_subcommand(1);
  Arguments arguments;
  add_run(app, &arguments);
  add_lab(app, &arguments.lab);
  add_replay(*app.get_subcommand("lab"), &arguments.replay);
  app.add_subcommand("doctor", "What this machine offers, what will be used, and what to change");
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty())
    throw UserError("which command? enchilada run, doctor or lab; enchilada --help says more");
  const auto commands =
      app.get_subcommands([&](const CLI::App* command) { return command->get_name() == words.front(); });
  if (!words.front().starts_with("-") && commands.empty()) {
    throw UserError(fmt::format("{}: no such command; enchilada --help lists them", words.front()));
  }
  if (words.front().starts_with("-") && app.get_option_no_throw(words.front()) == nullptr) {
    throw UserError(fmt::format("unknown option {}", words.front()));
  }
  if (words.front() == "run") arguments.run.command = split_command(&words, *app.get_subcommand("run"));
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::Success& e) {
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    throw UserError(one_line(e.what()));
  }
  if (app.got_subcommand("doctor")) return doctor_command();
  if (app.got_subcommand("lab")) return do_lab(*app.get_subcommand("lab"), arguments.lab, arguments.replay);
  return do_run(*app.get_subcommand("run"), &arguments);
}

}  // namespace
}  // namespace enchilada::cli

int main(int argc, char** argv) {
  try {
    return enchilada::cli::dispatch(argc, argv);
  } catch (const enchilada::cli::UserError& e) {
    fmt::print(stderr, "enchilada: {}\n", e.what());
    return e.status();
  } catch (const std::exception& e) {
    fmt::print(stderr, "enchilada: {}\n", e.what());
    return enchilada::cli::kStatusUsage;
  }
}
