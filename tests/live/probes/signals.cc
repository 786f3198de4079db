// Probes of signals: the program's own faults and handlers stay its own, whatever the runtime uses signals
// for.
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#include "probe.h"

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

sigjmp_buf escape;
volatile uintptr_t fault_address;
volatile int fault_code;
volatile int fault_signal;
volatile int handled;

void note_and_escape(int signal, siginfo_t* info, void*) {
  fault_signal = signal;
  fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
  fault_code = info->si_code;
  siglongjmp(escape, 1);
}

void install(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  EXPECT(sigaction(signal, &action, nullptr) == 0);
}

void install_simple(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  EXPECT(sigaction(signal, &action, nullptr) == 0);
}

void every(long microseconds) {
  itimerval timer{{0, microseconds}, {0, microseconds}};
  EXPECT(setitimer(ITIMER_REAL, &timer, nullptr) == 0);
}

// What handlers touch: memory that gets paged out meanwhile.
char* storm_memory;
size_t storm_bytes;
volatile int storm_wrong;

void storm_handler(int) {
  errno = 4242;  // a handler that spoils errno must spoil nobody else's
  const size_t at = static_cast<size_t>(handled) * 40961 / 4096 * 4096 % storm_bytes;
  if (first_wrong(storm_memory + at, 4096, at) >= 0) storm_wrong = storm_wrong + 1;
  fill(storm_memory + at, 4096, at);
  handled = handled + 1;
}

void prepare_storm() {
  storm_bytes = ram() / 4096 * 4096;
  storm_memory = map(storm_bytes);
  for (size_t at = 0; at < storm_bytes; at += 4096) fill(storm_memory + at, 4096, at);
}

}  // namespace

PROBE(own_segv_handler_sees_wild_pointers) {
  install(SIGSEGV, note_and_escape);
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 1);
  for (uintptr_t wild : {uintptr_t{0x10}, uintptr_t{0xdead0000}, uintptr_t{0x7ffffffff000}}) {
    fault_signal = 0;
    if (sigsetjmp(escape, 1) == 0) *reinterpret_cast<volatile char*>(wild) = 1;
    EXPECT_EQ(static_cast<int>(fault_signal), SIGSEGV);
    EXPECT_EQ(fault_address, wild);
    EXPECT_EQ(static_cast<int>(fault_code), SEGV_MAPERR);
  }
  fault_signal = 0;  // not canonical: no address is reported
  if (sigsetjmp(escape, 1) == 0) *reinterpret_cast<volatile char*>(0xdeadbeefdeadbeef) = 1;
  EXPECT_EQ(static_cast<int>(fault_signal), SIGSEGV);
  EXPECT_PATTERN(p, 2 * ram(), 1);
}

PROBE(own_handler_mends_and_retries) {  // as garbage collectors do with write barriers
  static char* volatile page;
  page = map(4096);
  fill(page, 4096, 2);
  push_out();
  EXPECT(mprotect(page, 4096, PROT_READ) == 0);
  install(SIGSEGV, [](int, siginfo_t* info, void*) {
    if (info->si_addr != page + 8) _exit(9);
    handled = handled + 1;
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0) _exit(10);
  });
  for (int i = 0; i < 50; i++) {
    *reinterpret_cast<volatile uint64_t*>(page + 8) = static_cast<uint64_t>(i);
    EXPECT_EQ(static_cast<int>(handled), i + 1);
    if (i % 10 == 0) push_out();
    EXPECT_EQ(*reinterpret_cast<volatile uint64_t*>(page + 8), static_cast<uint64_t>(i));
    EXPECT(mprotect(page, 4096, PROT_READ) == 0);
  }
}

