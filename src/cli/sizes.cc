// Parser of sizes; exact in integers, so that 1.5G is 1.5 * 2^30 and nothing overflows silently.
#include "cli/sizes.h"

namespace enchilada::cli {
namespace {

/// Powers of 1024 of a suffix ("", "K", "k", "KB", "KiB", ...), or -1.
int power_of(std::string_view suffix) {
  if (suffix.empty() || suffix == "B" || suffix == "b") return 0;
  static constexpr std::string_view kLetters = "KMGTPE";
  const char letter = static_cast<char>(suffix[0] >= 'a' ? suffix[0] - 'a' + 'A' : suffix[0]);
  const std::size_t at = kLetters.find(letter);
  if (at == std::string_view::npos) return -1;
  const std::string_view rest = suffix.substr(1);
  const bool known = rest.empty() || rest == "B" || rest == "b" || rest == "iB" || rest == "ib";
  return known ? static_cast<int>(at) + 1 : -1;
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  using Wide = unsigned __int128;
  constexpr Wide kLimit = Wide{1} << 63;
  std::size_t i = 0;
  Wide whole = 0;
  Wide part = 0;   // digits behind the point
  Wide scale = 1;  // 10^their number
  bool digits = false;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, digits = true) {
    whole = whole * 10 + static_cast<Wide>(text[i] - '0');
    if (whole >= kLimit) return std::nullopt;
  }
  if (i < text.size() && text[i] == '.') {
    for (++i; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i, digits = true) {
      if (scale > 1'000'000'000) return std::nullopt;
      part = part * 10 + static_cast<Wide>(text[i] - '0');
      scale *= 10;
    }
  }
  const int power = power_of(text.substr(i));
  if (!digits || power < 0) return std::nullopt;
  const Wide unit = Wide{1} << (10 * power);
  const Wide bytes = whole * unit + part * unit / scale;
  if (bytes >= kLimit) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace enchilada::cli
