// The seccomp filter that traps system calls on window addresses.
#include "runtime/preload/syscall_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>

#include "runtime/preload/layout.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

struct FilterBuilder {
  sock_filter code[160];
  unsigned short size = 0;
  void op(std::uint16_t c, std::uint32_t k) { code[size++] = BPF_STMT(c, k); }
  void jump(std::uint16_t c, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
    code[size++] = BPF_JUMP(c, k, yes, no);
  }
  void load(std::size_t offset) { op(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
};

/// Four instructions: trap if the argument at `offset` is a window address, else go on (the accumulator is
/// lost).
void trap_window_argument(FilterBuilder& f, std::size_t offset) {
  f.load(offset + 4);
  f.jump(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(layout::kWindow.start.value() >> 32), 0, 2);
  f.jump(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(layout::kWindow.end.value() >> 32), 1, 0);
  f.op(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
}

/// What the loader and libc call in a new program before our handler is there. Registers that these do not
/// read hold anything (the loader's string functions leave words there that look like window addresses), and
/// a trap would be the program's end. The most frequent calls are here too, for speed.
struct Arity {
  long nr;
  unsigned arguments;
};
constexpr Arity kArities[] = {
    {SYS_brk, 1},
    {SYS_set_tid_address, 1},
    {SYS_access, 2},
    {SYS_fstat, 2},
    {SYS_munmap, 2},
    {SYS_arch_prctl, 2},
    {SYS_set_robust_list, 2},
    {SYS_read, 3},
    {SYS_write, 3},
    {SYS_open, 3},
    {SYS_lseek, 3},
    {SYS_mprotect, 3},
    {SYS_getrandom, 3},
    {SYS_readlink, 3},
    {SYS_openat, 4},
    {SYS_pread64, 4},
    {SYS_newfstatat, 4},
    {SYS_rseq, 4},
    {SYS_prlimit64, 4},
    {SYS_rt_sigaction, 4},
    {SYS_rt_sigprocmask, 4},
};

void allow_with_arguments(FilterBuilder& f, unsigned arguments) {
  bool loaded = false;
  for (const Arity& call : kArities) {
    if (call.arguments != arguments) continue;
    if (!loaded) f.load(offsetof(seccomp_data, nr));
    loaded = true;
    f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call.nr), 0, 1);
    f.op(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
}

void build_filter(FilterBuilder& f) {
  constexpr auto kAllow = BPF_RET | BPF_K;
  f.load(offsetof(seccomp_data, arch));
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.load(offsetof(seccomp_data, instruction_pointer) + 4);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(layout::kGadgetPage >> 32), 0, 4);
  f.load(offsetof(seccomp_data, instruction_pointer));
  f.op(BPF_ALU | BPF_AND | BPF_K, ~static_cast<std::uint32_t>(kPageMask));
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(layout::kGadgetPage), 0, 1);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.load(offsetof(seccomp_data, nr));
  // Rings bypass every check here; programs fall back to ordinary calls.
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 1, 0);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1);
  f.op(kAllow, SECCOMP_RET_ERRNO | ENOSYS);
  // Registers that a call does not read hold anything, window addresses too. For most calls a needless trap
  // only costs time; for those that return twice, or never, it would be fatal.
  for (const long nr : {SYS_fork, SYS_vfork, SYS_rt_sigreturn, SYS_exit, SYS_exit_group, SYS_close}) {
    f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(nr), 0, 1);
    f.op(kAllow, SECCOMP_RET_ALLOW);
  }
  constexpr auto kArgs = offsetof(seccomp_data, args);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 5);  // its structure
  trap_window_argument(f, kArgs);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 5);  // its stack
  trap_window_argument(f, kArgs + 8);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  for (unsigned i = 0; i < 6; ++i) {
    trap_window_argument(f, kArgs + 8 * i);
    allow_with_arguments(f, i + 1);
  }
  f.op(kAllow, SECCOMP_RET_ALLOW);
}

/// Does a filter of ours trap window addresses already? A harmless call says so: madvise of the window with
/// advice that does not exist.
std::atomic<bool> trap_seen{false};
constexpr long kNoSuchAdvice = 0x7e57;

}  // namespace

const char* install_filter() {
  raw_syscall(SYS_madvise, static_cast<long>(layout::kWindow.start.value()), 0, kNoSuchAdvice);
  if (trap_seen.load()) return nullptr;
  FilterBuilder filter;
  build_filter(filter);
  const sock_fprog program{filter.size, filter.code};
  if (raw_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return "prctl(PR_SET_NO_NEW_PRIVS) is refused";
  if (raw_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, as_long(&program)) != 0) {
    return "seccomp filters are refused (CONFIG_SECCOMP_FILTER, or a container's own filter)";
  }
  return nullptr;
}

bool answers_filter_question(long nr, const std::uint64_t* args) {
  if (nr != SYS_madvise || args[2] != kNoSuchAdvice) return false;
  trap_seen.store(true);
  return true;
}

}  // namespace enchilada::runtime
