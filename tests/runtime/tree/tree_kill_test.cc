// kill -9 at any moment: budget and slots return to what they were at the start.
//
// Two ways: processes that do everything at once are killed at random moments; and one process is killed
// after every single instruction (ptrace) of each operation, which leaves no moment out.
#include <sys/ptrace.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <vector>

#include "runtime/tree/tree_test_util.h"

namespace enchilada::test {
namespace {

constexpr std::uint64_t kFrames = 4096;

/// A process's life: takes, gives, forks, recovers and asks, for ever.
[[noreturn]] void live(ProcessTree& tree, unsigned seed, int depth);

void fork_once(ProcessTree& tree, std::uint64_t used, unsigned seed, int depth) {
  const ForkTicket ticket = tree.begin_fork(PageCount{used});
  if (ticket.status != TreeStatus::kOk) return;
  const pid_t child = fork();
  if (child == 0) {
    if (tree.child_started(ticket.child) != TreeStatus::kOk) _exit(3);
    tree.set_live();
    tree.give_back(PageCount{used});
    live(tree, seed * 7 + 1, depth + 1);
  }
  if (child < 0) {
    tree.abort_fork(ticket.child);
  } else {
    tree.child_made(ticket.child, static_cast<std::uint32_t>(child));
  }
}

void live(ProcessTree& tree, unsigned seed, int depth) {
  std::mt19937 random(seed);
  std::uint64_t used = 0;
  int forks = 0;
  for (;;) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) --forks;
    const auto dice = random() % 100;
    if (dice < 55) {
      used += tree.take(PageCount{random() % 200}).value();
    } else if (dice < 90) {
      const std::uint64_t n = used == 0 ? 0 : random() % (used + 1);
      tree.give_back(PageCount{n});
      used -= n;
    } else if (dice < 94) {
      used += tree.take_or_wait(PageCount{random() % 100}, 2'000'000).value();
    } else if (dice < 96) {
      (void)tree.recover_dead();
    } else if (dice < 98 && depth < 3 && forks < 2) {
      ++forks;
      fork_once(tree, used < 300 ? used : 0, static_cast<unsigned>(random()), depth);
    } else if (dice == 99 && depth > 0 && random() % 4 == 0) {
      _exit(0);
    }
    if (tree.wanted_back().value() != 0) {
      const std::uint64_t n = std::min(used, tree.wanted_back().value());
      tree.give_back(PageCount{n});
      used -= n;
      tree.decline_request();
    }
  }
}

std::uint32_t random_owner(const TestTree& t, std::mt19937& random) {
  std::vector<std::uint32_t> pids;
  for (std::uint32_t i = 0; i < kMaxProcesses; ++i) {
    const std::uint64_t word = t.tree.slot(ProcessSlot{i}).owner.load();
    const std::uint32_t pid = words::owner_pid(word);
    if (words::owner_state(word) != SlotState::kFree && pid != static_cast<std::uint32_t>(getpid()))
      pids.push_back(pid);
  }
  return pids.empty() ? 0 : pids[random() % pids.size()];
}

TEST(TreeKill, RandomKillsLeakNothing) {
  const char* wanted = std::getenv("ENCHILADA_KILLS");
  const int kills = wanted != nullptr ? std::atoi(wanted) : 400;
  TestTree t(kFrames);
  std::mt19937 random(20240917);
  std::vector<pid_t> roots;
  const auto add_root = [&] {
    roots.push_back(spawn([&]() -> int {
      setpgid(0, 0);
      if (t.tree.claim_slot() != TreeStatus::kOk) return 1;
      t.tree.set_live();
      live(t.tree, static_cast<unsigned>(random()), 0);
    }));
  };
  for (int i = 0; i < 4; ++i) add_root();
  for (int killed = 0; killed < kills;) {
    usleep(static_cast<useconds_t>(random() % 1500));
    const std::uint32_t pid = random_owner(t, random);
    if (pid != 0 && kill(static_cast<pid_t>(pid), SIGKILL) == 0) ++killed;
    for (std::size_t i = 0; i < roots.size(); ++i) {
      if (waitpid(roots[i], nullptr, WNOHANG) != roots[i]) continue;
      (void)random();  // another life for the next one
      roots.erase(roots.begin() + static_cast<std::ptrdiff_t>(i--));
      add_root();
    }
    if (random() % 8 == 0) (void)t.tree.recover_dead();
    ASSERT_LE(t.tree.available().value(), kFrames);
  }
  // The end: everybody, wherever they are. Orphans come to light by their slots.
  for (const pid_t root : roots) kill_and_reap(root);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (t.free_slots() != kMaxProcesses && std::chrono::steady_clock::now() < deadline) {
    const std::uint32_t pid = random_owner(t, random);
    if (pid != 0) kill(static_cast<pid_t>(pid), SIGKILL);
    (void)t.tree.recover_dead();
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    usleep(2000);
  }
  t.expect_as_new();
}

