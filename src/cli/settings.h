// --set MECHANISM=MODE: the modes that can be chosen when an engine is made.
#pragma once

#include <span>
#include <string>

#include "vm/vm_modes.h"

namespace enchilada::cli {

/// How frames enter and leave the program's memory (--set transport=...). kAuto: what the kernel offers.
enum class TransportSetting : std::uint8_t { kAuto, kMove, kCopy };

/// What all --set options together say.
struct Settings {
  TransportSetting transport = TransportSetting::kAuto;
  VmModes modes;
};

/// Reads settings in order, so that a later one overrides an earlier one, a preset too. Throws UserError for
/// one that is no MECHANISM=MODE, that does not exist, or that no live machine obeys.
[[nodiscard]] Settings parse_settings(std::span<const std::string> settings);
/// The list that `--set help` prints.
[[nodiscard]] std::string settings_help();

}  // namespace enchilada::cli
