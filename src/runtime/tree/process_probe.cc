// Reader of /proc/PID/stat without libc.
#include "runtime/tree/process_probe.h"

#include <asm/unistd.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/raw_syscall.h"

namespace enchilada {
namespace {

constexpr long kEintr = -4;
constexpr long kEsrch = -3;
constexpr long kEnoent = -2;

char* put(char* out, const char* text) noexcept {
  while (*text != 0) *out++ = *text++;
  return out;
}
char* put(char* out, std::uint32_t number) noexcept {
  char digits[10];
  int n = 0;
  do {
    digits[n++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (n > 0) *out++ = digits[--n];
  return out;
}

/// Reads the start of a file; how much, or -errno.
long read_start(long folder, const char* path, char* out, std::size_t size) noexcept {
  const long descriptor =
      raw_syscall(__NR_openat, folder, reinterpret_cast<long>(path), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return descriptor;
  long got;
  do {
    got = raw_syscall(__NR_read, descriptor, reinterpret_cast<long>(out), static_cast<long>(size));
  } while (got == kEintr);
  raw_syscall(__NR_close, descriptor);
  return got;
}

bool look_at(long folder, const char* path, struct stat* out) noexcept {
  return raw_syscall(__NR_newfstatat, folder, reinterpret_cast<long>(path), reinterpret_cast<long>(out), 0) ==
         0;
}

std::uint32_t leading_number(const char* text, long length) noexcept {
  std::uint32_t value = 0;
  for (long i = 0; i < length && text[i] >= '0' && text[i] <= '9'; ++i) {
    value = value * 10 + static_cast<std::uint32_t>(text[i] - '0');
  }
  return value;
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
  *put(put(put(path, "/proc/"), pid), "/stat") = 0;
  ProcessProbe probe;
  char text[1024] = {};
  const long got = read_start(AT_FDCWD, path, text, sizeof(text));
  if (got > 0) probe = parse_stat(text, static_cast<std::uint64_t>(got));
  if (probe.life == ProcessProbe::Life::kUnknown && !answers_signal(pid))
    probe.life = ProcessProbe::Life::kGone;
  return probe;
}

// ---- PidView ----

std::uint64_t PidView::current_namespace() noexcept {
  struct stat about;
  return look_at(AT_FDCWD, "/proc/self/ns/pid", &about) ? about.st_ino : 0;
}

std::uint64_t PidView::current_proc() noexcept {
  struct stat about;
  return look_at(AT_FDCWD, "/proc", &about) ? about.st_dev : 0;
}

void PidView::look(std::uint64_t home_namespace, std::uint64_t home_proc) noexcept {
  const std::uint64_t here = current_namespace();
  const bool was_abroad = abroad_;
  // Where /proc does not say it: a namespace begins with number 1 and a parent outside of it, which has none.
  const bool outsiders_child = own_pid() == 1 || raw_syscall(__NR_getppid) == 0;
  abroad_ = here != 0 ? home_namespace != 0 && here != home_namespace : was_abroad || outsiders_child;
  home_proc_ = home_proc;
  pid_ = own_pid();
  number_ = abroad_ ? number_of_caller() : pid_;
}

/// The launcher's /proc, as a folder that stays what it is; negative if this process does not see it.
long PidView::open_proc() const noexcept {
  const long proc =
      raw_syscall(__NR_openat, AT_FDCWD, reinterpret_cast<long>("/proc"), O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct stat about;
  if (proc < 0 || (raw_syscall(__NR_fstat, proc, reinterpret_cast<long>(&about)) == 0 && home_proc_ != 0 &&
                   about.st_dev == home_proc_)) {
    return proc;
  }
  raw_syscall(__NR_close, proc);
  return kEsrch;
}

std::uint32_t PidView::number_of_caller() const noexcept {
  const long proc = open_proc();
  if (proc < 0) return 0;
  char text[16];
  const long got = raw_syscall(__NR_readlinkat, proc, reinterpret_cast<long>("self"),
                               reinterpret_cast<long>(text), sizeof(text));
  raw_syscall(__NR_close, proc);
  return leading_number(text, got);
}

std::uint32_t PidView::self() const noexcept {
  const std::uint32_t pid = own_pid();
  if (!abroad_) return pid;
  if (pid == pid_) return number_;
  const std::uint32_t found = number_of_caller();
  return found != 0 ? found : number_;
}

std::uint32_t PidView::of_child(std::uint32_t pid) const noexcept {
  if (!abroad_) return pid;
  // What /proc says about a descriptor of the process is in the numbers of that /proc.
  const long child = raw_syscall(__NR_pidfd_open, pid, 0);
  if (child < 0) return 0;
  std::uint32_t number = 0;
  const long proc = open_proc();
  if (proc >= 0) {
    char path[32];
    char text[512];
    *put(put(path, "self/fdinfo/"), static_cast<std::uint32_t>(child)) = 0;
    const long got = read_start(proc, path, text, sizeof(text));
    constexpr long kPrefix = 6;  // "\nPid:\t"
    for (long i = 0; i + kPrefix < got && number == 0; ++i) {
      if (text[i] == '\n' && text[i + 1] == 'P' && text[i + 2] == 'i' && text[i + 3] == 'd') {
        number = leading_number(text + i + kPrefix, got - i - kPrefix);
      }
    }
    raw_syscall(__NR_close, proc);
  }
  raw_syscall(__NR_close, child);
  return number;
}

ProcessProbe PidView::probe(std::uint32_t number) const noexcept {
  if (!abroad_) return probe_process(number);
  ProcessProbe probe;
  const long proc = open_proc();
  if (proc < 0) return probe;
  char path[32];
  char text[1024] = {};
  *put(put(path, number), "/stat") = 0;
  const long got = read_start(proc, path, text, sizeof(text));
  struct stat about;
  if (got > 0) {
    probe = parse_stat(text, static_cast<std::uint64_t>(got));
  } else if ((got == kEnoent || got == kEsrch) && look_at(proc, "1", &about)) {
    probe.life = ProcessProbe::Life::kGone;  // and it is not that others are hidden here (hidepid)
  }
  raw_syscall(__NR_close, proc);
  return probe;
}

}  // namespace enchilada
