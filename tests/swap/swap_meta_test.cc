// All forms of swap metadata: one conformance suite, one model; and what is particular to the old ones.
#include "swap/swap_meta.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;
using swap_test::rounds;
using swap_test::SharedMemory;

constexpr PageIndex kLast{~std::uint64_t{0}};

SwapCopy copy_of(std::uint64_t n) {
  return {SwapBlock{static_cast<std::uint32_t>(n)}, {n * 3, n * 5}};
}

/// One form, with memory of its own.
template <SwapMetaStore M>
struct Store {
  explicit Store(std::size_t bytes) : memory(bytes + 4096), arena(memory.data(), bytes + 4096) {
    meta = std::make_unique<M>(arena, bytes);
  }
  bool put(PagerHandle& h, std::uint64_t index, std::uint64_t n, SwapCopy* old = nullptr) {
    SwapCopy before;
    return meta->set(h, PageIndex{index}, copy_of(n), MetaPurpose::kPut, old != nullptr ? old : &before);
  }
  SwapCopy get(const PagerHandle& h, std::uint64_t index) { return meta->get(h, PageIndex{index}); }
  std::vector<std::uint64_t> remove(PagerHandle& h, std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> gone;
    meta->remove_range(h, PageIndex{first}, PageIndex{last}, [&](PageIndex at, const SwapCopy& copy) {
      EXPECT_TRUE(copy.exists());
      gone.push_back(at.value());
    });
    return gone;
  }
  std::vector<std::uint64_t> seen(const PagerHandle& h, std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> all;
    meta->visit(h, PageIndex{first}, PageIndex{last}, [&](PageIndex at, const SwapCopy&) {
      all.push_back(at.value());
      return true;
    });
    return all;
  }

  SharedMemory memory;
  Arena arena;
  std::unique_ptr<M> meta;
};

template <class M>
class SwapMetaStores : public testing::Test {};
struct Names {
  template <class M>
  static std::string GetName(int) {
    if (std::is_same_v<M, SwapTrie>) return "Trie";
    return std::is_same_v<M, SwapHash> ? "Hash" : "Array3x";
  }
};
using AllStores = testing::Types<SwapTrie, SwapHash, SwapArray3x>;
TYPED_TEST_SUITE(SwapMetaStores, AllStores, Names);

TYPED_TEST(SwapMetaStores, WhatIsSetIsFoundAndNothingElse) {
  Store<TypeParam> store(1 << 20);
  PagerHandle a;
  PagerHandle b;
  EXPECT_FALSE(store.get(a, 5).exists());
  ASSERT_TRUE(store.put(a, 5, 77));
  EXPECT_EQ(store.get(a, 5), copy_of(77));
  EXPECT_FALSE(store.get(a, 4).exists());
  EXPECT_FALSE(store.get(a, 5 + 16).exists());
  EXPECT_FALSE(store.get(b, 5).exists()) << "each object has its own";
  SwapCopy old;
  ASSERT_TRUE(store.put(a, 5, 78, &old));
  EXPECT_EQ(old, copy_of(77));
  EXPECT_TRUE(store.meta->verify(a, 1));
  EXPECT_TRUE(store.meta->verify(b, 0));
  EXPECT_FALSE(store.meta->verify(a, 2));
}

TYPED_TEST(SwapMetaStores, AnObjectWithoutCopiesHasNothing) {
  Store<TypeParam> store(1 << 20);
  PagerHandle h;
  for (std::uint64_t i = 0; i < 100; i += 3) ASSERT_TRUE(store.put(h, i, i + 1));
  EXPECT_NE(h.root, nullptr);
  EXPECT_GT(store.meta->entries(), 0u);
  EXPECT_EQ(store.remove(h, 0, kLast.value()).size(), 34u);
  EXPECT_EQ(h.root, nullptr);
  EXPECT_EQ(store.meta->entries(), 0u) << "made lazily, and given back";
}

