// vm_fault, one kind of fault at a time: zero-fill and its clusters, copy-on-write, page-in and read-ahead,
// errors.
#include "vm/vm_fault.h"

#include <gtest/gtest.h>

#include "support/fake_machine.h"

namespace enchilada::test {
namespace {

std::uint64_t get(const Counter& c) {
  return c.load();
}

TEST(VmFault, ZeroFillReadsZerosAndKeepsWhatIsWritten) {
  FakeMachine m;
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 32);
  EXPECT_EQ(m.read(*map, base), 0u);
  EXPECT_EQ(m.write(*map, m.page(base, 5), 55), FaultResult::kResolved);
  EXPECT_EQ(m.read(*map, m.page(base, 5)), 55u);
  EXPECT_EQ(m.read(*map, m.page(base, 6)), 0u);
  EXPECT_EQ(get(m.counters.fault_errors), 0u);
  EXPECT_GT(get(m.counters.zfod), 0u);
  m.system->validate();
  map.reset();
  EXPECT_EQ(m.resident(), 0u);
  EXPECT_EQ(m.system->objects().live(), 0u);
}

TEST(VmFault, SequentialZeroFillNeedsFewFaults) {
  FakeMachine m({.limit = 1024, .budget = 1024});
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 256);
  for (std::uint64_t i = 0; i < 256; ++i) (void)m.write(*map, m.page(base, i), i);
  EXPECT_LE(get(m.counters.vm_faults), 6u + 256 / 16);
  EXPECT_EQ(get(m.counters.zfod_pages), 256u);
  for (std::uint64_t i = 0; i < 256; ++i) EXPECT_EQ(m.read(*map, m.page(base, i)), i);
}

TEST(VmFault, DownwardZeroFillClustersToo) {
  FakeMachine m({.limit = 1024, .budget = 1024});
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 256);
  for (std::uint64_t i = 256; i-- > 0;) (void)m.write(*map, m.page(base, i), i);
  EXPECT_LE(get(m.counters.vm_faults), 6u + 256 / 16);
}

TEST(VmFault, ClusterGetsConsecutiveFrames) {
  FakeMachine m;
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 64);
  for (std::uint64_t i = 0; i < 64; ++i) (void)m.write(*map, m.page(base, i), i);
  auto& table = static_cast<FakePmap&>(map->pmap()).table;
  unsigned breaks = 0;
  for (std::uint64_t i = 1; i < 64; ++i) {
    const auto frame = [&](std::uint64_t k) { return table.at(m.page(base, k).value()).frame.value(); };
    if (frame(i) != frame(i - 1) + 1) ++breaks;
  }
  EXPECT_LE(breaks, 6u);
}

TEST(VmFault, UnmappedAndForbiddenAddresses) {
  FakeMachine m;
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 4);
  EXPECT_EQ(vm_fault(*map, m.page(base, 100), Access::kRead), FaultResult::kNotMapped);
  ASSERT_EQ(map->protect({base, m.page(base, 4)}, Prot::kRead), KernReturn::kSuccess);
  EXPECT_EQ(vm_fault(*map, base, Access::kWrite), FaultResult::kProtection);
  EXPECT_EQ(vm_fault(*map, base, Access::kRead), FaultResult::kResolved);
  EXPECT_EQ(get(m.counters.fault_errors), 2u);
}

TEST(VmFault, ForkSharesUntilTheFirstWrite) {
  FakeMachine m;
  auto parent = m.make_map();
  const VirtAddr base = m.map_pages(*parent, 8);
  for (std::uint64_t i = 0; i < 8; ++i) (void)m.write(*parent, m.page(base, i), 100 + i);
  const std::size_t objects = m.system->objects().live();
  const std::uint64_t resident = m.resident();
  auto child = parent->fork();
  ASSERT_NE(child, nullptr);
  EXPECT_EQ(m.system->objects().live(), objects);  // lazily: fork makes nothing
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(m.read(*child, m.page(base, i)), 100 + i);
  EXPECT_EQ(m.resident(), resident);
  EXPECT_EQ(get(m.counters.cow_faults), 0u);
  (void)m.write(*child, base, 7);
  (void)m.write(*parent, m.page(base, 1), 8);
  EXPECT_EQ(get(m.counters.cow_faults), 2u);
  EXPECT_EQ(m.read(*parent, base), 100u);
  EXPECT_EQ(m.read(*child, base), 7u);
  EXPECT_EQ(m.read(*child, m.page(base, 1)), 101u);
  EXPECT_EQ(m.read(*parent, m.page(base, 1)), 8u);
  m.system->validate();
}

