// Programs on several CPUs of a machine with hardware, with the real shoot-downs of the soft pmap in all its
// modes: no TLB may ever translate what the page tables do not say any more. And the detector itself: where
// invalidations are lost on purpose, stale translations are found.
//
// Invariant: what is checked is the whole way (engine, pmap, events, TLB), so nothing here calls the pmap
// itself. Every value read is compared too. ENCHILADA_SEED=n replays one seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "machine/soft_engine.h"
#include "vm/vm_pageout.h"

namespace enchilada {
namespace {

constexpr unsigned kCpus = 4;
constexpr std::uint64_t kFrames = 1300;
constexpr std::uint64_t kPages = 1100;  // two superpages and a little
constexpr std::size_t kMostMaps = 5;

/// Passes events on to the hardware, but every so many invalidations are lost.
class LossyEvents final : public PmapEventSink {
 public:
  LossyEvents(Hardware& hardware, std::uint64_t lose_each) : hardware_(hardware), lose_each_(lose_each) {}
  void note(PmapEvent event, std::uint64_t n) override { hardware_.note(event, n); }
  void walked(const PmapWalk& walk) override { hardware_.walked(walk); }
  void invalidated(std::span<const SpaceId> spaces, VirtRange range) override {
    if (++seen_ % lose_each_ != 0) hardware_.invalidated(spaces, range);
  }

 private:
  Hardware& hardware_;
  const std::uint64_t lose_each_;
  std::uint64_t seen_ = 0;
};

struct PmapCase {
  const char* name;
  VmModes modes{};
  bool one_address = false;  // as on the host
};

std::vector<PmapCase> pmap_cases() {
  std::vector<PmapCase> cases;
  cases.push_back({.name = "default"});
  cases.push_back({.name = "chunks", .modes = VmModes().set(PvMode::kChunk)});
  cases.push_back({.name = "copied_tables", .modes = VmModes().set(ForkTablesMode::kCopy)});
  cases.push_back({.name = "dropped_tables", .modes = VmModes().set(ForkTablesMode::kDrop)});
  cases.push_back({.name = "thrown_tables", .modes = VmModes().set(ForkTablesMode::kThrow)});
  cases.push_back({.name = "superpages",
                   .modes = VmModes()
                                .set(SuperpagesMode::kPromote)
                                .set(FrameOrderMode::kReservation)
                                .set(ForkTablesMode::kCopy)});
  cases.push_back({.name = "shared_tables", .modes = VmModes().set(SharedTablesMode::kOn)});
  cases.push_back({.name = "shared_tables_and_superpages",
                   .modes = VmModes()
                                .set(SharedTablesMode::kOn)
                                .set(SuperpagesMode::kPromote)
                                .set(FrameOrderMode::kReservation)
                                .set(PvMode::kChunk)});
  cases.push_back({.name = "hashed", .modes = VmModes().set(PageTableMode::kHashed)});
  cases.push_back({.name = "one_address", .modes = {}, .one_address = true});
  return cases;
}

SoftEngineOptions options_of(const PmapCase& pmap, std::mt19937_64& random) {
  SoftEngineOptions o;
  o.modes = pmap.modes;
  o.machine.memory.frames = PageCount{kFrames};
  o.machine.pmap.one_address = pmap.one_address;
  o.machine.pmap.reference_bits = !pmap.one_address;
  o.machine.pmap.dirty_bits = !pmap.one_address;
  HardwareOptions& hw = o.machine.hardware.emplace();
  hw.cpus = kCpus;
  hw.space_ids = random() % 4 != 0;
  hw.flush_above_pages = random() % 2 == 0 ? 32 : 4;
  return o;
}

/// Address spaces with the values that their pages must have.
class Programs {
 public:
  Programs(const PmapCase& pmap, std::uint64_t seed, std::uint64_t lose_each = 0)
      : random_(seed), engine_(options_of(pmap, random_)) {
    if (lose_each != 0) {
      lossy_.emplace(*engine_.machine().hardware(), lose_each);
      engine_.machine().pmaps().set_events(*lossy_);
    }
    maps_.push_back({engine_.create_map(PageCount{kPages}), {}});
  }
  void run(unsigned steps) {
    for (unsigned i = 0; i < steps && !testing::Test::HasFailure(); ++i) step();
  }
  [[nodiscard]] const HardwareCounts& counts() { return engine_.machine().hardware()->counts(); }

 private:
  struct Space {
    std::unique_ptr<VmMap> map;
    std::map<std::uint64_t, std::uint64_t> values;  // of mapped pages
  };
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  Space& some() { return maps_[below(maps_.size())]; }
  static VirtAddr at(const Space& s, std::uint64_t page) {
    return s.map->bounds().start + to_bytes(PageCount{page});
  }
  VirtRange some_range(const Space& s, std::uint64_t* first, std::uint64_t* end) {
    *first = below(kPages);
    const std::uint64_t n = 1 + below(below(3) == 0 ? kPages : 12);
    *end = std::min(kPages, *first + n);
    return {at(s, *first), at(s, *end)};
  }

