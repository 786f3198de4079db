// Devices behind a compressed store: what was written is read, wherever it is and whatever fails or dies.
#include "swap/compressed_swap.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <thread>
#include <vector>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::SharedMemory;

constexpr std::uint64_t kBlocks = 2048;
constexpr std::size_t kArena = std::size_t{4} << 20;

/// The page that a value stands for: every fourth value's is noise, the others shrink well or badly.
void fill(std::byte* page, std::uint64_t value) {
  std::mt19937_64 random(value);
  const std::size_t noise = std::array<std::size_t, 4>{64, 1024, 2400, kPageSize}[value % 4];
  for (std::size_t at = 0; at < kPageSize; at += 8) {
    const std::uint64_t word = at < noise ? random() : value;
    std::memcpy(page + at, &word, 8);
  }
}

bool holds(const std::byte* page, std::uint64_t value) {
  std::array<std::byte, kPageSize> expected;
  fill(expected.data(), value);
  return std::memcmp(page, expected.data(), kPageSize) == 0;
}

std::vector<std::uint64_t> halves() {
  return {kBlocks / 2, kBlocks / 2};
}

/// Shared by the processes of a test.
struct Place {
  explicit Place(ByteCount ring = ByteCount{std::size_t{1} << 20})
      : storage(CompressedStore::required_bytes(ring, PageCount{kBlocks})), disk(kBlocks * kPageSize) {
    EXPECT_TRUE(CompressedStore::create(storage.span(), ring, PageCount{kBlocks}));
  }
  SharedMemory storage;
  SharedMemory disk;
};

/// One process's view.
struct Tier {
  explicit Tier(Place& place, unsigned self = 0, CompressedStore::Liveness alive = {},
                bool (*wanted)(void*, DeviceBlock) = nullptr, void* context = nullptr,
                CompressionMode mode = CompressionMode::kLz4)
      : arena_memory(kArena),
        arena(arena_memory.data(), kArena),
        halves{MemorySwapDevice(place.disk.span().first(kBlocks / 2 * kPageSize)),
               MemorySwapDevice(place.disk.span().subspan(kBlocks / 2 * kPageSize))},
        faults{FaultInjectingSwapDevice(halves[0], 1), FaultInjectingSwapDevice(halves[1], 2)},
        store(*CompressedStore::attach(place.storage.span(), self, alive)),
        swap({.store = store,
              .below = below,
              .arena = arena,
              .wanted = wanted,
              .wanted_context = context,
              .compression = mode}) {
    EXPECT_TRUE(swap.ready());
  }
  IoResult write(std::uint64_t block, std::byte* from, std::uint64_t pages = 1) {
    return swap.device(block < kBlocks / 2 ? 0 : 1)->write(block % (kBlocks / 2), from, PageCount{pages});
  }
  IoResult read(std::uint64_t block, std::byte* to, std::uint64_t pages = 1) {
    return swap.device(block < kBlocks / 2 ? 0 : 1)->read(block % (kBlocks / 2), to, PageCount{pages});
  }
  SharedMemory arena_memory;
  Arena arena;
  MemorySwapDevice halves[2];
  FaultInjectingSwapDevice faults[2];
  SwapDevice* below[2] = {&faults[0], &faults[1]};
  CompressedStore store;
  CompressedSwap swap;
};

bool in_model(void* model, DeviceBlock block) {
  return static_cast<std::map<std::uint64_t, std::uint64_t>*>(model)->contains(block.device * kBlocks / 2 +
                                                                               block.block);
}

TEST(CompressedSwap, NumbersEveryBlockOfEveryDevice) {
  EXPECT_EQ(CompressedSwap::numbers(halves()), PageCount{kBlocks});
}

TEST(CompressedSwap, RefusesStorageThatIsTooSmall) {
  SharedMemory storage(CompressedStore::required_bytes(CompressedStore::kSmallest, PageCount{10}));
  EXPECT_FALSE(CompressedStore::create(storage.span(), CompressedStore::kSmallest, PageCount{5000}));
  EXPECT_FALSE(CompressedStore::create(storage.span(), ByteCount{kPageSize - 1}, PageCount{10}));
  EXPECT_FALSE(CompressedStore::attach(storage.span(), 0, {}).has_value()) << "nothing was formatted";
}

