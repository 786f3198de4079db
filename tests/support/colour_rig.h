// What page colouring is measured with: an engine whose free memory is in disorder, a program that walks over
// an array, and one physically indexed cache that sees where its pages lie.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "machine/cache.h"
#include "machine/miss_classes.h"
#include "machine/soft_engine.h"
#include "model/random_source.h"
#include "vm/vm_phys.h"

namespace enchilada::test {

struct ColourRigOptions {
  FrameOrderMode order = FrameOrderMode::kBuddy;
  CacheShape cache{ByteCount{128 << 10}, 1};
  std::uint64_t frames = 2048;
  bool fragmented = true;  // seven of eight frames, here and there, belong to somebody else
  std::uint64_t seed = 1;
};

/// Reads every line of these frames, in order, once to bring them in and then `rounds` times.
inline MissClasses::Counts walk_frames(const CacheShape& shape, std::uint64_t memory_frames,
                                       const std::vector<std::uint64_t>& frames, int rounds) {
  Cache cache(shape);
  MissClasses classes(shape.bytes.value() / shape.line,
                      to_bytes(PageCount{memory_frames}).value() / shape.line);
  for (int round = 0; round <= rounds; ++round) {
    if (round == 1) classes.reset_counts();
    for (const std::uint64_t frame : frames) {
      for (std::uint64_t offset = 0; offset < kPageSize; offset += shape.line) {
        const std::uint64_t line = cache.line_of(PhysAddr{(frame << kPageShift) + offset});
        classes.access(line, cache.access(line, false).hit);
      }
    }
  }
  return classes.counts();
}

class ColourRig {
 public:
  explicit ColourRig(const ColourRigOptions& o)
      : engine_(engine_options(o)),
        cache_(o.cache),
        classes_(o.cache.bytes.value() / o.cache.line, to_bytes(PageCount{o.frames}).value() / o.cache.line),
        map_(engine_.create_map(PageCount{o.frames})) {
    engine_.system().grow(PageCount{o.frames});
    if (o.fragmented) fragment(o.seed);
  }
  ~ColourRig() {
    map_.reset();
    engine_.system().free_frames().free(others_);
  }

  /// An array of so many pages; every page has been touched.
  VirtAddr make_array(std::uint64_t pages) {
    VirtAddr at{0};
    CHECK(map_->map({.length = to_bytes(PageCount{pages})}, &at) == KernReturn::kSuccess);
    for (std::uint64_t i = 0; i < pages; ++i) (void)address_of(at + to_bytes(PageCount{i}));
    return at;
  }
  /// What is mapped behind it is an object of its own.
  void make_gap() {
    VirtAddr at{0};
    CHECK(map_->map({.length = ByteCount{kPageSize}, .kind = EntryKind::kGuard}, &at) ==
          KernReturn::kSuccess);
  }
  /// Reads every line of the array once, in order.
  void walk(VirtAddr base, std::uint64_t pages) {
    for (std::uint64_t i = 0; i < pages; ++i) {
      const PhysAddr page = address_of(base + to_bytes(PageCount{i}));
      for (std::uint64_t offset = 0; offset < kPageSize; offset += 64) {
        const std::uint64_t line = cache_.line_of(PhysAddr{page.value() + offset});
        classes_.access(line, cache_.access(line, false).hit);
      }
    }
  }
  void reset_counts() {
    cache_.reset_counts();
    classes_.reset_counts();
  }
  [[nodiscard]] const CacheCounts& counts() const { return cache_.counts(); }
  [[nodiscard]] const MissClasses::Counts& classes() const { return classes_.counts(); }
  [[nodiscard]] SoftEngine& engine() { return engine_; }

 private:
  static SoftEngineOptions engine_options(const ColourRigOptions& o) {
    SoftEngineOptions e;
    e.machine.memory.frames = PageCount{o.frames};
    e.modes.set(o.order);
    e.tunables.colour_cache = o.cache.bytes;
    return e;
  }
  /// Takes all, and gives an eighth of it back in random order.
  void fragment(std::uint64_t seed) {
    VmPhys& phys = engine_.system().free_frames();
    model::Random random(seed);
    others_.resize(phys.free_count());
    others_.resize(phys.allocate(others_));
    for (std::size_t i = others_.size(); i > 1; --i) std::swap(others_[i - 1], others_[random.below(i)]);
    const std::size_t kept = others_.size() / 8 * 7;
    for (std::size_t i = kept; i < others_.size(); ++i) phys.free({&others_[i], 1});
    others_.resize(kept);
  }
  PhysAddr address_of(VirtAddr va) {
    const std::byte* const start = engine_.machine().pmaps().bytes_of(FrameNumber{0});
    std::uint64_t at = 0;
    const FaultResult result = engine_.machine().touch(
        *map_, va, Access::kWrite, [&](std::byte* p) { at = static_cast<std::uint64_t>(p - start); });
    CHECK(result == FaultResult::kResolved);
    return PhysAddr{at};
  }

  SoftEngine engine_;
  Cache cache_;
  MissClasses classes_;
  std::unique_ptr<VmMap> map_;
  std::vector<FrameNumber> others_;
};

}  // namespace enchilada::test