  void step() {
    engine_.machine().hardware()->run_on(static_cast<unsigned>(below(kCpus)));
    switch (below(12)) {
      case 0:
        return map(some());
      case 1:
        return below(4) == 0 ? unmap(some()) : protect(some());
      case 2:
        return fork_or_exit();
      case 3:
        (void)engine_.system().daemon().reclaim(PageCount{below(60)});
        return;
      case 4:
        (void)engine_.system().daemon().scan_active(below(40));
        return;
      case 5:
        return sweep(some());
      default:
        for (std::uint64_t n = below(30); n > 0; --n) touch(some());
    }
  }
  void map(Space& s) {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    const VirtRange range = some_range(s, &first, &end);
    VirtAddr address{0};
    VmMap::MapRequest request{.length = range.size(), .hint = range.start};
    request.placement = VmMap::MapRequest::Placement::kFixedReplace;
    if (s.map->map(request, &address) != KernReturn::kSuccess) return;
    for (std::uint64_t p = first; p < end; ++p) s.values[p] = 0;
  }
  void unmap(Space& s) {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    const VirtRange range = some_range(s, &first, &end);
    ASSERT_EQ(s.map->remove(range), KernReturn::kSuccess);
    s.values.erase(s.values.lower_bound(first), s.values.lower_bound(end));
  }
  /// Takes the right to write away and gives it back: what was written through a TLB must not be any more.
  void protect(Space& s) {
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    const VirtRange range = some_range(s, &first, &end);
    if (s.map->protect(range, Prot::kRead) != KernReturn::kSuccess) return;
    for (std::uint64_t p = first; p < end && p < first + 4; ++p) {
      if (!s.values.contains(p)) continue;
      EXPECT_EQ(engine_.machine().touch(*s.map, at(s, p), Access::kWrite, [](std::byte*) {}),
                FaultResult::kProtection);
    }
    EXPECT_EQ(s.map->protect(range, Prot::kReadWrite), KernReturn::kSuccess);
  }
  void fork_or_exit() {
    if (maps_.size() >= kMostMaps || (maps_.size() > 1 && below(2) == 0)) {
      maps_.erase(maps_.begin() + static_cast<std::ptrdiff_t>(below(maps_.size())));
      return;
    }
    Space child;
    const Space& parent = some();
    child.map = parent.map->fork();
    if (child.map == nullptr) return;
    child.values = parent.values;
    maps_.push_back(std::move(child));
  }
  /// All of 2 MiB, so that tables fill up.
  void sweep(Space& s) {
    const std::uint64_t first = below(2) * 512;
    const bool writes = below(2) == 0;
    for (std::uint64_t p = first; p < std::min(first + 540, kPages); ++p) access(s, p, writes);
  }
  void touch(Space& s) {
    if (s.values.empty()) return;
    auto it = s.values.lower_bound(below(kPages));
    if (it == s.values.end()) it = s.values.begin();
    access(s, it->first, below(2) == 0);
  }
  void access(Space& s, std::uint64_t page, bool writes) {
    const auto it = s.values.find(page);
    if (it == s.values.end()) return;
    std::uint64_t seen = 0;
    const std::uint64_t next = ++stores_;
    const FaultResult result = engine_.machine().touch(
        *s.map, at(s, page), writes ? Access::kWrite : Access::kRead, [&](std::byte* bytes) {
          std::memcpy(&seen, bytes, sizeof(seen));
          if (writes) std::memcpy(bytes, &next, sizeof(next));
        });
    ASSERT_EQ(result, FaultResult::kResolved) << page;
    ASSERT_EQ(seen, it->second) << page;
    if (writes) it->second = next;
  }

  std::mt19937_64 random_;
  SoftEngine engine_;
  std::optional<LossyEvents> lossy_;
  std::vector<Space> maps_;
  std::uint64_t stores_ = 0;
};

std::uint64_t seeds() {
  const char* const text = std::getenv("ENCHILADA_SEEDS");
  return text == nullptr ? 6 : std::strtoull(text, nullptr, 0);
}

TEST(StaleTranslation, IsNeverUsedInAnyModeOfThePmap) {
  const char* const one = std::getenv("ENCHILADA_SEED");
  const std::uint64_t first = one == nullptr ? 1 : std::strtoull(one, nullptr, 0);
  for (const PmapCase& pmap : pmap_cases()) {
    std::uint64_t shootdowns = 0;
    for (std::uint64_t seed = first; seed < first + (one == nullptr ? seeds() : 1); ++seed) {
      SCOPED_TRACE(testing::Message() << pmap.name << ", ENCHILADA_SEED=" << seed);
      Programs programs(pmap, seed);
      programs.run(250);
      ASSERT_EQ(programs.counts().stale, 0u);
      if (HasFailure()) return;
      shootdowns += programs.counts().shootdowns;
    }
    EXPECT_GT(shootdowns, 0u) << pmap.name;
  }
}

/// On a few machines, since on those without space numbers nearly every step flushes the TLB anyway.
TEST(StaleTranslation, IsFoundWhereShootdownsAreLost) {
  for (const PmapCase& pmap : pmap_cases()) {
    std::uint64_t stale = 0;
    for (std::uint64_t seed = 1; seed <= 6 && !HasFailure(); ++seed) {
      Programs programs(pmap, seed, 2);
      programs.run(250);
      stale += programs.counts().stale;
    }
    EXPECT_GT(stale, 0u) << pmap.name;
  }
}

}  // namespace
}  // namespace enchilada
