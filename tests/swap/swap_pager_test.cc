// SwapPager: what each verdict promises, sharing by fork, and random histories against a model with faults.
#include "swap/swap_pager.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <thread>

#include "swap_test_support.h"

namespace enchilada {
namespace {

using swap_test::for_each_seed;
using swap_test::frames_from;
using swap_test::kOneDisk;
using swap_test::put;
using swap_test::Random;
using swap_test::Rig;
using swap_test::rounds;

SwapBlock block_of(Rig& rig, const PagerHandle& handle, std::uint64_t index) {
  SwapBlock block = kNoBlock;
  rig.pager->visit(handle, [&](PageIndex at, const SwapCopy& copy) {
    if (at.value() == index) block = copy.block;
    return true;
  });
  return block;
}

TEST(SwapPager, RoundTrip) {
  Rig rig({.geometry = kOneDisk});
  ASSERT_TRUE(rig.pager->ready());
  PagerHandle handle;
  EXPECT_EQ(rig.get_one(handle, 5), PagerReturn::kFail);
  EXPECT_EQ(rig.put_one(handle, 5, 77), PagerReturn::kOk);
  EXPECT_EQ(handle.pages, 1u);
  EXPECT_EQ(rig.get_one(handle, 5), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(77));
  EXPECT_EQ(rig.get_one(handle, 5), PagerReturn::kOk) << "the copy stays";
  EXPECT_EQ(rig.space->used().value(), 1u);
  rig.pager->forget_all(handle);
  EXPECT_EQ(handle.root, nullptr);
  EXPECT_EQ(handle.pages, 0u);
  EXPECT_EQ(rig.space->used().value(), 0u);
}

TEST(SwapPager, AnUnchangedPageIsCleanWithoutWriting) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 0, 1), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 0, 1), PagerReturn::kClean);
  EXPECT_EQ(rig.disks[0]->writes(), 1u);
  EXPECT_EQ(rig.counters.swap_clean.load(), 1u);
  EXPECT_EQ(rig.put_one(handle, 0, 2), PagerReturn::kOk);
  EXPECT_EQ(rig.disks[0]->writes(), 2u);
  EXPECT_EQ(rig.space->used().value(), 1u);
}

TEST(SwapPager, ZeroPagesNeedNoBlock) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 9, 0), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 9, 0), PagerReturn::kClean);
  EXPECT_EQ(rig.space->used().value(), 0u);
  EXPECT_EQ(handle.pages, 1u);
  EXPECT_EQ(rig.get_one(handle, 9), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(0));
  EXPECT_EQ(rig.disks[0]->writes() + rig.disks[0]->reads(), 0u);
  EXPECT_EQ(rig.put_one(handle, 9, 4), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 9, 0), PagerReturn::kOk) << "and back to zeros gives the block up";
  EXPECT_EQ(rig.space->used().value(), 0u);
}

TEST(SwapPager, AClusterIsOneWriteAndOneRead) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  std::vector<std::uint64_t> patterns(64);
  for (std::size_t i = 0; i < 64; ++i) patterns[i] = i + 1;
  for (PagerReturn r : put(rig, handle, 100, patterns)) EXPECT_EQ(r, PagerReturn::kOk);
  EXPECT_EQ(rig.disks[0]->writes(), 1u);
  EXPECT_EQ(rig.counters.swapout.load(), 1u);
  EXPECT_EQ(rig.counters.swappgsout.load(), 64u);
  const auto frames = frames_from(100, 64);
  EXPECT_EQ(rig.pager->get_pages(handle, PageIndex{100}, frames), PagerReturn::kOk);
  EXPECT_EQ(rig.disks[0]->reads(), 1u);
  EXPECT_EQ(rig.counters.swapin.load(), 1u);
  EXPECT_EQ(rig.counters.swappgsin.load(), 64u);
  for (std::size_t i = 0; i < 64; ++i) EXPECT_TRUE(rig.is(frames[i], patterns[i]));
  // Only the changed ones of a second put are written, still with one call, though clean pages lie between
  // them.
  for (std::size_t i = 0; i < 64; i += 3) patterns[i] += 1000;
  const auto verdicts = put(rig, handle, 100, patterns);
  for (std::size_t i = 0; i < 64; ++i)
    EXPECT_EQ(verdicts[i], i % 3 == 0 ? PagerReturn::kOk : PagerReturn::kClean);
  EXPECT_EQ(rig.disks[0]->writes(), 2u);
  EXPECT_EQ(rig.space->used().value(), 64u);
}

