// The fault handler, and the program's view of the signals that it takes.
#include "runtime/preload/signals.h"

#include <errno.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "base/check.h"
#include "pmap/host/fault_info.h"
#include "runtime/preload/live.h"
#include "runtime/preload/process.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/user_syscall.h"

extern "C" {
extern const char enchilada_probe_begin[], enchilada_probe_end[], enchilada_probe_fixup[];
void enchilada_restorer();
}
// rt_sigreturn for handlers installed without libc.
asm(R"(
        .text
        .globl enchilada_restorer
        .hidden enchilada_restorer
        .type enchilada_restorer, @function
        nop
enchilada_restorer:
        /* The bytes that unwinders look for: mov $15, %rax; syscall. */
        .byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05
)");

namespace enchilada::runtime {
namespace {

constexpr std::uint64_t kSaRestorer = 0x04000000;
constexpr int kSeccompCode = 1;  // SYS_SECCOMP
constexpr int kSigMax = 64;

struct Virtual {
  KernelSigaction action{};
};
Virtual virtual_actions[kSigMax + 1];
Mutex virtual_lock;

bool ours(int signal) {
  return signal == SIGBUS || signal == SIGSEGV || signal == SIGSYS;
}

bool in_vfork_child() {
  return live().pid() != static_cast<std::uint32_t>(raw_syscall(SYS_getpid));
}

long kernel_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  return raw_syscall(SYS_rt_sigaction, signal, as_long(act), as_long(old), 8);
}

/// Dies of `signal` as the kernel would have it: default action, raised in this thread.
[[noreturn]] void die_of(int signal) {
  KernelSigaction def{};
  kernel_sigaction(signal, &def, nullptr);
  const std::uint64_t none = 0;
  raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signal);
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&none), 0, 8);
  for (;;) raw_syscall(SYS_exit_group, 128 + signal);
}

/// Runs the program's handler as the kernel would have, but on our signal stack.
void deliver(int signal, siginfo_t* info, ucontext_t* context) {
  KernelSigaction action;
  {
    MutexLock guard(virtual_lock);
    action = virtual_actions[signal].action;
    if (action.handler > 1 && (action.flags & SA_RESETHAND) != 0) virtual_actions[signal].action.handler = 0;
  }
  ThreadRecord* thread = known_thread();
  const bool blocked = thread != nullptr && (thread->virtual_mask & signal_bit(signal)) != 0;
  const bool synchronous = info->si_code > 0;
  if (action.handler == 0 || ((action.handler == 1 || blocked) && synchronous)) die_of(signal);
  if (action.handler == 1) return;
  std::uint64_t mask;
  __builtin_memcpy(&mask, &context->uc_sigmask, sizeof(mask));
  const std::uint64_t during =
      (mask | action.mask | ((action.flags & SA_NODEFER) != 0 ? 0 : signal_bit(signal))) & ~kOurs;
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&during), 0, 8);
  if ((action.flags & SA_SIGINFO) != 0) {
    reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.handler)(signal, info, context);
  } else {
    reinterpret_cast<void (*)(int)>(action.handler)(signal);
  }
  const std::uint64_t all = ~kOurs;
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&all), 0, 8);
}

void raise_segv(int code, siginfo_t* info, ucontext_t* context) {
  siginfo_t segv{};
  segv.si_signo = SIGSEGV;
  segv.si_code = code;
  segv.si_addr = info->si_addr;
  deliver(SIGSEGV, &segv, context);
}

/// A probe that touched what is not there goes on at its fixup.
bool fix_up(ucontext_t* context) {
  auto& rip = context->uc_mcontext.gregs[REG_RIP];
  const auto begin = reinterpret_cast<std::int64_t>(enchilada_probe_begin);
  const auto end = reinterpret_cast<std::int64_t>(enchilada_probe_end);
  if (rip < begin || rip >= end) return false;
  rip = reinterpret_cast<std::int64_t>(enchilada_probe_fixup);
  return true;
}

void resolve(siginfo_t* info, ucontext_t* context) {
  const VirtAddr address = fault_address(*info);
  switch (live().fault(address, fault_access(*context))) {
    case FaultResult::kResolved:
      return;
    case FaultResult::kNotMapped:
      if (!fix_up(context)) raise_segv(SEGV_MAPERR, info, context);
      return;
    case FaultResult::kProtection:
      if (!fix_up(context)) raise_segv(SEGV_ACCERR, info, context);
      return;
    case FaultResult::kIoError:
      if (!fix_up(context)) {
        complain({"a page could not be read back from swap: the program gets SIGBUS"});
        deliver(SIGBUS, info, context);
      }
      return;
    case FaultResult::kNoMemory:
      die_of(SIGKILL);
  }
}

/// SIGSEGV inside the window: of our own making (the fork protection), or foreign memory's.
bool own_segv(siginfo_t* info) {
  if (!live().ready() || !layout::in_window(fault_address(*info).value())) return false;
  if (live().pid() != static_cast<std::uint32_t>(raw_syscall(SYS_getpid))) {
    // A vfork child shares our memory and never gets here; a forked one has the fork's protection to lift. A
    // child made behind our back has no window at all (MADV_DONTFORK): better dead than reading zeros.
    return continue_forked_child();
  }
  const bool foreign = live().is_foreign(fault_address(*info));
  const bool forking = live().host().fork_pending();
  if (foreign && !forking) return false;  // the program's own business with its file or code
  return live().wait_for_fork();
}