TEST(VmFault, LastOwnerMovesThePageInsteadOfCopying) {
  FakeMachine m;
  auto parent = m.make_map();
  const VirtAddr base = m.map_pages(*parent, 8);
  for (std::uint64_t i = 0; i < 8; ++i) (void)m.write(*parent, m.page(base, i), 100 + i);
  auto child = parent->fork();
  (void)m.write(*parent, base, 1);
  EXPECT_EQ(get(m.counters.cow_faults), 1u);
  child.reset();  // the parent's shadow is now the only one who sees the backing object: collapse
  EXPECT_EQ(get(m.counters.object_collapses), 1u);
  for (std::uint64_t i = 1; i < 8; ++i) (void)m.write(*parent, m.page(base, i), i);
  EXPECT_EQ(get(m.counters.cow_faults), 1u);
  EXPECT_EQ(m.resident(), 8u);
}

TEST(VmFault, SharedShadowShowsTheCopyToAllSharers) {
  FakeMachine m;
  auto p1 = m.make_map();
  const VirtAddr base = m.map_pages(*p1, 4);
  for (std::uint64_t i = 0; i < 4; ++i) (void)m.write(*p1, m.page(base, i), 10 + i);
  auto p2 = p1->fork();
  ASSERT_EQ(p2->inherit({base, m.page(base, 4)}, Inherit::kShare), KernReturn::kSuccess);
  auto p3 = p2->fork();
  for (auto* p : {p1.get(), p2.get(), p3.get()}) EXPECT_EQ(m.read(*p, base), 10u);
  (void)m.write(*p3, base, 77);
  EXPECT_EQ(m.read(*p2, base), 77u);
  EXPECT_EQ(m.read(*p1, base), 10u);
  (void)m.write(*p2, base, 78);
  EXPECT_EQ(m.read(*p3, base), 78u);
  m.system->validate();
}

TEST(VmFault, NoPageIsLeftDeadWhenBothSidesHaveWritten) {
  FakeMachine m;
  auto parent = m.make_map();
  const VirtAddr base = m.map_pages(*parent, 8);
  for (std::uint64_t i = 0; i < 8; ++i) (void)m.write(*parent, m.page(base, i), 100 + i);
  auto child = parent->fork();
  for (std::uint64_t i = 0; i < 4; ++i) {
    (void)m.write(*parent, m.page(base, i), 200 + i);
    (void)m.write(*child, m.page(base, i), 300 + i);
  }
  EXPECT_EQ(get(m.counters.cow_faults), 4u);
  EXPECT_EQ(get(m.counters.cow_optim), 4u);
  EXPECT_EQ(m.resident(), 4 * 2u + 4);  // two of each page that was written, not three
  for (std::uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(m.read(*parent, m.page(base, i)), (i < 4 ? 200 : 100) + i);
    EXPECT_EQ(m.read(*child, m.page(base, i)), (i < 4 ? 300 : 100) + i);
  }
  m.system->validate();
}

TEST(VmFault, SeveralStreamsInOneObjectAreRecognised) {
  FakeMachine m({.limit = 2048, .budget = 2048});
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 1024);
  for (std::uint64_t i = 0; i < 256; ++i) {
    for (std::uint64_t stream = 0; stream < 4; ++stream)
      (void)m.write(*map, m.page(base, 256 * stream + i), i);
  }
  EXPECT_LE(get(m.counters.vm_faults), 4 * (6u + 256 / 16));
}

class VmFaultBothMachines : public ::testing::TestWithParam<bool> {
 protected:
  FakeOptions small(std::uint64_t frames) {
    FakeOptions o;
    o.limit = o.budget = frames;
    o.reference_bits = GetParam();
    o.one_address = !GetParam();
    return o;
  }
};
INSTANTIATE_TEST_SUITE_P(Machines, VmFaultBothMachines, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "ReferenceBits" : "HostLike"; });

TEST_P(VmFaultBothMachines, MoreMemoryThanFrames) {
  FakeMachine m(small(64));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 400);
  for (std::uint64_t round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 400; ++i) {
      if (round > 0) {
        ASSERT_EQ(m.read(*map, m.page(base, i)), (round - 1) * 1000 + i);
      }
      ASSERT_EQ(m.write(*map, m.page(base, i), round * 1000 + i), FaultResult::kResolved);
    }
    m.system->validate();
  }
  EXPECT_LE(get(m.counters.peak_resident), 64u);
  EXPECT_GT(get(m.counters.swappgsout), 300u);
  map.reset();
  EXPECT_EQ(m.resident(), 0u);
  EXPECT_EQ(m.pager.used.load(), 0u);
}

TEST_P(VmFaultBothMachines, APageThatWasOnlyReadIsWrittenWithoutAnotherFault) {
  FakeMachine m(small(256));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 64);
  for (std::uint64_t i = 0; i < 64; ++i) (void)m.write(*map, m.page(base, i), i);
  VmObject* object = nullptr;
  map->for_each_entry([&](const VmMap::EntryView& e) { object = e.object; });
  m.system->daemon().pageout_object(*object, PageIndex{0}, PageCount{64});
  for (std::uint64_t i = 0; i < 64; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
  const std::uint64_t faults = get(m.counters.vm_faults);
  for (std::uint64_t i = 0; i < 64; ++i) (void)m.write(*map, m.page(base, i), 100 + i);
  EXPECT_EQ(get(m.counters.vm_faults), faults);
  m.system->daemon().pageout_object(*object, PageIndex{0}, PageCount{64});
  for (std::uint64_t i = 0; i < 64; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), 100 + i);
}

