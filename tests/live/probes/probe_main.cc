// main() of every probe program, and the helpers of probe.h.
#include "probe.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>

namespace probe {
namespace {

Entry* entries = nullptr;
ChildMode* modes = nullptr;

uint64_t word(uint64_t seed, uint64_t index) {
  uint64_t x = (index + 1) * 0x9E3779B97F4A7C15ull ^ seed * 0xBF58476D1CE4E5B9ull;
  x ^= x >> 29;
  return x * 0x94D049BB133111EBull | 1;  // never zero, so that a page of zeros is always wrong
}

void touch(size_t bytes) {
  char* p = map(bytes);
  for (size_t i = 0; i < bytes; i += 4096) *reinterpret_cast<uint64_t*>(p + i) = word(77, i);
  for (size_t i = 0; i < bytes; i += 4096) EXPECT(*reinterpret_cast<uint64_t*>(p + i) == word(77, i));
  EXPECT(munmap(p, bytes) == 0);
}

/// Is /proc/PID/stat that of a process which has ended? A zombie whose other threads are still ending (the
/// runtime has one that natively is not there) is not done: it still holds its memory.
bool has_ended(const char* stat) {
  const char* state = strrchr(stat, ')');
  if (!state || state[2] == 'X') return true;
  if (state[2] != 'Z') return false;
  state += 1;  // the blank before field 3
  for (int field = 3; state && field < 20; field++) state = strchr(state + 1, ' ');
  return !state || atol(state) <= 1;  // field 20: threads
}

void say(const char* text) {
  if (write(2, text, strlen(text)) < 0) _exit(98);
}

}  // namespace

Entry::Entry(const char* n, void (*b)(), const char* k) : name(n), body(b), kind(k), next(entries) {
  entries = this;
}

ChildMode::ChildMode(const char* n, int (*b)(int, char**)) : name(n), body(b), next(modes) {
  modes = this;
}

void fail(const char* file, int line, const char* what) {
  char text[500];
  const char* error = strerrordesc_np(errno);
  snprintf(text, sizeof text, "%s:%d: not so: %s (errno: %s)\n", file, line, what, error ? error : "?");
  say(text);
  _exit(1);
}

void fail_values(const char* file, int line, const char* what, long long a, long long b) {
  char text[500];
  const char* error = strerrordesc_np(errno);
  snprintf(text, sizeof text, "%s:%d: not so: %s (%lld, %lld; errno: %s)\n", file, line, what, a, b,
           error ? error : "?");
  say(text);
  _exit(1);
}

size_t ram() {
  static const size_t bytes = [] {
    const char* text = getenv("ENCHILADA_PROBE_RAM");
    return static_cast<size_t>(text ? atol(text) : 16) << 20;
  }();
  return bytes;
}

bool live() {
  return getenv("ENCHILADA_PROBE_LIVE") != nullptr;
}

void push_out() {
  touch(3 * ram());
}

void stir() {
  touch(ram() / 2);
}

void fill(void* at, size_t bytes, uint64_t seed) {
  auto* p = static_cast<uint64_t*>(at);
  for (size_t i = 0; i < bytes / 8; i++) p[i] = word(seed, i);
}

ssize_t first_wrong(const void* at, size_t bytes, uint64_t seed) {
  auto* p = static_cast<const uint64_t*>(at);
  for (size_t i = 0; i < bytes / 8; i++) {
    if (p[i] != word(seed, i)) return static_cast<ssize_t>(i * 8);
  }
  return -1;
}

ssize_t first_nonzero(const void* at, size_t bytes) {
  auto* p = static_cast<const char*>(at);
  for (size_t i = 0; i < bytes; i++) {
    if (p[i] != 0) return static_cast<ssize_t>(i);
  }
  return -1;
}

char* map(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT(p != MAP_FAILED);
  return static_cast<char*>(p);
}

char* heap(size_t bytes) {
  void* volatile p = malloc(bytes);
  EXPECT(p != nullptr);
  return static_cast<char*>(p);
}

char* heap_string(const std::string& text) {
  char* p = heap(text.size() + 1);
  memcpy(p, text.c_str(), text.size() + 1);
  return p;
}

void make_coroutine(ucontext_t& coroutine, ucontext_t& back, size_t stack_bytes, void (*body)()) {
  EXPECT(getcontext(&coroutine) == 0);
  coroutine.uc_stack.ss_size = stack_bytes;
  coroutine.uc_stack.ss_sp = heap(stack_bytes);
  coroutine.uc_link = &back;
  makecontext(&coroutine, body, 0);
}

void expect_child_ok(pid_t child, const char* file, int line) {
  if (child <= 0) fail(file, line, "a child was made");
  int status = 0;
  pid_t got;
  do {
    got = waitpid(child, &status, 0);
  } while (got < 0 && errno == EINTR);
  if (got != child) fail(file, line, "waitpid returns the child");
  if (status != 0)
    fail_values(file, line, "the child exits with 0 (signal, status)", WTERMSIG(status), WEXITSTATUS(status));
}

std::string scratch_folder() {
  const char* folder = getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

void wait_until_gone(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  for (int i = 0; i < 3000; i++) {
    char text[1000] = {};
    const int fd = open(path.c_str(), O_RDONLY);
    const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0 || has_ended(text)) return;
    usleep(10000);
  }
  fail(__FILE__, __LINE__, "the process ended");
}

int scratch_file() {
  std::string name = scratch_folder() + "/probe-XXXXXX";
  int fd = mkstemp(name.data());
  EXPECT(fd >= 0);
  EXPECT(unlink(name.c_str()) == 0);
  return fd;
}

const char* self_path() {
  static char path[4096];
  if (!path[0]) EXPECT(readlink("/proc/self/exe", path, sizeof path - 1) > 0);
  return path;
}

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

char** heap_argv(const std::vector<std::string>& words) {
  char** argv = reinterpret_cast<char**>(heap((words.size() + 1) * sizeof(char*)));
  for (size_t i = 0; i < words.size(); i++) argv[i] = heap_string(words[i]);
  argv[words.size()] = nullptr;
  return argv;
}

int work_in_child(uint64_t seed) {
  const size_t bytes = 2 * ram();
  char* p = heap(bytes);
  fill(p, bytes, seed);
  push_out();
  return first_wrong(p, bytes, seed) >= 0 ? 33 : 0;
}

}  // namespace probe

