// Blist against a plain first-fit scan of a bitmap, at 10, 50 and 95 % full: one allocation of n blocks and
// one free of a random earlier one per iteration, so that the fill level stays. 2^22 blocks = 16 GiB of swap.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "swap/blist.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBlocks = std::uint64_t{1} << 22;
constexpr std::uint64_t kNoRoom = ~std::uint64_t{0};

struct FreeDeleter {
  void operator()(std::byte* p) const { std::free(p); }
};

class BlistUnderTest {
 public:
  BlistUnderTest() : bytes_(Blist::required_bytes(PageCount{kBlocks})) {
    storage_.reset(static_cast<std::byte*>(std::aligned_alloc(64, bytes_ / 64 * 64 + 64)));
    std::fill_n(storage_.get(), bytes_, std::byte{0});
    list_ = Blist::create({storage_.get(), bytes_}, PageCount{kBlocks}, PageCount{0});
  }
  std::uint64_t allocate(std::uint64_t n) {
    const BlockRun run = list_.allocate(PageCount{n}, PageCount{n});
    return run.empty() ? kNoRoom : run.first.value();
  }
  void take(std::uint64_t first, std::uint64_t n) {
    list_.fill({SwapBlock{static_cast<std::uint32_t>(first)}, PageCount{n}});
  }
  void release(std::uint64_t first, std::uint64_t n) {
    if (!list_.free({SwapBlock{static_cast<std::uint32_t>(first)}, PageCount{n}})) std::abort();
  }

 private:
  std::size_t bytes_;
  std::unique_ptr<std::byte, FreeDeleter> storage_;
  Blist list_;
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

BENCHMARK(allocate_and_free<BlistUnderTest>)->Apply(arguments);
BENCHMARK(allocate_and_free<FirstFit>)->Apply(arguments);

}  // namespace
}  // namespace enchilada
