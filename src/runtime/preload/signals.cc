// The fault handler, and the program's view of the signals that it takes.
#include "runtime/preload/signals.h"

#include <errno.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <atomic>

#include "base/check.h"
#include "pmap/host/fault_info.h"
#include "runtime/preload/live.h"
#include "runtime/preload/process.h"
#include "runtime/preload/signal_frame.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscall_filter.h"
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

/// What the program has installed, each word by itself for handlers that read it while another thread
/// writes: `version` is odd meanwhile. Of the signals that are not ours only real handlers are kept here; the
/// kernel knows of SIG_DFL and SIG_IGN, so that a handler just being entered is always found.
struct Virtual {
  std::atomic<std::uint32_t> version{0};
  std::atomic<std::uint64_t> handler{0};
  std::atomic<std::uint64_t> flags{0};
  std::atomic<std::uint64_t> restorer{0};
  std::atomic<std::uint64_t> mask{0};
};
Virtual virtual_actions[kSigMax + 1];
/// Of writers, who also hold the gate: no fork happens between two versions.
Mutex virtual_lock;

KernelSigaction program_action(int signal) {
  const Virtual& v = virtual_actions[signal];
  KernelSigaction action{};
  std::uint32_t version = 0;
  do {
    while (((version = v.version.load(std::memory_order_acquire)) & 1) != 0) raw_syscall(SYS_sched_yield);
    action = {v.handler.load(std::memory_order_relaxed), v.flags.load(std::memory_order_relaxed),
              v.restorer.load(std::memory_order_relaxed), v.mask.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
  } while (v.version.load(std::memory_order_relaxed) != version);
  return action;
}

void set_program_action(int signal, const KernelSigaction& action) {
  Virtual& v = virtual_actions[signal];
  v.version.fetch_add(1, std::memory_order_acquire);
  std::atomic_thread_fence(std::memory_order_release);
  v.handler.store(action.handler, std::memory_order_relaxed);
  v.flags.store(action.flags, std::memory_order_relaxed);
  v.restorer.store(action.restorer, std::memory_order_relaxed);
  v.mask.store(action.mask, std::memory_order_relaxed);
  v.version.fetch_add(1, std::memory_order_release);
}

bool ours(int signal) {
  return signal == SIGBUS || signal == SIGSEGV || signal == SIGSYS;
}

siginfo_t& pending_info(ThreadRecord& thread, int signal) {
  return thread.pending_info[signal == SIGBUS ? 0 : signal == SIGSEGV ? 1 : 2];
}

/// One of ours that cannot be delivered now. Like the kernel's, it is pending once, however often it is sent.
void put_off(ThreadRecord& thread, int signal, const siginfo_t& info) {
  if ((thread.pending & signal_bit(signal)) != 0) return;
  pending_info(thread, signal) = info;
  thread.pending |= signal_bit(signal);
}

/// Sends one that is pending and not blocked to the calling thread; false: there is none.
bool send_pending(ThreadRecord& thread) {
  for (const int signal : {SIGBUS, SIGSEGV, SIGSYS}) {
    if ((thread.pending & ~thread.blocked() & signal_bit(signal)) == 0) continue;
    siginfo_t info = pending_info(thread, signal);
    thread.pending &= ~signal_bit(signal);
    raw_syscall(SYS_rt_tgsigqueueinfo, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signal,
                as_long(&info));
    return true;
  }
  return false;
}

bool in_vfork_child() {
  return live().pid() != static_cast<std::uint32_t>(raw_syscall(SYS_getpid));
}

long kernel_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  return raw_syscall(SYS_rt_sigaction, signal, as_long(act), as_long(old), 8);
}

/// A thread without a signal stack (it is ending, or libc does not know it): the frame stays where it is.
void run_in_place(int signal, siginfo_t* info, ucontext_t* context, const KernelSigaction& action) {
  std::uint64_t mask;
  __builtin_memcpy(&mask, &context->uc_sigmask, sizeof(mask));
  mask = mask_in_handler(mask, signal, action);
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&mask), 0, 8);
  if ((action.flags & SA_SIGINFO) != 0) {
    reinterpret_cast<void (*)(int, siginfo_t*, void*)>(action.handler)(signal, info, context);
  } else {
    reinterpret_cast<void (*)(int)>(action.handler)(signal);
  }
  const std::uint64_t all = ~kOurs;
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&all), 0, 8);
}