TEST(CompressedSwap, WhatShrinksCostsNoIo) {
  Place place;
  Tier tier(place);
  SharedMemory page(kPageSize);
  fill(page.data(), 4);  // 64 bytes of noise
  ASSERT_EQ(tier.write(7, page.data()), IoResult::kOk);
  ASSERT_EQ(tier.read(7, page.data()), IoResult::kOk);
  EXPECT_TRUE(holds(page.data(), 4));
  EXPECT_EQ(tier.halves[0].writes() + tier.halves[0].reads(), 0u);
  EXPECT_EQ(tier.store.stats().pages, 1u);
  fill(page.data(), 3);  // all noise
  ASSERT_EQ(tier.write(7, page.data()), IoResult::kOk);
  ASSERT_EQ(tier.read(7, page.data()), IoResult::kOk);
  EXPECT_TRUE(holds(page.data(), 3));
  EXPECT_EQ(tier.halves[0].writes(), 1u);
  EXPECT_EQ(tier.halves[0].reads(), 1u);
}

TEST(CompressedSwap, AWriteOfNoiseGoesOnByItselfAndWhatShrinksIsDoneAtOnce) {
  Place place;
  Tier tier(place);
  SwapDevice& device = *tier.swap.device(0);
  tier.faults[0].set_async(1);
  SharedMemory pages(4 * kPageSize);
  const auto begin = [&](std::array<std::uint64_t, 4> values, AsyncWrite& write) {
    for (std::size_t i = 0; i < 4; ++i) fill(pages.data() + i * kPageSize, values[i]);
    return device.begin_write(0, {pages.data(), 4 * kPageSize}, write);
  };
  const auto expect_read = [&](std::array<std::uint64_t, 4> values) {
    ASSERT_EQ(tier.read(0, pages.data(), 4), IoResult::kOk);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(holds(pages.data() + i * kPageSize, values[i])) << i;
  };
  AsyncWrite shrinks;
  ASSERT_TRUE(begin({4, 8, 12, 16}, shrinks));
  EXPECT_EQ(shrinks.state(), AsyncWrite::State::kDone);
  EXPECT_EQ(tier.halves[0].writes(), 0u);
  expect_read({4, 8, 12, 16});
  AsyncWrite mixed;
  ASSERT_TRUE(begin({20, 3, 7, 24}, mixed));
  EXPECT_EQ(mixed.state(), AsyncWrite::State::kDone) << "the rest was written here";
  EXPECT_EQ(tier.halves[0].writes(), 1u) << "in one call";
  expect_read({20, 3, 7, 24});
  AsyncWrite noise;
  ASSERT_TRUE(begin({11, 15, 19, 23}, noise));
  EXPECT_EQ(noise.state(), AsyncWrite::State::kUnderWay);
  EXPECT_FALSE(tier.store.has(PackedNumber{0})) << "what the ring had is not wanted any more";
  device.collect_writes();
  EXPECT_EQ(noise.state(), AsyncWrite::State::kDone);
  expect_read({11, 15, 19, 23});
}

TEST(CompressedSwap, AFailedWriteThatWasBegunSaysSo) {
  Place place;
  Tier tier(place);
  tier.faults[0].set_full(true);
  SharedMemory pages(2 * kPageSize);
  fill(pages.data(), 4);
  fill(pages.data() + kPageSize, 3);
  AsyncWrite write;
  ASSERT_TRUE(tier.swap.device(0)->begin_write(0, {pages.data(), 2 * kPageSize}, write));
  EXPECT_EQ(write.state(), AsyncWrite::State::kFailed);
}

TEST(CompressedSwap, OldPagesGoToTheDeviceInClusters) {
  Place place;
  Tier tier(place);
  SharedMemory page(kPageSize);
  std::uint64_t n = 0;
  for (; tier.halves[0].writes() == 0 && n < kBlocks / 2; ++n) {
    fill(page.data(), 4 * n + 1);
    ASSERT_EQ(tier.write(n, page.data()), IoResult::kOk);
  }
  EXPECT_EQ(tier.halves[0].writes(), 1u) << "neighbours are one write";
  EXPECT_EQ(tier.store.stats().moved, CompressedStore::kDrainPages);
  for (std::uint64_t i = 0; i < n; ++i) {
    ASSERT_EQ(tier.read(i, page.data()), IoResult::kOk);
    EXPECT_TRUE(holds(page.data(), 4 * i + 1)) << i;
  }
  EXPECT_TRUE(tier.store.verify());
}

