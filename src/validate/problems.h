// Report: collects problems of one check as printf-like lines. Invariant: never more than kMost lines per
// check.
#pragma once

#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <string>

#include "validate/validate.h"

namespace enchilada {

class Report {
 public:
  static constexpr std::size_t kMost = 10;

  explicit Report(Problems& problems) : problems_(problems), end_(problems.size() + kMost) {}

  /// `text` and its arguments as for printf.
  [[gnu::format(printf, 2, 3)]] void add(const char* text, ...) {
    if (problems_.size() >= end_) return;
    char line[256];
    va_list arguments;
    va_start(arguments, text);
    std::vsnprintf(line, sizeof(line), text, arguments);
    va_end(arguments);
    problems_.emplace_back(line);
  }

 private:
  Problems& problems_;
  std::size_t end_;
};

inline unsigned long long number(std::uint64_t v) {
  return v;
}
inline const void* name_of(const void* object) {
  return object;
}

}  // namespace enchilada
