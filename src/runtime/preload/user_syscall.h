// System calls of the program on managed memory: the filter that traps them and the handler that makes them
// work.
//
// The kernel cannot fault pages of the window in (it would get EFAULT), so what a call points to is pinned
// and made resident first; then the call is made at the gadget. Invariants (live-runtime.md rules 4, 7, 8):
// the filter traps only calls with a window address among their arguments, so unmanaged exec'd children live;
// the call itself runs under the program's own signal mask; no more than pin_limit() bytes are pinned by one
// call.
#pragma once

#include <ucontext.h>

#include <cstdint>

#include "runtime/preload/thread.h"

namespace enchilada::runtime {

/// Copies the gadgets to their fixed page. False: the page is taken.
bool install_gadget();

/// The SIGSYS of a trapped call. False: not one of ours.
bool handle_trapped_call(ucontext_t& context);

/// A call made by a wrapper in ordinary context: pins what its arguments need, makes it at the gadget,
/// unpins.
long user_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

/// The same for a function that is a cancellation point.
long cancellable_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

/// A handler is about to interrupt `context`. If that is at a gadget, ends what was under way there such that
/// the handler interrupts the program (or our function) before or after the call: the handler may never
/// return, and may have everything paged out. `restarts`: SA_RESTART.
void leave_gadget(ThreadRecord& thread, ucontext_t& context, bool restarts);

/// Some argument is a window address.
bool points_into_window(long a, long b, long c, long d, long e, long f);

/// Reads a word of the program's memory. False: not readable.
bool peek(std::uint64_t address, std::uint64_t* word);

extern "C" {
bool enchilada_probe_read(const void* address);
bool enchilada_probe_write(void* address);
}

}  // namespace enchilada::runtime