TEST(CompressedSwap, NobodysPagesCostNoIo) {
  Place place;
  Tier tier(place, 0, {}, [](void*, DeviceBlock) { return false; });
  SharedMemory page(kPageSize);
  for (std::uint64_t n = 0; n < 8 * kBlocks; ++n) {
    fill(page.data(), 4 * n);
    ASSERT_EQ(tier.write(n % kBlocks, page.data()), IoResult::kOk);
  }
  EXPECT_EQ(tier.halves[0].writes() + tier.halves[1].writes(), 0u);
  EXPECT_GT(tier.store.stats().stale, 0u);
  EXPECT_TRUE(tier.store.verify());
}

TEST(CompressedSwap, UsedPagesStayLonger) {
  Place place;
  Tier tier(place);
  SharedMemory page(kPageSize);
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {
    fill(page.data(), 4 * n + 1);
    ASSERT_EQ(tier.write(n, page.data()), IoResult::kOk);
    ASSERT_EQ(tier.read(n % 8, page.data()), IoResult::kOk);
  }
  EXPECT_GT(tier.store.stats().moved, 0u);
  for (std::uint32_t n = 0; n < 8; ++n) EXPECT_TRUE(tier.store.has(PackedNumber{n})) << n;
  EXPECT_FALSE(tier.store.has(PackedNumber{8}));
}

TEST(CompressedSwap, OfferedPagesCostNoWrite) {
  Place place;
  Tier tier(place);
  SwapDevice& device = *tier.swap.device(0);
  SharedMemory page(kPageSize);
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {  // as if all had been paged out long ago
    fill(page.data(), 4 * n + 1);
    ASSERT_EQ(tier.halves[0].write(n, page.data(), PageCount{1}), IoResult::kOk);
  }
  const std::uint64_t writes = tier.halves[0].writes();
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {
    fill(page.data(), 4 * n + 1);
    device.make_room();
    if (!device.touch(n)) device.offer(n, page.data());
  }
  EXPECT_EQ(tier.halves[0].writes(), writes);
  EXPECT_GT(tier.store.stats().left, 0u);
  EXPECT_EQ(tier.store.stats().moved, 0u);
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {
    ASSERT_EQ(tier.read(n, page.data()), IoResult::kOk);
    EXPECT_TRUE(holds(page.data(), 4 * n + 1)) << n;
  }
  EXPECT_LT(tier.halves[0].reads(), kBlocks / 2);
}

TEST(CompressedSwap, AFullDeviceLosesNothingThatIsStored) {
  Place place;
  Tier tier(place);
  SharedMemory page(kPageSize);
  tier.faults[0].set_full(true);
  std::uint64_t n = 0;
  for (; n < kBlocks / 2; ++n) {
    fill(page.data(), 4 * n + 2);
    if (tier.write(n, page.data()) != IoResult::kOk) break;
  }
  ASSERT_GT(n, 100u);
  ASSERT_LT(n, kBlocks / 2) << "the ring never filled";
  for (std::uint64_t i = 0; i < n; ++i) {
    ASSERT_EQ(tier.read(i, page.data()), IoResult::kOk);
    EXPECT_TRUE(holds(page.data(), 4 * i + 2)) << i;
  }
  tier.faults[0].set_full(false);
  fill(page.data(), 9);
  EXPECT_EQ(tier.write(n, page.data()), IoResult::kOk) << "and it goes on when there is room";
  EXPECT_TRUE(tier.store.verify());
}

/// Random clusters written, read and forgotten; `first` and `count` are this thread's blocks.
void random_traffic(Tier& tier, std::uint64_t first, std::uint64_t count, unsigned seed,
                    std::map<std::uint64_t, std::uint64_t>& model, unsigned steps, bool failing) {
  std::mt19937_64 random(seed);
  SharedMemory pages(64 * kPageSize);
  for (unsigned step = 0; step < steps; ++step) {
    const std::uint64_t n = random() % 3 == 0 ? 1 + random() % 64 : 1 + random() % 4;
    const std::uint64_t at = first + random() % (count - n);
    if (random() % 2 == 0) {
      std::vector<std::uint64_t> values(n);
      for (std::uint64_t i = 0; i < n; ++i) fill(pages.data() + i * kPageSize, values[i] = random() >> 8);
      const IoResult result = tier.write(at, pages.data(), n);
      EXPECT_TRUE(result == IoResult::kOk || failing);
      for (std::uint64_t i = 0; i < n; ++i) {
        if (result == IoResult::kOk) {
          model[at + i] = values[i];
        } else {
          model.erase(at + i);
        }
      }
    } else if (random() % 4 == 0) {
      for (std::uint64_t i = 0; i < n; ++i) model.erase(at + i);
    } else {
      if (tier.read(at, pages.data(), n) != IoResult::kOk) {
        EXPECT_TRUE(failing);
        continue;
      }
      for (std::uint64_t i = 0; i < n; ++i) {
        const auto known = model.find(at + i);
        if (known == model.end()) continue;
        ASSERT_TRUE(holds(pages.data() + i * kPageSize, known->second)) << at + i << ", seed " << seed;
      }
    }
  }
}

