// Probes of threads: synchronisation on the heap, stacks of many kinds, coming and going, all while memory is
// paged.
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "probe.h"

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

template <typename Body>
void in_threads(size_t count, Body body) {
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; i++) threads.emplace_back(body, i);
  for (auto& thread : threads) thread.join();
}

}  // namespace

PROBE(two_threads_fault_and_are_paged_out) {
  const size_t bytes = 2 * ram();
  char* p[2] = {map(bytes), map(bytes)};
  in_threads(2, [&](size_t me) {
    for (uint64_t round = 0; round < 4; round++) {
      fill(p[me], bytes, round * 2 + me);
      EXPECT_PATTERN(p[me], bytes, round * 2 + me);
    }
  });
}

PROBE(threads_fault_on_the_same_pages) {
  const size_t bytes = 3 * ram();
  auto* p = reinterpret_cast<std::atomic<uint64_t>*>(map(bytes));
  const size_t words = bytes / 8, step = 512;  // one word a page
  in_threads(4, [&](size_t me) {
    for (int round = 0; round < 3; round++) {
      for (size_t i = 0; i < words; i += step) {
        const size_t at = me % 2 ? words - step - i : i;
        p[at + me].fetch_add(1);
        p[at + 8].fetch_add(1);
      }
    }
  });
  for (size_t i = 0; i < words; i += step) {
    for (size_t me = 0; me < 4; me++) EXPECT_EQ(p[i + me].load(), 3u);
    EXPECT_EQ(p[i + 8].load(), 12u);
  }
}

PROBE(writers_lose_nothing_to_eviction) {
  // A small hot array written all the time while another thread forces everything out again and again.
  const size_t pages = 64;
  auto* hot = reinterpret_cast<volatile uint64_t*>(map(pages * 4096));
  std::atomic<bool> stop{false};
  std::thread pusher([&] {
    for (int i = 0; i < 12; i++) push_out();
    stop = true;
  });
  uint64_t round = 0;
  while (!stop) {
    round++;
    for (size_t i = 0; i < pages; i++) {
      EXPECT_EQ(hot[i * 512 + i], round - 1);
      hot[i * 512 + i] = round;
    }
  }
  pusher.join();
  for (size_t i = 0; i < pages; i++) EXPECT_EQ(hot[i * 512 + i], round);
}

PROBE(mutex_and_condition_on_the_heap) {
  struct Queue {
    std::mutex mutex;
    std::condition_variable filled, drained;
    std::deque<std::vector<uint64_t>> items;
    bool done = false;
  };
  auto queue = std::make_unique<Queue>();
  std::atomic<uint64_t> sum{0};
  std::vector<std::thread> consumers;
  for (int i = 0; i < 6; i++) {
    consumers.emplace_back([&] {
      for (;;) {
        std::unique_lock lock(queue->mutex);
        queue->filled.wait(lock, [&] { return queue->done || !queue->items.empty(); });
        if (queue->items.empty()) return;
        auto item = std::move(queue->items.front());
        queue->items.pop_front();
        queue->drained.notify_one();
        lock.unlock();
        EXPECT_PATTERN(item.data(), (item.size() - 1) * 8, item.back());
        sum += item.back();
      }
    });
  }
  uint64_t expected = 0;
  for (uint64_t n = 1; n <= 400; n++) {
    std::vector<uint64_t> item(16384);  // 128 KiB
    fill(item.data(), (item.size() - 1) * 8, n);
    item.back() = n;
    expected += n;
    std::unique_lock lock(queue->mutex);
    queue->drained.wait(lock, [&] { return queue->items.size() < 3 * ram() / (128 * 1024); });
    queue->items.push_back(std::move(item));
    queue->filled.notify_one();
    if (n % 100 == 0) {
      lock.unlock();
      push_out();
    }
  }
  {
    std::lock_guard lock(queue->mutex);
    queue->done = true;
  }
  queue->filled.notify_all();
  for (auto& thread : consumers) thread.join();
  EXPECT_EQ(sum.load(), expected);
}

