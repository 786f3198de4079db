// Signals: SIGBUS, SIGSEGV and SIGSYS stay the runtime's; the program sees its own dispositions and masks.
//
// Invariants (live-runtime.md rules 5-7): the three are never blocked in a managed thread, whatever the
// program asks; their kernel action is always ours; a fault that is the program's own reaches the program's
// handler, or kills it with the signal that it would have died of natively. Every handler of the program is
// entered through ours (signal_frame.h).
#pragma once

#include <signal.h>

#include <cstdint>

#include "runtime/preload/thread.h"

namespace enchilada::runtime {

/// Bit of a signal in a kernel mask.
constexpr std::uint64_t signal_bit(int signal) {
  return std::uint64_t{1} << (signal - 1);
}
inline constexpr std::uint64_t kOurs = signal_bit(SIGBUS) | signal_bit(SIGSEGV) | signal_bit(SIGSYS);

/// The kernel's struct sigaction on x86-64.
struct KernelSigaction {
  std::uint64_t handler;
  std::uint64_t flags;
  std::uint64_t restorer;
  std::uint64_t mask;
};

/// Takes the three signals over; remembers what was set before (SIG_IGN is inherited through exec).
void install_handlers();
/// rt_sigaction as the program sees it. `act` and `old` may be null.
long call_sigaction(int signal, const KernelSigaction* act, KernelSigaction* old);
/// The mask that the kernel shall have for the mask `wanted` of the program.
std::uint64_t real_mask(std::uint64_t wanted);
/// rt_sigprocmask as the program sees it (ordinary context).
long call_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old);
/// The same inside a handler: changes the mask that the interrupted code gets back.
long apply_sigprocmask(int how, const std::uint64_t* set, std::uint64_t* old, std::uint64_t* mask);
/// sigaltstack for a caller whose stack pointer is `sp`.
long call_sigaltstack(const stack_t* stack, stack_t* old, std::uint64_t sp);
/// The part that changes it: 0 or -errno.
long set_program_stack(ThreadRecord& thread, const stack_t& wanted, std::uint64_t sp);
/// The kernel's mask while a handler runs that interrupted code with `mask`.
std::uint64_t mask_in_handler(std::uint64_t mask, int signal, const KernelSigaction& action);
/// SIGBUS, SIGSEGV and SIGSYS, as far as the program's handler is to keep them blocked.
std::uint64_t own_mask_in_handler(int signal, const KernelSigaction& action);
/// Raises what is pending and not blocked; it comes with the return from the outermost handler of the
/// runtime.
void raise_at_return(ThreadRecord& thread);
/// The same in ordinary context: it comes before this returns. True if anything did.
bool raise_now(ThreadRecord& thread);
/// Handlers that libc installs without our seeing it (cancellation, setuid in all threads): enter them like
/// the program's.
void adopt_libc_handlers();
/// Dies of `signal` as the kernel would have it: default action, raised in this thread.
[[noreturn]] void die_of(int signal);
/// Before a real execve: the three get the dispositions that the program left them in.
void restore_dispositions_for_exec();
void reinstall_handlers();

}  // namespace enchilada::runtime
