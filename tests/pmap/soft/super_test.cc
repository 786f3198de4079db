// Superpages: what is promoted, what demotes, what happens to the bits.
#include "soft_rig.h"

namespace enchilada {
namespace {

using namespace soft_rig;

constexpr std::uint64_t kManyFrames = 1100;

SoftPmapOptions promoting(std::size_t pv_limit = 0) {
  SoftPmapOptions options;
  options.pv_limit = pv_limit;
  options.modes.set(SuperpagesMode::kPromote);
  return options;
}

class Superpages : public testing::Test {
 protected:
  void use(const SoftPmapOptions& options) { s_ = std::make_unique<Soft>(options, kManyFrames); }
  void SetUp() override { use(promoting()); }

  /// 512 neighbouring frames from `first` on at pages 512 .. 1023, all used.
  void fill(SoftPmap& p, std::uint64_t first, bool writes, Prot prot = Prot::kReadWrite) {
    for (std::uint64_t i = 0; i < 512; ++i) {
      enter(p, page(512 + i), frame(first + i), prot);
      ASSERT_TRUE(writes ? write(p, page(512 + i), static_cast<int>(i % 100)) : read(p, page(512 + i)));
    }
    enter(p, page(512), frame(first), prot);  // the last access came after the last enter
  }
  std::uint64_t superpages(const SoftPmap& p) {
    std::uint64_t n = 0;
    p.for_each_mapping([&](const SoftMapping& m) { n += m.superpage; });
    return n / 512;
  }
  std::uint64_t decided(PmapEvent e) { return s_->decided(e); }

  std::unique_ptr<Soft> s_;
};

TEST_F(Superpages, AFullTableOfNeighboursBecomesOneMapping) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  EXPECT_EQ(superpages(*p), 1u);
  EXPECT_EQ(decided(PmapEvent::kPromotion), 1u);
  EXPECT_EQ(p->mappings(), 512u);
  EXPECT_EQ(s_->system.pv_entries(), 1u) << "one entry for 512 mappings";
  EXPECT_EQ(s_->system.find_error(), nullptr);
  const std::uint64_t reads = s_->events[PmapEvent::kPteRead];
  int seen = 0;
  p->access(page(512 + 77), Access::kRead, [&](std::byte* b) { seen = static_cast<int>(*b); });
  EXPECT_EQ(seen, 77);
  EXPECT_EQ(s_->events[PmapEvent::kPteRead] - reads, 3u) << "the walk is a level shorter";
  EXPECT_EQ(s_->system.mapcount(frame(600), SoftPmapSystem::MapCount::kEntries), 1u);
}

TEST_F(Superpages, BeginningTheNextTablePromotesTheLast) {
  auto p = s_->pmap();
  for (std::uint64_t i = 0; i < 512; ++i) {
    enter(*p, page(512 + i), frame(512 + i));
    ASSERT_TRUE(write(*p, page(512 + i)));
  }
  enter(*p, page(1024), frame(0));
  EXPECT_EQ(superpages(*p), 1u);
}

TEST_F(Superpages, UnalignedUnusedOrForeignFramesAreNotPromoted) {
  auto p = s_->pmap();
  fill(*p, 100, true);  // neighbours, but not aligned
  EXPECT_EQ(superpages(*p), 0u);
  p->remove(pages(512, 1024));
  for (std::uint64_t i = 0; i < 512; ++i) enter(*p, page(512 + i), frame(512 + i));  // not used
  EXPECT_EQ(superpages(*p), 0u);
  p->remove(pages(512, 1024));
  fill(*p, 512, true);
  EXPECT_EQ(superpages(*p), 1u);
  enter(*p, page(700), frame(3));
  EXPECT_EQ(superpages(*p), 0u);
  fill(*p, 512, true);
  EXPECT_EQ(superpages(*p), 1u) << "and back";
}

TEST_F(Superpages, CleanWritableEntriesAreMadeReadOnlyFirst) {
  auto p = s_->pmap();
  fill(*p, 512, false);
  enter(*p, page(1024), frame(0));
  ASSERT_EQ(superpages(*p), 1u);
  EXPECT_FALSE(write(*p, page(600))) << "one dirty bit would stand for 512 pages";
  EXPECT_EQ(enter(*p, page(600), frame(600)), 1u);
  EXPECT_TRUE(write(*p, page(600)));
  EXPECT_EQ(superpages(*p), 0u);
  EXPECT_TRUE(s_->system.is_modified(frame(600)));
  EXPECT_FALSE(s_->system.is_modified(frame(601)));
}

TEST_F(Superpages, CleanAndDirtyTogetherAreNotPromotedAndNothingIsChanged) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  ASSERT_EQ(superpages(*p), 1u);
  s_->system.remove_write(frame(700));
  s_->system.clear_modify(frame(700));
  enter(*p, page(700), frame(700), Prot::kRead);
  EXPECT_TRUE(read(*p, page(700)));
  enter(*p, page(700), frame(700), Prot::kRead);
  EXPECT_EQ(superpages(*p), 0u);
  EXPECT_TRUE(write(*p, page(701))) << "the others may still be written";
  EXPECT_GT(decided(PmapEvent::kPromotionFailed), 0u);
}

