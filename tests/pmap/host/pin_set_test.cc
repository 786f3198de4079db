// PinSet: overlap, nesting, overflow, and the two sides meeting on many threads.
#include "pmap/host/pin_set.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace enchilada {
namespace {

VirtRange range(std::uint64_t from, std::uint64_t to) {
  return {VirtAddr{from}, VirtAddr{to}};
}

class PinSetTest : public ::testing::Test {
 protected:
  PinSetTest() : pins(PinSet::create()), me(pins->register_thread()) {}
  ~PinSetTest() override { PinSet::destroy(pins); }
  bool refused(std::uint64_t from, std::uint64_t to) {
    return !PinSet::Withdrawal(*pins, range(from, to)).allowed();
  }
  PinSet* pins;
  unsigned me;
};

TEST_F(PinSetTest, PinsWholePagesThatTheRangeTouches) {
  const VirtRange r = range(0x10010, 0x11001);
  pins->pin(me, {&r, 1});
  EXPECT_FALSE(refused(0xf000, 0x10000));
  EXPECT_TRUE(refused(0x10000, 0x11000));
  EXPECT_TRUE(refused(0x11000, 0x12000));
  EXPECT_FALSE(refused(0x12000, 0x13000));
  EXPECT_TRUE(refused(0, ~std::uint64_t{0}));
  pins->unpin(me);
  EXPECT_FALSE(refused(0, ~std::uint64_t{0}));
}

TEST_F(PinSetTest, NestedPinsAreAStack) {
  const VirtRange a = range(0x1000, 0x2000), b = range(0x5000, 0x6000);
  EXPECT_EQ(pins->pin(me, {&a, 1}, 111), 0u);
  EXPECT_EQ(pins->pin(me, {&b, 1}, 222), 1u);
  EXPECT_EQ(pins->depth(me), 2u);
  EXPECT_EQ(pins->key(me, 0), 111u);
  EXPECT_EQ(pins->key(me, 1), 222u);
  pins->unpin(me);
  EXPECT_TRUE(refused(0x1000, 0x2000));
  EXPECT_FALSE(refused(0x5000, 0x6000));
  pins->pin(me, {&b, 1});
  pins->pin(me, {&b, 1});
  pins->unpin_to(me, 0);  // longjmp out of everything
  EXPECT_FALSE(refused(0, 0x10000));
}

TEST_F(PinSetTest, TooManyRangesOrLevelsPinEverything) {
  std::vector<VirtRange> many(PinSet::kRanges + 1, range(0x1000, 0x2000));
  pins->pin(me, many);
  EXPECT_TRUE(refused(0x9000, 0xa000));
  pins->unpin(me);
  EXPECT_FALSE(refused(0x1000, 0xa000));
  for (unsigned i = 0; i < PinSet::kDepth + 2; ++i) pins->pin(me, {many.data(), 1});
  EXPECT_TRUE(refused(0x9000, 0xa000));
  pins->unpin(me);
  pins->unpin(me);
  EXPECT_FALSE(refused(0x9000, 0xa000));
  pins->unpin_to(me, 0);
}

TEST_F(PinSetTest, RecordsRunOutGracefully) {
  std::vector<unsigned> all;
  for (unsigned i = 1; i < PinSet::kThreads; ++i) all.push_back(pins->register_thread());
  EXPECT_EQ(pins->register_thread(), PinSet::kNoThread);
  const VirtRange r = range(0x1000, 0x2000);
  pins->pin(PinSet::kNoThread, {&r, 1});
  EXPECT_TRUE(refused(0x9000, 0xa000));
  pins->unpin(PinSet::kNoThread);
  EXPECT_FALSE(refused(0x1000, 0xa000));
  pins->pin(all[5], {&r, 1});
  pins->unregister_thread(all[5]);
  EXPECT_FALSE(refused(0x1000, 0xa000));
  EXPECT_EQ(pins->register_thread(), all[5]);
}

TEST_F(PinSetTest, TellsHowMuchIsPinned) {
  const unsigned other = pins->register_thread();
  EXPECT_GE(pins->threads(), 2U);
  EXPECT_EQ(pins->pinned_bytes(), 0U);
  const VirtRange two[] = {range(0x1000, 0x2000), range(0x4800, 0x6800)};  // one page, and three
  pins->pin(me, two);
  pins->pin(other, {two, 1});
  EXPECT_EQ(pins->pinned_bytes(), 0x5000U);
  pins->unpin(me);
  EXPECT_EQ(pins->pinned_bytes(), 0x1000U);
  const std::vector<VirtRange> many(PinSet::kRanges + 1, two[0]);
  pins->pin(me, many);
  EXPECT_EQ(pins->pinned_bytes(), ~std::uint64_t{0});
  pins->unpin(me);
  pins->pin(PinSet::kNoThread, {two, 1});
  EXPECT_EQ(pins->pinned_bytes(), ~std::uint64_t{0});
  pins->unpin(PinSet::kNoThread);
  pins->unregister_thread(other);
}

TEST_F(PinSetTest, ForkKeepsOnlyTheSurvivor) {
  const unsigned other = pins->register_thread();
  const VirtRange a = range(0x1000, 0x2000), b = range(0x5000, 0x6000);
  pins->pin(me, {&a, 1});
  pins->pin(other, {&b, 1});
  pins->reset_after_fork(me);
  EXPECT_TRUE(refused(0x1000, 0x2000));
  EXPECT_FALSE(refused(0x5000, 0x6000));
}

TEST_F(PinSetTest, PinnersAndRemoversNeverBothHaveAPage) {
  // A page is "in use" by pinners (count) or "out" by a remover (flag); never both. With more removers than
  // there is one page, slots get reused quickly, which is where torn reads would show.
  constexpr int kPages = 4;
  std::atomic<int> in_use[kPages] = {};
  std::atomic<bool> out[kPages] = {};
  std::atomic<int> wrong{0};
  std::atomic<std::uint64_t> pinned{0}, withdrawn{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      const unsigned id = pins->register_thread();
      for (unsigned i = t; !stop; ++i) {
        const unsigned p = (i * 7) % kPages;
        const VirtRange r[2] = {range(0x10000 + p * 0x1000, 0x11000 + p * 0x1000), range(0x90000, 0x90001)};
        pins->pin(id, r);
        in_use[p].fetch_add(1);
        if (out[p].load()) ++wrong;
        in_use[p].fetch_sub(1);
        pins->unpin(id);
        ++pinned;
      }
      pins->unregister_thread(id);
    });
  }
  for (unsigned t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (unsigned i = t; !stop; ++i) {
        const unsigned p = (i * 5) % kPages;
        const PinSet::Withdrawal w(*pins, range(0x10000 + p * 0x1000, 0x11000 + p * 0x1000));
        if (!w.allowed()) continue;
        if (in_use[p].load() != 0) ++wrong;
        out[p].store(true);
        if (in_use[p].load() != 0) ++wrong;
        out[p].store(false);
        ++withdrawn;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(pinned.load(), 1000u);
  EXPECT_GT(withdrawn.load(), 100u);
}

}  // namespace
}  // namespace enchilada
