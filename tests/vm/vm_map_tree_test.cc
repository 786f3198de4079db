// MapEntries and the AVL index against a sorted set: structure, lookups, gaps.
#include "vm/vm_map_tree.h"

#include <gtest/gtest.h>

#include <map>

#include "map_machine.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = 0x10000;

VirtAddr page_at(std::uint64_t page) {
  return VirtAddr{kBase + page * kPageSize};
}

/// Entries of a test, with a naive copy: first page -> {entry, last page + 1}.
class TreeModel {
 public:
  explicit TreeModel(std::uint64_t pages)
      : pages_(pages), entries({page_at(0), page_at(pages)}, std::make_unique<AvlMapIndex>()) {}

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
    entries.insert_after(prev, entry.get());
    model[first] = std::move(entry);
  }
  void erase(std::map<std::uint64_t, std::unique_ptr<MapEntry>>::iterator it) {
    entries.erase(it->second.get());
    model.erase(it);
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

  std::uint64_t pages_;
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

void random_steps(std::uint64_t seed, std::uint64_t pages, int steps) {
  std::mt19937_64 rng(seed);
  TreeModel tree(pages);
  for (int i = 0; i < steps; ++i) {
    const std::uint64_t first = rng() % pages;
    const std::uint64_t length = 1 + rng() % 4;
    if (rng() % 5 < 3) {
      if (first + length <= pages && !tree.taken(first, first + length)) tree.insert(first, first + length);
    } else if (auto it = tree.model.lower_bound(first); it != tree.model.end()) {
      tree.erase(it);
    }
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
    tree.entries.validate();
  }
}

TEST(VmMapTree, RandomAgainstSortedSet) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
    random_steps(seed, std::uint64_t{24} << (seed % 5), 200);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(VmMapTree, HeightStaysLogarithmic) {
  constexpr std::uint64_t kCount = 1 << 14;
  TreeModel tree(2 * kCount);
  for (std::uint64_t i = 0; i < kCount; ++i) tree.insert(2 * i, 2 * i + 1);
  tree.entries.validate();
  unsigned tallest = 0;
  for (MapEntry* e = tree.entries.first(); e != tree.entries.header(); e = e->next) {
    tallest = std::max<unsigned>(tallest, e->height);
  }
  EXPECT_LE(tallest, 21u);  // 1.44 * log2(2^14)
  for (std::uint64_t i = 0; i < kCount; i += 2) tree.erase(tree.model.find(2 * i));
  tree.entries.validate();
}

TEST(VmMapTree, AlignedSearchPassesGapsThatAreLongEnoughButNotAligned) {
  constexpr std::uint64_t kPages = 4096;
  TreeModel tree(kPages);
  // Gaps of 15 pages that never hold an aligned run of 8, more of them than the exact search visits.
  for (std::uint64_t p = 0; p + 16 < kPages - 64; p += 12) tree.insert(p, p + 1);
  const auto at = tree.entries.find_space(page_at(0), 8 * kPageSize, 64 * kPageSize);
  ASSERT_TRUE(at);
  EXPECT_EQ(at->value() % (64 * kPageSize), 0u);
  MapEntry* found;
  EXPECT_FALSE(tree.entries.lookup(*at, &found));
  EXPECT_GE(found->next->start.value() - at->value(), 8 * kPageSize);
}

TEST(VmMapTree, FullAndEmptyBounds) {
  TreeModel tree(16);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, 16 * kPageSize, kPageSize), page_at(0));
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, 17 * kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(page_at(1), 16 * kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(page_at(16), kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{~std::uint64_t{0}}, kPageSize, kPageSize), std::nullopt);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, kPageSize, std::uint64_t{1} << 63), std::nullopt);
  tree.insert(0, 16);
  EXPECT_EQ(tree.entries.find_space(VirtAddr{0}, kPageSize, kPageSize), std::nullopt);
  tree.entries.validate();
}

}  // namespace
}  // namespace enchilada
