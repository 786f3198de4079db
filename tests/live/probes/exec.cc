// Probes of new programs in a process's place: exec in all its forms, vfork, posix_spawn, system and popen,
// descriptors closed before.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <vector>

#include "probe.h"

extern char** environ;

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

void close_everything_from(int first) {
  for (int fd = first; fd < 4096; fd++) close(fd);
}

}  // namespace

// `--child env NAME VALUE COUNT`: the environment is what was given (entries of ours not counted).
CHILD_MODE(env) {
  const char* value = argc == 4 ? getenv(argv[1]) : nullptr;
  if (!value || strcmp(value, argv[2]) != 0) return 35;
  int others = 0;
  for (char** e = environ; *e; e++) {
    others += strncmp(*e, "LD_PRELOAD=", 11) != 0 && strncmp(*e, "ENCHILADA", 9) != 0;
  }
  if (others != atoi(argv[3])) return 36;
  return work_in_child(1);
}

// `--child limit BYTES`: this address-space limit is known and holds.
CHILD_MODE(limit) {
  rlimit limit{};
  if (argc != 2 || getrlimit(RLIMIT_AS, &limit) != 0) return 41;
  const auto bytes = static_cast<size_t>(atol(argv[1]));
  if (limit.rlim_cur != bytes) return 42;
  void* volatile too_much = malloc(bytes + kMiB);
  if (too_much != nullptr) return 43;
  return work_in_child(70);
}

PROBE(vfork_and_exec) {
  char* p = heap(ram());
  fill(p, ram(), 15);
  for (int i = 0; i < 5; i++) {
    char* path = heap_string(self_path());
    char** argv = heap_argv({"probe", "--child", "work", std::to_string(i)});
    push_out();
    pid_t child = vfork();
    if (child == 0) {
      execv(path, argv);
      _exit(50);
    }
    EXPECT_CHILD_OK(child);
    EXPECT_PATTERN(p, ram(), 15);
  }
  pid_t child = vfork();
  if (child == 0) _exit(0);
  EXPECT_CHILD_OK(child);
  push_out();
  EXPECT_PATTERN(p, ram(), 15);
}

PROBE(vfork_as_python_does) {  // signals reset, descriptors closed, argv on the heap
  char* path = heap_string(self_path());
  char** argv = heap_argv({"probe", "--child", "work", "3"});
  auto* all = on_heap(sigset_t{});
  auto* old = on_heap(sigset_t{});
  sigfillset(all);
  push_out();
  EXPECT(pthread_sigmask(SIG_BLOCK, all, old) == 0);
  pid_t child = vfork();
  if (child == 0) {
    for (int s : {SIGPIPE, SIGXFSZ, SIGSEGV, SIGBUS, SIGSYS}) signal(s, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, old, nullptr);
    close_everything_from(3);
    execv(path, argv);
    _exit(51);
  }
  EXPECT(pthread_sigmask(SIG_SETMASK, old, nullptr) == 0);
  EXPECT_CHILD_OK(child);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 16);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 16);
}

PROBE(posix_spawn_with_everything_on_the_heap) {
  char* path = heap_string(self_path());
  char** argv = heap_argv({"probe", "--child", "env", "PROBE_VALUE", "spawned", "3"});
  char** env =
      heap_argv({"PROBE_VALUE=spawned", "ENCHILADA_PROBE_RAM=" + std::to_string(ram() / kMiB), "A=b", "C=d"});
  auto* actions = on_heap(posix_spawn_file_actions_t{});
  auto* attributes = on_heap(posix_spawnattr_t{});
  char* null = heap_string("/dev/null");
  EXPECT(posix_spawn_file_actions_init(actions) == 0);
  EXPECT(posix_spawn_file_actions_addopen(actions, 0, null, O_RDONLY, 0) == 0);
  EXPECT(posix_spawn_file_actions_adddup2(actions, 2, 9) == 0);
  EXPECT(posix_spawnattr_init(attributes) == 0);
  sigset_t defaults;
  sigfillset(&defaults);
  EXPECT(posix_spawnattr_setsigdefault(attributes, &defaults) == 0);
  EXPECT(posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF) == 0);
  auto* child = on_heap(pid_t{0});
  for (int i = 0; i < 4; i++) {
    push_out();
    EXPECT_EQ(posix_spawn(child, path, actions, attributes, argv, env), 0);
    EXPECT_CHILD_OK(*child);
  }
  EXPECT_EQ(posix_spawnp(child, heap_string("true"), nullptr, nullptr, heap_argv({"true"}), environ), 0);
  EXPECT_CHILD_OK(*child);
  EXPECT_EQ(posix_spawn(child, heap_string("/no/such/program"), nullptr, nullptr, argv, env), ENOENT);
}

