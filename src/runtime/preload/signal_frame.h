// Signal frames of the program: moved from our signal stack, where the kernel writes them, to where the
// program would have had them, and back.
//
// Every handler of the program is entered through ours, on the thread's signal stack, because the kernel
// cannot write a frame to memory that is paged out. The frame then moves to the program's stack (its
// alternate stack, or below what was interrupted), like any other data of the program, and the handler runs
// there; our stack is free again. Invariants: between the two moves nothing of the frame is kept outside of
// the program's stack, so the handler may be left by longjmp, or swapped out and finished by another thread;
// the kernel's rt_sigreturn always finds its frame on a signal stack.
#pragma once

#include <signal.h>
#include <ucontext.h>

#include "runtime/preload/signals.h"
#include "runtime/preload/thread.h"

namespace enchilada::runtime {

/// Makes a copy of the frame around `context` for the program and arranges that the return from our handler
/// enters the program's. False: the program has no stack there (natively it would get SIGSEGV).
bool enter_handler(ThreadRecord& thread, int signal, ucontext_t& context, const KernelSigaction& action);

}  // namespace enchilada::runtime
