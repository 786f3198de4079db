// Probes of seccomp filters that a program installs for itself.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>
#include <vector>

#include "probe.h"

using namespace probe;

namespace {

using Program = std::vector<sock_filter>;

Program beginning() {
  return {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
}
void judge(Program& program, long nr, uint32_t verdict) {
  program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(nr), 0, 1));
  program.push_back(BPF_STMT(BPF_RET | BPF_K, verdict));
}
void otherwise(Program& program, uint32_t verdict) {
  program.push_back(BPF_STMT(BPF_RET | BPF_K, verdict));
}

/// The program in memory that is paged out when it is installed.
sock_fprog* in_heap(const Program& program) {
  auto* code = reinterpret_cast<sock_filter*>(heap(program.size() * sizeof(sock_filter)));
  memcpy(code, program.data(), program.size() * sizeof(sock_filter));
  return on_heap(sock_fprog{static_cast<unsigned short>(program.size()), code});
}

void install_by_prctl(const Program& program) {
  sock_fprog* filter = in_heap(program);
  push_out();
  EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  EXPECT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter), 0);
}
void install_by_seccomp(const Program& program, unsigned flags) {
  sock_fprog* filter = in_heap(program);
  push_out();
  EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  EXPECT_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, filter), 0);
}

long without_libc(long nr, long a = 0, long b = 0, long c = 0) {
  long result;
  asm volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

constexpr int kAnswer = 77;
constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | kAnswer;

std::atomic<int> traps;
void answer_trap(int, siginfo_t* info, void* raw) {
  auto* context = static_cast<ucontext_t*>(raw);
  if (info->si_code == 1 && info->si_errno == 5) ++traps;  // SYS_SECCOMP
  context->uc_mcontext.gregs[REG_RAX] = 1000 + info->si_syscall;
}

}  // namespace

PROBE(a_filter_that_allows_little_leaves_memory_alone) {
  const size_t bytes = 3 * ram();
  char* p = heap(bytes);
  fill(p, bytes, 1);
  Program program = beginning();
  for (const long nr : {SYS_write, SYS_exit_group, SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_madvise,
                        SYS_newfstatat, SYS_fstat}) {
    judge(program, nr, SECCOMP_RET_ALLOW);
  }
  otherwise(program, kRefuse);
  const int zero = open("/dev/zero", O_RDONLY);
  install_by_prctl(program);
  EXPECT_PATTERN(p, bytes, 1);
  fill(p, bytes, 2);
  push_out();
  EXPECT_PATTERN(p, bytes, 2);
  // What the program calls meets its filter, whichever way it calls.
  const auto refused = [](long result) { return result == -1 && errno == kAnswer; };
  EXPECT(refused(syscall(SYS_getppid)));
  EXPECT(refused(dup2(0, 40)));
  EXPECT(refused(pread(zero, p, 8, 0)));
  EXPECT(refused(fork()));
  EXPECT_EQ(without_libc(SYS_getppid), -kAnswer);
  EXPECT_EQ(without_libc(SYS_read, zero, reinterpret_cast<long>(p), 8), -kAnswer);
  EXPECT_PATTERN(p, bytes, 2);
}

PROBE(a_filter_installed_without_libc) {
  Program program = beginning();
  judge(program, SYS_getppid, kRefuse);
  judge(program, SYS_userfaultfd, SECCOMP_RET_KILL_PROCESS);
  judge(program, SYS_pwrite64, SECCOMP_RET_KILL_PROCESS);
  judge(program, SYS_sched_yield, SECCOMP_RET_KILL_PROCESS);
  otherwise(program, SECCOMP_RET_ALLOW);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 3);
  sock_fprog* filter = in_heap(program);
  push_out();
  EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  EXPECT_EQ(without_libc(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, reinterpret_cast<long>(filter)), 0);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 3);
  EXPECT_EQ(without_libc(SYS_getppid), -kAnswer);
}

