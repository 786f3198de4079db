// The texts that a report's page is made of: src/lab/web, and uPlot. The build defines them
// (cmake/web.cmake). Invariant: those of uPlot are empty where npm could not fetch it.
#pragma once

#include <string_view>

namespace enchilada::lab::web {

extern const std::string_view kReportCss;
extern const std::string_view kReportJs;
extern const std::string_view kChartJs;
extern const std::string_view kUplotJs;
extern const std::string_view kUplotCss;
extern const std::string_view kUplotLicense;

}  // namespace enchilada::lab::web
