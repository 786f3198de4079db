// ThreadRecord: what the runtime knows about one thread, and the alternate stack its signals run on.
//
// Each record is the bottom of a block of kThreadBlock bytes whose rest is the stack (touched lazily), so a
// handler finds its record from its own stack pointer; ordinary code finds it through one initial-exec TLS
// pointer. Invariants: the kernel's sigaltstack is always ours, the program's is only remembered
// (live-runtime.md rule 6); records of ended threads are reused.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <cstdint>

#include "pmap/host/pin_set.h"
#include "runtime/preload/layout.h"

namespace enchilada::runtime {

/// SS_AUTODISARM, with the type that ss_flags has.
inline constexpr int kAutoDisarm = static_cast<int>(1u << 31);

/// A system call that the SIGSYS handler sent to the user gadget and whose end is still to come.
struct PendingCall {
  std::uint64_t stack =
      0;  // the program's stack pointer at the call: deeper means nested, shallower abandoned
  std::uint64_t resume = 0;  // where the program goes on
  unsigned pin_depth = 0;    // pins to go back to
  // A transfer in pieces (rule 8): what is left after the piece under way.
  std::uint64_t nr = 0;
  std::uint64_t args[6] = {};
  std::uint64_t given_nr = 0;  // as the program made it
  std::uint64_t given[6] = {};
  std::uint64_t piece = 0;    // size of the piece under way; 0 = not in pieces
  std::uint64_t left = 0;     // after it
  std::uint64_t done = 0;     // before it
  bool moves_offset = false;  // args[3] is a file offset to advance
};

struct ThreadRecord {
  std::atomic<std::uint32_t> taken{0};
  std::uint32_t tid = 0;
  unsigned pins = PinSet::kNoThread;
  static constexpr unsigned kMaxCalls = 16;
  unsigned calls = 0;
  PendingCall call[kMaxCalls];
  /// Of SIGBUS, SIGSEGV and SIGSYS: those the program believes to be blocked (kernel mask bits).
  std::uint64_t virtual_mask = 0;
  /// Of these three, those that a running handler of one of them keeps blocked. By themselves because libc's
  /// siglongjmp() and setcontext() take such a block off in the kernel's mask only.
  std::uint64_t handler_mask = 0;
  /// What the program gave to sigaltstack().
  stack_t program_stack{};
  /// > 0: malloc of this thread must come from the resident heap (spawn attributes and the like).
  unsigned resident_malloc = 0;
  /// Counts handlers without SA_RESTART: a system call under preparation looks whether one ran meanwhile.
  std::atomic<std::uint32_t> interruptions{0};
  /// HostMachine::forks() at this thread's last SIGSEGV in the window.
  std::uint32_t segv_forks = 0;
  /// A signal mask for the kernel to read or write while the thread's stack may be paged out.
  std::uint64_t mask_place = 0;
  /// SIGBUS, SIGSEGV and SIGSYS sent by others while a handler of the runtime ran, or while the program has
  /// them blocked: raised again at its end, or when they are unblocked.
  std::uint64_t pending = 0;
  siginfo_t pending_info[3];

  /// The thread's pthread_t, and the stack that the program gave it, if that is managed.
  std::uint64_t handle = 0;
  std::uint64_t stack_low = 0;
  std::uint64_t stack_size = 0;

  /// Of the three, those that the program has blocked now.
  [[nodiscard]] std::uint64_t blocked() const { return virtual_mask | handler_mask; }
  /// Upper end of the signal stack, aligned as at a call.
  [[nodiscard]] char* stack_top() { return reinterpret_cast<char*>(this) + layout::kThreadBlock; }

  void reset() {
    pending = 0;
    handle = 0;
    stack_size = 0;
    calls = 0;
    virtual_mask = 0;
    handler_mask = 0;
    program_stack = stack_t{};
    program_stack.ss_flags = SS_DISABLE;
    resident_malloc = 0;
  }
};

/// The address lies on some thread's signal stack.
bool on_signal_stack(std::uint64_t address);
/// sp lies on the alternate stack that the program has registered.
bool on_program_stack(const ThreadRecord& thread, std::uint64_t sp);
/// The stack that the kernel is told to run our handlers on.
stack_t signal_stack(ThreadRecord& thread);

/// Makes a record for the calling thread and installs its signal stack. Idempotent.
ThreadRecord& adopt_thread();
/// The calling thread's record; adopts the thread if it has none. Works in handlers and outside.
ThreadRecord& this_thread();
/// The same without adopting; nullptr if unknown.
ThreadRecord* known_thread();
/// Lets the calling thread's end be noticed, to release its record.
void watch_thread_end();
/// A copy of its own of thread attributes, in memory that stays.
void copy_thread_attributes(const pthread_attr_t& given, pthread_attr_t* copy);
/// The record of the thread with this pthread_t; nullptr if unknown.
ThreadRecord* thread_by_handle(std::uint64_t handle);
/// The thread ends: its record and stack may be reused.
void release_thread();
/// In a forked child: only the calling thread is left.
void forget_other_threads();

/// Marks the pins of pending calls that were left by longjmp as gone: those whose stack is not above `stack`.
void drop_abandoned_calls(ThreadRecord& thread, std::uint64_t stack);

/// The same for pins made by wrappers in ordinary code (their key is the stack pointer).
void drop_abandoned_pins(ThreadRecord& thread, std::uint64_t stack);

PinSet& pin_set();
/// Once, at start.
bool create_pin_set();

}  // namespace enchilada::runtime
