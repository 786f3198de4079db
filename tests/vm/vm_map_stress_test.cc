// Threads on one map: each owns a stripe of pages and checks its own words, while all of them change
// protection, advice, wiring and mappings around them, and one forks. Run it under TSan; here the contents
// are the judge.
#include <gtest/gtest.h>

#include <thread>

#include "map_indexes.h"
#include "map_machine.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = std::uint64_t{1} << 32;
constexpr std::uint64_t kStripe = 16;  // pages

VirtRange pages(std::uint64_t first, std::uint64_t count) {
  return {VirtAddr{kBase + first * kPageSize}, VirtAddr{kBase + (first + count) * kPageSize}};
}

class Worker {
 public:
  Worker(test::MapMachine& machine, VmMap& map, std::uint64_t stripe, std::uint64_t seed)
      : machine_(machine), map_(map), first_(stripe * kStripe), rng_(seed) {}

  void run(int steps) {
    must(remap_fresh());
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
  }

 private:
  std::uint64_t below(std::uint64_t n) { return rng_() % n; }
  static void must(KernReturn verdict) { EXPECT_EQ(verdict, KernReturn::kSuccess); }
  KernReturn remap_fresh() {
    words_.fill(0);
    VirtAddr at;
    return map_.map({.length = ByteCount{kStripe * kPageSize},
                     .hint = pages(first_, 1).start,
                     .placement = VmMap::MapRequest::Placement::kFixedReplace},
                    &at);
  }
  void step() {
    const std::uint64_t p = below(kStripe);
    const std::uint64_t n = 1 + below(kStripe - p);
    const VirtRange range = pages(first_ + p, n);
    switch (below(12)) {
      case 0:
        must(map_.protect(range, Prot::kRead));
        must(map_.protect(range, Prot::kReadWrite));
        break;
      case 1:
        must(map_.protect(range, Prot::kNone));
        must(map_.protect(range, Prot::kReadWrite));
        break;
      case 2:
        must(map_.advise(range, Advice::kDiscard));
        for (std::uint64_t i = p; i < p + n; ++i) words_[i] = 0;
        break;
      case 3:
        must(map_.wire(range));
        check(p);
        must(map_.unwire(range));
        break;
      case 4:
        if (below(4) == 0) must(remap_fresh());
        break;
      case 5:
        must(map_.advise(range, Advice::kDontNeed));
        break;
      case 6:
        if (below(8) == 0) fork_and_compare();
        break;
      default:
        words_[p] = rng_();
        EXPECT_EQ(machine_.store(map_, kBase + (first_ + p) * kPageSize, words_[p]), FaultResult::kResolved);
        check(below(kStripe));
    }
  }
  void check(std::uint64_t p) { check(map_, p); }
  void check(VmMap& map, std::uint64_t p) {
    std::uint64_t seen = 0;
    EXPECT_EQ(machine_.load(map, kBase + (first_ + p) * kPageSize, &seen), FaultResult::kResolved);
    EXPECT_EQ(seen, words_[p]) << "page " << first_ + p;
  }
  // The child's view of this worker's own stripe is exact: nobody else writes there.
  void fork_and_compare() {
    auto child = map_.fork();
    ASSERT_NE(child, nullptr);
    const std::uint64_t p = below(kStripe);
    const std::uint64_t value = rng_();
    EXPECT_EQ(machine_.store(*child, kBase + (first_ + p) * kPageSize, value), FaultResult::kResolved);
    for (std::uint64_t i = 0; i < kStripe; ++i) {
      check(i);
      if (i != p) check(*child, i);
    }
  }

  test::MapMachine& machine_;
  VmMap& map_;
  std::uint64_t first_;
  std::mt19937_64 rng_;
  std::array<std::uint64_t, kStripe> words_{};
};

void stress(std::uint32_t frames, std::uint64_t threads, int steps, MapIndexFactory index = nullptr,
            std::uint64_t quick = 4) {
  for (const std::uint64_t seed : test::seeds(quick)) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
    test::MapMachine machine(frames, index);
    auto map = VmMap::create(*machine.system, pages(0, threads * kStripe));
    std::vector<std::thread> running;
    for (std::uint64_t t = 0; t < threads; ++t) {
      running.emplace_back([&, t] { Worker(machine, *map, t, seed * 100 + t).run(steps); });
    }
    for (std::thread& t : running) t.join();
    map->validate();
    machine.system->validate();
    EXPECT_EQ(map->remove(pages(0, threads * kStripe)), KernReturn::kSuccess);
    map.reset();
    EXPECT_EQ(machine.system->objects().live(), 0u);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(VmMapStress, ManyThreadsPlentyOfMemory) {
  stress(1024, 4, 2000);
}
class VmMapStressOver : public testing::TestWithParam<test::NamedMapIndex> {};
INSTANTIATE_TEST_SUITE_P(EachIndex, VmMapStressOver, testing::ValuesIn(test::all_map_indexes()),
                         test::name_of_index);

TEST_P(VmMapStressOver, ManyThreads) {
  stress(1024, 4, 1000, GetParam().make, 1);
}

TEST(VmMapStress, ManyThreadsLittleMemory) {
  stress(160, 4, 2000);
}

}  // namespace
}  // namespace enchilada
