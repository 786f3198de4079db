// What the swap tests share: seeds that can be replayed, memory shared with forked children, byte-array
// frames.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "base/arena.h"
#include "support/mapped_memory.h"
#include "support/sanitized.h"
#include "swap/swap_pager.h"
#include "vm/phys.h"

namespace enchilada::swap_test {

/// How many rounds a random test runs: its own number (fewer under a sanitizer) times ENCHILADA_SOAK.
inline std::uint64_t rounds(std::uint64_t usual) {
  const char* factor = std::getenv("ENCHILADA_SOAK");
  const std::uint64_t here = test::usual_rounds(usual);
  return factor != nullptr ? here * std::strtoull(factor, nullptr, 0) : here;
}

/// Runs body(seed) for `rounds` seeds from `base`, or only for ENCHILADA_SEED when it is set. Stops at the
/// first seed that fails and prints it.
template <class Body>
void for_each_seed(std::uint64_t base, std::uint64_t rounds, Body body) {
  const char* replay = std::getenv("ENCHILADA_SEED");
  const std::uint64_t first = replay != nullptr ? std::strtoull(replay, nullptr, 0) : base;
  for (std::uint64_t seed = first; seed < first + (replay != nullptr ? 1 : rounds); ++seed) {
    SCOPED_TRACE(testing::Message() << "replay with ENCHILADA_SEED=" << seed);
    body(seed);
    if (testing::Test::HasFailure()) {
      std::fprintf(stderr, "failed: replay with ENCHILADA_SEED=%llu\n",
                   static_cast<unsigned long long>(seed));
      return;
    }
  }
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::uint64_t below(std::uint64_t n) { return engine_() % n; }
  std::uint64_t between(std::uint64_t from, std::uint64_t to) { return from + below(to - from + 1); }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::uint64_t bits() { return engine_(); }

 private:
  std::mt19937_64 engine_;
};

/// Memory that forked children share.
struct SharedMemory : test::MappedMemory {
  explicit SharedMemory(std::size_t bytes) : MappedMemory(bytes, MAP_SHARED) {}
};

/// Frames in one array.
class ArrayFrames final : public PhysicalMemory {
 public:
  explicit ArrayFrames(std::size_t frames) : memory_(frames * kPageSize), frames_(frames) {}
  [[nodiscard]] PageCount frame_limit() const override { return PageCount{frames_}; }
  PageCount grow(PageCount, FunctionRef<void(FrameRun)>) override { return PageCount{0}; }
  void retire(FrameRun) override {}
  void zero(FrameRun run) override { std::memset(at(run.first), 0, run.count.value() * kPageSize); }
  void copy(FrameNumber from, FrameNumber to) override { std::memcpy(at(to), at(from), kPageSize); }
  void with_frames(FrameRun run, Access, FunctionRef<void(std::byte*)> use) override { use(at(run.first)); }
  std::byte* at(FrameNumber f) { return memory_.data() + f.value() * kPageSize; }

 private:
  std::vector<std::byte> memory_;
  std::size_t frames_;
};

/// A complete swap: space, memory devices with faults, metadata, pager.
class Rig {
 public:
  struct Options {
    SwapGeometry geometry;
    std::size_t frames = 256;
    std::size_t metadata_bytes = 0;
    unsigned bounce_buffers = 4;
    unsigned async_looks = 0;
    unsigned holder = 0;
    SwapMetaMode meta_mode = SwapMetaMode::kTrie;
  };