PROBE(semaphores_barriers_and_rwlocks_on_the_heap) {
  auto* semaphore = on_heap(sem_t{});
  auto* barrier = on_heap(pthread_barrier_t{});
  auto* lock = on_heap(pthread_rwlock_t{});
  EXPECT(sem_init(semaphore, 0, 0) == 0);
  EXPECT(pthread_barrier_init(barrier, nullptr, 4) == 0);
  EXPECT(pthread_rwlock_init(lock, nullptr) == 0);
  auto* value = on_heap(uint64_t{0});
  in_threads(4, [&](size_t me) {
    for (int i = 0; i < 10; i++) {
      pthread_barrier_wait(barrier);
      if (me == 0) push_out();
      pthread_rwlock_wrlock(lock);
      *value += 1;
      pthread_rwlock_unlock(lock);
      sem_post(semaphore);
      pthread_rwlock_rdlock(lock);
      EXPECT(*value > 0);
      pthread_rwlock_unlock(lock);
      sem_wait(semaphore);
    }
  });
  EXPECT_EQ(*value, 40u);
}

PROBE(process_shared_mutex_in_shared_memory) {
  struct Shared {
    pthread_mutex_t mutex;
    pthread_cond_t condition;
    int turn;
  };
  auto* shared =
      static_cast<Shared*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  pthread_mutexattr_t mutex_kind;
  pthread_condattr_t condition_kind;
  pthread_mutexattr_init(&mutex_kind);
  pthread_mutexattr_setpshared(&mutex_kind, PTHREAD_PROCESS_SHARED);
  pthread_condattr_init(&condition_kind);
  pthread_condattr_setpshared(&condition_kind, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(&shared->mutex, &mutex_kind);
  pthread_cond_init(&shared->condition, &condition_kind);
  pid_t child = fork();
  const int mine = child == 0;
  for (int i = 0; i < 20; i++) {
    EXPECT(pthread_mutex_lock(&shared->mutex) == 0);
    while (shared->turn % 2 != mine) pthread_cond_wait(&shared->condition, &shared->mutex);
    shared->turn++;
    pthread_cond_signal(&shared->condition);
    EXPECT(pthread_mutex_unlock(&shared->mutex) == 0);
    stir();
  }
  if (child == 0) _exit(0);
  EXPECT_CHILD_OK(child);
  EXPECT_EQ(shared->turn, 40);
  push_out();
}

PROBE(robust_mutex_on_the_heap) {
  auto* mutex = on_heap(pthread_mutex_t{});
  pthread_mutexattr_t kind;
  EXPECT(pthread_mutexattr_init(&kind) == 0);
  EXPECT(pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST) == 0);
  EXPECT(pthread_mutex_init(mutex, &kind) == 0);
  for (int i = 0; i < 3; i++) {
    std::thread([&] {
      EXPECT(pthread_mutex_lock(mutex) == 0);
      push_out();  // the mutex is out when its owner dies
    }).join();
    EXPECT_EQ(pthread_mutex_lock(mutex), EOWNERDEAD);
    EXPECT(pthread_mutex_consistent(mutex) == 0);
    EXPECT(pthread_mutex_unlock(mutex) == 0);
  }
}

PROBE(threads_come_and_go_under_pressure) {
  char* p = heap(2 * ram());
  fill(p, 2 * ram(), 1);
  std::atomic<int> ran{0};
  for (int round = 0; round < 40; round++) {
    in_threads(6, [&](size_t me) {
      char* own = heap(200000);
      fill(own, 200000, me);
      const size_t at = (me * 7919 + static_cast<size_t>(round) * 104729) * 4096 % (2 * ram());
      (void)*reinterpret_cast<volatile char*>(p + at);
      EXPECT_PATTERN(own, 200000, me);
      free(own);
      ran++;
    });
  }
  EXPECT_EQ(ran.load(), 240);
  EXPECT_PATTERN(p, 2 * ram(), 1);
}

