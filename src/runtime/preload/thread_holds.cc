// The list of holds, and what is worth one.
#include "runtime/preload/thread_holds.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>

#include <algorithm>

#include "base/mutex.h"
#include "runtime/preload/engine_section.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/user_syscall.h"

namespace enchilada::runtime {

namespace {

struct Hold {
  Hold* next;
  VirtRange range;
  std::uint32_t tid;
  pthread_t thread;
};

Mutex list_lock;  // inside an engine section: no fork meets it held
Hold* list = nullptr;

/// Off a managed stack, into the engine, with the list.
template <class F>
void with_list(F f) {
  off_managed_stack([f]() -> long {
    const EngineSection section;
    const MutexLock guard(list_lock);
    f();
    return 0;
  });
}

/// Unwires and forgets what `ended` says is over. With the list.
template <class Ended>
void sweep(Ended ended) {
  for (Hold** at = &list; *at != nullptr;) {
    Hold* const hold = *at;
    if (!ended(*hold)) {
      at = &hold->next;
      continue;
    }
    *at = hold->next;
    (void)live().map().unwire(hold->range, WireKind::kSystem);  // the program may have unmapped it
    resident_free(hold);
  }
}

std::uint32_t own_tid() {
  return static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
}

/// Wires it until the calling thread has ended. Where there is no room it may be paged out as before.
void hold_until_end(std::uint64_t start, std::uint64_t end) {
  auto* const hold = static_cast<Hold*>(resident_allocate(sizeof(Hold)));
  if (hold == nullptr) return;
  *hold = {nullptr, {page_floor(VirtAddr{start}), page_ceil(VirtAddr{end})}, own_tid(), pthread_self()};
  with_list([hold] {
    if (live().map().wire(hold->range, WireKind::kSystem) != KernReturn::kSuccess) {
      resident_free(hold);
      return;
    }
    hold->next = list;
    list = hold;
  });
}

}  // namespace

void end_old_holds() {
  with_list([] {
    const long pid = raw_syscall(SYS_getpid);
    sweep([pid](const Hold& h) { return raw_syscall(SYS_tgkill, pid, h.tid, 0) == -ESRCH; });
  });
}

void end_holds_of(pthread_t thread) {
  with_list([thread] { sweep([thread](const Hold& h) { return h.thread == thread; }); });
}

void renumber_holds() {
  const pthread_t self = pthread_self();
  for (Hold* hold = list; hold != nullptr; hold = hold->next) {
    if (hold->thread == self) hold->tid = own_tid();
  }
}

void hold_robust_mutexes() {
  constexpr unsigned kMost = 2048;  // the kernel's limit
  std::uint64_t head = 0;
  std::uint64_t length = 0;
  raw_syscall(SYS_get_robust_list, 0, as_long(&head), as_long(&length));
  const auto hold_entry = [offset_at = head + offsetof(robust_list_head, futex_offset)](std::uint64_t entry) {
    std::uint64_t offset = 0;
    if (!layout::in_window(entry) || !peek(offset_at, &offset)) return;
    const std::uint64_t word = entry + offset;
    hold_until_end(std::min(entry, word), std::max(entry, word) + sizeof(entry));
  };
  std::uint64_t entry = 0;
  if (head == 0) return;
  if (peek(head + offsetof(robust_list_head, list_op_pending), &entry)) hold_entry(entry & ~std::uint64_t{1});
  std::uint64_t at = head;
  for (unsigned i = 0; i < kMost && peek(at, &entry); ++i) {
    at = entry & ~std::uint64_t{1};  // bit 0: priority inheritance
    if (at == head || at == 0) return;
    hold_entry(at);
  }
}

}  // namespace enchilada::runtime
