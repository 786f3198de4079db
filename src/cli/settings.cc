// The table of mechanisms and modes.
#include "cli/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "cli/user_error.h"
#include "swap/swap_allocator_mode.h"

namespace enchilada::cli {
namespace {

struct Setting {
  std::string_view mechanism;
  std::string_view modes;  // separated by '|'; the first is the default
  std::string_view what;
};

constexpr Setting kSettings[] = {
    {"transport", "auto|move|copy", "how frames enter and leave the program's memory"},
    {"swap_allocator", "blist|blist-1999|list-3x",
     "how free swap blocks are found: today's, the article's, 3.x's"},
};

constexpr bool has_mode(std::string_view modes, std::string_view mode) {
  for (std::size_t at = 0; at <= modes.size();) {
    const std::size_t end = std::min(modes.find('|', at), modes.size());
    if (!mode.empty() && modes.substr(at, end - at) == mode) return true;
    at = end + 1;
  }
  return false;
}

constexpr std::string_view modes_of(std::string_view mechanism) {
  for (const Setting& s : kSettings) {
    if (s.mechanism == mechanism) return s.modes;
  }
  return {};
}

static_assert(
    [] {
      for (const std::string_view name : kSwapAllocatorNames) {
        if (!has_mode(modes_of("swap_allocator"), name)) return false;
      }
      return true;
    }(),
    "the table names every allocator");

}  // namespace

void check_setting(const std::string& setting) {
  const std::size_t equals = setting.find('=');
  if (equals == std::string::npos) {
    throw UserError(fmt::format("--set {}: expected MECHANISM=MODE; --set help lists them", setting));
  }
  const std::string mechanism = setting.substr(0, equals);
  const std::string mode = setting.substr(equals + 1);
  for (const Setting& s : kSettings) {
    if (s.mechanism != mechanism) continue;
    if (has_mode(s.modes, mode)) return;
    throw UserError(
        fmt::format("--set {}: {} has no mode '{}' (modes: {})", setting, mechanism, mode, s.modes));
  }
  throw UserError(
      fmt::format("--set {}: there is no mechanism '{}'; --set help lists them", setting, mechanism));
}

std::string_view chosen_mode(std::span<const std::string> settings, std::string_view mechanism) {
  const std::string_view modes = modes_of(mechanism);
  std::string_view mode = modes.substr(0, modes.find('|'));
  for (const std::string_view setting : settings) {
    const std::size_t equals = setting.find('=');
    if (setting.substr(0, equals) == mechanism) mode = setting.substr(equals + 1);
  }
  return mode;
}

std::string settings_help() {
  std::string text = "Mechanisms and their modes (the first is the default):\n";
  for (const Setting& s : kSettings)
    text += fmt::format("  {:<16} {:<26} {}\n", s.mechanism, s.modes, s.what);
  return text;
}

}  // namespace enchilada::cli
