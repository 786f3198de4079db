// Reader of /proc/PID/stat without libc.
#include "runtime/tree/process_probe.h"

#include <asm/unistd.h>
#include <fcntl.h>

#include "base/raw_syscall.h"

namespace enchilada {
namespace {

constexpr long kEintr = -4;
constexpr long kEsrch = -3;

/// Writes /proc/<pid>/stat.
void stat_path(std::uint32_t pid, char* out) noexcept {
  char digits[10];
  int n = 0;
  do {
    digits[n++] = static_cast<char>('0' + pid % 10);
    pid /= 10;
  } while (pid != 0);
  for (const char* p = "/proc/"; *p != 0; ++p) *out++ = *p;
  while (n > 0) *out++ = digits[--n];
  for (const char* p = "/stat"; *p != 0; ++p) *out++ = *p;
  *out = 0;
}

bool answers_signal(std::uint32_t pid) noexcept {
  return raw_syscall(__NR_kill, static_cast<long>(pid), 0) != kEsrch;
}

}  // namespace

std::uint32_t own_pid() noexcept {
  return static_cast<std::uint32_t>(raw_syscall(__NR_getpid));
}

ProcessProbe parse_stat(const char* text, std::uint64_t length) noexcept {
  ProcessProbe probe;
  std::uint64_t open = 0;
  while (open < length && text[open] != '(') ++open;
  std::uint64_t close = length;  // the name may contain anything, parentheses included: the last one counts
  while (close > 0 && text[close - 1] != ')') --close;
  if (close <= open + 1) return probe;
  for (std::uint64_t i = 0; i + 1 < probe.name.size() && open + 1 + i < close - 1; ++i) {
    probe.name[i] = text[open + 1 + i];
  }
  char state = 0;
  std::uint64_t threads = 0;
  int field = 2;
  for (std::uint64_t i = close; i < length && field < 28;) {
    while (i < length && text[i] == ' ') ++i;
    if (i >= length) return probe;
    ++field;
    std::uint64_t value = 0;
    const char first = text[i];
    for (; i < length && text[i] != ' ' && text[i] != '\n'; ++i) {
      if (text[i] >= '0' && text[i] <= '9') value = value * 10 + static_cast<std::uint64_t>(text[i] - '0');
    }
    if (field == 3) state = first;
    if (field == 20) threads = value;
    if (field == 22) probe.start_time = value;
    if (field == 28) probe.start_stack = value;
  }
  if (field < 22) return ProcessProbe{};
  // The first thread of a process may end before the others: a zombie with threads still uses its memory.
  const bool ended = state == 'X' || state == 'x' || (state == 'Z' && threads <= 1);
  probe.life = ended ? ProcessProbe::Life::kGone : ProcessProbe::Life::kAlive;
  return probe;
}

ProcessProbe probe_process(std::uint32_t pid) noexcept {
  char path[32];
  stat_path(pid, path);
  ProcessProbe probe;
  const long descriptor =
      raw_syscall(__NR_openat, AT_FDCWD, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC);
  if (descriptor >= 0) {
    char text[1024] = {};
    long got;
    do {
      got = raw_syscall(__NR_read, descriptor, reinterpret_cast<long>(text), sizeof(text));
    } while (got == kEintr);
    raw_syscall(__NR_close, descriptor);
    if (got > 0) probe = parse_stat(text, static_cast<std::uint64_t>(got));
  }
  if (probe.life == ProcessProbe::Life::kUnknown && !answers_signal(pid))
    probe.life = ProcessProbe::Life::kGone;
  return probe;
}

}  // namespace enchilada
