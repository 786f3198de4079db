// RobustMutex: a lock in memory shared by processes that a dead process can never keep.
//
// The word holds the owner's id (a small number that the caller gives: process slot + 1) and a waiters flag.
// Whoever waits sleeps at most kPatience and then asks whether the owner still lives; if not, it takes the
// lock over and is told so (kInherited): the owner died inside, and what the lock guards must be repaired
// before use. Invariants: unlocked = zero, so zeroed shared memory is a valid lock; no libc, no allocation,
// async-signal-safe; exactly one waiter inherits. Threads of one process share its id. An id may be given to
// a new process only after somebody has taken the lock since the old one's death (SwapSpace::drop_holder
// does). After Drepper, "Futexes are tricky" (mutex 3), and the idea of robust futexes (Linux,
// robust-futexes.txt), without their per-thread list: liveness here is that of a process.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "base/thread_annotations.h"

namespace enchilada {

class CAPABILITY("robust_mutex") RobustMutex {
 public:
  enum class [[nodiscard]] Outcome : std::uint8_t{
      kClean,      // the previous holder let go of it
      kInherited,  // the previous holder died inside: repair first
  };
  static constexpr std::uint32_t kMaxId = (1u << 31) - 1;
  static constexpr std::uint64_t kPatience = 20'000'000;  // ns between two looks at the owner's health

  /// Where it stands in the lock order; in memory that was only zeroed it is not checked.
  constexpr RobustMutex() = default;
  constexpr explicit RobustMutex(LockRank rank) : rank_(rank) {}
  RobustMutex(const RobustMutex&) = delete;
  RobustMutex& operator=(const RobustMutex&) = delete;

  /// Takes the lock as `self` (1..kMaxId). `is_alive` is asked only about other owners, only after a wait.
  Outcome lock(std::uint32_t self, FunctionRef<bool(std::uint32_t)> is_alive) noexcept ACQUIRE();
  void unlock(std::uint32_t self) noexcept RELEASE();
  /// Id of the holder, 0 = free. A glance only.
  [[nodiscard]] std::uint32_t owner() const noexcept {
    return word_.load(std::memory_order_relaxed) & kMaxId;
  }

 private:
  static constexpr std::uint32_t kWaiters = 1u << 31;

  Outcome lock_slow(std::uint32_t self, FunctionRef<bool(std::uint32_t)> is_alive) noexcept;
  bool take(std::uint32_t seen, std::uint32_t self) noexcept;
  void announce_waiter(std::uint32_t seen) noexcept;

  std::atomic<std::uint32_t> word_{0};
  LockRank rank_ = LockRank::kLeaf;
};

}  // namespace enchilada
