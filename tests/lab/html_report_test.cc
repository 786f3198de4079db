// The page without a browser (report_test.mjs has one), and where curves cross.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "lab/experiments/crossover.h"
#include "lab/experiments/report.h"

namespace enchilada::lab {
namespace {

using Json = nlohmann::json;

/// Values of metric "x" for the designs, in the order of the points.
struct Curves {
  Experiment experiment;
  Table table;
};

Curves curves(std::vector<std::uint64_t> points, const std::vector<std::vector<double>>& values) {
  constexpr std::string_view kNames[] = {"a", "b", "c"};
  Curves made;
  made.experiment.id = "T1";
  made.experiment.points = points;
  for (std::size_t d = 0; d < values.size(); ++d) {
    made.experiment.designs.push_back(kNames[d]);
    for (std::size_t i = 0; i < points.size(); ++i) {
      made.table.set({"T1", kNames[d], points[i]}, {{"x", values[d][i]}});
    }
  }
  return made;
}

std::vector<Crossover> crossings(const Curves& made) {
  return crossovers(made.experiment, made.table, "x");
}

TEST(Crossover, LiesOnAStraightLineInALogLogPlot) {
  const auto found = crossings(curves({10, 1'000}, {{1, 100}, {10, 10}}));  // x/10 and 10
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].lower_before, "a");
  EXPECT_EQ(found[0].lower_after, "b");
  EXPECT_EQ(found[0].left, 10u);
  EXPECT_EQ(found[0].right, 1'000u);
  EXPECT_NEAR(found[0].at, 100, 1e-9);
}

TEST(Crossover, LiesOnAStraightLineWhereAValueIsZero) {
  const auto found = crossings(curves({0, 10}, {{0, 20}, {10, 10}}));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_NEAR(found[0].at, 5, 1e-9);
}

TEST(Crossover, CurvesThatTouchOrLieOnEachOtherDoNotCross) {
  EXPECT_TRUE(crossings(curves({1, 2, 3}, {{1, 5, 1}, {2, 5, 2}})).empty());
  EXPECT_TRUE(crossings(curves({1, 2}, {{100, 100.5}, {100.5, 100}})).empty());
  EXPECT_EQ(crossings(curves({1, 2, 3}, {{1, 5, 9}, {2, 5, 2}})).size(), 1u);
  EXPECT_EQ(crossings(curves({1, 2, 3}, {{1, 5, 1}, {2, 4, 2}})).size(), 2u);
}

TEST(Crossover, CasesAreNoCurves) {
  Curves made = curves({0, 1}, {{1, 3}, {2, 2}});
  made.experiment.point_names = {"one", "other"};
  EXPECT_TRUE(crossings(made).empty());
}

/// A report with one experiment of one cell, as small as the schema allows.
Json small_report() {
  return {{"schema", 1},
          {"experiments",
           {{{"id", "T1"},
             {"title", "A </title> & \"more\""},
             {"question", "?"},
             {"workload", "<script>alert(1)</script>"},
             {"sweep", "pages"},
             {"metric", "x"},
             {"prediction", "p"},
             {"rule", "r"},
             {"designs", {"a"}},
             {"points", {7}},
             {"point_names", Json::array()},
             {"forecasts", Json::array()},
             {"crossovers", Json::object()},
             {"command", "enchilada lab experiment T1"},
             {"verdict", "refuted"},
             {"measured", "m"},
             {"why", "w"},
             {"cells", {{{"design", "a"}, {"point", 7}, {"values", {{"x", 0.1}, {"y", nullptr}}}}}}}}}};
}

TEST(HtmlReport, TextNeverBecomesMarkup) {
  const std::string html = html_report(small_report().dump());
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_NE(html.find("&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
  EXPECT_NE(html.find("A &lt;/title&gt; &amp; &quot;more&quot;"), std::string::npos);
  const auto script = html.find("id=\"report\">") + 12;
  EXPECT_EQ(Json::parse(html.substr(script, html.find("</script>", script) - script)), small_report());
}

TEST(HtmlReport, HasEveryValueAsCsvAndAGapWhereThereIsNone) {
  EXPECT_NE(html_report(small_report().dump()).find(">design,point,x,y\na,7,0.1,\n<"), std::string::npos);
}

TEST(HtmlReport, SaysWhyAPredictionFailed) {
  EXPECT_NE(html_report(small_report().dump()).find("Why: w."), std::string::npos);
}

TEST(HtmlReport, OtherJsonIsRefusedInOneLine) {
  Json other = small_report();
  other["experiments"][0].erase("title");
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("{\"schema\":\"1\"}"), other.dump()}) {
    try {
      (void)html_report(text);
      ADD_FAILURE() << text;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("report of the laboratory"), std::string::npos) << text;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}

TEST(Experiments, ForecastsAreOfTheirOwnCellsAndRangesAreNotEmpty) {
  for (const Experiment& experiment : experiments()) {
    EXPECT_TRUE(experiment.point_names.empty() || experiment.point_names.size() == experiment.points.size());
    for (const Forecast& forecast : experiment.forecasts) {
      EXPECT_EQ(std::count(experiment.designs.begin(), experiment.designs.end(), forecast.design), 1)
          << experiment.id;
      EXPECT_EQ(std::count(experiment.points.begin(), experiment.points.end(), forecast.point), 1)
          << experiment.id;
      EXPECT_LE(forecast.low, forecast.high) << experiment.id;
    }
  }
}

}  // namespace
}  // namespace enchilada::lab
