// The arithmetic of the designs' READMEs: small cases computed by hand from each design's source, step by
// step.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "lab/designs/designs.h"
#include "lab/designs/objrmap/prio_tree.h"

namespace enchilada::lab {
namespace {

constexpr VirtAddr kBase{std::uint64_t{1} << 30};

VirtAddr page_at(std::uint64_t n) {
  return kBase + to_bytes(PageCount{n});
}

/// What a search of one page does.
struct Search {
  std::uint64_t vmas, misses, nodes, blocks, pte_reads;
};

class Arithmetic : public ::testing::Test {
 protected:
  void make(std::string_view design) {
    design_ = make_design(design, {.frames = PageCount{512}, .table_pages = PageCount{1024}});
  }
  bool touch(ProcessId process, std::uint64_t n, Access access) {
    return design_->access(process, page_at(n), access, [](std::byte* at) { *at = std::byte{1}; });
  }
  /// A parent that has written its one page, and `children` forked from it, in order.
  std::vector<ProcessId> family(std::uint64_t children) {
    std::vector<ProcessId> all{design_->spawn()};
    EXPECT_TRUE(design_->map(all[0], {.at = kBase, .pages = PageCount{1}}));
    EXPECT_TRUE(touch(all[0], 0, Access::kWrite));
    for (std::uint64_t i = 0; i < children; ++i) all.push_back(design_->fork(all[0]));
    return all;
  }
  Search search(ProcessId process, std::uint64_t n) {
    const FrameNumber frame = design_->frame_at(process, page_at(n));
    EXPECT_NE(frame, kNoFrame);
    const HardwareCounts before = design_->hardware().counts();
    design_->find_mappings(frame, [](const Mapping&) {});
    const HardwareCounts& after = design_->hardware().counts();
    const auto grown = [&](auto event) { return after.of(event) - before.of(event); };
    return {grown(KernelEvent::kVmaVisit), grown(KernelEvent::kWalkMiss), grown(KernelEvent::kIndexNode),
            grown(KernelEvent::kChainBlock), grown(PmapEvent::kPteRead)};
  }
  std::uint64_t live(KernelType type) { return design_->accounts()[static_cast<std::size_t>(type)].live; }
  std::uint64_t bytes(KernelType type) { return design_->accounts()[static_cast<std::size_t>(type)].bytes; }
  std::unique_ptr<VmDesign> design_;
};

TEST_F(Arithmetic, PteChainsOneEntryIsDirectAndFifteenTakeThreeBlocks) {
  make("pte_chains");
  const auto all = family(1);
  EXPECT_EQ(live(KernelType::kPteChain), 1u);  // two entries: a block
  design_->exit(all[1]);
  EXPECT_EQ(live(KernelType::kPteChain), 1u);  // one entry in a block: not collapsed yet
  EXPECT_EQ(search(all[0], 0).blocks, 1u);
  EXPECT_EQ(live(KernelType::kPteChain), 0u);  // the search has made it direct
  for (int i = 0; i < 14; ++i) (void)design_->fork(all[0]);
  EXPECT_EQ(live(KernelType::kPteChain), 3u);  // 7 + 7 + 1
  EXPECT_EQ(bytes(KernelType::kPteChain), 192u);
  const Search found = search(all[0], 0);
  EXPECT_EQ(found.blocks, 3u);
  EXPECT_EQ(found.pte_reads, 15u);
  // The parent's entry is in the oldest block, behind the two others.
  const std::uint64_t before = design_->hardware().counts().of(KernelEvent::kChainBlock);
  ASSERT_TRUE(design_->unmap(all[0], {kBase, page_at(1)}));
  EXPECT_EQ(design_->hardware().counts().of(KernelEvent::kChainBlock) - before, 3u);
  EXPECT_EQ(live(KernelType::kPteChain), 2u);  // the first block gave its only entry
}

TEST_F(Arithmetic, AnonVmaVisitsYoungerSiblingsFirst) {
  make("anon_vma");
  const auto all = family(3);
  EXPECT_EQ(live(KernelType::kAnonVma), 1u);
  EXPECT_EQ(search(all[0], 0).vmas, 4u);
  EXPECT_EQ(search(all[0], 0).misses, 0u);
  ASSERT_TRUE(touch(all[1], 0, Access::kWrite));
  const Search found = search(all[1], 0);  // list: third child, second, first
  EXPECT_EQ(found.vmas, 3u);
  EXPECT_EQ(found.misses, 2u);
}

TEST_F(Arithmetic, AnonVmaChainHasALinkForEveryAncestorAndFindsAtOnce) {
  make("anon_vma_chain");
  const auto all = family(3);
  EXPECT_EQ(live(KernelType::kAnonVmaChain), 7u);  // 1 + 3 * 2
  EXPECT_EQ(bytes(KernelType::kAnonVmaChain), 448u);
  EXPECT_EQ(live(KernelType::kAnonVma), 4u);
  EXPECT_EQ(search(all[0], 0).vmas, 4u);
  ASSERT_TRUE(touch(all[1], 0, Access::kWrite));
  const Search found = search(all[1], 0);
  EXPECT_EQ(found.vmas, 1u);
  EXPECT_EQ(found.misses, 0u);
  EXPECT_EQ(found.nodes, 1u);
}

TEST_F(Arithmetic, ALineageOfTwentyHasTwentyOneLinksWithoutReuseAndThreeWithIt) {
  for (const auto& [design, links] :
       {std::pair{"anon_vma_chain_2010", 21u}, std::pair{"anon_vma_chain", 3u}}) {
    make(design);
    ProcessId last = family(0)[0];
    for (int generation = 0; generation < 20; ++generation) {
      const ProcessId child = design_->fork(last);
      design_->exit(last);
      last = child;
    }
    EXPECT_EQ(live(KernelType::kAnonVmaChain), links) << design;
  }
}

TEST_F(Arithmetic, AnonmmLooksAtTheNotedSpaceFirstAndCopiesWhatMovesWhileShared) {
  make("anonmm");
  const auto all = family(3);
  EXPECT_EQ(live(KernelType::kAnonMm), 4u);
  EXPECT_EQ(search(all[0], 0).vmas, 4u);  // the noted one, then the others of the bundle
  ASSERT_TRUE(touch(all[1], 0, Access::kWrite));
  EXPECT_EQ(search(all[1], 0).vmas, 1u);
  const std::uint64_t before = design_->hardware().counts().copied;
  ASSERT_TRUE(design_->remap(all[2], {kBase, page_at(1)}, page_at(8)));
  EXPECT_EQ(design_->hardware().counts().copied - before, 1u);
  design_->exit(all[0]);
  EXPECT_EQ(live(KernelType::kAnonMm), 4u);  // the page that the third child shows still says the parent
  EXPECT_EQ(search(all[3], 0).vmas, 2u);     // the noted parent is gone; the newest is found next
}

TEST_F(Arithmetic, ObjrmapListVisitsAllWindowsAndTreesTheOne) {
  constexpr std::uint64_t kWindows = 64;
  for (const auto& [design, visits] :
       {std::pair{"objrmap_list", kWindows}, std::pair{"objrmap_prio", std::uint64_t{1}},
        std::pair{"objrmap_interval", std::uint64_t{1}}}) {
    make(design);
    const FileId file = design_->create_file(PageCount{kWindows});
    const ProcessId process = design_->spawn();
    for (std::uint64_t i = 0; i < kWindows; ++i) {  // every other page of addresses, so that none merge
      ASSERT_TRUE(design_->map(process, {.at = page_at(2 * i),
                                         .pages = PageCount{1},
                                         .file = file,
                                         .offset = PageIndex{i},
                                         .shared = true}));
    }
    ASSERT_TRUE(touch(process, 0, Access::kRead));
    const Search found = search(process, 0);
    EXPECT_EQ(found.vmas, visits) << design;  // the first mapping is the last of the list
    EXPECT_EQ(found.misses, 0u) << design;
    EXPECT_LE(found.nodes, 13u) << design;  // prio: at most 6 bits of start and of length, and the top
  }
}

TEST_F(Arithmetic, Linux24ReadsEveryEntryUntilItHasMetAll) {
  make("linux24");
  const ProcessId process = design_->spawn();
  ASSERT_TRUE(design_->map(process, {.at = kBase, .pages = PageCount{40}}));
  for (std::uint64_t i = 0; i < 40; ++i) ASSERT_TRUE(touch(process, i, Access::kWrite));
  EXPECT_EQ(search(process, 0).pte_reads, 1u);
  EXPECT_EQ(search(process, 39).pte_reads, 40u);
  EXPECT_EQ(live(KernelType::kPteChain) + live(KernelType::kAnonVma) + live(KernelType::kAnonMm), 0u);
}

TEST_F(Arithmetic, FreebsdHasAPvEntryOf24BytesForEachMappingAndNoneForTheUntouched) {
  make("freebsd");
  const auto all = family(3);
  EXPECT_EQ(live(KernelType::kPvEntry), 1u);  // fork copies no mapping
  ASSERT_TRUE(touch(all[1], 0, Access::kRead));
  EXPECT_EQ(live(KernelType::kPvEntry), 2u);
  EXPECT_EQ(bytes(KernelType::kPvEntry), 48u);
}

}  // namespace
}  // namespace enchilada::lab
