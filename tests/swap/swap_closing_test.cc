// Devices that come and go under a SwapSpace, with every allocator; and the marks of a space that fills.
#include <gtest/gtest.h>

#include <set>

#include "swap/swap_marks.h"
#include "swap/swap_space.h"
#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::Random;
using swap_test::rounds;
using swap_test::SharedMemory;

class SwapClosing : public testing::TestWithParam<SwapAllocatorMode> {
 protected:
  SwapSpace make(const SwapGeometry& g) {
    memory_ = std::make_unique<SharedMemory>(SwapSpace::required_bytes(g, GetParam()));
    EXPECT_TRUE(SwapSpace::create(memory_->span(), g, GetParam()));
    return *SwapSpace::attach(memory_->span(), 0, {});
  }
  std::unique_ptr<SharedMemory> memory_;
};
INSTANTIATE_TEST_SUITE_P(Allocators, SwapClosing,
                         testing::Values(SwapAllocatorMode::kBlist, SwapAllocatorMode::kBlist1999,
                                         SwapAllocatorMode::kList3x));

constexpr SwapGeometry kTwo{.device_pages = {256, 256}, .slots = 2, .stripe = 16};

std::uint64_t fill(SwapSpace& space, unsigned device, std::vector<BlockRun>* taken) {
  std::uint64_t there = 0;
  for (BlockRun run = space.allocate(0, PageCount{16}); !run.empty();
       run = space.allocate(0, PageCount{16})) {
    taken->push_back(run);
    if (space.geometry().locate(run.first).device == device) there += run.count.value();
  }
  return there;
}

TEST_P(SwapClosing, AClosingDeviceGivesNoBlocksAndTakesNoneBack) {
  SwapSpace space = make(kTwo);
  const BlockRun first = space.allocate(0, PageCount{16});
  ASSERT_EQ(space.geometry().locate(first.first).device, 0u);
  ASSERT_TRUE(space.begin_close(0));
  EXPECT_TRUE(space.closing(0));
  EXPECT_FALSE(space.begin_close(0)) << "once is enough";
  EXPECT_EQ(space.capacity().value(), 256u);
  EXPECT_EQ(space.available().value(), 256u);
  EXPECT_EQ(space.used_on(0).value(), 16u);
  EXPECT_TRUE(space.verify());
  std::vector<BlockRun> taken;
  EXPECT_EQ(fill(space, 0, &taken), 0u);
  EXPECT_EQ(space.available().value(), 0u);
  space.release(0, first);
  EXPECT_EQ(space.available().value(), 0u) << "what is given up there stays out";
  EXPECT_TRUE(space.allocate(0, PageCount{1}).empty());
  EXPECT_TRUE(space.verify());
  EXPECT_TRUE(space.finish_close(0));
  EXPECT_EQ(space.device_pages(0).value(), 0u);
  EXPECT_FALSE(space.begin_close(0)) << "it is not there";
  EXPECT_TRUE(space.verify());
}

TEST_P(SwapClosing, ADeviceInUseCannotGo) {
  SwapSpace space = make(kTwo);
  const BlockRun run = space.allocate(0, PageCount{4});
  space.clone_holder(0, 9);
  ASSERT_TRUE(space.begin_close(0));
  space.release(0, run);
  EXPECT_FALSE(space.finish_close(0)) << "another process has them";
  EXPECT_EQ(space.used_on(0).value(), 4u);
  space.drop_holder(9);
  EXPECT_TRUE(space.finish_close(0));
  EXPECT_EQ(space.used().value(), 0u);
  EXPECT_TRUE(space.verify());
}

TEST_P(SwapClosing, ADeviceThatStaysIsAsBefore) {
  SwapSpace space = make(kTwo);
  const BlockRun run = space.allocate(0, PageCount{16});
  ASSERT_TRUE(space.begin_close(0));
  space.release(0, {run.first, PageCount{5}});
  space.cancel_close(0);
  EXPECT_EQ(space.capacity().value(), 512u);
  EXPECT_EQ(space.available().value(), 512u - 11);
  EXPECT_TRUE(space.verify());
  std::vector<BlockRun> taken;
  EXPECT_EQ(fill(space, 0, &taken), 256u - 11);
}

