// A trace through policies. Invariants: see replay_command.h.
#include "cli/replay_command.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/output_file.h"
#include "cli/sizes.h"
#include "cli/user_error.h"
#include "lab/policies/replay.h"
#include "lab/policies/trace_reader.h"

namespace enchilada::cli {
namespace {

constexpr unsigned kAutoPercents[] = {5, 10, 20, 40, 60, 80};

struct Run {
  const lab::PolicyEntry* policy;
  std::uint32_t frames;
  lab::ReplayResult result;
};

std::vector<const lab::PolicyEntry*> wanted_policies(const std::vector<std::string>& names) {
  std::vector<const lab::PolicyEntry*> wanted;
  for (const std::string& name : names) {
    wanted.push_back(lab::find_policy(name));
    if (wanted.back() == nullptr) {
      throw UserError(fmt::format("--policy {}: no such policy; --policy help lists them", name));
    }
  }
  if (!wanted.empty()) return wanted;
  for (const lab::PolicyEntry& policy : lab::policies()) wanted.push_back(&policy);
  return wanted;
}

std::uint64_t page_size_of(const std::string& text) {
  const auto size = parse_size(text);
  if (!size || *size == 0) throw UserError(fmt::format("--page-size {}: not a size", text));
  return *size;
}

/// A size in bytes or in per cent of the trace's pages.
std::uint32_t frames_of(const std::string& text, std::uint64_t pages, std::uint64_t page_size) {
  constexpr std::uint64_t kMost = lab::kNoPage - 1;
  std::uint64_t frames = 0;
  if (!text.empty() && text.back() == '%') {
    double percent = 0;
    const char* const end = text.data() + text.size() - 1;
    const auto parsed = std::from_chars(text.data(), end, percent);
    if (parsed.ec != std::errc() || parsed.ptr != end || !(percent > 0) || percent > 1000) {
      throw UserError(fmt::format("--mem {}: not a share of the trace's pages", text));
    }
    frames =
        std::max<std::uint64_t>(1, static_cast<std::uint64_t>(static_cast<double>(pages) * percent / 100));
  } else {
    const auto size = parse_size(text);
    if (!size) throw UserError(fmt::format("--mem {}: not a size (64MiB, 10%, auto)", text));
    frames = *size / page_size;
    if (frames == 0) throw UserError(fmt::format("--mem {}: less than a page", text));
  }
  return static_cast<std::uint32_t>(std::min(frames, kMost));
}

std::vector<std::uint32_t> memory_sizes(const ReplayCommand& command, std::uint64_t pages,
                                        std::uint64_t page_size) {
  std::vector<std::uint32_t> all;
  const std::vector<std::string> automatic{"auto"};
  for (const std::string& text : command.memory.empty() ? automatic : command.memory) {
    if (text != "auto") {
      all.push_back(frames_of(text, pages, page_size));
      continue;
    }
    for (const unsigned percent : kAutoPercents)
      all.push_back(frames_of(fmt::format("{}%", percent), pages, page_size));
  }
  return all;
}

lab::Trace load_trace(const ReplayCommand& command, std::uint64_t page_size) {
  try {
    lab::Trace trace = lab::read_trace(command.trace, {.format = command.format, .page_size = page_size});
    auto& refs = trace.refs;
    refs.erase(refs.begin(), refs.begin() + static_cast<std::ptrdiff_t>(std::min(command.skip, refs.size())));
    if (command.limit != 0 && command.limit < refs.size()) refs.resize(command.limit);
    if (refs.empty())
      throw UserError(fmt::format("{}: --skip {} leaves nothing", command.trace, command.skip));
    return trace;
  } catch (const lab::TraceError& error) {
    throw UserError(fmt::format("lab replay: {}", error.what()));
  }
}

/// All runs, over the cores; on a terminal it says how far it is.
void replay_all(const lab::Trace& trace, const ReplayCommand& command, std::vector<Run>* runs) {
  const unsigned cores = std::max(1u, std::thread::hardware_concurrency());
  const std::size_t threads = std::min<std::size_t>(command.jobs != 0 ? command.jobs : cores, runs->size());
  const bool terminal = isatty(STDERR_FILENO) == 1;
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i = next++; i < runs->size(); i = next++) {
      Run& run = (*runs)[i];
      if (terminal) fmt::print(stderr, "\r{} of {} replays \x1b[K", i, runs->size());
      run.result = run.policy->replay(trace, {.frames = run.frames, .seed = command.seed}, nullptr);
    }
  };
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& thread : others) thread.join();
  if (terminal) fmt::print(stderr, "\r\x1b[K");
}

