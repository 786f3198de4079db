// Every policy against its naive twin on random traces, and against strings worked out by hand
// (src/lab/policies/README.md).
//
// ENCHILADA_SEED=n test_lab_policies --gtest_filter=Policies.SameHitsAndVictimsAsTheNaiveOnes replays one.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <random>
#include <string>

#include "lab/policies/clock_pro.h"
#include "lab/policies/freebsd_queues.h"
#include "lab/policies/linux24.h"
#include "lab/policies/linux26.h"
#include "lab/policies/mglru.h"
#include "lab/policies/opt.h"
#include "lab/policies/replay.h"
#include "naive_policies.h"

namespace enchilada::lab {
namespace {

struct Outcome {
  std::vector<bool> hits;
  naive::Recorder log;
};

template <ReplacementPolicy P>
Outcome play(const Trace& trace, const PolicyOptions& options) {
  P policy(trace, options);
  Outcome outcome;
  for (const Reference ref : trace.refs) outcome.hits.push_back(policy.touch(ref, outcome.log));
  return outcome;
}

struct Fast {
  std::string_view name;
  Outcome (*play)(const Trace& trace, const PolicyOptions& options);
};

constexpr Fast kFast[] = {
    {"opt", play<Opt>},
    {"lru", play<Lru>},
    {"clock", play<Clock>},
    {"fifo", play<Fifo>},
    {"random", play<Random>},
    {"freebsd", play<FreeBsdQueues>},
    {"linux-2.4.0", play<Linux240>},
    {"linux-2.4.10", play<Linux2410>},
    {"linux-2.6", play<Linux26<false>>},
    {"linux-refault", play<Linux26<true>>},
    {"mglru", play<Mglru>},
    {"clock-pro", play<ClockPro>},
};

Outcome play_naive(std::string_view name, const Trace& trace, const PolicyOptions& options) {
  const auto policy = naive::make(name, trace, options);
  Outcome outcome;
  for (const Reference ref : trace.refs) outcome.hits.push_back(policy->touch(ref));
  outcome.log = policy->log;
  return outcome;
}

Trace trace_of(std::initializer_list<std::uint32_t> pages) {
  Trace trace;
  for (const std::uint32_t page : pages) {
    trace.refs.emplace_back(page, false);
    trace.pages = std::max(trace.pages, page + 1);
  }
  return trace;
}

std::uint64_t misses(std::string_view policy, const Trace& trace, std::uint32_t frames) {
  return replay(policy, trace, {.frames = frames}).misses;
}

/// Stretches of loops, of a few pages, of jumps: what the policies treat differently.
Trace random_trace(std::uint32_t pages, std::size_t length, std::mt19937_64& random) {
  Trace trace{"", pages, {}};
  while (trace.refs.size() < length) {
    const std::uint64_t kind = random() % 3;
    const auto from = static_cast<std::uint32_t>(random() % pages);
    const auto span = static_cast<std::uint32_t>(1 + random() % pages);
    const std::uint64_t n = 1 + random() % (length / 4 + 1);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t at = kind == 0 ? i % span : kind == 1 ? random() % (1 + span / 4) : random() % span;
      trace.refs.emplace_back(static_cast<std::uint32_t>((from + at) % pages), random() % 4 == 0);
    }
  }
  return trace;
}

void compare(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const bool large = seed % 64 == 0;  // more than one cluster, thresholds apart
  const auto pages = static_cast<std::uint32_t>(1 + random() % (large ? 1500 : 60));
  const Trace trace = random_trace(pages, large ? 4000 : 250, random);
  const PolicyOptions options{.frames = static_cast<std::uint32_t>(1 + random() % (large ? 600 : 40)),
                              .seed = seed,
                              .record_bytes = static_cast<std::uint32_t>(random() % 2 * 512)};
  for (const Fast& fast : kFast) {
    if (large && fast.name == "opt") continue;  // its twin is cubic
    const Outcome got = fast.play(trace, options);
    const Outcome wanted = play_naive(fast.name, trace, options);
    const auto differs = std::mismatch(got.hits.begin(), got.hits.end(), wanted.hits.begin()).first;
    ASSERT_EQ(differs - got.hits.begin(), static_cast<std::ptrdiff_t>(got.hits.size())) << fast.name;
    ASSERT_TRUE(got.log.events == wanted.log.events) << fast.name;
    ASSERT_EQ(got.log.looks, wanted.log.looks) << fast.name;
  }
}

TEST(Policies, SameHitsAndVictimsAsTheNaiveOnes) {
  if (const char* const one = std::getenv("ENCHILADA_SEED")) return compare(std::strtoull(one, nullptr, 10));
#ifdef ENCHILADA_LOCK_RANKS  // debug and sanitizer builds
  constexpr std::uint64_t kSeeds = 50;
#else
  constexpr std::uint64_t kSeeds = 3000;
#endif
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    compare(seed);
    ASSERT_FALSE(HasFatalFailure()) << "replay with ENCHILADA_SEED=" << seed;
  }
}

