// CleanRule: what becomes of clean, unmapped pages that nobody uses: free now, or on the cache queue, where a
// fault still finds them. Invariant: stateless.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "vm/vm_modes.h"

namespace enchilada {

/// Of n pages, how many to free when `wanted` frames are missing; the others wait on the cache queue.
using CleanRule = std::size_t (*)(std::size_t n, std::uint64_t wanted);

[[nodiscard]] constexpr CleanRule clean_rule(CacheQueueMode mode) {
  switch (mode) {
    case CacheQueueMode::kSurplus:
      return [](std::size_t n, std::uint64_t wanted) {
        return static_cast<std::size_t>(std::min<std::uint64_t>(n, wanted));
      };
    case CacheQueueMode::kOn:
      return [](std::size_t, std::uint64_t) { return std::size_t{0}; };
    case CacheQueueMode::kOff:
      return [](std::size_t n, std::uint64_t) { return n; };
  }
  return nullptr;
}

}  // namespace enchilada
