// RobustMutex: the slow path (waiting, and taking over from the dead). The invariants are in the header.
#include "base/robust_mutex.h"

#include "base/check.h"
#include "base/mutex.h"

namespace enchilada {
namespace {

void note_acquired([[maybe_unused]] const void* lock, [[maybe_unused]] LockRank rank) noexcept {
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::acquired(lock, rank, false);
#endif
}
void note_released([[maybe_unused]] const void* lock, [[maybe_unused]] LockRank rank) noexcept {
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::released(lock, rank);
#endif
}

}  // namespace

RobustMutex::Outcome RobustMutex::lock(std::uint32_t self,
                                       FunctionRef<bool(std::uint32_t)> is_alive) noexcept {
  CHECK(self != 0 && self <= kMaxId, self);
  std::uint32_t expected = 0;
  Outcome outcome = Outcome::kClean;
  if (!word_.compare_exchange_strong(expected, self, std::memory_order_acquire))
    outcome = lock_slow(self, is_alive);
  note_acquired(this, rank_);
  return outcome;
}

bool RobustMutex::take(std::uint32_t seen, std::uint32_t self) noexcept {
  // We have waited, so others may wait too: keep the flag, at the price of one wake-up too many.
  return word_.compare_exchange_strong(seen, self | kWaiters, std::memory_order_acquire);
}

void RobustMutex::announce_waiter(std::uint32_t seen) noexcept {
  if ((seen & kWaiters) == 0) word_.compare_exchange_strong(seen, seen | kWaiters, std::memory_order_relaxed);
}

RobustMutex::Outcome RobustMutex::lock_slow(std::uint32_t self,
                                            FunctionRef<bool(std::uint32_t)> is_alive) noexcept {
  for (;;) {
    const std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if ((seen & kMaxId) == 0) {
      if (take(seen, self)) return Outcome::kClean;
      continue;
    }
    announce_waiter(seen);
    // A time-out also covers the waiter that was woken and killed before it could take the lock.
    if (futex_wait_shared(word_, seen | kWaiters, kPatience)) continue;
    const std::uint32_t owner = seen & kMaxId;
    if (owner == self || is_alive(owner)) continue;
    if (take(owner | kWaiters, self)) return Outcome::kInherited;
  }
}

void RobustMutex::unlock(std::uint32_t self) noexcept {
  note_released(this, rank_);
  const std::uint32_t old = word_.exchange(0, std::memory_order_release);
  CHECK((old & kMaxId) == self, old, self);
  if ((old & kWaiters) != 0) futex_wake_shared(word_, 1);
}

}  // namespace enchilada
