// RobustMutex: mutual exclusion among threads and processes, and inheritance from a process killed inside.
#include "base/robust_mutex.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <random>
#include <thread>
#include <vector>

namespace enchilada {
namespace {

constexpr unsigned kSlots = 8;

struct Shared {
  RobustMutex lock;
  std::atomic<std::uint32_t> ready;
  std::array<std::atomic<int>, kSlots + 1> pids;
  std::uint64_t a;  // equal to b whenever nobody is inside
  std::uint64_t b;
};

class RobustMutexTest : public testing::Test {
 protected:
  RobustMutexTest()
      : shared_(new (mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))
                    Shared{}) {}
  ~RobustMutexTest() override { munmap(shared_, sizeof(Shared)); }

  RobustMutex::Outcome lock(std::uint32_t self) NO_THREAD_SAFETY_ANALYSIS {
    return shared_->lock.lock(self, [this](std::uint32_t id) { return shared_->pids[id].load() > 0; });
  }
  void unlock(std::uint32_t self) NO_THREAD_SAFETY_ANALYSIS { shared_->lock.unlock(self); }

  /// Forks a child in a slot that runs body() and exits.
  template <class Body>
  pid_t spawn(std::uint32_t slot, Body body) {
    const pid_t pid = fork();
    if (pid == 0) {
      body();
      _exit(0);
    }
    shared_->pids[slot] = pid;
    return pid;
  }
  void reap(std::uint32_t slot) {
    waitpid(shared_->pids[slot].load(), nullptr, 0);
    shared_->pids[slot] = 0;
  }

  Shared* shared_;
};

TEST_F(RobustMutexTest, ZeroIsUnlocked) {
  EXPECT_EQ(shared_->lock.owner(), 0u);
  EXPECT_EQ(lock(3), RobustMutex::Outcome::kClean);
  EXPECT_EQ(shared_->lock.owner(), 3u);
  unlock(3);
  EXPECT_EQ(shared_->lock.owner(), 0u);
}

TEST_F(RobustMutexTest, ThreadsOfOneProcessExcludeEachOther) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 20000; ++i) {
        EXPECT_EQ(lock(1), RobustMutex::Outcome::kClean);
        ++shared_->a;
        ++shared_->b;
        unlock(1);
      }
    });
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(shared_->a, 80000u);
  EXPECT_EQ(shared_->b, 80000u);
}

TEST_F(RobustMutexTest, InheritedFromTheDead) {
  spawn(2, [this] {
    static_cast<void>(lock(2));
    shared_->ready = 1;
    for (;;) pause();
  });
  while (shared_->ready == 0) usleep(100);
  kill(shared_->pids[2], SIGKILL);
  reap(2);
  EXPECT_EQ(lock(1), RobustMutex::Outcome::kInherited);
  unlock(1);
  EXPECT_EQ(lock(1), RobustMutex::Outcome::kClean);
  unlock(1);
}

TEST_F(RobustMutexTest, ASlowOwnerKeepsIt) {
  spawn(2, [this] {
    static_cast<void>(lock(2));
    shared_->ready = 1;
    usleep(100'000);
    unlock(2);
  });
  while (shared_->ready == 0) usleep(100);
  EXPECT_EQ(lock(1), RobustMutex::Outcome::kClean);
  unlock(1);
  reap(2);
}

TEST_F(RobustMutexTest, OnlyOneOfManyWaitersInherits) {
  spawn(8, [this] {
    static_cast<void>(lock(8));
    shared_->ready = 1;
    for (;;) pause();
  });
  while (shared_->ready == 0) usleep(100);
  std::atomic<int> inherited{0};
  std::vector<std::thread> threads;
  for (std::uint32_t t = 1; t <= 4; ++t) {
    shared_->pids[t] = getpid();
    threads.emplace_back([this, t, &inherited] {
      if (lock(t) == RobustMutex::Outcome::kInherited) ++inherited;
      unlock(t);
    });
  }
  usleep(50'000);
  kill(shared_->pids[8], SIGKILL);
  reap(8);
  for (auto& t : threads) t.join();
  EXPECT_EQ(inherited, 1);
}

TEST_F(RobustMutexTest, KilledAtRandomMoments) {
  std::mt19937 random(7);
  int inherited = 0;
  const auto work = [this](std::uint32_t self) {
    for (;;) {
      if (lock(self) == RobustMutex::Outcome::kInherited) shared_->b = shared_->a;
      if (shared_->a != shared_->b) _exit(1);
      auto* torn = static_cast<volatile std::uint64_t*>(&shared_->a);
      for (int i = 0; i < 20; ++i) *torn = *torn + 1;
      *static_cast<volatile std::uint64_t*>(&shared_->b) = shared_->a;
      unlock(self);
    }
  };
  for (std::uint32_t slot = 1; slot <= 4; ++slot) spawn(slot, [&] { work(slot); });
  for (int round = 0; round < 150; ++round) {
    const std::uint32_t slot = 1 + random() % 4;
    usleep(static_cast<useconds_t>(random() % 2000));
    kill(shared_->pids[slot], SIGKILL);
    int status = 0;
    waitpid(shared_->pids[slot], &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "a child saw the data torn";
    shared_->pids[slot] = 0;
    // A slot may be used again only after somebody has had the lock.
    if (lock(6) == RobustMutex::Outcome::kInherited) {
      ++inherited;
      shared_->b = shared_->a;
    }
    EXPECT_EQ(shared_->a, shared_->b);
    unlock(6);
    spawn(slot, [&] { work(slot); });
  }
  for (std::uint32_t slot = 1; slot <= 4; ++slot) {
    kill(shared_->pids[slot], SIGKILL);
    reap(slot);
  }
  RecordProperty("inherited", inherited);
}

}  // namespace
}  // namespace enchilada
