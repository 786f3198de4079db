// Images of ranges: what they hold never changes, restoring brings it back, here or elsewhere, and costs what
// was written; against a flat model, with tiny memory and swap.
#include "vm/vm_map_image.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "machine/soft_engine.h"
#include "map_machine.h"
#include "validate/validate.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kRegion = 48;  // pages
constexpr std::uint64_t kRegions = 4;

SoftEngineOptions engine_options(std::uint64_t frames) {
  SoftEngineOptions options;
  options.machine.memory.frames = PageCount{frames};
  options.machine.arena_bytes = std::size_t{16} << 20;
  options.swap_pages = {4096, 1024};
  return options;
}

class ImageRig {
 public:
  explicit ImageRig(std::uint64_t frames = 4096) : engine_(engine_options(frames)) {
    map_ = engine_.create_map(PageCount{2048});
  }

  /// Regions lie 16 pages apart, so that entries of two never merge.
  [[nodiscard]] VirtRange region(std::uint64_t r, std::uint64_t pages = kRegion) const {
    const VirtAddr start = map_->bounds().start + ByteCount{r * (kRegion + 16) * kPageSize};
    return {start, start + ByteCount{pages * kPageSize}};
  }
  void map_region(std::uint64_t r) {
    VirtAddr at;
    ASSERT_EQ(map_->map({.length = region(r).size(),
                         .hint = region(r).start,
                         .placement = VmMap::MapRequest::Placement::kFixedReplace},
                        &at),
              KernReturn::kSuccess);
  }
  void write(std::uint64_t r, std::uint64_t page, std::uint64_t value) {
    const std::span<const std::uint64_t> one(&value, 1);
    ASSERT_EQ(engine_.machine().store(*map_, at(r, page), std::as_bytes(one)).result, FaultResult::kResolved);
  }
  std::uint64_t read(std::uint64_t r, std::uint64_t page) {
    std::uint64_t value = 0;
    EXPECT_EQ(engine_.machine().load(*map_, at(r, page), std::as_writable_bytes(std::span(&value, 1))).result,
              FaultResult::kResolved);
    return value;
  }
  std::unique_ptr<MapImage> capture(std::uint64_t r) {
    std::unique_ptr<MapImage> image;
    EXPECT_EQ(map_->capture(region(r), &image), KernReturn::kSuccess);
    return image;
  }
  void restore(const MapImage& image, std::uint64_t r) {
    ASSERT_EQ(map_->restore(image, region(r).start), KernReturn::kSuccess);
  }
  std::vector<std::uint64_t> changes(const MapImage& image, std::uint64_t r) {
    std::vector<std::uint64_t> pages;
    WriteLock gate(engine_.system().gate());
    map_->for_each_change(image, region(r).start, [&](VirtRange run) {
      for (VirtAddr p = run.start; p < run.end; p = p + ByteCount{kPageSize}) {
        pages.push_back(to_pages(p - region(r).start).value());
      }
    });
    return pages;
  }
  void validate(std::span<const MapImage* const> images = {}) {
    VmMap* const maps[] = {map_.get()};
    const Problems problems = find_problems({.system = engine_.system(),
                                             .maps = maps,
                                             .pmaps = &engine_.machine().pmaps(),
                                             .pager = &engine_.pager(),
                                             .space = &engine_.space(),
                                             .images = images});
    EXPECT_TRUE(problems.empty()) << to_text(problems);
  }
  [[nodiscard]] VirtAddr at(std::uint64_t r, std::uint64_t page) const {
    return region(r).start + ByteCount{page * kPageSize};
  }
  [[nodiscard]] VmMap& map() { return *map_; }
  [[nodiscard]] SoftEngine& engine() { return engine_; }
  [[nodiscard]] const VmCounters& counters() { return engine_.machine().counters(); }

 private:
  SoftEngine engine_;
  std::unique_ptr<VmMap> map_;
};

TEST(MapImage, CapturingCopiesNothingAndMakesNoObject) {
  ImageRig rig;
  rig.map_region(0);
  for (std::uint64_t p = 0; p < kRegion; ++p) rig.write(0, p, p);
  const std::size_t objects = rig.engine().system().objects().live();
  const auto image = rig.capture(0);
  EXPECT_EQ(rig.engine().system().objects().live(), objects);
  EXPECT_EQ(rig.counters().cow_faults.load(), 0u);
  EXPECT_TRUE(rig.changes(*image, 0).empty());
}

TEST(MapImage, AnImageKeepsWhatTheRegionHeldThen) {
  ImageRig rig;
  rig.map_region(0);
  rig.write(0, 3, 33);
  for (std::uint64_t p = 0; p < kRegion; ++p) (void)rig.read(0, p);
  const auto image = rig.capture(0);
  rig.write(0, 3, 44);
  rig.write(0, 5, 55);  // a page that was zero
  EXPECT_EQ(rig.changes(*image, 0), (std::vector<std::uint64_t>{3, 5}));
  rig.restore(*image, 0);
  EXPECT_EQ(rig.read(0, 3), 33u);
  EXPECT_EQ(rig.read(0, 5), 0u);
  EXPECT_TRUE(rig.changes(*image, 0).empty());
}