class CompressedSwapModes : public testing::TestWithParam<CompressionMode> {};
INSTANTIATE_TEST_SUITE_P(Codecs, CompressedSwapModes,
                         testing::Values(CompressionMode::kLz4, CompressionMode::kZstd));

TEST_P(CompressedSwapModes, RandomTrafficAgreesWithAModel) {
  for (unsigned seed = 1; seed <= 6 && !testing::Test::HasFailure(); ++seed) {
    Place place;
    std::map<std::uint64_t, std::uint64_t> model;
    Tier tier(place, 0, {}, in_model, &model, GetParam());
    const bool failing = seed % 2 == 0;
    if (failing) {
      tier.faults[0].set_failure_rate(2000, 2000);
      tier.faults[1].set_short_writes(true);
      tier.faults[1].set_failure_rate(0, 4000);
    }
    random_traffic(tier, 0, kBlocks / 2, seed, model, 1500, failing);
    random_traffic(tier, kBlocks / 2, kBlocks / 2, seed + 100, model, 1500, failing);
    EXPECT_TRUE(tier.store.verify()) << seed;
    const CompressedStore::Stats stats = tier.store.stats();
    EXPECT_GT(stats.put, 0u);
    EXPECT_GT(stats.moved, 0u);
    EXPECT_GT(stats.got, 0u);
    EXPECT_GT(stats.stale, 0u);
    EXPECT_GT(stats.rounds, 0u);
  }
}

TEST_P(CompressedSwapModes, ThreadsShareTheRing) {
  Place place;
  Tier tier(place, 0, {}, nullptr, nullptr, GetParam());
  std::vector<std::thread> threads;
  std::array<std::map<std::uint64_t, std::uint64_t>, 4> models;
  constexpr std::uint64_t kShare = kBlocks / 4;
  for (unsigned t = 0; t < 4; ++t) {  // with the drain's, more than there are benches to unpack at
    threads.emplace_back([&, t] { random_traffic(tier, t * kShare, kShare, 40 + t, models[t], 600, false); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(tier.store.verify());
}

/// Holder slots whose processes are gone.
bool slot_alive(void* gone, unsigned holder) {
  return !static_cast<std::atomic<bool>*>(gone)[holder].load();
}

TEST_P(CompressedSwapModes, KilledProcessesBlockNobodyAndLoseNothingOfOthers) {
  Place place;
  SharedMemory flags(kPageSize);
  auto* gone = reinterpret_cast<std::atomic<bool>*>(flags.data());
  const CompressedStore::Liveness alive{slot_alive, gone};
  Tier tier(place, 1, alive, nullptr, nullptr, GetParam());
  std::map<std::uint64_t, std::uint64_t> model;
  std::mt19937_64 random(77);
  for (int round = 0; round < static_cast<int>(swap_test::rounds(60)); ++round) {
    gone[2] = false;
    const pid_t child = fork();
    if (child == 0) {
      Tier own(place, 2, alive, nullptr, nullptr, GetParam());
      std::map<std::uint64_t, std::uint64_t> ignored;
      for (;;)
        random_traffic(own, kBlocks / 2, kBlocks / 2, 500 + static_cast<unsigned>(round), ignored, 100,
                       false);
    }
    random_traffic(tier, 0, kBlocks / 2, 1000 + static_cast<unsigned>(round), model, 40, false);
    usleep(static_cast<useconds_t>(random() % 8000));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    gone[2] = true;
    if (round % 2 == 0) tier.store.drop_holder(2);  // else a waiter finds out
    random_traffic(tier, 0, kBlocks / 2, 2000 + static_cast<unsigned>(round), model, 40, false);
    if (testing::Test::HasFailure()) return;
  }
  SharedMemory page(kPageSize);
  for (const auto& [block, value] : model) {
    ASSERT_EQ(tier.read(block, page.data()), IoResult::kOk);
    EXPECT_TRUE(holds(page.data(), value)) << block;
  }
  EXPECT_TRUE(tier.store.verify());
}

}  // namespace
}  // namespace enchilada
