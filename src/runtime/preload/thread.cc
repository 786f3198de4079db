// Thread records: a fixed array of blocks, found by stack pointer or by TLS.
#include "runtime/preload/thread.h"

#include <sys/syscall.h>

#include "base/check.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

constexpr std::uint64_t kRecordBytes = (sizeof(ThreadRecord) + kPageMask) & ~kPageMask;
constexpr std::uint64_t kEnd = layout::kThreadBase + layout::kMaxThreads * layout::kThreadBlock;

__attribute__((tls_model("initial-exec"))) thread_local ThreadRecord* tls_record = nullptr;
PinSet* pins = nullptr;
std::atomic<bool> blocks_mapped{false};

ThreadRecord* block(std::uint64_t i) {
  return reinterpret_cast<ThreadRecord*>(layout::kThreadBase + i * layout::kThreadBlock);
}

bool map_blocks() {
  if (blocks_mapped.load(std::memory_order_acquire)) return true;
  if (!map_own_memory(layout::kThreadBase, kEnd - layout::kThreadBase)) return false;
  blocks_mapped.store(true, std::memory_order_release);
  return true;
}

void install_stack(ThreadRecord& record) {
  const stack_t stack = signal_stack(record);
  raw_syscall(SYS_sigaltstack, as_long(&stack), 0);
}

ThreadRecord* by_stack() {
  const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  if (here < layout::kThreadBase || here >= kEnd) return nullptr;
  return reinterpret_cast<ThreadRecord*>(here & ~(layout::kThreadBlock - 1));
}
static_assert(layout::kThreadBase % layout::kThreadBlock == 0);

}  // namespace

bool on_signal_stack(std::uint64_t address) {
  return address >= layout::kThreadBase && address < kEnd;
}

bool on_program_stack(const ThreadRecord& thread, std::uint64_t sp) {
  const stack_t& stack = thread.program_stack;
  if ((stack.ss_flags & (SS_DISABLE | kAutoDisarm)) != 0) return false;
  const auto low = reinterpret_cast<std::uint64_t>(stack.ss_sp);
  return sp > low && sp - low <= stack.ss_size;  // as the kernel counts
}

stack_t signal_stack(ThreadRecord& thread) {
  stack_t stack{};
  stack.ss_sp = reinterpret_cast<char*>(&thread) + kRecordBytes;
  stack.ss_size = layout::kThreadBlock - kRecordBytes;
  return stack;
}

PinSet& pin_set() {
  return *pins;
}

bool create_pin_set() {
  pins = PinSet::create();
  return pins != nullptr && map_blocks();
}

ThreadRecord& adopt_thread() {
  if (tls_record != nullptr) return *tls_record;
  CHECK(map_blocks());
  for (std::uint64_t i = 0; i < layout::kMaxThreads; ++i) {
    ThreadRecord* record = block(i);
    std::uint32_t expected = 0;
    if (record->taken.load(std::memory_order_relaxed) != 0 ||
        !record->taken.compare_exchange_strong(expected, 1, std::memory_order_acquire)) {
      continue;
    }
    record->reset();
    record->tid = static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
    record->pins = pins->register_thread();
    tls_record = record;
    install_stack(*record);
    return *record;
  }
  check_failed(__FILE__, __LINE__, "more threads than enchilada can manage", layout::kMaxThreads);
}

ThreadRecord* known_thread() {
  ThreadRecord* record = by_stack();
  return record != nullptr ? record : tls_record;
}

ThreadRecord& this_thread() {
  ThreadRecord* record = known_thread();
  return record != nullptr ? *record : adopt_thread();
}

ThreadRecord* thread_by_handle(std::uint64_t handle) {
  for (std::uint64_t i = 0; i < layout::kMaxThreads; ++i) {
    ThreadRecord* record = block(i);
    if (record->tid == 0) return nullptr;  // never used: nothing behind it either
    if (record->taken.load(std::memory_order_acquire) != 0 && record->handle == handle) return record;
  }
  return nullptr;
}

void release_thread() {
  ThreadRecord* record = tls_record;
  if (record == nullptr) return;
  // The stack must not be the kernel's any more when another thread gets the block.
  stack_t off{};
  off.ss_flags = SS_DISABLE;
  raw_syscall(SYS_sigaltstack, as_long(&off), 0);
  pins->unregister_thread(record->pins);
  tls_record = nullptr;
  record->taken.store(0, std::memory_order_release);
}

void forget_other_threads() {
  ThreadRecord* self = known_thread();
  for (std::uint64_t i = 0; i < layout::kMaxThreads; ++i) {
    ThreadRecord* record = block(i);
    if (record->taken.load(std::memory_order_relaxed) == 0) {
      if (i > 0 && record->tid == 0) break;  // never used: nothing behind it either
      continue;
    }
    if (record != self) record->taken.store(0, std::memory_order_relaxed);
  }
  if (self != nullptr) self->tid = static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
}

void drop_abandoned_calls(ThreadRecord& thread, std::uint64_t stack) {
  // A handler that interrupted the call, not a longjmp out of it.
  if (on_signal_stack(stack) || on_program_stack(thread, stack)) return;
  while (thread.calls > 0 && thread.call[thread.calls - 1].stack <= stack) {
    --thread.calls;
    pins->unpin_to(thread.pins, thread.call[thread.calls].pin_depth);
  }
}

void drop_abandoned_pins(ThreadRecord& thread, std::uint64_t stack) {
  if (on_signal_stack(stack) || on_program_stack(thread, stack)) return;
  for (unsigned n = pins->depth(thread.pins); n > 0 && n <= PinSet::kDepth; --n) {
    const std::uint64_t made_at = pins->key(thread.pins, n - 1);
    if (made_at == 0 || made_at > stack) return;
    pins->unpin(thread.pins);
  }
}

}  // namespace enchilada::runtime
