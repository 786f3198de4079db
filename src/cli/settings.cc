// Settings by name: the transport and the presets, which are this command's, and the engine's registry.
#include "cli/settings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "cli/user_error.h"

namespace enchilada::cli {
namespace {

constexpr std::array<std::string_view, 3> kTransportNames = {"auto", "move", "copy"};

std::optional<std::size_t> place_in(std::span<const std::string_view> names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) return std::nullopt;
  return static_cast<std::size_t>(found - names.begin());
}

[[noreturn]] void no_mode(std::string_view setting, std::string_view mechanism, std::string_view mode,
                          std::span<const std::string_view> modes) {
  throw UserError(fmt::format("--set {}: {} has no mode '{}' (modes: {})", setting, mechanism, mode,
                              fmt::join(modes, "|")));
}

/// One of this command's own settings. False: it is the engine's.
bool apply_own(Settings* all, std::string_view setting, std::string_view mechanism, std::string_view mode) {
  if (mechanism == "transport") {
    const auto place = place_in(kTransportNames, mode);
    if (!place) no_mode(setting, mechanism, mode, kTransportNames);
    all->transport = static_cast<TransportSetting>(*place);
    return true;
  }
  if (mechanism == "preset") {
    const auto place = place_in(kPresetNames, mode);
    if (!place) no_mode(setting, mechanism, mode, kPresetNames);
    all->modes = VmModes(static_cast<Preset>(*place)).on_live_machine();
    return true;
  }
  return false;
}

const Mechanism& mechanism_named(std::string_view setting, std::string_view name) {
  for (const Mechanism& m : kMechanisms) {
    if (m.name == name) return m;
  }
  throw UserError(fmt::format("--set {}: there is no mechanism '{}'; --set help lists them", setting, name));
}

void apply_setting(Settings* all, std::string_view setting) {
  const std::size_t equals = setting.find('=');
  if (equals == std::string_view::npos) {
    throw UserError(fmt::format("--set {}: expected MECHANISM=MODE; --set help lists them", setting));
  }
  const std::string_view name = setting.substr(0, equals);
  const std::string_view mode = setting.substr(equals + 1);
  if (apply_own(all, setting, name, mode)) return;
  const Mechanism& mechanism = mechanism_named(setting, name);
  if (mechanism.scope != ModeScope::kEveryMachine) {
    throw UserError(
        fmt::format("--set {}: {} is a mechanism of simulated machines only: a live process has "
                    "no page tables of its own and its frames no addresses",
                    setting, name));
  }
  if (all->modes.set_named(name, mode) != ModeVerdict::kOk) no_mode(setting, name, mode, mechanism.modes);
}

std::string help_line(std::string_view name, std::span<const std::string_view> modes, std::size_t standard,
                      std::string_view what) {
  std::string list;
  for (std::size_t i = 0; i < modes.size(); ++i) {
    list += fmt::format("{}{}{}", i == 0 ? "" : "|", modes[i], i == standard ? "*" : "");
  }
  return fmt::format("  {:<16} {:<32} {}\n", name, list, what);
}

}  // namespace

Settings parse_settings(std::span<const std::string> settings) {
  Settings all;
  for (const std::string& setting : settings) apply_setting(&all, setting);
  return all;
}

std::string settings_help() {
  std::string text =
      "Mechanisms and their modes (* is the default); a later setting overrides an earlier one:\n";
  text +=
      help_line("preset", kPresetNames, 0, "all mechanisms at once: our choice, the article's, FreeBSD 14's");
  text += help_line("transport", kTransportNames, 0, "how frames enter and leave the program's memory");
  for (const Mechanism& m : kMechanisms) {
    if (m.scope != ModeScope::kEveryMachine) continue;
    text += help_line(m.name, m.modes, m.presets[static_cast<std::size_t>(Preset::kHybrid)], m.what);
  }
  text += "Of simulated machines only (tests, benchmarks, laboratory):\n";
  for (const Mechanism& m : kMechanisms) {
    if (m.scope == ModeScope::kEveryMachine) continue;
    text += help_line(m.name, m.modes, m.presets[static_cast<std::size_t>(Preset::kHybrid)], m.what);
  }
  return text;
}

}  // namespace enchilada::cli
