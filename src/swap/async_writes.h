// AsyncWrites: writes that go on by themselves, by Linux AIO. Any thread of the address space can fetch an
// answer, also one that did not ask for it and also a vfork child; exec and exit wait for what is under way,
// so that blocks are not given to others before (docs/decisions/0007: why not io_uring).
//
// Invariants: what fetches answers holds the lock, so a thread that waits with it for its own answer is the
// one to get it; a process never uses the context of another (forget_after_fork()). Nothing allocates;
// whatever fails makes begin() answer "no", and the caller then writes as always.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/mutex.h"
#include "base/raw_syscall.h"

namespace enchilada {

/// One write that may be under way. Belongs to the caller and must stay where it is until it has ended.
class AsyncWrite {
 public:
  enum class State : std::uint8_t { kNone, kUnderWay, kDone, kFailed };
  [[nodiscard]] State state() const { return state_.load(std::memory_order_acquire); }
  /// It was done in another way.
  void settle() { state_.store(State::kDone, std::memory_order_relaxed); }
  /// For devices.
  void begin(std::size_t bytes) {
    bytes_ = bytes;
    state_.store(State::kUnderWay, std::memory_order_release);
  }
  void end(long moved) {
    (void)state();  // begun in another thread, which told only the kernel: see what it wrote
    const bool whole = moved >= 0 && static_cast<std::size_t>(moved) == bytes_;
    state_.store(whole ? State::kDone : State::kFailed, std::memory_order_release);
  }

 private:
  std::atomic<State> state_{State::kNone};
  std::size_t bytes_ = 0;
};

class AsyncWrites {
 public:
  /// `call` makes the context: a filter may let nobody else do so.
  explicit AsyncWrites(SyscallFunction call = raw_syscall) : call_(call) {}
  AsyncWrites(const AsyncWrites&) = delete;
  AsyncWrites& operator=(const AsyncWrites&) = delete;

  /// Starts writing. The bytes and the file stay the kernel's until `write` has ended, as collect() tells it.
  [[nodiscard]] bool begin(int fd, const std::byte* from, std::size_t bytes, std::uint64_t offset,
                           AsyncWrite& write);
  /// Fetches the answers that are there.
  void collect();
  /// Waits until `write` has ended.
  void finish(const AsyncWrite& write);
  /// In the child of a process fork: the parent's writes are not ours to wait for.
  void forget_after_fork();

 private:
  static constexpr unsigned kMost = 64;  // under way at a time
  static constexpr std::uint64_t kUnmade = 0;
  static constexpr std::uint64_t kRefused = ~std::uint64_t{0};

  [[nodiscard]] std::uint64_t context();
  void fetch(bool wait) REQUIRES(lock_);

  SyscallFunction call_;
  std::atomic<std::uint64_t> context_{kUnmade};
  std::atomic<unsigned> under_way_{0};
  Mutex lock_;
};

}  // namespace enchilada
