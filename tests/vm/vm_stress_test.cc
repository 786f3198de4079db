// Many threads fault in tiny memory; every page is checked. And the rule that fault and page-out never
// allocate.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>
#include <random>
#include <thread>

#include "support/fake_machine.h"
#include "support/sanitized.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<std::uint64_t> allocations{0};
}  // namespace

// The sanitizers bring their own allocator, with strong symbols.
#if !ENCHILADA_SANITIZED
// NOLINTBEGIN: replaces the global allocator of this test program to count what the engine asks for.
__attribute__((noinline)) __attribute__((noinline)) void* operator new(std::size_t n) {
  if (counting.load(std::memory_order_relaxed) && enchilada::test::InFake::depth == 0) ++allocations;
  if (void* p = std::malloc(n == 0 ? 1 : n)) return p;
  std::abort();
}
__attribute__((noinline)) __attribute__((noinline)) void operator delete(void* p) noexcept {
  std::free(p);
}
__attribute__((noinline)) __attribute__((noinline)) void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
// NOLINTEND
#endif

namespace enchilada::test {
namespace {

FakeOptions tiny(bool bits, std::uint64_t frames, Preset preset = Preset::kHybrid) {
  FakeOptions o;
  o.modes = VmModes(preset);
  o.limit = o.budget = frames;
  o.reference_bits = bits;
  o.one_address = !bits;
  return o;
}

class Stress : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Machines, Stress, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ReferenceBits" : "HostLike"; });

void run_without_allocating(bool bits, Preset preset) {
  FakeMachine m(tiny(bits, 96, preset));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 600);
  auto& pmap = static_cast<FakePmap&>(map->pmap());
  std::mt19937 random(11);
  counting = true;
  for (int i = 0; i < 5000; ++i) {
    const VirtAddr va = m.page(base, random() % 600);
    bool hit = false;
    const Access how = random() % 2 == 0 ? Access::kRead : Access::kWrite;
    {
      InFake in;
      std::lock_guard guard(m.pmaps.mutex);
      hit = pmap.access(va, how) != nullptr;
    }
    if (!hit) {
      ASSERT_EQ(vm_fault(*map, va, how), FaultResult::kResolved);
    }
  }
  counting = false;
  EXPECT_EQ(allocations.load(), 0u);
  EXPECT_GT(m.counters.swappgsout.load(), 100u);
}

TEST_P(Stress, FaultAndPageoutNeverAllocate) {
  if (test::kSanitized) GTEST_SKIP() << "the sanitizer's allocator is in use";
  for (const Preset preset : {Preset::kHybrid, Preset::kArticle, Preset::kModern}) {
    run_without_allocating(GetParam(), preset);
  }
}

TEST_P(Stress, ThreadsInOneMap) {
  FakeMachine m(tiny(GetParam(), 96));
  auto map = m.make_map();
  constexpr std::uint64_t kPages = 300;
  const VirtAddr base = m.map_pages(*map, kPages);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {  // each thread owns the words of its own number on every page
      std::mt19937 random(t);
      std::vector<std::uint64_t> mine(kPages, 0);
      for (std::uint64_t i = 1; i < 4000; ++i) {
        const std::uint64_t p = random() % kPages;
        const VirtAddr at = m.page(base, p) + ByteCount{64 * t};
        if (random() % 2 == 0) {
          ASSERT_EQ(m.write(*map, at, i), FaultResult::kResolved);
          mine[p] = i;
        } else {
          ASSERT_EQ(m.read(*map, at), mine[p]);
        }
      }
    });
  }
  for (auto& t : threads) t.join();
  m.system->validate();
  map.reset();
  EXPECT_EQ(m.resident(), 0u);
}

TEST_P(Stress, ForkingThreadsAndGivingBack) {
  FakeMachine m(tiny(GetParam(), 160));
  auto root = m.make_map();
  constexpr std::uint64_t kPages = 60;
  const VirtAddr base = m.map_pages(*root, kPages);
  for (std::uint64_t p = 0; p < kPages; ++p) (void)m.write(*root, m.page(base, p), p);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int generation = 0; generation < 40; ++generation) {
        auto map = root->fork();
        std::vector<std::uint64_t> model(kPages);
        std::iota(model.begin(), model.end(), 0);
        for (int i = 0; i < 150; ++i) {
          const std::uint64_t p = random() % kPages;
          if (random() % 3 == 0) {
            model[p] = random();
            ASSERT_EQ(m.write(*map, m.page(base, p), model[p]), FaultResult::kResolved);
          } else {
            ASSERT_EQ(m.read(*map, m.page(base, p)), model[p]);
          }
          if (i == 75) {
            auto next = map->fork();
            ASSERT_NE(next, nullptr);
            map = std::move(next);
          }
        }
      }
    });
  }
  std::thread shrinker([&] {
    while (!stop) {
      (void)m.system->daemon().give_back(PageCount{20});
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  for (auto& t : threads) t.join();
  stop = true;
  shrinker.join();
  for (std::uint64_t p = 0; p < kPages; ++p) ASSERT_EQ(m.read(*root, m.page(base, p)), p);
  m.system->validate();
  root.reset();
  EXPECT_EQ(m.resident(), 0u);
  EXPECT_EQ(m.system->objects().live(), 0u);
  EXPECT_EQ(m.pager.used.load(), 0u);
}

}  // namespace
}  // namespace enchilada::test