PROBE(a_jump_into_data_is_accerr) {
  struct sigaction action = {};
  action.sa_sigaction = note_and_escape;
  action.sa_flags = SA_SIGINFO;
  EXPECT(sigaction(SIGSEGV, &action, nullptr) == 0);
  char* memory = map(4 * 4096);
  memset(memory, 0xc3, 4 * 4096);  // ret
  EXPECT(munmap(memory + 4096, 4096) == 0);
  EXPECT(mprotect(memory + 2 * 4096, 4096, PROT_NONE) == 0);
  const auto jump = [&](char* to) {
    fault_signal = 0;
    if (sigsetjmp(escape, 1) == 0) reinterpret_cast<void (*)()>(to)();
    EXPECT_EQ(static_cast<int>(fault_signal), SIGSEGV);
    EXPECT_EQ(fault_address, reinterpret_cast<uintptr_t>(to));
  };
  for (int round = 0; round < 2; ++round) {
    jump(memory);
    EXPECT_EQ(static_cast<int>(fault_code), SEGV_ACCERR);
    jump(memory + 4096);
    EXPECT_EQ(static_cast<int>(fault_code), SEGV_MAPERR);
    jump(memory + 2 * 4096);
    EXPECT_EQ(static_cast<int>(fault_code), SEGV_ACCERR);
    push_out();
  }
  EXPECT_EQ(memory[0], static_cast<char>(0xc3));
}

PROBE_DIES(a_jump_into_data_kills_by_segv, SIGSEGV) {
  char* memory = map(4096);
  memset(memory, 0xc3, 4096);
  reinterpret_cast<void (*)()>(memory)();
}

PROBE_DIES(null_pointer_kills_by_segv, SIGSEGV) {
  push_out();
  *reinterpret_cast<volatile int*>(0) = 1;
}

PROBE_DIES(wild_pointer_with_segv_ignored_kills, SIGSEGV) {
  signal(SIGSEGV, SIG_IGN);
  push_out();
  *reinterpret_cast<volatile int*>(64) = 1;
}

PROBE_DIES(wild_pointer_with_all_blocked_kills, SIGSEGV) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, nullptr);
  push_out();
  *reinterpret_cast<volatile int*>(64) = 1;
}

PROBE_DIES(unmapped_page_kills_by_segv, SIGSEGV) {
  char* p = map(kMiB);
  fill(p, kMiB, 3);
  munmap(p, kMiB);
  push_out();
  p[77] = 1;
}

PROBE_DIES(truncated_mapping_kills_by_bus, SIGBUS) {
  int fd = scratch_file();
  EXPECT(ftruncate(fd, 8192) == 0);
  auto* p = static_cast<volatile char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
  push_out();
  EXPECT(ftruncate(fd, 0) == 0);
  (void)p[5000];
}

PROBE_DIES(abort_kills_by_abrt, SIGABRT) {
  push_out();
  abort();
}

PROBE_DIES(raised_bus_kills, SIGBUS) {
  raise(SIGBUS);
}

PROBE_DIES(raised_sys_kills, SIGSYS) {
  raise(SIGSYS);
}

PROBE_DIES(killed_by_term, SIGTERM) {
  push_out();
  kill(getpid(), SIGTERM);
  pause();
}

PROBE(own_bus_handler) {
  int fd = scratch_file();
  EXPECT(ftruncate(fd, 16384) == 0);
  auto* p = static_cast<char*>(mmap(nullptr, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  EXPECT(p != MAP_FAILED);
  install(SIGBUS, note_and_escape);
  char* h = heap(2 * ram());
  fill(h, 2 * ram(), 4);
  EXPECT(ftruncate(fd, 4096) == 0);
  for (int i = 0; i < 3; i++) {
    fault_signal = 0;
    if (sigsetjmp(escape, 1) == 0) p[8192 + i] = 1;
    EXPECT_EQ(static_cast<int>(fault_signal), SIGBUS);
    EXPECT_EQ(fault_address, reinterpret_cast<uintptr_t>(p + 8192 + i));
    EXPECT_EQ(static_cast<int>(fault_code), BUS_ADRERR);
    EXPECT_PATTERN(h, 2 * ram(), 4);
  }
}

PROBE(dispositions_read_back) {
  for (int signal : {SIGSEGV, SIGBUS, SIGSYS, SIGUSR1}) {
    struct sigaction old = {};
    EXPECT(sigaction(signal, nullptr, &old) == 0);
    EXPECT(old.sa_handler == SIG_DFL);
    install(signal, note_and_escape, SA_RESTART | SA_NODEFER);
    EXPECT(sigaction(signal, nullptr, &old) == 0);
    EXPECT(old.sa_sigaction == note_and_escape);
    EXPECT((old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER)) == (SA_SIGINFO | SA_RESTART | SA_NODEFER));
    EXPECT(::signal(signal, SIG_DFL) == reinterpret_cast<void (*)(int)>(note_and_escape));
  }
  stir();
  char* p = heap(2 * ram());  // and the runtime's own handlers are still there
  fill(p, 2 * ram(), 5);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 5);
  EXPECT(sigaction(SIGKILL, nullptr, nullptr) == 0 || errno == EINVAL);
}

