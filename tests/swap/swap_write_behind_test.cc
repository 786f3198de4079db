// SwapPager, writing behind: what is read, given up, forked and lost while a device still writes.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "swap/swap_pager.h"
#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::frames_from;
using swap_test::kOneDisk;
using swap_test::put;
using swap_test::Rig;

/// A rig whose writes take place only when they are waited for (or have been looked for very often).
Rig::Options behind_options() {
  return {.geometry = kOneDisk, .async_looks = 1000};
}

TEST(WriteBehind, PagesThatAreBeingWrittenAreReadFromTheBuffer) {
  Rig rig(behind_options());
  PagerHandle handle;
  for (PagerReturn r : put(rig, handle, 10, {5, 6, 7})) EXPECT_EQ(r, PagerReturn::kOk);
  EXPECT_EQ(rig.disks[0]->writes(), 0u);
  EXPECT_EQ(rig.get_one(handle, 11), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(6));
  EXPECT_EQ(rig.disks[0]->reads(), 0u);
  EXPECT_EQ(rig.counters.swap_unread.load(), 1u);
  rig.pager->finish_writes();
  EXPECT_EQ(rig.disks[0]->writes(), 1u);
  EXPECT_EQ(rig.get_one(handle, 12), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(7));
  EXPECT_EQ(rig.disks[0]->reads(), 1u);
}

TEST(WriteBehind, OneReadMixesBufferAndDevice) {
  Rig rig(behind_options());
  PagerHandle handle;
  static_cast<void>(put(rig, handle, 0, {1, 2}));
  rig.pager->finish_writes();
  static_cast<void>(put(rig, handle, 2, {3, 0, 5}));
  const auto frames = frames_from(20, 5);
  EXPECT_EQ(rig.pager->get_pages(handle, PageIndex{0}, frames), PagerReturn::kOk);
  for (std::uint64_t i = 0; i < 5; ++i) EXPECT_TRUE(rig.is(frames[i], i == 3 ? 0 : i + 1)) << i;
}

TEST(WriteBehind, AnEqualPageIsCleanBeforeItsWriteHasEnded) {
  Rig rig(behind_options());
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 1, 5), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 1, 5), PagerReturn::kClean);
}

/// Were the block released at once, its next owner's write and ours would race.
TEST(WriteBehind, ABlockGivenUpMeanwhileIsReleasedWhenItsWriteHasEnded) {
  Rig rig(behind_options());
  PagerHandle handle;
  static_cast<void>(put(rig, handle, 0, {1, 2, 3}));
  rig.pager->forget(handle, PageIndex{1}, PageCount{1});
  EXPECT_EQ(rig.put_one(handle, 2, 33), PagerReturn::kOk);  // a new block; the old one is given up
  EXPECT_EQ(rig.pager->given_up().value(), 2u);
  EXPECT_EQ(rig.space->used().value(), 4u);
  rig.pager->finish_writes();
  EXPECT_EQ(rig.pager->given_up().value(), 0u);
  EXPECT_EQ(rig.space->used().value(), 2u);
  EXPECT_EQ(rig.get_one(handle, 2), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(33));
}

TEST(WriteBehind, AFailedWriteIsKeptUntilTheDeviceWorksAgain) {
  Rig rig(behind_options());
  PagerHandle handle;
  static_cast<void>(put(rig, handle, 0, {1, 2, 3}));
  rig.faults[0]->set_failure_rate(0, 65536);
  rig.pager->finish_writes();
  rig.pager->finish_writes();
  EXPECT_EQ(rig.pager->stats().write_errors.load(), 2u);
  EXPECT_EQ(rig.get_one(handle, 1), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(2)) << "the buffer is all there is";
  rig.faults[0]->set_failure_rate(0, 0);
  rig.pager->finish_writes();
  EXPECT_EQ(rig.disks[0]->writes(), 1u);
  EXPECT_EQ(rig.get_one(handle, 1), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(2));
  EXPECT_EQ(rig.disks[0]->reads(), 1u);
}

TEST(WriteBehind, WithAllBuffersStuckPutsAnswerForThemselves) {
  Rig rig(behind_options());
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 0, 1), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 1, 2), PagerReturn::kOk);
  EXPECT_TRUE(rig.pager->put_would_wait());
  rig.faults[0]->set_failure_rate(0, 65536);
  EXPECT_EQ(rig.put_one(handle, 2, 3), PagerReturn::kError);
  rig.faults[0]->set_full(true);
  EXPECT_EQ(rig.put_one(handle, 3, 4), PagerReturn::kFail);
  for (std::uint64_t i = 0; i < 2; ++i) {
    EXPECT_EQ(rig.get_one(handle, i), PagerReturn::kOk);
    EXPECT_TRUE(rig.got(i + 1));
  }
  rig.faults[0]->set_full(false);
  rig.faults[0]->set_failure_rate(0, 0);
  EXPECT_EQ(rig.put_one(handle, 2, 3), PagerReturn::kOk);
  rig.pager->finish_writes();
  EXPECT_FALSE(rig.pager->put_would_wait());
}

/// Nothing keeps a full space from the blocks that were given up while they were written.
TEST(WriteBehind, AFullSpaceGetsGivenUpBlocksBack) {
  Rig rig({.geometry = {.device_pages = {4}, .slots = 1}, .async_looks = 1000});
  PagerHandle handle;
  for (std::uint64_t pattern = 1; pattern < 10; ++pattern) {
    for (PagerReturn r : put(rig, handle, 0, {pattern, pattern + 10, pattern + 20})) {
      EXPECT_TRUE(r == PagerReturn::kOk) << pattern;
    }
  }
  for (std::uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.get_one(handle, i), PagerReturn::kOk);
    EXPECT_TRUE(rig.got(9 + 10 * i));
  }
}

/// The child cannot wait for the parent's writes. It has what they write, and writes it again.
TEST(WriteBehind, AForkedChildKeepsWhatItsParentWasWriting) {
  Rig rig(behind_options());
  PagerHandle handle;
  static_cast<void>(put(rig, handle, 0, {1, 2, 3}));
  rig.space->clone_holder(0, 9);
  const pid_t pid = fork();
  if (pid == 0) {
    rig.pager->on_process_fork_child(9);
    int bad = rig.get_one(handle, 1) != PagerReturn::kOk || !rig.got(2);
    rig.pager->forget(handle, PageIndex{2}, PageCount{1});
    rig.pager->finish_writes();
    bad += rig.pager->given_up().value() != 0;
    bad += rig.get_one(handle, 0) != PagerReturn::kOk || !rig.got(1);
    bad += !rig.pager->verify(handle);
    _exit(bad);
  }
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  rig.pager->finish_writes();
  rig.space->drop_holder(9);
  EXPECT_EQ(rig.space->used().value(), 3u);
  for (std::uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(rig.get_one(handle, i), PagerReturn::kOk);
    EXPECT_TRUE(rig.got(i + 1));
  }
}

}  // namespace
}  // namespace enchilada