PROBE(detached_threads_and_exit_of_main) {
  // The main thread leaves by pthread_exit; the process ends when the last thread does.
  pid_t child = fork();
  if (child == 0) {
    static char* p;
    p = heap(2 * ram());
    fill(p, 2 * ram(), 2);
    pthread_t thread;
    EXPECT(pthread_create(
               &thread, nullptr,
               [](void*) -> void* {
                 usleep(20000);
                 push_out();
                 _exit(first_wrong(p, 2 * ram(), 2) < 0 ? 0 : 1);
               },
               nullptr) == 0);
    EXPECT(pthread_detach(thread) == 0);
    pthread_exit(nullptr);
  }
  EXPECT_CHILD_OK(child);
  push_out();
}

PROBE(thread_stacks_from_malloc) {
  const size_t bytes = 512 * 1024;
  for (int round = 0; round < 4; round++) {
    void* stack = aligned_alloc(4096, bytes);
    EXPECT(stack != nullptr);
    memset(stack, 0x77, bytes);
    push_out();
    pthread_attr_t attributes;
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setstack(&attributes, stack, bytes) == 0);
    pthread_t thread;
    EXPECT(pthread_create(
               &thread, &attributes,
               [](void* base) -> void* {
                 char deep[300000];
                 const auto at = reinterpret_cast<char*>(deep), low = static_cast<char*>(base);
                 if (at < low || at > low + 512 * 1024) return nullptr;
                 fill(deep, sizeof deep / 8 * 8, 3);
                 push_out();
                 int fd = scratch_file();
                 if (write(fd, deep, sizeof deep) != static_cast<ssize_t>(sizeof deep)) return nullptr;
                 return first_wrong(deep, sizeof deep / 8 * 8, 3) < 0 ? base : nullptr;
               },
               stack) == 0);
    void* result = nullptr;
    EXPECT(pthread_join(thread, &result) == 0);
    EXPECT(result == stack);
    free(stack);
  }
}

PROBE(coroutines_on_stacks_from_malloc) {
  constexpr size_t kCount = 300, kStack = 128 * 1024;
  static ucontext_t main_context;
  static std::vector<ucontext_t> contexts;
  static size_t finished;
  static bool wrong;
  contexts.resize(kCount);
  for (size_t i = 0; i < kCount; i++) {
    EXPECT(getcontext(&contexts[i]) == 0);
    contexts[i].uc_stack.ss_sp = heap(kStack);
    contexts[i].uc_stack.ss_size = kStack;
    contexts[i].uc_link = &main_context;
    makecontext(&contexts[i], reinterpret_cast<void (*)()>(+[](int me) {
      char local[90000];
      fill(local, sizeof local, static_cast<uint64_t>(me));
      for (int round = 0; round < 3; round++) {
        swapcontext(&contexts[static_cast<size_t>(me)], &main_context);
        if (first_wrong(local, sizeof local, static_cast<uint64_t>(me)) >= 0) wrong = true;
        int fd = open("/dev/null", 1);
        if (write(fd, local, sizeof local) != static_cast<ssize_t>(sizeof local)) wrong = true;
        close(fd);
      }
      finished++;
    }),
                1, static_cast<int>(i));
  }
  for (int round = 0; round < 4; round++) {
    for (size_t i = 0; i < kCount; i++) EXPECT(swapcontext(&main_context, &contexts[i]) == 0);
  }
  EXPECT_EQ(finished, kCount);
  EXPECT(!wrong);
}

PROBE(signals_on_a_coroutine_stack) {
  // The handler runs on the interrupted stack, which is managed memory.
  static volatile int handled;
  signal(SIGUSR1, [](int) {
    char local[20000];
    fill(local, sizeof local, 9);
    stir();
    handled = handled + (first_wrong(local, sizeof local, 9) < 0);
  });
  static ucontext_t main_context, context;
  make_coroutine(context, main_context, 512 * 1024, [] {
    for (int i = 0; i < 10; i++) {
      raise(SIGUSR1);
      push_out();
    }
  });
  EXPECT(swapcontext(&main_context, &context) == 0);
  EXPECT_EQ(static_cast<int>(handled), 10);
}