TEST_F(Superpages, APartialChangeDemotesFirstAndKeepsTheRest) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  p->remove(pages(600, 610));
  EXPECT_EQ(decided(PmapEvent::kDemotion), 1u);
  EXPECT_EQ(p->mappings(), 502u);
  for (std::uint64_t i = 512; i < 1024; ++i) {
    EXPECT_EQ(s_->system.is_modified(frame(i)), i < 600 || i >= 610) << i;
    EXPECT_EQ(s_->sink.modified[i] != 0, i >= 600 && i < 610) << i;
  }
  EXPECT_EQ(s_->system.pv_entries(), 502u);
}

TEST_F(Superpages, WholeChangesDoNotDemote) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  p->protect(pages(512, 1024), Prot::kRead);
  EXPECT_EQ(superpages(*p), 1u);
  EXPECT_FALSE(write(*p, page(600)));
  for (std::uint64_t i = 512; i < 1024; ++i) EXPECT_EQ(s_->sink.modified[i], 1) << i;
  p->remove(pages(0, 2048));
  EXPECT_EQ(decided(PmapEvent::kDemotion), 0u);
  EXPECT_EQ(p->tables(), 0u);
  EXPECT_EQ(s_->system.pv_entries(), 0u);
}

TEST_F(Superpages, UnmappingOneFrameLeavesTheOthersMapped) {
  auto p = s_->pmap();
  auto q = s_->pmap();
  fill(*p, 512, true);
  fill(*q, 512, false, Prot::kRead);
  EXPECT_EQ(superpages(*q), 1u);
  remove_all(*s_, frame(640));
  EXPECT_EQ(p->mappings() + q->mappings(), 1022u);
  EXPECT_EQ(s_->sink.modified[640], 1);
  EXPECT_TRUE(write(*p, page(641)));
  EXPECT_FALSE(read(*p, page(640)));
}

TEST_F(Superpages, AnUnreferencedSuperpageIsDroppedInsteadOfDemoted) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  for (std::uint64_t i = 512; i < 1024; ++i) (void)s_->system.ts_referenced(frame(i));
  remove_all(*s_, frame(600));
  EXPECT_EQ(decided(PmapEvent::kDemotion), 0u);
  EXPECT_EQ(decided(PmapEvent::kDemotionDropped), 1u);
  EXPECT_EQ(p->mappings(), 0u);
  for (std::uint64_t i = 512; i < 1024; ++i) EXPECT_EQ(s_->sink.modified[i], 1) << "dirty bit lost";
}

// freebsd-vm.md §1.8: of a scan over all 512 pages one clears the bit, and all before it see it.
TEST_F(Superpages, OneOfTheFramesClearsTheReferenceBit) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  std::uint64_t referenced = 0;
  for (int scan = 0; scan < 2; ++scan) {
    for (std::uint64_t i = 512; i < 1024; ++i) referenced += s_->system.ts_referenced(frame(i));
  }
  const std::uint64_t clears = (512 ^ 1 ^ p->id()) % 512;  // page 512 + this one is the hash's choice
  EXPECT_EQ(referenced, clears + 1);
  EXPECT_TRUE(write(*p, page(900)));
  EXPECT_EQ(s_->system.ts_referenced(frame(512 + (clears + 1) % 512)), 1u) << "used again, seen again";
}

TEST_F(Superpages, WithoutPvEntriesForDemotionTheMappingGoesAndNothingIsLost) {
  use(promoting(2000));
  auto r = s_->pmap();
  fill(*r, 512, true);
  ASSERT_EQ(superpages(*r), 1u);
  auto hog = s_->pmap();
  for (std::uint64_t i = 0; i < 1500; ++i)
    enter(*hog, page(i * 2), frame(i % 500), Prot::kRead, Wiring::kWired);
  remove_all(*s_, frame(700));  // 511 entries are not to be had
  EXPECT_EQ(decided(PmapEvent::kDemotionDropped), 1u);
  EXPECT_EQ(r->mappings(), 0u);
  for (std::uint64_t i = 512; i < 1024; ++i) EXPECT_EQ(s_->sink.modified[i], 1) << i;
}

TEST_F(Superpages, WiredTablesAreNotPromotedAndWiringDemotes) {
  auto p = s_->pmap();
  fill(*p, 512, true);
  ASSERT_EQ(superpages(*p), 1u);
  enter(*p, page(800), frame(800), Prot::kReadWrite, Wiring::kWired);
  EXPECT_EQ(superpages(*p), 0u);
  fill(*p, 512, true);
  EXPECT_EQ(superpages(*p), 0u);
  p->throw_away();
  EXPECT_TRUE(read(*p, page(800)));
}

TEST(SuperpagesOff, NothingIsPromoted) {
  Soft s({}, kManyFrames);
  auto p = s.pmap();
  for (std::uint64_t i = 0; i < 513; ++i) {
    enter(*p, page(512 + i), frame(512 + i));
    EXPECT_TRUE(write(*p, page(512 + i)));
  }
  EXPECT_EQ(s.decided(PmapEvent::kPromotion) + s.decided(PmapEvent::kPromotionFailed), 0u);
}

}  // namespace
}  // namespace enchilada