TYPED_TEST(SwapMetaStores, RangesAreInclusiveAndInOrder) {
  Store<TypeParam> store(1 << 20);
  PagerHandle h;
  for (const std::uint64_t i : {3u, 15u, 16u, 40u, 700u}) ASSERT_TRUE(store.put(h, i, i));
  using Indexes = std::vector<std::uint64_t>;
  EXPECT_EQ(store.seen(h, 0, kLast.value()), (Indexes{3, 15, 16, 40, 700}));
  EXPECT_EQ(store.seen(h, 15, 40), (Indexes{15, 16, 40}));
  EXPECT_EQ(store.seen(h, 41, 699), Indexes{});
  EXPECT_EQ(store.remove(h, 4, 16), (Indexes{15, 16}));
  EXPECT_EQ(store.seen(h, 0, kLast.value()), (Indexes{3, 40, 700}));
  EXPECT_TRUE(store.meta->verify(h, 3));
  EXPECT_EQ(store.remove(h, 700, kLast.value()), (Indexes{700}));
}

TYPED_TEST(SwapMetaStores, AVisitEndsWhenItIsToldTo) {
  Store<TypeParam> store(1 << 20);
  PagerHandle h;
  for (std::uint64_t i = 0; i < 50; ++i) ASSERT_TRUE(store.put(h, i, i));
  std::uint64_t calls = 0;
  store.meta->visit(h, PageIndex{0}, kLast, [&](PageIndex, const SwapCopy&) { return ++calls < 20; });
  EXPECT_EQ(calls, 20u);
}

