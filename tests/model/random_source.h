// The choices of the model tests: random numbers from a seed, or a script that a fuzzer wrote. Invariant: the
// seed, or the script, decides everything that a run does.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <span>

#include "support/sanitized.h"

namespace enchilada::model {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  /// Choices are read off the script, in as few bytes each as can tell them apart; zeros after its end.
  explicit Random(std::span<const std::uint8_t> script) : script_(script), scripted_(true) {}

  std::uint64_t bits() { return scripted_ ? read(~std::uint64_t{0}) : mix(); }
  /// 0 .. n-1
  std::uint64_t below(std::uint64_t n) { return (scripted_ ? read(n - 1) : mix()) % n; }
  /// from .. to
  std::uint64_t between(std::uint64_t from, std::uint64_t to) { return from + below(to - from + 1); }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  /// There is a script, and it has been read to its end.
  [[nodiscard]] bool exhausted() const { return scripted_ && script_.empty(); }

 private:
  /// splitmix64: small, fast, and the same everywhere.
  std::uint64_t mix() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t read(std::uint64_t most) {
    std::uint64_t value = 0;
    for (; most > 0 && !script_.empty(); most >>= 8) {
      value = value << 8 | script_.front();
      script_ = script_.subspan(1);
    }
    return value;
  }

  std::uint64_t state_ = 0;
  std::span<const std::uint8_t> script_;
  bool scripted_ = false;
};

/// ENCHILADA_SEED: replay this one seed.
inline std::optional<std::uint64_t> replayed_seed() {
  const char* const text = std::getenv("ENCHILADA_SEED");
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 0);
}

/// ENCHILADA_FIRST: the first of the seeds.
inline std::uint64_t first_seed() {
  const char* const text = std::getenv("ENCHILADA_FIRST");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 0);
}

/// ENCHILADA_SEEDS: how many; else `usual`, or a tenth of it where a sanitizer slows everything down.
inline std::uint64_t seed_count(std::uint64_t usual) {
  if (const char* const text = std::getenv("ENCHILADA_SEEDS")) return std::strtoull(text, nullptr, 0);
  return test::usual_rounds(usual);
}

}  // namespace enchilada::model