PROBE(processes_and_threads_made_on_a_coroutine_stack) {
  static char* p;
  p = heap(ram());
  fill(p, ram(), 12);
  static ucontext_t main_context, context;
  make_coroutine(context, main_context, 256 * 1024, [] {
    char local[40000];
    fill(local, sizeof local, 13);
    for (int i = 0; i < 3; i++) {
      push_out();
      pid_t child = fork();
      if (child == 0) {
        sigset_t mask;
        sigprocmask(SIG_BLOCK, nullptr, &mask);
        _exit(first_wrong(p, ram(), 12) < 0 && first_wrong(local, sizeof local, 13) < 0 &&
                      !sigismember(&mask, SIGUSR1)
                  ? 0
                  : 1);
      }
      EXPECT_CHILD_OK(child);
      push_out();
      EXPECT_EQ(WEXITSTATUS(system("exit 7")), 7);
      in_threads(2, [](size_t) {
        sigset_t mask;
        EXPECT(pthread_sigmask(SIG_BLOCK, nullptr, &mask) == 0 && !sigismember(&mask, SIGUSR1));
        stir();
      });
      EXPECT_PATTERN(local, sizeof local, 13);
    }
  });
  EXPECT(swapcontext(&main_context, &context) == 0);
  EXPECT_PATTERN(p, ram(), 12);
}

PROBE(thread_attributes_on_the_heap) {  // read when libc has blocked all signals
  auto* attributes = on_heap(pthread_attr_t{});
  EXPECT(pthread_attr_init(attributes) == 0);
  cpu_set_t all;
  EXPECT(sched_getaffinity(0, sizeof all, &all) == 0);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  const size_t bytes = 1 << 20;
  void* stack = aligned_alloc(4096, bytes);
  for (int round = 0; round < 4; round++) {
    if (round == 1) EXPECT(pthread_attr_setaffinity_np(attributes, sizeof all, &all) == 0);
    if (round == 2) EXPECT(pthread_attr_setsigmask_np(attributes, &mask) == 0);
    if (round == 3) EXPECT(pthread_attr_setstack(attributes, stack, bytes) == 0);
    push_out();
    auto* thread = on_heap(pthread_t{});
    EXPECT(pthread_create(
               thread, attributes,
               [](void*) -> void* {
                 pthread_attr_t own;
                 void* low = nullptr;
                 size_t size = 0;
                 sigset_t now;
                 EXPECT(pthread_getattr_np(pthread_self(), &own) == 0);
                 EXPECT(pthread_attr_getstack(&own, &low, &size) == 0);
                 pthread_attr_destroy(&own);
                 const auto here = reinterpret_cast<uintptr_t>(&own),
                            start = reinterpret_cast<uintptr_t>(low);
                 EXPECT(here > start && here < start + size);
                 EXPECT(pthread_sigmask(SIG_BLOCK, nullptr, &now) == 0);
                 return sigismember(&now, SIGUSR2) ? low : nullptr;
               },
               nullptr) == 0);
    void* result = nullptr;
    EXPECT(pthread_join(*thread, &result) == 0);
    EXPECT((result != nullptr) == (round >= 2));
    EXPECT(round < 3 || result == stack);
  }
  EXPECT(pthread_attr_destroy(attributes) == 0);
}