std::uint64_t stack_pointer(const ucontext_t& context) {
  return static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
}

/// The kernel's answer to a frame that cannot be written.
void force_segv(int failed, siginfo_t* info, ucontext_t* context);

/// Enters a handler of the program: arranges it on our signal stack, it begins when our handler returns.
void enter(int signal, siginfo_t* info, ucontext_t* context, const KernelSigaction& action) {
  if (!on_signal_stack(reinterpret_cast<std::uint64_t>(context))) {
    return run_in_place(signal, info, context, action);
  }
  ThreadRecord& thread = this_thread();
  if (on_signal_stack(stack_pointer(*context))) {  // it came while a handler of ours ran
    if (info->si_code > 0 || !ours(signal)) die_of(signal);
    return put_off(thread, signal, *info);
  }
  if (!enter_handler(thread, signal, *context, action)) force_segv(signal, info, context);
}

/// SIGBUS, SIGSEGV or SIGSYS that is the program's own business. `info` is the one in the frame.
void deliver(int signal, siginfo_t* info, ucontext_t* context) {
  const KernelSigaction action = program_action(signal);
  ThreadRecord* const thread = known_thread();
  const bool blocked = thread != nullptr && (thread->blocked() & signal_bit(signal)) != 0;
  const bool synchronous = info->si_code > 0;
  if (blocked && !synchronous) return put_off(*thread, signal, *info);
  if (action.handler == 0 || ((action.handler == 1 || blocked) && synchronous)) die_of(signal);
  if (action.handler == 1) return;
  if ((action.flags & SA_RESETHAND) != 0) virtual_actions[signal].handler.store(0);
  enter(signal, info, context, action);
}

void force_segv(int failed, siginfo_t* info, ucontext_t* context) {
  if (failed == SIGSEGV) die_of(SIGSEGV);
  *info = siginfo_t{};
  info->si_signo = SIGSEGV;
  info->si_code = SI_KERNEL;
  deliver(SIGSEGV, info, context);
}

void raise_segv(int code, siginfo_t* info, ucontext_t* context) {
  void* const address = info->si_addr;
  *info = siginfo_t{};
  info->si_signo = SIGSEGV;
  info->si_code = code;
  info->si_addr = address;
  deliver(SIGSEGV, info, context);
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
    case FaultResult::kOutOfBounds:
      if (!fix_up(context)) deliver(SIGBUS, info, context);
      return;
    case FaultResult::kNoMemory:
      die_of(SIGKILL);
  }
}

/// May a fork that is over by now have caused this fault? Then the access is tried again, once for each fork.
bool forked_meanwhile() {
  ThreadRecord* const thread = known_thread();
  if (thread == nullptr || is_forking_thread()) return false;
  {
    const ReadLock finished(live().gate());  // the protection of foreign ranges comes back last
  }
  const std::uint32_t forks = live().host().forks();
  if (forks == thread->segv_forks) return false;
  thread->segv_forks = forks;
  return true;
}

/// SIGSEGV inside the window: of our own making (the fork protection), foreign memory's, or a jump into
/// managed memory, none of which can be executed.
bool own_segv(siginfo_t* info, const ucontext_t& context) {
  if (!live().ready() || !layout::in_window(fault_address(*info).value())) return false;
  if (live().pid() != static_cast<std::uint32_t>(raw_syscall(SYS_getpid))) {
    // A vfork child shares our memory and never gets here; a forked one has the fork's protection to lift. A
    // child made behind our back has no window at all (MADV_DONTFORK): better dead than reading zeros.
    return continue_forked_child();
  }
  if (live().host().fork_pending()) return live().wait_for_fork();
  if (forked_meanwhile()) return true;
  if (live().is_foreign(fault_address(*info))) return false;  // the program's business with its file or code
  if (!fault_in_code(context)) return live().wait_for_fork();
  // The kernel has mapped all of the window; of what the program has not, it would say so.
  if (live().fault(fault_address(*info), Access::kRead) == FaultResult::kNotMapped)
    info->si_code = SEGV_MAPERR;
  return false;
}

void handle_fault(int signal, siginfo_t* info, ucontext_t* context) {
  const bool memory_fault = info->si_code > 0 && info->si_code < 0x80;
  if (memory_fault && signal == SIGBUS && info->si_code == BUS_ADRERR && live().ready() &&
      layout::in_window(fault_address(*info).value()) && !live().is_foreign(fault_address(*info))) {
    resolve(info, context);
    return;
  }
  if (memory_fault && signal == SIGSEGV && own_segv(info, *context)) return;
  if (memory_fault && fix_up(context)) return;
  deliver(signal, info, context);
}

