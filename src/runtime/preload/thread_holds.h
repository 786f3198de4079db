// Managed memory that must stay resident until a thread has ended, because the kernel touches it when no page
// fault can be served: the robust mutexes that the thread still holds at its end.
//
// A hold is wired memory and the thread that it is for. It ends when the thread has been joined, or is found
// to be gone when the next thread is made.
#pragma once

#include <pthread.h>

namespace enchilada::runtime {

/// What is held for threads that are gone.
void end_old_holds();
/// What is held for this thread, which has been joined.
void end_holds_of(pthread_t thread);
/// In a forked child: the calling thread has a new number.
void renumber_holds();

/// Holds what the kernel will touch when it releases the robust mutexes of the calling thread.
void hold_robust_mutexes();

}  // namespace enchilada::runtime
