// Checks: CHECK stays in every build (corruption must stop the machine), DCHECK in debug builds.
// Invariant: the failure path allocates nothing and takes no lock, so it works inside a signal handler.
#pragma once

#include <cstdint>

namespace enchilada {

/// Writes "file:line: what [a, b]" to standard error with one write and aborts. Async-signal-safe.
[[noreturn]] void check_failed(const char* file, int line, const char* what, std::uint64_t a = 0,
                               std::uint64_t b = 0) noexcept;

/// Called by check_failed before aborting, e.g. to restore default signal actions. May be null.
void set_check_hook(void (*hook)()) noexcept;

}  // namespace enchilada

// Macros, because the condition's text and place belong in the message.
#define ENCHILADA_CHECK(cond, ...) \
  (__builtin_expect(!!(cond), 1)   \
       ? (void)0                   \
       : ::enchilada::check_failed(__FILE__, __LINE__, #cond __VA_OPT__(, ) __VA_ARGS__))
#ifdef NDEBUG
#define ENCHILADA_DCHECK(cond, ...) ((void)sizeof(!(cond)))
#else
#define ENCHILADA_DCHECK(cond, ...) ENCHILADA_CHECK(cond, __VA_ARGS__)
#endif
#define CHECK(...) ENCHILADA_CHECK(__VA_ARGS__)
#define DCHECK(...) ENCHILADA_DCHECK(__VA_ARGS__)
