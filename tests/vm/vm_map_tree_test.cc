// MapEntries over every index against a sorted set: structure, lookups, gaps; and what is particular to each
// index.
#include "vm/vm_map_tree.h"

#include <gtest/gtest.h>

#include <map>

#include "map_indexes.h"
#include "map_machine.h"
#include "vm/vm_map_btree.h"
#include "vm/vm_map_splay.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = 0x10000;

VirtAddr page_at(std::uint64_t page) {
  return VirtAddr{kBase + page * kPageSize};
}

/// Entries of a test, with a naive copy: first page -> entry.
class TreeModel {
 public:
  TreeModel(std::uint64_t pages, MapIndexFactory make)
      : pages_(pages),
        memory_(kArena),
        arena(memory_.data(), kArena),
        nodes(arena),
        counters(std::make_unique<VmCounters>()),
        entries({page_at(0), page_at(pages)}, make({nodes, *counters}), *counters) {}

  bool taken(std::uint64_t first, std::uint64_t end) const {
    const auto above = model.lower_bound(end);
    return above != model.begin() && std::prev(above)->second->end > page_at(first);
  }
  void insert(std::uint64_t first, std::uint64_t end) {
    auto entry = std::make_unique<MapEntry>();
    entry->start = page_at(first);
    entry->end = page_at(end);
    MapEntry* prev;
    ASSERT_FALSE(entries.lookup(entry->start, &prev));
    ASSERT_TRUE(entries.reserve(model.size() + 1));
    entries.insert_after(prev, entry.get());
    model[first] = std::move(entry);
  }
  void erase(std::map<std::uint64_t, std::unique_ptr<MapEntry>>::iterator it) {
    entries.erase(it->second.get());
    model.erase(it);
  }
  /// The boundary between `upper` and the entry before, if the two touch, goes to a place where both stay.
  void move_boundary(std::map<std::uint64_t, std::unique_ptr<MapEntry>>::iterator upper,
                     std::uint64_t random) {
    if (upper == model.begin()) return;
    const auto lower = std::prev(upper);
    if (lower->second->end != upper->second->start) return;
    const std::uint64_t end = (upper->second->end.value() - kBase) / kPageSize;
    const std::uint64_t room = end - lower->first - 1;
    const std::uint64_t boundary = lower->first + 1 + random % room;
    entries.move_boundary(lower->second.get(), upper->second.get(), page_at(boundary));
    auto entry = std::move(upper->second);
    model.erase(upper);
    model[boundary] = std::move(entry);
  }
  std::optional<VirtAddr> naive_space(VirtAddr lowest, std::uint64_t length, std::uint64_t alignment) const {
    std::uint64_t at = std::max(lowest.value(), kBase);
    for (auto it = model.begin();; ++it) {
      const std::uint64_t limit = it == model.end() ? page_at(pages_).value() : it->second->start.value();
      const std::uint64_t aligned = (at + alignment - 1) & ~(alignment - 1);
      if (aligned + length <= limit) return VirtAddr{aligned};
      if (it == model.end()) return std::nullopt;
      at = std::max(at, it->second->end.value());
    }
  }
  /// Nodes that this lookup looked at; settles the index when it asks for it, as a fault does.
  std::uint64_t visited_by(std::uint64_t page) {
    const std::uint64_t before = counters->map_nodes.load();
    MapEntry* found;
    (void)entries.lookup(page_at(page), &found);
    if (entries.restless()) entries.settle();
    return counters->map_nodes.load() - before;
  }

 private:
  static constexpr std::size_t kArena = std::size_t{64} << 20;
  std::uint64_t pages_;
  test::MappedMemory memory_;

 public:
  Arena arena;
  MapNodePool nodes;
  std::unique_ptr<VmCounters> counters;
  MapEntries entries;
  std::map<std::uint64_t, std::unique_ptr<MapEntry>> model;
};