PROBE(everything_blocked_then_touching_memory) {
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 6);
  push_out();
  auto* all = on_heap(sigset_t{});
  sigfillset(all);
  auto* old = on_heap(sigset_t{});
  push_out();
  EXPECT(sigprocmask(SIG_SETMASK, all, old) == 0);
  EXPECT_PATTERN(p, 2 * ram(), 6);
  fill(p, 2 * ram(), 7);
  push_out();
  sigset_t seen;
  EXPECT(sigprocmask(SIG_SETMASK, nullptr, &seen) == 0);
  for (int s : {SIGSEGV, SIGBUS, SIGSYS, SIGUSR1, SIGTERM}) EXPECT(sigismember(&seen, s) == 1);
  EXPECT(sigismember(old, SIGUSR1) == 0);
  int fd = scratch_file();
  EXPECT_EQ(write(fd, p, kMiB), static_cast<ssize_t>(kMiB));  // a trapped call with everything blocked
  EXPECT(pthread_sigmask(SIG_SETMASK, old, nullptr) == 0);
  EXPECT_PATTERN(p, 2 * ram(), 7);
}

PROBE(everything_blocked_by_raw_call) {
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 8);
  uint64_t all = ~uint64_t{0};
  EXPECT(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, nullptr, 8) == 0);
  push_out();
  EXPECT_PATTERN(p, 2 * ram(), 8);
}

PROBE(handler_with_everything_masked_touches_memory) {
  prepare_storm();
  push_out();
  struct sigaction action = {};
  action.sa_handler = storm_handler;
  sigfillset(&action.sa_mask);
  EXPECT(sigaction(SIGUSR1, &action, nullptr) == 0);
  for (int i = 0; i < 2000; i++) {
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT_EQ(static_cast<int>(handled), i + 1);
  }
  EXPECT_EQ(static_cast<int>(storm_wrong), 0);
}

PROBE(blocked_signal_arrives_when_unblocked) {
  install_simple(SIGUSR1, [](int) { handled = handled + 1; });
  auto* set = on_heap(sigset_t{});
  sigemptyset(set);
  sigaddset(set, SIGUSR1);
  push_out();
  EXPECT(sigprocmask(SIG_BLOCK, set, nullptr) == 0);
  EXPECT(kill(getpid(), SIGUSR1) == 0);
  push_out();
  EXPECT_EQ(static_cast<int>(handled), 0);
  auto* pending = on_heap(sigset_t{});
  push_out();
  EXPECT(sigpending(pending) == 0 && sigismember(pending, SIGUSR1) == 1);
  EXPECT(sigprocmask(SIG_UNBLOCK, set, nullptr) == 0);
  EXPECT_EQ(static_cast<int>(handled), 1);
}

PROBE(the_three_of_memory_wait_while_blocked_too) {
  for (const int number : {SIGBUS, SIGSEGV, SIGSYS}) {
    install_simple(number, [](int) { handled = handled + 1; });
    sigset_t set;
    sigset_t before;
    sigfillset(&set);
    handled = 0;
    EXPECT(sigprocmask(SIG_BLOCK, &set, &before) == 0);
    EXPECT(raise(number) == 0 && raise(number) == 0);  // pending once
    push_out();
    EXPECT_EQ(static_cast<int>(handled), 0);
    sigset_t pending;
    EXPECT(sigpending(&pending) == 0 && sigismember(&pending, number) == 1);
    const pid_t child = fork();
    if (child == 0) _exit(sigpending(&pending) != 0 || sigismember(&pending, number) != 0 || handled != 0);
    EXPECT_CHILD_OK(child);
    sigfillset(&set);
    sigdelset(&set, number);
    EXPECT(sigsuspend(&set) == -1 && errno == EINTR);
    EXPECT_EQ(static_cast<int>(handled), 1);
    EXPECT(raise(number) == 0);
    EXPECT_EQ(static_cast<int>(handled), 1);
    EXPECT(sigprocmask(SIG_SETMASK, &before, nullptr) == 0);
    EXPECT_EQ(static_cast<int>(handled), 2);
  }
}

