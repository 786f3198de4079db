// Processes and descriptors by symbol, and the constructor.
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <sched.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "runtime/preload/exec_target.h"
#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/next.h"
#include "runtime/preload/process.h"
#include "runtime/preload/program_filter.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/resident_malloc.h"
#include "runtime/preload/resource_limits.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/thread_holds.h"
#include "runtime/preload/user_syscall.h"

using namespace enchilada::runtime;
using enchilada::raw_syscall;
using enchilada::UnmanagedWhy;
using enchilada::layout::in_window;

extern "C" char** environ;

namespace {

bool managed(const void* p) {
  return in_window(reinterpret_cast<std::uint64_t>(p)) && live().ready();
}

// ---- Spawning ----

using SpawnFunction = int(pid_t*, const char*, const posix_spawn_file_actions_t*, const posix_spawnattr_t*,
                          char* const*, char* const*);
Next<SpawnFunction> next_posix_spawn("posix_spawn");
Next<SpawnFunction> next_posix_spawnp("posix_spawnp");

int spawn(Next<SpawnFunction>& next, bool searches, pid_t* pid, const char* path,
          const posix_spawn_file_actions_t* actions, const posix_spawnattr_t* attributes, char* const* argv,
          char* const* envp) {
  if (!live().ready()) return next(pid, path, actions, attributes, argv, envp);
  if (on_managed_stack()) {
    return static_cast<int>(on_libc_stack(
        [=, &next] { return long{spawn(next, searches, pid, path, actions, attributes, argv, envp)}; }));
  }
  listen_to_siblings();  // the child will want frames of ours
  ExecArguments staged;
  const long result = stage_exec(path, argv, envp, &staged);
  if (result < 0) return static_cast<int>(-result);
  // The spawned child runs on our memory with all signals blocked until it execs: nothing of it may be paged
  // out.
  posix_spawn_file_actions_t actions_copy;
  posix_spawnattr_t attributes_copy;
  if (actions != nullptr) actions_copy = *actions;
  if (attributes != nullptr) attributes_copy = *attributes;
  pid_t child = 0;
  const int answer = next(&child, staged.path, actions != nullptr ? &actions_copy : nullptr,
                          attributes != nullptr ? &attributes_copy : nullptr, staged.argv, staged.envp);
  if (answer == 0) {
    const UnmanagedWhy why =
        program_filtered()
            ? UnmanagedWhy::kFiltered
            : judge_program_in_path(staged.path, searches ? getenv("PATH") : nullptr, staged.scratch);
    if (why != UnmanagedWhy::kNothing) live().tree().note_unmanaged(why, staged.path);
    if (pid != nullptr) *pid = child;
  }
  resident_free(staged.memory);
  return answer;
}

char* resident_copy(const char* text) {
  const std::size_t n = strlen(text) + 1;
  auto* copy = static_cast<char*>(resident_allocate(n));
  if (copy != nullptr) memcpy(copy, text, n);
  return copy;
}

/// system() and popen() spawn inside libc with our environment: it must not be paged out either.
class ResidentEnvironment {
 public:
  ResidentEnvironment() {
    if (!live().ready() || environ == nullptr) return;
    char* none[] = {nullptr};
    if (stage_exec("", none, environ, &staged_) < 0) return;
    saved_ = environ;
    environ = staged_.envp;
  }
  ~ResidentEnvironment() {
    if (saved_ != nullptr) environ = saved_;
    resident_free(staged_.memory);
  }
  ResidentEnvironment(const ResidentEnvironment&) = delete;
  ResidentEnvironment& operator=(const ResidentEnvironment&) = delete;

