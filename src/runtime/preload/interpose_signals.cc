// Signal calls by symbol: the program's view of SIGBUS, SIGSEGV and SIGSYS; masks that never block them.
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <ucontext.h>

#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/next.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/thread.h"

using namespace enchilada::runtime;

namespace {

std::uint64_t mask_of(const sigset_t& set) {
  std::uint64_t mask;
  memcpy(&mask, &set, sizeof(mask));
  return mask;
}

KernelSigaction to_kernel(const struct sigaction& action) {
  KernelSigaction k{};
  k.handler = reinterpret_cast<std::uint64_t>(action.sa_sigaction);
  k.flags = static_cast<std::uint64_t>(static_cast<unsigned>(action.sa_flags));
  k.mask = mask_of(action.sa_mask);
  return k;
}

void from_kernel(const KernelSigaction& k, struct sigaction* action) {
  memset(action, 0, sizeof(*action));
  action->sa_sigaction = reinterpret_cast<void (*)(int, siginfo_t*, void*)>(k.handler);
  action->sa_flags = static_cast<int>(k.flags);
  memcpy(&action->sa_mask, &k.mask, sizeof(k.mask));
}

Next<int(int, const struct sigaction*, struct sigaction*)> next_sigaction("sigaction");
sighandler_t set_handler(int number, sighandler_t handler, int flags, bool blocks_itself) {
  if (handler == SIG_ERR) {
    errno = EINVAL;
    return SIG_ERR;
  }
  struct sigaction action;
  memset(&action, 0, sizeof(action));
  action.sa_handler = handler;
  action.sa_flags = flags;
  if (blocks_itself) sigaddset(&action.sa_mask, number);
  struct sigaction old;
  return ::sigaction(number, &action, &old) == 0 ? old.sa_handler : SIG_ERR;
}

Next<void(sigjmp_buf, int)> next_longjmp("siglongjmp");
Next<void(sigjmp_buf, int)> next_longjmp_chk("__longjmp_chk");
Next<int(const ucontext_t*)> next_setcontext("setcontext");
Next<int(ucontext_t*, const ucontext_t*)> next_swapcontext("swapcontext");

/// Looked up before a handler needs them, where it is not the time to ask the loader.
void find_ways_out() {
  (void)next_longjmp.get();
  (void)next_longjmp_chk.get();
  (void)next_setcontext.get();
}

void forget_handler_mask() {
  ThreadRecord* const thread = live().ready() ? known_thread() : nullptr;
  if (thread == nullptr) return;
  thread->handler_mask = 0;
  raise_now(*thread);
}

/// The mask of a call that waits with another one, as far as our three signals are concerned. What it lets
/// through and is pending comes at once, and then the call does not wait.
class MaskDuringCall {
 public:
  explicit MaskDuringCall(const sigset_t* set) : given_(set) {
    if (set == nullptr || !live().ready()) return;
    thread_ = &this_thread();
    virtual_mask_ = thread_->virtual_mask;
    handler_mask_ = thread_->handler_mask;
    for_kernel_ = *set;
    const std::uint64_t mask = mask_of(*set) & ~kOurs;
    memcpy(&for_kernel_, &mask, sizeof(mask));
    thread_->virtual_mask = mask_of(*set) & kOurs;
    thread_->handler_mask = 0;
    interrupted_ = raise_now(*thread_);
  }
  ~MaskDuringCall() {
    if (thread_ == nullptr) return;
    thread_->virtual_mask = virtual_mask_;
    thread_->handler_mask = handler_mask_;
  }
  MaskDuringCall(const MaskDuringCall&) = delete;
  MaskDuringCall& operator=(const MaskDuringCall&) = delete;

  /// call(mask for the kernel), or -1 and EINTR.
  template <class Call>
  int wait(Call&& call) const {
    if (!interrupted_) return call(thread_ != nullptr ? &for_kernel_ : given_);
    errno = EINTR;
    return -1;
  }

 private:
  const sigset_t* given_;
  sigset_t for_kernel_;
  ThreadRecord* thread_ = nullptr;
  std::uint64_t virtual_mask_ = 0;
  std::uint64_t handler_mask_ = 0;
  bool interrupted_ = false;
};

Next<int(sigset_t*)> next_sigpending("sigpending");
Next<int(const sigset_t*)> next_sigsuspend("sigsuspend");
Next<int(pollfd*, nfds_t, const timespec*, const sigset_t*)> next_ppoll("ppoll");
Next<int(int, fd_set*, fd_set*, fd_set*, const timespec*, const sigset_t*)> next_pselect("pselect");
Next<int(int, epoll_event*, int, int, const sigset_t*)> next_epoll_pwait("epoll_pwait");

}  // namespace

