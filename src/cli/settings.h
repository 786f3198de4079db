// --set MECHANISM=MODE: the modes that can be chosen when an engine is made.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace enchilada::cli {

/// Throws UserError when there is no such mechanism or mode.
void check_setting(const std::string& setting);
/// The mode of a mechanism: the last that the settings name (check_setting() has passed them), else the
/// default.
std::string_view chosen_mode(std::span<const std::string> settings, std::string_view mechanism);
/// The list that `--set help` prints.
std::string settings_help();

}  // namespace enchilada::cli
