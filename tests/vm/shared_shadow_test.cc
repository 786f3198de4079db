// Inheritance, and the matrix of FreeBSD's shared_shadow_inval test (CVE-2021-29626): P2 and P3 share a
// shadow of P1's object, P3 writes, P2 must see it, and P1 and P4 must not.
#include <gtest/gtest.h>

#include <tuple>

#include "support/soft_rig.h"

namespace enchilada::test {
namespace {

constexpr std::uint64_t kL = 64;  // the engine's largest cluster, and a leaf of the radix tree

SoftEngineOptions options_of(VmModes modes) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{768};
  options.machine.arena_bytes = std::size_t{8} << 20;
  options.modes = modes;
  return options;
}

std::vector<VmModes> all_chain_modes() {
  std::vector<VmModes> all;
  for (const auto collapse : {CollapseMode::kGuarded, CollapseMode::kArticle, CollapseMode::kModern}) {
    for (const auto move : {CowMoveMode::kOff, CowMoveMode::kOn}) {
      for (const auto dead : {DeadPagesMode::kKeep, DeadPagesMode::kReclaim}) {
        all.push_back(VmModes().set(collapse).set(move).set(dead));
      }
    }
  }
  return all;
}

//                       eager  collapse  block move  all pages  length
using Case = std::tuple<bool, bool, bool, bool, std::uint64_t>;

class SharedShadow : public testing::TestWithParam<Case> {
 protected:
  static VirtAddr page(VirtAddr at, std::uint64_t i) { return at + to_bytes(PageCount{i}); }
  /// Each process must see `value + i` in the pages that were written and 100 + i in the others.
  static void expect_view(SoftRig& rig, VmMap& p, VirtAddr at, std::uint64_t length, std::uint64_t written,
                          std::uint64_t value, const char* who) {
    for (std::uint64_t i = 0; i < length; ++i) {
      ASSERT_EQ(rig.read(p, page(at, i)), i < written ? value + i : 100 + i) << who << ", page " << i;
    }
  }
  /// Makes the copies now: memory that is wired while it can only be read, and then can be written.
  static void copy_eagerly(VmMap& p, VirtRange range) {
    ASSERT_EQ(p.protect(range, Prot::kRead), KernReturn::kSuccess);
    ASSERT_EQ(p.wire(range), KernReturn::kSuccess);
    ASSERT_EQ(p.protect(range, Prot::kReadWrite), KernReturn::kSuccess);
  }
  static void run(VmModes modes, const Case& parameters) {
    const auto& [eager, collapse, block_move, all_pages, length] = parameters;
    SoftRig rig(options_of(modes));
    VmMap& p1 = rig.spawn();
    const VirtAddr at = rig.map_anonymous(p1, PageCount{length});
    const VirtRange range{at, page(at, length)};
    for (std::uint64_t i = 0; i < length; ++i) {
      ASSERT_EQ(rig.write(p1, page(at, i), 100 + i), FaultResult::kResolved);
    }
    VmMap& p2 = rig.fork(p1);
    ASSERT_EQ(p2.inherit(range, Inherit::kShare), KernReturn::kSuccess);
    VmMap& p3 = rig.fork(p2);
    VmMap* const p4 = block_move ? &rig.fork(p1) : nullptr;
    expect_view(rig, p2, at, length, 0, 0, "P2 before");  // it has P1's pages mapped now
    expect_view(rig, p3, at, length, 0, 0, "P3 before");
    if (collapse) rig.exit(p1);
    if (eager) copy_eagerly(p3, range);
    const std::uint64_t written = all_pages ? length : (length + 1) / 2;
    for (std::uint64_t i = 0; i < written; ++i) {
      ASSERT_EQ(rig.write(p3, page(at, i), 500 + i), FaultResult::kResolved);
    }
    expect_view(rig, p2, at, length, written, 500, "P2");
    expect_view(rig, p3, at, length, written, 500, "P3");
    if (!collapse) expect_view(rig, p1, at, length, 0, 0, "P1");
    if (p4 != nullptr) expect_view(rig, *p4, at, length, 0, 0, "P4");
    rig.check();
    // And the other way round, when whoever could block a collapse has gone.
    if (!collapse) rig.exit(p1);
    if (p4 != nullptr) rig.exit(*p4);
    for (std::uint64_t i = 0; i < written; ++i) {
      ASSERT_EQ(rig.write(p2, page(at, i), 900 + i), FaultResult::kResolved);
    }
    expect_view(rig, p3, at, length, written, 900, "P3 after");
    if (eager) {
      ASSERT_EQ(p3.unwire(range), KernReturn::kSuccess);
    }
    rig.check();
  }
};

TEST_P(SharedShadow, WritersOfASharedShadowAreSeenBySharersAlone) {
  for (const VmModes& modes : all_chain_modes()) {
    SCOPED_TRACE(testing::Message() << name_of(modes.get<CollapseMode>())
                                    << " cow_move=" << name_of(modes.get<CowMoveMode>())
                                    << " dead_pages=" << name_of(modes.get<DeadPagesMode>()));
    run(modes, GetParam());
    if (HasFatalFailure()) return;
  }
}

std::string name_of_case(const testing::TestParamInfo<Case>& info) {
  const auto& [eager, collapse, block, all, length] = info.param;
  return std::string(eager ? "Eager" : "Lazy") + (collapse ? "Collapse" : "NoCollapse") +
         (block ? "Blocked" : "Free") + (all ? "Full" : "Half") + std::to_string(length);
}

INSTANTIATE_TEST_SUITE_P(Matrix, SharedShadow,
                         testing::Combine(testing::Bool(), testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::Values(1, 2, kL - 1, kL, kL + 1)),
                         name_of_case);

TEST(Inheritance, ShareCopyZeroAndNone) {
  MemoryFile store(to_bytes(4_pages));
  for (const VmModes& modes : all_chain_modes()) {
    SoftRig rig(options_of(modes));
    VmMap& parent = rig.spawn();
    VmFile& file = rig.file(store);
    VirtAddr at[4];
    VirtAddr mapped[4];
    const Inherit how[] = {Inherit::kShare, Inherit::kCopy, Inherit::kZero, Inherit::kNone};
    for (int i = 0; i < 4; ++i) {
      at[i] = rig.map_anonymous(parent, 4_pages, how[i]);
      ASSERT_EQ(rig.write(parent, at[i], 7), FaultResult::kResolved);
      mapped[i] = rig.map(parent, file.mapping(ByteCount{0}, to_bytes(4_pages), false));
      ASSERT_EQ(parent.inherit({mapped[i], mapped[i] + to_bytes(4_pages)}, how[i]), KernReturn::kSuccess);
      ASSERT_EQ(rig.write(parent, mapped[i], 7), FaultResult::kResolved);
    }
    VmMap& child = rig.fork(parent);
    for (const auto* place : {at, mapped}) {
      for (int i = 0; i < 3; ++i) EXPECT_EQ(rig.read(child, place[i]), i == 2 ? 0u : 7u) << i;
      EXPECT_EQ(rig.try_read(child, place[3]), FaultResult::kNotMapped);
      for (int i = 0; i < 3; ++i) ASSERT_EQ(rig.write(child, place[i], 9), FaultResult::kResolved);
      EXPECT_EQ(rig.read(parent, place[0]), 9u) << "shared";
      for (int i = 1; i < 4; ++i) EXPECT_EQ(rig.read(parent, place[i]), 7u) << i;
    }
    rig.check();
  }
}

}  // namespace
}  // namespace enchilada::test
