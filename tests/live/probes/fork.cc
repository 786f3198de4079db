// Probes of processes: fork with paged-out memory, exec in all its forms, children behind the runtime's back,
// dying trees.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include <vector>

#include "probe.h"

extern char** environ;

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

/// fork() as functions inside libc call it: behind the back of whoever interposes the symbol.
pid_t fork_inside_libc() {
  static const auto inner = reinterpret_cast<pid_t (*)()>(dlsym(dlopen("libc.so.6", RTLD_NOW), "fork"));
  EXPECT(inner != nullptr);
  return inner();
}

/// Of what probes block and what a fork blocks for a while.
bool only_usr1_blocked() {
  sigset_t now;
  EXPECT(sigprocmask(SIG_BLOCK, nullptr, &now) == 0);
  return sigismember(&now, SIGUSR1) && !sigismember(&now, SIGTERM) && !sigismember(&now, SIGINT);
}

void block_usr1() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  EXPECT(sigprocmask(SIG_SETMASK, &set, nullptr) == 0);
}

}  // namespace

// `--child big SECONDS`: holds memory until killed.
CHILD_MODE(hold) {
  char* p = heap(2 * ram());
  for (uint64_t round = 1;; round++) {
    fill(p, 2 * ram(), round);
    if (first_wrong(p, 2 * ram(), round) >= 0) return 40;
  }
}

