// What the examples share and what is not their subject: options, errors, random numbers, a clock.
#pragma once

#include <enchilada/enchilada.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

namespace example {

/// One line on standard error, and the end. Status 2: the command line was wrong.
[[noreturn]] inline void fail(const std::string& what, int status = 1) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  std::exit(status);
}

[[noreturn]] inline void fail_errno(const std::string& what) {
  fail(what + ": " + std::strerror(errno));
}

/// The value, or the library's own words and the end.
template <class T>
T must(enchilada::Expected<T> result) {
  if (!result) fail(result.error().message);
  return std::move(result).value();
}

/// `--name value` pairs; what nobody asked for is refused by done().
class Options {
 public:
  Options(int argc, char** argv, int from) : argc_(argc), argv_(argv), from_(from) {}

  /// "64M": a number with K, M or G.
  std::uint64_t size(const char* name, std::uint64_t otherwise) {
    const char* const text = find(name);
    if (text == nullptr) return otherwise;
    char* end = nullptr;
    errno = 0;
    std::uint64_t value = std::strtoull(text, &end, 10);
    if (*end != '\0') {
      const char* const unit = std::strchr("KMG", *end);
      if (unit == nullptr || end[1] != '\0') end = const_cast<char*>(text);
      for (int k = unit == nullptr ? 0 : *unit == 'K' ? 1 : *unit == 'M' ? 2 : 3; k > 0; --k) value <<= 10;
    }
    if (end == text || errno != 0 || value == 0 || value > (std::uint64_t{1} << 40) || *text == '-')
      fail(std::string(name) + " " + text + ": not a positive number (K, M and G are understood)", 2);
    return value;
  }
  std::string_view word(const char* name, std::string_view otherwise) {
    const char* const text = find(name);
    return text == nullptr ? otherwise : text;
  }
  /// Call when all were asked for.
  void done() const {
    if (used_ != argc_ - from_) fail("unknown option, or one without a value; see examples/README.md", 2);
  }

 private:
  const char* find(const char* name) {
    for (int i = from_; i + 1 < argc_; i += 2) {
      if (std::string_view(argv_[i]) != name) continue;
      used_ += 2;
      return argv_[i + 1];
    }
    return nullptr;
  }
  int argc_;
  char** argv_;
  int from_;
  int used_ = 0;
};

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline constexpr std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() { return mix(state_++); }
  std::uint64_t below(std::uint64_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

}  // namespace example
