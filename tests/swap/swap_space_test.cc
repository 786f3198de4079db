// SwapSpace: references, fork, and death at any moment.
#include "swap/swap_space.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <map>
#include <set>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;
using swap_test::SharedMemory;

constexpr SwapGeometry kSmall{.device_pages = {3000}, .slots = 1};

SwapSpace make(SharedMemory& memory, const SwapGeometry& g) {
  EXPECT_TRUE(SwapSpace::create(memory.span(), g));
  return *SwapSpace::attach(memory.span(), 0, {});
}

TEST(SwapSpace, BlocksLiveAsLongAsSomebodyReferencesThem) {
  SharedMemory memory(SwapSpace::required_bytes(kSmall));
  SwapSpace space = make(memory, kSmall);
  const BlockRun run = space.allocate(0, PageCount{64});
  ASSERT_EQ(run.count.value(), 64u);
  space.clone_holder(0, 7);
  EXPECT_EQ(space.count_of(run.first), 2u);
  space.release(0, run);
  EXPECT_EQ(space.used().value(), 64u);
  space.reference(3, {run.first, PageCount{2}});
  space.drop_holder(7);
  EXPECT_EQ(space.used().value(), 2u);
  EXPECT_TRUE(space.verify());
  space.drop_holder(3);
  EXPECT_EQ(space.used().value(), 0u);
  EXPECT_EQ(space.peak().value(), 64u);
  EXPECT_TRUE(space.verify());
}

TEST(SwapSpace, AttachRefusesWhatIsNotASpace) {
  SharedMemory memory(SwapSpace::required_bytes(kSmall));
  EXPECT_FALSE(SwapSpace::attach(memory.span(), 0, {}).has_value());
  EXPECT_FALSE(SwapSpace::create(memory.span().first(8192), kSmall));
  EXPECT_FALSE(SwapSpace::create(memory.span(), SwapGeometry{}));
  ASSERT_TRUE(SwapSpace::create(memory.span(), kSmall));
  EXPECT_FALSE(SwapSpace::attach(memory.span(), 500, {}).has_value());
}

TEST(SwapSpace, GivesTheLongestRunThereIs) {
  SharedMemory memory(SwapSpace::required_bytes(kSmall));
  SwapSpace space = make(memory, kSmall);
  std::vector<BlockRun> all;
  for (BlockRun run; !(run = space.allocate(0, PageCount{1})).empty();) all.push_back(run);
  ASSERT_EQ(all.size(), 3000u);
  space.release(0, {SwapBlock{100}, PageCount{3}});
  space.release(0, {SwapBlock{500}, PageCount{17}});
  space.release(0, {SwapBlock{900}, PageCount{5}});
  const BlockRun run = space.allocate(0, PageCount{64});
  EXPECT_EQ(run.first.value(), 500u);
  EXPECT_EQ(run.count.value(), 17u);
}

TEST(SwapSpace, TurnsRoundBeforeItGoesFurther) {
  SharedMemory memory(SwapSpace::required_bytes(kSmall));
  SwapSpace space = make(memory, kSmall);
  std::vector<BlockRun> runs;
  for (int i = 0; i < 10; ++i) runs.push_back(space.allocate(0, PageCount{64}));
  EXPECT_EQ(runs[9].first.value(), 576u);
  space.release(0, runs[3]);
  EXPECT_EQ(space.allocate(0, PageCount{64}).first.value(), runs[3].first.value());
  space.release(0, {runs[5].first, PageCount{63}});
  EXPECT_EQ(space.allocate(0, PageCount{64}).first.value(), 640u) << "long runs matter more";
  for (std::uint32_t i = 0; i < 200; ++i) {  // rewriting needs no more than it holds at once
    space.release(0, runs[6 + i % 4]);
    runs[6 + i % 4] = space.allocate(0, PageCount{64});
    EXPECT_LE(runs[6 + i % 4].first.value(), 640u);
  }
  EXPECT_TRUE(space.verify());
}

