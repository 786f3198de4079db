// Threads by symbol: their records, their stacks, what libc reads and writes with all signals blocked.
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <threads.h>

#include <algorithm>
#include <atomic>

#include "base/mutex.h"
#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/next.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/resident_malloc.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/thread_holds.h"

namespace enchilada::runtime {
namespace {

struct ThreadStart {
  void* (*function)(void*);
  void* argument;
  std::uint64_t virtual_mask;
  std::uint64_t stack_low;  // the stack that the program gives, if it is managed; else 0
  std::uint64_t stack_size;
};

pthread_key_t end_key;
pthread_once_t end_key_once = PTHREAD_ONCE_INIT;

void make_end_key() {
  pthread_key_create(&end_key, [](void* rounds) {
    // Other destructors may still touch managed memory: be among the last.
    const auto left = reinterpret_cast<std::uintptr_t>(rounds);
    if (left > 1) {
      pthread_setspecific(end_key, reinterpret_cast<void*>(left - 1));
    } else {
      hold_robust_mutexes();
      release_thread();
    }
  });
}

}  // namespace

void watch_thread_end() {
  pthread_once(&end_key_once, make_end_key);
  pthread_setspecific(end_key, reinterpret_cast<void*>(std::uintptr_t{PTHREAD_DESTRUCTOR_ITERATIONS}));
}

}  // namespace enchilada::runtime

using namespace enchilada::runtime;
using enchilada::raw_syscall;
using enchilada::layout::in_window;

namespace {

bool managed(const void* p) {
  return in_window(reinterpret_cast<std::uint64_t>(p)) && live().ready();
}

long run_start_function(void* raw) {
  const ThreadStart start = *static_cast<ThreadStart*>(raw);
  return reinterpret_cast<long>(start.function(start.argument));
}

void* run_thread(void* raw) {
  ThreadStart start = *static_cast<ThreadStart*>(raw);
  resident_free(raw);
  // A mask from the attributes is the kernel's by now, and may block what no thread may block.
  raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, as_long(&kOurs), 0, 8);
  ThreadRecord& thread = adopt_thread();
  thread.virtual_mask = start.virtual_mask;
  thread.handle = pthread_self();
  watch_thread_end();
  if (start.stack_size == 0) return start.function(start.argument);
  thread.stack_low = start.stack_low;
  thread.stack_size = start.stack_size;
  auto* const top = reinterpret_cast<void*>((start.stack_low + start.stack_size) & ~std::uint64_t{15});
  return reinterpret_cast<void*>(enchilada_on_stack(run_start_function, &start, top));
}

bool is_full(const cpu_set_t& cpus) {
  cpu_set_t full;
  memset(&full, 0xff, sizeof(full));
  return CPU_EQUAL(&cpus, &full) != 0;
}

/// Attributes with all but the stack of `given`.
void copy_but_stack(const pthread_attr_t& given, std::size_t size, pthread_attr_t* copy) {
  int value = 0;
  sched_param parameter{};
  cpu_set_t cpus;
  sigset_t mask;
  pthread_attr_init(copy);
  if (pthread_attr_getdetachstate(&given, &value) == 0) pthread_attr_setdetachstate(copy, value);
  if (pthread_attr_getschedpolicy(&given, &value) == 0) pthread_attr_setschedpolicy(copy, value);
  if (pthread_attr_getschedparam(&given, &parameter) == 0) pthread_attr_setschedparam(copy, &parameter);
  if (pthread_attr_getinheritsched(&given, &value) == 0) pthread_attr_setinheritsched(copy, value);
  if (pthread_attr_getscope(&given, &value) == 0) pthread_attr_setscope(copy, value);
  // All processors also means that none were chosen.
  const bool chosen = pthread_attr_getaffinity_np(&given, sizeof(cpus), &cpus) == 0 && !is_full(cpus);
  if (chosen) {
    pthread_attr_setaffinity_np(copy, sizeof(cpus), &cpus);
  }
  if (pthread_attr_getsigmask_np(&given, &mask) == 0) pthread_attr_setsigmask_np(copy, &mask);
  pthread_attr_setstacksize(copy, size);
}

/// Attributes for libc, in memory that stays. A managed stack is not for libc: it starts and ends threads
/// with all signals blocked, and the kernel writes what lies at the top of it. The thread gets one of libc's
/// to begin and end on, and goes over to the program's for the time in between (run_thread()).
void stage_attributes(const pthread_attr_t& given, ThreadStart* start, pthread_attr_t* staged) {
  constexpr std::size_t kLeast = 256 << 10;  // destructors of thread-local objects run there
  void* low = nullptr;
  std::size_t size = 0;
  sigset_t mask;
  if (pthread_attr_getsigmask_np(&given, &mask) == 0) {
    __builtin_memcpy(&start->virtual_mask, &mask, sizeof(start->virtual_mask));
    start->virtual_mask &= kOurs;
  }
  *staged = given;
  if (pthread_attr_getstack(&given, &low, &size) != 0 || !managed(low)) return;
  start->stack_low = reinterpret_cast<std::uint64_t>(low);
  start->stack_size = size;
  copy_but_stack(given, std::max(size, kLeast), staged);
}

Next<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)> next_pthread_create("pthread_create");