 private:
  ExecArguments staged_;
  char** saved_ = nullptr;
};

Next<int(const char*)> next_system("system");
Next<FILE*(const char*, const char*)> next_popen("popen");

// ---- Exec with a search path ----

int exec_or_script(const char* path, char* const* argv, char* const* envp) {
  const long result = call_execve(path, argv, envp);
  if (result != -ENOEXEC) return static_cast<int>(with_errno(result));
  std::size_t n = 0;
  while (argv[n] != nullptr) ++n;
  auto** shell = static_cast<char**>(alloca((n + 3) * sizeof(char*)));
  shell[0] = const_cast<char*>("/bin/sh");
  shell[1] = const_cast<char*>(path);
  for (std::size_t i = 1; i <= n; ++i) shell[i + 1] = argv[i];
  if (n == 0) shell[2] = nullptr;
  return static_cast<int>(with_errno(call_execve("/bin/sh", shell, envp)));
}

int exec_search(const char* file, char* const* argv, char* const* envp) {
  if (*file == 0) {
    errno = ENOENT;
    return -1;
  }
  if (strchr(file, '/') != nullptr) return exec_or_script(file, argv, envp);
  const char* path = getenv("PATH");
  if (path == nullptr) path = "/bin:/usr/bin";
  bool denied = false;
  const std::size_t length = strlen(file);
  for (const char* part = path;; ++part) {
    const char* end = strchrnul(part, ':');
    char candidate[PATH_MAX + 1];
    const auto n = static_cast<std::size_t>(end - part);
    if (n + length + 2 <= sizeof(candidate)) {
      memcpy(candidate, part, n);
      candidate[n] = '/';
      memcpy(candidate + n + (n != 0), file, length + 1);
      exec_or_script(candidate, argv, envp);
      denied |= errno == EACCES;
      if (errno != ENOENT && errno != ENOTDIR && errno != EACCES && errno != ESTALE && errno != ENODEV)
        return -1;
    }
    if (*end == 0) break;
    part = end;
  }
  if (denied) errno = EACCES;
  return -1;
}

/// The arguments of execl and its kin as a vector on the caller's stack.
#define ENCHILADA_GATHER(first, list)                                     \
  std::size_t count = 1;                                                  \
  va_list list;                                                           \
  va_start(list, first);                                                  \
  while (va_arg(list, char*) != nullptr) ++count;                         \
  va_end(list);                                                           \
  auto** argv = static_cast<char**>(alloca((count + 1) * sizeof(char*))); \
  argv[0] = const_cast<char*>(first);                                     \
  va_start(list, first);                                                  \
  for (std::size_t i = 1; i <= count; ++i) argv[i] = va_arg(list, char*)

// ---- Fork by other names ----

Next<pid_t()> next_fork("fork");
Next<pid_t()> next_raw_fork("_Fork");
Next<int(int (*)(void*), void*, int, void*, pid_t*, void*, pid_t*)> next_clone("clone");

struct CloneStart {
  int (*function)(void*);
  void* argument;
};

int run_forked_clone(void* raw) {
  const CloneStart start = *static_cast<CloneStart*>(raw);
  fork_child();
  return start.function(start.argument);
}

long forked_clone(CloneStart start, void* stack, int flags, pid_t* parent_tid, void* tls, pid_t* child_tid) {
  if (on_managed_stack()) {
    return on_libc_stack([=] { return forked_clone(start, stack, flags, parent_tid, tls, child_tid); });
  }
  const long room = reserve_fork();
  if (room < 0) return room;
  fork_prepare();
  const int pid = next_clone(run_forked_clone, stack, flags, &start, parent_tid, tls, child_tid);
  const int error = errno;
  fork_parent();
  finish_fork(pid);
  return pid < 0 ? -error : pid;
}

/// A fork that libc does not announce to its handlers.
template <class Fork>
long announced(Fork fork) {
  if (!live().ready()) return fork();
  if (on_managed_stack()) return on_libc_stack([=] { return announced(fork); });
  const long room = reserve_fork();
  if (room < 0) return room;
  fork_prepare();
  const long pid = fork();
  if (pid == 0) {
    fork_child();
    return 0;
  }
  fork_parent();
  finish_fork(static_cast<int>(pid));
  return pid;
}

// ---- Descriptors ----

constexpr unsigned kEngineDescriptors = 8;

/// The runtime's own descriptors, sorted; returns how many.
unsigned engine_descriptors(unsigned* out) {
  if (!live().ready()) return 0;
  unsigned n = 0;
  const auto add = [&](int fd) {
    if (fd >= 0 && n < kEngineDescriptors) out[n++] = static_cast<unsigned>(fd);
  };
  for (const int fd : live().host().descriptors()) add(fd);
  add(live().tree().header().segment_descriptor);
  const auto& config = live().tree().config();
  for (unsigned i = 0; i < config.swap_file_count; ++i) add(config.swap_files[i].descriptor);
  std::sort(out, out + n);
  return n;
}

bool engine_descriptor(int fd) {
  if (fd < 64) return false;  // ours are high; keep the usual case cheap
  unsigned ours[kEngineDescriptors];
  const unsigned n = engine_descriptors(ours);
  return std::find(ours, ours + n, static_cast<unsigned>(fd)) != ours + n;
}

long close_all_but_ours(unsigned first, unsigned last, int flags) {
  unsigned ours[kEngineDescriptors];
  const unsigned n = engine_descriptors(ours);
  for (unsigned i = 0; i < n && first <= last; ++i) {
    if (ours[i] < first || ours[i] > last) continue;
    if (ours[i] > first) {
      const long result = program_syscall(SYS_close_range, first, ours[i] - 1, flags);
      if (result < 0) return result;
    }
    first = ours[i] + 1;
  }
  return first <= last ? program_syscall(SYS_close_range, first, last, flags) : 0;
}

Next<int(int)> next_close("close");

int refuse_descriptor() {
  errno = EBADF;
  return -1;
}

/// syscall(2) of what the engine answers itself. False: an ordinary call.
bool emulated(long nr, const long (&a)[6], long* result) {
  if (answer_memory_call(nr, a, result) || answer_limit_call(nr, a, result)) return true;
  if (answer_filter_call(nr, a, result)) return true;
  switch (nr) {
    case SYS_rt_sigprocmask:
      *result = call_sigprocmask(static_cast<int>(a[0]), reinterpret_cast<const std::uint64_t*>(a[1]),
                                 reinterpret_cast<std::uint64_t*>(a[2]));
      return true;
    case SYS_rt_sigaction:
      *result = call_sigaction(static_cast<int>(a[0]), reinterpret_cast<const KernelSigaction*>(a[1]),
                               reinterpret_cast<KernelSigaction*>(a[2]));
      return true;
    case SYS_execve:
      *result = call_execve(reinterpret_cast<const char*>(a[0]), reinterpret_cast<char* const*>(a[1]),
                            reinterpret_cast<char* const*>(a[2]));
      return true;
    case SYS_fork:
      *result = announced([] { return program_syscall(SYS_fork); });
      return true;
    case SYS_clone:
      if ((a[0] & CLONE_VM) != 0) return false;
      *result = announced([&a] { return raw_syscall(SYS_clone, a[0], a[1], a[2], a[3], a[4]); });
      return true;
    case SYS_close:
      if (!engine_descriptor(static_cast<int>(a[0]))) return false;
      *result = -EBADF;
      return true;
    case SYS_close_range:
      *result = close_all_but_ours(static_cast<unsigned>(a[0]), static_cast<unsigned>(a[1]),
                                   static_cast<int>(a[2]));
      return true;
    default:
      return false;
  }
}

}  // namespace