void check_lookup(TreeModel& tree, std::uint64_t page) {
  MapEntry* found;
  const bool hit = tree.entries.lookup(page_at(page), &found);
  auto it = tree.model.upper_bound(page);
  MapEntry* const expected = it == tree.model.begin() ? tree.entries.header() : std::prev(it)->second.get();
  ASSERT_EQ(found, expected);
  ASSERT_EQ(hit, it != tree.model.begin() && page_at(page) < expected->end);
  MapEntry* const above = tree.entries.first_ending_after(page_at(page));
  ASSERT_EQ(above, hit ? expected : expected->next);
}

void random_step(TreeModel& tree, std::mt19937_64& rng, std::uint64_t pages) {
  const std::uint64_t first = rng() % pages;
  const std::uint64_t length = 1 + rng() % 4;
  const std::uint64_t what = rng() % 16;
  const auto it = tree.model.lower_bound(first);
  if (what < 9) {
    if (first + length <= pages && !tree.taken(first, first + length)) tree.insert(first, first + length);
  } else if (what < 14) {
    if (it != tree.model.end()) tree.erase(it);
  } else if (what == 14) {
    if (it != tree.model.end()) tree.move_boundary(it, rng());
  } else {
    check_lookup(tree, first);
    tree.entries.settle();  // no index minds
  }
}

void random_steps(MapIndexFactory make, std::uint64_t seed, std::uint64_t pages, int steps) {
  std::mt19937_64 rng(seed);
  TreeModel tree(pages, make);
  for (int i = 0; i < steps; ++i) {
    random_step(tree, rng, pages);
    const std::uint64_t alignment = kPageSize << (rng() % 5);
    const std::uint64_t want = (1 + rng() % 12) * kPageSize;
    const VirtAddr lowest{rng() % 3 == 0 ? 0 : page_at(rng() % pages).value()};
    ASSERT_EQ(tree.entries.find_space(lowest, want, alignment), tree.naive_space(lowest, want, alignment));
    check_lookup(tree, rng() % pages);
    if (i % 8 == 0) tree.entries.validate();
  }
  while (!tree.model.empty()) {
    auto it = tree.model.lower_bound(rng() % pages);
    tree.erase(it == tree.model.end() ? tree.model.begin() : it);
    if (tree.model.size() % 4 == 0) tree.entries.validate();
  }
}

class VmMapIndexTest : public testing::TestWithParam<test::NamedMapIndex> {
 protected:
  TreeModel make(std::uint64_t pages) { return TreeModel(pages, GetParam().make); }
  bool is(std::string_view name) const { return GetParam().name == name; }
};
INSTANTIATE_TEST_SUITE_P(EachIndex, VmMapIndexTest, testing::ValuesIn(test::all_map_indexes()),
                         test::name_of_index);

TEST_P(VmMapIndexTest, RandomAgainstSortedSet) {
  for (const std::uint64_t seed : test::seeds(200)) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
    random_steps(GetParam().make, seed, std::uint64_t{24} << (seed % 5), 200);
    if (testing::Test::HasFatalFailure()) return;
  }
}

// Three levels of the B-tree: what merges, parts and moves slots happens above the leaves too.
TEST_P(VmMapIndexTest, RandomAgainstSortedSetWithManyEntries) {
  for (const std::uint64_t seed : test::seeds(3)) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
    std::mt19937_64 rng(seed);
    TreeModel tree = make(8192);
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < 6000; ++i) {
        const std::uint64_t page = rng() % 8192;
        if (!tree.taken(page, page + 1)) tree.insert(page, page + 1);
        if (i % 8 == 0) random_step(tree, rng, 8192);
        if (i % 1000 == 0) tree.entries.validate();
      }
      for (int i = 0; i < 9000 && !tree.model.empty(); ++i) {
        auto it = tree.model.lower_bound(rng() % 8192);
        tree.erase(it == tree.model.end() ? tree.model.begin() : it);
        if (i % 1000 == 0) tree.entries.validate();
      }
      for (int i = 0; i < 200; ++i) {
        const std::uint64_t want = (1 + rng() % 64) * kPageSize;
        const VirtAddr lowest = page_at(rng() % 8192);
        ASSERT_EQ(tree.entries.find_space(lowest, want, kPageSize),
                  tree.naive_space(lowest, want, kPageSize));
        check_lookup(tree, rng() % 8192);
      }
    }
  }
}