  explicit Rig(const Options& options)
      : frames(options.frames),
        space_memory(SwapSpace::required_bytes(options.geometry)),
        arena_memory(std::size_t{64} << 20),
        arena(arena_memory.data(), arena_memory.span().size()) {
    if (!SwapSpace::create(space_memory.span(), options.geometry)) std::abort();
    space = SwapSpace::attach(space_memory.span(), options.holder, {});
    SwapDevice* devices[SwapGeometry::kMaxDevices] = {};
    for (unsigned i = 0; i < options.geometry.slots; ++i) {
      const std::size_t bytes = options.geometry.device_pages[i] * kPageSize;
      if (bytes == 0) continue;
      media.push_back(std::make_unique<SharedMemory>(bytes));
      disks.push_back(std::make_unique<MemorySwapDevice>(media.back()->span()));
      faults.push_back(std::make_unique<FaultInjectingSwapDevice>(*disks.back(), i + 1));
      devices[i] = faults.back().get();
      faults.back()->set_async(options.async_looks);
    }
    pager = std::make_unique<SwapPager>(SwapPagerConfig{.space = *space,
                                                        .holder = options.holder,
                                                        .devices = devices,
                                                        .phys = frames,
                                                        .counters = counters,
                                                        .arena = arena,
                                                        .seed = 42,
                                                        .bounce_buffers = options.bounce_buffers,
                                                        .metadata_bytes = options.metadata_bytes,
                                                        .meta_mode = options.meta_mode});
  }

  /// Fills a frame with a pattern of its own; pattern 0 is all zeros.
  void fill(FrameNumber frame, std::uint64_t pattern) {
    std::byte* bytes = frames.at(frame);
    std::memset(bytes, 0, kPageSize);
    for (std::size_t i = 0; pattern != 0 && i < kPageSize; i += 8) {
      const std::uint64_t word = pattern * 0x9e3779b97f4a7c15u + i;
      std::memcpy(bytes + i, &word, 8);
    }
  }
  [[nodiscard]] bool is(FrameNumber frame, std::uint64_t pattern) {
    const std::vector<std::byte> have(frames.at(frame), frames.at(frame) + kPageSize);
    fill(frame, pattern);
    const bool same = std::memcmp(have.data(), frames.at(frame), kPageSize) == 0;
    std::memcpy(frames.at(frame), have.data(), kPageSize);
    return same;
  }
  PagerReturn put_one(PagerHandle& handle, std::uint64_t index, std::uint64_t pattern) {
    const FrameNumber frame{0};
    fill(frame, pattern);
    PagerReturn verdict = PagerReturn::kBad;
    pager->put_pages(handle, PageIndex{index}, {&frame, 1}, {&verdict, 1});
    return verdict;
  }
  PagerReturn get_one(PagerHandle& handle, std::uint64_t index) {
    const FrameNumber frame{1};
    std::memset(frames.at(frame), 0xee, kPageSize);
    return pager->get_pages(handle, PageIndex{index}, {&frame, 1});
  }
  bool got(std::uint64_t pattern) { return is(FrameNumber{1}, pattern); }

  ArrayFrames frames;
  SharedMemory space_memory;
  test::MappedMemory arena_memory;
  Arena arena;
  VmCounters counters{};
  std::optional<SwapSpace> space;
  std::vector<std::unique_ptr<SharedMemory>> media;
  std::vector<std::unique_ptr<MemorySwapDevice>> disks;
  std::vector<std::unique_ptr<FaultInjectingSwapDevice>> faults;
  std::unique_ptr<SwapPager> pager;
};

inline constexpr SwapGeometry kOneDisk{.device_pages = {2048}, .slots = 1};

inline std::vector<FrameNumber> frames_from(std::uint32_t first, std::size_t n) {
  std::vector<FrameNumber> frames;
  for (std::size_t i = 0; i < n; ++i) frames.push_back(FrameNumber{first} + PageCount{i});
  return frames;
}

/// Fills frames from 0 on and puts them as pages from `first` on.
inline std::vector<PagerReturn> put(Rig& rig, PagerHandle& handle, std::uint64_t first,
                                    const std::vector<std::uint64_t>& patterns) {
  const auto frames = frames_from(0, patterns.size());
  for (std::size_t i = 0; i < patterns.size(); ++i) rig.fill(frames[i], patterns[i]);
  std::vector<PagerReturn> verdicts(patterns.size(), PagerReturn::kBad);
  rig.pager->put_pages(handle, PageIndex{first}, frames, verdicts);
  return verdicts;
}

}  // namespace enchilada::swap_test