extern "C" {

ENCHILADA_EXPORT int sigaction(int signal, const struct sigaction* action, struct sigaction* old) noexcept {
  if (!live().ready()) return next_sigaction(signal, action, old);
  if (signal == 32 || signal == 33) {  // libc's own
    errno = EINVAL;
    return -1;
  }
  KernelSigaction wanted{};
  KernelSigaction before{};
  if (action != nullptr) wanted = to_kernel(*action);
  if (wanted.handler > 1 && (signal_bit(signal) & kOurs) != 0) find_ways_out();
  const long result = call_sigaction(signal, action != nullptr ? &wanted : nullptr, &before);
  if (result == 0 && old != nullptr) from_kernel(before, old);
  return static_cast<int>(with_errno(result));
}

ENCHILADA_EXPORT sighandler_t signal(int number, sighandler_t handler) noexcept {
  return set_handler(number, handler, SA_RESTART, true);
}
ENCHILADA_EXPORT sighandler_t bsd_signal(int number, sighandler_t handler) {
  return signal(number, handler);
}
ENCHILADA_EXPORT sighandler_t ssignal(int number, sighandler_t handler) {
  return signal(number, handler);
}
// What signal() is for programs compiled with _XOPEN_SOURCE.
ENCHILADA_EXPORT sighandler_t sysv_signal(int number, sighandler_t handler) noexcept {
  return set_handler(number, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER | SA_INTERRUPT), false);
}
ENCHILADA_EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler) noexcept {
  return sysv_signal(number, handler);
}
ENCHILADA_EXPORT int sigignore(int number) {
  return set_handler(number, SIG_IGN, 0, false) == SIG_ERR ? -1 : 0;
}

// libc's would read and change the action that the kernel has, which is ours.
ENCHILADA_EXPORT int siginterrupt(int number, int interrupts) noexcept {
  struct sigaction action;
  if (::sigaction(number, nullptr, &action) < 0) return -1;
  action.sa_flags = interrupts != 0 ? action.sa_flags & ~SA_RESTART : action.sa_flags | SA_RESTART;
  return ::sigaction(number, &action, nullptr);
}

ENCHILADA_EXPORT int pthread_sigmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  std::uint64_t wanted = set != nullptr ? mask_of(*set) : 0;
  // Signals 32 and 33 are the C library's own; it never lets a program block them.
  wanted &= ~(signal_bit(32) | signal_bit(33));
  std::uint64_t before = 0;
  const long result = call_sigprocmask(how, set != nullptr ? &wanted : nullptr, &before);
  if (result < 0) return static_cast<int>(-result);
  if (old != nullptr) {
    sigemptyset(old);
    memcpy(old, &before, sizeof(before));
  }
  return 0;
}
ENCHILADA_EXPORT int sigprocmask(int how, const sigset_t* set, sigset_t* old) noexcept {
  const int result = pthread_sigmask(how, set, old);
  if (result == 0) return 0;
  errno = result;
  return -1;
}
ENCHILADA_EXPORT int sigpending(sigset_t* set) noexcept {
  sigset_t pending;
  const int result = next_sigpending(&pending);
  if (result != 0) return result;
  if (const ThreadRecord* const thread = live().ready() ? known_thread() : nullptr; thread != nullptr) {
    const std::uint64_t mask = mask_of(pending) | thread->pending;
    memcpy(&pending, &mask, sizeof(mask));
  }
  *set = pending;
  return 0;
}
ENCHILADA_EXPORT int sigaltstack(const stack_t* stack, stack_t* old) noexcept {
  const auto sp = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  return static_cast<int>(with_errno(call_sigaltstack(stack, old, sp)));
}
// These leave a handler with another mask, which libc sets inside itself.
ENCHILADA_EXPORT void siglongjmp(sigjmp_buf where, int value) noexcept {
  if (where[0].__mask_was_saved != 0) forget_handler_mask();
  next_longjmp(where, value);
  __builtin_unreachable();
}
ENCHILADA_EXPORT void longjmp(jmp_buf where, int value) noexcept {
  siglongjmp(where, value);
}
ENCHILADA_EXPORT void _longjmp(jmp_buf where, int value) noexcept {
  siglongjmp(where, value);
}
ENCHILADA_EXPORT void __longjmp_chk(sigjmp_buf where, int value) {  // what _FORTIFY_SOURCE makes of all three
  if (where[0].__mask_was_saved != 0) forget_handler_mask();
  next_longjmp_chk(where, value);
  __builtin_unreachable();
}
ENCHILADA_EXPORT int setcontext(const ucontext_t* to) noexcept {
  forget_handler_mask();
  return next_setcontext(to);
}
ENCHILADA_EXPORT int swapcontext(ucontext_t* from, const ucontext_t* to) noexcept {
  forget_handler_mask();
  return next_swapcontext(from, to);
}

ENCHILADA_EXPORT int sigsuspend(const sigset_t* set) {
  return MaskDuringCall(set).wait([](const sigset_t* mask) { return next_sigsuspend(mask); });
}
ENCHILADA_EXPORT int ppoll(pollfd* fds, nfds_t n, const timespec* timeout, const sigset_t* set) {
  return MaskDuringCall(set).wait([=](const sigset_t* mask) { return next_ppoll(fds, n, timeout, mask); });
}
ENCHILADA_EXPORT int pselect(int n, fd_set* in, fd_set* out, fd_set* except, const timespec* timeout,
                             const sigset_t* set) {
  return MaskDuringCall(set).wait(
      [=](const sigset_t* mask) { return next_pselect(n, in, out, except, timeout, mask); });
}
ENCHILADA_EXPORT int epoll_pwait(int fd, epoll_event* events, int n, int timeout, const sigset_t* set) {
  return MaskDuringCall(set).wait(
      [=](const sigset_t* mask) { return next_epoll_pwait(fd, events, n, timeout, mask); });
}

}  // extern "C"