TEST(SwapPager, HasPageTellsTheRunOfOneRead) {
  Rig rig({.geometry = {.device_pages = {256, 256}, .slots = 2, .stripe = 16}});
  PagerHandle handle;
  std::vector<std::uint64_t> patterns(40, 0);
  for (std::size_t i = 0; i < 40; ++i) patterns[i] = i + 1;
  static_cast<void>(put(rig, handle, 1000, patterns));
  ASSERT_EQ(block_of(rig, handle, 1000).value(), 0u);
  const auto run = rig.pager->has_page(handle, PageIndex{1020}, PageCount{64}, PageCount{64});
  EXPECT_TRUE(run.present);
  EXPECT_EQ(run.before.value(), 4u) << "the stripe's start";
  EXPECT_EQ(run.after.value(), 11u) << "the stripe's end";
  const auto clipped = rig.pager->has_page(handle, PageIndex{1020}, PageCount{2}, PageCount{3});
  EXPECT_EQ(clipped.before.value(), 2u);
  EXPECT_EQ(clipped.after.value(), 3u);
  EXPECT_FALSE(rig.pager->has_page(handle, PageIndex{1040}, PageCount{9}, PageCount{9}).present);
  EXPECT_EQ(rig.put_one(handle, 1022, 0), PagerReturn::kOk);
  EXPECT_EQ(rig.pager->has_page(handle, PageIndex{1020}, PageCount{64}, PageCount{64}).after.value(), 1u);
  PagerHandle edge;
  EXPECT_EQ(rig.put_one(edge, 0, 5), PagerReturn::kOk);
  EXPECT_EQ(rig.pager->has_page(edge, PageIndex{0}, PageCount{64}, PageCount{64}).before.value(), 0u);
}

TEST(SwapPager, AFailedWriteKeepsNoCopyAndNoBlock) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 3, 1), PagerReturn::kOk);
  rig.faults[0]->fail_write_in(1);
  EXPECT_EQ(rig.put_one(handle, 3, 2), PagerReturn::kError);
  EXPECT_EQ(rig.get_one(handle, 3), PagerReturn::kFail)
      << "neither the old nor the new contents may come back";
  EXPECT_EQ(rig.space->used().value(), 0u);
  EXPECT_EQ(handle.pages, 0u);
  EXPECT_EQ(rig.counters.io_errors.load(), 1u);
  EXPECT_EQ(rig.put_one(handle, 3, 2), PagerReturn::kOk) << "the next try may succeed";
  rig.faults[0]->set_full(true);
  EXPECT_EQ(rig.put_one(handle, 3, 9), PagerReturn::kFail);
  EXPECT_EQ(rig.space->used().value(), 0u);
}

TEST(SwapPager, DamageIsNoticed) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 3, 1), PagerReturn::kOk);
  rig.faults[0]->set_corrupt_reads(true);
  EXPECT_EQ(rig.get_one(handle, 3), PagerReturn::kError);
  EXPECT_EQ(rig.pager->stats().fingerprint_bad.load(), 1u);
  rig.faults[0]->set_corrupt_reads(false);
  rig.faults[0]->fail_read_in(1);
  EXPECT_EQ(rig.get_one(handle, 3), PagerReturn::kError);
  EXPECT_EQ(rig.get_one(handle, 3), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(1));
}