PROBE(fork_of_paged_out_memory) {
  const size_t bytes = 2 * ram();
  char* p = heap(bytes);
  char* q = map(bytes);
  fill(p, bytes, 1);
  fill(q, bytes, 2);
  push_out();
  pid_t child = fork();
  if (child == 0) {
    EXPECT_PATTERN(p, bytes, 1);
    EXPECT_PATTERN(q, bytes, 2);
    fill(p, bytes, 3);
    fill(q, bytes, 4);
    push_out();
    EXPECT_PATTERN(p, bytes, 3);
    EXPECT_PATTERN(q, bytes, 4);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(p, bytes, 1);
  EXPECT_PATTERN(q, bytes, 2);
}

PROBE(parent_and_child_write_at_once) {
  const size_t bytes = 2 * ram();
  char* p = heap(bytes);
  fill(p, bytes, 5);
  pid_t child = fork();
  const uint64_t mine = child == 0 ? 100 : 200;
  for (uint64_t round = 0; round < 3; round++) {
    EXPECT_PATTERN(p, bytes / 2, round == 0 ? 5 : mine + round - 1);
    fill(p, bytes / 2, mine + round);
    push_out();
  }
  EXPECT_PATTERN(p, bytes / 2, mine + 2);
  char* untouched = heap(bytes);  // the half that nobody wrote is still the old content
  fill(untouched, bytes, 5);
  EXPECT(memcmp(p + bytes / 2, untouched + bytes / 2, bytes / 2) == 0);
  if (child == 0) _exit(0);
  EXPECT_CHILD_OK(child);
}

PROBE(grandchildren) {
  const size_t bytes = ram();
  char* p = heap(bytes);
  fill(p, bytes, 6);
  push_out();
  for (int depth = 0; depth < 4; depth++) {
    pid_t child = fork();
    EXPECT(child >= 0);
    if (child > 0) {
      EXPECT_CHILD_OK(child);
      EXPECT_PATTERN(p, bytes, depth == 0 ? 6 : 6 + static_cast<uint64_t>(depth));
      if (depth == 0) return;
      _exit(0);
    }
    EXPECT_PATTERN(p, bytes, depth == 0 ? 6 : 6 + static_cast<uint64_t>(depth));
    fill(p, bytes, 7 + static_cast<uint64_t>(depth));
    push_out();
  }
  EXPECT_PATTERN(p, bytes, 10);
  _exit(0);
}

PROBE(parent_gives_up_what_the_child_still_reads) {
  const size_t bytes = 2 * ram();
  char* p = map(bytes);
  fill(p, bytes, 7);
  push_out();
  int ends[2];
  EXPECT(pipe(ends) == 0);
  pid_t child = fork();
  if (child == 0) {
    char go;
    EXPECT(read(ends[0], &go, 1) == 1);
    EXPECT_PATTERN(p, bytes, 7);
    _exit(0);
  }
  EXPECT(munmap(p, bytes) == 0);  // its swap blocks are the child's now
  char* other = map(bytes);
  fill(other, bytes, 8);
  push_out();
  EXPECT(write(ends[1], "g", 1) == 1);
  EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(other, bytes, 8);
}

PROBE(child_outlives_its_parent) {
  const size_t bytes = ram();
  char* p = heap(bytes);
  fill(p, bytes, 9);
  push_out();
  int ends[2];
  EXPECT(pipe(ends) == 0);
  pid_t child = fork();
  if (child == 0) {
    if (fork() > 0) _exit(0);  // the middle one goes at once
    usleep(50000);
    bool good = first_wrong(p, bytes, 9) < 0;
    fill(p, bytes, 10);
    push_out();
    good = good && first_wrong(p, bytes, 10) < 0;
    const pid_t answer = good ? getpid() : -1;
    EXPECT(write(ends[1], &answer, sizeof answer) == sizeof answer);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  EXPECT(close(ends[1]) == 0);
  pid_t answer = 0;
  EXPECT(read(ends[0], &answer, sizeof answer) == sizeof answer && answer > 0);
  EXPECT_PATTERN(p, bytes, 9);
  wait_until_gone(answer);
}

PROBE(many_children_at_once) {
  const size_t bytes = ram() / 2;
  char* p = heap(bytes);
  fill(p, bytes, 11);
  std::vector<pid_t> children;
  for (uint64_t i = 0; i < 6; i++) {
    pid_t child = fork();
    if (child == 0) {
      EXPECT_PATTERN(p, bytes, 11);
      fill(p, bytes, 100 + i);
      char* own = heap(bytes);
      fill(own, bytes, 200 + i);
      EXPECT_PATTERN(p, bytes, 100 + i);
      EXPECT_PATTERN(own, bytes, 200 + i);
      _exit(0);
    }
    children.push_back(child);
  }
  for (pid_t child : children) EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(p, bytes, 11);
}

PROBE(one_child_after_another) {
  char* p = heap(ram());
  for (uint64_t i = 0; i < 40; i++) {
    fill(p, 256 * 1024, i);
    pid_t child = fork();
    if (child == 0) {
      bool good = first_wrong(p, 256 * 1024, i) < 0;
      fill(p, 256 * 1024, i + 1000);
      _exit(good && first_wrong(p, 256 * 1024, i + 1000) < 0 ? 0 : 1);
    }
    EXPECT_CHILD_OK(child);
    EXPECT_PATTERN(p, 256 * 1024, i);
  }
  push_out();
}

PROBE(fork_while_threads_work) {
  static const size_t bytes = ram() / 2 / 4096 * 4096;
  static volatile bool stop;
  pthread_t threads[3];
  for (auto& thread : threads) {
    EXPECT(pthread_create(
               &thread, nullptr,
               [](void*) -> void* {
                 char* p = heap(bytes);
                 for (uint64_t round = 0; !stop; round++) {
                   fill(p, bytes, round);
                   void* volatile small = malloc(100 + round % 1000);
                   free(small);
                   EXPECT_PATTERN(p, bytes, round);
                 }
                 return nullptr;
               },
               nullptr) == 0);
  }
  char* mine = heap(bytes);
  fill(mine, bytes, 77);
  for (int i = 0; i < 12; i++) {
    pid_t child = fork();
    if (child == 0) {
      EXPECT_PATTERN(mine, bytes, 77);
      char* own = heap(bytes);  // the heap's locks are free in the child
      fill(own, bytes, 5);
      EXPECT_PATTERN(own, bytes, 5);
      _exit(0);
    }
    EXPECT_CHILD_OK(child);
  }
  stop = true;
  for (auto& thread : threads) EXPECT(pthread_join(thread, nullptr) == 0);
  EXPECT_PATTERN(mine, bytes, 77);
}

PROBE(fork_from_a_thread) {
  static char* p;
  p = heap(ram());
  fill(p, ram(), 12);
  push_out();
  pthread_t thread;
  EXPECT(pthread_create(
             &thread, nullptr,
             [](void*) -> void* {
               pid_t child = fork();
               if (child == 0) {
                 bool good = first_wrong(p, ram(), 12) < 0;
                 push_out();
                 _exit(good && first_wrong(p, ram(), 12) < 0 ? 0 : 1);
               }
               EXPECT_CHILD_OK(child);
               return nullptr;
             },
             nullptr) == 0);
  EXPECT(pthread_join(thread, nullptr) == 0);
  EXPECT_PATTERN(p, ram(), 12);
}

PROBE(atfork_handlers_touch_the_heap) {
  static char* p;
  static int before, in_parent, in_child;
  p = heap(ram());
  fill(p, ram(), 13);
  push_out();
  EXPECT(pthread_atfork([] { before += first_wrong(p, kMiB, 13) < 0; },
                        [] { in_parent += first_wrong(p, kMiB, 13) < 0; },
                        [] { in_child += first_wrong(p, kMiB, 13) < 0; }) == 0);
  pid_t child = fork();
  if (child == 0) _exit(before == 1 && in_child == 1 && in_parent == 0 ? 0 : 1);
  EXPECT_CHILD_OK(child);
  EXPECT(before == 1 && in_parent == 1 && in_child == 0);
}

PROBE(more_atfork_handlers_than_libc_has_room_for) {
  // libc keeps 48 itself and then moves the list to the heap, from where it must find ours first in the
  // child.
  static char* p;
  static int before, in_parent, in_child;
  constexpr int kHandlers = 200;
  p = heap(ram());
  fill(p, ram(), 15);
  for (int i = 0; i < kHandlers; i++) {
    EXPECT(pthread_atfork([] { before += first_wrong(p, kMiB / 4, 15) < 0; }, [] { in_parent++; },
                          [] { in_child += first_wrong(p, kMiB / 4, 15) < 0; }) == 0);
  }
  push_out();
  for (int i = 1; i <= 3; i++) {
    pid_t child = fork();
    if (child == 0) _exit(in_child == kHandlers && first_wrong(p, ram(), 15) < 0 ? 0 : 1);
    EXPECT_CHILD_OK(child);
    EXPECT(before == i * kHandlers && in_parent == i * kHandlers && in_child == 0);
    stir();
  }
}

PROBE(fork_in_a_signal_handler) {
  static char* p;
  p = heap(ram());
  fill(p, ram(), 14);
  push_out();
  signal(SIGUSR1, [](int) {
    pid_t child = fork();
    if (child == 0) _exit(first_wrong(p, ram(), 14) < 0 ? 0 : 1);
    EXPECT_CHILD_OK(child);
  });
  for (int i = 0; i < 3; i++) EXPECT(raise(SIGUSR1) == 0);
  EXPECT_PATTERN(p, ram(), 14);
}

PROBE(stdio_is_not_doubled_by_fork) {
  // glibc's fork touches the FILE structures, which lie on the heap, before anything else runs in the child.
  std::vector<FILE*> files;
  for (int i = 0; i < 20; i++) {
    files.push_back(fdopen(scratch_file(), "w+"));
    EXPECT(files.back() && fputs("buffered", files.back()) >= 0);
  }
  push_out();
  pid_t child = fork();
  if (child == 0) {
    for (FILE* file : files) EXPECT(fputs(" in the child", file) >= 0);
    _exit(0);  // without flushing
  }
  EXPECT_CHILD_OK(child);
  for (FILE* file : files) {
    EXPECT(fflush(file) == 0);
    struct stat st {};
    EXPECT(fstat(fileno(file), &st) == 0 && st.st_size == 8);
    EXPECT(fclose(file) == 0);
  }
}

PROBE(clone_behind_our_back) {
  // A child that no library sees. It may die by a signal, or see the right bytes; it must not see zeros, and
  // what it writes must not be seen here.
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 22);
  push_out();
  for (int i = 0; i < 5; i++) {
    long child = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr);
    if (child == 0) {
      ssize_t wrong = first_wrong(p, 2 * ram(), 22);
      if (wrong < 0) fill(p, 2 * ram(), 23);
      syscall(SYS_exit_group, wrong < 0 ? 0 : 58);
    }
    EXPECT(child > 0);
    int status = 0;
    EXPECT_EQ(waitpid(static_cast<pid_t>(child), &status, 0), static_cast<pid_t>(child));
    EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    EXPECT_PATTERN(p, 2 * ram(), 22);
  }
}