/// The end of a handler of ours: of the outermost, when what it interrupted is not ours.
void end_handler(const ucontext_t& context) {
  if (on_signal_stack(reinterpret_cast<std::uint64_t>(&context)) &&
      !on_signal_stack(stack_pointer(context))) {
    raise_at_return(this_thread());
  }
}

void on_fault(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  handle_fault(signal, info, context);
  end_handler(*context);
}

void on_sys(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  const bool ours = info->si_code == kSeccompCode && info->si_errno == kTrapMark;
  if (!ours || !handle_trapped_call(*context)) deliver(signal, info, context);
  end_handler(*context);
}

/// Every other signal for which the program has a handler.
void on_other(int signal, siginfo_t* info, void* raw_context) {
  auto* context = static_cast<ucontext_t*>(raw_context);
  enter(signal, info, context, program_action(signal));
  end_handler(*context);
}

KernelSigaction ours_for(void (*handler)(int, siginfo_t*, void*), std::uint64_t more_flags) {
  KernelSigaction action{};
  action.handler = reinterpret_cast<std::uint64_t>(handler);
  action.flags = more_flags | SA_SIGINFO | SA_ONSTACK | kSaRestorer;
  action.restorer = reinterpret_cast<std::uint64_t>(&enchilada_restorer);
  action.mask = ~kOurs;
  return action;
}

void take_over(int signal, void (*handler)(int, siginfo_t*, void*), bool first) {
  const KernelSigaction action = ours_for(handler, SA_NODEFER);
  KernelSigaction before{};
  kernel_sigaction(signal, &action, &before);
  if (first) set_program_action(signal, before);
}

void take_over_all(bool first) {
  take_over(SIGBUS, on_fault, first);
  take_over(SIGSEGV, on_fault, first);
  take_over(SIGSYS, on_sys, first);
}

/// The kernel's action for a handler of the program is our entry; the program sees its own.
long install_entry(int signal, const KernelSigaction& wanted, KernelSigaction* old) {
  const KernelSigaction before = program_action(signal);
  set_program_action(signal, wanted);
  const KernelSigaction entry = ours_for(on_other, wanted.flags);
  const long result = kernel_sigaction(signal, &entry, old);
  if (result == 0 && old->handler == entry.handler) *old = before;
  return result;
}

long other_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  const bool handles = act != nullptr && act->handler > 1;
  if (handles && signal != SIGKILL && signal != SIGSTOP && !in_vfork_child()) {
    return install_entry(signal, *act, old);
  }
  KernelSigaction real = act != nullptr ? *act : KernelSigaction{};
  real.mask &= ~kOurs;
  const long result = kernel_sigaction(signal, act != nullptr ? &real : nullptr, old);
  if (result == 0 && old->handler == reinterpret_cast<std::uint64_t>(&on_other))
    *old = program_action(signal);
  return result;
}

long own_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  *old = program_action(signal);
  if (act != nullptr && !in_vfork_child()) set_program_action(signal, *act);  // our table is the parent's too
  return 0;
}

long change_action(int signal, const KernelSigaction* act, KernelSigaction* old) {
  const SignalsBlocked blocked;
  const ReadLock gate(live().gate());
  const MutexLock guard(virtual_lock);
  return ours(signal) ? own_sigaction(signal, act, old) : other_sigaction(signal, act, old);
}

}  // namespace

void die_of(int signal) {
  KernelSigaction def{};
  kernel_sigaction(signal, &def, nullptr);
  const std::uint64_t none = 0;
  raw_syscall(SYS_tgkill, raw_syscall(SYS_getpid), raw_syscall(SYS_gettid), signal);
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&none), 0, 8);
  for (;;) raw_syscall(SYS_exit_group, 128 + signal);
}

std::uint64_t own_mask_in_handler(int signal, const KernelSigaction& action) {
  return (action.mask | ((action.flags & SA_NODEFER) == 0 ? signal_bit(signal) : 0)) & kOurs;
}

std::uint64_t mask_in_handler(std::uint64_t mask, int signal, const KernelSigaction& action) {
  if ((action.flags & SA_NODEFER) == 0) mask |= signal_bit(signal);
  return (mask | action.mask) & ~kOurs;
}

