// Address spaces held by several processes (rfork with RFMEM).
#include "vm/vm_space.h"

#include <gtest/gtest.h>

#include <array>

#include "machine/soft_engine.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

class VmSpaceTest : public testing::Test {
 protected:
  VmSpaceTest() {
    VmMap::MapRequest request;
    request.length = ByteCount{8 * kPageSize};
    EXPECT_EQ(space_.map().map(request, &at_), KernReturn::kSuccess);
  }
  void store(VmSpace& space, char value) {
    const auto byte = static_cast<std::byte>(value);
    EXPECT_EQ(engine_.machine().store(space.map(), at_, std::span(&byte, 1)).result, FaultResult::kResolved);
  }
  char load(VmSpace& space) {
    std::byte byte{};
    EXPECT_EQ(engine_.machine().load(space.map(), at_, std::span(&byte, 1)).result, FaultResult::kResolved);
    return static_cast<char>(byte);
  }
  SoftEngine engine_;
  VmSpace space_{engine_.create_map(PageCount{64})};
  VirtAddr at_{0};
};

TEST_F(VmSpaceTest, TwoProcessesOfOneSpaceHaveOnePmapAndSeeEachOther) {
  store(space_, 'a');
  VmSpace other = space_.share();
  EXPECT_EQ(space_.users(), 2);
  EXPECT_EQ(&other.map().pmap(), &space_.map().pmap());
  const std::uint64_t mappings = static_cast<SoftPmap&>(space_.map().pmap()).mappings();
  EXPECT_EQ(load(other), 'a');
  EXPECT_EQ(static_cast<SoftPmap&>(space_.map().pmap()).mappings(), mappings) << "no fault of its own";
  store(other, 'b');
  EXPECT_EQ(load(space_), 'b');
  EXPECT_EQ(other.map().remove({at_, at_ + ByteCount{kPageSize}}), KernReturn::kSuccess);
  std::byte byte;
  EXPECT_EQ(engine_.machine().load(space_.map(), at_, std::span(&byte, 1)).result, FaultResult::kNotMapped);
}

TEST_F(VmSpaceTest, UnshareGivesACopyAndOnlyWhereThereAreOthers) {
  store(space_, 'a');
  VmMap* const before = &space_.map();
  EXPECT_TRUE(space_.unshare());
  EXPECT_EQ(&space_.map(), before);
  VmSpace other = space_.share();
  EXPECT_TRUE(other.unshare());
  EXPECT_EQ(space_.users(), 1);
  store(other, 'b');
  EXPECT_EQ(load(space_), 'a');
  EXPECT_EQ(load(other), 'b');
}

TEST_F(VmSpaceTest, TheLastToLeaveFreesTheSpace) {
  store(space_, 'a');
  {
    VmSpace other = space_.share();
    space_.replace(engine_.create_map(PageCount{64}));  // exec
    EXPECT_EQ(load(other), 'a');
    EXPECT_NE(engine_.system().objects().live(), 0u);
  }
  EXPECT_EQ(engine_.system().objects().live(), 0u);
  EXPECT_EQ(engine_.machine().pmaps().pv_entries(), 0u);
}

}  // namespace
}  // namespace enchilada