TEST(SwapPager, FullSwapReusesTheBlocksOfStaleCopies) {
  Rig rig({.geometry = {.device_pages = {16}, .slots = 1}});
  PagerHandle handle;
  std::vector<std::uint64_t> patterns(16);
  for (std::size_t i = 0; i < 16; ++i) patterns[i] = i + 1;
  for (PagerReturn r : put(rig, handle, 0, patterns)) EXPECT_EQ(r, PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 16, 99), PagerReturn::kFail);
  EXPECT_EQ(rig.pager->stats().no_space.load(), 1u);
  for (auto& p : patterns) p += 100;
  for (PagerReturn r : put(rig, handle, 0, patterns)) EXPECT_EQ(r, PagerReturn::kOk);
  EXPECT_EQ(rig.space->used().value(), 16u);
}

TEST(SwapPager, NearlyFullHasTwoMarks) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  std::uint64_t index = 0;
  const auto fill_until_free = [&](std::uint64_t free) {
    while (rig.space->available().value() > free) {
      ASSERT_EQ(rig.put_one(handle, index, index + 1), PagerReturn::kOk);
      ++index;
    }
  };
  fill_until_free(128);
  EXPECT_FALSE(rig.pager->nearly_full());
  fill_until_free(127);
  EXPECT_TRUE(rig.pager->nearly_full());
  rig.pager->forget(handle, PageIndex{0}, PageCount{385});
  EXPECT_TRUE(rig.pager->nearly_full());
  rig.pager->forget(handle, PageIndex{385}, PageCount{1});
  EXPECT_FALSE(rig.pager->nearly_full());
}

TEST(SwapPager, ExhaustedMetadataIsARefusal) {
  Rig rig({.geometry = kOneDisk, .metadata_bytes = 80000});
  PagerHandle handle;
  std::uint64_t stored = 0;
  while (stored < 2000 && rig.put_one(handle, stored * 16, stored + 1) == PagerReturn::kOk) ++stored;
  ASSERT_GT(stored, 10u);
  ASSERT_LT(stored, 2000u);
  EXPECT_EQ(rig.pager->stats().no_metadata.load(), 1u);
  EXPECT_EQ(rig.space->used().value(), stored);
  EXPECT_EQ(rig.put_one(handle, 1, 5), PagerReturn::kOk) << "a page of an existing leaf still fits";
  // A move that doubles the leaves must succeed all the same.
  EXPECT_EQ(rig.put_one(handle, 15, 6), PagerReturn::kOk);
  for (std::uint64_t i = 0; i < stored; ++i)
    EXPECT_EQ(rig.put_one(handle, i * 16 + 15, i + 5000), PagerReturn::kOk);
  PagerHandle dest;
  rig.pager->transfer(handle, PageIndex{0}, PageCount{1 << 20}, dest);
  PagerHandle shifted;
  rig.pager->transfer(dest, PageIndex{0}, PageCount{~std::uint64_t{0}}, shifted);
  PagerHandle odd;
  rig.pager->transfer(shifted, PageIndex{7}, PageCount{1 << 20}, odd);
  EXPECT_TRUE(rig.pager->verify(odd));
  EXPECT_EQ(rig.get_one(odd, 9 * 16 - 7), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(10));
  rig.pager->forget_all(odd);
  EXPECT_EQ(rig.space->used().value(), 0u);
}

TEST(SwapPager, NoMetadataAtAllRefusesEverything) {
  Rig rig({.geometry = kOneDisk, .metadata_bytes = 1000});
  EXPECT_FALSE(rig.pager->ready());
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 0, 1), PagerReturn::kFail);
  EXPECT_EQ(rig.get_one(handle, 0), PagerReturn::kFail);
  EXPECT_FALSE(rig.pager->has_page(handle, PageIndex{0}, PageCount{0}, PageCount{0}).present);
}

TEST(SwapPager, TheFarEndOfAnObject) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  const std::uint64_t far = ~std::uint64_t{0};
  EXPECT_EQ(rig.put_one(handle, far, 1), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 0, 2), PagerReturn::kOk);
  PageIndex found;
  EXPECT_TRUE(rig.pager->find_least(handle, PageIndex{1}, &found));
  EXPECT_EQ(found.value(), far);
  rig.pager->forget(handle, PageIndex{1}, PageCount{far});
  EXPECT_FALSE(rig.pager->find_least(handle, PageIndex{1}, &found));
  EXPECT_EQ(handle.pages, 1u);
  rig.pager->forget_all(handle);
}

