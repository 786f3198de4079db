// SwapAllocatorMode: which of the allocators of swap blocks a swap space uses (--set swap_allocator=NAME).
// Plain data: it lies in shared segments, so numbers keep their meaning.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace enchilada {

enum class SwapAllocatorMode : std::uint32_t {
  kBlist,      // today's: hints, runs across leaves, a cursor
  kBlist1999,  // the article's, as it was in FreeBSD 4.0
  kList3x,     // what that replaced: FreeBSD 3.x's linear list of holes
};

inline constexpr std::array<std::string_view, 3> kSwapAllocatorNames = {"blist", "blist-1999", "list-3x"};

[[nodiscard]] constexpr std::string_view name_of(SwapAllocatorMode mode) {
  return kSwapAllocatorNames[static_cast<std::size_t>(mode)];
}

[[nodiscard]] constexpr std::optional<SwapAllocatorMode> swap_allocator_named(std::string_view name) {
  for (std::size_t i = 0; i < kSwapAllocatorNames.size(); ++i) {
    if (kSwapAllocatorNames[i] == name) return static_cast<SwapAllocatorMode>(i);
  }
  return std::nullopt;
}

}  // namespace enchilada
