// Allocators of swap blocks: one free of a random earlier allocation of n blocks and one new allocation per
// iteration, so that the fill level stays.
//  allocate_and_free: Blist against a plain first-fit scan of a bitmap, at 10, 50 and 95 % full, 16 GiB of
//  swap. nearly_full: at 90 % full, from 1 GiB to 16 TiB of swap: Blist, the blist of 1999, and FreeBSD 3.x's
//  list at 1 GiB (it is O(holes)). 16 TiB are 2^32 - 1 blocks, what block numbers allow; such a list needs
//  0.6 GiB of memory here, and half a minute to be made.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "swap/swap_allocator.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBlocks = std::uint64_t{1} << 22;
constexpr std::uint64_t kNoRoom = ~std::uint64_t{0};

struct FreeDeleter {
  void operator()(std::byte* p) const { std::free(p); }
};

/// Any allocator, in zeroed storage that costs memory only where it is touched.
template <BlockAllocator A>
class UnderTest {
 public:
  explicit UnderTest(std::uint64_t blocks = kBlocks, std::size_t bytes = 0)
      : bytes_(bytes != 0 ? bytes : A::required_bytes(PageCount{blocks})),
        raw_(static_cast<std::byte*>(std::calloc(bytes_ + kAlignment, 1))) {
    if (raw_ == nullptr) std::abort();
    void* at = raw_.get();
    std::size_t room = bytes_ + kAlignment;
    list_ = A::create({static_cast<std::byte*>(std::align(kAlignment, bytes_, at, room)), bytes_},
                      PageCount{blocks}, PageCount{0});
  }
  std::uint64_t allocate(std::uint64_t n) {
    const BlockRun run = list_.allocate(PageCount{n}, PageCount{n});
    return run.empty() ? kNoRoom : run.first.value();
  }
  void take(std::uint64_t first, std::uint64_t n) { list_.fill(block_storage::run_at(first, n)); }
  void release(std::uint64_t first, std::uint64_t n) {
    if (!list_.free(block_storage::run_at(first, n))) std::abort();
  }

 private:
  static constexpr std::size_t kAlignment = 64;
  std::size_t bytes_;
  std::unique_ptr<std::byte, FreeDeleter> raw_;
  A list_;
};

/// The default allocator as SwapSpace sees it: through the seam, and asking for the longest run.
class ThroughSeam {
 public:
  explicit ThroughSeam(std::uint64_t blocks)
      : storage_(SwapAllocator::required_bytes(SwapAllocatorMode::kBlist, PageCount{blocks}) / kLine + 1),
        list_(SwapAllocator::create(SwapAllocatorMode::kBlist,
                                    {reinterpret_cast<std::byte*>(storage_.data()), storage_.size() * kLine},
                                    PageCount{blocks}, PageCount{0})) {}
  std::uint64_t allocate(std::uint64_t n) {
    const BlockRun run = list_.allocate_longest(PageCount{n});
    return run.count.value() < n ? kNoRoom : run.first.value();
  }
  void take(std::uint64_t first, std::uint64_t n) { list_.fill(block_storage::run_at(first, n)); }
  void release(std::uint64_t first, std::uint64_t n) {
    if (!list_.free(block_storage::run_at(first, n))) std::abort();
  }

 private:
  static constexpr std::size_t kLine = 64;
  struct alignas(kLine) Line {
    std::byte bytes[kLine]{};
  };
  std::vector<Line> storage_;
  SwapAllocator list_;
};

/// The straightforward thing: words of 64 blocks, first fit from the start, skipping empty words.
class FirstFit {
 public:
  FirstFit() : free_(kBlocks / 64, ~std::uint64_t{0}) {}
  std::uint64_t allocate(std::uint64_t n) {
    std::uint64_t run = 0;
    for (std::uint64_t b = 0; b < kBlocks;) {
      const std::uint64_t bits = free_[b / 64] >> (b % 64);
      if (bits == 0) {
        run = 0;
        b = (b / 64 + 1) * 64;
        continue;
      }
      if ((bits & 1) == 0) {
        run = 0;
        b += static_cast<unsigned>(std::countr_zero(bits));
        continue;
      }
      ++b;
      if (++run < n) continue;
      set(b - n, n, false);
      return b - n;
    }
    return kNoRoom;
  }
  void take(std::uint64_t first, std::uint64_t n) { set(first, n, false); }
  void release(std::uint64_t first, std::uint64_t n) { set(first, n, true); }

 private:
  void set(std::uint64_t first, std::uint64_t n, bool value) {
    for (std::uint64_t b = first; b < first + n; ++b) {
      const std::uint64_t mask = std::uint64_t{1} << (b % 64);
      free_[b / 64] = value ? free_[b / 64] | mask : free_[b / 64] & ~mask;
    }
  }
  std::vector<std::uint64_t> free_;
};

/// A random part of the space in use, in pieces of n: the fragmentation of a system that has run a while.
template <class Allocator>
std::vector<std::uint64_t> age(Allocator& space, std::uint64_t n, std::uint64_t percent,
                               std::mt19937_64& random) {
  std::vector<std::uint64_t> live;
  for (std::uint64_t b = 0; b + n <= kBlocks; b += n) live.push_back(b);
  std::shuffle(live.begin(), live.end(), random);
  live.resize(live.size() * percent / 100);
  for (const std::uint64_t b : live) space.take(b, n);
  return live;
}