TEST(Policies, TheRegistryHasEachOnceAndEachHasATwin) {
  ASSERT_EQ(std::size(kFast), policies().size());
  for (const Fast& fast : kFast) EXPECT_NE(find_policy(fast.name), nullptr) << fast.name;
  EXPECT_EQ(find_policy("pilru"), nullptr);
}

TEST(Policies, NeverMoreInMemoryThanThereAreFramesAndOptMissesLeast) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 50; ++round) {
    const Trace trace = random_trace(200, 2000, random);
    for (const std::uint32_t frames : {1u, 7u, 40u, 100u}) {
      const std::uint64_t least = misses("opt", trace, frames);
      for (const PolicyEntry& policy : policies()) {
        const ReplayResult got = policy.replay(trace, {.frames = frames}, nullptr);
        EXPECT_GE(got.misses, least) << policy.name << " " << frames;
        EXPECT_LE(got.misses - got.counts.evictions, frames) << policy.name;
        EXPECT_GE(got.misses, distinct_pages(trace)) << policy.name;
      }
    }
  }
}

/// The fewest misses that any choice of victims leads to.
std::uint64_t fewest(const Trace& trace, std::size_t at, std::uint32_t memory, int frames) {
  if (at == trace.refs.size()) return 0;
  const std::uint32_t bit = 1u << trace.refs[at].page();
  if ((memory & bit) != 0) return fewest(trace, at + 1, memory, frames);
  if (std::popcount(memory) < frames) return 1 + fewest(trace, at + 1, memory | bit, frames);
  std::uint64_t best = ~std::uint64_t{0};
  for (std::uint32_t left = memory; left != 0; left &= left - 1) {
    best = std::min(best, 1 + fewest(trace, at + 1, (memory & ~(left & -left)) | bit, frames));
  }
  return best;
}

TEST(Opt, MissesAsFewAsAnyChoiceOfVictims) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 2000; ++round) {
    Trace trace{"", 5, {}};
    for (int i = 0; i < 11; ++i) trace.refs.emplace_back(static_cast<std::uint32_t>(random() % 5), false);
    for (const std::uint32_t frames : {1u, 2u, 3u}) {
      ASSERT_EQ(misses("opt", trace, frames), fewest(trace, 0, 0, static_cast<int>(frames))) << round;
    }
  }
}

TEST(Fifo, BeladysAnomaly) {
  const Trace trace = trace_of({1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5});
  EXPECT_EQ(misses("fifo", trace, 3), 9u);
  EXPECT_EQ(misses("fifo", trace, 4), 10u);
  EXPECT_EQ(misses("lru", trace, 3), 10u);
  EXPECT_EQ(misses("lru", trace, 4), 8u);
  EXPECT_EQ(misses("opt", trace, 3), 7u);
}

/// The textbook's other string.
TEST(Policies, SilberschatzsString) {
  const Trace trace = trace_of({7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1});
  EXPECT_EQ(misses("fifo", trace, 3), 15u);
  EXPECT_EQ(misses("lru", trace, 3), 12u);
  EXPECT_EQ(misses("opt", trace, 3), 9u);
}

std::vector<std::uint32_t> victims(const Outcome& outcome) {
  std::vector<std::uint32_t> pages;
  for (const naive::Event& event : outcome.log.events) {
    if (event.what == 'e') pages.push_back(event.page);
  }
  return pages;
}

TEST(Clock, SparesAPageThatWasUsedOnce) {
  const Outcome outcome = play<Clock>(trace_of({0, 1, 2, 0, 3, 4, 5}), {.frames = 3});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{1, 2, 0}));
}

