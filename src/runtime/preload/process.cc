// Fork: before, after in the parent, after in the child; exec staging; the helper thread of a tree.
#include "runtime/preload/process.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/single_threaded.h>
#include <sys/syscall.h>

#include <algorithm>

#include "base/check.h"
#include "runtime/preload/exec_target.h"
#include "runtime/preload/foreign.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/program_filter.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/thread_holds.h"
#include "runtime/preload/user_syscall.h"

namespace enchilada::runtime {
namespace {

enum class ForkStage : std::uint32_t { kNone, kReserved, kPrepared, kDenied };

/// State of the one fork under way; guarded by fork_lock from reserve_fork() (or prepare) to the parent's
/// end.
Mutex fork_lock;
std::atomic<ForkStage> stage{ForkStage::kNone};
ProcessSlot child_slot = kNoSlot;
std::uint64_t saved_mask = 0;
/// The fork was begun inside libc, which calls the handlers below and nothing else of ours.
bool inside_libc = false;
int saved_errno = 0;
/// From the moment it has the lock, in the parent.
std::atomic<std::uint32_t> forking_tid{0};
std::atomic<bool> child_done{false};
std::atomic<bool> helper_running{false};

bool forks_now() {
  return forking_tid.load() == static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
}

std::uint64_t block_signals() {
  const std::uint64_t all = ~kOurs;
  std::uint64_t before = 0;
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&all), as_long(&before), 8);
  return before;
}
void set_signals(std::uint64_t mask) {
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&mask), 0, 8);
}

/// Charges the child's frames, paging some of ours out if the budget demands it. Gate held exclusively.
bool charge_child(bool* evicted) {
  ProcessTree& tree = live().tree();
  constexpr int kTries = 8;
  for (int i = 0; i < kTries; ++i) {
    const ForkTicket ticket = tree.begin_fork(tree.used());
    if (ticket.status == TreeStatus::kOk) {
      child_slot = ticket.child;
      return true;
    }
    if (ticket.status != TreeStatus::kNoRam) return false;
    // Each frame given back is one that the child need not be charged for either.
    const PageCount wanted{ticket.short_by.value() / 2 + 1};
    *evicted = true;
    if (live().system().daemon().give_back(wanted).value() == 0) return false;
  }
  return false;
}

/// The parent's books after a fork; pid 0: there is a child, which must sign its slot by itself.
void settle_child(int pid) {
  if (stage.load() != ForkStage::kPrepared || pid == 0) return;
  if (pid > 0) {
    live().tree().child_made(child_slot, static_cast<std::uint32_t>(pid));
  } else {
    live().swap_space().drop_holder(child_slot.value());
    live().tree().abort_fork(child_slot);
  }
}

void lock_forks() NO_THREAD_SAFETY_ANALYSIS {
  const std::uint64_t mask = block_signals();
  fork_lock.lock();
  saved_mask = mask;
  inside_libc = false;
  forking_tid.store(static_cast<std::uint32_t>(raw_syscall(SYS_gettid)));
}

/// Of a process that cannot listen while it sleeps (after unshare(CLONE_NEWPID) it gets no more threads):
/// what its siblings would ask for goes to them before they do. All signals are blocked.
void yield_frames() {
  ProcessTree& tree = live().tree();
  const std::uint64_t least = tree.config().minimum_frames;
  const std::uint64_t used = tree.used().value();
  if (used <= least) return;
  const ReadLock gate(live().gate());
  (void)live().system().daemon().give_back(PageCount{used - least});
}

void unlock_forks(bool has_child) NO_THREAD_SAFETY_ANALYSIS {
  stage.store(ForkStage::kNone);
  forking_tid.store(0);
  const std::uint64_t mask = saved_mask;
  fork_lock.unlock();
  if (has_child && !listen_to_siblings()) yield_frames();
  set_signals(mask);
}

/// May libc touch managed memory in the child before our handler, which is the first, has run there? With
/// more than one thread it resets the locks of all FILEs and looks through stacks that the program may have
/// given to threads. With one it keeps to its own variables and the thread's control block. (Its list of fork
/// handlers is its own up to 48, then on the heap, but then it was read a moment ago, and with no eviction
/// since.) Older versions remember threads that are gone, so do we. The guard costs twice as much as the rest
/// of a fork.
bool child_needs_guard(bool evicted) {
  return evicted || __libc_single_threaded == 0 || pin_set().threads() > 1;
}

