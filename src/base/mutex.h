// Ranked locks on futexes: Mutex, SharedMutex, their guards, and WaitQueue to sleep on any 32-bit word.
//
// Lock order (DESIGN.md §4), smaller rank first:
//   map -> object (shadow before backing) -> page busy -> pmap -> pv list -> swap space -> free list ->
//   queue.
// With ENCHILADA_LOCK_RANKS a thread that takes a lock of a smaller rank than one it holds stops the program;
// equal ranks are allowed for objects only (shadow before backing, the caller's duty) and for try_lock.
// Invariants: no libc, no allocation, async-signal-safe; a lock is 4 bytes, unlocked when zero, so that a
// zeroed arena is a valid one and fork() in a thread that holds it leaves the child able to unlock it.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/thread_annotations.h"

namespace enchilada {

enum class LockRank : std::uint8_t {
  kNone = 0,  // not checked
  kMap = 10,
  kObject = 20,
  kPmap = 40,
  kPvList = 50,
  kSwapSpace = 60,
  kSwapDrain = 65,
  kFreeList = 70,
  kPageQueue = 80,
  kLeaf = 90,
};

namespace lock_order {
void acquired(const void* lock, LockRank rank, bool tried) noexcept;
void released(const void* lock, LockRank rank) noexcept;
/// Stops the program when the calling thread holds any ranked lock. For places that are about to sleep.
void assert_none_held() noexcept;
}  // namespace lock_order

/// Sleeps while *word == expected; may return early. timeout_ns 0 = none. Returns false on a time-out.
bool futex_wait(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                std::uint64_t timeout_ns = 0) noexcept;
void futex_wake(const std::atomic<std::uint32_t>& word, int waiters) noexcept;
/// The same on words in memory shared between processes.
bool futex_wait_shared(const std::atomic<std::uint32_t>& word, std::uint32_t expected,
                       std::uint64_t timeout_ns = 0) noexcept;
void futex_wake_shared(const std::atomic<std::uint32_t>& word, int waiters) noexcept;

/// Exclusive lock. Word: 0 free, 1 held, 2 held with waiters (Drepper, "Futexes are tricky", mutex 3).
class CAPABILITY("mutex") Mutex {
 public:
  constexpr explicit Mutex(LockRank rank = LockRank::kNone) : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() noexcept ACQUIRE() {
    std::uint32_t expected = 0;
    if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) lock_slow();
    note_acquired(false);
  }
  [[nodiscard]] bool try_lock() noexcept TRY_ACQUIRE(true) {
    std::uint32_t expected = 0;
    if (!word_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return false;
    note_acquired(true);
    return true;
  }
  void unlock() noexcept RELEASE() {
    note_released();
    if (word_.exchange(0, std::memory_order_release) == 2) futex_wake(word_, 1);
  }
  /// Debug only: some thread holds it.
  [[nodiscard]] bool held() const noexcept { return word_.load(std::memory_order_relaxed) != 0; }
  void assert_held() const noexcept ASSERT_CAPABILITY(this);

 private:
  void lock_slow() noexcept;
  void note_acquired([[maybe_unused]] bool tried) noexcept {
#ifdef ENCHILADA_LOCK_RANKS
    lock_order::acquired(this, rank_, tried);
#endif
  }
  void note_released() noexcept {
#ifdef ENCHILADA_LOCK_RANKS
    lock_order::released(this, rank_);
#endif
  }
  std::atomic<std::uint32_t> word_{0};
  [[maybe_unused]] LockRank rank_;
};

/// Shared/exclusive lock; writers are preferred so that readers cannot starve them.
/// Word: bit 31 writer, bit 30 writer waiting, low bits readers.
class CAPABILITY("shared_mutex") SharedMutex {
 public:
  constexpr explicit SharedMutex(LockRank rank = LockRank::kNone) : rank_(rank) {}
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void lock() noexcept ACQUIRE();
  [[nodiscard]] bool try_lock() noexcept TRY_ACQUIRE(true);
  void unlock() noexcept RELEASE();
  void lock_shared() noexcept ACQUIRE_SHARED();
  [[nodiscard]] bool try_lock_shared() noexcept TRY_ACQUIRE_SHARED(true);
  void unlock_shared() noexcept RELEASE_SHARED();
  /// Shared to exclusive without letting go; false (and still shared) when another reader holds it.
  [[nodiscard]] bool try_upgrade() noexcept NO_THREAD_SAFETY_ANALYSIS;
  /// Exclusive to shared.
  void downgrade() noexcept NO_THREAD_SAFETY_ANALYSIS;
  [[nodiscard]] bool held_exclusive() const noexcept {
    return (word_.load(std::memory_order_relaxed) & kWriter) != 0;
  }
  [[nodiscard]] bool held() const noexcept {
    return (word_.load(std::memory_order_relaxed) & ~kWriterWaiting) != 0;
  }
  void assert_held() const noexcept ASSERT_CAPABILITY(this);
  void assert_held_shared() const noexcept ASSERT_SHARED_CAPABILITY(this);
  /// In a forked child: only the calling thread exists, so forget the readers that did not survive.
  void reset_after_fork() noexcept { word_.store(0, std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kWriter = 1u << 31;
  static constexpr std::uint32_t kWriterWaiting = 1u << 30;
  static constexpr std::uint32_t kReaders = kWriterWaiting - 1;
  std::atomic<std::uint32_t> word_{0};
  [[maybe_unused]] LockRank rank_;
};

class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& m) noexcept ACQUIRE(m) : mutex_(m) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class SCOPED_CAPABILITY WriteLock {
 public:
  explicit WriteLock(SharedMutex& m) noexcept ACQUIRE(m) : mutex_(m) { mutex_.lock(); }
  ~WriteLock() RELEASE() { mutex_.unlock(); }
  WriteLock(const WriteLock&) = delete;
  WriteLock& operator=(const WriteLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class SCOPED_CAPABILITY ReadLock {
 public:
  explicit ReadLock(SharedMutex& m) noexcept ACQUIRE_SHARED(m) : mutex_(m) { mutex_.lock_shared(); }
  ~ReadLock() RELEASE_GENERIC() { mutex_.unlock_shared(); }
  ReadLock(const ReadLock&) = delete;
  ReadLock& operator=(const ReadLock&) = delete;

 private:
  SharedMutex& mutex_;
};

}  // namespace enchilada
