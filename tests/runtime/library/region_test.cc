// The library against a flat model, on this live process: every mix of fork, snapshot, rollback, branch,
// write, discard and resize, with little RAM and swap; and what misuse is answered with.
#include <enchilada/enchilada.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

namespace enchilada {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

/// Sanitizers and small containers may leave no userfaultfd: then there is nothing to test, and that is said.
Expected<Vm> small_vm(std::uint64_t ram = 2 * kMiB) {
  return Vm::create({.ram_bytes = ram, .swap = {{.directory = "", .bytes = 256 * kMiB}}});
}

class RegionTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = small_vm();
    if (!made && made.error().code == ErrorCode::kNotSupported) GTEST_SKIP() << made.error().message;
    ASSERT_TRUE(made) << made.error().message;
    vm.emplace(std::move(made.value()));
  }
  Region map(std::uint64_t pages, std::uint64_t capacity_pages = 0) {
    auto region = vm->map(pages * kPage, {.capacity = capacity_pages * kPage});
    EXPECT_TRUE(region) << region.error().message;
    return std::move(region.value());
  }
  std::optional<Vm> vm;
};

std::uint64_t number_from(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

std::uint64_t& word(const Region& region, std::uint64_t page) {
  return *reinterpret_cast<std::uint64_t*>(region.data() + page * kPage);
}

TEST_F(RegionTest, HoldsFourTimesTheRam) {
  const Region region = map(2048);  // 8 MiB in 2
  for (std::uint64_t p = 0; p < 2048; ++p) word(region, p) = p * 7 + 1;
  for (std::uint64_t p = 0; p < 2048; ++p) ASSERT_EQ(word(region, p), p * 7 + 1);
  const VmStatistics all = vm->statistics().value();
  EXPECT_LE(all.resident_bytes, all.ram_bytes);
  EXPECT_GT(all.swap_used_bytes, 4 * kMiB);
}

TEST_F(RegionTest, AForkIsCopyOnWriteBothWays) {
  const Region region = map(600);
  for (std::uint64_t p = 0; p < 600; ++p) word(region, p) = p;
  const Region twin = region.fork().value();
  EXPECT_NE(twin.data(), region.data());
  EXPECT_EQ(twin.size(), region.size());
  for (std::uint64_t p = 0; p < 600; p += 3) word(region, p) = 1000 + p;
  for (std::uint64_t p = 0; p < 600; p += 5) word(twin, p) = 2000 + p;
  for (std::uint64_t p = 0; p < 600; ++p) {
    ASSERT_EQ(word(region, p), p % 3 == 0 ? 1000 + p : p);
    ASSERT_EQ(word(twin, p), p % 5 == 0 ? 2000 + p : p);
  }
}

TEST_F(RegionTest, RollsBackAtTheSameAddressAsOftenAsWanted) {
  Region region = map(300);
  for (std::uint64_t p = 0; p < 300; ++p) word(region, p) = p;
  const Snapshot mark = region.snapshot().value();
  std::byte* const at = region.data();
  for (std::uint64_t round = 1; round < 20; ++round) {
    for (std::uint64_t p = round; p < 300; p += 7) word(region, p) = ~p;
    ASSERT_TRUE(region.rollback(mark));
    EXPECT_EQ(region.data(), at);
    for (std::uint64_t p = 0; p < 300; ++p) ASSERT_EQ(word(region, p), p) << "round " << round;
  }
}

TEST_F(RegionTest, DiffNamesWhatWasWritten) {
  const Region region = map(100);
  for (std::uint64_t p = 0; p < 100; ++p) word(region, p) = p;
  const Snapshot mark = region.snapshot().value();
  EXPECT_TRUE(region.diff(mark).value().empty());
  word(region, 10) = 1;
  word(region, 11) = 1;
  word(region, 50) = 1;
  const auto changes = region.diff(mark).value();
  ASSERT_EQ(changes.size(), 2u);
  EXPECT_EQ(changes[0].offset, 10 * kPage);
  EXPECT_EQ(changes[0].bytes, 2 * kPage);
  EXPECT_EQ(changes[1].offset, 50 * kPage);
}

TEST_F(RegionTest, RollbackBringsTheSizeBack) {
  Region region = map(10, 30);
  word(region, 9) = 9;
  const Snapshot mark = region.snapshot().value();
  ASSERT_TRUE(region.resize(30 * kPage));
  EXPECT_EQ(word(region, 29), 0u);
  word(region, 29) = 29;
  ASSERT_TRUE(region.rollback(mark));
  EXPECT_EQ(region.size(), 10 * kPage);
  ASSERT_TRUE(region.resize(30 * kPage));
  EXPECT_EQ(word(region, 29), 0u);
  EXPECT_EQ(word(region, 9), 9u);
}

TEST_F(RegionTest, ObjectsMayBeDestroyedInAnyOrder) {
  auto region = std::make_optional<Region>(map(10));
  word(*region, 1) = 11;
  Snapshot mark = region->snapshot().value();
  region.reset();
  vm.reset();
  const Region branch = mark.branch().value();
  EXPECT_EQ(word(branch, 1), 11u);
}

TEST_F(RegionTest, SystemCallsWorkOnPinnedMemory) {
  Region region = map(64);
  for (std::uint64_t p = 0; p < 64; ++p) word(region, p) = p + 1;
  const int zero = open("/dev/zero", O_RDONLY);
  ASSERT_GE(zero, 0);
  ASSERT_TRUE(region.pin(0, 32 * kPage));
  EXPECT_EQ(read(zero, region.data(), 32 * kPage), static_cast<ssize_t>(32 * kPage));
  EXPECT_EQ(word(region, 31), 0u);
  const auto refused = region.snapshot();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kPinned);
  ASSERT_TRUE(region.unpin(0, 32 * kPage));
  EXPECT_TRUE(region.snapshot());
  close(zero);
}