TEST(MapImage, RestoringUnmapsOnlyWhatWasWritten) {
  ImageRig rig;
  rig.map_region(0);
  for (std::uint64_t p = 0; p < kRegion; ++p) rig.write(0, p, p);
  const auto image = rig.capture(0);
  for (std::uint64_t p = 0; p < kRegion; ++p) EXPECT_EQ(rig.read(0, p), p);
  rig.write(0, 7, 70);
  rig.restore(*image, 0);
  const std::uint64_t before = rig.counters().vm_faults.load();
  for (std::uint64_t p = 0; p < kRegion; ++p) EXPECT_EQ(rig.read(0, p), p);
  EXPECT_LE(rig.counters().vm_faults.load() - before, 1u);
  rig.validate(std::vector<const MapImage*>{image.get()});
}

TEST(MapImage, TheSameImageMayBeMappedManyTimes) {
  ImageRig rig;
  for (std::uint64_t r = 0; r < kRegions; ++r) rig.map_region(r);
  rig.write(0, 1, 11);
  const auto image = rig.capture(0);
  for (std::uint64_t r = 1; r < kRegions; ++r) rig.restore(*image, r);
  for (std::uint64_t r = 0; r < kRegions; ++r) rig.write(r, 2, r);
  for (std::uint64_t r = 0; r < kRegions; ++r) {
    EXPECT_EQ(rig.read(r, 1), 11u);
    EXPECT_EQ(rig.read(r, 2), r);
  }
}

TEST(MapImage, RollingBackOverANewerImageLeavesThatOneAlone) {
  ImageRig rig;
  rig.map_region(0);
  rig.write(0, 0, 1);
  const auto older = rig.capture(0);
  rig.write(0, 0, 2);
  const auto newer = rig.capture(0);
  rig.write(0, 0, 3);
  rig.restore(*older, 0);
  EXPECT_EQ(rig.read(0, 0), 1u);
  rig.restore(*newer, 0);
  EXPECT_EQ(rig.read(0, 0), 2u);
  rig.restore(*older, 0);
  EXPECT_EQ(rig.read(0, 0), 1u);
}

TEST(MapImage, DroppingAllImagesLeavesOneObjectAndNoMorePages) {
  ImageRig rig;
  rig.map_region(0);
  for (std::uint64_t p = 0; p < kRegion; ++p) rig.write(0, p, p);
  std::vector<std::unique_ptr<MapImage>> images;
  for (std::uint64_t i = 0; i < 100; ++i) {
    images.push_back(rig.capture(0));
    rig.write(0, i % kRegion, 1000 + i);
  }
  images.clear();
  EXPECT_EQ(rig.engine().system().objects().live(), 1u);
  std::uint64_t owned = 0;
  rig.engine().system().for_each_page(
      [&](FrameNumber, Page& page) { owned += page.object != nullptr ? 1 : 0; });
  EXPECT_EQ(owned, kRegion);
  rig.validate();
}

TEST(MapImage, WiredMemoryAndHolesAreRefusedAndNothingChanges) {
  ImageRig rig;
  rig.map_region(0);
  ASSERT_EQ(rig.map().wire({rig.at(0, 4), rig.at(0, 6)}), KernReturn::kSuccess);
  std::unique_ptr<MapImage> image;
  EXPECT_EQ(rig.map().capture(rig.region(0), &image), KernReturn::kInvalidArgument);
  ASSERT_EQ(rig.map().unwire({rig.at(0, 4), rig.at(0, 6)}), KernReturn::kSuccess);
  const auto good = rig.capture(0);
  ASSERT_EQ(rig.map().wire({rig.at(0, 4), rig.at(0, 6)}), KernReturn::kSuccess);
  EXPECT_EQ(rig.map().restore(*good, rig.region(0).start), KernReturn::kInvalidArgument);
  ASSERT_EQ(rig.map().unwire({rig.at(0, 4), rig.at(0, 6)}), KernReturn::kSuccess);
  ASSERT_EQ(rig.map().remove({rig.at(0, 9), rig.at(0, 10)}), KernReturn::kSuccess);
  EXPECT_EQ(rig.map().capture(rig.region(0), &image), KernReturn::kInvalidAddress);
  EXPECT_EQ(image, nullptr);
  EXPECT_EQ(rig.changes(*good, 0), (std::vector<std::uint64_t>{4, 5, 9}));  // wired pages were copied; a hole
  rig.restore(*good, 0);
  EXPECT_EQ(rig.read(0, 9), 0u);
}