TYPED_TEST(SwapMetaStores, MemoryEndsAsARefusalThatChangesNothing) {
  Store<TypeParam> store(40000);
  PagerHandle h;
  std::uint64_t n = 0;
  while (store.put(h, n * 16, n + 1)) ASSERT_LT(++n, 100'000u);
  EXPECT_GT(n, 4u);
  EXPECT_GT(store.meta->stats().refused.load(), 0u);
  EXPECT_FALSE(store.get(h, n * 16).exists());
  EXPECT_TRUE(store.meta->verify(h, n));
  SwapCopy old;
  EXPECT_TRUE(store.put(h, 0, 4711, &old)) << "what has its place already keeps it";
  EXPECT_EQ(old, copy_of(1));
  EXPECT_EQ(store.remove(h, 0, kLast.value()).size(), n);
  EXPECT_TRUE(store.put(h, 0, 1)) << "and memory that was given back serves again";
}

TYPED_TEST(SwapMetaStores, AMoveFindsRoomWhenAPutDoesNot) {
  Store<TypeParam> store(40000);
  PagerHandle from;
  PagerHandle to;
  std::uint64_t n = 0;
  while (store.put(from, n * 16, n + 1)) ++n;
  // One leaf becomes two, as its pages are shifted: more than any put would get.
  store.meta->remove_range(from, PageIndex{0}, kLast, [&](PageIndex at, const SwapCopy& copy) {
    SwapCopy none;
    ASSERT_TRUE(store.meta->set(to, at + PageCount{7}, copy, MetaPurpose::kMove, &none));
  });
  EXPECT_TRUE(store.meta->verify(to, n));
  EXPECT_TRUE(store.meta->verify(from, 0));
  for (std::uint64_t i = 0; i < n; ++i) ASSERT_EQ(store.get(to, i * 16 + 7), copy_of(i + 1));
}

/// Four objects, and what they must hold.
template <class M>
class History {
 public:
  explicit History(std::uint64_t seed) : random_(seed), store_(random_.one_in(3) ? 40000 : 1 << 20) {}

  void run() {
    for (int i = 0; i < 200 && !testing::Test::HasFailure(); ++i) {
      step();
      if (random_.one_in(8)) check();
    }
    for (std::size_t o = 0; o < kObjects; ++o) remove(o, 0, kLast.value());
    check();
    EXPECT_EQ(store_.meta->entries(), 0u);
  }

 private:
  static constexpr std::size_t kObjects = 4;
  using Model = std::map<std::uint64_t, SwapCopy>;

  std::uint64_t index() {
    return random_.one_in(40) ? random_.bits() >> random_.below(64) : random_.below(200);
  }

  void step() {
    const std::size_t o = random_.below(kObjects);
    const std::uint64_t first = index();
    const std::uint64_t n = random_.between(1, 30);
    const std::uint64_t last = first + n - 1 < first ? kLast.value() : first + n - 1;
    switch (random_.below(6)) {
      case 0:
      case 1:
      case 2:
        for (std::uint64_t i = first; i <= last && i >= first && i != kLast.value(); ++i) put(o, i);
        return;
      case 3:
        return remove(o, first, random_.one_in(6) ? kLast.value() : last);
      case 4:
        return move(o, (o + 1) % kObjects, first, last);
      default:
        return look(o, first, random_.one_in(4) ? kLast.value() : last);
    }
  }

  void put(std::size_t o, std::uint64_t i) {
    const SwapCopy copy = copy_of(random_.below(1u << 30));
    SwapCopy old;
    const auto had = models_[o].find(i);
    if (!store_.meta->set(handles_[o], PageIndex{i}, copy, MetaPurpose::kPut, &old)) {
      ASSERT_EQ(had, models_[o].end()) << "refused, though the page had a place";
      return;
    }
    ASSERT_EQ(old.exists(), had != models_[o].end());
    if (old.exists()) {
      ASSERT_EQ(old, had->second);
    }
    models_[o][i] = copy;
  }

  void remove(std::size_t o, std::uint64_t first, std::uint64_t last) {
    auto it = models_[o].lower_bound(first);
    store_.meta->remove_range(handles_[o], PageIndex{first}, PageIndex{last},
                              [&](PageIndex at, const SwapCopy& copy) {
                                ASSERT_NE(it, models_[o].end());
                                ASSERT_EQ(at.value(), it->first);
                                ASSERT_EQ(copy, it->second);
                                it = models_[o].erase(it);
                              });
    ASSERT_TRUE(it == models_[o].end() || it->first > last);
  }

  /// As the pager does it: to page 0 on, where there is nothing yet.
  void move(std::size_t o, std::size_t d, std::uint64_t first, std::uint64_t last) {
    store_.meta->remove_range(
        handles_[o], PageIndex{first}, PageIndex{last}, [&](PageIndex at, const SwapCopy& copy) {
          const PageIndex to{at.value() - first};
          models_[o].erase(at.value());
          if (store_.meta->get(handles_[d], to).exists()) return;
          SwapCopy none;
          ASSERT_TRUE(store_.meta->set(handles_[d], to, copy, MetaPurpose::kMove, &none));
          models_[d].emplace(to.value(), copy);
        });
  }

  void look(std::size_t o, std::uint64_t first, std::uint64_t last) {
    auto it = models_[o].lower_bound(first);
    store_.meta->visit(handles_[o], PageIndex{first}, PageIndex{last},
                       [&](PageIndex at, const SwapCopy& copy) {
                         EXPECT_TRUE(it != models_[o].end() && at.value() == it->first && copy == it->second);
                         if (it == models_[o].end()) return false;
                         ++it;
                         return true;
                       });
    EXPECT_TRUE(it == models_[o].end() || it->first > last);
    const auto at = models_[o].find(first);
    const SwapCopy seen = store_.get(handles_[o], first);
    EXPECT_EQ(seen.exists(), at != models_[o].end());
    if (seen.exists()) {
      EXPECT_EQ(seen, at->second);
    }
  }

  void check() {
    for (std::size_t o = 0; o < kObjects; ++o) {
      ASSERT_TRUE(store_.meta->verify(handles_[o], models_[o].size()));
      ASSERT_EQ(handles_[o].root == nullptr, models_[o].empty());
    }
  }

  Random random_;
  Store<M> store_;
  std::array<PagerHandle, kObjects> handles_;
  std::array<Model, kObjects> models_;
};

TYPED_TEST(SwapMetaStores, RandomHistoriesAgreeWithAMap) {
  for_each_seed(1, rounds(500), [](std::uint64_t seed) { History<TypeParam>(seed).run(); });
}

// ---- What is particular ----

TEST(SwapHash, HasAnEighthAsManyBucketsAsEntriesAndUsesASixteenth) {
  Store<SwapHash> store(4 << 20);
  EXPECT_GE(store.meta->buckets(), store.meta->max_entries() / 8);
  EXPECT_LT(store.meta->buckets(), store.meta->max_entries() / 4);
  alignas(64) PagerHandle h;
  const std::uint64_t n = store.meta->max_entries() / 2;
  for (std::uint64_t i = 0; i < n; ++i) ASSERT_TRUE(store.put(h, i * 16, i));
  // The key's low bits are the object's alone.
  EXPECT_GE(store.meta->longest_chain(), n / (store.meta->buckets() / 16));
  const std::uint64_t before = store.meta->stats().probes.load();
  for (std::uint64_t i = 0; i < n; ++i) EXPECT_TRUE(store.get(h, i * 16).exists());
  EXPECT_GT(store.meta->stats().probes.load() - before, 8 * n);
}

TEST(SwapHash, WhatComesNextFarAwayTakesAWalkOverAll) {
  Store<SwapHash> store(1 << 20);
  PagerHandle h;
  ASSERT_TRUE(store.put(h, std::uint64_t{1} << 50, 7));
  EXPECT_EQ(store.seen(h, 0, kLast.value()).size(), 1u);
  EXPECT_EQ(store.meta->stats().scans.load(), 1u);
  EXPECT_GE(store.meta->stats().lookups.load(), store.meta->buckets()) << "after as many vain questions";
}

TEST(SwapArray3x, OnePageFarOutNeedsAnArrayForTheWholeObject) {
  Store<SwapArray3x> store(1 << 20);
  PagerHandle h;
  ASSERT_TRUE(store.put(h, 0, 1));
  const std::uint64_t small = store.meta->entries();
  ASSERT_TRUE(store.put(h, 20'000, 2));
  EXPECT_EQ(store.meta->entries(), (64 + 32768 * 20 + 511) / 512) << small;
  EXPECT_EQ(store.meta->stats().grown.load(), 2u);
  EXPECT_EQ(store.meta->stats().copied.load(), 1u);
  EXPECT_FALSE(store.put(h, 40'000, 3)) << "old and new together are too large for the pool";
  EXPECT_TRUE(store.meta->verify(h, 2));
}

TEST(SwapArray3x, WhatAMoveCannotPlaceIsPutAside) {
  Store<SwapArray3x> store(40000);
  PagerHandle from;
  PagerHandle to;
  ASSERT_TRUE(store.put(from, 1000, 1));  // the pool's greater part
  SwapCopy none;
  ASSERT_TRUE(store.meta->set(to, PageIndex{500}, copy_of(2), MetaPurpose::kMove, &none));
  EXPECT_EQ(store.meta->stats().dips.load(), 1u);
  EXPECT_EQ(store.get(to, 500), copy_of(2));
  ASSERT_TRUE(store.put(to, 500, 3, &none));
  EXPECT_EQ(none, copy_of(2)) << "and is replaced there";
  ASSERT_TRUE(store.put(to, 3, 4));  // an array for the first pages beside it
  EXPECT_EQ(store.seen(to, 0, kLast.value()), (std::vector<std::uint64_t>{3, 500}));
  EXPECT_TRUE(store.meta->verify(to, 2));
  EXPECT_EQ(store.remove(to, 0, 400), (std::vector<std::uint64_t>{3}));
  EXPECT_EQ(store.remove(to, 0, kLast.value()), (std::vector<std::uint64_t>{500}));
  EXPECT_EQ(to.root, nullptr);
}

}  // namespace
}  // namespace enchilada
