// Leaving a stack that is managed memory before the engine is entered.
//
// Coroutines and threads may run on stacks from malloc. Engine code on such a stack could page its own frames
// out and then wait for itself, and the kernel could not write what a system call returns there. So whoever
// enters the engine from a stack in the window goes over to the thread's signal stack first, all of the
// program's signals blocked: then nothing else uses that stack.
#pragma once

#include <type_traits>

#include "runtime/preload/live.h"

namespace enchilada::runtime {

/// Calls function(argument) on the calling thread's signal stack with the program's signals blocked.
long call_on_signal_stack(long (*function)(void*), void* argument);

/// function(argument) on the stack whose upper end is `top`.
extern "C" long enchilada_on_stack(long (*function)(void*), void* argument, void* top);

inline bool on_managed_stack() {
  return layout::in_window(reinterpret_cast<std::uint64_t>(__builtin_frame_address(0))) && live().ready();
}

/// f(), away from a managed stack if it is on one. `f` holds copies of what it needs: it is itself copied
/// over first, because nothing of the old stack may be touched inside the engine.
template <class F>
long off_managed_stack(F f) {
  static_assert(std::is_trivially_copyable_v<F>);
  if (!on_managed_stack()) return f();
  const auto run = [](void* raw) -> long {
    F copy = *static_cast<F*>(raw);
    return copy();
  };
  return call_on_signal_stack(run, &f);
}

/// Calls function(argument) on a stack mapped for the purpose, signals as they are. -ENOMEM: there is none.
long call_on_spare_stack(long (*function)(void*), void* argument);

/// f() away from a managed stack, for libc's functions that block all signals, or make processes and threads:
/// these must see the program's own signal mask.
template <class F>
long on_libc_stack(F f) {
  static_assert(std::is_trivially_copyable_v<F>);
  if (!on_managed_stack()) return f();
  const auto run = [](void* raw) -> long {
    F copy = *static_cast<F*>(raw);
    return copy();
  };
  return call_on_spare_stack(run, &f);
}

}  // namespace enchilada::runtime
