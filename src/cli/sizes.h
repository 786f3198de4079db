// Sizes as people write them: 64K 128M 4G 1T 1.5G, plain bytes, and KiB/MiB/... spelled out.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace enchilada::cli {

/// Bytes, or nothing when the text is no size or does not fit 63 bits. Zero is a size; callers refuse it.
std::optional<std::uint64_t> parse_size(std::string_view text);

}  // namespace enchilada::cli