// The locks of a fork are taken in one function and released in another, or in another process: beyond what
// the analysis can follow.
void prepare() NO_THREAD_SAFETY_ANALYSIS {
  if (!live().ready() || live().pid() != static_cast<std::uint32_t>(raw_syscall(SYS_getpid))) return;
  if (!forks_now()) {
    const int before = errno;
    lock_forks();
    inside_libc = true;
    saved_errno = before;
  }
  live().gate().lock();
  if (inside_libc) errno = 0;  // what it is afterwards tells whether the fork failed: see parent()
  bool evicted = false;
  if (!charge_child(&evicted)) {
    stage.store(ForkStage::kDenied);
    return;
  }
  live().pager().finish_writes();
  live().swap_space().clone_holder(live().tree().self().value(), child_slot.value());
  child_done.store(false);
  live().host().prepare_fork(child_needs_guard(evicted));
  stage.store(ForkStage::kPrepared);
}

void parent() NO_THREAD_SAFETY_ANALYSIS {
  if (!live().ready() || !forks_now()) return;
  // libc itself relies on errno: from the system call to these handlers, of which ours is the first, it
  // changes only when the call has failed.
  const bool failed = errno != 0;
  if (stage.load() == ForkStage::kPrepared) {
    live().host().after_fork_parent();
    reapply_foreign_protection();
  }
  live().gate().unlock();
  if (!inside_libc) return;        // finish_fork() is still to come, with the child's pid
  const int before = saved_errno;  // libc puts the fork's own back if that has failed
  settle_child(failed ? -1 : 0);
  unlock_forks(!failed);
  if (!failed) errno = before;
}

/// MADV_DONTFORK and MADV_WIPEONFORK ranges, and what the map says of them.
void apply_inheritance() {
  constexpr unsigned kMost = 64;
  for (bool more = true; more;) {
    VirtRange ranges[kMost];
    bool wipe[kMost];
    unsigned n = 0;
    live().map().for_each_entry([&](const VmMap::EntryView& entry) {
      if ((entry.inherit == Inherit::kNone || entry.inherit == Inherit::kZero) && n < kMost) {
        ranges[n] = entry.range;
        wipe[n++] = entry.inherit == Inherit::kZero;
      }
    });
    more = n == kMost;
    for (unsigned i = 0; i < n; ++i) {
      // Wiped ranges stay wiped for the next generation, but need no second visit here.
      if (wipe[i]) {
        (void)live().map().advise(ranges[i], Advice::kDiscard);
      } else {
        (void)live().map().remove(ranges[i]);
      }
    }
  }
}

/// While the runtime opens descriptors of its own, the program's limit on their number is lifted as far as it
/// may be: all that it allows may be in use.
class DescriptorLimitLifted {
 public:
  DescriptorLimitLifted() {
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, as_long(&given_)) != 0) return;
    constexpr rlim64_t kEnough = 4096;
    const rlimit64 ample{std::max(given_.rlim_max, kEnough), std::max(given_.rlim_max, kEnough)};
    const rlimit64 allowed{given_.rlim_max, given_.rlim_max};
    lifted_ = raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, as_long(&ample), 0) == 0 ||
              raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, as_long(&allowed), 0) == 0;
  }
  ~DescriptorLimitLifted() {
    if (lifted_) raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, as_long(&given_), 0);
  }
  DescriptorLimitLifted(const DescriptorLimitLifted&) = delete;
  DescriptorLimitLifted& operator=(const DescriptorLimitLifted&) = delete;

 private:
  rlimit64 given_{};
  bool lifted_ = false;
};

void child_body() {
  if (child_done.exchange(true)) return;
  forget_other_threads();
  renumber_holds();
  ThreadRecord* self = known_thread();
  const unsigned survivor = self != nullptr ? self->pins : PinSet::kNoThread;
  if (self != nullptr) self->pending = 0;
  {
    const DescriptorLimitLifted lifted;
    if (!live().host().after_fork_child(survivor, next_foreign))
      give_up({"a forked child gets no userfaultfd: cannot go on"});
  }
  reapply_foreign_protection();
  const TreeStatus started = live().tree().child_started(child_slot);
  if (started == TreeStatus::kLost) {
    give_up({"a forked child lost its memory because its parent was killed during the fork"});
  }
  if (started != TreeStatus::kOk) give_up({"a forked child cannot go on: ", describe(started)});
  live().become_child(child_slot);
}