PROBE_DIES(a_raised_bus_kills_when_it_is_unblocked, SIGBUS) {
  sigset_t set;
  sigset_t before;
  sigfillset(&set);
  if (sigprocmask(SIG_BLOCK, &set, &before) != 0 || raise(SIGBUS) != 0) _exit(3);
  push_out();
  sigprocmask(SIG_SETMASK, &before, nullptr);
}

PROBE(signal_storm_while_paging) {
  prepare_storm();
  install_simple(SIGALRM, storm_handler, SA_RESTART);
  every(300);
  const double until = now() + 1.0;
  char* p = heap(2 * ram());
  uint64_t round = 0;
  int fd = scratch_file();
  while (now() < until || handled <= 20) {
    fill(p, 2 * ram(), ++round);
    errno = 0;
    EXPECT(lseek(fd, 0, SEEK_SET) == 0);
    EXPECT(write(fd, p, kMiB) == static_cast<ssize_t>(kMiB));
    EXPECT_PATTERN(p, 2 * ram(), round);
  }
  every(0);
  EXPECT_EQ(static_cast<int>(storm_wrong), 0);
}

PROBE(storm_of_two_signals_nested) {
  prepare_storm();
  install_simple(SIGALRM, storm_handler, SA_RESTART);
  install_simple(SIGUSR1, storm_handler, SA_RESTART | SA_NODEFER);
  static volatile bool stop;
  pthread_t thread;
  static pthread_t main_thread;
  main_thread = pthread_self();
  sigset_t both, old;
  sigemptyset(&both);
  sigaddset(&both, SIGALRM);
  sigaddset(&both, SIGUSR1);
  EXPECT(pthread_sigmask(SIG_BLOCK, &both, &old) == 0);  // the sender takes none itself
  EXPECT(pthread_create(
             &thread, nullptr,
             [](void*) -> void* {
               while (!stop) {
                 pthread_kill(main_thread, SIGUSR1);
                 timespec nap{0, 400000};
                 nanosleep(&nap, nullptr);
               }
               return nullptr;
             },
             nullptr) == 0);
  EXPECT(pthread_sigmask(SIG_SETMASK, &old, nullptr) == 0);
  every(500);
  const double until = now() + 1.0;
  while (now() < until || handled <= 20) stir();
  every(0);
  stop = true;
  EXPECT(pthread_join(thread, nullptr) == 0);
  // Handlers interrupt each other here, so a page may be seen half filled with the same pattern: still never
  // wrong.
  EXPECT_EQ(static_cast<int>(storm_wrong), 0);
}

PROBE(errno_survives_paging) {
  char* p = map(2 * ram());
  for (size_t i = 0; i < 2 * ram(); i += 4096) {
    errno = 1234;
    p[i] = 1;
    EXPECT(errno == 1234);
  }
}

PROBE(read_interrupted_is_eintr) {
  int ends[2];
  EXPECT(pipe(ends) == 0);
  prepare_storm();
  install_simple(SIGALRM, storm_handler, 0);
  char* buffer = heap(kMiB);
  fill(buffer, kMiB, 9);
  push_out();
  every(3000);  // again and again: one may come before the read has begun
  for (int i = 0; i < 20; i++) {
    const int before = handled;
    errno = 0;
    EXPECT(read(ends[0], buffer, kMiB) == -1 && errno == EINTR);
    EXPECT(handled > before);
  }
  every(0);
  EXPECT_PATTERN(buffer, kMiB, 9);
}