// Execs itself until DEPTH is 0.
CHILD_MODE(exec) {
  if (argc != 2) return 37;
  int depth = atoi(argv[1]);
  if (probe::work_in_child(static_cast<uint64_t>(depth)) != 0) return 38;
  if (depth == 0) return 0;
  execv(probe::self_path(), probe::heap_argv({"probe", "--child", "exec", std::to_string(depth - 1)}));
  return 39;
}

// Says that argv arrived and that memory works.
CHILD_MODE(work) {
  return argc == 2 ? probe::work_in_child(static_cast<uint64_t>(atoi(argv[1]))) : 34;
}

int main(int argc, char** argv) {
  using namespace probe;
  if (argc == 2 && !strcmp(argv[1], "--list")) {
    for (Entry* e = entries; e; e = e->next) printf("%s %s\n", e->name, e->kind);
    return 0;
  }
  if (argc >= 3 && !strcmp(argv[1], "--child")) {
    for (ChildMode* m = modes; m; m = m->next) {
      if (!strcmp(m->name, argv[2])) return m->body(argc - 2, argv + 2);
    }
    return 97;
  }
  rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  for (Entry* e = entries; e && argc == 2; e = e->next) {
    if (strcmp(e->name, argv[1]) != 0) continue;
    e->body();
    if (!strncmp(e->kind, "dies", 4)) {
      say("still alive\n");
      return 1;
    }
    puts("OK");
    return 0;
  }
  fprintf(stderr, "usage: %s --list | NAME\n", argv[0]);
  return 2;
}
