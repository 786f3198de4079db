// Kernel fork (rule 3): the child sees everything, the parent notices nothing, both go on by themselves.
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "base/raw_syscall.h"
#include "host_fixture.h"

namespace enchilada {
namespace {

HostRig* forked_rig = nullptr;

/// What the runtime's SIGSEGV handler does in a fresh child: the first touch of the window sets it up.
bool on_segv(VirtAddr at, Access) {
  if (forked_rig == nullptr || !forked_rig->machine->window().contains(at)) return false;
  if (!forked_rig->machine->in_fresh_child()) return false;
  return forked_rig->machine->after_fork_child();
}

int exit_code(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#define CHILD_CHECK(condition, code) \
  if (!(condition)) _exit(code)

class HostFork : public HostTest {
 protected:
  static constexpr std::uint32_t kPages = 64;
  HostFork() : rig(PageCount{kPages * 2}, GetParam()) {
    rig.grow_all();
    forked_rig = &rig;
    set_segv_hook(on_segv);
  }
  ~HostFork() override {
    set_segv_hook(nullptr);
    forked_rig = nullptr;
  }
  /// Frames 0..15 writable at 0, 16..31 read-only at 16, 32..47 home, 48..63 unpopulated.
  void set_up() {
    for (std::uint32_t i = 0; i < 48; ++i) rig.fill(FrameNumber{i}, static_cast<std::uint8_t>(i + 1));
    rig.enter(0, HostRig::run(0, 16));
    rig.enter(16, HostRig::run(16, 16), Prot::kRead);
  }
  HostRig rig;
};
INSTANTIATE_HOST_TEST(HostFork);

TEST_P(HostFork, ChildSeesAllDataAndEvictsByItself) {
  set_up();
  rig.machine->prepare_fork();
  const pid_t child = fork();
  if (child == 0) {
    // The first touch faults; after that everything is as it was, protection included.
    for (std::uint32_t i = 0; i < 32; ++i) CHILD_CHECK(*rig.ptr(i) == i + 1, 10);
    CHILD_CHECK(!rig.machine->in_fresh_child(), 11);
    for (std::uint32_t i = 16; i < 32; ++i) CHILD_CHECK(probe_store(rig.ptr(i), 1) == 0, 12);
    for (std::uint32_t i = 0; i < 16; ++i) *rig.ptr(i) = 200;
    for (std::uint32_t i = 32; i < 48; ++i) CHILD_CHECK(rig.peek(FrameNumber{i}, 77) == i + 1, 13);
    CHILD_CHECK(rig.remove_all(HostRig::run(0, 32)) == 0, 14);
    for (std::uint32_t i = 0; i < 16; ++i) CHILD_CHECK(rig.peek(FrameNumber{i}) == 200, 15);
    for (std::uint32_t i = 16; i < 32; ++i) CHILD_CHECK(rig.peek(FrameNumber{i}) == i + 1, 16);
    CHILD_CHECK(rig.enter(100, HostRig::run(0, 64)) == 64, 17);
    CHILD_CHECK(*rig.ptr(100 + 40, 5) == 41 && *rig.ptr(100 + 60) == 0, 18);
    CHILD_CHECK(probe_load(rig.ptr(0), rig.ptr(100)) == 0, 19);
    CHILD_CHECK(rig.machine->check_consistency(), 20);
    _exit(0);
  }
  rig.machine->after_fork_parent();
  EXPECT_FALSE(rig.machine->fork_pending());
  for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(*rig.ptr(i), i + 1);
  EXPECT_EQ(exit_code(child), 0);
  // Nothing of the child's came here; eviction works although the pages were shared, and faults them back.
  for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(*rig.ptr(i), i + 1);
  EXPECT_EQ(probe_store(rig.ptr(20), 1), 0);
  for (std::uint32_t i = 0; i < 16; ++i) *rig.ptr(i, 1) = 99;
  EXPECT_EQ(rig.remove_all(HostRig::run(0, 32)), 0u);
  for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(rig.peek(FrameNumber{i}), i + 1);
  EXPECT_EQ(rig.enter(100, HostRig::run(0, 64)), 64u);
  EXPECT_EQ(*rig.ptr(100, 1), 99);
  EXPECT_EQ(*rig.ptr(147), 48);
  EXPECT_TRUE(rig.machine->check_consistency());
}

TEST_P(HostFork, ParentEvictsWhileTheChildLives) {
  set_up();
  int ready[2], go[2];
  ASSERT_EQ(pipe(ready) + pipe(go), 0);
  rig.machine->prepare_fork();
  const pid_t child = fork();
  if (child == 0) {
    CHILD_CHECK(rig.machine->after_fork_child(), 9);
    CHILD_CHECK(rig.machine->after_fork_child(), 9);  // idempotent
    char c = 'x';
    CHILD_CHECK(write(ready[1], &c, 1) == 1 && read(go[0], &c, 1) == 1, 10);
    for (std::uint32_t i = 0; i < 32; ++i) CHILD_CHECK(*rig.ptr(i) == i + 1, 11);
    _exit(0);
  }
  rig.machine->after_fork_parent();
  char c = 0;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  for (int round = 0; round < 3; ++round) {  // shared with a living process all the time
    EXPECT_EQ(rig.remove_all(HostRig::run(0, 48)), 0u);
    EXPECT_EQ(rig.enter(0, HostRig::run(0, 48)), 48u);
    for (std::uint32_t i = 0; i < 48; ++i) EXPECT_EQ(*rig.ptr(i), i + 1);
  }
  for (std::uint32_t i = 0; i < 48; ++i) *rig.ptr(i) = 250;
  ASSERT_EQ(write(go[1], &c, 1), 1);
  EXPECT_EQ(exit_code(child), 0);
  EXPECT_TRUE(rig.machine->check_consistency());
  for (const int fd : {ready[0], ready[1], go[0], go[1]}) close(fd);
}

TEST_P(HostFork, WithoutTheGuardAChildThatSetsItselfUpFirstIsProtectedToo) {
  set_up();
  rig.machine->prepare_fork(/*guard=*/false);
  const pid_t child = fork();
  if (child == 0) {
    CHILD_CHECK(rig.machine->after_fork_child(), 9);
    for (std::uint32_t i = 0; i < 32; ++i) CHILD_CHECK(*rig.ptr(i) == i + 1, 10);
    for (std::uint32_t i = 16; i < 32; ++i) CHILD_CHECK(probe_store(rig.ptr(i), 1) == 0, 11);
    CHILD_CHECK(probe_load(rig.ptr(40), rig.ptr(0)) == 0, 12);
    CHILD_CHECK(rig.remove_all(HostRig::run(0, 32)) == 0, 13);
    CHILD_CHECK(rig.machine->check_consistency(), 14);
    _exit(0);
  }
  rig.machine->after_fork_parent();
  EXPECT_EQ(exit_code(child), 0);
  for (std::uint32_t i = 0; i < 32; ++i) EXPECT_EQ(*rig.ptr(i), i + 1);
  EXPECT_EQ(probe_store(rig.ptr(20), 1), 0);
}

TEST_P(HostFork, GrandchildrenWork) {
  set_up();
  rig.machine->prepare_fork();
  const pid_t child = fork();
  if (child == 0) {
    CHILD_CHECK(rig.machine->after_fork_child(), 9);
    *rig.ptr(1) = 77;
    rig.machine->prepare_fork();
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      CHILD_CHECK(*rig.ptr(1) == 77 && *rig.ptr(2) == 3, 30);
      CHILD_CHECK(rig.remove_all(HostRig::run(0, 32)) == 0, 31);
      CHILD_CHECK(rig.peek(FrameNumber{1}) == 77, 32);
      _exit(0);
    }
    rig.machine->after_fork_parent();
    _exit(exit_code(grandchild));
  }
  rig.machine->after_fork_parent();
  EXPECT_EQ(exit_code(child), 0);
  EXPECT_EQ(*rig.ptr(1), 2);
}

TEST_P(HostFork, ChildMadeBehindOurBackDiesInsteadOfReadingZeros) {
  set_up();
  set_segv_hook(nullptr);
  const long child = raw_syscall(SYS_clone, SIGCHLD);
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    const volatile std::uint8_t* p = rig.ptr(0);
    raw_syscall(SYS_exit_group, *p == 1 ? 1 : 2);
  }
  EXPECT_EQ(exit_code(static_cast<pid_t>(child)), 128 + SIGSEGV);
  EXPECT_EQ(*rig.ptr(0), 1);
}

TEST(HostForkCost, ProtectAndRestoreOfManyResidentPages) {
  constexpr std::uint32_t kMany = 24576;
  HostRig rig(PageCount{kMany}, HostTransport::kAuto);
  rig.grow_all();
  for (std::uint32_t i = 0; i < kMany; i += 512) rig.enter(i, HostRig::run(i, 512));
  const auto us = [](auto from) {
    return static_cast<long>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - from)
            .count());
  };
  const auto start = std::chrono::steady_clock::now();
  rig.machine->prepare_fork();
  const long prepare = us(start);
  const auto middle = std::chrono::steady_clock::now();
  rig.machine->after_fork_parent();
  const long restore = us(middle);
  const auto touch = std::chrono::steady_clock::now();
  for (std::uint32_t i = 0; i < kMany; ++i) *rig.ptr(i) = 1;
  std::printf(
      "24576 resident pages: prepare_fork %ld us, after_fork_parent %ld us, first writes after it %ld us\n",
      prepare, restore, us(touch));
}

}  // namespace
}  // namespace enchilada
