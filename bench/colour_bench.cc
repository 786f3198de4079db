// Page colouring: misses of a physically indexed cache while a program walks over arrays, by frame order.
//
// The program reads every line of its array (as large as the cache, or half as large) in order, again and
// again. Counters: misses and conflict misses per thousand reads, exact and the same in every run. Memory is
// in disorder (seven of eight frames, at random, belong to others) but for "fresh". `random`: frames drawn at
// random, without an engine, as the baseline. The times are the simulator's.
//
// allocate_free: what a frame costs in each order, taken for a page of an object and given back, in the same
// disordered memory.
#include <benchmark/benchmark.h>

#include <array>
#include <vector>

#include "support/colour_rig.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

using test::ColourRig;
using test::ColourRigOptions;

constexpr std::array<CacheShape, 3> kShapes = {
    CacheShape{ByteCount{128 << 10}, 1},  // the article's
    CacheShape{ByteCount{128 << 10}, 4},  // its question 9.5
    CacheShape{ByteCount{1 << 20}, 16}};  // a second-level cache of today
constexpr std::uint64_t kFrames = 8192;

void report(benchmark::State& state, const MissClasses::Counts& counts) {
  const auto reads = static_cast<double>(counts.hits + counts.misses());
  state.counters["misses_per_1000"] = 1000.0 * static_cast<double>(counts.misses()) / reads;
  state.counters["conflicts_per_1000"] = 1000.0 * static_cast<double>(counts.conflict) / reads;
}

/// Arguments: shape, frame order, fresh memory, array as a percentage of the cache.
void walk_array(benchmark::State& state) {
  const CacheShape shape = kShapes[static_cast<std::size_t>(state.range(0))];
  const std::uint64_t pages =
      (shape.bytes.value() >> kPageShift) * static_cast<std::uint64_t>(state.range(3)) / 100;
  MissClasses::Counts sum;
  for (auto _ : state) {
    sum = {};
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      ColourRig rig({.order = static_cast<FrameOrderMode>(state.range(1)),
                     .cache = shape,
                     .frames = kFrames,
                     .fragmented = state.range(2) == 0,
                     .seed = seed});
      const VirtAddr array = rig.make_array(pages);
      rig.walk(array, pages);
      rig.reset_counts();
      for (int i = 0; i < 5; ++i) rig.walk(array, pages);
      sum = sum + rig.classes();
    }
  }
  state.SetLabel(std::string(name_of(static_cast<FrameOrderMode>(state.range(1)))) +
                 (state.range(2) != 0 ? ", fresh" : ""));
  report(state, sum);
}

void walk_random_frames(benchmark::State& state) {
  const CacheShape shape = kShapes[static_cast<std::size_t>(state.range(0))];
  const std::uint64_t pages =
      (shape.bytes.value() >> kPageShift) * static_cast<std::uint64_t>(state.range(1)) / 100;
  MissClasses::Counts sum;
  for (auto _ : state) {
    sum = {};
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
      model::Random random(seed);
      std::vector<std::uint64_t> frames(kFrames);
      for (std::uint64_t i = 0; i < kFrames; ++i) frames[i] = i;
      for (std::uint64_t i = kFrames; i > 1; --i) std::swap(frames[i - 1], frames[random.below(i)]);
      frames.resize(pages);
      sum = sum + test::walk_frames(shape, kFrames, frames, 5);
    }
  }
  report(state, sum);
}

void shapes_and_orders(benchmark::internal::Benchmark* b) {
  for (const std::int64_t shape : {0, 1, 2}) {
    for (const std::int64_t percent : {100, 50}) {
      for (const std::int64_t order : {0, 1, 2}) {
        b->Args({shape, order, 0, percent});
        b->Args({shape, order, 1, percent});
      }
    }
  }
}
BENCHMARK(walk_array)->Apply(shapes_and_orders)->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(walk_random_frames)
    ->ArgsProduct({{0, 1, 2}, {100, 50}})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);

void allocate_free(benchmark::State& state) {
  ColourRig rig({.order = static_cast<FrameOrderMode>(state.range(0)), .frames = 1 << 16});
  VmSystem& system = rig.engine().system();
  VmPhys& phys = system.free_frames();
  VmObject* const object = system.objects().allocate_anonymous(PageCount{1 << 20});
  std::vector<FrameNumber> held(10000);
  std::uint64_t index = 0;
  const auto take = [&](FrameNumber& out) NO_THREAD_SAFETY_ANALYSIS {
    (void)phys.allocate({object, PageIndex{index++ % (1 << 20)}, VirtAddr{0}}, 0, {&out, 1});
  };
  for (FrameNumber& frame : held) take(frame);
  model::Random random(7);
  for (auto _ : state) {
    FrameNumber& frame = held[random.below(held.size())];
    phys.free({&frame, 1});
    take(frame);
  }
  phys.free(held);
  system.objects().deallocate(object);
  state.SetLabel(std::string(name_of(static_cast<FrameOrderMode>(state.range(0)))));
}
BENCHMARK(allocate_free)->DenseRange(0, 2);

}  // namespace
}  // namespace enchilada