PROBE(read_restarted_while_buffer_is_out) {
  static int ends[2];
  EXPECT(pipe(ends) == 0);
  // The handler pages out what the interrupted read is to fill; SA_RESTART then makes the kernel try again.
  install_simple(
      SIGALRM,
      [](int) {
        push_out();
        handled = handled + 1;
        if (write(ends[1], "hello, heap", 12) != 12) _exit(9);
      },
      SA_RESTART);
  char* buffer = heap(kMiB);
  for (int i = 0; i < 5; i++) {
    push_out();
    memset(buffer, 0, 64);
    itimerval once{{0, 0}, {0, 5000}};
    EXPECT(setitimer(ITIMER_REAL, &once, nullptr) == 0);
    EXPECT_EQ(read(ends[0], buffer, kMiB), 12);
    EXPECT(!strcmp(buffer, "hello, heap"));
    EXPECT_EQ(static_cast<int>(handled), i + 1);
  }
}

PROBE(longjmp_out_of_a_blocking_read) {
  static sigjmp_buf out;
  int ends[2];
  EXPECT(pipe(ends) == 0);
  install_simple(SIGALRM, [](int) { siglongjmp(out, 1); });
  // Each round has a buffer of its own: what an abandoned call kept wired would soon exceed the memory.
  const int rounds = 300;
  char* buffers = heap(4 * ram());
  const size_t step = 4 * ram() / rounds / 4096 * 4096;
  fill(buffers, 4 * ram(), 10);
  volatile int escaped = 0;
  for (volatile int i = 0; i < rounds; i = i + 1) {
    if (sigsetjmp(out, 1) == 0) {
      itimerval once{{0, 0}, {0, 800}};
      EXPECT(setitimer(ITIMER_REAL, &once, nullptr) == 0);
      (void)!read(ends[0], buffers + static_cast<size_t>(i) * step, step);
      fail(__FILE__, __LINE__, "a read of an empty pipe never returns");
    }
    escaped = escaped + 1;
  }
  EXPECT_EQ(static_cast<int>(escaped), rounds);
  EXPECT_PATTERN(buffers, 4 * ram(), 10);
  push_out();
  EXPECT_EQ(write(ends[1], "x", 1), 1);
  EXPECT_EQ(read(ends[0], buffers, 100), 1);
  EXPECT_EQ(buffers[0], 'x');
}

PROBE(alternate_stack_from_malloc) {
  static volatile uintptr_t low, high;
  static volatile bool on_it;
  const size_t bytes = 256 * 1024;
  char* stack = heap(bytes);
  memset(stack, 0x5a, bytes);
  low = reinterpret_cast<uintptr_t>(stack);
  high = low + bytes;
  stack_t mine{}, seen{};
  mine.ss_sp = stack;
  mine.ss_size = bytes;
  EXPECT(sigaltstack(nullptr, &seen) == 0 && (seen.ss_flags & SS_DISABLE));
  EXPECT(sigaltstack(&mine, nullptr) == 0);
  EXPECT(sigaltstack(nullptr, &seen) == 0);
  EXPECT(seen.ss_sp == stack && seen.ss_size == bytes && seen.ss_flags == 0);
  install(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        char here[8192];
        memset(here, 1, sizeof here);
        const auto at = reinterpret_cast<uintptr_t>(here);
        on_it = at > low && at < high;
        stack_t now_on{};
        if (sigaltstack(nullptr, &now_on) != 0 || !(now_on.ss_flags & SS_ONSTACK)) on_it = false;
        stir();
        for (char c : here) {
          if (c != 1) on_it = false;
        }
        handled = handled + 1;
      },
      SA_ONSTACK);
  for (int i = 0; i < 20; i++) {
    push_out();
    on_it = false;
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT(on_it);
  }
  EXPECT_EQ(static_cast<int>(handled), 20);
  stack_t off{};
  off.ss_flags = SS_DISABLE;
  EXPECT(sigaltstack(&off, &seen) == 0 && seen.ss_sp == stack);
  EXPECT(sigaltstack(nullptr, &seen) == 0 && (seen.ss_flags & SS_DISABLE));
}

