// ProcessTree: the budget, slots, fork, exec, requests and recovery, each with real processes.
#include "runtime/tree/process_tree.h"

#include <fcntl.h>
#include <sys/prctl.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#include "base/monotonic_clock.h"
#include "runtime/tree/process_probe.h"
#include "runtime/tree/tree_test_util.h"

namespace enchilada::test {
namespace {

constexpr PageCount pages(std::uint64_t n) {
  return PageCount{n};
}

/// Memory that children write their results into.
struct Shared {
  std::atomic<std::uint32_t> step{0};
  std::atomic<std::uint64_t> value{0};
  static Shared* make() {
    void* at = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (at) Shared();
  }
  void reach(std::uint32_t n) {
    step.store(n);
    futex_wake_shared(step, 100);
  }
  void await(std::uint32_t n) {
    for (std::uint32_t s = step.load(); s < n; s = step.load()) futex_wait_shared(step, s, 100'000'000);
  }
};

TEST(ProcessTree, ClaimChargesTheMinimumAndReleaseReturnsIt) {
  TestTree t(1000, 100);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  t.tree.set_live();
  EXPECT_EQ(t.tree.available().value(), 900u);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, TakeUsesTheReserveFirstAndNeverExceedsTheBudget) {
  TestTree t(1000, 100);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  EXPECT_EQ(t.tree.take(pages(60)).value(), 60u);
  EXPECT_EQ(t.tree.available().value(), 900u);
  EXPECT_EQ(t.tree.take(pages(60)).value(), 60u);
  EXPECT_EQ(t.tree.available().value(), 880u);
  EXPECT_EQ(t.tree.take(pages(5000)).value(), 880u);
  EXPECT_EQ(t.tree.take(pages(1)).value(), 0u);
  EXPECT_EQ(t.tree.header().peak_charge.load(), 1000u);
  t.tree.give_back(pages(1000));
  EXPECT_EQ(t.tree.available().value(), 900u);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, TakeOrWaitAnswersAtOnceWhenNobodyCouldGive) {
  TestTree t(64, 16);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  EXPECT_EQ(t.tree.take(pages(64)).value(), 64u);
  const std::uint64_t began = monotonic_ns();
  EXPECT_EQ(t.tree.take_or_wait(pages(1), 5'000'000'000).value(), 0u);
  EXPECT_LT(monotonic_ns() - began, 2'000'000'000u);
  t.tree.release_slot();
}

TEST(ProcessTree, DeadProcessIsRecovered) {
  TestTree t(1000);
  kill_and_reap(spawn([&] { return 0; }));
  const pid_t child = spawn([&] {
    if (t.tree.claim_slot() != TreeStatus::kOk) return 1;
    t.tree.set_live();
    t.tree.counters().zfod.store(7);
    t.tree.counters().fault_time.add(1000);
    return t.tree.take(pages(500)).value() == 500 ? 0 : 2;
  });
  EXPECT_EQ(wait_status(child), 0);
  EXPECT_EQ(t.tree.available().value(), 500u);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  EXPECT_EQ(t.tree.recover_dead(), 0u);
  t.expect_as_new();
  EXPECT_EQ(t.tree.header().ended.zfod.load(), 7u);
  EXPECT_EQ(t.tree.header().ended.fault_time.sum.load(), 1000u);
}

TEST(ProcessTree, ZombieCountsAsDead) {
  TestTree t(1000);
  const pid_t child = spawn([&] {
    (void)t.tree.claim_slot();
    return 0;
  });
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  wait_status(child);
  t.expect_as_new();
}

TEST(ProcessTree, LivingProcessIsNotRecovered) {
  TestTree t(1000);
  Shared* shared = Shared::make();
  const pid_t child = spawn([&] {
    (void)t.tree.claim_slot();
    t.tree.set_live();
    shared->reach(1);
    shared->await(2);
    return 0;
  });
  shared->await(1);
  EXPECT_EQ(t.tree.recover_dead(), 0u);
  EXPECT_TRUE(t.tree.holder_alive(ProcessSlot{0}));
  shared->reach(2);
  wait_status(child);
  EXPECT_FALSE(t.tree.holder_alive(ProcessSlot{0}));
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  t.expect_as_new();
}

TEST(ProcessTree, ForkChargesTheChildUpFront) {
  TestTree t(1000);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  t.tree.set_live();
  ASSERT_EQ(t.tree.take(pages(300)).value(), 300u);
  const ForkTicket ticket = t.tree.begin_fork(pages(300));
  ASSERT_EQ(ticket.status, TreeStatus::kOk);
  EXPECT_EQ(t.tree.available().value(), 400u);
  const pid_t child = spawn([&] {
    if (t.tree.child_started(ticket.child) != TreeStatus::kOk) return 1;
    t.tree.set_live();
    t.tree.give_back(pages(300));
    return t.tree.take(pages(10)).value() == 10 ? 0 : 2;
  });
  t.tree.child_made(ticket.child, static_cast<std::uint32_t>(child));
  EXPECT_EQ(wait_status(child), 0);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, ForkWithoutRoomSaysHowMuchIsMissing) {
  TestTree t(1000);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  ASSERT_EQ(t.tree.take(pages(700)).value(), 700u);
  const ForkTicket ticket = t.tree.begin_fork(pages(700));
  EXPECT_EQ(ticket.status, TreeStatus::kNoRam);
  EXPECT_EQ(ticket.short_by.value(), 400u);
  EXPECT_EQ(t.tree.available().value(), 300u);
  EXPECT_EQ(t.free_slots(), kMaxProcesses - 1u);
  t.tree.release_slot();
}

TEST(ProcessTree, AbortedForkLeavesNothing) {
  TestTree t(1000);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  const ForkTicket ticket = t.tree.begin_fork(pages(300));
  ASSERT_EQ(ticket.status, TreeStatus::kOk);
  t.tree.abort_fork(ticket.child);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, ParentKilledBeforeItsForkIsRecovered) {
  TestTree t(1000);
  const pid_t parent = spawn([&] {
    (void)t.tree.claim_slot();
    (void)t.tree.begin_fork(pages(100));
    kill(getpid(), SIGKILL);
    return 0;
  });
  wait_status(parent);
  EXPECT_EQ(t.tree.recover_dead(), 1u);  // the parent's; the other might have a child under way
  EXPECT_EQ(t.tree.available().value(), 900u);
  usleep(2'200'000);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  t.expect_as_new();
}

TEST(ProcessTree, ChildOfADeadParentKeepsItsSlot) {
  TestTree t(1000);
  Shared* shared = Shared::make();
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  const pid_t parent = spawn([&] {
    (void)t.tree.claim_slot();
    const ForkTicket ticket = t.tree.begin_fork(pages(100));
    const pid_t child = fork();
    if (child == 0) {
      shared->await(1);
      shared->value.store(static_cast<std::uint64_t>(t.tree.child_started(ticket.child)) + 1);
      shared->reach(2);
      shared->await(3);
      _exit(0);
    }
    kill(getpid(), SIGKILL);
    return 0;
  });
  wait_status(parent);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  shared->reach(1);
  shared->await(2);
  EXPECT_EQ(shared->value.load(), static_cast<std::uint64_t>(TreeStatus::kOk) + 1);
  EXPECT_EQ(t.tree.recover_dead(), 0u);
  EXPECT_EQ(t.tree.available().value(), 900u);
  shared->reach(3);
  EXPECT_GT(wait(nullptr), 0);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  t.expect_as_new();
}

TEST(ProcessTree, ExecOfAnUnmanagedProgramFreesTheSlot) {
  TestTree t(1000);
  int pipe_ends[2];
  ASSERT_EQ(pipe2(pipe_ends, O_CLOEXEC), 0);
  const pid_t child = spawn([&] {
    (void)t.tree.claim_slot();
    t.tree.set_live();
    (void)t.tree.take(pages(500));
    t.tree.begin_exec();
    execl("/bin/sleep", "sleep", "60", nullptr);
    return 1;
  });
  close(pipe_ends[1]);
  char byte;
  EXPECT_EQ(read(pipe_ends[0], &byte, 1), 0);  // returns when exec closes the child's end: it has its frames
  close(pipe_ends[0]);
  for (int i = 0; i < 500 && t.tree.available().value() != 1000; ++i) {
    (void)t.tree.recover_dead();
    usleep(10'000);
  }
  EXPECT_EQ(kill(child, 0), 0);
  t.expect_as_new();
  kill_and_reap(child);
}

TEST(ProcessTree, SamePidClaimsAgainAfterExec) {
  TestTree t(1000);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  t.tree.set_live();
  ASSERT_EQ(t.tree.take(pages(500)).value(), 500u);
  std::array<char, 128> value{};
  ASSERT_NE(t.tree.environment(value), 0u);
  ProcessTree fresh;  // as the new image's: it knows nothing
  munmap(reinterpret_cast<void*>(kTreeAddress), t.tree.header().segment_bytes);
  ASSERT_EQ(fresh.attach(value.data()), TreeStatus::kOk);
  ASSERT_EQ(fresh.claim_slot(), TreeStatus::kOk);
  EXPECT_EQ(fresh.available().value(), 1000u - 16);
  fresh.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, AttachThroughTheLauncherWhenTheDescriptorWasClosed) {
  TestTree t(1000);
  std::array<char, 128> value{};
  ASSERT_NE(t.tree.environment(value), 0u);
  const int descriptor = t.tree.header().segment_descriptor;
  const std::uint64_t bytes = t.tree.header().segment_bytes;
  const pid_t child = spawn([&] {
    munmap(reinterpret_cast<void*>(kTreeAddress), bytes);
    close(descriptor);
    (void)!open("/dev/null", O_RDONLY);  // takes the number
    ProcessTree mine;
    if (mine.attach(value.data()) != TreeStatus::kOk) return 1;
    if (mine.claim_slot() != TreeStatus::kOk) return 2;
    return 0;
  });
  EXPECT_EQ(wait_status(child), 0);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  t.expect_as_new();
}

TEST(ProcessTree, AttachRefusesNonsense) {
  ProcessTree tree;
  EXPECT_EQ(tree.attach(nullptr), TreeStatus::kMalformed);
  for (const char* text : {"", "1", "1:2:3:4", "1:2:3:4:5:6", "a:b:c:d:e", "1:2:3:4:5x", ":::::"}) {
    EXPECT_EQ(tree.attach(text), TreeStatus::kMalformed) << text;
  }
  EXPECT_EQ(tree.attach("1999:1:1:4096:5"), TreeStatus::kUnreachable);
}

TEST(ProcessTree, RequestReachesTheLargerSiblingAndItsGiftTheAsker) {
  TestTree t(1000);
  Shared* shared = Shared::make();
  const pid_t child = spawn([&] {
    (void)t.tree.claim_slot();
    t.tree.set_live();
    (void)t.tree.take(pages(900));
    shared->reach(1);
    for (int i = 0; i < 100 && t.tree.wanted_back().value() == 0; ++i) t.tree.wait_for_request(100'000'000);
    shared->value.store(t.tree.wanted_back().value());
    t.tree.give_back(t.tree.wanted_back());
    shared->reach(2);
    shared->await(3);
    return 0;
  });
  shared->await(1);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  t.tree.set_live();
  (void)t.tree.take(pages(100));
  EXPECT_EQ(t.tree.available().value(), 0u);
  EXPECT_EQ(t.tree.take_or_wait(pages(50), 10'000'000'000).value(), 50u);
  shared->await(2);
  EXPECT_GE(shared->value.load(), 50u);
  EXPECT_LE(shared->value.load(), 900u - 16);
  EXPECT_TRUE(t.tree.has_siblings());
  shared->reach(3);
  wait_status(child);
  EXPECT_EQ(t.tree.recover_dead(), 1u);
  EXPECT_FALSE(t.tree.has_siblings());
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, AllSlotsCanBeUsedAndTheNextOneIsRefused) {
  TestTree t(kMaxProcesses * 16 + 100);
  Shared* shared = Shared::make();
  std::vector<pid_t> children;
  for (std::uint32_t i = 0; i + 1 < kMaxProcesses; ++i) {
    children.push_back(spawn([&] {
      if (t.tree.claim_slot() != TreeStatus::kOk) return 1;
      shared->value.fetch_add(1);
      shared->await(1);
      return 0;
    }));
  }
  while (shared->value.load() + 1 < kMaxProcesses) usleep(1000);
  EXPECT_EQ(t.tree.claim_slot(), TreeStatus::kNoSlot);
  shared->reach(1);
  for (const pid_t child : children) EXPECT_EQ(wait_status(child), 0);
  EXPECT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessTree, NoRoomForAnotherProcess) {
  TestTree t(64, 32);
  ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
  ASSERT_EQ(t.tree.take(pages(60)).value(), 60u);
  const pid_t child = spawn([&] {
    ProcessTree other;
    std::array<char, 128> value{};
    (void)t.tree.environment(value);
    munmap(reinterpret_cast<void*>(kTreeAddress), t.tree.header().segment_bytes);
    (void)other.attach(value.data());
    return static_cast<int>(other.claim_slot());
  });
  EXPECT_EQ(WEXITSTATUS(wait_status(child)), static_cast<int>(TreeStatus::kNoRam));
  EXPECT_EQ(t.tree.available().value(), 4u);
  t.tree.release_slot();
  t.expect_as_new();
}

TEST(ProcessProbe, ReadsStatLinesWithAnyName) {
  const std::string tail = " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 3 18 4242 20 21 22 23 24 140737 26 27";
  const std::string text = "77 (a) b (c)" + tail;
  const ProcessProbe p = parse_stat(text.data(), text.size());
  EXPECT_EQ(p.life, ProcessProbe::Life::kAlive);
  EXPECT_STREQ(p.name.data(), "a) b (c");
  const std::string zombie =
      "77 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 18 4242 20 21 22 23 24 140737 26 27";
  EXPECT_EQ(parse_stat(zombie.data(), zombie.size()).life, ProcessProbe::Life::kGone);
  EXPECT_EQ(parse_stat("77 (x", 5).life, ProcessProbe::Life::kUnknown);
  EXPECT_EQ(parse_stat("", 0).life, ProcessProbe::Life::kUnknown);
}

TEST(ProcessProbe, KnowsItself) {
  const ProcessProbe p = probe_process(own_pid());
  EXPECT_EQ(p.life, ProcessProbe::Life::kAlive);
  EXPECT_NE(p.start_time, 0u);
  EXPECT_NE(p.start_stack, 0u);
  EXPECT_EQ(probe_process(0x3fffffff).life, ProcessProbe::Life::kGone);
}

}  // namespace
}  // namespace enchilada::test
