// VmPhys: runs, merging, growth and taking out; PageQueues: order, lengths and the use counts of
// freebsd-vm.md §1.8.
#include "vm/vm_phys.h"

#include <gtest/gtest.h>

#include <random>

#include "support/fake_machine.h"

namespace enchilada::test {
namespace {

TEST(VmPhys, GivesConsecutiveFramesAndMergesThemAgain) {
  FakeMachine m({.limit = 1024, .budget = 1024});
  VmPhys& phys = m.system->free_frames();
  m.system->grow(PageCount{1024});
  EXPECT_EQ(phys.free_count(), 1024u);
  const FrameRun a = phys.allocate_run(PageCount{48});
  EXPECT_EQ(a.count.value(), 48u);
  const FrameRun b = phys.allocate_run(PageCount{100});
  EXPECT_EQ(b.count.value(), 100u);
  phys.validate();
  for (const FrameRun run : {a, b}) {
    std::vector<FrameNumber> frames;
    for (std::uint64_t i = 0; i < run.count.value(); ++i) frames.push_back(run.first + PageCount{i});
    phys.free(frames);
  }
  phys.validate();
  std::size_t blocks = 0;
  phys.for_each_block([&](unsigned order, FrameNumber) {
    EXPECT_EQ(order, 9u);
    ++blocks;
  });
  EXPECT_EQ(blocks, 2u);
}

TEST(VmPhys, RandomUseKeepsCountAndNeverHandsOutTwice) {
  FakeMachine m({.limit = 700, .budget = 700});
  VmPhys& phys = m.system->free_frames();
  m.system->grow(PageCount{700});
  std::mt19937 random(7);
  std::vector<FrameNumber> held;
  std::vector<bool> mine(700, false);
  for (int i = 0; i < 3000; ++i) {
    std::array<FrameNumber, 64> got;
    const std::size_t n = phys.allocate({got.data(), 1 + random() % 64});
    for (std::size_t k = 0; k < n; ++k) {
      ASSERT_FALSE(mine[got[k].value()]);
      mine[got[k].value()] = true;
      held.push_back(got[k]);
    }
    std::shuffle(held.begin(), held.end(), random);
    const std::size_t back = std::min<std::size_t>(held.size(), random() % 70);
    for (std::size_t k = 0; k < back; ++k) mine[held[held.size() - 1 - k].value()] = false;
    phys.free({held.data() + held.size() - back, back});
    held.resize(held.size() - back);
    ASSERT_EQ(phys.free_count() + held.size(), 700u);
    if (i % 100 == 0) phys.validate();
  }
  phys.free(held);
  phys.validate();
  EXPECT_LE(m.counters.peak_resident.load(), 700u);
}

TEST(VmPhys, TakesRunsOutForRetiring) {
  FakeMachine m({.limit = 256, .budget = 256});
  VmPhys& phys = m.system->free_frames();
  m.system->grow(PageCount{256});
  std::uint64_t out = 0;
  for (FrameRun run; (run = phys.take_out(PageCount{40})).count.value() != 0;) {
    m.memory.retire(run);
    out += run.count.value();
  }
  EXPECT_EQ(out, 256u);
  EXPECT_EQ(phys.granted(), 0u);
  EXPECT_EQ(m.system->grow(PageCount{100}).value(), 100u);
  phys.validate();
}

}  // namespace
}  // namespace enchilada::test
