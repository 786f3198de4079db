// Is this a build under a sanitizer? There random tests run a tenth of their rounds: what the sanitizer looks
// for shows in few, and each takes ten times as long.
#pragma once

#include <cstdint>

// A macro, because one test leaves out its own operator new by it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ENCHILADA_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ENCHILADA_SANITIZED 1
#endif
#endif
#ifndef ENCHILADA_SANITIZED
#define ENCHILADA_SANITIZED 0
#endif

namespace enchilada::test {

inline constexpr bool kSanitized = ENCHILADA_SANITIZED != 0;

constexpr std::uint64_t usual_rounds(std::uint64_t rounds) {
  return kSanitized ? rounds / 10 + 1 : rounds;
}

}  // namespace enchilada::test
