// The summary: units, sums over processes, percentiles, and JSON that says the same as the text.
#include "observe/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>

namespace enchilada {
namespace {

using ::testing::HasSubstr;

TEST(RunReport, HumanUnits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(64 << 10), "64 KiB");
  EXPECT_EQ(human_bytes(3 << 19), "1.5 MiB");
  EXPECT_EQ(human_bytes(std::uint64_t{123} << 30), "123 GiB");
  EXPECT_EQ(human_time(999), "999 ns");
  EXPECT_EQ(human_time(1300), "1.3 us");
  EXPECT_EQ(human_time(140'000), "140 us");
  EXPECT_EQ(human_time(2'300'000), "2.3 ms");
  EXPECT_EQ(human_time(12'000'000'000), "12.0 s");
  EXPECT_EQ(human_count(0), "0");
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1000), "1,000");
  EXPECT_EQ(human_count(1234567), "1,234,567");
}

TEST(RunReport, SumsOfCountersAndLevels) {
  const auto a = std::make_unique<VmCounters>();
  const auto b = std::make_unique<VmCounters>();
  a->zfod.store(3);
  b->zfod.store(4);
  a->peak_resident.store(30);
  b->peak_resident.store(40);
  a->metadata_bytes.store(100);
  b->metadata_bytes.store(200);
  CounterTotals totals;
  totals.add(*a);
  totals.add(*b);
  EXPECT_EQ(totals.get(&VmCounters::zfod), 7u);
  EXPECT_EQ(totals.get(&VmCounters::peak_resident), 40u);
  EXPECT_EQ(totals.get(&VmCounters::metadata_bytes), 300u);
}

TEST(RunReport, PercentilesComeFromTheHistogram) {
  const auto c = std::make_unique<VmCounters>();
  for (int i = 0; i < 990; ++i) c->fault_time.add(1000);
  for (int i = 0; i < 10; ++i) c->fault_time.add(1'000'000);
  CounterTotals totals;
  totals.add(*c);
  EXPECT_EQ(totals.timed_faults(), 1000u);
  EXPECT_GE(totals.percentile(0.5), 1000u);
  EXPECT_LE(totals.percentile(0.5), 1300u);
  EXPECT_LE(totals.percentile(0.99), 1300u);
  EXPECT_EQ(totals.percentile(0.999), 1'000'000u);
  EXPECT_EQ(CounterTotals().percentile(0.99), 0u);
}

TEST(RunReport, TextAndJsonSayTheSame) {
  RunReport report;
  report.program = "so\"rt";
  report.exit_status = 3;
  report.processes = 2;
  report.unmanaged = 3;
  report.unmanaged_first = "/bin/static (statically linked)";
  report.ram_bytes = 64 << 20;
  report.peak_resident_bytes = 32 << 20;
  report.swap_peak_bytes = 96 << 20;
  report.segment_bytes = 1 << 20;
  report.swap_allocator = "list-3x";
  report.swap_nodeless = 1234;
  report.swap_lost_bytes = 40960;
  const auto c = std::make_unique<VmCounters>();
  c->vm_faults.store(4321);
  c->swappgsin.store(64);
  c->swapin.store(8);
  report.counters.add(*c);
  const std::string text = summary_text(report);
  EXPECT_THAT(text, HasSubstr("so\"rt ended with status 3"));
  EXPECT_THAT(text, HasSubstr("4,321"));
  EXPECT_THAT(text, HasSubstr("64 pages in 8 reads (8.0 pages each)"));
  EXPECT_THAT(text, HasSubstr("peak 32 MiB (8,192 pages) of --ram 64 MiB"));
  EXPECT_THAT(text, HasSubstr("1,234 frees and cuts found no node in list-3x"));
  const auto json = nlohmann::json::parse(summary_json(report));
  EXPECT_EQ(json["swap"]["allocator"], "list-3x");
  EXPECT_EQ(json["swap"]["lost_bytes"], 40960);
  EXPECT_EQ(json["program"], "so\"rt");
  EXPECT_EQ(json["processes"]["unmanaged"], 3);
  EXPECT_EQ(json["processes"]["unmanaged_first"], "/bin/static (statically linked)");
  EXPECT_EQ(json["counters"]["vm_faults"], 4321);
  EXPECT_EQ(json["counters"].size(), kCounterInfoCount);
  EXPECT_EQ(json["ram"]["peak_bytes"], 32 << 20);
  EXPECT_EQ(json["own"]["managed_bytes"], 128 << 20);
  EXPECT_NEAR(json["own"]["percent"].get<double>(), 100.0 / 128, 1e-9);
}

TEST(RunReport, ProgramNamesThatAreNotUtf8StayJson) {
  RunReport report;
  report.program = "a\xff\xfe";
  EXPECT_TRUE(nlohmann::json::accept(summary_json(report)));
}

}  // namespace
}  // namespace enchilada