void on_fault(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  const bool memory_fault = info->si_code > 0 && info->si_code < 0x80;
  if (memory_fault && signal == SIGBUS && info->si_code == BUS_ADRERR && live().ready() &&
      layout::in_window(fault_address(*info).value()) && !live().is_foreign(fault_address(*info))) {
    resolve(info, context);
    return;
  }
  if (memory_fault && signal == SIGSEGV && own_segv(info)) return;
  if (memory_fault && fix_up(context)) return;
  deliver(signal, info, context);
}

void on_sys(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  if (info->si_code == kSeccompCode && handle_trapped_call(*context)) return;
  deliver(signal, info, context);
}

void take_over(int signal, void (*handler)(int, siginfo_t*, void*), KernelSigaction* old) {
  KernelSigaction action{};
  action.handler = reinterpret_cast<std::uint64_t>(handler);
  action.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | kSaRestorer;
  action.restorer = reinterpret_cast<std::uint64_t>(&enchilada_restorer);
  action.mask = ~kOurs;
  kernel_sigaction(signal, &action, old);
}

}  // namespace

void install_handlers() {
  take_over(SIGBUS, on_fault, &virtual_actions[SIGBUS].action);
  take_over(SIGSEGV, on_fault, &virtual_actions[SIGSEGV].action);
  take_over(SIGSYS, on_sys, &virtual_actions[SIGSYS].action);
  // An inherited mask (exec keeps it) may block them.
  raw_syscall(SYS_rt_sigprocmask, 1, as_long(&kOurs), 0, 8);
}

void reinstall_handlers() {
  take_over(SIGBUS, on_fault, nullptr);
  take_over(SIGSEGV, on_fault, nullptr);
  take_over(SIGSYS, on_sys, nullptr);
}

void restore_dispositions_for_exec() {
  for (const int signal : {SIGBUS, SIGSEGV, SIGSYS}) {
    if (virtual_actions[signal].action.handler != 1) continue;
    KernelSigaction ignore{};
    ignore.handler = 1;
    kernel_sigaction(signal, &ignore, nullptr);  // exec resets handlers by itself; SIG_IGN it would keep
  }
}

long call_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  if (signal < 1 || signal > kSigMax) return -EINVAL;
  if (!live().ready()) return kernel_sigaction(signal, act, old);
  if (!ours(signal)) {
    if (act == nullptr) return kernel_sigaction(signal, nullptr, old);
    // A handler may touch managed memory: the three must stay unblocked while it runs, and it must not start
    // on a stack that is paged out.
    KernelSigaction real = *act;
    real.mask &= ~kOurs;
    return kernel_sigaction(signal, &real, old);
  }
  if (in_vfork_child()) {  // our table is the parent's too
    if (old != nullptr) *old = virtual_actions[signal].action;
    return 0;
  }
  SignalsBlocked blocked;
  MutexLock guard(virtual_lock);
  if (old != nullptr) *old = virtual_actions[signal].action;
  if (act != nullptr) virtual_actions[signal].action = *act;
  return 0;
}

std::uint64_t real_mask(std::uint64_t wanted) {
  return live().ready() ? wanted & ~kOurs : wanted;
}

long apply_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old, std::uint64_t* mask) {
  ThreadRecord& thread = this_thread();
  const std::uint64_t before = (*mask & ~kOurs) | thread.virtual_mask;
  std::uint64_t after = before;
  if (set != nullptr) {
    switch (how) {
      case SIG_BLOCK:
        after = before | *set;
        break;
      case SIG_UNBLOCK:
        after = before & ~*set;
        break;
      case SIG_SETMASK:
        after = *set;
        break;
      default:
        return -EINVAL;
    }
    if (!in_vfork_child()) thread.virtual_mask = after & kOurs;
    *mask = after & ~kOurs;
  }
  if (old != nullptr) *old = before;
  return 0;
}

long call_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old) {
  if (!live().ready()) return raw_syscall(SYS_rt_sigprocmask, how, as_long(set), as_long(old), 8);
  // `set` and `old` may be managed memory: read and write them outside of the system calls.
  const std::uint64_t wanted = set != nullptr ? *set : 0;
  std::uint64_t kernel_mask = 0;
  if (set == nullptr) {
    raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, as_long(&kernel_mask), 8);
  } else {
    const std::uint64_t real = wanted & ~kOurs;
    const long result = raw_syscall(SYS_rt_sigprocmask, how, as_long(&real), as_long(&kernel_mask), 8);
    if (result < 0) return result;
  }
  std::uint64_t before = 0;
  const long result = apply_sigprocmask(how, set != nullptr ? &wanted : nullptr, &before, &kernel_mask);
  if (old != nullptr) *old = before;
  return result;
}

long call_sigaltstack(const stack_t* stack, stack_t* old) {
  if (!live().ready()) return raw_syscall(SYS_sigaltstack, as_long(stack), as_long(old));
  ThreadRecord& thread = this_thread();
  const stack_t before = thread.program_stack;
  if (stack != nullptr) {
    stack_t wanted = *stack;
    if ((wanted.ss_flags & ~(SS_DISABLE | SS_ONSTACK)) != 0 && wanted.ss_flags != (1 << 31)) return -EINVAL;
    if ((wanted.ss_flags & SS_DISABLE) == 0 && wanted.ss_size < 2048) return -ENOMEM;
    wanted.ss_flags &= SS_DISABLE;
    thread.program_stack = wanted;
  }
  if (old != nullptr) *old = before;
  return 0;
}

}  // namespace enchilada::runtime
