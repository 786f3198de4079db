// Notification by threads, by symbol: timer_create and mq_notify with SIGEV_THREAD.
//
// libc serves timers from a thread of its own, with all signals blocked: the first page fault in it, or in
// what it hands over to the notified thread, ends the program. So the thread is ours here. A kernel timer
// signals it (32, which libc too uses for this, and which programs cannot use) with the place of the timer in
// a table; it makes a thread for each expiration, as libc does. The timer_t is the kernel's number, so all of
// libc's other timer functions work on it as they are.
#include <errno.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/mutex.h"
#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/next.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/resident_malloc.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscalls.h"

using namespace enchilada::runtime;
using enchilada::raw_syscall;

namespace {

constexpr int kTimerSignal = 32;

/// One timer; resident, and used again but never freed: the server may still get a signal for it.
struct Timer {
  Timer* next;
  int id;
  bool deleted;
  void (*function)(sigval);
  sigval value;
  pthread_attr_t attributes;
};

/// What a notified thread is given.
struct Notification {
  void (*function)(sigval);
  sigval value;
};

/// State of the server, guarded by `lock`, which forks hold.
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
Timer* timers = nullptr;
std::uint32_t server_pid = 0;
std::atomic<std::uint32_t> server_tid{0};
pthread_once_t fork_handlers = PTHREAD_ONCE_INIT;

Next<int(clockid_t, sigevent*, timer_t*)> next_timer_create("timer_create");
Next<int(timer_t)> next_timer_delete("timer_delete");
Next<int(mqd_t, const sigevent*)> next_mq_notify("mq_notify");

void* notify(void* raw) {
  const Notification notification = *static_cast<Notification*>(raw);
  resident_free(raw);
  notification.function(notification.value);
  return nullptr;
}

/// With all signals blocked, as libc does it.
void* notify_of_expiration(void* raw) {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  return notify(raw);
}

void drop(Timer* timer) {
  if (timer->deleted) return;
  timer->deleted = true;
  pthread_attr_destroy(&timer->attributes);
}

/// An expiration of this timer, if it is still one. Like libc, drops it where no thread can be made.
void expire(Timer* timer, int id) {
  auto* const notification = static_cast<Notification*>(resident_allocate(sizeof(Notification)));
  pthread_mutex_lock(&lock);
  const bool wanted = !timer->deleted && timer->id == id && notification != nullptr;
  pthread_t thread;
  bool made = false;
  if (wanted) {
    *notification = {timer->function, timer->value};
    made = pthread_create(&thread, &timer->attributes, notify_of_expiration, notification) == 0;
  }
  pthread_mutex_unlock(&lock);
  if (!made) resident_free(notification);
}

void* serve(void*) {
  const std::uint64_t wanted = signal_bit(kTimerSignal);
  raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, as_long(&wanted), 0, 8);  // libc leaves it open in new threads
  server_tid.store(static_cast<std::uint32_t>(raw_syscall(SYS_gettid)));
  enchilada::futex_wake(server_tid, 1);
  for (;;) {
    siginfo_t info{};
    const long signal = raw_syscall(SYS_rt_sigtimedwait, as_long(&wanted), as_long(&info), 0, 8);
    if (signal != kTimerSignal || info.si_code != SI_TIMER) continue;
    expire(static_cast<Timer*>(info.si_value.sival_ptr), info.si_timerid);
  }
}

/// The server of this process: made by the first timer, and again in a forked child, which has neither the
/// thread nor the timers of its parent. With `lock`. 0, or an error.
int start_server() {
  const auto pid = static_cast<std::uint32_t>(raw_syscall(SYS_getpid));
  if (server_pid == pid) return 0;
  for (Timer* timer = timers; timer != nullptr; timer = timer->next) drop(timer);
  server_tid.store(0);
  const std::uint64_t all = ~(kOurs | signal_bit(33));  // for 33 libc's setuid waits in every thread
  std::uint64_t before = 0;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, as_long(&all), as_long(&before), 8);
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, serve, nullptr);
  raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, as_long(&before), 0, 8);
  pthread_attr_destroy(&attributes);
  if (error != 0) return error;
  while (server_tid.load() == 0) enchilada::futex_wait(server_tid, 0);
  server_pid = pid;
  return 0;
}

