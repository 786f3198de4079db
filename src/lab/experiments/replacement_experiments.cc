// The argument about page replacement: R1, R2, R3 and R6 of designs.md §5, by policies alone over reference
// strings. Predictions are from there.
#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "lab/experiments/experiment.h"
#include "lab/policies/reference_strings.h"

namespace enchilada::lab {
namespace {

constexpr std::uint32_t kFrames = 1'024;
constexpr std::uint64_t kSeeds = 20;

const std::vector<std::string_view> kAllPolicies = {
    "opt",          "lru",       "random",        "freebsd", "linux-2.4.0",
    "linux-2.4.10", "linux-2.6", "linux-refault", "mglru",   "clock-pro"};

double ratio(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

std::uint32_t percent_of_memory(std::uint64_t percent) {
  return page_number(kFrames * percent / 100);
}

// --- R1

Values run_r1(std::string_view policy, std::uint64_t percent) {
  constexpr std::uint32_t kPasses = 60;
  Trace trace{"loop", percent_of_memory(percent), {}};
  for (std::uint32_t i = 0; i < trace.pages * kPasses; ++i) trace.refs.emplace_back(i % trace.pages, false);
  const std::uint64_t seeds = policy == "random" ? kSeeds : 1;
  std::uint64_t ins = 0;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    ins += replay(policy, trace, {.frames = kFrames, .seed = seed}).misses - trace.pages;
  }
  return {{"miss_ratio", ratio(ins, seeds * (trace.refs.size() - trace.pages))}};
}

Judgement judge_r1(const Table& table) {
  const auto at = [&](std::string_view policy) { return table.at(policy, 105, "miss_ratio"); };
  return {verdict_of({std::min({at("lru"), at("linux-2.4.10"), at("linux-2.6")}) >= 0.95,
                      at("clock-pro") <= at("opt") + 0.1,
                      at("freebsd") > at("clock-pro") && at("freebsd") < 0.9 * at("lru")}),
          fmt::format("105 %: OPT {:.3f}, LRU {:.3f}, 2.4.10 {:.3f}, 2.6 {:.3f}, CLOCK-Pro {:.3f}, FreeBSD "
                      "{:.3f}; random {:.3f}",
                      at("opt"), at("lru"), at("linux-2.4.10"), at("linux-2.6"), at("clock-pro"),
                      at("freebsd"), at("random"))};
}

// --- R2

/// Three references of four to a hot set, at random; the fourth goes on with a scan that never comes back.
Trace hot_set_and_scan(std::uint32_t hot, std::uint64_t seed) {
  constexpr std::uint32_t kLength = 80'000;
  Trace trace{"scan once", hot + kLength / 4, {}};
  std::mt19937_64 random(seed);
  for (std::uint32_t i = 0; i < kLength; ++i) {
    trace.refs.emplace_back(i % 4 == 3 ? hot + i / 4 : page_number(random() % hot), false);
  }
  return trace;
}

Values run_r2(std::string_view policy, std::uint64_t percent) {
  const std::uint32_t hot = percent_of_memory(percent);
  std::uint64_t misses = 0;
  std::uint64_t refs = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Trace trace = hot_set_and_scan(hot, seed);
    MissLog missed;
    (void)replay(policy, trace, {.frames = kFrames, .seed = seed}, &missed);
    for (std::size_t i = trace.refs.size() / 4; i < missed.size(); ++i) {  // the first quarter warms up
      if (trace.refs[i].page() >= hot) continue;
      ++refs;
      misses += missed[i] ? 1 : 0;
    }
  }
  return {{"hot_miss_ratio", ratio(misses, refs)}};
}

Judgement judge_r2(const Table& table) {
  const auto at = [&](std::string_view policy) { return table.at(policy, 70, "hot_miss_ratio"); };
  bool worst = true;
  for (const std::string_view policy : {"lru", "freebsd", "linux-2.4.0", "linux-2.6", "clock-pro"}) {
    worst = worst && at(policy) <= at("linux-2.4.10");
  }
  return {
      verdict_of({worst, at("freebsd") <= at("lru") / 2, at("clock-pro") <= at("lru") / 2}),
      fmt::format("hot set of 70 %, misses a reference to it: 2.4.10 {:.4f}, LRU {:.4f}, 2.6 {:.4f}, 2.4.0 "
                  "{:.4f}, FreeBSD {:.4f}, CLOCK-Pro {:.4f}, MGLRU {:.4f}",
                  at("linux-2.4.10"), at("lru"), at("linux-2.6"), at("linux-2.4.0"), at("freebsd"),
                  at("clock-pro"), at("mglru"))};
}

// --- R3

constexpr std::uint32_t kSet = kFrames * 7 / 10;
constexpr std::uint32_t kSecondPhase = 40'000;

/// A working set of 70 % of memory, then another; beside it, one reference of eight goes on with a scan.
Trace two_phases(std::uint32_t first, std::uint64_t seed) {
  const std::uint32_t length = first + kSecondPhase;
  Trace trace{"two phases", 2 * kSet + length / 8 + 1, {}};
  std::mt19937_64 random(seed);
  for (std::uint32_t i = 0; i < length; ++i) {
    const std::uint32_t set = i < first ? 0 : kSet;
    trace.refs.emplace_back(i % 8 == 7 ? 2 * kSet + i / 8 : set + page_number(random() % kSet), false);
  }
  return trace;
}

Values run_r3(std::string_view policy, std::uint64_t first_thousands) {
  const auto first = page_number(first_thousands * 1'000);
  std::uint64_t misses = 0;
  std::uint64_t looks = 0;
  std::uint64_t evictions = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Trace trace = two_phases(first, seed);
    const PolicyOptions options{.frames = kFrames, .seed = seed};
    MissLog missed;
    const ReplayResult whole = replay(policy, trace, options, &missed);
    Trace before{"first phase", trace.pages, {}};
    before.refs.assign(trace.refs.begin(), trace.refs.begin() + first);
    const ReplayResult half = replay(policy, before, options);
    looks += whole.counts.looks - half.counts.looks;
    evictions += whole.counts.evictions - half.counts.evictions;
    for (std::size_t i = first; i < missed.size(); ++i) {
      misses += missed[i] && trace.refs[i].page() < 2 * kSet ? 1 : 0;
    }
  }
  return {{"misses_per_page", ratio(misses, kSeeds * kSet)}, {"looks_per_eviction", ratio(looks, evictions)}};
}

Judgement judge_r3(const Table& table) {
  const auto misses = [&](std::string_view policy) { return table.at(policy, 160, "misses_per_page"); };
  const auto looks = [&](std::string_view policy) { return table.at(policy, 160, "looks_per_eviction"); };
  return {verdict_of({misses("freebsd") >= 1.2 * misses("linux-2.4.0"),
                      looks("freebsd") >= 2 * looks("linux-2.4.0")}),
          fmt::format(
              "after 160,000 references, misses a page of the new set: FreeBSD {:.2f}, 2.4.0 {:.2f}, 2.4.10 "
              "{:.2f}, 2.6 {:.2f}, LRU {:.2f}, OPT {:.2f}; looks a victim: FreeBSD {:.1f}, 2.4.0 {:.1f}",
              misses("freebsd"), misses("linux-2.4.0"), misses("linux-2.4.10"), misses("linux-2.6"),
              misses("lru"), misses("opt"), looks("freebsd"), looks("linux-2.4.0"))};
}

// --- R6

Values run_r6(std::string_view policy, std::uint64_t record_bytes) {
  const PolicyOptions options{.frames = kFrames, .record_bytes = page_number(record_bytes)};
  std::uint64_t ins = 0;
  for (const Trace& trace : reference_strings(kFrames, 60'000)) {
    ins += replay(policy, trace, options).misses - distinct_pages(trace);
  }
  return {{"page_ins", static_cast<double>(ins)}};
}

Judgement judge_r6(const Table& table) {
  const auto gain = [&](std::uint64_t bytes) {
    return 1 - table.at("clock-pro", bytes, "page_ins") / table.at("lru", bytes, "page_ins");
  };
  return {
      verdict_of({gain(32) < gain(0), gain(128) < gain(32), gain(512) < gain(128), gain(2048) < gain(512)}),
      fmt::format("page-ins saved against LRU, records of 0, 32, 128, 512, 2048 bytes: {:.1f}, {:.1f}, "
                  "{:.1f}, {:.1f}, {:.1f} %",
                  100 * gain(0), 100 * gain(32), 100 * gain(128), 100 * gain(512), 100 * gain(2048))};
}

Experiment r1() {
  return {
      .id = "R1",
      .title = "A loop slightly larger than memory",
      .question = "who keeps a part of what does not fit?",
      .workload = "a loop, 60 passes, memory of 1,024 pages; random: 20 seeds",
      .sweep = "loop, % of memory",
      .metric = "miss_ratio",
      .prediction =
          "at 105 % LRU, 2.4.10 and 2.6 miss near 100 %; CLOCK-Pro is near OPT; FreeBSD's counts are "
          "between, as saturated counts act as frequency",
      .rule =
          "held: at 105 % LRU, 2.4.10, 2.6 >= 0.95; CLOCK-Pro within 0.1 of OPT; FreeBSD above CLOCK-Pro and "
          "below 0.9 of LRU; misses after the first pass",
      .designs = kAllPolicies,
      .points = {90, 105, 120, 150, 200},
      .run = run_r1,
      .judge = judge_r1};
}

Experiment r2() {
  return {.id = "R2",
          .title = "A hot set beside a scan that never comes back",
          .question = "does a scan push out what is in use?",
          .workload =
              "three references of four at random to a hot set, the fourth to the next page of a scan; "
              "memory of 1,024 pages, 80,000 references, the first quarter warms up, 20 seeds",
          .sweep = "hot set, % of memory",
          .metric = "hot_miss_ratio",
          .prediction = "2.4.10 is worst; counts (FreeBSD) and CLOCK-Pro keep the hot set",
          .rule =
              "held: with a hot set of 70 % none of LRU, FreeBSD, 2.4.0, 2.6, CLOCK-Pro misses it more often "
              "than "
              "2.4.10; FreeBSD and CLOCK-Pro at most half as often as LRU",
          .designs = kAllPolicies,
          .points = {30, 50, 70, 90},
          .run = run_r2,
          .judge = judge_r2};
}

Experiment r3() {
  return {
      .id = "R3",
      .title = "The working set changes",
      .question = "how long does an old set stay that was used much?",
      .workload =
          "a working set of 70 % of 1,024 pages, then another for 40,000 references; one reference of eight "
          "scans; 20 seeds",
      .sweep = "first phase, thousands",
      .metric = "misses_per_page",
      .prediction =
          "once the old set's counts stand at 64, FreeBSD needs about 64 idle scans to age it out, "
          "halving about 7: 2.4.0 adapts faster",
      .rule =
          "held: after 160,000 references FreeBSD misses each page of the new set at least 1.2 times as "
          "often "
          "as 2.4.0, and looks at least at twice as many pages for a victim",
      .designs = kAllPolicies,
      .points = {10, 40, 160},
      .run = run_r3,
      .judge = judge_r3};
}

Experiment r6() {
  return {
      .id = "R6",
      .title = "CLOCK-Pro pays for its records",
      .question = "what is left of the gain when records of pages that are gone take memory?",
      .workload = "the eight strings of reference_strings.h, 60,000 references each, memory of 1,024 pages",
      .sweep = "bytes of a record",
      .metric = "page_ins",
      .prediction = "the gain over LRU shrinks when records are charged",
      .rule = "held: the gain falls from each size to the next; refuted: it never does",
      .designs = {"lru", "clock-pro"},
      .points = {0, 32, 128, 512, 2048},
      .run = run_r6,
      .judge = judge_r6};
}

}  // namespace

std::vector<Experiment> replacement_experiments() {
  return {r1(), r2(), r3(), r6()};
}

}  // namespace enchilada::lab