PROBE(thread_attributes_with_a_signal_mask) {  // managed memory and system calls on it, whatever is blocked
  static char* shared;
  shared = heap(ram());
  fill(shared, ram(), 21);
  push_out();
  const auto body = [](void* blocks) -> void* {
    EXPECT_PATTERN(shared, ram(), 21);
    char* own = heap(2 * ram());
    fill(own, 2 * ram(), 22);
    EXPECT_PATTERN(own, 2 * ram(), 22);
    const int fd = scratch_file();
    EXPECT(write(fd, shared, kMiB) == static_cast<ssize_t>(kMiB));
    EXPECT(pread(fd, own, kMiB, 0) == static_cast<ssize_t>(kMiB));
    EXPECT_PATTERN(own, kMiB, 21);
    EXPECT(close(fd) == 0);
    free(own);
    sigset_t now;
    EXPECT(pthread_sigmask(SIG_BLOCK, nullptr, &now) == 0);
    for (const int signal : {SIGBUS, SIGSEGV, SIGSYS, SIGTERM, SIGUSR1}) {
      EXPECT_EQ(sigismember(&now, signal), signal == SIGUSR1 || blocks != nullptr);
    }
    return nullptr;
  };
  sigset_t all, one, before;
  sigfillset(&all);
  sigemptyset(&one);
  sigaddset(&one, SIGUSR1);
  for (const bool blocks : {true, false}) {
    pthread_attr_t attributes;
    EXPECT(pthread_attr_init(&attributes) == 0);
    EXPECT(pthread_attr_setsigmask_np(&attributes, blocks ? &all : &one) == 0);
    // The creator's mask does not count: it is the opposite.
    EXPECT(pthread_sigmask(SIG_SETMASK, blocks ? &one : &all, &before) == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, &attributes, body, blocks ? &attributes : nullptr) == 0);
    EXPECT(pthread_join(thread, nullptr) == 0);
    EXPECT(pthread_sigmask(SIG_SETMASK, &before, nullptr) == 0);
    EXPECT(pthread_attr_destroy(&attributes) == 0);
  }
}

PROBE(timers_notify_by_threads) {  // SIGEV_THREAD: in threads that libc makes natively
  static std::atomic<int> ticks[2];
  static char* p;
  p = heap(ram());
  fill(p, ram(), 23);
  push_out();
  const auto tick = [](sigval value) {
    EXPECT_PATTERN(p, ram() / 4, 23);
    ++*static_cast<std::atomic<int>*>(value.sival_ptr);
  };
  const auto make = [tick](std::atomic<int>* count, pthread_attr_t* attributes) {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD;
    event.sigev_notify_function = tick;
    event.sigev_notify_attributes = attributes;
    event.sigev_value.sival_ptr = count;
    timer_t timer;
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    const itimerspec often{{0, 20'000'000}, {0, 20'000'000}};
    EXPECT(timer_settime(timer, 0, &often, nullptr) == 0);
    return timer;
  };
  const auto wait = [](std::atomic<int>& count, int least) {
    while (count < least) stir();
  };
  pthread_attr_t attributes;
  EXPECT(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, kMiB) == 0);
  timer_t timers[2] = {make(&ticks[0], nullptr), make(&ticks[1], &attributes)};
  EXPECT(pthread_attr_destroy(&attributes) == 0);
  wait(ticks[0], 4);
  wait(ticks[1], 4);
  const pid_t child = fork();  // has none of the timers, and may have its own
  if (child == 0) {
    ticks[0] = 0;
    const timer_t own = make(&ticks[0], nullptr);
    wait(ticks[0], 3);
    _exit(timer_delete(own) == 0 ? 0 : 1);
  }
  EXPECT_CHILD_OK(child);
  for (const timer_t timer : timers) {
    itimerspec left{};
    EXPECT(timer_gettime(timer, &left) == 0 && left.it_interval.tv_nsec == 20'000'000);
    EXPECT(timer_delete(timer) == 0);
    EXPECT(timer_delete(timer) == -1 && errno == EINVAL);
  }
}

