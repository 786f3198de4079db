// Signals: SIGBUS, SIGSEGV and SIGSYS stay the runtime's; the program sees its own dispositions and masks.
//
// Invariants (live-runtime.md rules 5-7): the three are never blocked in a managed thread, whatever the
// program asks; their kernel action is always ours; a fault that is the program's own reaches the program's
// handler, or kills it with the signal that it would have died of natively.
#pragma once

#include <signal.h>

#include <cstdint>

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
long call_sigaltstack(const stack_t* stack, stack_t* old);
/// Before a real execve: the three get the dispositions that the program left them in.
void restore_dispositions_for_exec();
void reinstall_handlers();

}  // namespace enchilada::runtime
