// The operations of VmMap, one by one: every verdict, clip and merge, space, fork by inheritance, remap,
// advice.
#include "vm/vm_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "map_machine.h"
#include "vm/vm_map_entry.h"

namespace enchilada {
namespace {

using Placement = VmMap::MapRequest::Placement;
constexpr std::uint64_t kPage = kPageSize;
constexpr std::uint64_t kBase = std::uint64_t{1} << 32;
constexpr std::uint64_t kTiB = std::uint64_t{1} << 40;

VirtRange pages(std::uint64_t first, std::uint64_t count) {
  return {VirtAddr{kBase + first * kPage}, VirtAddr{kBase + (first + count) * kPage}};
}
std::uint64_t address(std::uint64_t page) {
  return kBase + page * kPage;
}

class VmMapTest : public testing::Test {
 protected:
  VmMapTest() : map(VmMap::create(*machine.system, {VirtAddr{kBase}, VirtAddr{kBase + 16 * kTiB}})) {}

  KernReturn fixed(VirtRange range, VmMap::MapRequest request = {}) {
    request.length = range.size();
    request.hint = range.start;
    if (request.placement == Placement::kAnywhere) request.placement = Placement::kFixedExclusive;
    VirtAddr at;
    const KernReturn verdict = map->map(request, &at);
    map->validate();
    return verdict;
  }
  void must_map(VirtRange range, VmMap::MapRequest request = {}) {
    ASSERT_EQ(fixed(range, request), KernReturn::kSuccess);
  }
  std::vector<VmMap::EntryView> entries(VmMap& of) {
    std::vector<VmMap::EntryView> all;
    of.for_each_entry([&](const VmMap::EntryView& e) { all.push_back(e); });
    return all;
  }
  std::vector<VmMap::EntryView> entries() { return entries(*map); }
  std::uint64_t load(VmMap& of, std::uint64_t page) {
    std::uint64_t value = ~std::uint64_t{0};
    EXPECT_EQ(machine.load(of, address(page), &value), FaultResult::kResolved);
    return value;
  }
  std::uint64_t load(std::uint64_t page) { return load(*map, page); }
  void store(VmMap& of, std::uint64_t page, std::uint64_t value) {
    EXPECT_EQ(machine.store(of, address(page), value), FaultResult::kResolved);
  }
  void store(std::uint64_t page, std::uint64_t value) { store(*map, page, value); }
  /// Asks the map as a fault would, and lets go.
  KernReturn look(std::uint64_t page, Access access, MapLookup* found = nullptr) {
    MapLookup local;
    const KernReturn verdict =
        map->lookup(VirtAddr{address(page)}, access, found != nullptr ? found : &local);
    if (verdict == KernReturn::kSuccess) map->unlock_shared();
    return verdict;
  }