PROBE(a_filter_that_traps_reaches_the_programs_handler) {
  struct sigaction action = {};
  action.sa_sigaction = answer_trap;
  action.sa_flags = SA_SIGINFO;
  EXPECT_EQ(sigaction(SIGSYS, &action, nullptr), 0);
  Program program = beginning();
  judge(program, SYS_getppid, SECCOMP_RET_TRAP | 5);
  judge(program, SYS_pread64, SECCOMP_RET_TRAP | 5);
  judge(program, SYS_getpriority, SECCOMP_RET_TRAP | 5);
  otherwise(program, SECCOMP_RET_ALLOW);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 4);
  install_by_prctl(program);
  for (int i = 1; i <= 3; ++i) {
    push_out();
    EXPECT_EQ(syscall(SYS_getppid), 1000 + SYS_getppid);
    EXPECT_EQ(without_libc(SYS_getppid), 1000 + SYS_getppid);
    EXPECT_EQ(pread(0, p, 8, 0), 1000 + SYS_pread64);
    EXPECT_EQ(without_libc(SYS_pread64, 0, reinterpret_cast<long>(p), 8), 1000 + SYS_pread64);
    EXPECT_EQ(traps.load(), 4 * i);
  }
  EXPECT_PATTERN(p, 2 * ram(), 4);
}

PROBE(a_filter_for_all_threads_and_a_fork) {
  static char* p = heap(2 * ram());
  fill(p, 2 * ram(), 5);
  static std::atomic<bool> filtered{false};
  const auto body = [](void*) -> void* {
    while (!filtered) stir();
    EXPECT_EQ(without_libc(SYS_getppid), -kAnswer);
    EXPECT_PATTERN(p, 2 * ram(), 5);
    return nullptr;
  };
  pthread_t threads[2];
  for (pthread_t& t : threads) EXPECT_EQ(pthread_create(&t, nullptr, body, nullptr), 0);
  Program program = beginning();
  judge(program, SYS_getppid, kRefuse);
  judge(program, SYS_userfaultfd, kRefuse);
  judge(program, SYS_pread64, kRefuse);
  judge(program, SYS_preadv, kRefuse);
  otherwise(program, SECCOMP_RET_ALLOW);
  install_by_seccomp(program, SECCOMP_FILTER_FLAG_TSYNC);
  filtered = true;
  for (pthread_t t : threads) pthread_join(t, nullptr);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    push_out();
    EXPECT_PATTERN(p, 2 * ram(), 5);
    EXPECT_EQ(without_libc(SYS_getppid), -kAnswer);
    _exit(0);
  }
  EXPECT_CHILD_OK(child);
  EXPECT_PATTERN(p, 2 * ram(), 5);
}

CHILD_MODE(behind_a_filter) {
  char* p = heap(1 << 20);
  fill(p, 1 << 20, 6);
  EXPECT_PATTERN(p, 1 << 20, 6);
  EXPECT_EQ(without_libc(SYS_getppid), -kAnswer);
  return 0;
}

PROBE(programs_started_behind_a_filter) {
  Program program = beginning();
  judge(program, SYS_getppid, kRefuse);
  judge(program, SYS_userfaultfd, kRefuse);
  judge(program, SYS_memfd_create, SECCOMP_RET_KILL_PROCESS);
  otherwise(program, SECCOMP_RET_ALLOW);
  install_by_prctl(program);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    execl(self_path(), self_path(), "--child", "behind_a_filter", nullptr);
    _exit(1);
  }
  EXPECT_CHILD_OK(child);
  push_out();
}

PROBE_CALM(a_bad_filter_is_refused) {
  EXPECT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  errno = 0;
  EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, nullptr) == -1 && errno == EFAULT);
  Program program = beginning();  // ends without a verdict
  EXPECT(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, in_heap(program)) == -1 && errno == EINVAL);
  sock_fprog* none = on_heap(sock_fprog{0, nullptr});
  EXPECT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, none) == -1 && errno == EINVAL);
}