PROBE(stack_overflow_is_caught_on_the_alternate_stack) {
  stack_t mine{};
  mine.ss_size = 65536;
  mine.ss_sp = heap(mine.ss_size);
  EXPECT(sigaltstack(&mine, nullptr) == 0);
  install(SIGSEGV, note_and_escape, SA_ONSTACK);
  push_out();
  static volatile int depth;
  static int (*volatile recurse)(int) = [](int n) {
    char frame[4096];
    memset(frame, n, sizeof frame);
    depth = depth + 1;
    return recurse(n + 1) + frame[n & 4095];
  };
  if (sigsetjmp(escape, 1) == 0) {
    (void)recurse(0);
    fail(__FILE__, __LINE__, "endless recursion never returns");
  }
  EXPECT_EQ(static_cast<int>(fault_signal), SIGSEGV);
  EXPECT(depth > 100);
  push_out();
}

PROBE(longjmp_and_nesting_on_the_alternate_stack) {
  static volatile uintptr_t outer, inner;
  stack_t mine{}, seen{};
  mine.ss_size = 128 * 1024;
  mine.ss_sp = heap(mine.ss_size);
  EXPECT(sigaltstack(&mine, nullptr) == 0);
  install_simple(
      SIGUSR1,
      [](int) {
        char here = 0;
        outer = reinterpret_cast<uintptr_t>(&here);
        raise(SIGUSR2);
        stir();
        siglongjmp(escape, 1);
      },
      SA_ONSTACK);
  install_simple(
      SIGUSR2,
      [](int) {
        char here = 0;
        inner = reinterpret_cast<uintptr_t>(&here);
        stack_t other{};
        other.ss_flags = SS_DISABLE;
        if (sigaltstack(&other, nullptr) != -1 || errno != EPERM) inner = 0;
      },
      SA_ONSTACK);
  const auto low = reinterpret_cast<uintptr_t>(mine.ss_sp);
  for (int i = 0; i < 20; i++) {
    push_out();
    if (sigsetjmp(escape, 1) == 0) {
      raise(SIGUSR1);
      fail(__FILE__, __LINE__, "the handler does not return");
    }
    EXPECT(inner > low && inner < outer && outer < low + mine.ss_size);
    EXPECT(sigaltstack(nullptr, &seen) == 0 && seen.ss_flags == 0);
  }
}

PROBE(handler_swaps_its_context_out) {  // as preemptive coroutines do, in the middle of a blocking read too
  static ucontext_t main_context, coroutine;
  static int ends[2];
  static char* buffer;
  static volatile int rounds;
  EXPECT(pipe(ends) == 0);
  buffer = heap(64 * 1024);
  install_simple(
      SIGALRM, [](int) { swapcontext(&coroutine, &main_context); }, SA_RESTART);
  make_coroutine(coroutine, main_context, 256 * 1024, [] {
    char local[30000];
    fill(local, sizeof local, 3);
    for (; rounds < 15; rounds = rounds + 1) {
      // Armed here: the alarm comes after this and before the read ends, however long page-ins take.
      const itimerval once{{0, 0}, {0, 3000}};
      if (setitimer(ITIMER_REAL, &once, nullptr) != 0) _exit(8);
      if (read(ends[0], buffer, 64 * 1024) != 6 || strcmp(buffer, "hello") != 0) _exit(9);
      if (first_wrong(local, sizeof local, 3) >= 0) _exit(10);
    }
  });
  for (int i = 0; i < 15; i++) {
    EXPECT(swapcontext(&main_context, &coroutine) == 0);  // until the alarm
    EXPECT_EQ(static_cast<int>(rounds), i);
    push_out();
    EXPECT_EQ(write(ends[1], "hello", 6), 6);
  }
  EXPECT(swapcontext(&main_context, &coroutine) == 0);
  EXPECT_EQ(static_cast<int>(rounds), 15);
}