// --- Random histories against a flat model.

using Words = std::vector<std::uint64_t>;
struct Kept {
  std::unique_ptr<MapImage> image;
  Words words;
};

class History {
 public:
  explicit History(std::uint64_t seed) : rng_(seed), rig_(64 + below(160)) {
    for (std::uint64_t r = 0; r < kRegions; ++r) rig_.map_region(r);
    now_.assign(kRegions, Words(kRegion, 0));
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      step();
      if (i % 64 == 0) check_all();
    }
    check_all();
    kept_.clear();
    check_all();
  }

 private:
  std::uint64_t below(std::uint64_t n) { return rng_() % n; }

  void step() {
    const std::uint64_t r = below(kRegions);
    const std::uint64_t what = below(12);
    switch (what) {
      case 0:
        if (kept_.size() < 12) kept_.push_back({rig_.capture(r), now_[r]});
        break;
      case 1:
      case 2:
        if (!kept_.empty()) {
          const Kept& k = kept_[below(kept_.size())];
          rig_.restore(*k.image, r);
          now_[r] = k.words;
          make_writable();
        }
        break;
      case 3:
        if (!kept_.empty()) kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(below(kept_.size())));
        break;
      case 4:
        if (!kept_.empty()) compare(kept_[below(kept_.size())], r);
        break;
      case 5:
        discard(r);
        break;
      case 6:
        protect_a_part(r);
        break;
      default:
        for (std::uint64_t n = 1 + below(12); n != 0; --n) {
          const std::uint64_t p = below(kRegion);
          if (below(2) == 0) {
            EXPECT_EQ(rig_.read(r, p), now_[r][p]);
          } else {
            rig_.write(r, p, now_[r][p] = rng_() | 1);
          }
        }
    }
  }

  /// Every page that differs is named; and when nothing is named, nothing differs.
  void compare(const Kept& k, std::uint64_t r) {
    const std::vector<std::uint64_t> named = rig_.changes(*k.image, r);
    EXPECT_TRUE(std::is_sorted(named.begin(), named.end()));
    for (std::uint64_t p = 0; p < kRegion; ++p) {
      if (k.words[p] == now_[r][p]) continue;
      EXPECT_TRUE(std::binary_search(named.begin(), named.end(), p)) << "region " << r << " page " << p;
    }
  }
  void discard(std::uint64_t r) {
    const std::uint64_t p = below(kRegion);
    const std::uint64_t end = p + 1 + below(kRegion - p);
    ASSERT_EQ(rig_.map().advise({rig_.at(r, p), rig_.at(r, end)}, Advice::kDiscard), KernReturn::kSuccess);
    std::fill(now_[r].begin() + static_cast<std::ptrdiff_t>(p),
              now_[r].begin() + static_cast<std::ptrdiff_t>(end), 0);
  }
  /// Splits entries: images with several, and restores over others than they were taken from.
  void protect_a_part(std::uint64_t r) {
    const VirtRange part{rig_.at(r, below(kRegion / 2)), rig_.at(r, kRegion / 2 + 1 + below(kRegion / 2))};
    ASSERT_EQ(rig_.map().protect(part, Prot::kRead), KernReturn::kSuccess);
    if (below(2) == 0 && kept_.size() < 12) kept_.push_back({rig_.capture(r), now_[r]});
    ASSERT_EQ(rig_.map().protect(rig_.region(r), Prot::kReadWrite), KernReturn::kSuccess);
    // What is captured read-only comes back read-only; writable again at once keeps the model simple.
    if (!kept_.empty() && below(2) == 0) {
      const Kept& k = kept_[below(kept_.size())];
      rig_.restore(*k.image, r);
      now_[r] = k.words;
    }
    make_writable();
  }
  void make_writable() {
    for (std::uint64_t r = 0; r < kRegions; ++r) {
      ASSERT_EQ(rig_.map().protect(rig_.region(r), Prot::kReadWrite), KernReturn::kSuccess);
    }
  }
  void check_all() {
    make_writable();
    std::vector<const MapImage*> images;
    for (const Kept& k : kept_) images.push_back(k.image.get());
    rig_.validate(images);
    for (std::uint64_t r = 0; r < kRegions; ++r) {
      for (std::uint64_t p = 0; p < kRegion; ++p) EXPECT_EQ(rig_.read(r, p), now_[r][p]) << r << ' ' << p;
    }
  }

  std::mt19937_64 rng_;
  ImageRig rig_;
  std::vector<Words> now_;
  std::vector<Kept> kept_;
};

TEST(MapImage, RandomHistoriesAgreeWithAFlatModel) {
  for (const std::uint64_t seed : test::seeds(300)) {
    SCOPED_TRACE(testing::Message() << "ENCHILADA_SEED=" << seed);
    History(seed).run(300);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace enchilada
