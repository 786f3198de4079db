// Caches against hand-made sequences (the article's question 9.5) and against a plain model.
#include "machine/cache.h"

#include <gtest/gtest.h>

#include <list>
#include <set>
#include <vector>

#include "machine/miss_classes.h"
#include "model/random_source.h"

namespace enchilada {
namespace {

constexpr std::uint64_t k128K = 128 << 10;

bool touch(Cache& cache, std::uint64_t address, bool write = false) {
  return cache.access(cache.line_of(PhysAddr{address}), write).hit;
}

/// "If you access offset 0 in main memory and then offset 128K in main memory you can wind up throwing away
/// the cached data you read from offset 0!"
TEST(Cache, DirectMapped128KThrowsOffset0AwayForOffset128K) {
  Cache cache({.bytes = ByteCount{k128K}, .ways = 1});
  EXPECT_FALSE(touch(cache, 0));
  EXPECT_TRUE(touch(cache, 0));
  EXPECT_TRUE(touch(cache, 63));
  EXPECT_FALSE(touch(cache, 64));
  EXPECT_FALSE(touch(cache, k128K));
  EXPECT_FALSE(touch(cache, 0));
  EXPECT_TRUE(touch(cache, 64));
  EXPECT_FALSE(touch(cache, k128K + 4096));  // another set: throws nothing away
  EXPECT_TRUE(touch(cache, 0));
  EXPECT_EQ(cache.counts().evictions, 2u);
}

/// "So if I have a 4-way set associative cache I can access offset 0, offset 128K, 256K and offset 384K and
/// still be able to access offset 0 again [...]. If I then access offset 512K, however, one of the four
/// previously cached data objects will be thrown away by the cache."
TEST(Cache, FourWaysHoldFourOffsetsAndTheFifthThrowsOneAway) {
  Cache cache({.bytes = ByteCount{k128K}, .ways = 4});
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_FALSE(touch(cache, i * k128K));
  EXPECT_TRUE(touch(cache, 0));
  EXPECT_FALSE(touch(cache, 4 * k128K));
  EXPECT_EQ(cache.counts().evictions, 1u);
  EXPECT_FALSE(cache.holds(cache.line_of(PhysAddr{k128K})));  // the least recently used
  for (const std::uint64_t i : {0u, 2u, 3u, 4u}) EXPECT_TRUE(cache.holds(cache.line_of(PhysAddr{i * k128K})));
}

TEST(Cache, OnlyWrittenLinesAreWrittenBack) {
  Cache cache({.bytes = ByteCount{k128K}, .ways = 1});
  touch(cache, 0, true);
  touch(cache, 64);
  EXPECT_EQ(cache.access(k128K / 64, false).out, 0u);  // line 0 goes
  EXPECT_EQ(cache.access(k128K / 64 + 1, false).out, Cache::kNoLine);
  EXPECT_EQ(cache.counts().writebacks, 1u);
  EXPECT_EQ(cache.counts().evictions, 2u);
}

TEST(Cache, AnotherCpusWriteTakesTheLineAndItsReadOnlyTheDirt) {
  Cache cache({.bytes = ByteCount{4096}, .ways = 4});
  touch(cache, 0, true);
  EXPECT_TRUE(cache.snoop(0, true));
  EXPECT_EQ(cache.counts().writebacks, 1u);
  EXPECT_TRUE(touch(cache, 0));
  EXPECT_TRUE(cache.snoop(0, false));
  EXPECT_FALSE(touch(cache, 0));
  EXPECT_FALSE(cache.snoop(17, false));
}

TEST(Cache, AgreesWithAModelOfEverySet) {
  model::Random random(3);
  for (int round = 0; round < 20; ++round) {
    const auto ways = static_cast<std::uint32_t>(random.between(1, 12));
    const std::uint64_t sets = std::uint64_t{1} << random.below(5);
    Cache cache({.bytes = ByteCount{sets * ways * 64}, .ways = ways});
    std::vector<std::list<std::pair<std::uint64_t, bool>>> model(sets);  // most recent first; dirty
    std::uint64_t misses = 0;
    std::uint64_t dirty_out = 0;
    for (int i = 0; i < 5000; ++i) {
      const std::uint64_t line = random.below(3 * sets * ways);
      const bool write = random.one_in(3);
      auto& set = model[line % sets];
      bool dirty = write;
      auto at = set.begin();
      while (at != set.end() && at->first != line) ++at;
      const bool hit = at != set.end();
      if (hit) {
        dirty = dirty || at->second;
        set.erase(at);
      } else if (set.size() == ways) {
        if (set.back().second) ++dirty_out;
        set.pop_back();
      }
      set.emplace_front(line, dirty);
      misses += hit ? 0 : 1;
      ASSERT_EQ(cache.access(line, write).hit, hit);
    }
    EXPECT_EQ(cache.counts().misses, misses);
    EXPECT_EQ(cache.counts().writebacks, dirty_out);
  }
}

TEST(MissClasses, TellsTheThreeApart) {
  Cache cache({.bytes = ByteCount{4 * 64}, .ways = 1});
  MissClasses classes(4, 64);
  const auto use = [&](std::uint64_t line) { classes.access(line, cache.access(line, false).hit); };
  for (const std::uint64_t line : {0u, 4u, 0u}) use(line);  // 0 and 4 share a set; four lines would hold both
  EXPECT_EQ(classes.counts().compulsory, 2u);
  EXPECT_EQ(classes.counts().conflict, 1u);
  for (const std::uint64_t line : {1u, 2u, 3u, 5u}) use(line);  // four others
  use(0);                                                       // 0 is still in its set of the real cache
  EXPECT_EQ(classes.counts().hits, 1u);
  use(4);  // neither has it
  EXPECT_EQ(classes.counts().capacity, 1u);
  EXPECT_EQ(classes.counts().misses(), cache.counts().misses);
}

TEST(MissClasses, AFullyAssociativeCacheHasNoConflicts) {
  model::Random random(9);
  Cache cache({.bytes = ByteCount{16 * 64}, .ways = 16});
  MissClasses classes(16, 100);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t line = random.below(random.one_in(3) ? 100 : 20);
    classes.access(line, cache.access(line, false).hit);
  }
  EXPECT_EQ(classes.counts().conflict, 0u);
  EXPECT_EQ(classes.counts().misses(), cache.counts().misses);
  EXPECT_EQ(classes.counts().compulsory, 100u);
}

}  // namespace
}  // namespace enchilada
