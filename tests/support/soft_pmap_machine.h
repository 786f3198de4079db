// A soft machine without an engine, as the pmap conformance suite and the pmap's own tests want it.
// Invariant: Options decides how the machine is limited; the tests do not know.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>

#include "machine/soft_memory.h"
#include "pmap/soft/soft_pmap.h"
#include "support/pmap_conformance.h"

namespace enchilada {

/// Zeroed, page-aligned memory for a test.
class PageBlock {
 public:
  explicit PageBlock(std::size_t bytes)
      : memory_(static_cast<std::byte*>(std::aligned_alloc(kPageSize, bytes))) {
    std::memset(memory_, 0, bytes);
  }
  ~PageBlock() { std::free(memory_); }
  PageBlock(const PageBlock&) = delete;
  PageBlock& operator=(const PageBlock&) = delete;
  [[nodiscard]] std::byte* get() const { return memory_; }

 private:
  std::byte* memory_;
};

/// Options: a struct with `static SoftPmapOptions pmap()` and `static void memory(SoftMemoryOptions&)`.
template <class Options>
class SoftPmapMachine {
 public:
  explicit SoftPmapMachine(PageCount frames)
      : frames_(2 * frames.value() * kPageSize),
        arena_block_(kArenaBytes),
        arena_(arena_block_.get(), kArenaBytes),
        memory_(arena_, frames_.get(), memory_options(PageCount{2 * frames.value()})),
        pmaps_(arena_, frames_.get(), memory_.frame_limit(), Options::pmap()) {}
  ~SoftPmapMachine() {
    const char* const error = pmaps_.find_error();
    EXPECT_EQ(error, nullptr) << error;
  }

  SoftPmapSystem& pmaps() { return pmaps_; }
  SoftMemory& phys() { return memory_; }
  TestSpace create_space(PageCount pages) {
    // Across the border of two leaf tables, at the far end of the address space.
    const VirtAddr start{(std::uint64_t{1} << 47) - (std::uint64_t{2} << 20) - 3 * kPageSize};
    return {pmaps_.create_pmap(), {start, start + to_bytes(pages)}};
  }
  bool load(Pmap& pmap, VirtAddr va, std::uint8_t* value) {
    return static_cast<SoftPmap&>(pmap).access(va, Access::kRead,
                                               [&](std::byte* p) { *value = static_cast<std::uint8_t>(*p); });
  }
  bool store(Pmap& pmap, VirtAddr va, std::uint8_t value) {
    return static_cast<SoftPmap&>(pmap).access(va, Access::kWrite,
                                               [&](std::byte* p) { *p = static_cast<std::byte>(value); });
  }
  void pin(FrameNumber frame) { pmaps_.pin(frame); }
  void unpin(FrameNumber frame) { pmaps_.unpin(frame); }

 private:
  static constexpr std::size_t kArenaBytes = std::size_t{8} << 20;
  static SoftMemoryOptions memory_options(PageCount frames) {
    SoftMemoryOptions options;
    options.frames = frames;
    Options::memory(options);
    return options;
  }

  PageBlock frames_;
  PageBlock arena_block_;
  Arena arena_;
  SoftMemory memory_;
  SoftPmapSystem pmaps_;
};

}  // namespace enchilada