TEST_P(VmFaultBothMachines, SequentialPageInReadsAhead) {
  FakeMachine m(small(512));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 1500);
  for (std::uint64_t i = 0; i < 1500; ++i) (void)m.write(*map, m.page(base, i), i);
  const std::uint64_t reads = get(m.counters.swapin);
  const std::uint64_t faults = get(m.counters.vm_faults);
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
  EXPECT_LE(get(m.counters.swapin) - reads, 1000u / 16);
  EXPECT_LE(get(m.counters.vm_faults) - faults, 1000u / 10);
  EXPECT_GT(get(m.counters.readahead_hits), 500u);
}

TEST_P(VmFaultBothMachines, RandomPageInStopsReadingAhead) {
  FakeMachine m(small(512));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 20000);
  for (std::uint64_t i = 0; i < 20000; ++i) (void)m.write(*map, m.page(base, i), i);
  const std::uint64_t in = get(m.counters.swappgsin);
  const std::uint64_t reads = get(m.counters.swapin);
  std::uint64_t at = 1;
  for (int i = 0; i < 2000; ++i) {
    at = (at * 48271) % 20011;
    if (at < 20000) {
      ASSERT_EQ(m.read(*map, m.page(base, at)), at);
    }
  }
  const std::uint64_t ops = get(m.counters.swapin) - reads;
  EXPECT_LE(get(m.counters.swappgsin) - in, ops + ops / 3);
}

TEST_P(VmFaultBothMachines, ReadErrorHitsOnlyTheBadPage) {
  FakeMachine m(small(64));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 200);
  for (std::uint64_t i = 0; i < 200; ++i) (void)m.write(*map, m.page(base, i), i);
  m.pager.bad_reads.insert(20);
  for (std::uint64_t i = 0; i < 30; ++i) {
    const FaultResult want = i == 20 ? FaultResult::kIoError : FaultResult::kResolved;
    ASSERT_EQ(m.access(*map, m.page(base, i), Access::kRead, [](std::byte*) {}), want) << i;
  }
  m.pager.bad_reads.clear();
  EXPECT_EQ(m.read(*map, m.page(base, 20)), 20u);
  m.system->validate();
}

TEST_P(VmFaultBothMachines, SwapFullEndsInNoMemoryAndRecovers) {
  FakeOptions o = small(64);
  o.swap_pages = 50;
  FakeMachine m(o);
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 400);
  std::uint64_t written = 0;
  FaultResult last = FaultResult::kResolved;
  for (; written < 400; ++written) {
    last = m.write(*map, m.page(base, written), written);
    if (last != FaultResult::kResolved) break;
  }
  EXPECT_EQ(last, FaultResult::kNoMemory);
  EXPECT_GE(written, 100u);
  m.pager.capacity = 1000;
  for (std::uint64_t i = written; i < 400; ++i)
    ASSERT_EQ(m.write(*map, m.page(base, i), i), FaultResult::kResolved);
  for (std::uint64_t i = 0; i < 400; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
}

TEST_P(VmFaultBothMachines, WriteErrorsLoseNothing) {
  FakeMachine m(small(64));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 300);
  for (std::uint64_t i = 0; i < 300; ++i) {
    if (i % 50 == 0) m.pager.fail_writes = 20;
    ASSERT_EQ(m.write(*map, m.page(base, i), i), FaultResult::kResolved) << i;
  }
  EXPECT_GT(get(m.counters.io_errors), 0u);
  for (std::uint64_t i = 0; i < 300; ++i) ASSERT_EQ(m.read(*map, m.page(base, i)), i);
}

TEST_P(VmFaultBothMachines, WiredPagesStay) {
  FakeMachine m(small(64));
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 300);
  (void)m.write(*map, m.page(base, 2), 2);
  ASSERT_EQ(vm_fault_wire(*map, {base, m.page(base, 8)}), KernReturn::kSuccess);
  EXPECT_EQ(get(m.counters.wire_count), 8u);
  for (std::uint64_t i = 8; i < 300; ++i) (void)m.write(*map, m.page(base, i), i);
  auto& table = static_cast<FakePmap&>(map->pmap()).table;
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(table.count(m.page(base, i).value()), 1u);
  m.system->validate();
  vm_fault_unwire(*map, {base, m.page(base, 8)});
  EXPECT_EQ(get(m.counters.wire_count), 0u);
  for (std::uint64_t i = 8; i < 300; ++i) (void)m.write(*map, m.page(base, i), i);
  EXPECT_EQ(m.read(*map, m.page(base, 2)), 2u);
}

}  // namespace
}  // namespace enchilada::test