int create_thread(pthread_t* thread, const pthread_attr_t* attributes, ThreadStart start) {
  end_old_holds();
  pthread_attr_t staged_attributes;
  if (attributes != nullptr) stage_attributes(*attributes, &start, &staged_attributes);
  auto* staged = static_cast<ThreadStart*>(resident_allocate(sizeof(ThreadStart)));
  if (staged == nullptr) return EAGAIN;
  *staged = start;
  pthread_t made{};
  const int result =
      next_pthread_create(&made, attributes != nullptr ? &staged_attributes : nullptr, run_thread, staged);
  if (start.stack_size != 0) pthread_attr_destroy(&staged_attributes);
  if (result != 0) {
    resident_free(staged);
    return result;
  }
  adopt_libc_handlers();
  *thread = made;
  return 0;
}

}  // namespace

void enchilada::runtime::copy_thread_attributes(const pthread_attr_t& given, pthread_attr_t* copy) {
  void* low = nullptr;
  std::size_t size = 0;
  std::size_t guard = 0;
  pthread_attr_getstacksize(&given, &size);
  copy_but_stack(given, size, copy);
  if (pthread_attr_getguardsize(&given, &guard) == 0) pthread_attr_setguardsize(copy, guard);
  // Where no stack was given, this one ends at address zero.
  if (pthread_attr_getstack(&given, &low, &size) == 0 && reinterpret_cast<std::uint64_t>(low) + size != 0) {
    pthread_attr_setstack(copy, low, size);
  }
}

namespace {

Next<int(pthread_t)> next_pthread_cancel("pthread_cancel");
pthread_once_t cancel_once = PTHREAD_ONCE_INIT;

/// libc installs its handler for cancellation in the first pthread_cancel(), and sends the signal in the same
/// breath. So the first one is of a thread that does not mind.
void adopt_cancellation() {
  std::atomic<std::uint32_t> over{0};
  pthread_t thread{};
  const auto body = [](void* word) -> void* {
    int before = 0;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    auto& wait = *static_cast<std::atomic<std::uint32_t>*>(word);
    while (wait.load() == 0) enchilada::futex_wait(wait, 0);
    return nullptr;
  };
  if (next_pthread_create(&thread, nullptr, body, &over) != 0) return;
  next_pthread_cancel(thread);
  over.store(1);
  enchilada::futex_wake(over, 1);
  pthread_join(thread, nullptr);
  adopt_libc_handlers();
}

}  // namespace

extern "C" {

ENCHILADA_EXPORT int pthread_create(pthread_t* thread, const pthread_attr_t* attributes,
                                    void* (*function)(void*), void* argument) noexcept {
  live().start();
  if (!live().ready()) return next_pthread_create(thread, attributes, function, argument);
  const ThreadStart start{function, argument, this_thread().virtual_mask, 0, 0};
  return static_cast<int>(on_libc_stack([=] { return long{create_thread(thread, attributes, start)}; }));
}

ENCHILADA_EXPORT int pthread_join(pthread_t thread, void** result) {
  static Next<int(pthread_t, void**)> next("pthread_join");
  const int error = next(thread, result);
  if (error == 0 && live().ready()) end_holds_of(thread);
  return error;
}

ENCHILADA_EXPORT int pthread_getattr_np(pthread_t thread, pthread_attr_t* attributes) noexcept {
  static Next<int(pthread_t, pthread_attr_t*)> next("pthread_getattr_np");
  const int error = next(thread, attributes);
  if (error != 0 || !live().ready()) return error;
  const ThreadRecord* record = thread_by_handle(thread);
  if (record == nullptr || record->stack_size == 0) return 0;
  return pthread_attr_setstack(attributes, reinterpret_cast<void*>(record->stack_low), record->stack_size);
}

ENCHILADA_EXPORT int pthread_cancel(pthread_t thread) {
  if (live().ready()) pthread_once(&cancel_once, adopt_cancellation);
  return next_pthread_cancel(thread);
}

ENCHILADA_EXPORT int thrd_create(thrd_t* thread, thrd_start_t function, void* argument) {
  pthread_t made{};
  struct Call {
    thrd_start_t function;
    void* argument;
  };
  auto* call = static_cast<Call*>(resident_allocate(sizeof(Call)));
  if (call == nullptr) return thrd_nomem;
  *call = {function, argument};
  const auto run = [](void* raw) -> void* {
    const Call c = *static_cast<Call*>(raw);
    resident_free(raw);
    return reinterpret_cast<void*>(static_cast<std::intptr_t>(c.function(c.argument)));
  };
  const int result = pthread_create(&made, nullptr, run, call);
  if (result != 0) {
    resident_free(call);
    return result == ENOMEM ? thrd_nomem : thrd_error;
  }
  *thread = made;
  return thrd_success;
}

// What hangs on thread attributes is read when libc has blocked all signals.
ENCHILADA_EXPORT int pthread_attr_setaffinity_np(pthread_attr_t* attributes, size_t size,
                                                 const cpu_set_t* cpus) noexcept {
  static Next<int(pthread_attr_t*, size_t, const cpu_set_t*)> next("pthread_attr_setaffinity_np");
  const ResidentMalloc resident;
  return next(attributes, size, cpus);
}
ENCHILADA_EXPORT int pthread_attr_setsigmask_np(pthread_attr_t* attributes, const sigset_t* mask) {
  static Next<int(pthread_attr_t*, const sigset_t*)> next("pthread_attr_setsigmask_np");
  const ResidentMalloc resident;
  return next(attributes, mask);
}

}  // extern "C"