double rate(const lab::ReplayResult& result) {
  return static_cast<double>(result.refs) / std::max(result.seconds, 1e-9) / 1e6;
}

std::string table(const lab::Trace& trace, std::uint64_t distinct, const std::vector<Run>& runs) {
  std::string text =
      fmt::format("{}: {} references to {} pages\n\n{:<14} {:>10} {:>7} {:>10} {:>12} {:>12} {:>9}\n",
                  trace.name, trace.refs.size(), distinct, "policy", "frames", "% pages", "miss ratio",
                  "page-ins", "page-outs", "M refs/s");
  for (const Run& run : runs) {
    text +=
        fmt::format("{:<14} {:>10} {:>7.1f} {:>10.4f} {:>12} {:>12} {:>9.1f}\n", run.policy->name, run.frames,
                    100.0 * run.frames / static_cast<double>(distinct), run.result.miss_ratio(),
                    run.result.misses - distinct, run.result.counts.page_outs, rate(run.result));
  }
  return text;
}

std::string csv(const std::vector<Run>& runs, std::uint64_t distinct) {
  std::string text =
      "policy,frames,refs,misses,page_ins,page_outs,evictions,looks,miss_ratio,refs_per_second\n";
  for (const Run& run : runs) {
    const lab::ReplayResult& r = run.result;
    text += fmt::format("{},{},{},{},{},{},{},{},{:.6f},{:.0f}\n", run.policy->name, run.frames, r.refs,
                        r.misses, r.misses - distinct, r.counts.page_outs, r.counts.evictions, r.counts.looks,
                        r.miss_ratio(), rate(r) * 1e6);
  }
  return text;
}

std::string json(const lab::Trace& trace, std::uint64_t distinct, std::uint64_t page_size,
                 const std::vector<Run>& runs) {
  nlohmann::json all = {{"schema", 1},       {"trace", trace.name},    {"references", trace.refs.size()},
                        {"pages", distinct}, {"page_size", page_size}, {"runs", nlohmann::json::array()}};
  for (const Run& run : runs) {
    const lab::ReplayResult& r = run.result;
    all["runs"].push_back({{"policy", run.policy->name},
                           {"frames", run.frames},
                           {"misses", r.misses},
                           {"page_ins", r.misses - distinct},
                           {"page_outs", r.counts.page_outs},
                           {"evictions", r.counts.evictions},
                           {"looks", r.counts.looks},
                           {"miss_ratio", r.miss_ratio()},
                           {"refs_per_second", rate(r) * 1e6}});
  }
  return all.dump(1) + "\n";
}

bool asks_for_help(const ReplayCommand& command) {
  const auto& names = command.policies;
  if (std::find(names.begin(), names.end(), "help") != names.end()) {
    for (const lab::PolicyEntry& policy : lab::policies()) {
      fmt::print("{:<14} {:<5} {}\n", policy.name, policy.when, policy.what);
    }
    return true;
  }
  if (command.format != "help") return false;
  for (const lab::TraceFormat& format : lab::trace_formats())
    fmt::print("{:<14} {}\n", format.name, format.what);
  fmt::print("auto guesses; gzip, xz and zstd are unpacked first\n");
  return true;
}

}  // namespace

int lab_replay(const ReplayCommand& command) {
  if (asks_for_help(command)) return 0;
  if (command.trace.empty())
    throw UserError("lab replay: which trace? enchilada lab replay FILE, or - for standard input");
  const auto policies = wanted_policies(command.policies);
  const std::uint64_t page_size = page_size_of(command.page_size);
  (void)memory_sizes(command, 1, page_size);  // a bad size is said before a long trace is read
  const lab::Trace trace = load_trace(command, page_size);
  const std::uint64_t distinct = lab::distinct_pages(trace);
  std::vector<Run> runs;
  for (const lab::PolicyEntry* const policy : policies) {
    for (const std::uint32_t frames : memory_sizes(command, distinct, page_size))
      runs.push_back({policy, frames, {}});
  }
  replay_all(trace, command, &runs);
  if (command.json_file != "-" && command.csv_file != "-") fmt::print("{}", table(trace, distinct, runs));
  if (!command.json_file.empty())
    write_output("--json", command.json_file, json(trace, distinct, page_size, runs));
  if (!command.csv_file.empty()) write_output("--csv", command.csv_file, csv(runs, distinct));
  return 0;
}

}  // namespace enchilada::cli