extern "C" {

ENCHILADA_EXPORT pid_t fork() noexcept {
  live().start();
  if (!live().ready()) return next_fork();
  // A stack that is paged out, or protected while we fork, is none to fork on.
  if (on_managed_stack()) return static_cast<pid_t>(on_libc_stack([] { return long{fork()}; }));
  const long room = reserve_fork();
  if (room < 0) return static_cast<pid_t>(with_errno(room));
  const pid_t pid = next_fork();  // our pthread_atfork handlers do the rest
  const int error = errno;
  if (pid != 0) finish_fork(pid);
  errno = error;
  return pid;
}
ENCHILADA_EXPORT pid_t __fork() noexcept {
  return fork();
}
ENCHILADA_EXPORT pid_t _Fork() noexcept {
  return static_cast<pid_t>(announced([] { return long{next_raw_fork()}; }));
}

// A process that is about to make its children in another PID namespace gets no more threads, and needs one.
// With CLONE_NEWUSER it must have none.
ENCHILADA_EXPORT int unshare(int flags) noexcept {
  if (live().ready() && (flags & (CLONE_NEWPID | CLONE_NEWUSER)) == CLONE_NEWPID) start_helper_thread();
  return static_cast<int>(with_errno(raw_syscall(SYS_unshare, flags)));
}
ENCHILADA_EXPORT int setns(int fd, int kind) noexcept {
  if (live().ready() && kind == CLONE_NEWPID) start_helper_thread();
  return static_cast<int>(with_errno(raw_syscall(SYS_setns, fd, kind)));
}

// vfork.S
__attribute__((visibility("hidden"))) void enchilada_before_vfork() {
  live().start();
  if (live().ready()) listen_to_siblings();
}
__attribute__((visibility("hidden"))) int enchilada_vfork_failed(long answer) {
  return static_cast<int>(with_errno(answer));
}

ENCHILADA_EXPORT int clone(int (*function)(void*), void* stack, int flags, void* argument, ...) noexcept {
  va_list more;
  va_start(more, argument);
  pid_t* parent_tid = va_arg(more, pid_t*);
  void* tls = va_arg(more, void*);
  pid_t* child_tid = va_arg(more, pid_t*);
  va_end(more);
  if (!live().ready()) return next_clone(function, stack, flags, argument, parent_tid, tls, child_tid);
  if (managed(stack)) {
    // The kernel starts the child on it before any fault could be handled: give it one that stays.
    constexpr std::size_t kStack = std::size_t{1} << 20;
    const long fresh =
        raw_syscall(SYS_mmap, 0, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh < 0) return static_cast<int>(with_errno(fresh));
    stack = reinterpret_cast<void*>(fresh + static_cast<long>(kStack));
  }
  if ((flags & CLONE_VM) != 0)
    return next_clone(function, stack, flags, argument, parent_tid, tls, child_tid);
  const CloneStart start{function, argument};
  return static_cast<int>(with_errno(forked_clone(start, stack, flags, parent_tid, tls, child_tid)));
}

ENCHILADA_EXPORT int execve(const char* path, char* const* argv, char* const* envp) noexcept {
  return static_cast<int>(with_errno(call_execve(path, argv, envp)));
}
ENCHILADA_EXPORT int execv(const char* path, char* const* argv) noexcept {
  return execve(path, argv, environ);
}
ENCHILADA_EXPORT int execvpe(const char* file, char* const* argv, char* const* envp) noexcept {
  return exec_search(file, argv, envp);
}
ENCHILADA_EXPORT int execvp(const char* file, char* const* argv) noexcept {
  return exec_search(file, argv, environ);
}
ENCHILADA_EXPORT int execl(const char* path, const char* first, ...) noexcept {
  ENCHILADA_GATHER(first, list);
  va_end(list);
  return execve(path, argv, environ);
}
ENCHILADA_EXPORT int execlp(const char* file, const char* first, ...) noexcept {
  ENCHILADA_GATHER(first, list);
  va_end(list);
  return exec_search(file, argv, environ);
}
ENCHILADA_EXPORT int execle(const char* path, const char* first, ...) noexcept {
  ENCHILADA_GATHER(first, list);
  char* const* envp = va_arg(list, char* const*);
  va_end(list);
  return execve(path, argv, envp);
}
ENCHILADA_EXPORT int fexecve(int fd, char* const* argv, char* const* envp) noexcept {
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return execve(path, argv, envp);
}

ENCHILADA_EXPORT int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                                 const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  return spawn(next_posix_spawn, false, pid, path, actions, attributes, argv, envp);
}
ENCHILADA_EXPORT int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                                  const posix_spawnattr_t* attributes, char* const* argv, char* const* envp) {
  return spawn(next_posix_spawnp, true, pid, file, actions, attributes, argv, envp);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_addopen(posix_spawn_file_actions_t* actions, int fd,
                                                      const char* path, int flags, mode_t mode) noexcept {
  static Next<int(posix_spawn_file_actions_t*, int, const char*, int, mode_t)> next(
      "posix_spawn_file_actions_addopen");
  const ResidentMalloc resident;
  return next(actions, fd, path, flags, mode);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_addclose(posix_spawn_file_actions_t* actions, int fd) noexcept {
  static Next<int(posix_spawn_file_actions_t*, int)> next("posix_spawn_file_actions_addclose");
  const ResidentMalloc resident;
  return next(actions, fd);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t* actions, int fd,
                                                      int to) noexcept {
  static Next<int(posix_spawn_file_actions_t*, int, int)> next("posix_spawn_file_actions_adddup2");
  const ResidentMalloc resident;
  return next(actions, fd, to);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_addchdir_np(posix_spawn_file_actions_t* actions,
                                                          const char* path) noexcept {
  static Next<int(posix_spawn_file_actions_t*, const char*)> next("posix_spawn_file_actions_addchdir_np");
  const ResidentMalloc resident;
  return next(actions, path);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_addfchdir_np(posix_spawn_file_actions_t* actions,
                                                           int fd) noexcept {
  static Next<int(posix_spawn_file_actions_t*, int)> next("posix_spawn_file_actions_addfchdir_np");
  const ResidentMalloc resident;
  return next(actions, fd);
}
ENCHILADA_EXPORT int posix_spawn_file_actions_addclosefrom_np(posix_spawn_file_actions_t* actions,
                                                              int fd) noexcept {
  static Next<int(posix_spawn_file_actions_t*, int)> next("posix_spawn_file_actions_addclosefrom_np");
  const ResidentMalloc resident;
  return next(actions, fd);
}

// A new thread reads the locale's tables (__ctype_init) before libc has unblocked its signals: they must be
// there.
ENCHILADA_EXPORT char* setlocale(int category, const char* locale) noexcept {
  static Next<char*(int, const char*)> next("setlocale");
  const ResidentMalloc resident;
  return next(category, locale);
}
ENCHILADA_EXPORT locale_t newlocale(int mask, const char* locale, locale_t base) noexcept {
  static Next<locale_t(int, const char*, locale_t)> next("newlocale");
  const ResidentMalloc resident;
  return next(mask, locale, base);
}
ENCHILADA_EXPORT locale_t duplocale(locale_t locale) noexcept {
  static Next<locale_t(locale_t)> next("duplocale");
  const ResidentMalloc resident;
  return next(locale);
}

ENCHILADA_EXPORT int system(const char* command) {
  if (command == nullptr || !live().ready()) return next_system(command);
  if (on_managed_stack()) return static_cast<int>(on_libc_stack([=] { return long{system(command)}; }));
  listen_to_siblings();
  char* copy = resident_copy(command);
  if (copy == nullptr) return -1;
  const ResidentEnvironment environment;
  const int result = next_system(copy);
  resident_free(copy);
  return result;
}
ENCHILADA_EXPORT FILE* popen(const char* command, const char* mode) {
  if (!live().ready()) return next_popen(command, mode);
  if (on_managed_stack()) {
    return reinterpret_cast<FILE*>(
        on_libc_stack([=] { return reinterpret_cast<long>(popen(command, mode)); }));
  }
  listen_to_siblings();
  char* copy = resident_copy(command);
  char kind[8] = {};
  strncpy(kind, mode, sizeof(kind) - 1);
  if (copy == nullptr) return nullptr;
  const ResidentEnvironment environment;
  const ResidentMalloc resident;  // its list of children is read in the spawned child
  FILE* file = next_popen(copy, kind);
  resident_free(copy);
  return file;
}

ENCHILADA_EXPORT int close(int fd) {
  if (engine_descriptor(fd)) return refuse_descriptor();
  return next_close(fd);
}
ENCHILADA_EXPORT int dup2(int from, int to) noexcept {
  if (from != to && engine_descriptor(to)) return refuse_descriptor();
  return static_cast<int>(with_errno(program_syscall(SYS_dup2, from, to)));
}
ENCHILADA_EXPORT int dup3(int from, int to, int flags) noexcept {
  if (engine_descriptor(to)) return refuse_descriptor();
  return static_cast<int>(with_errno(program_syscall(SYS_dup3, from, to, flags)));
}
ENCHILADA_EXPORT int close_range(unsigned first, unsigned last, int flags) noexcept {
  return static_cast<int>(with_errno(close_all_but_ours(first, last, flags)));
}
ENCHILADA_EXPORT void closefrom(int first) noexcept {
  close_all_but_ours(first < 0 ? 0u : static_cast<unsigned>(first), ~0u, 0);
}

ENCHILADA_EXPORT long syscall(long nr, ...) noexcept {
  va_list more;
  va_start(more, nr);
  long a[6];
  for (long& argument : a) argument = va_arg(more, long);
  va_end(more);
  long result = 0;
  if (!live().ready()) return with_errno(raw_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
  if (emulated(nr, a, &result)) return with_errno(result);
  if (nr == SYS_vmsplice) nr = SYS_writev;
  const bool nested = nr == SYS_readv || nr == SYS_writev || nr == SYS_sendmsg || nr == SYS_recvmsg ||
                      nr == SYS_preadv || nr == SYS_pwritev || nr == SYS_futex_waitv;
  if (nested || points_into_window(a[0], a[1], a[2], a[3], a[4], a[5])) {
    return with_errno(user_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
  }
  // A child on our stack would overwrite what the gadget returns by.
  if (nr == SYS_clone || nr == SYS_vfork) {
    return with_errno(raw_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
  }
  return with_errno(program_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]));
}
ENCHILADA_EXPORT int prctl(int option, ...) noexcept {
  va_list more;
  va_start(more, option);
  long a[6] = {option};
  for (int i = 1; i < 5; ++i) a[i] = va_arg(more, long);
  va_end(more);
  return static_cast<int>(syscall(SYS_prctl, a[0], a[1], a[2], a[3], a[4], 0L));
}

}  // extern "C"

/// For dlopen.S.
extern "C" __attribute__((visibility("hidden"))) void* enchilada_next_dlopen;
void* enchilada_next_dlopen = nullptr;

namespace {
/// Before anybody's constructors, even libc's (-z initfirst), which is why the environment must be passed on.
__attribute__((constructor(101))) void start_runtime(int, char**, char** environment) {
  enchilada_next_dlopen = dlsym(RTLD_NEXT, "dlopen");
  CHECK(enchilada_next_dlopen != nullptr);
  register_fork_handlers();
  if (environ == nullptr) environ = environment;
  live().start();
  if (live().ready()) watch_thread_end();
}
}  // namespace