/// Two processes after a fork: both read the old copy, and neither's new copy disturbs the other.
TEST(SwapPager, ProcessForkSharesCopies) {
  Rig rig({.geometry = kOneDisk});
  PagerHandle handle;
  EXPECT_EQ(rig.put_one(handle, 1, 11), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 2, 22), PagerReturn::kOk);
  EXPECT_EQ(rig.put_one(handle, 3, 0), PagerReturn::kOk);
  rig.pager->quiesce_for_fork();
  rig.space->clone_holder(0, 9);
  const pid_t pid = fork();
  if (pid == 0) {
    rig.pager->on_process_fork_child(9);
    int bad = 0;
    bad += rig.put_one(handle, 1, 111) != PagerReturn::kOk;
    bad += rig.get_one(handle, 2) != PagerReturn::kOk || !rig.got(22);
    bad += rig.put_one(handle, 2, 22) != PagerReturn::kClean;  // same seed: the fingerprint is still good
    bad += rig.get_one(handle, 1) != PagerReturn::kOk || !rig.got(111);
    rig.pager->forget(handle, PageIndex{2}, PageCount{1});
    bad += !rig.pager->verify(handle);
    _exit(bad);
  }
  rig.pager->resume_after_fork();
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(rig.space->used().value(), 3u) << "1 and 2 are ours, the child's new 1 is still its own";
  EXPECT_EQ(rig.get_one(handle, 1), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(11));
  EXPECT_EQ(rig.get_one(handle, 2), PagerReturn::kOk);
  EXPECT_TRUE(rig.got(22));
  rig.space->drop_holder(9);
  EXPECT_EQ(rig.space->used().value(), 2u);
  EXPECT_TRUE(rig.space->verify());
  EXPECT_TRUE(rig.pager->verify(handle));
}

/// The pager on a real file, with direct I/O where the file system has it: one system call a cluster.
TEST(SwapPager, OnAFileWithDirectIo) {
  Rig rig({.geometry = kOneDisk});
  char name[] = "/tmp/enchilada_pager_XXXXXX";
  int fd = mkostemp(name, O_DIRECT);
  if (fd < 0) {
    std::memcpy(name + sizeof name - 7, "XXXXXX", 6);
    fd = mkostemp(name, 0);
  }
  ASSERT_GE(fd, 0);
  unlink(name);
  FileSwapDevice file(fd, ByteCount{kPageSize}, PageCount{2048});
  SwapDevice* const devices[] = {&file};
  SwapPager pager({.space = *rig.space,
                   .holder = 0,
                   .devices = devices,
                   .phys = rig.frames,
                   .counters = rig.counters,
                   .arena = rig.arena,
                   .seed = 7});
  PagerHandle handle;
  const auto frames = frames_from(0, 64);
  for (std::uint64_t round = 0; round < 20; ++round) {
    for (const FrameNumber f : frames) rig.fill(f, round * 100 + f.value() + 1);
    std::vector<PagerReturn> verdicts(64);
    pager.put_pages(handle, PageIndex{round * 64}, frames, verdicts);
    for (const PagerReturn r : verdicts) ASSERT_EQ(r, PagerReturn::kOk);
  }
  EXPECT_EQ(file.calls(), 20u);
  for (std::uint64_t round = 0; round < 20; ++round) {
    ASSERT_EQ(pager.get_pages(handle, PageIndex{round * 64}, frames), PagerReturn::kOk);
    for (const FrameNumber f : frames) ASSERT_TRUE(rig.is(f, round * 100 + f.value() + 1));
  }
  EXPECT_EQ(file.calls(), 40u);
  pager.forget_all(handle);
  close(fd);
}

