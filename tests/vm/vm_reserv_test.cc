// Reservations: made at the first fault, found again, full, broken when frames are short, moved with their
// pages; and against a plain model.
#include "vm/vm_reserv.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <vector>

#include "model/random_source.h"
#include "support/fake_machine.h"
#include "vm/vm_object.h"
#include "vm/vm_phys.h"

namespace enchilada::test {
namespace {

FakeOptions reserving(std::uint64_t frames, unsigned order) {
  FakeOptions o{.limit = frames, .budget = frames};
  o.modes.set(FrameOrderMode::kReservation);
  o.tunables.reservation_order = order;
  o.tunables.zero_fill_cluster = PageCount{1};
  return o;
}

class Reservations : public ::testing::Test {
 protected:
  void make(std::uint64_t frames, unsigned order) {
    m.emplace(reserving(frames, order));
    m->system->grow(PageCount{frames});
    map = m->make_map();
  }
  void TearDown() override { map.reset(); }
  VmPhys& phys() { return m->system->free_frames(); }
  ReservedFrames& order() { return static_cast<ReservedFrames&>(phys().order()); }
  std::size_t reservations() {
    std::size_t n = 0;
    order().for_each_reservation([&](const ReservedFrames::View&) { ++n; });
    return n;
  }
  void write(VirtAddr base, std::uint64_t i) {
    ASSERT_EQ(m->write(*map, m->page(base, i), 1000 + i), FaultResult::kResolved);
  }
  std::uint64_t read(VirtAddr base, std::uint64_t i) { return m->read(*map, m->page(base, i)); }
  std::uint64_t get(const Counter& c) { return c.load(); }
  /// Every resident page lies at its own place of a block that begins where its range of addresses does.
  void expect_contiguous(VirtAddr base, std::uint64_t pages, std::uint64_t block) {
    m->system->for_each_page([&](FrameNumber frame, Page& page) {
      if (page.object == nullptr) return;
      const std::uint64_t va = (base.value() >> kPageShift) + page.pindex.value();
      EXPECT_EQ(frame.value() % block, va % block);
    });
    EXPECT_EQ(m->resident(), pages);
  }