/// Runs `body` in a traced child and kills it after `steps` instructions. Returns how many it made: fewer
/// when it had finished before. `first` runs in the child before the counting, `last` here before the kill.
std::uint64_t kill_after_steps(
    std::uint64_t steps, FunctionRef<void()> body, FunctionRef<void()> first = [] {},
    FunctionRef<void()> last = [] {}) {
  const pid_t child = spawn([&] {
    first();
    ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    raise(SIGSTOP);
    body();
    return 0;
  });
  int status = 0;
  waitpid(child, &status, 0);
  std::uint64_t made = 0;
  for (; made < steps && WIFSTOPPED(status); ++made) {
    if (ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
    waitpid(child, &status, 0);
  }
  last();
  if (WIFSTOPPED(status)) kill_and_reap(child);
  return made;
}

bool can_trace() {
  const pid_t child = spawn([] { return ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0 ? 0 : 1; });
  return wait_status(child) == 0;
}

/// Single steps that one test may make; a step costs some 10 us. ENCHILADA_STEPS=1000000000 leaves no
/// instruction out.
std::uint64_t step_budget() {
  const char* wanted = std::getenv("ENCHILADA_STEPS");
  return wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 40'000;
}

/// Kills `body` after 0, 1, 2, ... instructions until it ends by itself (every n-th when it is long, and
/// other ones with each seed); the tree must be as new each time. `prepare` runs here before each try.
void kill_at_every_instruction(
    TestTree& t, FunctionRef<void()> body, FunctionRef<void()> prepare = [] {}) {
  if (!can_trace()) GTEST_SKIP() << "ptrace is not allowed here";
  prepare();
  const std::uint64_t length = kill_after_steps(~std::uint64_t{0}, body);
  const std::uint64_t stride = 1 + length * length / (2 * step_budget());
  const char* seed = std::getenv("ENCHILADA_SEED");
  for (std::uint64_t steps = (seed != nullptr ? std::strtoull(seed, nullptr, 10) : 0) % stride;
       steps < length; steps += stride) {
    (void)t.tree.recover_dead();
    prepare();
    (void)kill_after_steps(steps, body);
    (void)t.tree.recover_dead();
    ASSERT_EQ(t.tree.available().value(), kFrames) << "killed after " << steps << " of " << length;
    ASSERT_EQ(t.all_charges(), 0u) << steps;
    ASSERT_EQ(t.free_slots(), kMaxProcesses) << steps;
  }
}

TEST(TreeKill, ClaimTakeAndReleaseAtAnyInstruction) {
  TestTree t(kFrames);
  kill_at_every_instruction(t, [&] {
    (void)t.tree.claim_slot();
    t.tree.set_live();
  });
  kill_at_every_instruction(t, [&] {
    (void)t.tree.claim_slot();
    (void)t.tree.take(PageCount{100});
    t.tree.give_back(PageCount{60});
    (void)t.tree.take(PageCount{10});
    t.tree.release_slot();
  });
}

TEST(TreeKill, TakeAtAnyInstructionWhileOthersChangeTheBudget) {
  // Without the long way through /proc: the child continues a slot that exists already.
  TestTree t(kFrames);
  if (!can_trace()) GTEST_SKIP() << "ptrace is not allowed here";
  ForkTicket ticket;
  const auto reserve = [&] {
    ASSERT_EQ(t.tree.claim_slot(), TreeStatus::kOk);
    ticket = t.tree.begin_fork(PageCount{20});
    ASSERT_EQ(ticket.status, TreeStatus::kOk);
  };
  const auto starts = [&] { (void)t.tree.child_started(ticket.child); };
  const auto body = [&] {
    (void)t.tree.take(PageCount{100});
    t.tree.give_back(PageCount{70});
  };
  // Another process changes the budget: the victim's change is then settled and no more in the budget word.
  const auto meddle = [&] {
    (void)t.tree.take(PageCount{50});
    t.tree.give_back(PageCount{50});
  };
  reserve();
  const std::uint64_t length = kill_after_steps(~std::uint64_t{0}, body, starts);
  t.tree.release_slot();
  const std::uint64_t stride = 1 + length * length / step_budget();
  for (std::uint64_t steps = 0; steps < 2 * length; steps += stride) {
    (void)t.tree.recover_dead();
    reserve();
    if (steps % 2 == 1) {
      (void)kill_after_steps(steps / 2, body, starts, meddle);
    } else {
      (void)kill_after_steps(steps / 2, body, starts);
    }
    (void)t.tree.recover_dead();
    t.tree.release_slot();
    ASSERT_EQ(t.tree.available().value(), kFrames) << steps;
    ASSERT_EQ(t.all_charges(), 0u) << steps;
    ASSERT_EQ(t.free_slots(), kMaxProcesses) << steps;
  }
}

TEST(TreeKill, RecoveryItselfAtAnyInstruction) {
  TestTree t(kFrames);
  const auto dead_process = [&] {
    const pid_t victim = spawn([&] {
      (void)t.tree.claim_slot();
      return t.tree.take(PageCount{321}).value() == 321 ? 0 : 1;
    });
    EXPECT_EQ(wait_status(victim), 0);
  };
  kill_at_every_instruction(
      t, [&] { (void)t.tree.recover_dead(); }, dead_process);
}

TEST(TreeKill, DropHolderIsCalledForEveryDeadSlot) {
  TestTree t(kFrames);
  std::vector<std::uint32_t> dropped;
  t.tree.set_drop_holder(
      [](void* context, ProcessSlot slot) {
        static_cast<std::vector<std::uint32_t>*>(context)->push_back(slot.value());
      },
      &dropped);
  for (int i = 0; i < 3; ++i) {
    const pid_t child = spawn([&] { return static_cast<int>(t.tree.claim_slot()); });
    EXPECT_EQ(wait_status(child), 0);
  }
  EXPECT_EQ(t.tree.recover_dead(), 3u);
  EXPECT_EQ(dropped, (std::vector<std::uint32_t>{0, 1, 2}));
}

}  // namespace
}  // namespace enchilada::test