PROBE(clone_sharing_memory) {  // as posix_spawn does inside: CLONE_VM | CLONE_VFORK on a stack from malloc
  static char* p;
  p = heap(ram());
  fill(p, ram(), 24);
  const size_t bytes = 256 * 1024;
  char* stack = heap(bytes);
  push_out();
  int child = clone([](void*) -> int { return first_wrong(p, 65536, 24) < 0 ? 0 : 1; }, stack + bytes - 64,
                    CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
  EXPECT(child > 0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
  EXPECT_PATTERN(p, ram(), 24);
}

PROBE(a_shell_with_many_children) {
  char* p = heap(ram());
  fill(p, ram(), 25);
  push_out();
  FILE* out = popen(
      "n=0; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do "
      "/bin/true && n=$((n + $(/bin/echo 1))); done; echo $n",
      "r");
  EXPECT(out != nullptr);
  char line[100];
  EXPECT(fgets(line, sizeof line, out) != nullptr);
  EXPECT_EQ(atoi(line), 25);
  EXPECT_EQ(pclose(out), 0);
  EXPECT_PATTERN(p, ram(), 25);
}

PROBE(killed_children_take_nothing_with_them) {
  char* p = heap(ram());
  fill(p, ram(), 26);
  for (int round = 0; round < 4; round++) {
    std::vector<pid_t> children;
    for (int i = 0; i < 3; i++) {
      pid_t child = fork();
      if (child == 0) {
        if (i == 1) {
          execv(self_path(), heap_argv({"probe", "--child", "hold"}));
          _exit(59);
        }
        for (uint64_t n = 1;; n++) {
          fill(p, ram(), n);
          if (first_wrong(p, ram(), n) >= 0) _exit(60);
        }
      }
      children.push_back(child);
    }
    usleep(30000 + 17000 * static_cast<unsigned>(round));
    for (pid_t child : children) {
      EXPECT(kill(child, SIGKILL) == 0);
      int status = 0;
      EXPECT_EQ(waitpid(child, &status, 0), child);
      EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    EXPECT_PATTERN(p, ram(), 26);
    push_out();
  }
  char* q = heap(3 * ram());
  fill(q, 3 * ram(), 27);
  EXPECT_PATTERN(q, 3 * ram(), 27);
  EXPECT_PATTERN(p, ram(), 26);
}

PROBE(parent_killed_child_goes_on) {
  int ends[2], life[2];
  EXPECT(pipe(ends) == 0 && pipe(life) == 0);
  pid_t parent = fork();
  if (parent == 0) {
    char* p = heap(2 * ram());
    fill(p, 2 * ram(), 28);
    if (fork() == 0) {
      close(life[1]);
      char none;
      bool good = read(life[0], &none, 1) == 0;  // when the parent, the last to hold the other end, is dead
      good = good && first_wrong(p, 2 * ram(), 28) < 0;
      fill(p, 2 * ram(), 29);
      push_out();
      good = good && first_wrong(p, 2 * ram(), 29) < 0;
      const pid_t answer = good ? getpid() : -1;
      (void)!write(ends[1], &answer, sizeof answer);
      _exit(0);
    }
    (void)!write(ends[1], "r", 1);
    for (uint64_t n = 1;; n++) fill(p, 2 * ram(), n);
  }
  EXPECT(close(life[1]) == 0);
  char ready = 0;
  EXPECT(read(ends[0], &ready, 1) == 1 && ready == 'r');
  usleep(20000);  // in the middle of filling
  EXPECT(kill(parent, SIGKILL) == 0);
  EXPECT_EQ(waitpid(parent, nullptr, 0), parent);
  EXPECT(close(ends[1]) == 0);
  pid_t answer = 0;
  EXPECT(read(ends[0], &answer, sizeof answer) == sizeof answer && answer > 0);
  wait_until_gone(answer);
}

PROBE(forks_made_inside_libc) {
  char* p = heap(ram());
  fill(p, ram(), 61);
  push_out();
  block_usr1();
  for (int round = 0; round < 3; round++) {
    errno = 77;
    const pid_t child = fork_inside_libc();
    const bool as_before = errno == 77 && only_usr1_blocked();
    if (child == 0) {
      bool good = as_before && first_wrong(p, ram(), 61) < 0;
      fill(p, ram(), 62);
      push_out();
      const pid_t grandchild = fork();
      if (grandchild == 0) _exit(good && first_wrong(p, ram(), 62) < 0 ? 0 : 1);
      EXPECT_CHILD_OK(grandchild);
      _exit(good && first_wrong(p, ram(), 62) < 0 ? 0 : 1);
    }
    EXPECT(as_before);
    EXPECT_CHILD_OK(child);
    const pid_t ordinary = fork();
    if (ordinary == 0) _exit(only_usr1_blocked() && first_wrong(p, ram(), 61) < 0 ? 0 : 1);
    EXPECT_CHILD_OK(ordinary);
  }
  EXPECT_PATTERN(p, ram(), 61);
}

PROBE(forks_made_inside_libc_from_threads) {
  static char* p;
  p = heap(ram());
  fill(p, ram(), 63);
  push_out();
  pthread_t threads[3];
  for (long i = 0; i < 3; i++) {
    const auto body = [](void* which) -> void* {
      for (int round = 0; round < 6; round++) {
        const pid_t child = which != nullptr ? fork_inside_libc() : fork();
        if (child == 0) _exit(first_wrong(p, ram(), 63) < 0 ? 0 : 1);
        EXPECT_CHILD_OK(child);
      }
      return nullptr;
    };
    EXPECT(pthread_create(&threads[i], nullptr, body, reinterpret_cast<void*>(i)) == 0);
  }
  for (auto& thread : threads) EXPECT(pthread_join(thread, nullptr) == 0);
}

PROBE(forks_that_fail_leave_all_as_it_was) {
  char* p = heap(ram());
  fill(p, ram(), 64);
  push_out();
  const pid_t child = fork();
  if (child == 0) {  // one without privileges: root is not limited
    if (geteuid() == 0) EXPECT(setgroups(0, nullptr) == 0 && setuid(65534) == 0);
    rlimit before{};
    EXPECT(getrlimit(RLIMIT_NPROC, &before) == 0);
    block_usr1();
    for (int round = 0; round < 3; round++) {
      const rlimit none{0, before.rlim_max};
      EXPECT(setrlimit(RLIMIT_NPROC, &none) == 0);
      int master = -1;
      EXPECT(fork_inside_libc() == -1 && errno == EAGAIN);
      EXPECT(only_usr1_blocked());
      EXPECT(fork() == -1 && errno == EAGAIN);
      EXPECT(forkpty(&master, nullptr, nullptr, nullptr) == -1 && errno == EAGAIN);
      EXPECT(only_usr1_blocked());
      EXPECT(setrlimit(RLIMIT_NPROC, &before) == 0);
      const pid_t grandchild = round % 2 ? fork_inside_libc() : fork();
      if (grandchild == 0) _exit(only_usr1_blocked() && first_wrong(p, ram(), 64) < 0 ? 0 : 1);
      EXPECT_CHILD_OK(grandchild);
    }
    _exit(first_wrong(p, ram(), 64) < 0 ? 0 : 1);
  }
  EXPECT_CHILD_OK(child);
}

PROBE(forkpty_then_fork) {
  char* p = heap(ram());
  fill(p, ram(), 65);
  push_out();
  block_usr1();
  char name[200] = {};
  const winsize size{30, 90, 0, 0};
  int master = -1;
  const pid_t child = forkpty(&master, name, nullptr, &size);
  if (child == 0) {
    winsize seen{};
    const bool good = isatty(0) && isatty(2) && ioctl(0, TIOCGWINSZ, &seen) == 0 && seen.ws_col == 90 &&
                      getsid(0) == getpid() && only_usr1_blocked();
    (void)!write(1, good && first_wrong(p, ram(), 65) < 0 ? "y" : "n", 1);
    char answer = 0;
    (void)!read(0, &answer, 1);
    _exit(answer == 'q' ? 0 : 1);
  }
  EXPECT(child > 0 && strncmp(name, "/dev/", 5) == 0 && only_usr1_blocked());
  char answer = 0;
  EXPECT(read(master, &answer, 1) == 1 && answer == 'y');
  const pid_t second = fork();
  if (second == 0) _exit(first_wrong(p, ram(), 65) < 0 ? 0 : 1);
  EXPECT_CHILD_OK(second);
  EXPECT(write(master, "q\n", 2) == 2);
  EXPECT_CHILD_OK(child);
  EXPECT(close(master) == 0);
}

PROBE(daemon_then_fork) {
  char* p = heap(ram());
  fill(p, ram(), 66);
  push_out();
  int ends[2];
  EXPECT(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    EXPECT(daemon(0, 0) == 0);
    char folder[100] = {};
    bool good = getsid(0) == getpid() && getcwd(folder, sizeof folder) && !strcmp(folder, "/") && !isatty(0);
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(first_wrong(p, ram(), 66) < 0 ? 0 : 1);
    EXPECT_CHILD_OK(grandchild);
    push_out();
    good = good && first_wrong(p, ram(), 66) < 0;
    const pid_t answer = good ? getpid() : -1;
    (void)!write(ends[1], &answer, sizeof answer);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  pid_t answer = 0;
  EXPECT(read(ends[0], &answer, sizeof answer) == sizeof answer && answer > 0);
  wait_until_gone(answer);
}

PROBE(a_pid_namespace_of_their_own) {
  char* p = heap(ram());
  fill(p, ram(), 67);
  push_out();
  if (unshare((geteuid() != 0 ? CLONE_NEWUSER : 0) | CLONE_NEWPID) != 0) {
    EXPECT(errno == EPERM || errno == ENOSYS || errno == ENOSPC);  // not allowed here
    return;
  }
  const pid_t first = fork();
  if (first == 0) {
    EXPECT_EQ(getpid(), 1);
    const pid_t killed = fork();
    if (killed == 0) {
      for (uint64_t round = 1;; round++) fill(p, ram(), round);
    }
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
      children[i] = i % 2 ? fork() : fork_inside_libc();
      if (children[i] > 0) continue;
      EXPECT_PATTERN(p, ram(), 67);
      EXPECT_EQ(work_in_child(static_cast<uint64_t>(i)), 0);
      if (i == 2) execv(self_path(), heap_argv({"probe", "--child", "exec", "2"}));
      _exit(0);
    }
    EXPECT(kill(killed, SIGKILL) == 0 && waitpid(killed, nullptr, 0) == killed);
    EXPECT_PATTERN(p, ram(), 67);
    for (const pid_t child : children) EXPECT_CHILD_OK(child);
    const pid_t quick = vfork();
    if (quick == 0) {
      execl(self_path(), "probe", "--child", "work", "68", nullptr);
      _exit(1);
    }
    EXPECT_CHILD_OK(quick);
    fill(p, ram(), 69);
    push_out();
    _exit(first_wrong(p, ram(), 69) < 0 ? 0 : 1);
  }
  for (int round = 0; round < 3; round++) push_out();
  EXPECT_PATTERN(p, ram(), 67);
  EXPECT_CHILD_OK(first);
  EXPECT(fork() == -1 && errno == ENOMEM);  // its number 1 is gone
  EXPECT(fork_inside_libc() == -1 && errno == ENOMEM);
  EXPECT_PATTERN(p, ram(), 67);
}

PROBE(a_process_that_makes_itself_a_daemon) {
  std::string path = scratch_folder() + "/probe-daemon-" + std::to_string(getpid());
  char* p = heap(ram());
  fill(p, ram(), 30);
  push_out();
  pid_t child = fork();
  if (child == 0) {
    setsid();
    if (fork() > 0) _exit(0);
    for (int fd = 0; fd < 1024; fd++) close(fd);
    (void)open("/dev/null", O_RDWR);
    (void)!dup(0);
    (void)!dup(0);
    (void)!chdir("/");
    bool good = first_wrong(p, ram(), 30) < 0;
    fill(p, ram(), 31);
    push_out();
    good = good && first_wrong(p, ram(), 31) < 0;
    int fd = open((path + "~").c_str(), O_CREAT | O_WRONLY, 0600);
    const pid_t answer = good ? getpid() : -1;
    (void)!write(fd, &answer, sizeof answer);
    close(fd);
    rename((path + "~").c_str(), path.c_str());
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  int fd = -1;
  for (int i = 0; i < 2000 && fd < 0; i++) {
    fd = open(path.c_str(), O_RDONLY);
    if (fd < 0) usleep(10000);
  }
  EXPECT(fd >= 0);
  pid_t answer = 0;
  EXPECT(read(fd, &answer, sizeof answer) == sizeof answer && answer > 0);
  EXPECT(unlink(path.c_str()) == 0);
  EXPECT_PATTERN(p, ram(), 30);
  wait_until_gone(answer);
}

PROBE(memory_marked_dontfork_or_wipeonfork) {
  char* absent = map(kMiB);
  char* wiped = map(kMiB);
  fill(absent, kMiB, 32);
  fill(wiped, kMiB, 33);
  EXPECT(madvise(absent, kMiB, MADV_DONTFORK) == 0);
  EXPECT(madvise(wiped, kMiB, MADV_WIPEONFORK) == 0);
  push_out();
  pid_t child = fork();
  if (child == 0) {
    if (first_nonzero(wiped, kMiB) >= 0) _exit(1);
    (void)*reinterpret_cast<volatile char*>(absent);  // not there: SIGSEGV
    _exit(2);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
  EXPECT_PATTERN(absent, kMiB, 32);
  EXPECT_PATTERN(wiped, kMiB, 33);
}

PROBE(protections_and_holes_survive_fork) {
  char* p = map(4 * kMiB);
  fill(p, 4 * kMiB, 34);
  EXPECT(mprotect(p, kMiB, PROT_READ) == 0);
  EXPECT(munmap(p + kMiB, kMiB) == 0);
  EXPECT(mprotect(p + 2 * kMiB, kMiB, PROT_NONE) == 0);
  push_out();
  for (int what = 0; what < 4; what++) {
    pid_t child = fork();
    if (child == 0) {
      if (what < 3) {
        p[static_cast<size_t>(what) * kMiB + 5] = 1;  // read-only, hole, no access: each is a SIGSEGV
        _exit(1);
      }
      EXPECT_PATTERN(p, kMiB, 34);
      p[3 * kMiB + 5] = 1;
      EXPECT(mprotect(p + 2 * kMiB, kMiB, PROT_READ | PROT_WRITE) == 0);
      p[2 * kMiB] = 1;
      _exit(0);
    }
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT(what < 3 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV : status == 0);
  }
}

// A file mapped over managed memory, and code: kernel mappings, which the child's engine must leave alone.
PROBE(kernel_mappings_in_the_window_survive_fork) {
  constexpr size_t kBytes = 64 * 4096;
  int fd = scratch_file();
  std::string content(kBytes, 'x');
  EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(kBytes));
  char* p = map(4 * kBytes);
  fill(p, 4 * kBytes, 5);
  EXPECT(mmap(p + kBytes, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0) == p + kBytes);
  char* code = p + 3 * kBytes;
  EXPECT(mmap(code, kBytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
              0) == code);
  code[0] = static_cast<char>(0xc3);  // ret
  push_out();
  pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    EXPECT(memcmp(p + kBytes, content.data(), kBytes) == 0);
    reinterpret_cast<void (*)()>(code)();
    EXPECT_ZEROS(code + 4096, kBytes - 4096);  // never touched before
    code[8 * 4096] = static_cast<char>(0xc3);
    reinterpret_cast<void (*)()>(code + 8 * 4096)();
    p[kBytes] = 'y';
    EXPECT_PATTERN(p, kBytes, 5);
    push_out();
    EXPECT(p[kBytes] == 'y' && p[kBytes + 1] == 'x');
    pid_t grandchild = fork();
    if (grandchild == 0) {
      EXPECT(p[kBytes] == 'y' && p[kBytes + 1] == 'x');
      reinterpret_cast<void (*)()>(code + 8 * 4096)();
      EXPECT_PATTERN(p, kBytes, 5);
      _exit(0);
    }
    EXPECT_CHILD_OK(grandchild);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  EXPECT(p[kBytes] == 'x');
}