template <class Allocator>
void allocate_and_free(benchmark::State& state) {
  const auto n = static_cast<std::uint64_t>(state.range(0));
  std::mt19937_64 random(1);
  Allocator space;
  std::vector<std::uint64_t> live = age(space, n, static_cast<std::uint64_t>(state.range(1)), random);
  for (auto _ : state) {
    const std::size_t victim = random() % live.size();
    space.release(live[victim], n);
    live[victim] = space.allocate(n);
    if (live[victim] == kNoRoom) std::abort();
  }
}

void arguments(benchmark::internal::Benchmark* b) {
  b->ArgNames({"blocks", "percent"});
  for (int n : {1, 16, 64}) {
    for (int percent : {10, 50, 95}) b->Args({n, percent});
  }
}

BENCHMARK(allocate_and_free<UnderTest<Blist>>)->Apply(arguments);
BENCHMARK(allocate_and_free<FirstFit>)->Apply(arguments);

/// Fills a space up to 90 %, at random: what is left is single pages, and for n > 1 half of it pieces of n.
/// Returns some of the pieces of n that are in use.
template <class Allocator>
std::vector<std::uint32_t> fill_at_random(Allocator& space, std::uint64_t blocks, std::uint64_t n,
                                          std::mt19937_64& random) {
  constexpr std::uint64_t kMostVictims = std::uint64_t{1} << 20;
  const std::uint64_t pieces = blocks / n;
  const std::uint64_t every = std::max<std::uint64_t>(1, pieces / kMostVictims);
  const std::uint64_t empty = n == 1 ? 6554 : 3277;                   // pieces, of 65536
  const std::uint64_t pierced = n == 1 ? 0 : empty + 65536 * n / 20;  // up to here: with a hole of a page
  std::vector<std::uint32_t> live;
  std::uint64_t from = 0;  // of the run in use that is being gathered
  std::uint64_t bits = 0;
  const auto leave = [&](std::uint64_t first, std::uint64_t count) {
    if (first != from) space.take(from, first - from);
    from = first + count;
  };
  for (std::uint64_t piece = 0; piece < pieces; ++piece) {
    bits = piece % 4 == 0 ? random() : bits >> 16;
    const std::uint64_t dice = bits & 0xffff;
    if (dice < empty) {
      leave(piece * n, n);
    } else if (dice < pierced) {
      leave(piece * n + dice % n, 1);
    } else if (piece % every == 0) {
      live.push_back(static_cast<std::uint32_t>(piece * n));
    }
  }
  leave(blocks, 0);
  std::shuffle(live.begin(), live.end(), random);
  live.resize(std::bit_floor(live.size()));
  return live;
}

template <class Allocator>
void churn(benchmark::State& state, Allocator& space, std::uint64_t blocks, std::uint64_t n) {
  std::mt19937_64 random(1);
  std::vector<std::uint32_t> live = fill_at_random(space, blocks, n, random);
  std::uint32_t pick = 1;
  for (auto _ : state) {
    pick = pick * 1664525u + 1013904223u;  // cheap: it is part of what is measured
    std::uint32_t& victim = live[(pick >> 8) & (live.size() - 1)];
    space.release(victim, n);
    const std::uint64_t next = space.allocate(n);
    if (next == kNoRoom) std::abort();
    victim = static_cast<std::uint32_t>(next);
  }
}

std::uint64_t blocks_of(const benchmark::State& state) {
  return std::min((static_cast<std::uint64_t>(state.range(0)) << 30) / kPageSize, Blist::kMaxBlocks);
}

template <class Allocator>
void nearly_full(benchmark::State& state) {
  const std::uint64_t blocks = blocks_of(state);
  Allocator space(blocks);
  churn(state, space, blocks, static_cast<std::uint64_t>(state.range(1)));
}

/// With so many nodes that it never runs out of them: here time is measured.
void nearly_full_list(benchmark::State& state) {
  const std::uint64_t blocks = blocks_of(state);
  UnderTest<SwapList3x> space(blocks, SwapList3x::bytes_with_nodes(blocks / 2 + 1));
  churn(state, space, blocks, static_cast<std::uint64_t>(state.range(1)));
}

/// Iterations are few where the space is large: victims are to come from all over it, not from what the run
/// itself has allocated.
void large(benchmark::internal::Benchmark* b) {
  b->ArgNames({"GiB", "blocks"})->ArgsProduct({{64, 1024, 16384}, {1, 16}})->Iterations(1 << 18);
}
void small(benchmark::internal::Benchmark* b) {
  b->ArgNames({"GiB", "blocks"})->ArgsProduct({{1}, {1, 16}})->Iterations(1 << 20);
}

BENCHMARK(nearly_full<UnderTest<Blist>>)->Apply(small);
BENCHMARK(nearly_full<UnderTest<Blist>>)->Apply(large);
BENCHMARK(nearly_full<ThroughSeam>)->Apply(small);
BENCHMARK(nearly_full<UnderTest<Blist1999>>)->Apply(small);
BENCHMARK(nearly_full<UnderTest<Blist1999>>)->Apply(large);
BENCHMARK(nearly_full_list)->ArgNames({"GiB", "blocks"})->ArgsProduct({{1}, {1, 16}})->Iterations(1 << 12);

}  // namespace
}  // namespace enchilada