TEST(SwapSpace, FindsWhatTheListLostOnceItHasNothingElse) {
  constexpr std::uint64_t kNodes = 3000 / 16 + 16;
  SharedMemory memory(SwapSpace::required_bytes(kSmall, SwapAllocatorMode::kList3x));
  ASSERT_TRUE(SwapSpace::create(memory.span(), kSmall, SwapAllocatorMode::kList3x));
  SwapSpace space = *SwapSpace::attach(memory.span(), 0, {});
  EXPECT_EQ(space.allocator_mode(), SwapAllocatorMode::kList3x);
  for (int i = 0; i < 3000; ++i) ASSERT_FALSE(space.allocate(0, PageCount{1}).empty());
  ASSERT_TRUE(space.allocate(0, PageCount{1}).empty());
  for (std::uint64_t b = 0; b < 3000; b += 2) space.release(0, block_storage::run_at(b, 1));
  EXPECT_EQ(space.used().value(), 1500u) << "lost blocks are nobody's";
  EXPECT_EQ(space.lost().value(), 1500 - kNodes);
  EXPECT_EQ(space.nodeless(), 1500 - kNodes);
  EXPECT_EQ(space.available().value(), kNodes);
  EXPECT_TRUE(space.verify());
  EXPECT_EQ(space.recounts(), 0u);
  for (std::uint64_t i = 0; i < kNodes; ++i) ASSERT_FALSE(space.allocate(0, PageCount{1}).empty());
  EXPECT_EQ(space.available().value(), 0u);
  // In 3.x the page daemon would hang here. The space looks through its counts instead.
  ASSERT_FALSE(space.allocate(0, PageCount{1}).empty());
  EXPECT_EQ(space.recounts(), 1u);
  EXPECT_EQ(space.lost().value(), 1500 - 2 * kNodes);
  EXPECT_TRUE(space.verify());
  std::uint64_t rest = 0;
  while (!space.allocate(0, PageCount{1}).empty()) ++rest;
  EXPECT_EQ(rest, 1500 - kNodes - 1) << "in the end not one block is missing";
  EXPECT_EQ(space.lost().value(), 0u);
  EXPECT_EQ(space.used().value(), 3000u);
  space.drop_holder(0);
  EXPECT_EQ(space.used().value(), 0u);
  EXPECT_TRUE(space.verify());
}

/// With each allocator.
class SwapSpaceModes : public testing::TestWithParam<SwapAllocatorMode> {};

std::string mode_name(const testing::TestParamInfo<SwapAllocatorMode>& info) {
  std::string name(name_of(info.param));
  std::erase(name, '-');
  return name;
}
constexpr auto kAllModes = {SwapAllocatorMode::kBlist, SwapAllocatorMode::kBlist1999,
                            SwapAllocatorMode::kList3x};
INSTANTIATE_TEST_SUITE_P(All, SwapSpaceModes, testing::ValuesIn(kAllModes), mode_name);

void random_holders(std::uint64_t seed, SwapAllocatorMode mode) {
  Random random(seed);
  SwapGeometry g{.device_pages = {random.between(1, 40000)}, .slots = 1};
  if (random.one_in(2)) g = {.device_pages = {300, 700, 0, 100}, .slots = 4, .stripe = 16};
  SharedMemory memory(SwapSpace::required_bytes(g, mode));
  ASSERT_TRUE(SwapSpace::create(memory.span(), g, mode));
  SwapSpace space = *SwapSpace::attach(memory.span(), 0, {});
  std::map<unsigned, std::set<std::uint32_t>> model;
  for (int step = 0; step < 200; ++step) {
    const auto holder = static_cast<unsigned>(random.below(6));
    auto& mine = model[holder];
    switch (random.below(8)) {
      case 0: {
        const auto child = static_cast<unsigned>(10 + random.below(200));
        space.drop_holder(child);
        space.clone_holder(holder, child);
        model[child] = mine;
        break;
      }
      case 1:
        space.drop_holder(holder);
        mine.clear();
        break;
      case 2:
      case 3:
      case 4:
        for (int i = 0; i < 20 && !mine.empty(); ++i) {
          auto it = mine.lower_bound(static_cast<std::uint32_t>(random.below(g.linear_blocks())));
          if (it == mine.end()) it = mine.begin();
          space.release(holder, {SwapBlock{*it}, PageCount{1}});
          mine.erase(it);
        }
        break;
      default: {
        const BlockRun run = space.allocate(holder, PageCount{random.between(1, 100)});
        for (std::uint64_t i = 0; i < run.count.value(); ++i) {
          const std::uint32_t block = (run.first + PageCount{i}).value();
          for (auto& [other, blocks] : model) ASSERT_EQ(blocks.count(block), 0u) << other;
          mine.insert(block);
        }
      }
    }
    std::set<std::uint32_t> all;
    for (auto& [other, blocks] : model) all.insert(blocks.begin(), blocks.end());
    ASSERT_EQ(space.used().value(), all.size());
  }
  EXPECT_TRUE(space.verify());
}

TEST_P(SwapSpaceModes, RandomHoldersAgainstSets) {
  for_each_seed(1, swap_test::rounds(200), [](std::uint64_t seed) { random_holders(seed, GetParam()); });
}

// ---- Death ----

constexpr unsigned kWorkers = 6;

struct Board {
  std::array<std::atomic<int>, SwapSpace::kMaxHolders> alive;
  std::array<std::atomic<std::uint32_t>, 4096> owner;  // who thinks that the block is its alone
  std::atomic<std::uint32_t> violations;
};