void child() NO_THREAD_SAFETY_ANALYSIS {
  if (!live().ready() || stage.load() == ForkStage::kNone) return;
  if (stage.load() == ForkStage::kDenied) give_up({"fork: --ram is too small for one more process"});
  child_body();
  helper_running.store(false);
  stage.store(ForkStage::kNone);
  forking_tid.store(0);
  live().gate().reset_after_fork();
  fork_lock.unlock();
  apply_inheritance();
  live().tree().set_live();
  listen_to_siblings();
  if (inside_libc) errno = saved_errno;
  set_signals(saved_mask);
}

// ---- The helper thread ----

constexpr std::size_t kHelperStack = 256 << 10;

int helper_main(void*) {
  ProcessTree& tree = live().tree();
  for (;;) {
    tree.wait_for_request(1'000'000'000);
    const PageCount wanted = tree.wanted_back();
    if (wanted.value() == 0) continue;
    live().gate().lock_shared();
    const PageCount given = live().system().daemon().give_back(wanted);
    live().gate().unlock_shared();
    if (given.value() == 0) tree.decline_request();
  }
}

}  // namespace

// A thread without libc: clone, then call `entry(argument)` on the new stack. It never returns.
extern "C" long enchilada_raw_thread(std::uint64_t flags, void* stack_top, int (*entry)(void*),
                                     void* argument, void* tls);
asm(R"(
        .text
        .globl enchilada_raw_thread
        .hidden enchilada_raw_thread
        .type enchilada_raw_thread, @function
enchilada_raw_thread:
        and     $-16, %rsi
        sub     $16, %rsi
        mov     %rdx, (%rsi)
        mov     %rcx, 8(%rsi)
        mov     $56, %eax
        xor     %edx, %edx
        xor     %r10d, %r10d
        /* r8 is the fifth argument already: tls */
        syscall
        test    %rax, %rax
        jz      1f
        ret
1:      xor     %ebp, %ebp
        pop     %rax
        pop     %rdi
        call    *%rax
        ud2
)");

bool start_helper_thread() {
  bool expected = false;
  if (!helper_running.compare_exchange_strong(expected, true)) return true;
  // A block for the stack and, above it, a thread control block of its own, so that stray uses of
  // thread-local storage (stack protector, errno) do not touch another thread's.
  constexpr std::size_t kTls = 64 << 10;
  const long block = raw_syscall(SYS_mmap, 0, kHelperStack + kTls, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block < 0) {
    helper_running.store(false);
    return false;
  }
  auto* tcb = reinterpret_cast<std::uint64_t*>(block + static_cast<long>(kHelperStack + kTls - 4096));
  tcb[0] = reinterpret_cast<std::uint64_t>(tcb);  // fs:0, the thread pointer
  tcb[2] = reinterpret_cast<std::uint64_t>(tcb);  // fs:16, as glibc's header.self
  const std::uint64_t mask = block_signals();
  const std::uint64_t everything = ~std::uint64_t{0} & ~kOurs;
  set_signals(everything);  // inherited by the helper: the program's signals are never its business
  const std::uint64_t flags =
      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS;
  const long tid =
      enchilada_raw_thread(flags, reinterpret_cast<char*>(block) + kHelperStack, helper_main, nullptr, tcb);
  set_signals(mask);
  if (tid < 0) {
    raw_syscall(SYS_munmap, block, kHelperStack + kTls);
    helper_running.store(false);
  }
  return tid >= 0;
}

bool listen_to_siblings() {
  if (helper_running.load(std::memory_order_relaxed)) return true;
  const ProcessTree& tree = live().tree();
  // Nobody asks for less: ProcessTree::could_give().
  if (tree.charged(tree.self()).value() <= tree.config().minimum_frames) return true;
  return start_helper_thread();
}

void note_frames_taken() {
  if (helper_running.load(std::memory_order_relaxed) || !live().ready()) return;
  if (live().tree().has_siblings()) listen_to_siblings();
}

void register_fork_handlers() {
  pthread_atfork(prepare, parent, child);
}

long reserve_fork() NO_THREAD_SAFETY_ANALYSIS {
  if (!live().ready()) return 0;
  lock_forks();
  // The real reservation is made in prepare(), with the engine quiescent; here only what can be refused
  // politely.
  ProcessTree& tree = live().tree();
  live().gate().lock();
  bool evicted = false;  // no matter: libc has not begun
  const bool possible = charge_child(&evicted);
  if (possible) tree.abort_fork(child_slot);
  live().gate().unlock();
  if (!possible) {
    unlock_forks(false);
    return -EAGAIN;
  }
  stage.store(ForkStage::kReserved);
  return 0;
}