PROBE(system_and_popen) {
  char* command = heap_string("exit 7");
  push_out();
  EXPECT_EQ(WEXITSTATUS(system(command)), 7);
  char* pipeline = heap_string(
      "i=0; while [ $i -lt 1000 ]; do echo $i; i=$((i+1)); done | sort -rn | head -n 3 | tr '\\n' ,");
  char* mode = heap_string("r");
  push_out();
  FILE* out = popen(pipeline, mode);
  EXPECT(out != nullptr);
  char* line = heap(100);
  push_out();
  EXPECT(fgets(line, 100, out) != nullptr);
  EXPECT(!strcmp(line, "999,998,997,"));
  EXPECT_EQ(pclose(out), 0);
  FILE* in = popen("cat > /dev/null", "w");
  EXPECT(in != nullptr);
  char* text = heap(kMiB);
  fill(text, kMiB, 17);
  push_out();
  EXPECT_EQ(fwrite(text, 1, kMiB, in), kMiB);
  EXPECT_EQ(pclose(in), 0);
}

PROBE(exec_with_a_cleared_environment) {
  char* path = heap_string(self_path());
  char** argv = heap_argv({"probe", "--child", "env", "ONLY", "this", "1"});
  char** env = heap_argv({"ONLY=this"});
  push_out();
  pid_t child = fork();
  if (child == 0) {
    execve(path, argv, env);
    _exit(52);
  }
  EXPECT_CHILD_OK(child);
  push_out();
  child = fork();
  if (child == 0) {
    clearenv();
    setenv("ONLY", "this", 1);
    execvp(path, argv);
    _exit(53);
  }
  EXPECT_CHILD_OK(child);
  child = fork();
  if (child == 0) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    fexecve(fd, argv, env);
    _exit(54);
  }
  EXPECT_CHILD_OK(child);
}

PROBE(exec_of_exec_of_exec) {
  pid_t child = fork();
  if (child == 0) {
    execv(self_path(), heap_argv({"probe", "--child", "exec", "4"}));
    _exit(55);
  }
  EXPECT_CHILD_OK(child);
  push_out();
}

PROBE(address_limit_goes_on_over_exec) {
  const size_t bytes = 16 * ram();
  const std::string text = std::to_string(bytes);
  pid_t child = fork();
  if (child == 0) {
    rlimit limit{};
    EXPECT(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_AS, &limit) == 0);
    pid_t spawned = 0;
    EXPECT(posix_spawn(&spawned, self_path(), nullptr, nullptr,
                       heap_argv({"probe", "--child", "limit", text}), environ) == 0);
    EXPECT_CHILD_OK(spawned);
    execv(self_path(), heap_argv({"probe", "--child", "limit", text}));
    _exit(1);
  }
  EXPECT_CHILD_OK(child);
  char shell[300];  // the limit passes through an image that knows nothing of it
  snprintf(shell, sizeof shell, "ulimit -S -v %zu; exec sh -c '%s --child limit %zu'", bytes / 1024,
           self_path(), bytes);
  EXPECT_EQ(system(shell), 0);
}

PROBE(failed_exec_leaves_all_as_it_was) {
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 18);
  for (int i = 0; i < 20; i++) {
    errno = 0;
    EXPECT(execv(heap_string("/no/such/program"), heap_argv({"x"})) == -1 && errno == ENOENT);
    errno = 0;
    EXPECT(execl("/", "x", static_cast<char*>(nullptr)) == -1 && errno == EACCES);
  }
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 18);
}

PROBE(everything_closed_then_allocate_and_exec) {
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 19);
  close_everything_from(3);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 19);
#ifdef SYS_close_range
  (void)syscall(SYS_close_range, 3u, ~0u, 0u);
  push_out();
#endif
  for (int fd = 3; fd < 64; fd++) EXPECT_EQ(dup2(0, fd), fd);  // and every number taken
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 19);
  close_everything_from(3);
  pid_t child = fork();
  if (child == 0) {
    close_everything_from(3);
    if (first_wrong(p, 2 * ram(), 19) >= 0) _exit(1);
    execv(self_path(), heap_argv({"probe", "--child", "work", "20"}));
    _exit(56);
  }
  EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(p, 2 * ram(), 19);
}

PROBE(everything_closed_as_proc_lists_it) {  // closes what /proc/self/fd shows, as daemons do
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 20);
  DIR* dir = opendir("/proc/self/fd");
  EXPECT(dir != nullptr);
  std::vector<int> fds;
  while (dirent* entry = readdir(dir)) {
    int fd = atoi(entry->d_name);
    if (fd > 2 && fd != dirfd(dir)) fds.push_back(fd);
  }
  EXPECT(closedir(dir) == 0);
  for (int fd : fds) (void)close(fd);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 20);
}

PROBE(standard_descriptors_closed) {
  pid_t child = fork();
  if (child == 0) {
    close(0);
    close(1);
    close(2);
    char* p = heap(2 * ram());
    fill(p, 2 * ram(), 21);
    push_out();
    if (first_wrong(p, 2 * ram(), 21) >= 0) _exit(1);
    execv(self_path(), heap_argv({"probe", "--child", "work", "22"}));
    _exit(57);
  }
  EXPECT_CHILD_OK(child);
}