TEST_P(SwapClosing, ADeviceMayComeLaterAndBeLarger) {
  SwapSpace space = make({.device_pages = {100}, .slots = 4, .stripe = 16, .room = 1000});
  EXPECT_EQ(space.capacity().value(), 100u);
  EXPECT_FALSE(space.open_device(0, PageCount{10})) << "this slot is taken";
  EXPECT_FALSE(space.open_device(2, PageCount{2000})) << "there are no numbers for so many";
  EXPECT_FALSE(space.open_device(4, PageCount{10}));
  const BlockRun run = space.allocate(0, PageCount{16});
  ASSERT_TRUE(space.open_device(2, PageCount{900}));
  EXPECT_EQ(space.capacity().value(), 1000u);
  EXPECT_EQ(space.available().value(), 1000u - run.count.value());
  EXPECT_TRUE(space.verify());
  std::vector<BlockRun> taken;
  EXPECT_EQ(fill(space, 2, &taken), 900u);
}

/// Four slots whose devices come and go, and what a set of blocks says of them.
class DeviceHistory {
 public:
  DeviceHistory(std::uint64_t seed, SwapAllocatorMode mode)
      : random_(seed),
        g_{.device_pages = {random_.between(1, 300), 0, random_.between(1, 200)},
           .slots = 4,
           .stripe = std::uint64_t{1} << random_.below(7),
           .room = 400},
        memory_(SwapSpace::required_bytes(g_, mode)),
        pages_(g_.device_pages) {
    EXPECT_TRUE(SwapSpace::create(memory_.span(), g_, mode));
    space_ = SwapSpace::attach(memory_.span(), 0, {});
  }

  void run() {
    for (int step = 0; step < 200 && !testing::Test::HasFailure(); ++step) {
      const auto d = static_cast<unsigned>(random_.below(4));
      switch (random_.below(8)) {
        case 0:
          open(d);
          break;
        case 1:
          EXPECT_EQ(space_->begin_close(d), pages_[d] != 0 && !closing_[d]);
          closing_[d] = closing_[d] || pages_[d] != 0;
          break;
        case 2:
          if (closing_[d]) space_->cancel_close(d);
          closing_[d] = false;
          break;
        case 3:
          finish(d);
          break;
        case 4:
        case 5:
          allocate();
          break;
        default:
          release();
      }
      check(step % 8 == 0);
    }
  }

 private:
  unsigned device_of(std::uint32_t b) const { return g_.locate(SwapBlock{b}).device; }
  std::uint64_t held_on(unsigned d) const {
    return static_cast<std::uint64_t>(
        std::count_if(held_.begin(), held_.end(), [&](std::uint32_t b) { return device_of(b) == d; }));
  }

  void open(unsigned d) {
    const std::uint64_t n = random_.between(1, 450);
    const bool may = pages_[d] == 0 && n <= g_.device_room();
    EXPECT_EQ(space_->open_device(d, PageCount{n}), may);
    if (may) pages_[d] = n;
  }
  void finish(unsigned d) {
    if (!closing_[d]) return;
    EXPECT_EQ(space_->finish_close(d), held_on(d) == 0);
    if (held_on(d) != 0) return;
    pages_[d] = 0;
    closing_[d] = false;
  }
  void allocate() {
    const BlockRun run = space_->allocate(0, PageCount{random_.between(1, 40)});
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      const std::uint32_t b = (run.first + PageCount{i}).value();
      EXPECT_TRUE(held_.insert(b).second);
      EXPECT_FALSE(closing_[device_of(b)]);
      EXPECT_LT(g_.locate(SwapBlock{b}).block, pages_[device_of(b)]);
    }
  }
  void release() {
    for (std::uint64_t n = random_.below(20); n > 0 && !held_.empty(); --n) {
      auto it = held_.lower_bound(static_cast<std::uint32_t>(random_.below(1600)));
      if (it == held_.end()) it = held_.begin();
      space_->release(0, {SwapBlock{*it}, PageCount{1}});
      held_.erase(it);
    }
  }
  void check(bool all) const {
    std::uint64_t capacity = 0;
    std::uint64_t open_held = 0;
    for (unsigned i = 0; i < 4; ++i) {
      capacity += closing_[i] ? 0 : pages_[i];
      open_held += closing_[i] ? 0 : held_on(i);
    }
    ASSERT_EQ(space_->capacity().value(), capacity);
    ASSERT_EQ(space_->used().value(), held_.size());
    ASSERT_EQ((space_->available() + space_->lost()).value(), capacity - open_held);
    if (all) {
      ASSERT_TRUE(space_->verify());
    }
  }

  Random random_;
  SwapGeometry g_;
  SharedMemory memory_;
  std::optional<SwapSpace> space_;
  std::array<std::uint64_t, 4> pages_;
  std::array<bool, 4> closing_{};
  std::set<std::uint32_t> held_;
};