void finish_fork(int pid) {
  if (!live().ready() || !forks_now()) return;
  settle_child(pid);
  unlock_forks(pid > 0);
}

void fork_prepare() {
  prepare();
}
void fork_parent() {
  parent();
}
void fork_child() {
  child();
}

bool is_forking_thread() {
  return stage.load() == ForkStage::kPrepared && forks_now();
}

bool continue_forked_child() {
  if (stage.load() != ForkStage::kPrepared) return false;
  child_body();
  return true;
}

// ---- Exec ----

namespace {

constexpr const char* kKept[] = {"LD_PRELOAD=", "ENCHILADA_TREE="};

bool starts_with(const char* text, const char* prefix) {
  while (*prefix != 0) {
    if (*text++ != *prefix++) return false;
  }
  return true;
}

std::size_t length_of(const char* text) {
  std::size_t n = 0;
  while (text[n] != 0) ++n;
  return n;
}

bool contains(const char* text, const char* part) {
  for (; *text != 0; ++text) {
    if (starts_with(text, part)) return true;
  }
  return false;
}

struct Staging {
  char* memory = nullptr;
  std::size_t size = 0;
  std::size_t used = 0;

  [[nodiscard]] void* take(std::size_t bytes) {
    used = (used + 7) & ~std::size_t{7};
    void* at = memory + used;
    used += bytes;
    return at;
  }
  char* copy(const char* text) {
    const std::size_t n = length_of(text) + 1;
    auto* to = static_cast<char*>(take(n));
    __builtin_memcpy(to, text, n);
    return to;
  }
};

std::size_t count_of(char* const* list) {
  std::size_t n = 0;
  while (list != nullptr && list[n] != nullptr) ++n;
  return n;
}
std::size_t bytes_of(char* const* list) {
  std::size_t bytes = 64;
  for (std::size_t i = 0; i < count_of(list); ++i) bytes += length_of(list[i]) + 24;
  return bytes;
}

/// The tree's variable, with the limit that the program has set and that the next image shall have.
char* stage_tree_variable(Staging& staging) {
  constexpr std::size_t kDigits = 20;
  const std::size_t length = length_of(live().tree_variable());
  auto* const text = static_cast<char*>(staging.take(length + 1 + kDigits + 1));
  __builtin_memcpy(text, live().tree_variable(), length + 1);
  const std::uint64_t limit = address_limit();
  if (limit == ~std::uint64_t{0}) return text;
  char digits[kDigits];
  std::size_t n = 0;
  for (std::uint64_t rest = limit; rest != 0 || n == 0; rest /= 10)
    digits[n++] = static_cast<char>('0' + rest % 10);
  char* at = text + length;
  *at++ = kLimitMark;
  while (n > 0) *at++ = digits[--n];
  *at = 0;
  return text;
}

/// LD_PRELOAD without this library. nullptr: nothing is left.
char* stage_other_preloads(Staging& staging, const char* variable) {
  const std::size_t own = length_of(live().preload_path());
  char* copy = staging.copy(variable);
  char* to = copy + length_of(kKept[0]);
  char* const first = to;
  for (const char* at = variable + length_of(kKept[0]); *at != 0;) {
    std::size_t n = 0;
    while (at[n] != 0 && at[n] != ':' && at[n] != ' ') ++n;
    if (n != 0 && (n != own || !starts_with(at, live().preload_path()))) {
      if (to != first) *to++ = ':';
      __builtin_memcpy(to, at, n);
      to += n;
    }
    at += n + (at[n] != 0 ? 1 : 0);
  }
  *to = 0;
  return to != first ? copy : nullptr;
}

/// The environment of a program that is not to be managed.
char** stage_plain_environment(Staging& staging, char* const* envp) {
  const std::size_t n = count_of(envp);
  auto** out = static_cast<char**>(staging.take((n + 1) * sizeof(char*)));
  std::size_t used = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (starts_with(envp[i], kKept[1])) continue;
    char* copy =
        starts_with(envp[i], kKept[0]) ? stage_other_preloads(staging, envp[i]) : staging.copy(envp[i]);
    if (copy != nullptr) out[used++] = copy;
  }
  out[used] = nullptr;
  return out;
}