PROBE(backtrace_from_a_handler) {
  static void* volatile expected;
  static void* found[64];
  static volatile int count;
  EXPECT(backtrace(found, 64) > 0);  // loads what it needs
  install(
      SIGSEGV,
      [](int, siginfo_t*, void* raw) {
        count = backtrace(found, 64);
        auto* context = static_cast<ucontext_t*>(raw);
        context->uc_mcontext.gregs[REG_RAX] = reinterpret_cast<greg_t>(&expected);
      },
      0);
  push_out();
  static int (*volatile faulty)() = [] {
    expected = __builtin_return_address(0);
    void* at = nullptr;
    asm volatile("mov (%%rax), %%rcx" : "+a"(at) : : "rcx", "memory");
    return at == &expected ? 1 : 0;
  };
  EXPECT_EQ(faulty(), 1);
  bool seen = false;
  for (int i = 0; i < count; i++) seen |= found[i] == expected;
  EXPECT(seen);
}

PROBE(waiting_for_signals_with_heap_arguments) {
  auto* set = on_heap(sigset_t{});
  sigemptyset(set);
  sigaddset(set, SIGUSR2);
  EXPECT(sigprocmask(SIG_BLOCK, set, nullptr) == 0);
  auto* info = on_heap(siginfo_t{});
  auto* timeout = on_heap(timespec{5, 0});
  push_out();
  sigval value;
  value.sival_int = 4711;
  EXPECT(sigqueue(getpid(), SIGUSR2, value) == 0);
  EXPECT_EQ(sigtimedwait(set, info, timeout), SIGUSR2);
  EXPECT(info->si_value.sival_int == 4711 && info->si_pid == getpid());
  *timeout = timespec{0, 1000000};
  push_out();
  errno = 0;
  EXPECT(sigtimedwait(set, info, timeout) == -1 && errno == EAGAIN);
  int fd = signalfd(-1, set, SFD_CLOEXEC);
  EXPECT(fd >= 0);
  EXPECT(kill(getpid(), SIGUSR2) == 0);
  auto* record = on_heap(signalfd_siginfo{});
  push_out();
  EXPECT_EQ(read(fd, record, sizeof *record), static_cast<ssize_t>(sizeof *record));
  EXPECT_EQ(record->ssi_signo, static_cast<uint32_t>(SIGUSR2));
  // sigsuspend and ppoll with a mask on the heap, which lets through only this signal.
  install_simple(SIGUSR2, [](int) { handled = handled + 1; });
  auto* mask = on_heap(sigset_t{});
  sigfillset(mask);
  sigdelset(mask, SIGUSR2);
  EXPECT(kill(getpid(), SIGUSR2) == 0);
  push_out();
  errno = 0;
  EXPECT(sigsuspend(mask) == -1 && errno == EINTR && handled == 1);
  EXPECT(kill(getpid(), SIGUSR2) == 0);
  auto* none = on_heap(pollfd{-1, 0, 0});
  push_out();
  errno = 0;
  EXPECT(ppoll(none, 1, nullptr, mask) == -1 && errno == EINTR && handled == 2);
  EXPECT(kill(getpid(), SIGUSR2) == 0);
  push_out();
  errno = 0;
  EXPECT(pselect(0, nullptr, nullptr, nullptr, nullptr, mask) == -1 && errno == EINTR && handled == 3);
}

PROBE(handler_sees_its_context) {
  // A handler may read and change the registers of what it interrupted.
  install(SIGSEGV, [](int, siginfo_t*, void* context) {
    auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    handled = handled + 1;
    registers[REG_RAX] = reinterpret_cast<greg_t>(&handled);
  });
  push_out();
  int got = 0;
  asm volatile("xor %%eax, %%eax\n\tmovl (%%rax), %0" : "=r"(got) : : "rax", "memory");
  EXPECT_EQ(got, 1);
  EXPECT_EQ(static_cast<int>(handled), 1);
}

