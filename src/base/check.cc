// The failure path of CHECK: formats by hand into a stack buffer, one write(2), abort.
#include "base/check.h"

#include <cstring>

#include "base/raw_syscall.h"

namespace enchilada {
namespace {

void (*check_hook)() = nullptr;

struct Line {
  char text[512];
  std::size_t used = 0;

  void add(const char* s) {
    while (*s != '\0' && used < sizeof(text) - 1) text[used++] = *s++;
  }
  void add(std::uint64_t v) {
    char digits[24];
    int n = 0;
    do {
      digits[n++] = static_cast<char>('0' + v % 10);
      v /= 10;
    } while (v != 0);
    while (n > 0 && used < sizeof(text) - 1) text[used++] = digits[--n];
  }
};

}  // namespace

void set_check_hook(void (*hook)()) noexcept {
  check_hook = hook;
}

void check_failed(const char* file, int line, const char* what, std::uint64_t a, std::uint64_t b) noexcept {
  Line out;
  out.add("enchilada: internal error, ");
  out.add(file);
  out.add(":");
  out.add(static_cast<std::uint64_t>(line));
  out.add(": check failed: ");
  out.add(what);
  out.add(" [");
  out.add(a);
  out.add(", ");
  out.add(b);
  out.add("]\n");
  raw_syscall(kSysWrite, 2, reinterpret_cast<long>(out.text), static_cast<long>(out.used));
  if (check_hook != nullptr) check_hook();
  __builtin_trap();
}

}  // namespace enchilada
