// Page colours: the article's table, search order and examples, and the free lists by colour against a plain
// model.
#include "vm/vm_colour.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "model/random_source.h"
#include "support/fake_machine.h"
#include "vm/vm_object.h"
#include "vm/vm_phys.h"
#include "vm/vm_phys_coloured.h"

namespace enchilada::test {
namespace {

constexpr ByteCount kKiB{1024};

TEST(Colours, TheTableIsTheArticles) {
  const auto row = [](std::uint64_t kib) { return colour_table(ByteCount{kib * kKiB.value()}); };
  const auto expect = [](const ColourTable& t, std::uint32_t colours, std::uint32_t p1, std::uint32_t p2) {
    EXPECT_EQ(t.colours, colours);
    EXPECT_EQ(t.prime1, p1);
    EXPECT_EQ(t.prime2, p2);
  };
  expect(row(1024), 256, 31, 23);
  expect(row(4096), 256, 31, 23);
  expect(row(512), 128, 31, 23);
  expect(row(256), 64, 13, 7);
  expect(row(128), 32, 9, 5);
  expect(row(64), 16, 5, 3);
  EXPECT_EQ(row(16).colours, 4u);
  EXPECT_EQ(row(0).colours, 1u);
}

/// FreeBSD's loop, word for word in meaning: the exact list, then +i and -i from far to near.
std::uint32_t searched(const std::set<std::uint32_t>& some, std::uint32_t colours, std::uint32_t want) {
  if (some.contains(want)) return want;
  for (std::uint32_t i = colours / 2; i > 0; --i) {
    if (some.contains((want + i) % colours)) return (want + i) % colours;
    if (some.contains((want + colours - i) % colours)) return (want + colours - i) % colours;
  }
  return kMaxColours;
}

TEST(Colours, SearchTakesTheFarthestColourThereIs) {
  model::Random random(11);
  for (std::uint32_t colours = 1; colours <= kMaxColours; colours *= 2) {
    for (int round = 0; round < 300; ++round) {
      ColourSet set(colours);
      std::set<std::uint32_t> some;
      for (std::uint64_t n = random.below(random.one_in(2) ? 4 : colours + 1); n > 0; --n) {
        const auto c = static_cast<std::uint32_t>(random.below(colours));
        set.insert(c);
        some.insert(c);
      }
      if (!some.empty() && random.one_in(2)) {
        set.erase(*some.begin());
        some.erase(some.begin());
      }
      for (std::uint32_t want = 0; want < colours; ++want) {
        ASSERT_EQ(set.find(want), searched(some, colours, want)) << colours << " colours, " << want;
      }
    }
  }
}

FakeOptions coloured(std::uint64_t frames, std::uint64_t cache_pages) {
  FakeOptions o{.limit = frames, .budget = frames};
  o.modes.set(FrameOrderMode::kColoured);
  o.tunables.colour_cache = to_bytes(PageCount{cache_pages});
  return o;
}

/// One object by hand, whose pages are only asked for.
class Coloured : public ::testing::Test {
 protected:
  void make(std::uint64_t frames, std::uint64_t cache_pages) {
    m.emplace(coloured(frames, cache_pages));
    m->system->grow(PageCount{frames});
    object = m->system->objects().allocate_anonymous(PageCount{1024});
  }
  std::uint32_t take(std::uint64_t index) {
    FrameNumber frame = kNoFrame;
    WriteLock guard(object->lock);
    EXPECT_EQ(phys().allocate({object, PageIndex{index}, VirtAddr{0}}, 0, {&frame, 1}).count, 1u);
    return frame.value();
  }
  /// Takes all frames, then gives back just these.
  void leave_free(std::initializer_list<std::uint32_t> frames) {
    held.resize(phys().free_count());
    ASSERT_EQ(phys().allocate(held), held.size());
    for (const std::uint32_t f : frames) {
      const FrameNumber frame{f};
      phys().free({&frame, 1});
      std::erase(held, frame);
    }
  }
  void TearDown() override {
    if (object != nullptr) m->system->objects().deallocate(object);
    phys().validate();
  }
  VmPhys& phys() { return m->system->free_frames(); }

