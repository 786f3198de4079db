// --set MECHANISM=MODE: the modes that can be chosen when an engine is made.
#pragma once

#include <string>

namespace enchilada::cli {

/// Throws UserError when there is no such mechanism or mode.
void check_setting(const std::string& setting);
/// The list that `--set help` prints.
std::string settings_help();

}  // namespace enchilada::cli