/// The program's attributes, or none; always for a detached thread.
void take_attributes(const pthread_attr_t* given, pthread_attr_t* out) {
  if (given != nullptr) {
    copy_thread_attributes(*given, out);
  } else {
    pthread_attr_init(out);
  }
  pthread_attr_setdetachstate(out, PTHREAD_CREATE_DETACHED);
}

/// A place in the list that is free, or a new one.
Timer* free_timer() {
  for (Timer* timer = timers; timer != nullptr; timer = timer->next) {
    if (timer->deleted) return timer;
  }
  auto* const timer = static_cast<Timer*>(resident_allocate(sizeof(Timer)));
  if (timer == nullptr) return nullptr;
  *timer = Timer{};
  timer->next = timers;
  timers = timer;
  return timer;
}

int create_served_timer(clockid_t clock, const sigevent& event, timer_t* out) {
  if (const int error = start_server(); error != 0) return error;
  Timer* const timer = free_timer();
  if (timer == nullptr) return EAGAIN;
  timer->deleted = false;
  timer->function = event.sigev_notify_function;
  timer->value = event.sigev_value;
  take_attributes(event.sigev_notify_attributes, &timer->attributes);
  sigevent real{};
  real.sigev_notify = SIGEV_THREAD_ID;
  real.sigev_signo = kTimerSignal;
  real.sigev_value.sival_ptr = timer;
  real._sigev_un._tid = static_cast<pid_t>(server_tid.load());
  const long result = raw_syscall(SYS_timer_create, clock, as_long(&real), as_long(&timer->id));
  if (result < 0) {
    drop(timer);
    return static_cast<int>(-result);
  }
  *out = reinterpret_cast<timer_t>(static_cast<std::intptr_t>(timer->id));
  return 0;
}

/// With `lock` held by whoever forks.
void watch_forks() {
  pthread_atfork([] { pthread_mutex_lock(&lock); }, [] { pthread_mutex_unlock(&lock); },
                 [] { pthread_mutex_unlock(&lock); });
}

/// In libc's thread for a message queue's notification, which the runtime does not know.
void notify_of_message(sigval raw) {
  adopt_thread();
  watch_thread_end();
  notify(raw.sival_ptr);
}

}  // namespace

extern "C" {

ENCHILADA_EXPORT int timer_create(clockid_t clock, sigevent* event, timer_t* out) noexcept {
  if (!live().ready() || event == nullptr || event->sigev_notify != SIGEV_THREAD) {
    return next_timer_create(clock, event, out);
  }
  pthread_once(&fork_handlers, watch_forks);
  const sigevent wanted = *event;
  timer_t made{};
  const auto create = [](clockid_t of, const sigevent& what, timer_t* to) {
    pthread_mutex_lock(&lock);
    const int error = create_served_timer(of, what, to);
    pthread_mutex_unlock(&lock);
    return long{error};
  };
  const long error = on_libc_stack([=, &made] { return create(clock, wanted, &made); });
  if (error != 0) return static_cast<int>(with_errno(error > 0 ? -error : error));
  *out = made;
  return 0;
}

ENCHILADA_EXPORT int timer_delete(timer_t timer) noexcept {
  if (live().ready()) {
    pthread_mutex_lock(&lock);
    for (Timer* known = timers; known != nullptr; known = known->next) {
      if (!known->deleted && known->id == static_cast<int>(reinterpret_cast<std::intptr_t>(timer)))
        drop(known);
    }
    pthread_mutex_unlock(&lock);
  }
  return next_timer_delete(timer);
}

ENCHILADA_EXPORT int mq_notify(mqd_t queue, const sigevent* event) noexcept {
  if (!live().ready() || event == nullptr || event->sigev_notify != SIGEV_THREAD) {
    return next_mq_notify(queue, event);
  }
  auto* const notification = static_cast<Notification*>(resident_allocate(sizeof(Notification)));
  if (notification == nullptr) return static_cast<int>(with_errno(-ENOMEM));
  *notification = {event->sigev_notify_function, event->sigev_value};
  sigevent staged = *event;
  staged.sigev_notify_function = notify_of_message;
  staged.sigev_value.sival_ptr = notification;
  const ResidentMalloc resident;  // the copy of the attributes is read by libc's thread, all signals blocked
  const int result = next_mq_notify(queue, &staged);
  if (result != 0) resident_free(notification);
  return result;
}

}  // extern "C"
