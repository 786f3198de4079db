// Random programs on every design: the same bytes as the flat oracle, and after every step a reverse map that
// agrees with a scan of all page tables. A failure prints its seed; ENCHILADA_SEED=n replays it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "lab/designs/designs.h"
#include "lab/flat_oracle.h"
#include "model/random_source.h"

namespace enchilada::lab {
namespace {

class RandomRun {
 public:
  RandomRun(const DesignEntry& design, std::uint64_t seed) : workload_(seed, shape_), oracle_(shape_.files) {
    DesignOptions options;
    // Every third seed has ample memory, so that reverse maps grow; the others page.
    options.frames = PageCount{seed % 3 == 0 ? 512u : 72u};
    options.swap = PageCount{1024};
    options.hardware.l1 = CacheShape{ByteCount{4 << 10}, 4};
    options.hardware.l2 = CacheShape{ByteCount{0}};
    options.hardware.l3 = CacheShape{ByteCount{0}};
    design_ = design.make(design.name, options);
    for (std::uint64_t i = 0; i < shape_.files; ++i) {
      (void)design_->create_file(PageCount{shape_.file_pages});
    }
  }

  void go(unsigned steps) {
    for (unsigned i = 0; i < steps && !::testing::Test::HasFailure(); ++i) {
      SCOPED_TRACE(::testing::Message() << "step " << i);
      step();
      check_reverse_map();
    }
  }

 private:
  void step() {
    const Step step = workload_.next();
    ProcessId made;
    std::uint64_t got = 0;
    const bool done = apply(step, &made, &got);
    if (made.value() != 0) workload_.made(made);
    std::uint64_t want = 0;
    const bool expected = oracle_.apply(step, made, &want);
    EXPECT_EQ(done, expected) << "call " << static_cast<int>(step.call) << " process " << step.process.value()
                              << " at " << std::hex << step.range.start.value() << " to "
                              << step.range.end.value();
    EXPECT_EQ(got, want) << "process " << step.process.value() << " at " << std::hex
                         << step.range.start.value();
  }

  bool apply(const Step& s, ProcessId* made, std::uint64_t* got) {
    switch (s.call) {
      case Call::kRead:
        return design_->access(s.process, s.range.start, Access::kRead,
                               [&](std::byte* at) { std::memcpy(got, at, sizeof *got); });
      case Call::kWrite:
        return design_->access(s.process, s.range.start, Access::kWrite,
                               [&](std::byte* at) { std::memcpy(at, &s.value, sizeof s.value); });
      case Call::kMap:
        return design_->map(s.process, {.at = s.range.start,
                                        .pages = to_pages(s.range.size()),
                                        .prot = s.prot,
                                        .file = s.file,
                                        .offset = s.offset,
                                        .shared = s.shared});
      case Call::kUnmap:
        return design_->unmap(s.process, s.range);
      case Call::kProtect:
        return design_->protect(s.process, s.range, s.prot);
      case Call::kDiscard:
        return design_->discard(s.process, s.range);
      case Call::kRemap:
        return design_->remap(s.process, s.range, s.to);
      case Call::kFork:
        return *made = design_->fork(s.process), true;
      case Call::kExec:
        return design_->exec(s.process), true;
      case Call::kExit:
        return design_->exit(s.process), true;
      case Call::kSpawn:
        return *made = design_->spawn(), true;
      case Call::kReclaim:
        return design_->reclaim(PageCount{s.value}), true;
    }
    return false;
  }

  void check_reverse_map() {
    std::map<std::uint32_t, std::set<Mapping>> truth;
    design_->for_each_mapping([&](const Mapping& m) { truth[m.frame.value()].insert(m); });
    for (const auto& [frame, mappings] : truth) {
      std::multiset<Mapping> found;
      design_->find_mappings(FrameNumber{frame}, [&](const Mapping& m) { found.insert(m); });
      EXPECT_TRUE(std::equal(found.begin(), found.end(), mappings.begin(), mappings.end()))
          << "frame " << frame << ": " << found.size() << " found, " << mappings.size() << " there";
    }
    const char* const error = design_->find_error();
    EXPECT_EQ(error, nullptr) << error;
  }

  const WorkloadShape shape_{};
  RandomWorkload workload_;
  FlatOracle oracle_;
  std::unique_ptr<VmDesign> design_;
};

class EveryDesign : public ::testing::TestWithParam<DesignEntry> {};

TEST_P(EveryDesign, GivesTheFlatModelsBytesAndAReverseMapThatAgreesWithTheTables) {
  constexpr std::uint64_t kSeeds = 250;
  constexpr unsigned kSteps = 120;
  const auto replay = model::replayed_seed();
  const std::uint64_t first = replay.value_or(model::first_seed());
  const std::uint64_t seeds = replay.has_value() ? 1 : model::seed_count(kSeeds);
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE(::testing::Message() << "ENCHILADA_SEED=" << seed);
    RandomRun(GetParam(), seed).go(kSteps);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Lab, EveryDesign, ::testing::ValuesIn(designs().begin(), designs().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace enchilada::lab