/// A device whose reads begin when as many others have.
class MeetingDevice final : public SwapDevice {
 public:
  MeetingDevice(SwapDevice& below, int wanted) : below_(below), wanted_(wanted) {}
  [[nodiscard]] PageCount size() const override { return below_.size(); }
  IoResult read(std::uint64_t first, std::span<const IoSlice> to) override { return below_.read(first, to); }
  IoResult write(std::uint64_t first, std::span<const IoSlice> from) override {
    return below_.write(first, from);
  }
  [[nodiscard]] bool begin_read(std::uint64_t first, const IoSlice& to, SwapRead& read) override {
    read = {first, to};
    ++inside;
    for (int i = 0; i < 10'000 && inside < wanted_; ++i) usleep(1000);
    return true;
  }
  std::atomic<int> inside{0};

 private:
  SwapDevice& below_;
  int wanted_;
};

TEST(SwapPager, TwoReadsHaveTheirWorkDoneAndOneOfThemWrites) {
  Rig rig({.geometry = kOneDisk});
  MeetingDevice device(*rig.disks[0], 2);
  SwapDevice* const devices[] = {&device};
  SwapPager pager({.space = *rig.space,
                   .holder = 0,
                   .devices = devices,
                   .phys = rig.frames,
                   .counters = rig.counters,
                   .arena = rig.arena,
                   .seed = 7,
                   .bounce_buffers = 3});
  PagerHandle handle;
  std::vector<PagerReturn> verdicts(2);
  const auto frames = frames_from(0, 2);
  for (const FrameNumber f : frames) rig.fill(f, 1 + f.value());
  pager.put_pages(handle, PageIndex{0}, frames, verdicts);
  rig.fill(FrameNumber{2}, 9);
  std::atomic<int> worked{0};
  const auto get = [&](std::uint32_t i) {
    const FrameNumber frame{10 + i};
    const PagerReturn result = pager.get_pages_while(handle, PageIndex{i}, {&frame, 1}, [&] {
      if (worked++ != 0) return;  // one thread at a time may use the pager
      const FrameNumber dirty{2};
      PagerReturn verdict = PagerReturn::kBad;
      pager.put_pages(handle, PageIndex{7}, {&dirty, 1}, {&verdict, 1});
      EXPECT_EQ(verdict, PagerReturn::kOk);
    });
    EXPECT_EQ(result, PagerReturn::kOk);
    EXPECT_TRUE(rig.is(frame, 1 + i));
  };
  std::thread other([&] { get(1); });
  get(0);
  other.join();
  EXPECT_EQ(device.inside, 2);
  EXPECT_EQ(worked, 2);
  pager.forget_all(handle);
}

// ---- Random histories ----

using Model = std::map<std::uint64_t, std::uint64_t>;  // page index -> pattern

class History {
 public:
  History(std::uint64_t seed, SwapMetaMode mode)
      : random_(seed), rig_(options(random_, mode)), handles_(4), models_(4) {}

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      turn_knobs();
      step();
      if (random_.one_in(16)) check();
    }
    check();
    for (PagerHandle& h : handles_) rig_.pager->forget_all(h);
    rig_.pager->finish_writes();  // however bad the disk is: nobody wants any of it
    EXPECT_EQ(rig_.space->used().value(), 0u);
    EXPECT_TRUE(rig_.space->verify());
  }

 private:
  static Rig::Options options(Random& random, SwapMetaMode mode) {
    Rig::Options o;
    o.meta_mode = mode;
    const std::uint64_t pages = random.one_in(3) ? random.between(4, 60) : random.between(60, 700);
    o.geometry = {.device_pages = {pages}, .slots = 1};
    if (random.one_in(3))
      o.geometry = {.device_pages = {pages, pages / 2 + 1, 0, 17}, .slots = 4, .stripe = 8};
    if (random.one_in(4)) o.metadata_bytes = 40000 + random.below(60000);
    o.bounce_buffers = static_cast<unsigned>(random.between(1, 5));
    o.async_looks = static_cast<unsigned>(random.below(5));
    o.frames = 160;
    return o;
  }

  std::uint64_t index() {
    return random_.one_in(30) ? random_.below(std::uint64_t{1} << 40) : base_ + random_.below(120);
  }

  void turn_knobs() {
    if (!random_.one_in(20)) return;
    const auto rate = [&] {
      return random_.one_in(2) ? 0u : static_cast<std::uint32_t>(random_.below(20000));
    };
    for (auto& f : rig_.faults) {
      f->set_failure_rate(rate(), rate());
      f->set_full(random_.one_in(10));
      f->set_short_writes(random_.one_in(2));
      f->set_corrupt_reads(random_.one_in(10));
    }
  }

  void step() {
    const std::size_t o = random_.below(handles_.size());
    switch (random_.below(10)) {
      case 0:
      case 1:
      case 2:
        return put_some(o);
      case 3:
      case 4:
      case 5:
        return get_some(o);
      case 6:
        return forget_some(o);
      case 7:
        return random_.one_in(2) ? transfer_some(o) : split_some(o);
      default:
        return look(o);
    }
  }

  /// Frames in runs and shuffled, so that both ways of with_frames are used.
  std::vector<FrameNumber> pick_frames(std::size_t n) {
    auto frames = frames_from(static_cast<std::uint32_t>(random_.below(160 - n + 1)), n);
    for (std::size_t i = 0; i + 1 < n; ++i) {
      if (random_.one_in(6)) std::swap(frames[i], frames[i + random_.below(n - i)]);
    }
    return frames;
  }

  void put_some(std::size_t o) {
    Model& model = models_[o];
    const std::uint64_t first = index();
    const std::size_t n = random_.one_in(8) ? random_.between(65, 150) : random_.between(1, 30);
    const auto frames = pick_frames(n);
    std::vector<std::uint64_t> patterns(n);
    for (std::size_t i = 0; i < n; ++i) {
      const auto old = model.find(first + i);
      if (old != model.end() && random_.one_in(2))
        patterns[i] = old->second;
      else
        patterns[i] = random_.one_in(6) ? 0 : random_.bits() | 1;
      rig_.fill(frames[i], patterns[i]);
    }
    std::vector<PagerReturn> verdicts(n, PagerReturn::kBad);
    rig_.pager->put_pages(handles_[o], PageIndex{first}, frames, verdicts);
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_TRUE(rig_.is(frames[i], patterns[i])) << "put changed a frame";
      const auto old = model.find(first + i);
      const bool same = old != model.end() && old->second == patterns[i];
      switch (verdicts[i]) {
        case PagerReturn::kOk:
          EXPECT_FALSE(same) << "an equal copy was written again";
          model[first + i] = patterns[i];
          break;
        case PagerReturn::kClean:
          EXPECT_TRUE(same);
          break;
        case PagerReturn::kFail:
        case PagerReturn::kError:
          EXPECT_FALSE(same);
          model.erase(first + i);
          break;
        case PagerReturn::kBad:
          ADD_FAILURE() << "no verdict";
      }
    }
  }

  void get_some(std::size_t o) {
    const Model& model = models_[o];
    if (model.empty()) return;
    auto it = model.lower_bound(index());
    if (it == model.end()) it = model.begin();
    const std::uint64_t first = it->first;
    const auto run = rig_.pager->has_page(handles_[o], PageIndex{first}, PageCount{0}, PageCount{100});
    ASSERT_TRUE(run.present);
    const std::size_t n =
        random_.one_in(4) ? random_.between(1, 20) : 1 + random_.below(run.after.value() + 1);
    bool all = true;
    for (std::size_t i = 0; i < n; ++i) all = all && model.count(first + i) != 0;
    const auto frames = pick_frames(n);
    const std::uint64_t injected = faults();
    const PagerReturn result = rig_.pager->get_pages(handles_[o], PageIndex{first}, frames);
    if (result == PagerReturn::kError) {
      EXPECT_GT(faults(), injected);
      return;
    }
    ASSERT_EQ(result, all ? PagerReturn::kOk : PagerReturn::kFail);
    for (std::size_t i = 0; i < n && all; ++i) ASSERT_TRUE(rig_.is(frames[i], model.at(first + i)));
  }

  std::uint64_t faults() const {
    std::uint64_t n = 0;
    for (const auto& f : rig_.faults) n += f->injected();
    return n;
  }

  void forget_some(std::size_t o) {
    if (random_.one_in(8)) {
      rig_.pager->forget_all(handles_[o]);
      models_[o].clear();
      return;
    }
    const std::uint64_t first = index();
    const std::uint64_t n = random_.below(40);
    rig_.pager->forget(handles_[o], PageIndex{first}, PageCount{n});
    models_[o].erase(models_[o].lower_bound(first), models_[o].lower_bound(first + n));
  }

  void transfer_some(std::size_t o) {
    const std::size_t d = (o + 1) % handles_.size();
    const std::uint64_t offset = random_.one_in(3) ? 0 : random_.below(60);
    const std::uint64_t size = random_.one_in(3) ? std::uint64_t{1} << 50 : random_.below(150);
    rig_.pager->transfer(handles_[o], PageIndex{offset}, PageCount{size}, handles_[d]);
    for (auto [index, pattern] : models_[o]) {
      if (index >= offset && index - offset < size) models_[d].emplace(index - offset, pattern);
    }
    models_[o].clear();
  }

  void split_some(std::size_t o) {
    const std::size_t d = (o + 1) % handles_.size();
    rig_.pager->forget_all(handles_[d]);
    models_[d].clear();
    const std::uint64_t first = index();
    const std::uint64_t n = random_.below(150);
    rig_.pager->split(handles_[o], PageIndex{first}, PageCount{n}, handles_[d]);
    const auto from = models_[o].lower_bound(first);
    const auto to = models_[o].lower_bound(first + n);
    for (auto it = from; it != to; ++it) models_[d].emplace(it->first - first, it->second);
    models_[o].erase(from, to);
  }

  void look(std::size_t o) {
    const std::uint64_t at = index();
    PageIndex found;
    const auto it = models_[o].lower_bound(at);
    ASSERT_EQ(rig_.pager->find_least(handles_[o], PageIndex{at}, &found), it != models_[o].end());
    if (it != models_[o].end()) {
      EXPECT_EQ(found.value(), it->first);
    }
    const std::uint64_t before = random_.below(20);
    const std::uint64_t after = random_.below(20);
    const auto run = rig_.pager->has_page(handles_[o], PageIndex{at}, PageCount{before}, PageCount{after});
    ASSERT_EQ(run.present, models_[o].count(at) != 0);
    ASSERT_LE(run.before.value(), std::min(before, at));
    ASSERT_LE(run.after.value(), after);
    for (std::uint64_t i = 0; run.present && i <= run.before.value() + run.after.value(); ++i) {
      ASSERT_EQ(models_[o].count(at - run.before.value() + i), 1u);
    }
  }

  void check() {
    for (std::size_t o = 0; o < handles_.size(); ++o) {
      ASSERT_EQ(handles_[o].pages, models_[o].size());
      ASSERT_TRUE(rig_.pager->verify(handles_[o]));
    }
    std::uint64_t blocks = 0;
    for (const Model& m : models_) {
      for (auto [index, pattern] : m) blocks += pattern != 0 ? 1 : 0;
    }
    ASSERT_EQ((rig_.space->used() - rig_.pager->given_up()).value(), blocks) << "blocks leaked or lost";
    if (random_.one_in(20)) base_ = random_.below(300);
  }

  Random random_;
  Rig rig_;
  std::vector<PagerHandle> handles_;
  std::vector<Model> models_;
  std::uint64_t base_ = 0;
};