TEST_P(SwapClosing, RandomComingsAndGoingsAgreeWithAModel) {
  for_each_seed(1, rounds(150), [](std::uint64_t seed) { DeviceHistory(seed, GetParam()).run(); });
}

// ---- Marks ----

constexpr PageCount kLarge{100'000};

TEST(SwapMarks, AlmostFullBelow128AndUntilMoreThan512) {
  SwapMarks marks;
  EXPECT_EQ(marks.note_free(PageCount{128}, kLarge), SwapLevel::kPlenty);
  EXPECT_EQ(marks.note_free(PageCount{127}, kLarge), SwapLevel::kAlmostFull);
  EXPECT_EQ(marks.note_free(PageCount{512}, kLarge), SwapLevel::kAlmostFull);
  EXPECT_EQ(marks.note_free(PageCount{513}, kLarge), SwapLevel::kPlenty);
  EXPECT_EQ(marks.note_free(PageCount{200}, kLarge), SwapLevel::kPlenty) << "not before the low mark again";
  EXPECT_EQ(marks.times(SwapLevel::kAlmostFull), 1u);
  EXPECT_EQ(marks.times(SwapLevel::kPlenty), 1u);
}

TEST(SwapMarks, ARefusalMakesItFullUntilTheLowMark) {
  SwapMarks marks;
  marks.note_refusal();
  marks.note_refusal();
  EXPECT_EQ(marks.level(), SwapLevel::kFull);
  EXPECT_EQ(marks.times(SwapLevel::kFull), 1u);
  EXPECT_EQ(marks.note_free(PageCount{100}, kLarge), SwapLevel::kFull);
  EXPECT_EQ(marks.note_free(PageCount{128}, kLarge), SwapLevel::kAlmostFull);
  EXPECT_EQ(marks.note_free(PageCount{600}, kLarge), SwapLevel::kPlenty);
}

TEST(SwapMarks, SmallSpacesHaveSmallMarks) {
  SwapMarks marks;
  EXPECT_EQ(marks.note_free(PageCount{8}, PageCount{64}), SwapLevel::kPlenty);
  EXPECT_EQ(marks.note_free(PageCount{7}, PageCount{64}), SwapLevel::kAlmostFull);
  EXPECT_EQ(marks.note_free(PageCount{17}, PageCount{64}), SwapLevel::kPlenty);
}

TEST(SwapMarks, ThePagerSaysWhenSwapIsShort) {
  swap_test::Rig rig({.geometry = {.device_pages = {64}, .slots = 1}});
  PagerHandle h;
  EXPECT_FALSE(rig.pager->nearly_full());
  for (std::uint64_t i = 0; i < 57; ++i) EXPECT_EQ(rig.put_one(h, i, i + 1), PagerReturn::kOk);
  EXPECT_TRUE(rig.pager->nearly_full());
  rig.pager->forget(h, PageIndex{0}, PageCount{9});
  EXPECT_TRUE(rig.pager->nearly_full()) << "16 of 64 are the high mark itself";
  rig.pager->forget(h, PageIndex{9}, PageCount{1});
  EXPECT_FALSE(rig.pager->nearly_full());
  for (std::uint64_t i = 100; i < 117; ++i) EXPECT_EQ(rig.put_one(h, i, i + 1), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(h, 200, 5), PagerReturn::kFail);
  EXPECT_EQ(rig.pager->marks().level(), SwapLevel::kFull);
}

}  // namespace
}  // namespace enchilada