PROBE(message_queues_notify_by_threads) {
  static std::atomic<int> seen;
  static char* p;
  p = heap(ram());
  fill(p, ram(), 24);
  const std::string name = "/enchilada-probe-" + std::to_string(getpid());
  const mqd_t queue = mq_open(name.c_str(), O_CREAT | O_RDWR | O_NONBLOCK, 0600, nullptr);
  if (queue < 0) return;  // not here
  EXPECT(mq_unlink(name.c_str()) == 0);
  for (int round = 0; round < 4; round++) {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD;
    event.sigev_value.sival_ptr = p;
    event.sigev_notify_function = [](sigval value) {
      EXPECT_PATTERN(value.sival_ptr, ram(), 24);
      ++seen;
    };
    EXPECT(mq_notify(queue, &event) == 0);
    push_out();
    EXPECT(mq_send(queue, "x", 1, 0) == 0);
    while (seen <= round) stir();
    std::vector<char> message(1 << 16);
    EXPECT(mq_receive(queue, message.data(), message.size(), nullptr) == 1);
  }
  EXPECT(mq_close(queue) == 0);
}

PROBE(cancelled_in_a_blocking_read) {
  static int ends[2];
  EXPECT(pipe(ends) == 0);
  const int rounds = 60;
  const size_t each = 4 * ram() / rounds / 4096 * 4096;
  char* p = heap(each * rounds);
  fill(p, each * rounds, 4);
  for (int i = 0; i < rounds; i++) {
    pthread_t thread;
    struct Argument {
      char* at;
      size_t bytes;
    } argument{p + static_cast<size_t>(i) * each, each};
    EXPECT(pthread_create(
               &thread, nullptr,
               [](void* a) -> void* {
                 auto* what = static_cast<Argument*>(a);
                 (void)!read(ends[0], what->at, what->bytes);
                 return nullptr;
               },
               &argument) == 0);
    usleep(2000);
    EXPECT(pthread_cancel(thread) == 0);
    void* result = nullptr;
    EXPECT(pthread_join(thread, &result) == 0);
    EXPECT(result == PTHREAD_CANCELED);
  }
  EXPECT_PATTERN(p, each * rounds, 4);  // nothing stayed wired: 4 x ram() was lent to those reads
  push_out();
}

PROBE(thread_local_storage_and_keys) {
  static thread_local char big[200000];
  static std::atomic<int> destroyed;
  pthread_key_t key;
  EXPECT(pthread_key_create(&key, [](void* p) {
           destroyed += first_wrong(p, 80000, 6) < 0;
           free(p);
         }) == 0);
  in_threads(8, [&](size_t me) {
    fill(big, sizeof big, me);
    void* own = heap(80000);
    fill(own, 80000, 6);
    EXPECT(pthread_setspecific(key, own) == 0);
    push_out();
    EXPECT_PATTERN(big, sizeof big, me);
  });
  EXPECT_EQ(destroyed.load(), 8);
}

PROBE(a_lock_handed_around_many_threads) {
  struct Cell {
    std::mutex mutex;
    uint64_t value = 0;
    char rest[4000];
  };
  const size_t count = 2 * ram() / sizeof(Cell);
  auto* cells = new Cell[count];
  in_threads(8, [&](size_t me) {
    uint64_t random = me + 1;
    for (int i = 0; i < 3000; i++) {
      random = random * 6364136223846793005ull + 1442695040888963407ull;
      Cell& cell = cells[(random >> 33) % count];
      std::lock_guard lock(cell.mutex);
      cell.value++;
    }
  });
  uint64_t total = 0;
  for (size_t i = 0; i < count; i++) total += cells[i].value;
  EXPECT_EQ(total, 24000u);
}

PROBE(unmap_and_protect_while_others_fault) {
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    while (!stop) {
      char* p = map(2 * kMiB);
      fill(p, 2 * kMiB, 8);
      EXPECT(mprotect(p, kMiB, PROT_READ) == 0);
      EXPECT_PATTERN(p, 2 * kMiB, 8);
      p = static_cast<char*>(mremap(p + kMiB, kMiB, 3 * kMiB, MREMAP_MAYMOVE));
      EXPECT(p != MAP_FAILED);
      EXPECT(munmap(p, 3 * kMiB) == 0);
    }
  });
  char* p = map(2 * ram());
  for (uint64_t round = 0; round < 4; round++) {
    fill(p, 2 * ram(), round);
    EXPECT_PATTERN(p, 2 * ram(), round);
  }
  stop = true;
  changer.join();
}