void raise_at_return(ThreadRecord& thread) {
  if ((thread.pending & ~thread.blocked()) == 0) return;
  const std::uint64_t everything = ~std::uint64_t{0};
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&everything), 0, 8);
  while (send_pending(thread)) {
  }
}

bool raise_now(ThreadRecord& thread) {
  if (thread.pending == 0 || in_vfork_child()) return false;
  bool any = false;
  while (send_pending(thread)) any = true;
  return any;
}

void adopt_libc_handlers() {
  constexpr int kCancel = 32, kSetId = 33;
  for (const int signal : {kCancel, kSetId}) {
    KernelSigaction now{};
    KernelSigaction old{};
    if (kernel_sigaction(signal, nullptr, &now) != 0 || now.handler <= 1 ||
        now.handler == reinterpret_cast<std::uint64_t>(&on_other)) {
      continue;
    }
    change_action(signal, &now, &old);
  }
}

void install_handlers() {
  take_over_all(true);
  // An inherited mask (exec keeps it) may block them.
  raw_syscall(SYS_rt_sigprocmask, 1, as_long(&kOurs), 0, 8);
}

void reinstall_handlers() {
  take_over_all(false);
}

void restore_dispositions_for_exec() {
  for (const int signal : {SIGBUS, SIGSEGV, SIGSYS}) {
    if (program_action(signal).handler != 1) continue;
    KernelSigaction ignore{};
    ignore.handler = 1;
    kernel_sigaction(signal, &ignore, nullptr);  // exec resets handlers by itself; SIG_IGN it would keep
  }
}

long call_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old) {
  if (signal < 1 || signal > kSigMax) return -EINVAL;
  if (!live().ready()) return kernel_sigaction(signal, act, old);
  // The actions may be managed memory: they are touched neither by the kernel nor under a lock.
  if (on_managed_stack()) return off_managed_stack([=] { return call_sigaction(signal, act, old); });
  KernelSigaction wanted{};
  if (act != nullptr) wanted = *act;
  KernelSigaction before{};
  const long result = change_action(signal, act != nullptr ? &wanted : nullptr, &before);
  if (result == 0 && old != nullptr) *old = before;
  return result;
}

std::uint64_t real_mask(std::uint64_t wanted) {
  return live().ready() ? wanted & ~kOurs : wanted;
}

long apply_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old, std::uint64_t* mask) {
  ThreadRecord& thread = this_thread();
  const std::uint64_t before = (*mask & ~kOurs) | thread.blocked();
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
    if (!in_vfork_child()) {
      const std::uint64_t explicitly = how == SIG_BLOCK ? *set : 0;
      thread.handler_mask &= after & ~explicitly;
      thread.virtual_mask = after & kOurs & ~thread.handler_mask;
    }
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
  if (set != nullptr) raise_now(this_thread());
  return result;
}

long set_program_stack(ThreadRecord& thread, const stack_t& wanted, std::uint64_t sp) {
  constexpr std::size_t kLeast = 2048;  // MINSIGSTKSZ
  const int mode = wanted.ss_flags & ~kAutoDisarm;
  if (mode != 0 && mode != SS_DISABLE && mode != SS_ONSTACK) return -EINVAL;
  if (on_program_stack(thread, sp)) return -EPERM;
  stack_t next{};
  next.ss_flags = wanted.ss_flags;
  if (mode == SS_DISABLE) {
    next.ss_flags |= SS_DISABLE;
  } else {
    if (wanted.ss_size < kLeast) return -ENOMEM;
    next.ss_flags &= kAutoDisarm;
    next.ss_sp = wanted.ss_sp;
    next.ss_size = wanted.ss_size;
  }
  thread.program_stack = next;
  return 0;
}

long call_sigaltstack(const stack_t* stack, stack_t* old, std::uint64_t sp) {
  if (!live().ready()) return raw_syscall(SYS_sigaltstack, as_long(stack), as_long(old));
  ThreadRecord& thread = this_thread();
  stack_t before = thread.program_stack;
  if (on_program_stack(thread, sp)) before.ss_flags |= SS_ONSTACK;
  if (stack != nullptr) {
    const long result = set_program_stack(thread, *stack, sp);
    if (result < 0) return result;
  }
  if (old != nullptr) *old = before;
  return 0;
}

}  // namespace enchilada::runtime
