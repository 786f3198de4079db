// VmModes: which form of each mechanism an engine has. The one registry of mechanisms and their modes.
//
// A mechanism is an enum class and its ModeOf<> below: name, the modes' names, the modes that the presets
// choose, one line of help. A mode is a class behind a seam, made when the VmSystem is made; algorithms never
// ask for modes. Adding one: an enum, its ModeOf, its place in AllModes; `--set`, the presets, tests that
// walk all modes and the ablation follow from that.
//
// Invariant: VmModes is plain data, each value one of its mechanism's; it lies in shared segments, so the
// launcher and the processes of one tree (which are of one build) agree on it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

namespace enchilada {

/// Whole sets of modes. kArticle: "Design elements of the FreeBSD VM system" (2000). kModern: FreeBSD 14.
/// kHybrid, the default: what is best here, most of it the article's queues with today's algorithms.
enum class Preset : std::uint8_t { kHybrid, kArticle, kModern };
inline constexpr std::array<std::string_view, 3> kPresetNames = {"hybrid", "article", "modern"};

/// Who obeys a mechanism.
enum class ModeScope : std::uint8_t {
  kEveryMachine,    // the engine itself: also `enchilada run`
  kSoftMachineOnly  // page tables, frames with addresses: simulated machines
};

/// How free blocks of swap are found (docs/mechanisms/swap-allocators.md).
enum class SwapAllocatorMode : std::uint8_t {
  kBlist,      // today's: hints, runs across leaves, a cursor
  kBlist1999,  // the article's, as it was in FreeBSD 4.0
  kList3x,     // what that replaced: FreeBSD 3.x's linear list of holes
};

/// What the registry knows of one mechanism. A mode's index in `modes` is its enumerator's value; the first
/// is not necessarily the default.
struct Mechanism {
  std::string_view name;
  std::span<const std::string_view> modes;
  std::string_view what;
  ModeScope scope = ModeScope::kEveryMachine;
  std::array<std::uint8_t, kPresetNames.size()> presets{};  // by Preset
};

/// Specialised for every mechanism's enum: kNames, and the modes kHybrid, kArticle, kModern.
template <class Mode>
struct ModeOf;

template <>
struct ModeOf<SwapAllocatorMode> {
  static constexpr std::string_view kName = "swap_allocator";
  static constexpr std::array<std::string_view, 3> kNames = {"blist", "blist-1999", "list-3x"};
  static constexpr std::string_view kWhat = "how free swap blocks are found: today's, the article's, 3.x's";
  static constexpr ModeScope kScope = ModeScope::kEveryMachine;
  static constexpr auto kHybrid = SwapAllocatorMode::kBlist;
  static constexpr auto kArticle = SwapAllocatorMode::kBlist1999;
  static constexpr auto kModern = SwapAllocatorMode::kBlist;
};

template <class... Modes>
struct ModeList {
  static constexpr std::size_t kCount = sizeof...(Modes);

  template <class Mode>
  static constexpr std::size_t index_of() {
    static_assert((std::is_same_v<Mode, Modes> || ...), "this mechanism is not in AllModes");
    std::size_t at = 0;
    (void)((std::is_same_v<Mode, Modes> ? true : (++at, false)) || ...);
    return at;
  }
  template <class Mode>
  static constexpr Mechanism mechanism_of() {
    using M = ModeOf<Mode>;
    return {M::kName,
            M::kNames,
            M::kWhat,
            M::kScope,
            {static_cast<std::uint8_t>(M::kHybrid), static_cast<std::uint8_t>(M::kArticle),
             static_cast<std::uint8_t>(M::kModern)}};
  }
  static constexpr std::array<Mechanism, kCount> kMechanisms = {mechanism_of<Modes>()...};
};

/// Every mechanism, in the order of the article's sections where it has one.
using AllModes = ModeList<SwapAllocatorMode>;

/// All mechanisms; VmModes numbers them by their place here.
inline constexpr std::span<const Mechanism> kMechanisms = AllModes::kMechanisms;

enum class ModeVerdict : std::uint8_t { kOk, kNoMechanism, kNoMode };

class VmModes {
 public:
  constexpr VmModes() : VmModes(Preset::kHybrid) {}
  constexpr explicit VmModes(Preset preset) {
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      chosen_[i] = kMechanisms[i].presets[static_cast<std::size_t>(preset)];
    }
  }

  template <class Mode>
  [[nodiscard]] constexpr Mode get() const {
    return static_cast<Mode>(chosen_[AllModes::index_of<Mode>()]);
  }
  template <class Mode>
  constexpr VmModes& set(Mode mode) {
    chosen_[AllModes::index_of<Mode>()] = static_cast<std::uint8_t>(mode);
    return *this;
  }

  /// By names, as after --set. Nothing changes unless kOk.
  [[nodiscard]] ModeVerdict set_named(std::string_view mechanism, std::string_view mode);

  /// By numbers, for whoever walks the registry: mechanism < kMechanisms.size(), mode < its modes.size().
  [[nodiscard]] std::uint8_t number(std::size_t mechanism) const { return chosen_[mechanism]; }
  void set_number(std::size_t mechanism, std::uint8_t mode);

  friend constexpr bool operator==(const VmModes&, const VmModes&) = default;

 private:
  std::array<std::uint8_t, AllModes::kCount> chosen_{};
};
static_assert(std::is_trivially_copyable_v<VmModes>);

/// The name of a mode, as in --set.
template <class Mode>
requires requires {
  ModeOf<Mode>::kNames;
}
[[nodiscard]] constexpr std::string_view name_of(Mode mode) {
  return ModeOf<Mode>::kNames[static_cast<std::size_t>(mode)];
}

}  // namespace enchilada
