// The article's own examples of section 2, step by step: the layers A, B, C1 and C2, the child's exec, the
// dead page, the all-shadowed case, and how deep chains get.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support/soft_rig.h"

namespace enchilada::test {
namespace {

constexpr ByteCount kPage{kPageSize};

SoftEngineOptions options_of(VmModes modes, std::uint64_t frames = 512) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{frames};
  options.machine.arena_bytes = std::size_t{8} << 20;
  options.modes = modes;
  return options;
}

/// The presets' modes of object chains alone: pages are chosen and written as by default.
VmModes article_chains() {
  return VmModes().set(CollapseMode::kArticle).set(CowMoveMode::kOn).set(DeadPagesMode::kKeep);
}
VmModes modern_chains() {
  return article_chains().set(CollapseMode::kModern);
}

/// A program with two pages of data in a file, both modified: A is the file, B has the two pages.
struct Program : SoftRig {
  explicit Program(VmModes modes)
      : SoftRig(options_of(modes)), image(to_bytes(4_pages)), vnode(file(image)), parent(spawn()) {
    VmMap::MapRequest request = vnode.mapping(ByteCount{0}, to_bytes(4_pages), false);
    data = map(parent, request);
  }
  ~Program() { shut_down(); }
  void modify_data() {
    ASSERT_EQ(write(parent, data, 1), FaultResult::kResolved);
    ASSERT_EQ(write(parent, data + kPage, 2), FaultResult::kResolved);
  }
  VmObject* below(const VmObject* object) { return object->backing; }

