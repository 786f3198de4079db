// VmObjectZone: references, shadows, split, coalesce, collapse and bypass, swap-only pages on both sides
// included.
#include "vm/vm_object.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/fake_machine.h"

namespace enchilada::test {
namespace {

std::uint64_t get(const Counter& c) {
  return c.load();
}

/// Objects by hand: pages with a number in them, in memory or in swap.
class Objects : public ::testing::Test {
 protected:
  Objects() { m.system->grow(PageCount{128}); }
  VmObjectZone& zone() { return m.system->objects(); }
  void put(VmObject& o, std::uint64_t index, std::uint64_t value, bool dirty = true) {
    FrameNumber frame;
    ASSERT_EQ(m.system->free_frames().allocate({&frame, 1}), 1u);
    m.memory.zero({frame, PageCount{1}});
    std::memcpy(m.memory.at(frame), &value, sizeof value);
    Page& page = m.system->page(frame);
    WriteLock guard(o.lock);
    ASSERT_TRUE(zone().insert_page(o, PageIndex{index}, frame));
    page.set_valid(true);
    page.set_dirty(dirty);
    page.set_act_count(kActInit);
    m.system->queues().move(frame, PageQueue::kActive);
    page.unbusy();
  }
  void swap_out(VmObject& o, std::uint64_t index) {
    m.system->daemon().pageout_object(o, PageIndex{index}, PageCount{1});
    EXPECT_EQ(o.pages.find(PageIndex{index}), kNoFrame);
  }
  /// What a reader of the chain sees; 0 = nothing anywhere.
  std::uint64_t look(VmObject& top, std::uint64_t index) {
    PageIndex at{index};
    for (VmObject* o = &top; o != nullptr; at = at + o->backing_offset, o = o->backing) {
      const FrameNumber frame = o->pages.find(at);
      if (frame != kNoFrame) return value_in(frame);
      if (m.pager.has_page(o->handle, at, PageCount{0}, PageCount{0}).present) return read_copy(*o, at);
    }
    return 0;
  }
  std::uint64_t read_copy(VmObject& o, PageIndex at) {
    FrameNumber frame;
    EXPECT_EQ(m.system->free_frames().allocate({&frame, 1}), 1u);
    EXPECT_EQ(m.pager.get_pages(o.handle, at, {&frame, 1}), PagerReturn::kOk);
    const std::uint64_t value = value_in(frame);
    m.system->free_frames().free({&frame, 1});
    return value;
  }
  std::uint64_t value_in(FrameNumber frame) {
    std::uint64_t value = 0;
    std::memcpy(&value, m.memory.at(frame), sizeof value);
    return value;
  }
  /// A shadow of o over [offset, offset+length); o keeps one reference of the test's.
  VmObject* shadow_of(VmObject& o, std::uint64_t offset, std::uint64_t length) {
    zone().reference(o);
    VmObject* top = &o;
    PageIndex at{offset};
    EXPECT_TRUE(zone().shadow(&top, &at, PageCount{length}));
    EXPECT_NE(top, &o);
    EXPECT_EQ(at.value(), 0u);
    return top;
  }
  FakeMachine m;
};

TEST_F(Objects, LastReferenceFreesPagesAndSwap) {
  VmObject* o = zone().allocate_anonymous(PageCount{200});
  for (std::uint64_t i = 0; i < 100; ++i) put(*o, i, i + 1);
  for (std::uint64_t i = 0; i < 10; ++i) swap_out(*o, i);
  EXPECT_EQ(m.pager.used.load(), 10u);
  zone().reference(*o);
  zone().deallocate(o);
  EXPECT_EQ(zone().live(), 1u);
  m.system->validate();
  zone().deallocate(o);
  EXPECT_EQ(zone().live(), 0u);
  EXPECT_EQ(m.pager.used.load(), 0u);
  EXPECT_EQ(m.resident(), 0u);
}

TEST_F(Objects, LongChainIsFreedIteratively) {
  VmObject* top = zone().allocate_anonymous(PageCount{4});
  put(*top, 0, 1);
  for (int i = 0; i < 3000; ++i) {
    VmObject* next = shadow_of(*top, 0, 4);
    zone().reference(*top);  // keeps it from being collapsed
    zone().deallocate(top);
    top = next;
  }
  EXPECT_EQ(zone().depth(*top), 3001u);
  // Dropping the extra references from the bottom up collapses each level into the one above.
  std::vector<VmObject*> chain;
  for (VmObject* o = top->backing; o != nullptr; o = o->backing) chain.push_back(o);
  while (!chain.empty()) {
    zone().deallocate(chain.back());
    chain.pop_back();
  }
  EXPECT_EQ(zone().depth(*top), 1u);
  EXPECT_EQ(look(*top, 0), 1u);
  m.system->validate();
  zone().deallocate(top);
  EXPECT_EQ(zone().live(), 0u);
}

TEST_F(Objects, ShadowOfASoleReferenceDoesNothing) {
  VmObject* o = zone().allocate_anonymous(PageCount{4});
  VmObject* same = o;
  PageIndex at{2};
  EXPECT_TRUE(zone().shadow(&same, &at, PageCount{2}));
  EXPECT_EQ(same, o);
  EXPECT_EQ(at.value(), 2u);
  zone().deallocate(o);
}

TEST_F(Objects, CollapseMovesFreesAndKeepsTheWindow) {
  VmObject* b = zone().allocate_anonymous(PageCount{20});
  for (std::uint64_t i = 0; i < 20; ++i) put(*b, i, 100 + i);
  for (const std::uint64_t i : {1u, 6u, 7u, 8u, 15u}) swap_out(*b, i);
  VmObject* p = shadow_of(*b, 5, 8);  // sees 5..12
  put(*p, 0, 1000);                   // hides a resident page
  put(*p, 1, 1001);                   // hides a swapped page
  put(*p, 5, 1005);
  swap_out(*p, 5);  // a swapped page hides a resident one
  std::vector<std::uint64_t> before;
  for (std::uint64_t i = 0; i < 8; ++i) before.push_back(look(*p, i));
  zone().deallocate(b);  // now p is the only one: collapse
  EXPECT_EQ(get(m.counters.object_collapses), 1u);
  EXPECT_EQ(zone().live(), 1u);
  EXPECT_EQ(p->backing, nullptr);
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(look(*p, i), before[i]) << i;
  EXPECT_EQ(m.pager.used.load(), 3u);  // b's 7 and 8, p's 5
  EXPECT_EQ(m.resident(), 5u);
  m.system->validate();
  zone().deallocate(p);
  EXPECT_EQ(m.pager.used.load(), 0u);
}

TEST_F(Objects, CollapseDoesNotLetAStaleCopyReplaceACleanPage) {
  VmObject* b = zone().allocate_anonymous(PageCount{4});
  put(*b, 0, 7);
  swap_out(*b, 0);
  VmObject* p = shadow_of(*b, 0, 4);
  put(*p, 0, 0, /*dirty=*/false);  // say, zero-filled and only read since
  zone().deallocate(b);
  EXPECT_EQ(m.pager.used.load(), 0u);
  m.system->daemon().pageout_object(*p, PageIndex{0}, PageCount{1});
  EXPECT_EQ(look(*p, 0), 0u);
  zone().deallocate(p);
}

TEST_F(Objects, BypassNeedsEverythingHiddenSwapIncluded) {
  VmObject* a = zone().allocate_anonymous(PageCount{8});
  put(*a, 0, 1);
  VmObject* b = shadow_of(*a, 0, 8);
  put(*b, 1, 2);
  put(*b, 2, 3);
  swap_out(*b, 2);
  VmObject* p = shadow_of(*b, 0, 8);
  put(*p, 1, 20);
  zone().collapse(*p);
  EXPECT_EQ(p->backing, b);  // b's swapped page 2 is still seen
  put(*p, 2, 30);
  swap_out(*p, 2);
  zone().collapse(*p);
  EXPECT_EQ(p->backing, a);
  EXPECT_EQ(get(m.counters.object_bypasses), 1u);
  EXPECT_EQ(look(*p, 0), 1u);
  EXPECT_EQ(look(*p, 1), 20u);
  EXPECT_EQ(look(*p, 2), 30u);
  m.system->validate();
  zone().deallocate(b);
  zone().deallocate(p);
  zone().deallocate(a);
  EXPECT_EQ(zone().live(), 0u);
}

TEST_F(Objects, BusyPageDelaysCollapseOnly) {
  VmObject* b = zone().allocate_anonymous(PageCount{4});
  for (std::uint64_t i = 0; i < 4; ++i) put(*b, i, i + 1);
  VmObject* p = shadow_of(*b, 0, 4);
  Page& page = m.system->page(b->pages.find(PageIndex{2}));
  ASSERT_TRUE(page.try_busy());
  zone().deallocate(b);
  EXPECT_EQ(zone().depth(*p), 2u);
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(look(*p, i), i + 1);
  page.unbusy();
  zone().collapse_at(CollapseMoment::kCopy, *p);
  EXPECT_EQ(zone().depth(*p), 1u);
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(look(*p, i), i + 1);
  zone().deallocate(p);
}

TEST_F(Objects, SplitGivesTheRangeItsOwnObject) {
  VmObject* bottom = zone().allocate_anonymous(PageCount{30});
  put(*bottom, 12, 12);
  VmObject* o = shadow_of(*bottom, 2, 20);
  for (std::uint64_t i = 0; i < 8; ++i) put(*o, i, 100 + i);
  swap_out(*o, 5);
  zone().reference(*o);  // two entries map it
  VmObject* piece = o;
  PageIndex at{4};
  ASSERT_TRUE(zone().split(&piece, &at, PageCount{10}));
  EXPECT_NE(piece, o);
  EXPECT_EQ(at.value(), 0u);
  EXPECT_EQ(look(*piece, 0), 104u);
  EXPECT_EQ(look(*piece, 1), 105u);
  EXPECT_EQ(look(*piece, 6), 12u);
  EXPECT_EQ(look(*o, 3), 103u);
  EXPECT_EQ(o->refs(), 1u);
  EXPECT_EQ(bottom->shadow_count, 2u);
  m.system->validate();
  zone().deallocate(o);
  zone().deallocate(piece);
  zone().deallocate(bottom);
  EXPECT_EQ(zone().live(), 0u);
  EXPECT_EQ(m.pager.used.load(), 0u);
}

TEST_F(Objects, CoalesceClearsWhatWasLeftBehindTheEnd) {
  VmObject* o = zone().allocate_anonymous(PageCount{10});
  for (std::uint64_t i = 0; i < 10; ++i) put(*o, i, i + 1);
  swap_out(*o, 7);
  ASSERT_TRUE(zone().coalesce(*o, PageIndex{0}, PageCount{5}, PageCount{8}));
  EXPECT_EQ(o->size.value(), 13u);
  for (std::uint64_t i = 5; i < 13; ++i) EXPECT_EQ(look(*o, i), 0u);
  EXPECT_EQ(look(*o, 4), 5u);
  zone().reference(*o);
  EXPECT_FALSE(
      zone().coalesce(*o, PageIndex{0}, PageCount{5}, PageCount{1}));  // another entry may map the rest
  EXPECT_TRUE(zone().coalesce(*o, PageIndex{0}, PageCount{13}, PageCount{1}));
  zone().deallocate(o);
  zone().deallocate(o);
}

/// The article's scenario: a process forks twice over; when the one in the middle is gone, so is its layer.
TEST(Chains, TheArticlesExample) {
  FakeMachine m;
  auto a = m.make_map();
  const VirtAddr base = m.map_pages(*a, 8);
  for (std::uint64_t i = 0; i < 8; ++i) (void)m.write(*a, m.page(base, i), i);
  auto b = a->fork();
  for (std::uint64_t i = 0; i < 8; ++i) (void)m.write(*b, m.page(base, i), 100 + i);  // B over A
  auto c = b->fork();
  for (std::uint64_t i = 0; i < 8; ++i) {
    (void)m.write(*b, m.page(base, i), 200 + i);
    (void)m.write(*c, m.page(base, i), 300 + i);
  }
  m.system->validate();
  for (std::uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(m.read(*a, m.page(base, i)), i);
    EXPECT_EQ(m.read(*b, m.page(base, i)), 200 + i);
    EXPECT_EQ(m.read(*c, m.page(base, i)), 300 + i);
  }
  unsigned deepest = 0;
  m.system->objects().for_each(
      [&](VmObject& o) { deepest = std::max(deepest, m.system->objects().depth(o)); });
  EXPECT_LE(deepest, 2u);           // B is gone
  EXPECT_EQ(m.resident(), 3 * 8u);  // and no page is hidden twice
}

TEST(Chains, RandomForkTreesStayShallowAndRight) {
  for (const bool bits : {true, false}) {
    FakeMachine m({.limit = 128, .budget = 128, .reference_bits = bits, .one_address = !bits});
    struct Process {
      std::unique_ptr<VmMap> map;
      std::vector<std::uint64_t> model;
    };
    std::vector<Process> processes;
    processes.push_back({m.make_map(), std::vector<std::uint64_t>(24, 0)});
    const VirtAddr base = m.map_pages(*processes[0].map, 24);
    std::uint64_t random = 12345;
    const auto next = [&](std::uint64_t n) {
      random = random * 6364136223846793005ull + 1442695040888963407ull;
      return (random >> 33) % n;
    };
    for (int step = 0; step < 4000; ++step) {
      Process& p = processes[next(processes.size())];
      const std::uint64_t i = next(24);
      const std::uint64_t what = next(20);
      if (what == 0 && processes.size() < 8) {
        auto child = p.map->fork();
        ASSERT_NE(child, nullptr);
        processes.push_back({std::move(child), p.model});
      } else if (what == 1 && processes.size() > 1) {
        processes.erase(processes.begin() + static_cast<std::ptrdiff_t>(&p - processes.data()));
      } else if (what < 10) {
        ASSERT_EQ(m.write(*p.map, m.page(base, i), static_cast<std::uint64_t>(step)), FaultResult::kResolved);
        p.model[i] = static_cast<std::uint64_t>(step);
      } else {
        ASSERT_EQ(m.read(*p.map, m.page(base, i)), p.model[i]);
      }
      if (step % 50 == 0) m.system->validate();
    }
    EXPECT_GT(get(m.counters.object_collapses) + get(m.counters.object_bypasses), 10u);
    unsigned deepest = 0;
    m.system->objects().for_each(
        [&](VmObject& o) { deepest = std::max(deepest, m.system->objects().depth(o)); });
    EXPECT_LE(deepest, 8u);
    processes.clear();
    EXPECT_EQ(m.resident(), 0u);
    EXPECT_EQ(m.pager.used.load(), 0u);
    EXPECT_EQ(m.system->objects().live(), 0u);
  }
}

}  // namespace
}  // namespace enchilada::test
