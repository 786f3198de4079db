// The map when the engine's metadata is used up: an operation that cannot be done has changed nothing, and
// what needs no memory (unmapping whole entries) still works and makes room.
#include <gtest/gtest.h>

#include "map_indexes.h"
#include "map_machine.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kBase = std::uint64_t{1} << 32;

VirtRange pages(std::uint64_t first, std::uint64_t count) {
  return {VirtAddr{kBase + first * kPageSize}, VirtAddr{kBase + (first + count) * kPageSize}};
}

struct Shape {
  std::vector<VirtRange> ranges;
  std::vector<Prot> prots;
  bool operator==(const Shape&) const = default;
};

class VmMapShortage : public testing::TestWithParam<test::NamedMapIndex> {
 protected:
  VmMapShortage() : machine(256, GetParam().make), map(VmMap::create(*machine.system, pages(0, 1 << 20))) {
    must(insert(0, 16));
    EXPECT_EQ(machine.store(*map, kBase + 5 * kPageSize, 55), FaultResult::kResolved);
    while (insert(100 + 2 * filled_, 1) == KernReturn::kSuccess) {
      if (++filled_ % 64 != 1) continue;
      while (machine.arena.allocate(1) !=
             nullptr) {  // after the first entry of a chunk: the slab has 63 left
      }
    }
  }
  static void must(KernReturn verdict) { ASSERT_EQ(verdict, KernReturn::kSuccess); }
  KernReturn insert(std::uint64_t first, std::uint64_t count) {
    VirtAddr at;
    return map->map({.length = ByteCount{count * kPageSize},
                     .hint = pages(first, 1).start,
                     .placement = VmMap::MapRequest::Placement::kFixedExclusive},
                    &at);
  }
  Shape shape() {
    Shape s;
    map->validate();
    map->for_each_entry([&](const VmMap::EntryView& e) {
      s.ranges.push_back(e.range);
      s.prots.push_back(e.prot);
    });
    return s;
  }

  test::MapMachine machine;
  std::unique_ptr<VmMap> map;
  std::uint64_t filled_ = 0;
};

INSTANTIATE_TEST_SUITE_P(EachIndex, VmMapShortage, testing::ValuesIn(test::all_map_indexes()),
                         test::name_of_index);

TEST_P(VmMapShortage, WhatCannotBeDoneChangesNothing) {
  const Shape before = shape();
  const auto refused = KernReturn::kResourceShortage;
  VirtAddr at;
  EXPECT_EQ(map->map({.length = ByteCount{kPageSize}}, &at), refused);
  EXPECT_EQ(map->map({.length = ByteCount{kPageSize},
                      .hint = pages(5, 1).start,
                      .placement = VmMap::MapRequest::Placement::kFixedReplace},
                     &at),
            refused);
  EXPECT_EQ(map->remove(pages(4, 4)), refused);
  EXPECT_EQ(map->protect(pages(4, 4), Prot::kRead), refused);
  EXPECT_EQ(map->advise(pages(4, 4), Advice::kRandom), refused);
  EXPECT_EQ(map->inherit(pages(4, 4), Inherit::kNone), refused);
  EXPECT_EQ(map->wire(pages(4, 4)), refused);
  EXPECT_EQ(map->unwire(pages(4, 4)), refused);
  EXPECT_EQ(map->remap(pages(0, 16), pages(50, 16), true), refused);
  EXPECT_EQ(map->remap(pages(0, 16), pages(50, 17), false), refused);
  EXPECT_EQ(map->remap(pages(0, 16), pages(0, 17), false), refused);
  EXPECT_EQ(map->remap(pages(4, 4), pages(50, 4), false), refused);
  EXPECT_EQ(map->fork(), nullptr);
  EXPECT_EQ(shape(), before);
  std::uint64_t value = 0;
  EXPECT_EQ(machine.load(*map, kBase + 5 * kPageSize, &value), FaultResult::kResolved);
  EXPECT_EQ(value, 55u);
}

TEST_P(VmMapShortage, WhatNeedsNoMemoryWorksAndMakesRoom) {
  EXPECT_EQ(map->protect(pages(0, 16), Prot::kRead), KernReturn::kSuccess);
  EXPECT_EQ(map->remap(pages(0, 16), pages(50, 16), false), KernReturn::kSuccess);
  EXPECT_EQ(map->advise(pages(50, 16), Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(map->remove(pages(100, 10)), KernReturn::kSuccess);
  EXPECT_EQ(map->protect(pages(54, 4), Prot::kReadWrite), KernReturn::kSuccess);
  map->validate();
}

TEST_P(VmMapShortage, DiscardOfSharedPagesIsRefusedWholly) {
  must(map->remove(pages(100, 2 * filled_)));
  auto child = map->fork();
  ASSERT_NE(child, nullptr);
  std::uint64_t n = 0;
  while (insert(100 + 2 * n, 1) == KernReturn::kSuccess) ++n;
  EXPECT_EQ(map->advise(pages(0, 16), Advice::kDiscard), KernReturn::kResourceShortage);
  std::uint64_t value = 0;
  EXPECT_EQ(machine.load(*map, kBase + 5 * kPageSize, &value), FaultResult::kResolved);
  EXPECT_EQ(value, 55u);
  must(map->remove(pages(100, 2 * n)));
  EXPECT_EQ(map->advise(pages(0, 16), Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(machine.load(*map, kBase + 5 * kPageSize, &value), FaultResult::kResolved);
  EXPECT_EQ(value, 0u);
  EXPECT_EQ(machine.load(*child, kBase + 5 * kPageSize, &value), FaultResult::kResolved);
  EXPECT_EQ(value, 55u);
}

}  // namespace
}  // namespace enchilada