  MemoryFile image;
  VmFile& vnode;
  Process& parent;
  VirtAddr data{0};
};

TEST(ArticleObjects, LayersAppearOnlyWhenTheyAreWrittenTo) {
  Program p{article_chains()};
  VmObject* const a = &p.vnode.object();
  EXPECT_EQ(SoftRig::object_at(p.parent, p.data), a) << "at the start the file is all there is";
  EXPECT_EQ(p.objects(), 1u);

  p.modify_data();
  VmObject* const b = SoftRig::object_at(p.parent, p.data);
  EXPECT_EQ(p.objects(), 2u);
  EXPECT_EQ(b->backing, a);
  EXPECT_EQ(b->pages.count(), 2u);

  const std::uint64_t frames = p.frames_in_use();
  auto& child = p.fork(p.parent);
  EXPECT_EQ(p.objects(), 2u) << "fork marks entries; it makes no object";
  EXPECT_EQ(p.frames_in_use(), frames) << "and copies no page";
  EXPECT_EQ(SoftRig::object_at(child, p.data), b);

  ASSERT_EQ(p.write(p.parent, p.data, 10), FaultResult::kResolved);
  VmObject* const c1 = SoftRig::object_at(p.parent, p.data);
  EXPECT_EQ(p.objects(), 3u) << "C1";
  EXPECT_EQ(c1->backing, b);
  EXPECT_EQ(SoftRig::object_at(child, p.data), b) << "C2 is not there yet";
  EXPECT_EQ(p.read(child, p.data), 1u) << "the page in B is untouched";

  ASSERT_EQ(p.write(child, p.data, 20), FaultResult::kResolved);
  VmObject* const c2 = SoftRig::object_at(child, p.data);
  EXPECT_EQ(p.objects(), 4u) << "C2";
  EXPECT_EQ(c2->backing, b);
  EXPECT_EQ(p.read(p.parent, p.data), 10u);
  EXPECT_EQ(p.read(child, p.data), 20u);
  EXPECT_EQ(p.depth_at(child, p.data), 3u);
  p.check();
}

TEST(ArticleObjects, TheChildsExecLetsTheParentTakeBackWhatWasShared) {
  Program p{article_chains()};
  p.modify_data();
  auto& child = p.fork(p.parent);
  ASSERT_EQ(p.write(p.parent, p.data, 10), FaultResult::kResolved);
  ASSERT_EQ(p.write(child, p.data, 20), FaultResult::kResolved);
  EXPECT_EQ(p.engine.system().objects().count_dead_pages(), 1u) << "B's first page is hidden from both";
  EXPECT_EQ(p.counters().dead_pages.load(), 1u);
  VmObject* const c1 = SoftRig::object_at(p.parent, p.data);
  const std::uint64_t frames = p.frames_in_use();

  p.exec(child);

  EXPECT_EQ(p.objects(), 2u) << "C2 is gone, and B collapsed into C1";
  EXPECT_EQ(SoftRig::object_at(p.parent, p.data), c1);
  EXPECT_EQ(c1->backing, &p.vnode.object());
  EXPECT_EQ(c1->pages.count(), 2u);
  EXPECT_EQ(p.counters().object_collapses.load(), 1u);
  EXPECT_EQ(p.counters().object_collapse_moved.load(), 1u);
  EXPECT_EQ(p.counters().object_collapse_freed.load(), 1u) << "the dead page";
  EXPECT_EQ(p.frames_in_use(), frames - 2) << "C2's page and the dead one";
  EXPECT_EQ(p.engine.system().objects().count_dead_pages(), 0u);
  EXPECT_EQ(p.read(p.parent, p.data), 10u);
  EXPECT_EQ(p.read(p.parent, p.data + kPage), 2u);
}

TEST(ArticleObjects, AllShadowedEndsWithBothOnTheFileAndBGone) {
  Program p{article_chains()};
  p.modify_data();
  auto& child = p.fork(p.parent);
  ASSERT_EQ(p.write(child, p.data, 20), FaultResult::kResolved);
  ASSERT_EQ(p.write(p.parent, p.data, 10), FaultResult::kResolved);
  EXPECT_EQ(p.objects(), 4u) << "A, B, C1, C2: B's second page is seen through both";
  EXPECT_EQ(p.counters().object_bypasses.load(), 0u);

  ASSERT_EQ(p.write(p.parent, p.data + kPage, 11), FaultResult::kResolved);

  EXPECT_EQ(p.objects(), 3u) << "B is gone";
  EXPECT_EQ(SoftRig::object_at(p.parent, p.data)->backing, &p.vnode.object()) << "C1 -> A";
  EXPECT_EQ(SoftRig::object_at(child, p.data)->backing, &p.vnode.object()) << "C2 -> A";
  EXPECT_EQ(p.counters().object_bypasses.load(), 1u) << "C1 looked past B ...";
  EXPECT_EQ(p.counters().object_collapses.load(), 1u) << "... and C2 absorbed it";
  EXPECT_EQ(p.read(p.parent, p.data), 10u);
  EXPECT_EQ(p.read(p.parent, p.data + kPage), 11u);
  EXPECT_EQ(p.read(child, p.data), 20u);
  EXPECT_EQ(p.read(child, p.data + kPage), 2u);
  p.check();
}

TEST(ArticleObjects, TodaysMomentsNoticeTheSameAtTheNextForkOnly) {
  Program p{modern_chains()};
  p.modify_data();
  auto& child = p.fork(p.parent);
  ASSERT_EQ(p.write(child, p.data, 20), FaultResult::kResolved);
  ASSERT_EQ(p.write(p.parent, p.data, 10), FaultResult::kResolved);
  ASSERT_EQ(p.write(p.parent, p.data + kPage, 11), FaultResult::kResolved);
  EXPECT_EQ(p.depth_at(p.parent, p.data), 3u);
  EXPECT_EQ(p.counters().object_collapse_tries.load(), 0u) << "no fault has looked";
  auto& second = p.fork(p.parent);
  EXPECT_EQ(p.depth_at(p.parent, p.data), 2u);
  EXPECT_EQ(p.depth_at(child, p.data), 2u);
  EXPECT_EQ(p.objects(), 3u);
  EXPECT_EQ(p.read(second, p.data), 10u);
  EXPECT_EQ(p.read(child, p.data + kPage), 2u);
  p.check();
}

TEST(ArticleObjects, AllShadowedCountsPagesThatAreOnlyInSwap) {
  Program p{article_chains()};
  p.modify_data();
  auto& child = p.fork(p.parent);
  ASSERT_EQ(p.write(child, p.data, 20), FaultResult::kResolved);
  ASSERT_EQ(p.write(p.parent, p.data, 10), FaultResult::kResolved);
  VmObject* const c1 = SoftRig::object_at(p.parent, p.data);
  p.page_out(*c1, PageIndex{0}, 1_pages);
  p.page_out(*c1->backing, PageIndex{0}, 2_pages);
  ASSERT_EQ(c1->pages.count(), 0u);
  ASSERT_EQ(p.write(p.parent, p.data + kPage, 11), FaultResult::kResolved);
  EXPECT_EQ(p.objects(), 3u);
  EXPECT_EQ(p.read(p.parent, p.data), 10u);
  EXPECT_EQ(p.read(child, p.data), 20u);
  EXPECT_EQ(p.read(child, p.data + kPage), 2u);
  p.check();
}

// ------------------------------------------------------------------------------------------------ dead pages

struct Fates {
  CowMoveMode move;
  DeadPagesMode dead;
};

/// Parent and child both write the first three of four pages. Returns frames that the four pages take.
std::uint64_t frames_after_both_write(Fates fates, bool paged_out, std::uint64_t* dead) {
  VmModes modes;
  modes.set(fates.move).set(fates.dead).set(CollapseMode::kModern);
  SoftRig rig(options_of(modes));
  auto& parent = rig.spawn();
  const VirtAddr at = rig.map_anonymous(parent, 4_pages);
  const std::uint64_t before = rig.frames_in_use();
  const auto write_some = [&](VmMap& p, std::uint64_t base, std::uint64_t n) {
    for (std::uint64_t i = 0; i < n; ++i) {
      EXPECT_EQ(rig.write(p, at + to_bytes(PageCount{i}), base + i), FaultResult::kResolved);
    }
  };
  write_some(parent, 100, 4);
  VmObject* const b = SoftRig::object_at(parent, at);
  if (paged_out) rig.page_out(*b, PageIndex{0}, 4_pages);
  auto& child = rig.fork(parent);
  write_some(parent, 200, 3);
  write_some(child, 300, 3);
  for (std::uint64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(rig.read(parent, at + to_bytes(PageCount{i})), i < 3 ? 200 + i : 103);
    EXPECT_EQ(rig.read(child, at + to_bytes(PageCount{i})), i < 3 ? 300 + i : 103);
  }
  *dead = rig.engine.system().objects().count_dead_pages();
  const bool reclaimed = fates.dead == DeadPagesMode::kReclaim;
  EXPECT_EQ(rig.counters().dead_pages_reclaimed.load(), reclaimed ? 3u : 0u);
  EXPECT_EQ(rig.counters().cow_optim.load(), reclaimed && fates.move == CowMoveMode::kOn ? 3u : 0u);
  if (paged_out && reclaimed) {
    EXPECT_EQ(b->copies(), 1u) << "the copies in swap went, too";
  }
  rig.check();
  return rig.frames_in_use() - before;
}

TEST(ArticleObjects, ADeadPageCostsAThirdFrameUnlessItIsReclaimed) {
  for (const bool paged_out : {false, true}) {
    for (const CowMoveMode move : {CowMoveMode::kOff, CowMoveMode::kOn}) {
      std::uint64_t dead = 0;
      EXPECT_EQ(frames_after_both_write({move, DeadPagesMode::kKeep}, paged_out, &dead), 3u * 3 + 1);
      EXPECT_EQ(dead, 3u) << "the article: we simply allow the pages to be dead";
      EXPECT_EQ(frames_after_both_write({move, DeadPagesMode::kReclaim}, paged_out, &dead), 2u * 3 + 1);
      EXPECT_EQ(dead, 0u);
    }
  }
}

TEST(ArticleObjects, TheLastOwnerTakesThePageInsteadOfCopyingIt) {
  for (const CowMoveMode move : {CowMoveMode::kOff, CowMoveMode::kOn}) {
    VmModes modes;
    modes.set(move).set(DeadPagesMode::kKeep).set(CollapseMode::kModern);
    SoftRig rig(options_of(modes));
    auto& parent = rig.spawn();
    const VirtAddr at = rig.map_anonymous(parent, 8_pages);
    for (std::uint64_t i = 0; i < 8; ++i) {
      ASSERT_EQ(rig.write(parent, at + to_bytes(PageCount{i}), i), FaultResult::kResolved);
    }
    auto& child = rig.fork(parent);
    ASSERT_EQ(rig.write(child, at, 100), FaultResult::kResolved);  // C2 over B
    VmObject* const b = SoftRig::object_at(parent, at);
    // The parent lets go of B without the two collapsing: B's first page is busy just then.
    Page& held = rig.engine.system().page(b->pages.find(PageIndex{0}));
    ASSERT_TRUE(held.try_busy());
    rig.exit_unchecked(parent);
    held.unbusy();
    ASSERT_EQ(rig.depth_at(child, at), 2u);
    const std::uint64_t copies = rig.counters().cow_faults.load();
    ASSERT_EQ(rig.write(child, at + kPage, 101), FaultResult::kResolved);
    const bool moves = move == CowMoveMode::kOn;
    EXPECT_EQ(rig.counters().cow_optim.load(), moves ? 1u : 0u);
    EXPECT_EQ(rig.counters().cow_faults.load() - copies, moves ? 0u : 1u);
    EXPECT_EQ(rig.read(child, at + kPage), 101u);
    EXPECT_EQ(rig.read(child, at + to_bytes(2_pages)), 2u);
    rig.check();
  }
}

// ------------------------------------------------------------------------------------------------ depth

/// The workload "cascade": a program with 8 pages of data forks again and again, the parent or any of its
/// descendants, at most 12 of them alive; between two forks the living write 96 times, any page of their
/// data, and they end in any order. Depth counts the objects from the top to the last anonymous one.
struct Depths {
  unsigned deepest = 0;
  std::uint64_t over_four = 0;  // of 1000 looks
};

Depths run_cascade(CollapseMode collapse, std::uint64_t seed) {
  constexpr unsigned kWritesPerFork = 96;
  VmModes modes;
  modes.set(collapse);
  SoftRig rig(options_of(modes));
  std::mt19937_64 random(seed);
  std::vector<VmMap*> alive{&rig.spawn()};
  const VirtAddr at = rig.map_anonymous(*alive[0], 8_pages);
  EXPECT_EQ(rig.write(*alive[0], at, 1), FaultResult::kResolved);
  std::uint64_t looks = 0;
  std::uint64_t over = 0;
  Depths depths;
  for (unsigned step = 0; step < 400; ++step) {
    if (alive.size() == 12 || (alive.size() > 1 && random() % 3 == 0)) {
      const std::size_t gone = random() % alive.size();
      rig.exit_unchecked(*alive[gone]);
      alive.erase(alive.begin() + static_cast<std::ptrdiff_t>(gone));
    }
    alive.push_back(&rig.fork(*alive[random() % alive.size()]));
    for (unsigned i = 0; i < kWritesPerFork; ++i) {
      VmMap& p = *alive[random() % alive.size()];
      EXPECT_EQ(rig.write(p, at + to_bytes(PageCount{random() % 8}), random()), FaultResult::kResolved);
    }
    for (VmMap* p : alive) {
      const unsigned depth = rig.depth_at(*p, at);
      depths.deepest = std::max(depths.deepest, depth);
      over += depth > 4 ? 1 : 0;
      ++looks;
    }
  }
  rig.check();
  depths.over_four = 1000 * over / looks;
  return depths;
}

// Looking after each copy keeps chains within four; looking at forks and exits alone lets some grow a little
// more.
TEST(ArticleObjects, ChainsDoNotGetDeeperThanFourInTheCascade) {
  for (const CollapseMode collapse :
       {CollapseMode::kArticle, CollapseMode::kGuarded, CollapseMode::kModern}) {
    for (std::uint64_t seed = 1; seed <= 3; ++seed) {
      const Depths depths = run_cascade(collapse, seed);
      std::printf("cascade, collapse=%s, seed %llu: deepest %u, %llu of 1000 looks over four\n",
                  std::string(name_of(collapse)).c_str(), static_cast<unsigned long long>(seed),
                  depths.deepest, static_cast<unsigned long long>(depths.over_four));
      if (collapse == CollapseMode::kModern) {
        EXPECT_LE(depths.over_four, 50u);
      } else {
        EXPECT_LE(depths.deepest, 4u) << name_of(collapse);
      }
    }
  }
}

// The workload that exceeds it: each generation writes one page of many and stays, so nobody ever hides all
// of what lies below.
TEST(ArticleObjects, GenerationsThatStayAndWriteLittleMakeChainsAsDeepAsTheyAreMany) {
  constexpr std::uint64_t kGenerations = 12;
  for (const CollapseMode collapse :
       {CollapseMode::kArticle, CollapseMode::kGuarded, CollapseMode::kModern}) {
    VmModes modes;
    modes.set(collapse);
    SoftRig rig(options_of(modes));
    VmMap* last = &rig.spawn();
    const VirtAddr at = rig.map_anonymous(*last, 64_pages);
    for (std::uint64_t i = 0; i < 64; ++i) {
      ASSERT_EQ(rig.write(*last, at + to_bytes(PageCount{i}), i), FaultResult::kResolved);
    }
    std::vector<VmMap*> all{last};
    for (std::uint64_t g = 1; g <= kGenerations; ++g) {
      last = &rig.fork(*last);
      all.push_back(last);
      for (VmMap* p : {all[g - 1], all[g]}) {
        ASSERT_EQ(rig.write(*p, at + to_bytes(PageCount{g}), g), FaultResult::kResolved);
      }
    }
    EXPECT_EQ(rig.depth_at(*last, at), kGenerations + 1) << name_of(collapse);
    // Once they go it is over.
    for (std::size_t i = 0; i + 1 < all.size(); ++i) rig.exit_unchecked(*all[i]);
    EXPECT_EQ(rig.depth_at(*last, at), 1u) << name_of(collapse);
    for (std::uint64_t i = 0; i < 64; ++i) {
      ASSERT_EQ(rig.read(*last, at + to_bytes(PageCount{i})), i);
    }
    rig.check();
  }
}

}  // namespace
}  // namespace enchilada::test
