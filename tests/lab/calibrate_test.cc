// Calibration: its figures are there, positive, and in the order that any machine has them. What they are
// depends on the machine and on what else it does, so nothing here knows how large they may be.
#include "lab/calibrate/calibrate.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "lab/calibrate/probes.h"
#include "support/sanitized.h"

namespace enchilada::lab {
namespace {

const Measurement* find(const std::vector<Measurement>& list, std::string_view constant) {
  for (const Measurement& one : list) {
    if (one.constant == constant) return &one;
  }
  return nullptr;
}

TEST(Calibrate, MeasuresEveryConstantOrSaysWhyNot) {
  if (test::kSanitized) GTEST_SKIP() << "a sanitizer's own loads would be measured";
  const auto list = calibrate(CostModel(), {});
  for (const Measurement& one : list) {
    EXPECT_TRUE(one.measured_ns.has_value() || !one.reason.empty()) << one.constant;
    if (one.measured_ns) {
      EXPECT_GT(*one.measured_ns, 0) << one.constant;
    }
  }
  for (const char* const constant : {"l1", "zero_page", "copy_page", "kernel lock", "... + zero_page"}) {
    ASSERT_NE(find(list, constant), nullptr) << constant;
    EXPECT_TRUE(find(list, constant)->measured_ns.has_value()) << constant;
  }
  EXPECT_NE(find(list, "memory"), nullptr);
  EXPECT_GT(find(list, "... + zero_page")->measured_ns, find(list, "kernel lock")->measured_ns);
  if (const auto fault = find(list, "fault_trap + major_fault + disk")->measured_ns) {
    EXPECT_GT(*fault, *find(list, "l1")->measured_ns);
  }
  const auto json = nlohmann::json::parse(calibration_json(list));
  EXPECT_EQ(json["calibration"].size(), list.size());
  EXPECT_DOUBLE_EQ(json["calibration"][0]["measured_ns"].get<double>(), *list[0].measured_ns);
  EXPECT_NE(calibration_text(list).find("\nmemory "), std::string::npos);
}

TEST(Calibrate, ALoadFromMemoryTakesLongerThanOneFromTheFirstCache) {
  if (test::kSanitized) GTEST_SKIP() << "a sanitizer's own loads would be measured";
  // The whole times, a hundredfold apart: what memory takes beyond the third cache drowns on a shared host.
  const auto cached = probe_load(cache_sizes().l1 / 2);
  const auto memory = probe_load(std::size_t{64} << 20);
  ASSERT_TRUE(cached && memory);
  EXPECT_GT(*memory, *cached);
}

TEST(Calibrate, AFolderThatCannotBeWrittenGivesAReasonAndNoFigure) {
  const DiskReads reads = probe_disk("/nonexistent");
  EXPECT_FALSE(reads.page || reads.sixteen || reads.major_fault);
}

}  // namespace
}  // namespace enchilada::lab