class SwapPagerModes : public testing::TestWithParam<SwapMetaMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, SwapPagerModes,
                         testing::Values(SwapMetaMode::kTrie, SwapMetaMode::kHash, SwapMetaMode::kArray3x));

TEST_P(SwapPagerModes, RandomHistoriesAgreeWithAModel) {
  for_each_seed(1, rounds(1000), [](std::uint64_t seed) { History(seed, GetParam()).run(60); });
}

TEST_P(SwapPagerModes, LongRandomHistory) {
  for_each_seed(1'000'000, rounds(5), [](std::uint64_t seed) { History(seed, GetParam()).run(3000); });
}

// ---- Threads ----

TEST(SwapPager, ThreadsPutAndGetInParallel) {
  Rig rig({.geometry = {.device_pages = {500, 500}, .slots = 2, .stripe = 32},
           .frames = 400,
           .bounce_buffers = 4,
           .async_looks = 3});
  for (auto& f : rig.faults) {
    f->set_failure_rate(500, 2000);
    f->set_delay(Nanoseconds{20'000});
  }
  PagerHandle shared;  // all threads use it, each its own pages
  const auto work = [&](std::uint32_t t) {
    Random random(t + 1);
    Model model;
    PagerHandle own;
    for (int step = 0; step < 300; ++step) {
      PagerHandle& handle = step % 2 == 0 ? shared : own;
      const std::uint64_t first = t * 1000 + random.below(100) + (step % 2 == 0 ? 0 : 100'000);
      const std::size_t n = random.between(1, 40);
      const auto frames = frames_from(t * 100, n);
      if (random.one_in(2)) {
        std::vector<std::uint64_t> patterns(n);
        for (std::size_t i = 0; i < n; ++i) rig.fill(frames[i], patterns[i] = random.below(8));
        std::vector<PagerReturn> verdicts(n);
        rig.pager->put_pages(handle, PageIndex{first}, frames, verdicts);
        for (std::size_t i = 0; i < n; ++i) {
          if (verdicts[i] == PagerReturn::kOk || verdicts[i] == PagerReturn::kClean)
            model[first + i] = patterns[i];
          else
            model.erase(first + i);
        }
      } else if (random.one_in(4)) {
        rig.pager->forget(handle, PageIndex{first}, PageCount{n});
        model.erase(model.lower_bound(first), model.lower_bound(first + n));
      } else {
        const auto run = rig.pager->has_page(handle, PageIndex{first}, PageCount{0}, PageCount{30});
        EXPECT_EQ(run.present, model.count(first) != 0);
        if (!run.present) continue;
        const auto some = frames_from(t * 100, run.after.value() + 1);
        const PagerReturn result = rig.pager->get_pages(handle, PageIndex{first}, some);
        for (std::size_t i = 0; i < some.size() && result == PagerReturn::kOk; ++i) {
          EXPECT_TRUE(rig.is(some[i], model.at(first + i)));
        }
      }
    }
    rig.pager->forget_all(own);
  };
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) threads.emplace_back(work, t);
  for (auto& t : threads) t.join();
  EXPECT_TRUE(rig.pager->verify(shared));
  EXPECT_GT(rig.counters.swap_behind.load(), 0u);
  EXPECT_GT(rig.counters.swap_unread.load(), 0u);
  rig.pager->forget_all(shared);
  rig.pager->finish_writes();
  EXPECT_EQ(rig.space->used().value(), 0u);
  EXPECT_TRUE(rig.space->verify());
}

/// A fork in the middle of other threads' I/O finds the pager at rest.
TEST(SwapPager, QuiesceWaitsForIo) {
  Rig rig({.geometry = kOneDisk, .bounce_buffers = 4, .async_looks = 2});
  rig.faults[0]->set_delay(Nanoseconds{200'000});
  std::atomic<bool> stop{false};
  PagerHandle handle;
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 1; !stop; ++i) {
        const FrameNumber frame{t};
        rig.fill(frame, i);
        PagerReturn verdict{};
        rig.pager->put_pages(handle, PageIndex{t * 64 + i % 10}, {&frame, 1}, {&verdict, 1});
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    rig.pager->quiesce_for_fork();
    rig.space->clone_holder(0, 1);
    const std::uint64_t ours = rig.space->used().value();
    rig.space->drop_holder(1);
    EXPECT_EQ(rig.space->used().value(), ours);
    EXPECT_EQ(ours, handle.pages) << "no block is in flight";
    rig.pager->resume_after_fork();
  }
  stop = true;
  for (auto& t : threads) t.join();
  EXPECT_TRUE(rig.pager->verify(handle));
}

}  // namespace
}  // namespace enchilada
