// The deadlock that the article tells of FreeBSD 3.x: to free memory the page daemon needs memory. An engine
// with little room for swap metadata, in every form of these.
#include <gtest/gtest.h>

#include <cstring>

#include "machine/soft_engine.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kObjectPages = 512;
constexpr std::uint64_t kObjects = 100;

SoftEngineOptions small(SwapMetaMode mode) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{48};
  options.swap_metadata_bytes = std::size_t{160} << 10;
  options.modes.set(mode);
  return options;
}

/// One access; every fault that says "resolved" brings it nearer.
FaultResult touch(VmMap& map, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  auto& pmap = static_cast<SoftPmap&>(map.pmap());
  for (int i = 0; i < 100; ++i) {
    if (pmap.access(va, access, use)) return FaultResult::kResolved;
    const FaultResult result = vm_fault(map, va, access);
    if (result != FaultResult::kResolved) return result;
  }
  ADD_FAILURE() << "faults for ever";
  return FaultResult::kNotMapped;
}

/// A page at the end of each of many large objects: what 3.x could bear least. Returns how many could be
/// stored before memory ended, and checks that these are all still there.
std::uint64_t scattered_stores(SoftEngine& engine) {
  auto map = engine.create_map(PageCount{kObjects * (kObjectPages + 1)});
  std::vector<VirtAddr> pages;
  FaultResult result = FaultResult::kResolved;
  for (std::uint64_t i = 0; i < kObjects && result == FaultResult::kResolved; ++i) {
    VmMap::MapRequest request;
    request.length = to_bytes(PageCount{kObjectPages});
    request.placement = VmMap::MapRequest::Placement::kFixedExclusive;
    // A hole after each, so that they do not become one object.
    request.hint = map->bounds().start + to_bytes(PageCount{i * (kObjectPages + 1)});
    VirtAddr at{0};
    EXPECT_EQ(map->map(request, &at), KernReturn::kSuccess);
    const VirtAddr last = at + to_bytes(PageCount{kObjectPages - 1});
    result = touch(*map, last, Access::kWrite, [&](std::byte* bytes) { std::memcpy(bytes, &last, 8); });
    if (result == FaultResult::kResolved) pages.push_back(last);
  }
  if (result != FaultResult::kResolved) {
    EXPECT_EQ(result, FaultResult::kNoMemory) << "an error to the caller, not a hang";
  }
  for (const VirtAddr page : pages) {
    VirtAddr seen{0};
    const FaultResult read =
        touch(*map, page, Access::kRead, [&](std::byte* bytes) { std::memcpy(&seen, bytes, 8); });
    if (read == FaultResult::kNoMemory) continue;
    EXPECT_EQ(read, FaultResult::kResolved);
    EXPECT_EQ(seen, page);
  }
  return pages.size();
}

TEST(SwapMetadata, TheTrieAndTheHashFreeMemoryWithoutNeedingMuch) {
  for (const SwapMetaMode mode : {SwapMetaMode::kTrie, SwapMetaMode::kHash}) {
    SoftEngine engine(small(mode));
    EXPECT_EQ(scattered_stores(engine), kObjects) << name_of(mode);
    EXPECT_EQ(engine.pager().meta_stats().refused.load(), 0u) << name_of(mode);
  }
}

TEST(SwapMetadata, TheArrayNeedsMemoryToFreeMemoryAndThatEnds) {
  SoftEngine engine(small(SwapMetaMode::kArray3x));
  const std::uint64_t stored = scattered_stores(engine);
  EXPECT_LT(stored, kObjects) << "3.x's page daemon would wait for memory here, that is for itself";
  EXPECT_GE(stored, 40u) << "memory itself held that much";
  EXPECT_GT(engine.pager().meta_stats().refused.load(), 0u);
  EXPECT_GT(engine.pager().stats().no_metadata.load(), 0u);
  EXPECT_GT(engine.space().available().value(), 4000u) << "and swap is as good as empty";
}

TEST(SwapMetadata, MemoryThatIsGivenBackEndsTheShortage) {
  SoftEngine engine(small(SwapMetaMode::kArray3x));
  (void)scattered_stores(engine);  // whose map is gone now
  EXPECT_EQ(engine.pager().meta_entries(), 0u);
  EXPECT_GE(scattered_stores(engine), 40u);
}

}  // namespace
}  // namespace enchilada