PROBE(one_shot_handler) {
  struct sigaction action = {};
  action.sa_sigaction = note_and_escape;
  action.sa_flags = SA_SIGINFO | static_cast<int>(SA_RESETHAND);
  EXPECT(sigaction(SIGSEGV, &action, nullptr) == 0);
  push_out();
  if (sigsetjmp(escape, 1) == 0) *reinterpret_cast<volatile char*>(16) = 1;
  EXPECT_EQ(static_cast<int>(fault_signal), SIGSEGV);
  pid_t child = fork();
  if (child == 0) {
    *reinterpret_cast<volatile char*>(16) = 1;  // default again: kills
    _exit(0);
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

PROBE_DIES(segv_inside_the_segv_handler_kills, SIGSEGV) {
  install_simple(SIGSEGV, [](int) {
    handled = handled + 1;
    if (handled > 1) _exit(7);  // blocked meanwhile: the kernel does not enter it again
    *reinterpret_cast<volatile char*>(24) = 1;
  });
  *reinterpret_cast<volatile char*>(16) = 1;
}

PROBE_DIES(segv_masked_by_the_bus_handler_kills, SIGSEGV) {
  struct sigaction action = {};
  action.sa_handler = [](int) { *reinterpret_cast<volatile char*>(24) = 1; };
  sigaddset(&action.sa_mask, SIGSEGV);
  EXPECT(sigaction(SIGBUS, &action, nullptr) == 0);
  install_simple(SIGSEGV, [](int) { _exit(7); });
  raise(SIGBUS);
}

PROBE_CALM(segv_handlers_left_in_every_way_run_again) {
  const auto crash = [] { *reinterpret_cast<volatile char*>(16) = 1; };
  install(SIGSEGV,
          [](int, siginfo_t*, void*) { handled = handled + 1, siglongjmp(escape, 1); });  // with the mask
  for (int i = 0; i < 50; i++) {
    if (sigsetjmp(escape, 1) == 0) crash();
  }
  EXPECT_EQ(static_cast<int>(handled), 50);
  // setcontext, which sets the mask of the context.
  static ucontext_t before;
  static volatile int rounds;
  install_simple(SIGSEGV, [](int) {
    handled = handled + 1;
    setcontext(&before);
  });
  getcontext(&before);
  rounds = rounds + 1;
  if (rounds <= 50) crash();
  EXPECT_EQ(static_cast<int>(handled), 100);
  // The handler unblocks its signal and jumps without the mask.
  static jmp_buf plain;
  install_simple(SIGSEGV, [](int) {
    sigset_t own;
    sigemptyset(&own);
    sigaddset(&own, SIGSEGV);
    sigprocmask(SIG_UNBLOCK, &own, nullptr);
    handled = handled + 1;
    longjmp(plain, 1);
  });
  for (volatile int i = 0; i < 50; i = i + 1) {
    if (setjmp(plain) == 0) crash();
  }
  EXPECT_EQ(static_cast<int>(handled), 150);
  // A handler that asks not to be blocked, and one that returns.
  install_simple(
      SIGSEGV,
      [](int) {
        handled = handled + 1;
        longjmp(plain, 1);
      },
      SA_NODEFER);
  for (volatile int i = 0; i < 50; i = i + 1) {
    if (setjmp(plain) == 0) crash();
  }
  EXPECT_EQ(static_cast<int>(handled), 200);
  install(SIGSEGV, [](int, siginfo_t*, void* context) {
    sigset_t now;
    EXPECT(sigprocmask(SIG_BLOCK, nullptr, &now) == 0 && sigismember(&now, SIGSEGV));
    handled = handled + 1;
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = reinterpret_cast<greg_t>(&handled);
  });
  int got = 0;
  for (int i = 0; i < 5; i++) {
    asm volatile("xor %%eax, %%eax\n\tmovl (%%rax), %0" : "=r"(got) : : "rax", "memory");
  }
  EXPECT_EQ(static_cast<int>(handled), 205);
  sigset_t now;
  EXPECT(sigprocmask(SIG_BLOCK, nullptr, &now) == 0 && !sigismember(&now, SIGSEGV));
}

// What jumps out of a handler and leaves the mask: the signal stays blocked, and the next one kills.
PROBE_DIES(segv_after_a_jump_that_left_it_blocked_kills, SIGSEGV) {
  install_simple(SIGSEGV, [](int) {
    handled = handled + 1;
    if (handled > 1) _exit(7);
    longjmp(escape, 1);
  });
  if (sigsetjmp(escape, 0) == 0) *reinterpret_cast<volatile char*>(16) = 1;
  *reinterpret_cast<volatile char*>(16) = 1;
}