// In order is the worst that can happen to a tree that does not keep a balance.
TEST_P(VmMapIndexTest, LookupsVisitFewNodesAfterInsertsInOrder) {
  constexpr std::uint64_t kCount = 1 << 12;
  TreeModel tree = make(2 * kCount);
  for (std::uint64_t i = 0; i < kCount; ++i) tree.insert(2 * i, 2 * i + 1);
  tree.entries.validate();
  std::mt19937_64 rng(1);
  std::uint64_t most = 0;
  std::uint64_t sum = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::uint64_t visited = tree.visited_by(2 * (rng() % kCount));
    most = std::max(most, visited);
    sum += visited;
  }
  if (is("list")) {
    EXPECT_GE(sum, 4000u * kCount / 8);
  } else if (is("splay")) {  // amortised
    EXPECT_LE(sum, 4000u * 40);
  } else {  // 1.44 * log2(n); 2 * log2(n); levels of at least 6 to a node, but two in the root
    EXPECT_LE(most, is("avl") ? 17u : is("red_black") ? 24u : 5u);
  }
  for (std::uint64_t i = 0; i < kCount; i += 2) tree.erase(tree.model.find(2 * i));
  tree.entries.validate();
}

TEST_P(VmMapIndexTest, AlignedSearchPassesGapsThatAreLongEnoughButNotAligned) {
  constexpr std::uint64_t kPages = 4096;
  TreeModel tree = make(kPages);
  // Gaps of 15 pages that never hold an aligned run of 8, more of them than the exact search visits.
  for (std::uint64_t p = 0; p + 16 < kPages - 64; p += 12) tree.insert(p, p + 1);
  const auto at = tree.entries.find_space(page_at(0), 8 * kPageSize, 64 * kPageSize);
  ASSERT_TRUE(at);
  EXPECT_EQ(at->value() % (64 * kPageSize), 0u);
  MapEntry* found;
  EXPECT_FALSE(tree.entries.lookup(*at, &found));
  EXPECT_GE(found->next->start.value() - at->value(), 8 * kPageSize);
}

TEST_P(VmMapIndexTest, FullAndEmptyBounds) {
  TreeModel tree = make(16);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, 16 * kPageSize, kPageSize), page_at(0));
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, 17 * kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(page_at(1), 16 * kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(page_at(16), kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{~std::uint64_t{0}}, kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, kPageSize, std::uint64_t{1} << 63), std::nullopt);
  MapEntry* found;
  EXPECT_FALSE(tree.entries.lookup(VirtAddr{~std::uint64_t{0}}, &found));
  EXPECT_EQ(found, tree.entries.header());
  tree.insert(0, 16);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, kPageSize, kPageSize), std::nullopt);
  EXPECT_FALSE(tree.entries.lookup(VirtAddr{~std::uint64_t{0}}, &found));
  EXPECT_EQ(found, tree.entries.first());
  tree.entries.validate();
}

// 16 TiB are 2^32 pages.
TEST_P(VmMapIndexTest, GapsOfManyTebibytesAreToldApart) {
  constexpr std::uint64_t kTiB = (std::uint64_t{1} << 40) / kPageSize;
  TreeModel tree = make(4000 * kTiB);
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < 60; ++i) {  // gaps of 15, 16, ... 74 TiB
    at += (15 + i) * kTiB;
    tree.insert(at, at + 1);
    at += 1;
  }
  for (std::uint64_t want : {1u, 15u, 16u, 17u, 40u, 74u, 75u}) {
    EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, want * kTiB * kPageSize, kPageSize),
              tree.naive_space(VirtAddr{0}, want * kTiB * kPageSize, kPageSize));
  }
  tree.entries.validate();
}

