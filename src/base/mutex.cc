// Futex locks: slow paths, and the run-time lock-order check.
#include "base/mutex.h"

#include "base/check.h"
#include "base/raw_syscall.h"

namespace enchilada {
namespace {

constexpr long kFutexWait = 0;
constexpr long kFutexWake = 1;
constexpr long kFutexPrivate = 128;
constexpr long kEtimedout = -110;

struct KernelTimespec {
  std::int64_t seconds;
  std::int64_t nanoseconds;
};

bool wait_on(const std::atomic<std::uint32_t>& word, std::uint32_t expected, std::uint64_t timeout_ns,
             long flag) {
  KernelTimespec limit{static_cast<std::int64_t>(timeout_ns / 1'000'000'000),
                       static_cast<std::int64_t>(timeout_ns % 1'000'000'000)};
  const long answer = raw_syscall(kSysFutex, reinterpret_cast<long>(&word), kFutexWait | flag, expected,
                                  timeout_ns == 0 ? 0 : reinterpret_cast<long>(&limit));
  return answer != kEtimedout;
}

}  // namespace

bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::uint64_t timeout_ns) noexcept {
  return wait_on(word, expected, timeout_ns, kFutexPrivate);
}
void futex_wake(const std::atomic<std::uint32_t>& word, int waiters) noexcept {
  raw_syscall(kSysFutex, reinterpret_cast<long>(&word), kFutexWake | kFutexPrivate, waiters);
}
bool futex_wait_shared(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::uint64_t timeout_ns) noexcept {
  return wait_on(word, expected, timeout_ns, 0);
}
void futex_wake_shared(const std::atomic<std::uint32_t>& word, int waiters) noexcept {
  raw_syscall(kSysFutex, reinterpret_cast<long>(&word), kFutexWake, waiters);
}

void Mutex::lock_slow() noexcept {
  while (word_.exchange(2, std::memory_order_acquire) != 0) futex_wait(word_, 2);
}

void Mutex::assert_held() const noexcept {
  DCHECK(held());
}

void SharedMutex::lock() noexcept {
  for (;;) {
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    if ((word & (kWriter | kReaders)) == 0) {
      // Keep the waiting bit: other writers may sleep on it; unlock() wakes everybody.
      if (word_.compare_exchange_weak(word, word | kWriter, std::memory_order_acquire)) break;
      continue;
    }
    if ((word & kWriterWaiting) == 0 &&
        !word_.compare_exchange_weak(word, word | kWriterWaiting, std::memory_order_relaxed)) {
      continue;
    }
    futex_wait(word_, word | kWriterWaiting);
  }
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::acquired(this, rank_, false);
#endif
}

bool SharedMutex::try_lock() noexcept {
  std::uint32_t word = word_.load(std::memory_order_relaxed);
  if ((word & (kWriter | kReaders)) != 0) return false;
  if (!word_.compare_exchange_strong(word, word | kWriter, std::memory_order_acquire)) return false;
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::acquired(this, rank_, true);
#endif
  return true;
}

void SharedMutex::unlock() noexcept {
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::released(this, rank_);
#endif
  if ((word_.exchange(0, std::memory_order_release) & ~kWriter) != 0) futex_wake(word_, 1 << 30);
}

void SharedMutex::lock_shared() noexcept {
  for (;;) {
    std::uint32_t word = word_.load(std::memory_order_relaxed);
    if ((word & (kWriter | kWriterWaiting)) == 0) {
      if (word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire)) break;
      continue;
    }
    // A reader that must sleep sets the bit too, so that unlock() knows to wake somebody.
    if ((word & kWriterWaiting) == 0 &&
        !word_.compare_exchange_weak(word, word | kWriterWaiting, std::memory_order_relaxed)) {
      continue;
    }
    futex_wait(word_, word | kWriterWaiting);
  }
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::acquired(this, rank_, false);
#endif
}

bool SharedMutex::try_lock_shared() noexcept {
  std::uint32_t word = word_.load(std::memory_order_relaxed);
  while ((word & (kWriter | kWriterWaiting)) == 0) {
    if (!word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire)) continue;
#ifdef ENCHILADA_LOCK_RANKS
    lock_order::acquired(this, rank_, true);
#endif
    return true;
  }
  return false;
}

void SharedMutex::unlock_shared() noexcept {
#ifdef ENCHILADA_LOCK_RANKS
  lock_order::released(this, rank_);
#endif
  std::uint32_t word = word_.load(std::memory_order_relaxed);
  for (;;) {
    const bool last = (word & kReaders) == 1;
    const std::uint32_t next = last ? 0 : word - 1;
    if (!word_.compare_exchange_weak(word, next, std::memory_order_release)) continue;
    if (last && (word & kWriterWaiting) != 0) futex_wake(word_, 1 << 30);
    return;
  }
}

bool SharedMutex::try_upgrade() noexcept {
  std::uint32_t word = word_.load(std::memory_order_relaxed);
  while ((word & kReaders) == 1) {
    if (word_.compare_exchange_weak(word, (word & ~kReaders) | kWriter, std::memory_order_acquire))
      return true;
  }
  return false;
}

void SharedMutex::downgrade() noexcept {
  const std::uint32_t word = word_.exchange(1, std::memory_order_release);
  if ((word & kWriterWaiting) != 0) futex_wake(word_, 1 << 30);
}

void SharedMutex::assert_held() const noexcept {
  DCHECK(held_exclusive());
}
void SharedMutex::assert_held_shared() const noexcept {
  DCHECK(held());
}

namespace lock_order {
#ifdef ENCHILADA_LOCK_RANKS
namespace {
struct Held {
  const void* lock;
  LockRank rank;
};
constexpr int kMaxHeld = 64;
thread_local Held held_locks[kMaxHeld];
thread_local int held_count = 0;
}  // namespace

void acquired(const void* lock, LockRank rank, bool tried) noexcept {
  if (rank == LockRank::kNone) return;
  for (int i = 0; i < held_count && !tried; ++i) {
    const bool nested_object = rank == LockRank::kObject && held_locks[i].rank == LockRank::kObject;
    CHECK(held_locks[i].lock != lock, static_cast<std::uint64_t>(rank));
    CHECK(held_locks[i].rank < rank || nested_object, static_cast<std::uint64_t>(held_locks[i].rank),
          static_cast<std::uint64_t>(rank));
  }
  CHECK(held_count < kMaxHeld);
  held_locks[held_count++] = {lock, rank};
}

void released(const void* lock, LockRank rank) noexcept {
  if (rank == LockRank::kNone) return;
  for (int i = held_count - 1; i >= 0; --i) {
    if (held_locks[i].lock != lock) continue;
    for (int j = i; j + 1 < held_count; ++j) held_locks[j] = held_locks[j + 1];
    --held_count;
    return;
  }
  constexpr bool kReleasedLockWasHeld = false;
  CHECK(kReleasedLockWasHeld, static_cast<std::uint64_t>(rank));
}

void assert_none_held() noexcept {
  CHECK(held_count == 0, static_cast<std::uint64_t>(held_locks[0].rank));
}
#else
void acquired(const void*, LockRank, bool) noexcept {}
void released(const void*, LockRank) noexcept {}
void assert_none_held() noexcept {}
#endif
}  // namespace lock_order

}  // namespace enchilada