/// The environment with the tree's variables put back if the program dropped or changed them.
char** stage_environment(Staging& staging, char* const* envp) {
  const std::size_t n = count_of(envp);
  auto** out = static_cast<char**>(staging.take((n + 4) * sizeof(char*)));
  std::size_t used = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (starts_with(envp[i], kKept[1])) continue;
    if (starts_with(envp[i], kKept[0])) {
      if (contains(envp[i], live().preload_path())) continue;  // put back below
      const char* others = envp[i] + length_of(kKept[0]);
      auto* merged = static_cast<char*>(
          staging.take(length_of(kKept[0]) + length_of(live().preload_path()) + length_of(others) + 2));
      char* at = merged;
      for (const char* part : {kKept[0], others, *others != 0 ? ":" : "", live().preload_path()}) {
        const std::size_t length = length_of(part);
        __builtin_memcpy(at, part, length);
        at += length;
      }
      *at = 0;
      out[used++] = merged;
      continue;
    }
    out[used++] = staging.copy(envp[i]);
  }
  bool have_preload = false;
  for (std::size_t i = 0; i < used; ++i) have_preload |= starts_with(out[i], kKept[0]);
  for (std::size_t i = 0; i < n && !have_preload; ++i) {
    if (starts_with(envp[i], kKept[0])) {
      out[used++] = staging.copy(envp[i]);
      have_preload = true;
    }
  }
  if (!have_preload) {
    auto* fresh =
        static_cast<char*>(staging.take(length_of(kKept[0]) + length_of(live().preload_path()) + 1));
    __builtin_memcpy(fresh, kKept[0], length_of(kKept[0]));
    __builtin_memcpy(fresh + length_of(kKept[0]), live().preload_path(),
                     length_of(live().preload_path()) + 1);
    out[used++] = fresh;
  }
  out[used++] = stage_tree_variable(staging);
  out[used] = nullptr;
  return out;
}

bool readable(const char* text) {
  return enchilada_probe_read(text);
}

bool readable_list(char* const* list) {
  if (list == nullptr) return true;
  for (std::size_t i = 0;; ++i) {
    if (!enchilada_probe_read(list + i)) return false;
    if (list[i] == nullptr) return true;
    if (!readable(list[i])) return false;
  }
}

}  // namespace

long stage_exec(const char* path, char* const* argv, char* const* envp, ExecArguments* staged) {
  if (path == nullptr || !readable(path) || !readable_list(argv) || !readable_list(envp)) return -EFAULT;
  const std::size_t wanted = length_of(path) + bytes_of(argv) + bytes_of(envp) +
                             2 * length_of(live().preload_path()) + 2 * length_of(live().tree_variable()) +
                             4096 + kTargetScratch;
  Staging staging{static_cast<char*>(resident_allocate(wanted)), wanted};
  if (staging.memory == nullptr) return -ENOMEM;
  const std::size_t n = count_of(argv);
  staged->argv = static_cast<char**>(staging.take((n + 1) * sizeof(char*)));
  staged->path = staging.copy(path);
  for (std::size_t i = 0; i < n; ++i) staged->argv[i] = staging.copy(argv[i]);
  staged->argv[n] = nullptr;
  staged->envp =
      program_filtered() ? stage_plain_environment(staging, envp) : stage_environment(staging, envp);
  staged->scratch = static_cast<char*>(staging.take(kTargetScratch));
  CHECK(staging.used <= staging.size, staging.used, staging.size);
  staged->memory = staging.memory;
  return 0;
}

long call_execve(const char* path, char* const* argv, char* const* envp) {
  if (!live().ready()) return raw_syscall(SYS_execve, as_long(path), as_long(argv), as_long(envp));
  ExecArguments staged;
  const long result = stage_exec(path, argv, envp, &staged);
  if (result < 0) return result;
  const bool own = live().pid() == static_cast<std::uint32_t>(raw_syscall(SYS_getpid));
  const UnmanagedWhy why =
      program_filtered() ? UnmanagedWhy::kFiltered : judge_program(staged.path, staged.scratch);
  if (why != UnmanagedWhy::kNothing) live().tree().note_unmanaged(why, staged.path);
  restore_dispositions_for_exec();
  if (own) live().tree().begin_exec();
  const long answer =
      program_syscall(SYS_execve, as_long(staged.path), as_long(staged.argv), as_long(staged.envp));
  if (why != UnmanagedWhy::kNothing) live().tree().forget_unmanaged();
  if (own) live().tree().exec_failed();
  reinstall_handlers();
  resident_free(staged.memory);
  return answer;
}

}  // namespace enchilada::runtime