TEST_P(VmMapIndexTest, CountsWhatItDoes) {
  TreeModel tree = make(4096);
  for (std::uint64_t i = 0; i < 512; ++i) tree.insert(2 * i, 2 * i + 1);
  for (std::uint64_t i = 0; i < 512; ++i) tree.erase(tree.model.find(2 * i));
  const VmCounters& c = *tree.counters;
  EXPECT_EQ(c.map_inserts.load(), 512u);
  EXPECT_EQ(c.map_erases.load(), 512u);
  EXPECT_GT(c.map_lookups.load(), 0u);
  EXPECT_GE(c.map_nodes.load(), c.map_lookups.load());
  EXPECT_EQ(c.map_rotations.load() != 0, is("avl") || is("red_black") || is("splay"));
  EXPECT_EQ(c.map_node_splits.load() != 0, is("b_tree"));
  // A merge undoes a split, or the tree would not be one node again. Growing the root is no split of its own.
  EXPECT_EQ(c.map_node_merges.load(), c.map_node_splits.load());
}

TEST(SplayMapIndexTest, ALookupThatWentDeepIsSettledSoThatTheNextAreShort) {
  constexpr std::uint64_t kCount = 1 << 12;
  TreeModel tree(2 * kCount, map_index_factory(MapIndexMode::kSplay));
  for (std::uint64_t i = 0; i < kCount; ++i) tree.insert(2 * i, 2 * i + 1);
  EXPECT_FALSE(tree.entries.restless());
  MapEntry* found;
  (void)tree.entries.lookup(page_at(0), &found);
  ASSERT_TRUE(tree.entries.restless());
  EXPECT_GT(tree.visited_by(kCount), 64u);  // settles
  EXPECT_FALSE(tree.entries.restless());
  EXPECT_GE(tree.counters->map_settles.load(), 1u);
  tree.entries.validate();
  std::uint64_t deep = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) deep += tree.visited_by(2 * (i * 1103 % kCount)) > 64 ? 1 : 0;
  EXPECT_LE(deep, 64u);
  tree.entries.validate();
}

TEST(BTreeMapIndexTest, NodesComeFromThePoolAndGoBackToIt) {
  const MapIndexFactory make = map_index_factory(MapIndexMode::kBTree);
  TreeModel tree(1 << 16, make);
  const auto fill = [&](std::uint64_t seed) {
    std::mt19937_64 rng(seed);
    for (int i = 0; i < 8000; ++i) {
      const std::uint64_t page = rng() % (1 << 16);
      if (!tree.taken(page, page + 1)) tree.insert(page, page + 1);
    }
    tree.entries.validate();
    while (!tree.model.empty()) tree.erase(tree.model.begin());
    tree.entries.validate();
  };
  const std::size_t before = tree.arena.touched();
  fill(1);
  const std::size_t filled = tree.arena.touched();
  EXPECT_GT(filled, before + 8000 / 15 * sizeof(MapNode));
  EXPECT_LT(filled, before + 8000 / 6 * sizeof(MapNode));
  fill(1);
  EXPECT_EQ(tree.arena.touched(), filled);
}

TEST(BTreeMapIndexTest, AnIndexThatGoesGivesItsNodesAndPromisesBack) {
  const test::MappedMemory memory(1 << 20);
  Arena arena(memory.data(), 1 << 20);
  MapNodePool pool(arena);
  VmCounters counters{};
  for (int round = 0; round < 50; ++round) {  // each takes more than a third of the arena
    std::vector<MapEntry> room(6000);
    MapEntries entries({page_at(0), page_at(1 << 20)},
                       map_index_factory(MapIndexMode::kBTree)({pool, counters}), counters);
    ASSERT_TRUE(entries.reserve(6000)) << round;
    for (std::uint64_t i = 0; i < 6000; ++i) {
      room[i].start = page_at(i);
      room[i].end = page_at(i + 1);
      entries.insert_after(entries.header()->prev, &room[i]);
    }
  }
  MapEntries greedy({page_at(0), page_at(1 << 20)}, map_index_factory(MapIndexMode::kBTree)({pool, counters}),
                    counters);
  EXPECT_FALSE(greedy.reserve(1 << 16));
  EXPECT_TRUE(greedy.reserve(6000));
}

}  // namespace
}  // namespace enchilada