TEST_F(RegionTest, MisuseIsNamed) {
  Region region = map(8);
  Region other = map(8);
  const Snapshot mark = region.snapshot().value();
  EXPECT_EQ(other.rollback(mark).error().code, ErrorCode::kWrongVm);
  EXPECT_EQ(other.diff(mark).error().code, ErrorCode::kWrongVm);
  EXPECT_EQ(region.advise(8 * kPage, 1, Region::Advice::kRandom).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(region.advise(~std::uint64_t{0}, 2, Region::Advice::kRandom).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(region.discard(1, kPage).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(region.resize(9 * kPage).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(region.resize(0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(vm->map(0).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(vm->map(~std::uint64_t{0}).error().code, ErrorCode::kInvalidArgument);
  const Region moved = std::move(region);
  EXPECT_EQ(region.fork().error().code, ErrorCode::kClosed);  // NOLINT: the point of the test
  EXPECT_EQ(region.data(), nullptr);
  EXPECT_EQ(Vm::create({.ram_bytes = 10}).error().code, ErrorCode::kInvalidArgument);
  try {
    (void)vm->map(0).value();
    ADD_FAILURE() << "value() of an error";
  } catch (const std::runtime_error& error) {
    EXPECT_EQ(error.what(), vm->map(0).error().message);
  }
  const auto bad = Vm::create({.settings = {"swap_allocator=buddy"}});
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("swap_allocator=buddy"), std::string::npos);
  EXPECT_FALSE(Vm::create({.swap = {{.directory = "/nonexistent", .bytes = kMiB}}}));
  auto vm2 = small_vm();
  ASSERT_TRUE(vm2);
  Region foreign = vm2->map(8 * kPage).value();
  EXPECT_EQ(foreign.rollback(mark).error().code, ErrorCode::kWrongVm);
}

TEST_F(RegionTest, AnAccessBehindARegionEndsTheProgram) {
  const Region region = map(4, 8);
  word(region, 3) = 1;
  const pid_t child = fork();  // it has no regions: any access is an error there, too
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    word(region, 3) = 2;
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(word(region, 3), 1u);
  EXPECT_DEATH(word(region, 5) = 1, "");
}

TEST_F(RegionTest, AThousandNestedSnapshotsAreWalkedAndGone) {
  Region region = map(32);
  for (std::uint64_t p = 0; p < 32; ++p) word(region, p) = p;
  const std::uint64_t before = vm->statistics()->objects;
  std::vector<Snapshot> marks;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    marks.push_back(region.snapshot().value());
    word(region, i % 32) = 100 + i;
  }
  for (const std::uint64_t i : {999u, 500u, 1u, 0u, 731u}) {
    ASSERT_TRUE(region.rollback(marks[i]));
    for (std::uint64_t p = 0; p < 32; ++p) {
      std::uint64_t expected = p;
      for (std::uint64_t j = p; j < i; j += 32) expected = 100 + j;
      ASSERT_EQ(word(region, p), expected) << "mark " << i << " page " << p;
    }
  }
  marks.clear();
  EXPECT_LE(region.statistics()->depth, 2u);
  EXPECT_LE(vm->statistics()->objects, before + 1);
}

// Live branches (the ten thousand: ENCHILADA_BRANCHES=10000), each of a random earlier one, with a
// page written, so that chains are as deep as random trees are. Some are looked at, then all go in random
// order.
TEST_F(RegionTest, ATreeOfBranchesIsRightAndGone) {
  constexpr std::uint64_t kPages = 8;
  const std::uint64_t nodes = number_from("ENCHILADA_BRANCHES", 1000);
  std::mt19937_64 rng(number_from("ENCHILADA_SEED", 1));
  struct Node {
    Region region;
    std::array<std::uint64_t, kPages> words;
  };
  const auto agrees = [](const Node& node) {
    for (std::uint64_t p = 0; p < kPages; ++p) {
      if (word(node.region, p) != node.words[p]) return false;
    }
    return true;
  };
  const VmStatistics before = vm->statistics().value();
  std::vector<Node> tree;
  tree.push_back({map(kPages), {}});
  for (std::uint64_t p = 0; p < kPages; ++p) word(tree[0].region, p) = tree[0].words[p] = p;
  while (tree.size() < nodes) {
    const Node& from = tree[rng() % tree.size()];
    auto twin = from.region.fork();
    ASSERT_TRUE(twin) << tree.size() << " branches: " << twin.error().message;
    Node node{std::move(twin.value()), from.words};
    const std::uint64_t p = rng() % kPages;
    word(node.region, p) = node.words[p] = rng();
    tree.push_back(std::move(node));
    if (tree.size() % 8 == 0) {
      ASSERT_TRUE(agrees(tree[rng() % tree.size()])) << tree.size();
    }
  }
  std::shuffle(tree.begin(), tree.end(), rng);
  tree.erase(tree.begin() + 100, tree.end());
  for (std::size_t i = 0; i < tree.size(); ++i) ASSERT_TRUE(agrees(tree[i])) << i;
  tree.erase(tree.begin() + 1, tree.end());
  EXPECT_TRUE(agrees(tree[0]));
  EXPECT_LE(tree[0].region.statistics()->depth, 2u);  // nobody is left to share with
  tree.clear();
  const VmStatistics after = vm->statistics().value();
  EXPECT_EQ(after.objects, before.objects);
  EXPECT_EQ(after.resident_bytes, before.resident_bytes);
  EXPECT_EQ(after.swap_used_bytes, before.swap_used_bytes);
}

// --- Random histories

class History {
 public:
  History(std::uint64_t seed, Vm& vm) : rng_(seed), vm_(vm) { add_region(); }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
    for (const Live& live : live_) check(live);
  }

 private:
  static constexpr std::uint64_t kMostPages = 256;
  using Words = std::vector<std::uint64_t>;
  struct Live {
    Region region;
    std::uint64_t id;
    Words words;
  };
  struct Kept {
    Snapshot snapshot;
    std::uint64_t id;
    Words words;
  };

  std::uint64_t below(std::uint64_t n) { return rng_() % n; }
  Live& some() { return live_[below(live_.size())]; }

  void add_region() {
    const std::uint64_t pages = 1 + below(kMostPages);
    auto region = vm_.map(pages * kPage, {.capacity = kMostPages * kPage});
    ASSERT_TRUE(region) << region.error().message;
    live_.push_back({std::move(region.value()), next_id_++, Words(pages, 0)});
  }
  void step() {
    switch (below(16)) {
      case 0:
        if (live_.size() < 6) add_region();
        break;
      case 1:
        if (live_.size() > 1) live_.erase(live_.begin() + static_cast<std::ptrdiff_t>(below(live_.size())));
        break;
      case 2:
        if (live_.size() < 6) {
          Live& from = some();
          Region twin = from.region.fork().value();
          live_.push_back({std::move(twin), next_id_++, Words(from.words)});
        }
        break;
      case 3:
        if (kept_.size() < 12) {
          Live& from = some();
          kept_.push_back({from.region.snapshot().value(), from.id, from.words});
        }
        break;
      case 4:
        if (!kept_.empty()) kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(below(kept_.size())));
        break;
      case 5:
        if (!kept_.empty() && live_.size() < 6) {
          const Kept& kept = kept_[below(kept_.size())];
          live_.push_back({kept.snapshot.branch().value(), next_id_++, kept.words});
        }
        break;
      case 6:
      case 7:
        roll_back_or_compare();
        break;
      case 8:
        resize();
        break;
      case 9:
        discard();
        break;
      default:
        access();
    }
  }
  void roll_back_or_compare() {
    Live& live = some();
    for (const Kept& kept : kept_) {
      if (kept.id != live.id) continue;
      if (below(2) == 0) {
        compare(live, kept);
      } else {
        ASSERT_TRUE(live.region.rollback(kept.snapshot));
        live.words = kept.words;
      }
      return;
    }
  }
  void compare(const Live& live, const Kept& kept) {
    const auto changes = live.region.diff(kept.snapshot).value();
    const auto named = [&](std::uint64_t page) {
      return std::any_of(changes.begin(), changes.end(), [&](const PageRange& r) {
        return page * kPage >= r.offset && page * kPage < r.offset + r.bytes;
      });
    };
    const std::uint64_t both = std::min(live.words.size(), kept.words.size());
    for (std::uint64_t p = 0; p < both; ++p) {
      if (live.words[p] != kept.words[p]) {
        ASSERT_TRUE(named(p)) << p;
      }
    }
    for (std::uint64_t p = both; p < std::max(live.words.size(), kept.words.size()); ++p)
      ASSERT_TRUE(named(p));
  }
  void resize() {
    Live& live = some();
    const std::uint64_t pages = 1 + below(kMostPages);
    ASSERT_TRUE(live.region.resize(pages * kPage));
    live.words.resize(pages, 0);
  }
  void discard() {
    Live& live = some();
    const std::uint64_t from = below(live.words.size());
    const std::uint64_t n = 1 + below(live.words.size() - from);
    ASSERT_TRUE(live.region.discard(from * kPage, n * kPage));
    std::fill_n(live.words.begin() + static_cast<std::ptrdiff_t>(from), n, 0);
  }
  void access() {
    Live& live = some();
    ASSERT_EQ(live.region.size(), live.words.size() * kPage);
    for (std::uint64_t n = 1 + below(60); n != 0; --n) {
      const std::uint64_t p = below(live.words.size());
      if (below(2) == 0) {
        ASSERT_EQ(word(live.region, p), live.words[p]) << "page " << p;
      } else {
        word(live.region, p) = live.words[p] = rng_();
      }
    }
  }
  static void check(const Live& live) {
    for (std::uint64_t p = 0; p < live.words.size(); ++p) ASSERT_EQ(word(live.region, p), live.words[p]) << p;
  }

  std::mt19937_64 rng_;
  Vm& vm_;
  std::vector<Live> live_;
  std::vector<Kept> kept_;
  std::uint64_t next_id_ = 0;
};

TEST_F(RegionTest, RandomHistoriesAgreeWithAFlatModel) {
  const std::uint64_t one = number_from("ENCHILADA_SEED", 0);
  const std::uint64_t seeds = number_from("ENCHILADA_SEEDS", 40);
  for (std::uint64_t seed = one != 0 ? one : 1; seed <= (one != 0 ? one : seeds); ++seed) {
    SCOPED_TRACE(testing::Message() << "ENCHILADA_SEED=" << seed);
    History(seed, *vm).run(200);
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(RegionTest, ThreadsWithRegionsOfTheirOwnDoNotDisturbEachOther) {
  const std::uint64_t seeds = number_from("ENCHILADA_SEEDS", 20) / 5;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t seed = 1; seed <= seeds; ++seed) History(1000 * (t + 1) + seed, *vm).run(150);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RegionTest, AWriterSeesNoPageOfAnotherMomentWhileSnapshotsAreTaken) {
  // Two words of different pages are written together; every branch must have the second no newer than the
  // first.
  const Region region = map(512);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t n = 1; !stop.load(std::memory_order_relaxed); ++n) {
      std::atomic_ref(word(region, 3)).store(n);
      std::atomic_ref(word(region, 400)).store(n);
    }
  });
  for (int i = 0; i < 300; ++i) {
    const Region then = region.fork().value();
    const std::uint64_t second = word(then, 400);
    const std::uint64_t first = word(then, 3);
    ASSERT_GE(first, second);
    ASSERT_LE(first, second + 1);
  }
  stop.store(true);
  writer.join();
}

}  // namespace
}  // namespace enchilada