  std::optional<FakeMachine> m;
  VmObject* object = nullptr;
  std::vector<FrameNumber> held;
};

/// Article, section 7: "if page 16 of physical memory is assigned to page 0 of a process's virtual memory and
/// the cache can hold 4 pages, the page coloring code will not assign page 20 of physical memory to page 1
/// [...]. It would, instead, assign page 21."
TEST_F(Coloured, Page16AtOffset0IsNeverFollowedByPage20) {
  make(64, 4);
  object->set_base_colour(0);
  leave_free({16, 20, 21, 24, 25, 28});
  EXPECT_EQ(take(0), 16u);
  EXPECT_EQ(take(1), 21u);
  EXPECT_EQ(take(1), 25u);
  EXPECT_EQ(m->get(m->counters.colour_hits), 3u);
  EXPECT_EQ(m->get(m->counters.colour_misses), 0u);
}

TEST_F(Coloured, Offset1Gets17Then21Then25) {
  make(64, 4);
  object->set_base_colour(0);
  leave_free({16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27});
  EXPECT_EQ(take(0), 16u);
  EXPECT_EQ(take(1), 17u);
  EXPECT_EQ(take(1), 21u);
  EXPECT_EQ(take(1), 25u);
  // Colour 1 is used up: two colours on, half the cache away, which is as far as it gets.
  EXPECT_EQ(take(1), 19u);
  EXPECT_EQ(m->get(m->counters.colour_misses), 1u);
}

TEST_F(Coloured, AnotherColourIsTakenFromFarToNear) {
  make(64, 16);
  object->set_base_colour(0);
  leave_free({16 + 8, 16 + 3, 16 + 13, 16 + 1, 16 + 15});
  EXPECT_EQ(take(0), 24u);  // +8
  EXPECT_EQ(take(0), 19u);  // +3
  EXPECT_EQ(take(0), 29u);  // -3
  EXPECT_EQ(take(0), 17u);  // +1
  EXPECT_EQ(take(0), 31u);  // -1
  FrameNumber none;
  WriteLock guard(object->lock);
  EXPECT_EQ(phys().allocate({object, PageIndex{0}, VirtAddr{0}}, 0, {&none, 1}).count, 0u);
}

TEST_F(Coloured, ConsecutivePagesGetConsecutiveColours) {
  make(1024, 32);
  model::Random random(5);
  std::vector<FrameNumber> some(300);  // memory in disorder, with every colour left
  ASSERT_EQ(phys().allocate(some), some.size());
  for (std::size_t i = 0; i < some.size(); ++i) std::swap(some[i], some[random.below(some.size())]);
  phys().free(some);
  std::uint64_t colour = take(0) % 32;
  for (std::uint64_t i = 1; i < 700; ++i) ASSERT_EQ(take(i) % 32, (colour + i) % 32) << i;
  EXPECT_EQ(m->get(m->counters.colour_misses), 0u);
}

TEST_F(Coloured, BaseColoursOfObjectsStepByTheirSizeOrAThirdOfTheColours) {
  make(64, 32);  // object: 1024 pages, colour 0
  VmObjectZone& zone = m->system->objects();
  const auto next = [&](std::uint64_t pages) {
    VmObject* const o = zone.allocate_anonymous(PageCount{pages});
    const std::uint32_t colour = o->base_colour();
    zone.deallocate(o);
    return colour;
  };
  EXPECT_EQ(object->base_colour(), 0u);
  EXPECT_EQ(next(4), 19u);  // 32/3 + 9 after the 1024 pages
  EXPECT_EQ(next(1), 23u);
  EXPECT_EQ(next(500), 24u);
  EXPECT_EQ(next(1), (24 + 19) % 32u);
}

TEST_F(Coloured, AShadowsColourFollowsSourceAndOffset) {
  make(64, 32);
  VmObjectZone& zone = m->system->objects();
  zone.reference(*object);
  VmObject* top = object;
  PageIndex offset{5};
  ASSERT_TRUE(zone.shadow(&top, &offset, PageCount{10}));
  EXPECT_EQ(top->base_colour(), object->base_colour() + 5);
  zone.deallocate(top);
}

TEST_F(Coloured, RandomUseAgreesWithAModel) {
  for (const std::uint64_t cache : {1u, 4u, 32u, 64u, 256u}) {
    const std::uint64_t frames = 300;
    make(frames, cache);
    model::Random random(cache);
    std::set<std::uint32_t> free;
    for (std::uint32_t f = 0; f < frames; ++f) free.insert(f);
    std::vector<std::uint32_t> taken;
    for (int step = 0; step < 4000; ++step) {
      const bool many = (step / 500) % 2 == 0;  // phases of plenty and of shortage
      if (!free.empty() && random.below(10) < (many ? 3u : 8u)) {
        const std::uint64_t index = random.below(1000);
        std::set<std::uint32_t> colours;
        for (const std::uint32_t f : free) colours.insert(static_cast<std::uint32_t>(f % cache));
        const auto want = static_cast<std::uint32_t>((index + object->base_colour()) % cache);
        const std::uint32_t got = take(index);
        ASSERT_EQ(got % cache, searched(colours, static_cast<std::uint32_t>(cache), want));
        ASSERT_EQ(free.erase(got), 1u);
        taken.push_back(got);
      } else if (!taken.empty()) {
        std::swap(taken[random.below(taken.size())], taken.back());
        const FrameNumber frame{taken.back()};
        taken.pop_back();
        phys().free({&frame, 1});
        free.insert(frame.value());
      }
      ASSERT_EQ(phys().free_count(), free.size());
      if (step % 200 == 0) phys().validate();
    }
    EXPECT_EQ(m->get(m->counters.colour_misses) == 0, cache == 1);
    m->system->objects().deallocate(object);
    object = nullptr;
  }
  make(64, 4);
}

TEST(Colours, ProgramsMemoryIsColouredInEveryFault) {
  FakeMachine m(coloured(512, 32));  // all granted at once: a small grant has not every colour
  auto map = m.make_map();
  const VirtAddr base = m.map_pages(*map, 200);
  for (std::uint64_t i = 0; i < 200; ++i)
    ASSERT_EQ(m.write(*map, m.page(base, i), i), FaultResult::kResolved);
  m.system->for_each_page([&](FrameNumber frame, Page& page) {
    if (page.object == nullptr) return;
    EXPECT_EQ(frame.value() % 32, (page.pindex.value() + page.object->base_colour()) % 32);
  });
  auto child = map->fork();
  ASSERT_NE(child, nullptr);
  for (std::uint64_t i = 0; i < 200; i += 3) (void)m.write(*child, m.page(base, i), i);
  m.system->for_each_page([&](FrameNumber frame, Page& page) {
    if (page.object == nullptr) return;
    EXPECT_EQ(frame.value() % 32, (page.pindex.value() + page.object->base_colour()) % 32);
  });
  EXPECT_EQ(m.counters.colour_misses.load(), 0u);
}

}  // namespace
}  // namespace enchilada::test