/// README, "By hand": a page saturates at 64 and leaves 64 idle scans later; one that came once at 9 leaves
/// after 9.
TEST(FreeBsd, ACountFallsByOneAScan) {
  // Two frames, wakeup and target 1. Each miss lets the daemon age until one of them goes: page 0, new, has 9
  // after the first look and goes at the 10th.
  const Outcome outcome = play<FreeBsdQueues>(trace_of({0, 1, 2}), {.frames = 2});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{0}));
  EXPECT_EQ(outcome.log.looks, 19u);  // ten of page 0, nine of page 1
}

TEST(FreeBsd, ACachedPageIsReactivatedWithoutIo) {
  const Outcome outcome = play<FreeBsdQueues>(trace_of({0, 1, 2, 1, 0}), {.frames = 2});
  EXPECT_EQ(outcome.hits, (std::vector<bool>{false, false, false, true, false}));
}

TEST(FreeBsd, ADirtyPageIsWrittenBeforeItIsCached) {
  Trace trace = trace_of({0, 1, 2});
  trace.refs[0] = Reference(0, true);
  const Outcome outcome = play<FreeBsdQueues>(trace, {.frames = 2});
  const std::vector<naive::Event> wanted{{'w', 0}, {'e', 0}};
  EXPECT_TRUE(outcome.log.events == wanted);
  // Nine looks of page 1, ten of page 0 while active; as inactive once to be written, once to be cached.
  EXPECT_EQ(outcome.log.looks, 21u);
}

TEST(Linux240, AgesUpByTheWalkAndHalvesByTheScan) {
  const Outcome outcome = play<Linux240>(trace_of({0, 1}), {.frames = 1});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{0}));
  EXPECT_EQ(outcome.log.looks, 10u);
}

TEST(Linux2410, TheWalkTakesMappingsAndTheScanPassesMappedPagesOver) {
  const Outcome outcome = play<Linux2410>(trace_of({0, 1, 2}), {.frames = 2});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(outcome.log.looks, 9u);
}

TEST(Linux26, APageThatWasUsedSinceItsLastScanStays) {
  // Three frames; 0, 1, 2 come active and young. Scans: all are rotated, then found idle and made inactive; 0
  // is the first to go.
  const Outcome outcome = play<Linux26<false>>(trace_of({0, 1, 2, 3}), {.frames = 3});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{0}));
}

TEST(Mglru, ANewPageOutlivesAnIdleOneOfAnOlderGeneration) {
  const Outcome outcome = play<Mglru>(trace_of({0, 1, 2, 2, 3, 2, 4}), {.frames = 3});
  EXPECT_EQ(outcome.hits, (std::vector<bool>{false, false, false, true, false, true, false}));
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{0, 1}));
  const Outcome shorter = play<Mglru>(trace_of({0, 1, 2, 2, 3}), {.frames = 3});
  EXPECT_EQ(shorter.log.looks, 7u);  // two walks over three pages, and page 0
}

TEST(ClockPro, APageThatComesBackInItsTestIsHot) {
  const Outcome outcome = play<ClockPro>(trace_of({0, 1, 2, 0, 3, 4, 5, 0}), {.frames = 2});
  EXPECT_EQ(victims(outcome), (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
  EXPECT_TRUE(outcome.hits.back());
}

TEST(ClockPro, KeepsMostOfALoopThatIsLargerThanMemory) {
  Trace trace{"", 105, {}};
  for (std::uint32_t i = 0; i < 105 * 100; ++i) trace.refs.emplace_back(i % 105, false);
  EXPECT_EQ(misses("lru", trace, 100), trace.refs.size());
  EXPECT_LT(misses("clock-pro", trace, 100), trace.refs.size() / 4);
}

/// Charged 4,096 bytes, a record takes a frame.
TEST(ClockPro, RecordsThatAreChargedTakeFrames) {
  Trace trace{"", 8, {}};
  for (std::uint32_t i = 0; i < 800; ++i) trace.refs.emplace_back(i % 8, false);
  const ReplayResult free = replay("clock-pro", trace, {.frames = 6});
  const ReplayResult charged = replay("clock-pro", trace, {.frames = 6, .record_bytes = 4096});
  EXPECT_LT(free.misses, charged.misses);
}

TEST(Replay, TheLogSaysWhichReferencesMissed) {
  MissLog log;
  const ReplayResult result = replay("lru", trace_of({0, 1, 0, 2, 1}), {.frames = 2}, &log);
  EXPECT_EQ(log, (MissLog{true, true, false, true, true}));
  EXPECT_EQ(result.misses, 4u);
  EXPECT_EQ(result.counts.evictions, 2u);
}

}  // namespace
}  // namespace enchilada::lab