/// What a worker does until it is killed: takes blocks, signs for them, gives them back, clones itself for a
/// child that never runs, references and drops.
void work(SwapSpace space, Board& board, unsigned self, std::uint64_t seed) {
  Random random(seed);
  std::vector<BlockRun> mine;
  for (;;) {
    if (!mine.empty() && (mine.size() > 20 || random.one_in(2))) {
      const std::size_t i = random.below(mine.size());
      const BlockRun run = mine[i];
      mine[i] = mine.back();
      mine.pop_back();
      for (std::uint64_t b = 0; b < run.count.value(); ++b) {
        if (board.owner[run.first.value() + b].exchange(0) != self + 1) ++board.violations;
      }
      space.release(self, run);
    } else {
      const BlockRun run = space.allocate(self, PageCount{random.between(1, 64)});
      for (std::uint64_t b = 0; b < run.count.value(); ++b) {
        if (board.owner[run.first.value() + b].exchange(self + 1) != 0) ++board.violations;
      }
      if (!run.empty()) mine.push_back(run);
    }
    if (random.one_in(50)) {
      // A child that dies before it does anything; what it shares stays the parent's as well.
      space.clone_holder(self, self + 100);
      space.drop_holder(self + 100);
    }
  }
}

class SwapDeath : public testing::TestWithParam<SwapAllocatorMode> {
 protected:
  SwapDeath() : memory_(SwapSpace::required_bytes(kGeometry, GetParam())), board_memory_(sizeof(Board)) {
    board_ = new (board_memory_.data()) Board{};
    EXPECT_TRUE(SwapSpace::create(memory_.span(), kGeometry, GetParam()));
    space_ = SwapSpace::attach(memory_.span(), SwapSpace::kSupervisor, liveness());
  }

  SwapSpace::Liveness liveness() {
    return {[](void* board, unsigned holder) {
              return holder == SwapSpace::kSupervisor ||
                     static_cast<Board*>(board)->alive[holder].load() != 0;
            },
            board_};
  }

  void start(unsigned holder, std::uint64_t seed) {
    board_->alive[holder] = 1;
    const pid_t pid = fork();
    if (pid == 0) work(*SwapSpace::attach(memory_.span(), holder, liveness()), *board_, holder, seed);
    pids_[holder] = pid;
  }

  void kill_and_bury(unsigned holder) {
    kill(pids_[holder], SIGKILL);
    int status = 0;
    waitpid(pids_[holder], &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        << "the worker stopped by itself: " << status;
    board_->alive[holder] = 0;
    for (auto& owner : board_->owner) {
      std::uint32_t dead = holder + 1;
      owner.compare_exchange_strong(dead, 0);
    }
    space_->drop_holder(holder);
    space_->drop_holder(holder + 100);  // its child, if it died between clone and drop
  }

  static constexpr SwapGeometry kGeometry{.device_pages = {900, 700, 0, 500}, .slots = 4, .stripe = 32};
  SharedMemory memory_;
  SharedMemory board_memory_;
  Board* board_;
  std::optional<SwapSpace> space_;
  std::array<pid_t, kWorkers> pids_{};
};

INSTANTIATE_TEST_SUITE_P(All, SwapDeath, testing::ValuesIn(kAllModes), mode_name);

TEST_P(SwapDeath, KillAtAnyMomentLeaksNothingAndFreesNothingInUse) {
  Random random(std::getenv("ENCHILADA_SEED") != nullptr
                    ? std::strtoull(std::getenv("ENCHILADA_SEED"), nullptr, 0)
                    : 5);
  ASSERT_LE(kGeometry.linear_blocks(), board_->owner.size());
  for (unsigned w = 0; w < kWorkers; ++w) start(w, random.bits());
  // Until somebody has died inside the lock, or it is clear that nobody does.
  constexpr int kUsual = 150;
  const int least = static_cast<int>(swap_test::rounds(kUsual));
  int round = 0;
  for (; round < least || (round < kUsual && space_->rebuilds() == 0); ++round) {
    const auto victim = static_cast<unsigned>(random.below(kWorkers));
    usleep(static_cast<useconds_t>(random.below(3000)));
    kill_and_bury(victim);
    if (HasFatalFailure()) break;
    if (round % 10 == 0) {
      ASSERT_TRUE(space_->verify()) << "round " << round;
    }
    ASSERT_EQ(board_->violations, 0u) << "a block was given to two";
    start(victim, random.bits());
  }
  for (unsigned w = 0; w < kWorkers; ++w) kill_and_bury(w);
  EXPECT_TRUE(space_->verify());
  EXPECT_EQ(space_->used().value(), 0u) << "blocks leaked";
  EXPECT_EQ(board_->violations, 0u);
  EXPECT_GT(space_->rebuilds(), 0u) << "nobody ever died inside the lock: the test is too tame";
  std::printf("%d deaths, %llu of them inside the lock\n", round + static_cast<int>(kWorkers),
              static_cast<unsigned long long>(space_->rebuilds()));
}

}  // namespace
}  // namespace enchilada