  test::MapMachine machine;
  std::unique_ptr<VmMap> map;
};

// --- mmap

TEST_F(VmMapTest, AnywhereTakesTheLowestFitAboveTheHint) {
  VirtAddr at;
  ASSERT_EQ(map->map({.length = ByteCount{3 * kPage}}, &at), KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{kBase});
  ASSERT_EQ(map->map({.length = ByteCount{kPage}, .hint = VirtAddr{address(10)}}, &at), KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{address(10)});
  ASSERT_EQ(map->map({.length = ByteCount{7 * kPage}}, &at), KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{address(3)});
  ASSERT_EQ(map->map({.length = ByteCount{1}, .hint = VirtAddr{address(1)}}, &at), KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{address(11)});  // rounded up to a page
  ASSERT_EQ(map->map({.length = ByteCount{kPage}, .alignment = 64 * kPage}, &at), KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{address(64)});
  EXPECT_EQ(map->size(), ByteCount{13 * kPage});
  map->validate();
}

TEST_F(VmMapTest, WrongArguments) {
  VirtAddr at{7};
  const auto verdict = [&](VmMap::MapRequest r) { return map->map(r, &at); };
  const ByteCount page{kPage};
  EXPECT_EQ(verdict({.length = ByteCount{0}}), KernReturn::kInvalidArgument);
  EXPECT_EQ(verdict({.length = page, .alignment = kPage / 2}), KernReturn::kInvalidArgument);
  EXPECT_EQ(verdict({.length = page, .alignment = 3 * kPage}), KernReturn::kInvalidArgument);
  EXPECT_EQ(verdict({.length = page, .prot = Prot::kReadWrite, .max_prot = Prot::kRead}),
            KernReturn::kInvalidArgument);
  EXPECT_EQ(verdict({.length = ByteCount{17 * kTiB}}), KernReturn::kNoSpace);
  EXPECT_EQ(verdict({.length = ByteCount{~std::uint64_t{0}}}), KernReturn::kNoSpace);
  EXPECT_EQ(verdict({.length = page, .hint = VirtAddr{~std::uint64_t{0}}}), KernReturn::kNoSpace);
  const auto placed = Placement::kFixedReplace;
  EXPECT_EQ(verdict({.length = page, .hint = VirtAddr{kBase + 1}, .placement = placed}),
            KernReturn::kInvalidArgument);
  EXPECT_EQ(verdict({.length = page, .hint = VirtAddr{kBase - kPage}, .placement = placed}),
            KernReturn::kInvalidAddress);
  EXPECT_EQ(verdict({.length = ByteCount{kTiB}, .hint = VirtAddr{~kPageMask}, .placement = placed}),
            KernReturn::kInvalidAddress);
  EXPECT_EQ(at, VirtAddr{7});
  EXPECT_EQ(map->entry_count(), 0u);

  const VirtRange odd{VirtAddr{kBase + 1}, VirtAddr{kBase + kPage}};
  const VirtRange empty{VirtAddr{kBase}, VirtAddr{kBase}};
  const VirtRange backward{VirtAddr{kBase + kPage}, VirtAddr{kBase}};
  const VirtRange outside{VirtAddr{kBase - kPage}, VirtAddr{kBase + kPage}};
  for (const VirtRange bad : {odd, empty, backward, outside}) {
    const KernReturn expected = bad == outside ? KernReturn::kInvalidAddress : KernReturn::kInvalidArgument;
    EXPECT_EQ(map->remove(bad), expected);
    EXPECT_EQ(map->protect(bad, Prot::kRead), expected);
    EXPECT_EQ(map->inherit(bad, Inherit::kNone), expected);
    EXPECT_EQ(map->advise(bad, Advice::kDiscard), expected);
    EXPECT_EQ(map->wire(bad), expected);
    EXPECT_EQ(map->unwire(bad), expected);
    EXPECT_EQ(map->remap(bad, pages(100, 1), false), expected);
    EXPECT_EQ(map->remap(pages(100, 1), bad, false), expected);
  }
}

TEST_F(VmMapTest, FixedExclusiveRefusesAndReplaceCutsOut) {
  must_map(pages(0, 10));
  EXPECT_EQ(fixed(pages(9, 2)), KernReturn::kNoSpace);
  EXPECT_EQ(fixed(pages(5, 1)), KernReturn::kNoSpace);
  EXPECT_EQ(map->entry_count(), 1u);
  must_map(pages(4, 2), {.prot = Prot::kRead, .placement = Placement::kFixedReplace});
  ASSERT_EQ(map->entry_count(), 3u);
  EXPECT_EQ(entries()[1].range, pages(4, 2));
  must_map(pages(0, 20), {.placement = Placement::kFixedReplace});
  EXPECT_EQ(map->entry_count(), 1u);
  EXPECT_EQ(map->size(), ByteCount{20 * kPage});
}

TEST_F(VmMapTest, NeighboursBecomeOneEntry) {
  must_map(pages(0, 1));
  must_map(pages(2, 1));
  must_map(pages(1, 1));
  EXPECT_EQ(map->entry_count(), 1u);
  must_map(pages(3, 1), {.prot = Prot::kRead});
  EXPECT_EQ(map->entry_count(), 2u);
}

TEST_F(VmMapTest, ANewEntryGrowsTheObjectOfTheOneBefore) {
  must_map(pages(0, 2));
  store(0, 1);
  must_map(pages(2, 2));
  EXPECT_EQ(map->entry_count(), 1u);
  store(3, 4);
  EXPECT_EQ(machine.system->objects().live(), 1u);
  EXPECT_EQ(load(0), 1u);
  EXPECT_EQ(load(2), 0u);
  EXPECT_EQ(load(3), 4u);
}

TEST_F(VmMapTest, SparseTebibyteIsCheap) {
  must_map({VirtAddr{kBase}, VirtAddr{kBase + kTiB}});
  must_map({VirtAddr{kBase + 2 * kTiB}, VirtAddr{kBase + 15 * kTiB}});
  const std::size_t before = machine.arena.used();
  store(0, 1);
  EXPECT_EQ(machine.store(*map, kBase + kTiB - kPage, 2), FaultResult::kResolved);
  EXPECT_EQ(map->protect({VirtAddr{kBase + kTiB / 2}, VirtAddr{kBase + kTiB}}, Prot::kRead),
            KernReturn::kSuccess);
  EXPECT_EQ(map->protect({VirtAddr{kBase + kTiB / 2}, VirtAddr{kBase + kTiB}}, Prot::kReadWrite),
            KernReturn::kSuccess);
  EXPECT_EQ(map->entry_count(), 2u);
  EXPECT_EQ(map->remove({VirtAddr{kBase}, VirtAddr{kBase + 16 * kTiB}}), KernReturn::kSuccess);
  EXPECT_LT(machine.arena.used() - before, std::size_t{1} << 20);
  EXPECT_EQ(map->entry_count(), 0u);
  EXPECT_EQ(machine.system->objects().live(), 0u);
}

// --- munmap

TEST_F(VmMapTest, RemoveClipsBothEndsAndMindsNoHoles) {
  must_map(pages(0, 4));
  must_map(pages(6, 4));
  for (const std::uint64_t p : {0u, 1u, 2u, 3u, 6u, 7u, 8u, 9u}) store(p, 100 + p);
  EXPECT_EQ(map->remove(pages(2, 6)), KernReturn::kSuccess);
  map->validate();
  ASSERT_EQ(map->entry_count(), 2u);
  EXPECT_EQ(entries()[0].range, pages(0, 2));
  EXPECT_EQ(entries()[1].range, pages(8, 2));
  EXPECT_EQ(load(1), 101u);
  EXPECT_EQ(load(8), 108u);
  EXPECT_EQ(look(3, Access::kRead), KernReturn::kInvalidAddress);
  EXPECT_EQ(map->remove(pages(0, 100)), KernReturn::kSuccess);
  EXPECT_EQ(map->remove(pages(0, 100)), KernReturn::kSuccess);
  EXPECT_EQ(map->size(), ByteCount{0});
  EXPECT_EQ(machine.system->objects().live(), 0u);
}

TEST_F(VmMapTest, RemovingTheMiddleFreesItsPagesAtOnce) {
  must_map(pages(0, 64));
  for (std::uint64_t p = 0; p < 64; ++p) store(p, p);
  const auto resident = [&] {
    std::uint64_t n = 0;
    machine.system->objects().for_each([&](VmObject& o) { n += o.pages.count(); });
    return n;
  };
  ASSERT_EQ(resident(), 64u);
  EXPECT_EQ(map->remove(pages(16, 32)), KernReturn::kSuccess);
  EXPECT_EQ(resident(), 32u);
  must_map(pages(16, 32));
  for (std::uint64_t p = 16; p < 48; ++p) EXPECT_EQ(load(p), 0u);
  EXPECT_EQ(load(15), 15u);
  EXPECT_EQ(load(48), 48u);
}

// --- mprotect

TEST_F(VmMapTest, ProtectIsAllOrNothing) {
  must_map(pages(0, 2));
  must_map(pages(3, 2));
  EXPECT_EQ(map->protect(pages(0, 5), Prot::kRead), KernReturn::kInvalidAddress);
  EXPECT_EQ(map->entry_count(), 2u);
  EXPECT_EQ(entries()[0].prot, Prot::kReadWrite);
  must_map(pages(2, 1), {.prot = Prot::kRead, .max_prot = Prot::kRead});
  EXPECT_EQ(map->protect(pages(0, 5), Prot::kReadWrite), KernReturn::kProtectionFailure);
  EXPECT_EQ(map->protect(pages(1, 4), Prot::kWrite), KernReturn::kProtectionFailure);
  EXPECT_EQ(map->entry_count(), 3u);
  EXPECT_EQ(map->check_protection(pages(0, 5)), Prot::kRead);
  EXPECT_EQ(map->check_protection(pages(0, 2)), Prot::kReadWrite);
  EXPECT_EQ(map->check_protection(pages(0, 6)), Prot::kNone);
  EXPECT_EQ(map->protect(pages(0, 5), Prot::kRead), KernReturn::kSuccess);
  EXPECT_EQ(map->entry_count(), 3u);  // the maximum differs
  map->validate();
}

TEST_F(VmMapTest, ProtectTakesRightsAtOnceAndGivesThemLazily) {
  must_map(pages(0, 4));
  for (std::uint64_t p = 0; p < 4; ++p) store(p, p + 1);
  EXPECT_EQ(map->protect(pages(1, 2), Prot::kRead), KernReturn::kSuccess);
  EXPECT_EQ(machine.store(*map, address(1), 9), FaultResult::kProtection);
  EXPECT_EQ(load(1), 2u);
  EXPECT_EQ(map->protect(pages(1, 2), Prot::kNone), KernReturn::kSuccess);
  std::uint64_t value;
  EXPECT_EQ(machine.load(*map, address(2), &value), FaultResult::kProtection);
  const std::uint64_t calls = machine.pmaps.calls;
  EXPECT_EQ(map->protect(pages(0, 4), Prot::kReadWrite), KernReturn::kSuccess);
  EXPECT_EQ(machine.pmaps.calls, calls);
  EXPECT_EQ(map->entry_count(), 1u);
  for (std::uint64_t p = 0; p < 4; ++p) EXPECT_EQ(load(p), p + 1);  // kept through kNone
  store(2, 7);
  EXPECT_EQ(load(2), 7u);
}

TEST_F(VmMapTest, WritableAloneIsReadableToo) {
  must_map(pages(0, 1), {.prot = Prot::kWrite});
  store(0, 5);
  EXPECT_EQ(load(0), 5u);
  EXPECT_EQ(map->protect(pages(0, 1), Prot::kExecute), KernReturn::kSuccess);
  EXPECT_EQ(load(0), 5u);
  EXPECT_EQ(machine.store(*map, address(0), 1), FaultResult::kProtection);
}

void protect_each(VmMap& map, const std::vector<std::uint64_t>& order, Prot prot) {
  for (const std::uint64_t p : order) ASSERT_EQ(map.protect(pages(p, 1), prot), KernReturn::kSuccess);
}

TEST_F(VmMapTest, PageByPageForthAndBackEndsInOneEntry) {
  constexpr std::uint64_t kCount = 10000;
  for (const bool touched : {false, true}) {
    for (const bool shuffled : {false, true}) {
      must_map(pages(0, kCount), {.placement = Placement::kFixedReplace});
      if (touched) store(5000, 42);
      std::vector<std::uint64_t> order(kCount);
      std::iota(order.begin(), order.end(), 0);
      if (shuffled) std::shuffle(order.begin(), order.end(), std::mt19937_64(7));
      protect_each(*map, order, Prot::kRead);
      EXPECT_EQ(map->entry_count(), 1u);
      map->validate();
      std::vector<std::uint64_t> odd;
      for (const std::uint64_t p : order) {
        if (p % 2 == 1) odd.push_back(p);
      }
      protect_each(*map, odd, Prot::kNone);
      EXPECT_EQ(map->entry_count(), kCount);
      map->validate();
      std::shuffle(odd.begin(), odd.end(), std::mt19937_64(8));
      protect_each(*map, odd, Prot::kRead);
      EXPECT_EQ(map->entry_count(), 1u);
      EXPECT_LE(machine.system->objects().live(), 1u);
      if (touched) {
        EXPECT_EQ(load(5000), 42u);
      }
    }
  }
}

TEST_F(VmMapTest, GuardsAndForeignEntriesOccupyAddressesAndNothingElse) {
  must_map(pages(0, 2));
  must_map(pages(2, 1), {.kind = EntryKind::kGuard});
  must_map(pages(3, 1), {.kind = EntryKind::kForeign});
  must_map(pages(4, 1));
  EXPECT_EQ(map->size(), ByteCount{4 * kPage});
  EXPECT_EQ(map->protect(pages(0, 5), Prot::kNone), KernReturn::kSuccess);
  EXPECT_EQ(map->protect(pages(0, 5), Prot::kReadWrite), KernReturn::kSuccess);
  EXPECT_EQ(map->inherit(pages(0, 5), Inherit::kZero), KernReturn::kSuccess);
  EXPECT_EQ(map->advise(pages(0, 5), Advice::kRandom), KernReturn::kSuccess);
  EXPECT_EQ(map->advise(pages(0, 5), Advice::kDiscard), KernReturn::kSuccess);
  map->validate();
  const auto all = entries();
  ASSERT_EQ(all.size(), 4u);
  EXPECT_EQ(all[1].prot, Prot::kNone);
  EXPECT_EQ(all[1].inherit, Inherit::kCopy);
  EXPECT_EQ(all[2].advice, Advice::kNormal);
  EXPECT_EQ(look(2, Access::kRead), KernReturn::kInvalidAddress);
  EXPECT_EQ(look(3, Access::kRead), KernReturn::kInvalidAddress);
  EXPECT_EQ(map->wire(pages(2, 1)), KernReturn::kInvalidAddress);
  EXPECT_EQ(map->wire(pages(3, 1)), KernReturn::kSuccess);  // the machine's own: its affair
  EXPECT_EQ(map->remap(pages(3, 1), pages(20, 1), false), KernReturn::kInvalidArgument);
  EXPECT_EQ(map->remap(pages(2, 1), pages(20, 1), false), KernReturn::kSuccess);
  EXPECT_TRUE(map->is_free(pages(2, 1)));
  EXPECT_FALSE(map->is_covered(pages(0, 5)));
  map->validate();
}

// --- lookup

TEST_F(VmMapTest, LookupMakesTheObjectAndSaysWhatAFaultNeeds) {
  must_map(pages(4, 8), {.prot = Prot::kRead});
  EXPECT_EQ(map->advise(pages(4, 8), Advice::kSequential), KernReturn::kSuccess);
  EXPECT_EQ(look(6, Access::kWrite), KernReturn::kProtectionFailure);
  EXPECT_EQ(look(3, Access::kRead), KernReturn::kInvalidAddress);
  EXPECT_EQ(look(12, Access::kRead), KernReturn::kInvalidAddress);
  MapLookup found;
  ASSERT_EQ(look(6, Access::kRead, &found), KernReturn::kSuccess);
  ASSERT_NE(found.object, nullptr);
  EXPECT_EQ(found.index, PageIndex{2});
  EXPECT_EQ(found.prot, Prot::kRead);
  EXPECT_EQ(found.entry_range, pages(4, 8));
  EXPECT_EQ(found.entry_first_index, PageIndex{0});
  EXPECT_EQ(found.advice, Advice::kSequential);
  EXPECT_FALSE(found.wired);
  EXPECT_EQ(found.timestamp, map->timestamp());
  EXPECT_TRUE(map->relock_if_unchanged(found.timestamp));
  map->unlock_shared();
  ASSERT_EQ(map->advise(pages(4, 1), Advice::kRandom), KernReturn::kSuccess);
  EXPECT_FALSE(map->relock_if_unchanged(found.timestamp));
}

// --- fork

TEST_F(VmMapTest, ForkByInheritance) {
  must_map(pages(0, 2));
  must_map(pages(2, 2), {.inherit = Inherit::kShare});
  must_map(pages(4, 2), {.inherit = Inherit::kNone});
  must_map(pages(6, 2), {.inherit = Inherit::kZero});
  must_map(pages(8, 1), {.kind = EntryKind::kGuard});
  must_map(pages(9, 1), {.kind = EntryKind::kForeign});
  for (std::uint64_t p = 0; p < 8; ++p) store(p, 10 + p);
  const std::size_t objects = machine.system->objects().live();
  auto child = map->fork();
  ASSERT_NE(child, nullptr);
  child->validate();
  map->validate();
  EXPECT_EQ(machine.system->objects().live(), objects);  // lazily: fork makes no object
  const auto theirs = entries(*child);
  ASSERT_EQ(theirs.size(), 5u);
  EXPECT_TRUE(theirs[0].needs_copy);
  EXPECT_FALSE(theirs[1].needs_copy);
  EXPECT_EQ(theirs[2].object, nullptr);
  EXPECT_EQ(theirs[3].kind, EntryKind::kGuard);
  EXPECT_EQ(theirs[4].kind, EntryKind::kForeign);
  store(0, 100);
  store(*child, 1, 101);
  store(2, 102);
  store(*child, 3, 103);
  EXPECT_EQ(load(*child, 0), 10u);
  EXPECT_EQ(load(1), 11u);
  EXPECT_EQ(load(*child, 2), 102u);
  EXPECT_EQ(load(3), 103u);
  EXPECT_EQ(load(*child, 6), 0u);
  EXPECT_EQ(load(6), 16u);
  std::uint64_t value;
  EXPECT_EQ(machine.load(*child, address(4), &value), FaultResult::kNotMapped);
  child.reset();
  EXPECT_EQ(load(0), 100u);
  EXPECT_EQ(load(1), 11u);
  map->validate();
}

TEST_F(VmMapTest, ForkOfUntouchedMemoryMakesNothingAndCopiesNothing) {
  must_map(pages(0, 1000));
  auto child = map->fork();
  ASSERT_NE(child, nullptr);
  EXPECT_EQ(machine.system->objects().live(), 0u);
  EXPECT_FALSE(entries(*child)[0].needs_copy);
  store(0, 1);
  EXPECT_EQ(load(*child, 0), 0u);
}

TEST_F(VmMapTest, SharingAfterACopyOnWriteForkSharesTheShadow) {
  must_map(pages(0, 4));
  for (std::uint64_t p = 0; p < 4; ++p) store(p, p);
  auto first = map->fork();
  ASSERT_EQ(map->inherit(pages(0, 4), Inherit::kShare), KernReturn::kSuccess);
  auto second = map->fork();
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(load(*second, 1), 1u);
  store(1, 11);
  store(*second, 2, 22);
  EXPECT_EQ(load(*second, 1), 11u);
  EXPECT_EQ(load(2), 22u);
  EXPECT_EQ(load(*first, 1), 1u);
  EXPECT_EQ(load(*first, 2), 2u);
}

TEST_F(VmMapTest, WiredWritableMemoryIsCopiedAtForkAndStaysThePagesItWas) {
  must_map(pages(0, 4));
  for (std::uint64_t p = 0; p < 4; ++p) store(p, p + 1);
  ASSERT_EQ(map->wire(pages(0, 4)), KernReturn::kSuccess);
  MapLookup before;
  ASSERT_EQ(look(0, Access::kWrite, &before), KernReturn::kSuccess);
  auto child = map->fork();
  ASSERT_NE(child, nullptr);
  MapLookup after;
  ASSERT_EQ(look(0, Access::kWrite, &after), KernReturn::kSuccess);
  EXPECT_EQ(before.object, after.object);
  EXPECT_EQ(entries(*child)[0].wired_count, 0u);
  store(0, 100);
  store(*child, 1, 101);
  EXPECT_EQ(load(*child, 0), 1u);
  EXPECT_EQ(load(1), 2u);
  EXPECT_EQ(load(*child, 2), 3u);
  machine.system->validate();
}

// --- remap

TEST_F(VmMapTest, RemapMovesContentsAndGrows) {
  must_map(pages(0, 4));
  for (std::uint64_t p = 0; p < 4; ++p) store(p, p + 1);
  ASSERT_EQ(map->protect(pages(1, 1), Prot::kRead), KernReturn::kSuccess);
  must_map(pages(102, 10), {.inherit = Inherit::kNone});  // replaced
  ASSERT_EQ(map->remap(pages(0, 4), pages(100, 6), false), KernReturn::kSuccess);
  map->validate();
  EXPECT_TRUE(map->is_free(pages(0, 4)));
  EXPECT_EQ(map->check_protection(pages(101, 1)), Prot::kRead);
  for (std::uint64_t p = 0; p < 4; ++p) EXPECT_EQ(load(100 + p), p + 1);
  EXPECT_EQ(load(105), 0u);
  store(105, 6);
  ASSERT_EQ(map->remap(pages(100, 6), pages(0, 6), true), KernReturn::kSuccess);
  map->validate();
  EXPECT_EQ(load(105), 0u);
  EXPECT_EQ(load(5), 6u);
  EXPECT_EQ(load(0), 1u);
  EXPECT_EQ(load(100), 0u);
}

TEST_F(VmMapTest, RemapEdges) {
  must_map(pages(0, 4));
  store(3, 33);
  EXPECT_EQ(map->remap(pages(0, 5), pages(100, 5), false), KernReturn::kInvalidAddress);
  EXPECT_EQ(map->remap(pages(0, 4), pages(100, 3), false), KernReturn::kInvalidArgument);
  EXPECT_EQ(map->remap(pages(0, 4), pages(2, 4), false), KernReturn::kInvalidArgument);
  EXPECT_EQ(map->remap(pages(0, 4), pages(0, 4), true), KernReturn::kInvalidArgument);
  EXPECT_EQ(map->remap(pages(0, 4), pages(0, 4), false), KernReturn::kSuccess);
  must_map(pages(6, 1));
  EXPECT_EQ(map->remap(pages(0, 4), pages(0, 7), false), KernReturn::kNoSpace);
  EXPECT_EQ(map->remap(pages(2, 2), pages(2, 4), false), KernReturn::kSuccess);
  map->validate();
  EXPECT_TRUE(map->is_covered(pages(0, 7)));
  EXPECT_EQ(load(3), 33u);
  EXPECT_EQ(load(4), 0u);
}

TEST_F(VmMapTest, RemapAnywhereFindsAndMovesInOneStep) {
  must_map(pages(0, 4));
  must_map(pages(4, 1), {.kind = EntryKind::kGuard});
  store(2, 3);
  VirtAddr at{7};
  EXPECT_EQ(map->remap_anywhere(pages(0, 4), {.length = ByteCount{3 * kPage}}, false, &at),
            KernReturn::kInvalidArgument);
  EXPECT_EQ(map->remap_anywhere(pages(0, 4), {.length = ByteCount{17 * kTiB}}, false, &at),
            KernReturn::kNoSpace);
  EXPECT_EQ(map->remap_anywhere(pages(0, 6), {.length = ByteCount{8 * kPage}}, false, &at),
            KernReturn::kInvalidAddress);
  EXPECT_EQ(at, VirtAddr{7});
  ASSERT_EQ(
      map->remap_anywhere(pages(0, 4), {.length = ByteCount{6 * kPage}, .alignment = 8 * kPage}, false, &at),
      KernReturn::kSuccess);
  EXPECT_EQ(at, VirtAddr{address(8)});
  EXPECT_EQ(load(10), 3u);
  EXPECT_EQ(load(13), 0u);
  EXPECT_TRUE(map->is_free(pages(0, 4)));
  map->validate();
}

TEST_F(VmMapTest, APieceMovedAwayIsNotOverwrittenByGrowthOfWhatStayed) {
  must_map(pages(0, 8));
  for (std::uint64_t p = 0; p < 8; ++p) store(p, p + 1);
  ASSERT_EQ(map->remap(pages(4, 4), pages(100, 4), false), KernReturn::kSuccess);
  must_map(pages(4, 4));
  for (std::uint64_t p = 0; p < 4; ++p) {
    EXPECT_EQ(load(p), p + 1);
    EXPECT_EQ(load(4 + p), 0u);
    store(4 + p, 50);
    EXPECT_EQ(load(100 + p), p + 5);
  }
  ASSERT_EQ(map->remove(pages(4, 4)), KernReturn::kSuccess);
  ASSERT_EQ(map->remap(pages(100, 4), pages(4, 4), false), KernReturn::kSuccess);
  for (std::uint64_t p = 0; p < 8; ++p) EXPECT_EQ(load(p), p + 1);
  map->validate();
}

// --- madvise

TEST_F(VmMapTest, AdviceClipsAndMerges) {
  must_map(pages(0, 10));
  EXPECT_EQ(map->advise(pages(3, 4), Advice::kRandom), KernReturn::kSuccess);
  EXPECT_EQ(map->entry_count(), 3u);
  EXPECT_EQ(map->advise(pages(0, 12), Advice::kRandom), KernReturn::kSuccess);  // the hole does not matter
  EXPECT_EQ(map->entry_count(), 1u);
  EXPECT_EQ(map->advise(pages(0, 10), Advice::kNormal), KernReturn::kSuccess);
  for (const Advice a : {Advice::kWillNeed, Advice::kDontNeed, Advice::kFree}) {
    EXPECT_EQ(map->advise(pages(0, 10), a), KernReturn::kSuccess);
  }
  map->validate();
}

TEST_F(VmMapTest, DontNeedKeepsContents) {
  must_map(pages(0, 8));
  for (std::uint64_t p = 0; p < 8; ++p) store(p, p + 1);
  EXPECT_EQ(map->advise(pages(2, 4), Advice::kDontNeed), KernReturn::kSuccess);
  for (std::uint64_t p = 0; p < 8; ++p) EXPECT_EQ(load(p), p + 1);
}

TEST_F(VmMapTest, WillNeedBringsBackWhatWasPagedOut) {
  must_map(pages(0, 32));
  for (std::uint64_t p = 0; p < 32; ++p) store(p, p + 1);
  ASSERT_EQ(map->advise(pages(0, 32), Advice::kDontNeed), KernReturn::kSuccess);
  const auto resident = [&] {
    std::uint64_t n = 0;
    machine.system->objects().for_each([&](VmObject& o) { n += o.pages.count(); });
    return n;
  };
  ASSERT_EQ(resident(), 0u);
  ASSERT_EQ(map->advise(pages(8, 16), Advice::kWillNeed), KernReturn::kSuccess);
  EXPECT_GE(resident(), 16u);
  for (std::uint64_t p = 0; p < 32; ++p) EXPECT_EQ(load(p), p + 1);
}

TEST_F(VmMapTest, DiscardOfPrivateMemoryKeepsTheEntryWhole) {
  must_map(pages(0, 8));
  for (std::uint64_t p = 0; p < 8; ++p) store(p, p + 1);
  EXPECT_EQ(map->advise(pages(2, 4), Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(map->entry_count(), 1u);
  for (std::uint64_t p = 0; p < 8; ++p) EXPECT_EQ(load(p), p >= 2 && p < 6 ? 0 : p + 1);
}

TEST_F(VmMapTest, DiscardAfterForkIsSeenByThisSideOnly) {
  must_map(pages(0, 8));
  for (std::uint64_t p = 0; p < 8; ++p) store(p, p + 1);
  auto child = map->fork();
  store(3, 33);  // the parent has a shadow now
  EXPECT_EQ(map->advise(pages(2, 4), Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(child->advise(pages(0, 1), Advice::kDiscard), KernReturn::kSuccess);
  map->validate();
  child->validate();
  for (std::uint64_t p = 0; p < 8; ++p) {
    EXPECT_EQ(load(p), p >= 2 && p < 6 ? 0 : p + 1);
    EXPECT_EQ(load(*child, p), p == 0 ? 0 : p + 1);
  }
}

TEST_F(VmMapTest, DiscardOfSharedMemoryDropsMappingsOnly) {
  must_map(pages(0, 2), {.inherit = Inherit::kShare});
  store(0, 1);
  auto child = map->fork();
  EXPECT_EQ(map->advise(pages(0, 2), Advice::kDiscard), KernReturn::kSuccess);
  EXPECT_EQ(load(0), 1u);
  EXPECT_EQ(load(*child, 0), 1u);
}

// --- mlock

TEST_F(VmMapTest, WireNestsForTheSystemAndNotForTheUser) {
  must_map(pages(0, 8));
  ASSERT_EQ(map->wire(pages(2, 4), WireKind::kUser), KernReturn::kSuccess);
  ASSERT_EQ(map->wire(pages(2, 4), WireKind::kUser), KernReturn::kSuccess);
  EXPECT_EQ(entries()[1].wired_count, 1u);
  ASSERT_EQ(map->wire(pages(4, 4), WireKind::kSystem), KernReturn::kSuccess);
  ASSERT_EQ(map->wire(pages(4, 1), WireKind::kSystem), KernReturn::kSuccess);
  map->validate();
  EXPECT_EQ(map->advise(pages(0, 8), Advice::kDiscard), KernReturn::kInvalidArgument);
  ASSERT_EQ(map->unwire(pages(0, 8), WireKind::kUser), KernReturn::kSuccess);
  ASSERT_EQ(map->unwire(pages(0, 8), WireKind::kSystem), KernReturn::kSuccess);
  ASSERT_EQ(entries().size(), 3u);
  EXPECT_EQ(entries()[1].range, pages(4, 1));
  EXPECT_EQ(entries()[1].wired_count, 1u);
  ASSERT_EQ(map->unwire(pages(4, 1), WireKind::kSystem), KernReturn::kSuccess);
  EXPECT_EQ(map->entry_count(), 1u);
  map->validate();
  machine.system->validate();
}

TEST_F(VmMapTest, WireIsAllOrNothing) {
  must_map(pages(0, 4));
  must_map(pages(5, 4));
  EXPECT_EQ(map->wire(pages(0, 9)), KernReturn::kInvalidAddress);
  ASSERT_EQ(map->protect(pages(2, 1), Prot::kNone), KernReturn::kSuccess);
  EXPECT_EQ(map->wire(pages(0, 4)), KernReturn::kInvalidAddress);
  for (const auto& e : entries()) EXPECT_EQ(e.wired_count, 0u);
  EXPECT_EQ(map->unwire(pages(0, 9)), KernReturn::kInvalidAddress);
  ASSERT_EQ(map->wire(pages(5, 4)), KernReturn::kSuccess);
  EXPECT_EQ(map->remove(pages(5, 2)), KernReturn::kSuccess);
  EXPECT_EQ(map->remove(pages(0, 9)), KernReturn::kSuccess);
  machine.system->validate();
}

TEST_F(VmMapTest, WiringMoreThanThereIsChangesNothing) {
  must_map(pages(0, 100));
  must_map(pages(100, 1000), {.inherit = Inherit::kNone});
  EXPECT_EQ(map->wire(pages(0, 1100)), KernReturn::kResourceShortage);
  for (const auto& e : entries()) EXPECT_EQ(e.wired_count, 0u);
  EXPECT_EQ(map->entry_count(), 2u);
  map->validate();
  machine.system->validate();
  store(0, 1);
}

TEST_F(VmMapTest, WiredMemoryThatBecomesWritableIsCopiedAtOnce) {
  must_map(pages(0, 2));
  store(0, 1);
  ASSERT_EQ(map->protect(pages(0, 2), Prot::kRead), KernReturn::kSuccess);
  ASSERT_EQ(map->wire(pages(0, 2), WireKind::kUser), KernReturn::kSuccess);
  auto child = map->fork();
  ASSERT_EQ(map->protect(pages(0, 2), Prot::kReadWrite), KernReturn::kSuccess);
  map->validate();
  EXPECT_FALSE(entries()[0].needs_copy);
  EXPECT_EQ(entries()[0].wired_count, 1u);
  store(0, 2);
  EXPECT_EQ(load(*child, 0), 1u);
  ASSERT_EQ(map->unwire(pages(0, 2), WireKind::kUser), KernReturn::kSuccess);
  machine.system->validate();
}

// --- locks

TEST_F(VmMapTest, ProcessForkLockKeepsOthersOut) {
  must_map(pages(0, 4));
  map->lock_for_process_fork();
  std::atomic<bool> done{false};
  std::thread other([&] {
    EXPECT_EQ(map->remove(pages(0, 1)), KernReturn::kSuccess);
    done = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(done);
  map->unlock_after_process_fork();
  other.join();
  EXPECT_TRUE(map->is_free(pages(0, 1)));
}

TEST_F(VmMapTest, EntriesAreReused) {
  for (int round = 0; round < 4; ++round) {
    for (std::uint64_t p = 0; p < 500; ++p) must_map(pages(2 * p, 1));
    ASSERT_EQ(map->remove(pages(0, 1000)), KernReturn::kSuccess);
  }
  const std::size_t used = machine.arena.used();
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t p = 0; p < 500; ++p) must_map(pages(2 * p, 1));
    auto child = map->fork();
    ASSERT_NE(child, nullptr);
    ASSERT_EQ(map->remove(pages(0, 1000)), KernReturn::kSuccess);
  }
  EXPECT_LE(machine.arena.used() - used, 500 * sizeof(MapEntry) + 128 * 64);
}

}  // namespace
}  // namespace enchilada
