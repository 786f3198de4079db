// The article's experiment (section 5): run ls(1) again and again. The first run pages in; the next ones take
// soft faults only, and with what is in memory mapped beforehand only the zero-fill and copy-on-write faults
// are left, "always a certain number". Exact counts.
#include "machine/program_image.h"

#include <gtest/gtest.h>

#include <array>

namespace enchilada {
namespace {

struct LsRun {
  std::uint64_t faults = 0;
  std::uint64_t page_ins = 0;
  std::uint64_t soft = 0;
  std::uint64_t zero_fills = 0;
  std::uint64_t copies = 0;
  std::uint64_t at_map = 0;
  std::uint64_t precopied = 0;
};

/// Three runs, one after the other, in one engine.
std::array<LsRun, 3> three_runs(const VmModes& modes) {
  SoftEngine engine({.machine = {.memory = {.frames = PageCount{2048}}},
                     .tunables = {.zero_fill_cluster = PageCount{1}},
                     .modes = modes});
  ProgramImage ls(engine, {});
  const VmCounters& c = engine.machine().counters();
  std::array<LsRun, 3> runs;
  for (LsRun& r : runs) {
    const auto now = [&c] {
      return LsRun{c.vm_faults.load(),  c.io_faults.load(),         c.soft_faults.load(), c.zfod.load(),
                   c.cow_faults.load(), c.prefaulted_at_map.load(), c.precopied.load()};
    };
    const LsRun before = now();
    auto process = ls.exec();
    EXPECT_NE(process, nullptr);
    EXPECT_TRUE(process->run());
    const LsRun after = now();
    r = {after.faults - before.faults,         after.page_ins - before.page_ins, after.soft - before.soft,
         after.zero_fills - before.zero_fills, after.copies - before.copies,     after.at_map - before.at_map,
         after.precopied - before.precopied};
  }
  return runs;
}

// What a run of the default layout touches: text 20 + 2 x 30; file data 3 + 2 x 2; zero-fill 3 + 8 + 2.
constexpr std::uint64_t kText = 80;
constexpr std::uint64_t kData = 7;
constexpr std::uint64_t kZero = 13;

TEST(LsRunAgain, WithoutPrefaultTheSecondRunTakesASoftFaultForEachPageOfText) {
  const auto runs =
      three_runs(VmModes().set(PrefaultMode::kOff).set(ReadAheadMode::kOff).set(PreCopyMode::kOff));
  EXPECT_EQ(runs[0].page_ins, kText + kData);
  EXPECT_EQ(runs[0].soft, 0u);
  for (const LsRun& again : {runs[1], runs[2]}) {
    EXPECT_EQ(again.page_ins, 0u);
    EXPECT_EQ(again.soft, kText);
    EXPECT_EQ(again.copies, kData);
    EXPECT_EQ(again.zero_fills, kZero);
    EXPECT_EQ(again.faults, kText + kData + kZero);
  }
}

TEST(LsRunAgain, MappedBeforehandOnlyZeroFillAndCopyFaultsAreLeft) {
  const auto runs =
      three_runs(VmModes().set(PrefaultMode::kMapAndFault).set(ReadAheadMode::kOff).set(PreCopyMode::kOff));
  EXPECT_EQ(runs[0].page_ins, kText + kData);
  for (const LsRun& again : {runs[1], runs[2]}) {
    EXPECT_EQ(again.page_ins, 0u);
    EXPECT_EQ(again.at_map, kText + kData);
    EXPECT_EQ(again.soft, 0u);
    EXPECT_EQ(again.faults, kData + kZero);
  }
}

TEST(LsRunAgain, AtFaultTimeTheSpiralSavesMostOfTheSoftFaults) {
  const auto runs =
      three_runs(VmModes().set(PrefaultMode::kFault).set(ReadAheadMode::kOff).set(PreCopyMode::kOff));
  EXPECT_EQ(runs[1].page_ins, 0u);
  EXPECT_EQ(runs[1].soft, 20 / 5 + 2 * 30 / 5u);  // each fault maps its page and four on
  EXPECT_EQ(runs[1].faults, runs[1].soft + kData + kZero);
}

TEST(LsRunAgain, PreCopyTakesTheDataFaultsAndTheFirstZeroFillsToo) {
  const auto runs =
      three_runs(VmModes().set(PrefaultMode::kMapAndFault).set(ReadAheadMode::kOff).set(PreCopyMode::kExec));
  EXPECT_EQ(runs[0].precopied, 3u);  // nothing is known of the data yet
  EXPECT_EQ(runs[0].zero_fills, kZero - 3);
  for (const LsRun& again : {runs[1], runs[2]}) {
    EXPECT_EQ(again.copies + again.precopied, kData + 3);
    EXPECT_LE(again.copies, 3u);  // the probes: one page in eight, of three files
    EXPECT_EQ(again.faults, again.copies + kZero - 3);
  }
}

}  // namespace
}  // namespace enchilada