  std::optional<FakeMachine> m;
  std::unique_ptr<VmMap> map;
};

TEST_F(Reservations, TheFirstPageReservesAndTheOthersFollow) {
  make(256, 4);
  const VirtAddr base = m->map_pages(*map, 64);
  write(base, 5);
  EXPECT_EQ(reservations(), 1u);
  EXPECT_EQ(phys().free_count(), 255u);  // reserved is still free
  for (const std::uint64_t i : {15u, 0u, 7u, 3u}) write(base, i);
  EXPECT_EQ(reservations(), 1u);
  write(base, 16);
  EXPECT_EQ(reservations(), 2u);
  for (std::uint64_t i = 0; i < 64; ++i) write(base, i);
  EXPECT_EQ(reservations(), 4u);
  EXPECT_EQ(get(m->counters.reservations_made), 4u);
  EXPECT_EQ(get(m->counters.reservations_full), 4u);
  expect_contiguous(base, 64, 16);
  m->system->validate();
}

TEST_F(Reservations, EndWithTheirLastPage) {
  make(256, 4);
  const VirtAddr base = m->map_pages(*map, 64);
  for (std::uint64_t i = 0; i < 20; ++i) write(base, i);
  EXPECT_EQ(map->remove({base, m->page(base, 64)}), KernReturn::kSuccess);
  EXPECT_EQ(reservations(), 0u);
  EXPECT_EQ(get(m->counters.reservations_broken), 0u);
  EXPECT_EQ(phys().free_count(), 256u);
  std::size_t blocks = 0;
  phys().for_each_block([&](unsigned, FrameNumber) { ++blocks; });
  EXPECT_EQ(blocks, 1u);  // all one again
}

TEST_F(Reservations, ShortageBreaksTheOneLeftAloneLongestAndLosesNothing) {
  make(64, 4);
  const VirtAddr base = m->map_pages(*map, 1024);
  for (const std::uint64_t i : {0u, 16u, 32u, 48u}) write(base, i);  // all four blocks reserved
  write(base, 1);                                                    // now the second is the oldest
  EXPECT_EQ(reservations(), 4u);
  write(base, 100);  // another range: no block left
  EXPECT_EQ(get(m->counters.reservations_reclaimed), 1u);
  EXPECT_EQ(get(m->counters.reservations_broken), 1u);
  std::vector<std::uint64_t> left;
  order().for_each_reservation([&](const ReservedFrames::View& v) { left.push_back(v.first.value()); });
  std::sort(left.begin(), left.end());
  EXPECT_EQ(left, (std::vector<std::uint64_t>{0, 32, 48}));
  for (std::uint64_t i = 200; i < 240; ++i) write(base, i);
  for (const std::uint64_t i : {0u, 1u, 16u, 32u, 48u, 100u, 239u}) EXPECT_EQ(read(base, i), 1000 + i);
  m->system->validate();
}

TEST_F(Reservations, AllMemoryCanBeUsedWhateverIsReserved) {
  make(128, 5);
  const VirtAddr base = m->map_pages(*map, 8000);
  std::vector<FrameNumber> kept(phys().free_count() - 100);
  ASSERT_EQ(phys().allocate(kept), kept.size());
  for (std::uint64_t i = 0; i < 4000; i += 31) write(base, i);
  for (std::uint64_t i = 0; i < 4000; i += 31) EXPECT_EQ(read(base, i), 1000 + i);
  EXPECT_GT(get(m->counters.reservations_broken), 0u);
  phys().free(kept);
  m->system->validate();
}

TEST_F(Reservations, NoneWhereAPageIsAlready) {
  make(64, 4);
  const VirtAddr base = m->map_pages(*map, 64);
  std::vector<FrameNumber> kept(60);
  ASSERT_EQ(phys().allocate(kept), kept.size());
  write(base, 3);  // no block: a plain frame
  EXPECT_EQ(reservations(), 0u);
  phys().free(kept);
  write(base, 4);
  EXPECT_EQ(reservations(), 0u);
  write(base, 20);
  EXPECT_EQ(reservations(), 1u);
}

TEST_F(Reservations, ACollapseTakesThemAlong) {
  make(256, 4);
  const VirtAddr base = m->map_pages(*map, 32);
  for (std::uint64_t i = 0; i < 32; ++i) write(base, i);
  {
    auto child = map->fork();
    ASSERT_NE(child, nullptr);
    for (std::uint64_t i = 0; i < 32; i += 8) write(base, i);  // the parent gets a shadow
  }
  for (std::uint64_t i = 0; i < 32; ++i) {
    write(base, i);  // and collapses it now that the child is gone
    EXPECT_EQ(read(base, i), 1000 + i);
  }
  EXPECT_GT(get(m->counters.object_collapses), 0u);
  EXPECT_GT(get(m->counters.reservations_moved) + get(m->counters.reservations_broken), 0u);
  EXPECT_EQ(m->resident(), 32u);
  m->system->validate();
}

TEST_F(Reservations, APieceThatMovesWithinTheAddressSpaceKeepsItsBytes) {
  make(256, 4);
  const VirtAddr base = m->map_pages(*map, 64);
  for (std::uint64_t i = 0; i < 40; ++i) write(base, i);
  auto child = map->fork();  // splits nothing yet
  ASSERT_NE(child, nullptr);
  EXPECT_EQ(map->remove({m->page(base, 10), m->page(base, 20)}), KernReturn::kSuccess);
  child.reset();
  auto second = map->fork();  // the object is split where the hole is
  for (std::uint64_t i = 0; i < 40; ++i) {
    if (i < 10 || i >= 20) {
      EXPECT_EQ(read(base, i), 1000 + i);
      write(base, i);
    }
  }
  m->system->validate();
}

/// Requests and frees for three objects, and moves among them, against a plain record of who has which frame.
TEST(ReservationsModel, NoFrameTwiceNoneLostAndBlocksAreKept) {
  const std::uint64_t seed = model::replayed_seed().value_or(1);
  const std::uint64_t seeds = model::replayed_seed() ? 1 : model::seed_count(40);
  for (std::uint64_t s = seed; s < seed + seeds; ++s) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(s));
    model::Random random(s);
    const std::uint64_t frames = random.between(20, 300);
    FakeMachine m(reserving(frames, static_cast<unsigned>(random.between(1, 5))));
    m.system->grow(PageCount{frames});
    VmPhys& phys = m.system->free_frames();
    VmObjectZone& zone = m.system->objects();
    std::vector<VmObject*> objects;
    for (int i = 0; i < 3; ++i) objects.push_back(zone.allocate_anonymous(PageCount{200}));
    std::map<std::pair<VmObject*, std::uint64_t>, std::uint32_t> held;
    for (int step = 0; step < 1500; ++step) {
      VmObject* const o = objects[random.below(3)];
      const std::uint64_t index = random.below(200);
      const auto at = held.find({o, index});
      WriteLock guard(o->lock);
      if (at == held.end() && random.one_in(2)) {
        FrameNumber frame = kNoFrame;
        const VirtAddr va{(index + 7) << kPageShift};
        const std::size_t got = phys.allocate({o, PageIndex{index}, va}, 0, {&frame, 1}).count;
        ASSERT_EQ(got == 1, held.size() < frames);
        if (got == 0) continue;
        for (const auto& [who, f] : held) ASSERT_NE(f, frame.value());
        ASSERT_TRUE(zone.insert_page(*o, PageIndex{index}, frame));
        m.system->page(frame).set_valid(true);
        held[{o, index}] = frame.value();
      } else if (at != held.end() && random.one_in(3)) {
        VmObject* const to = objects[random.below(3)];
        const std::uint64_t place = random.one_in(2) ? index : random.below(200);
        if (to == o || held.contains({to, place})) continue;
        Page& page = m.system->page(FrameNumber{at->second});
        ASSERT_TRUE(zone.rename_page(*o, page, *to, PageIndex{place}));
        held[{to, place}] = at->second;
        held.erase(at);
      } else if (at != held.end()) {
        const FrameNumber frame{at->second};
        zone.remove_pages(*o, {&frame, 1});
        phys.free({&frame, 1});
        held.erase(at);
      }
      ASSERT_EQ(phys.free_count(), frames - held.size());
      if (step % 50 == 0) phys.validate();
    }
    phys.validate();
    for (const auto& [who, f] : held) m.system->page(FrameNumber{f}).unbusy();
    for (VmObject* const o : objects) zone.deallocate(o);
    EXPECT_EQ(phys.free_count(), frames);
    phys.validate();
  }
}

}  // namespace
}  // namespace enchilada::test
