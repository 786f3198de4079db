// PinSet: which addresses running system calls use, so that nobody withdraws a page under the kernel
// (EFAULT).
//
// Protocol (Dekker, all sequentially consistent):
//  - pinner: publish its ranges; load the ranges being withdrawn; wait while one overlaps.
//  - remover: publish the range it withdraws; load all pins; on overlap retract and refuse those frames.
//
// So of a pinner and a remover that meet, at least one sees the other. After pin() returns, the pinner makes
// the pages resident (HostMachine::resident(), else the fault path) and they stay until unpin().
//
// Invariants: lock-free for the pinner but for that wait, which lasts one kernel call of the remover; no
// allocation; a thread's pins form a stack, so a signal handler may pin inside a pin. Whoever removes must
// have signals blocked: a pin taken by a handler that interrupted its own thread's removal would wait for
// ever.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "base/units.h"

namespace enchilada {

class PinSet {
 public:
  static constexpr unsigned kThreads = 4096;    // records; further threads pin everything
  static constexpr unsigned kDepth = 8;         // nested pins of a thread; deeper ones pin everything
  static constexpr unsigned kRanges = 4;        // ranges of one pin; a longer list pins everything
  static constexpr unsigned kNoThread = ~0u;    // "no record": its pins pin everything
  static constexpr unsigned kWithdrawals = 64;  // removers at the same time; further ones wait

  /// In memory of its own (mmap), no malloc, touched as threads come. nullptr when the kernel has none.
  [[nodiscard]] static PinSet* create() noexcept;
  static void destroy(PinSet* pins) noexcept;
  PinSet(const PinSet&) = delete;
  PinSet& operator=(const PinSet&) = delete;

  /// A record for the calling thread, or kNoThread when all are taken (works, but pins everything).
  [[nodiscard]] unsigned register_thread() noexcept;
  /// Drops all pins of the record and frees it.
  void unregister_thread(unsigned thread) noexcept;

  /// Pins the ranges (any alignment; pages they touch count). Call with the calling thread's own record
  /// only. `key` is kept for the caller (e.g. the stack pointer, see rule 7). Returns the depth to hand to
  /// unpin_to().
  unsigned pin(unsigned thread, std::span<const VirtRange> ranges, std::uint64_t key = 0) noexcept;
  /// Drops the innermost pin of the thread.
  void unpin(unsigned thread) noexcept;
  /// Drops pins until `depth` are left (what longjmp and cancellation left behind, too).
  void unpin_to(unsigned thread, unsigned depth) noexcept;
  [[nodiscard]] unsigned depth(unsigned thread) const noexcept;
  /// The key of pin number `level` (0 = outermost); level < min(depth, kDepth).
  [[nodiscard]] std::uint64_t key(unsigned thread, unsigned level) const noexcept;

  /// Some pin overlaps the range just now. A hint unless the caller has a Withdrawal of the range.
  [[nodiscard]] bool pinned(VirtRange range) const noexcept;

  /// How many records have ever been taken at once, at most.
  [[nodiscard]] unsigned threads() const noexcept;
  /// What all pins cover just now, some of it perhaps counted twice; ~0: everything. A hint.
  [[nodiscard]] std::uint64_t pinned_bytes() const noexcept;

  /// The remover's side. While it lives, pins that overlap `range` wait.
  class Withdrawal {
   public:
    Withdrawal(PinSet& pins, VirtRange range) noexcept;
    ~Withdrawal();
    Withdrawal(const Withdrawal&) = delete;
    Withdrawal& operator=(const Withdrawal&) = delete;
    /// False: a pin overlaps the range; the caller must leave it alone.
    [[nodiscard]] bool allowed() const { return allowed_; }

   private:
    PinSet& pins_;
    unsigned slot_;
    bool allowed_;
  };

  /// In a forked child: forget withdrawals and all threads but `survivor` (kNoThread: forget all).
  void reset_after_fork(unsigned survivor) noexcept;

 private:
  struct Range {
    std::atomic<std::uint64_t> start{0};
    std::atomic<std::uint64_t> end{0};
  };
  struct Record {
    std::atomic<std::uint32_t> count{0};  // 0: not published; kEverything: all addresses
    std::atomic<std::uint64_t> key{0};
    std::array<Range, kRanges> ranges;
  };
  struct alignas(64) Thread {
    std::atomic<std::uint32_t> taken{0};
    std::atomic<std::uint32_t> depth{0};  // may exceed kDepth: then the thread pins everything
    std::array<Record, kDepth> records;
  };
  struct Memory;  // how a set and its records lie in one mapping
  /// `threads`: kThreads records of zeros. They are not constructed: that would touch 2.8 MiB in every
  /// process.
  explicit PinSet(Thread* threads) : threads_(threads) {}
  static constexpr std::uint32_t kEverything = ~0u;

  void wait_for_withdrawals(std::span<const VirtRange> ranges, bool everything) const noexcept;
  [[nodiscard]] bool thread_overlaps(const Thread& thread, std::uint64_t start,
                                     std::uint64_t end) const noexcept;

  std::atomic<std::uint64_t> withdrawing_{0};  // bit i: withdrawals_[i] is in force
  std::atomic<std::uint64_t> claimed_{0};      // bit i: withdrawals_[i] belongs to a remover
  std::array<Range, kWithdrawals> withdrawals_;
  std::atomic<std::uint32_t> everything_{0};  // pins of threads without a record
  std::atomic<std::uint32_t> high_water_{0};  // records ever taken lie below
  Thread* const threads_;
};

}  // namespace enchilada
