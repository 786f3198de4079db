// A pmap system over frames of its own, and short names for what tests of the soft pmap do all the time.
// Invariant: a rig that goes finds every page table in order.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <vector>

#include "pmap/soft/soft_pmap.h"
#include "support/mapped_memory.h"

namespace enchilada::soft_rig {

inline constexpr std::uint64_t kFrames = 64;
inline constexpr std::uint64_t kLeafSpan = std::uint64_t{2} << 20;

struct CountingSink final : PageStateSink {
  explicit CountingSink(std::uint64_t frames) : modified(frames), referenced(frames) {}
  void note_modified(FrameNumber f) override { modified.at(f.value()).fetch_add(1); }
  void note_referenced(FrameNumber f) override { referenced.at(f.value()).fetch_add(1); }
  std::deque<std::atomic<int>> modified;
  std::deque<std::atomic<int>> referenced;
};

struct Soft {
  explicit Soft(const SoftPmapOptions& options = {}, std::uint64_t frames = kFrames,
                std::size_t arena_bytes = std::size_t{8} << 20)
      : arena_memory(arena_bytes),
        bytes(frames * kPageSize),
        arena(arena_memory.data(), arena_bytes),
        sink(frames),
        system(arena, bytes.data(), PageCount{frames}, options) {
    system.set_sink(sink);
    system.set_events(events);
  }
  ~Soft() {
    const char* const error = system.find_error();
    EXPECT_EQ(error, nullptr) << error;
  }
  std::unique_ptr<SoftPmap> pmap() {
    return std::unique_ptr<SoftPmap>(static_cast<SoftPmap*>(system.create_pmap().release()));
  }
  /// What was decided so often.
  std::uint64_t decided(PmapEvent event) const { return system.decisions()[event]; }

  test::MappedMemory arena_memory;
  std::vector<std::byte> bytes;
  Arena arena;
  CountingSink sink;
  CountingPmapEvents events;
  SoftPmapSystem system;
};

inline VirtAddr page(std::uint64_t n) {
  return VirtAddr{n * kPageSize};
}
inline VirtRange pages(std::uint64_t first, std::uint64_t end) {
  return {page(first), page(end)};
}
inline FrameNumber frame(std::uint64_t n) {
  return FrameNumber{static_cast<std::uint32_t>(n)};
}

inline std::uint64_t enter(Pmap& p, VirtAddr va, FrameNumber f, Prot prot = Prot::kReadWrite,
                           Wiring wiring = Wiring::kNotWired) {
  return p.enter(va, std::span(&f, 1), prot, Access::kRead, wiring).value();
}
inline bool read(SoftPmap& p, VirtAddr va) {
  return p.access(va, Access::kRead, [](std::byte*) {});
}
inline bool write(SoftPmap& p, VirtAddr va, int value = 1) {
  return p.access(va, Access::kWrite, [=](std::byte* b) { *b = static_cast<std::byte>(value); });
}
inline void remove_all(Soft& s, FrameNumber f) {
  bool refused = true;
  s.system.remove_all(std::span(&f, 1), std::span(&refused, 1));
  EXPECT_FALSE(refused);
}

}  // namespace enchilada::soft_rig
