// Shared page tables: unshare before change, counts per table, shoot-downs that reach all sharers.
#include <set>

#include "soft_rig.h"

namespace enchilada {
namespace {

using namespace soft_rig;

struct InvalidationSink final : PmapEventSink {
  void note(PmapEvent, std::uint64_t) override {}
  void invalidated(std::span<const SpaceId> spaces, VirtRange) override {
    reached.insert(spaces.begin(), spaces.end());
  }
  std::set<SpaceId> reached;
};

SoftPmapOptions sharing(ForkTablesMode otherwise = ForkTablesMode::kCopy) {
  SoftPmapOptions options;
  options.modes.set(SharedTablesMode::kOn).set(otherwise);
  return options;
}

class SharedTables : public testing::Test {
 protected:
  Soft s_{sharing()};
  std::unique_ptr<SoftPmap> parent_ = s_.pmap();
  static constexpr VirtRange kAll{VirtAddr{0}, VirtAddr{x86::kAddressLimit}};

  void fill() {
    for (std::uint64_t i = 0; i < 40; ++i) {
      enter(*parent_, page(i), frame(i));
      ASSERT_TRUE(write(*parent_, page(i), static_cast<int>(i)));
    }
  }
  std::unique_ptr<SoftPmap> fork() {  // as the engine: write protection first
    auto child = s_.pmap();
    parent_->protect(kAll, Prot::kRead);
    child->copy_from(*parent_, kAll);
    return child;
  }
};

TEST_F(SharedTables, ForkCostsTablesNotEntries) {
  fill();
  const std::uint64_t writes = s_.events[PmapEvent::kPteWrite];
  const std::uint64_t flushes = s_.events[PmapEvent::kShootdown];
  auto child = fork();
  EXPECT_EQ(s_.decided(PmapEvent::kForkShared), 1u);
  EXPECT_EQ(child->mappings(), 40u);
  EXPECT_EQ(s_.system.pv_entries(), 40u) << "an entry stands for both";
  EXPECT_LE(s_.events[PmapEvent::kPteWrite] - writes, 5u) << "the way down and the two entries above";
  EXPECT_EQ(s_.events[PmapEvent::kShootdown] - flushes, 1u) << "one flush";
  using MapCount = SoftPmapSystem::MapCount;
  EXPECT_EQ(s_.system.mapcount(frame(3), MapCount::kEntries), 1u);
  EXPECT_EQ(s_.system.mapcount(frame(3), MapCount::kSharers), 2u);
  int seen = 0;
  EXPECT_TRUE(child->access(page(7), Access::kRead, [&](std::byte* b) { seen = static_cast<int>(*b); }));
  EXPECT_EQ(seen, 7);
  EXPECT_FALSE(write(*child, page(7)));
  EXPECT_FALSE(write(*parent_, page(7)));
}

TEST_F(SharedTables, TheFirstWriteUnsharesAndOnlyItsOwnSide) {
  fill();
  auto child = fork();
  ASSERT_EQ(enter(*child, page(7), frame(50)), 1u);  // its copy of the page
  EXPECT_TRUE(write(*child, page(7), 99));
  EXPECT_EQ(s_.decided(PmapEvent::kTableUnshared), 1u);
  EXPECT_EQ(s_.system.pv_entries(), 80u);
  int seen = 0;
  EXPECT_TRUE(parent_->access(page(7), Access::kRead, [&](std::byte* b) { seen = static_cast<int>(*b); }));
  EXPECT_EQ(seen, 7);
  EXPECT_FALSE(write(*child, page(8))) << "copies are read-only";
  EXPECT_FALSE(write(*parent_, page(8))) << "what was protected before the fork stays so";
  ASSERT_EQ(enter(*parent_, page(8), frame(51)), 1u);
  EXPECT_EQ(s_.decided(PmapEvent::kTableUnshared), 1u) << "the last user needs no copy";
  EXPECT_EQ(s_.decided(PmapEvent::kTablePushedDown), 1u);
  EXPECT_TRUE(write(*parent_, page(8)));
  EXPECT_FALSE(write(*parent_, page(9)));
  for (std::uint64_t i = 0; i < 40; ++i) {
    EXPECT_TRUE(s_.sink.modified[i] != 0 || s_.system.is_modified(frame(i))) << "dirty bit lost";
  }
}

TEST_F(SharedTables, UnmappingAFrameReachesAllSharers) {
  fill();
  auto a = fork();
  auto b = fork();
  auto stranger = s_.pmap();
  enter(*stranger, page(0), frame(60));
  InvalidationSink sink;
  s_.system.set_events(sink);
  remove_all(s_, frame(5));
  s_.system.set_events(s_.events);
  EXPECT_EQ(sink.reached, (std::set<SpaceId>{parent_->id(), a->id(), b->id()}));
  EXPECT_FALSE(read(*parent_, page(5)));
  EXPECT_FALSE(read(*a, page(5)));
  EXPECT_EQ(a->mappings(), 39u);
  EXPECT_EQ(s_.decided(PmapEvent::kTableUnshared), 0u) << "all lose it: no copy needed";
  EXPECT_TRUE(read(*b, page(6)));
}

TEST_F(SharedTables, RemovingAPartUnsharesRemovingAllOnlyLetsGo) {
  fill();
  auto a = fork();
  auto b = fork();
  a->remove(pages(10, 20));
  EXPECT_EQ(s_.decided(PmapEvent::kTableUnshared), 1u);
  EXPECT_EQ(a->mappings(), 30u);
  EXPECT_EQ(b->mappings(), 40u);
  EXPECT_TRUE(read(*parent_, page(15)));
  b->remove(pages(0, 512));
  EXPECT_EQ(s_.decided(PmapEvent::kTableDetached), 1u);
  EXPECT_EQ(b->tables(), 0u);
  EXPECT_EQ(parent_->mappings(), 40u);
  b.reset();
  a.reset();
  EXPECT_EQ(s_.system.find_error(), nullptr);
}

TEST_F(SharedTables, WhatTheChildDoesNotInheritIsNotShared) {
  fill();
  enter(*parent_, page(600), frame(41));
  auto child = s_.pmap();
  parent_->protect(pages(0, 30), Prot::kRead);
  child->copy_from(*parent_, pages(0, 30));     // 30..39 lie in the same table
  child->copy_from(*parent_, pages(512, 700));  // the whole of another
  EXPECT_EQ(s_.decided(PmapEvent::kForkNotShared), 1u);
  EXPECT_EQ(s_.decided(PmapEvent::kForkShared), 1u);
  EXPECT_EQ(s_.decided(PmapEvent::kForkCopied), 30u) << "the other way: entry by entry";
  EXPECT_FALSE(read(*child, page(35)));
  EXPECT_TRUE(read(*child, page(600)));
  EXPECT_TRUE(write(*parent_, page(35)));
}

TEST_F(SharedTables, WiredTablesAreNotShared) {
  fill();
  enter(*parent_, page(1), frame(1), Prot::kReadWrite, Wiring::kWired);
  auto child = fork();
  EXPECT_EQ(s_.decided(PmapEvent::kForkShared), 0u);
  child->throw_away();
  EXPECT_TRUE(read(*parent_, page(1)));
  EXPECT_FALSE(read(*child, page(1)));
}

TEST_F(SharedTables, OutOfTablesASharerLetsGo) {
  SoftPmapOptions options = sharing();
  options.table_pages = PageCount{7};  // four for the parent, three above the child's
  Soft s(options);
  auto p = s.pmap();
  auto c = s.pmap();
  for (std::uint64_t i = 0; i < 10; ++i) enter(*p, page(i), frame(i));
  c->copy_from(*p, kAll);
  ASSERT_EQ(c->mappings(), 10u);
  // No page for a copy: the child drops the shared table, and then takes one from the family.
  ASSERT_EQ(enter(*c, page(3), frame(30)), 1u);
  EXPECT_TRUE(write(*c, page(3)));
  EXPECT_GT(s.decided(PmapEvent::kTableDetached), 0u);
}

TEST_F(SharedTables, AFamilyOf64IsFullAndTheNextGoesTheOtherWay) {
  fill();
  std::vector<std::unique_ptr<SoftPmap>> children;
  for (int i = 0; i < 70; ++i) children.push_back(fork());
  EXPECT_EQ(s_.decided(PmapEvent::kForkShared), 63u);
  EXPECT_EQ(s_.decided(PmapEvent::kForkCopied), 7u * 40);
  EXPECT_EQ(s_.system.find_error(), nullptr);
  EXPECT_TRUE(read(*children[69], page(3)));
  children.erase(children.begin(), children.begin() + 10);
  children.push_back(fork());
  EXPECT_EQ(s_.decided(PmapEvent::kForkShared), 64u) << "there is room again";
}

TEST_F(SharedTables, GrandchildrenShareToo) {
  fill();
  auto child = fork();
  auto grandchild = s_.pmap();
  child->protect(kAll, Prot::kRead);
  grandchild->copy_from(*child, kAll);
  parent_.reset();
  child.reset();
  EXPECT_TRUE(read(*grandchild, page(20)));
  EXPECT_EQ(grandchild->mappings(), 40u);
  EXPECT_EQ(s_.system.pv_entries(), 40u);
}

}  // namespace
}  // namespace enchilada
