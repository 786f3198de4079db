// Conformance suite of PmapSystem + PhysicalMemory: what the engine relies on, checked over every machine.
//
// Invariant: nothing here asks for more than pmap.h and phys.h promise. A machine may map a frame at one
// address only, may over-report "modified", may drop unwired mappings at any time, may have no reference
// bits. It may never show wrong bytes, allow an access that was not granted, lose a store, or under-report
// "modified".
//
// To run it over a machine, define a type M and instantiate:
//
//   struct M {
//     explicit M(PageCount frames);            // phys().grow() grants at least `frames` frames in all
//     PmapSystem& pmaps();
//     PhysicalMemory& phys();
//     TestSpace create_space(PageCount pages); // a new, empty pmap and at least `pages` pages of addresses
//     for it bool load(Pmap&, VirtAddr, std::uint8_t* value);  // one access as the program would make it,
//     from any bool store(Pmap&, VirtAddr, std::uint8_t value);  //   thread; false: it faulted and did
//     nothing
//   };
//   INSTANTIATE_TYPED_TEST_SUITE_P(Name, PmapConformance, M);
//
// Optional: `void pin(FrameNumber)` and `void unpin(FrameNumber)` make remove_all() refuse a mapped frame.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "vm/phys.h"
#include "vm/pmap.h"

namespace enchilada {

/// An address space of the machine under test and the addresses that a test may use in it.
struct TestSpace {
  std::unique_ptr<Pmap> pmap;
  VirtRange range;
};

/// Remembers what mappings reported.
class RecordingSink final : public PageStateSink {
 public:
  explicit RecordingSink(PageCount frames) : modified_(frames.value()), referenced_(frames.value()) {}
  void note_modified(FrameNumber frame) override { modified_.at(frame.value()).store(true); }
  void note_referenced(FrameNumber frame) override { referenced_.at(frame.value()).store(true); }
  /// Was it reported since the last call?
  bool take_modified(FrameNumber frame) { return modified_.at(frame.value()).exchange(false); }
  bool take_referenced(FrameNumber frame) { return referenced_.at(frame.value()).exchange(false); }

 private:
  std::vector<std::atomic<bool>> modified_;
  std::vector<std::atomic<bool>> referenced_;
};

/// A machine with its frames granted, its sink set, and short names for what tests do all the time.
template <class M>
class MachineUnderTest {
 public:
  explicit MachineUnderTest(std::uint64_t frames)
      : machine(PageCount{frames}), sink(machine.phys().frame_limit()) {
    machine.pmaps().set_sink(sink);
    grow(frames);
  }

  /// Asks until `frames` more are granted or the machine gives nothing.
  void grow(std::uint64_t frames) {
    const std::size_t goal = granted.size() + frames;
    while (granted.size() < goal) {
      const PageCount got = machine.phys().grow(PageCount{goal - granted.size()}, [this](FrameRun run) {
        for (std::uint64_t i = 0; i < run.count.value(); ++i) granted.push_back(run.first + PageCount{i});
      });
      if (got.value() == 0) break;
    }
  }

  TestSpace space(std::uint64_t pages = 64) { return machine.create_space(PageCount{pages}); }
  static VirtAddr at(const TestSpace& s, std::uint64_t page, std::uint64_t byte = 0) {
    return s.range.start + ByteCount{page * kPageSize + byte};
  }
  static VirtRange pages(const TestSpace& s, std::uint64_t first, std::uint64_t count) {
    return {at(s, first), at(s, first + count)};
  }

  /// Sets every byte of an unmapped frame.
  void fill(FrameNumber frame, std::uint8_t value) {
    machine.phys().with_frames({frame, PageCount{1}}, Access::kWrite,
                               [value](std::byte* p) { std::memset(p, value, kPageSize); });
  }
  /// A byte of the frame, wherever it is.
  std::uint8_t peek(FrameNumber frame, std::uint64_t byte = 0) {
    std::uint8_t value = 0;
    machine.phys().with_frames({frame, PageCount{1}}, Access::kRead,
                               [&](std::byte* p) { value = static_cast<std::uint8_t>(p[byte]); });
    return value;
  }
  std::uint64_t enter(TestSpace& s, std::uint64_t page, std::vector<FrameNumber> frames, Prot prot,
                      Access access = Access::kRead, Wiring wiring = Wiring::kNotWired) {
    return s.pmap->enter(at(s, page), frames, prot, access, wiring).value();
  }
  std::optional<std::uint8_t> load(TestSpace& s, std::uint64_t page, std::uint64_t byte = 0) {
    std::uint8_t value = 0;
    if (!machine.load(*s.pmap, at(s, page, byte), &value)) return std::nullopt;
    return value;
  }
  bool store(TestSpace& s, std::uint64_t page, std::uint8_t value, std::uint64_t byte = 0) {
    return machine.store(*s.pmap, at(s, page, byte), value);
  }
  /// Returns true when any frame was refused.
  bool remove_all(std::vector<FrameNumber> frames) {
    std::vector<char> storage(frames.size(), 1);  // the machine must write every answer
    const std::span<bool> refused(reinterpret_cast<bool*>(storage.data()), storage.size());
    machine.pmaps().remove_all(frames, refused);
    return std::find(refused.begin(), refused.end(), true) != refused.end();
  }
  /// Reported, or still visible in a mapping. Takes the report.
  bool known_modified(FrameNumber frame) {
    return sink.take_modified(frame) || machine.pmaps().is_modified(frame);
  }

  M machine;
  RecordingSink sink;
  std::vector<FrameNumber> granted;
};

template <class M>
class PmapConformance : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kFrames = 96;
  MachineUnderTest<M> m{kFrames};
  TestSpace a = m.space();
  FrameNumber frame(std::size_t i) const { return m.granted.at(i); }
};
TYPED_TEST_SUITE_P(PmapConformance);

// ---- frames
// ----------------------------------------------------------------------------------------------------

TYPED_TEST_P(PmapConformance, GrantsDistinctFramesBelowTheLimit) {
  auto& m = this->m;
  ASSERT_GE(m.granted.size(), this->kFrames);
  std::vector<FrameNumber> sorted = m.granted;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(std::adjacent_find(sorted.begin(), sorted.end()), sorted.end());
  EXPECT_LT(sorted.back().value(), m.machine.phys().frame_limit().value());
}

TYPED_TEST_P(PmapConformance, RetiredFramesCanBeGrantedAgain) {
  auto& m = this->m;
  std::vector<FrameNumber> back(m.granted.end() - 4, m.granted.end());
  m.granted.resize(m.granted.size() - 4);
  for (const FrameNumber f : back) m.machine.phys().retire({f, PageCount{1}});
  const std::size_t before = m.granted.size();
  m.grow(4);
  ASSERT_GT(m.granted.size(), before);
  const FrameNumber again = m.granted.back();
  m.fill(again, 0x5a);
  EXPECT_EQ(m.peek(again, 4095), 0x5a);
}

TYPED_TEST_P(PmapConformance, ZeroMakesWholeRunsReadAsZeros) {
  auto& m = this->m;
  for (std::size_t i = 0; i < 8; ++i) m.fill(this->frame(i), 0xff);
  // Frames that happen to be consecutive are zeroed as one run, the others one by one.
  for (std::size_t i = 0; i < 8;) {
    std::size_t n = 1;
    while (i + n < 8 && this->frame(i + n).value() == this->frame(i).value() + n) ++n;
    m.machine.phys().zero({this->frame(i), PageCount{n}});
    i += n;
  }
  for (std::size_t i = 0; i < 8; ++i) {
    for (const std::uint64_t byte : {0u, 1u, 2048u, 4095u}) EXPECT_EQ(m.peek(this->frame(i), byte), 0);
  }
}

TYPED_TEST_P(PmapConformance, ZeroAfterUse) {
  auto& m = this->m;
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 7, 100));
  ASSERT_FALSE(m.remove_all({this->frame(0)}));
  m.machine.phys().zero({this->frame(0), PageCount{1}});
  EXPECT_EQ(m.peek(this->frame(0), 100), 0);
  ASSERT_EQ(m.enter(this->a, 1, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(this->a, 1, 100), 0);
}

TYPED_TEST_P(PmapConformance, CopyCopiesEveryByteAndLeavesTheSource) {
  auto& m = this->m;
  m.machine.phys().with_frames({this->frame(0), PageCount{1}}, Access::kWrite, [](std::byte* p) {
    for (std::size_t i = 0; i < kPageSize; ++i) p[i] = static_cast<std::byte>(i * 7 + i / 256);
  });
  m.fill(this->frame(1), 0xee);
  m.machine.phys().copy(this->frame(0), this->frame(1));
  m.machine.phys().with_frames({this->frame(1), PageCount{1}}, Access::kRead, [](std::byte* p) {
    for (std::size_t i = 0; i < kPageSize; ++i) ASSERT_EQ(p[i], static_cast<std::byte>(i * 7 + i / 256));
  });
  EXPECT_EQ(m.peek(this->frame(0), 1), 7);
}

TYPED_TEST_P(PmapConformance, CopyFromAFrameThatIsMappedReadOnly) {
  auto& m = this->m;
  m.fill(this->frame(0), 11);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(this->a, 0), 11);
  m.machine.phys().copy(this->frame(0), this->frame(1));
  EXPECT_EQ(m.peek(this->frame(1)), 11);
  // The copy takes the source's place, as in a copy-on-write fault; they are separate from now on.
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(1)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 12));
  EXPECT_EQ(m.load(this->a, 0), 12);
  EXPECT_EQ(m.load(this->a, 0, 1), 11);
  EXPECT_EQ(m.peek(this->frame(0)), 11);
  EXPECT_EQ(m.peek(this->frame(1)), 12);
}

TYPED_TEST_P(PmapConformance, WithFramesGivesRunsInOrder) {
  auto& m = this->m;
  // The longest run among the granted frames, at most 16.
  std::vector<FrameNumber> sorted = m.granted;
  std::sort(sorted.begin(), sorted.end());
  FrameRun best{sorted[0], PageCount{1}};
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    std::size_t n = 1;
    while (n < 16 && i + n < sorted.size() && sorted[i + n].value() == sorted[i].value() + n) ++n;
    if (n > best.count.value()) best = {sorted[i], PageCount{n}};
  }
  m.machine.phys().with_frames(best, Access::kWrite, [&](std::byte* p) {
    for (std::uint64_t i = 0; i < best.count.value(); ++i)
      std::memset(p + i * kPageSize, static_cast<int>(i + 1), kPageSize);
  });
  for (std::uint64_t i = 0; i < best.count.value(); ++i) {
    EXPECT_EQ(m.peek(best.first + PageCount{i}, 4095), i + 1);
  }
  // Map one of the middle: the run is still readable as one, with what the program stored.
  const std::uint64_t middle = best.count.value() / 2;
  ASSERT_EQ(m.enter(this->a, 3, {best.first + PageCount{middle}}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 3, 0x77, 9));
  ASSERT_FALSE(m.remove_all({best.first + PageCount{middle}}));
  m.machine.phys().with_frames(best, Access::kRead, [&](std::byte* p) {
    for (std::uint64_t i = 0; i < best.count.value(); ++i) {
      EXPECT_EQ(p[i * kPageSize], static_cast<std::byte>(i + 1));
      EXPECT_EQ(p[i * kPageSize + 9], static_cast<std::byte>(i == middle ? 0x77 : i + 1));
    }
  });
}

// ---- enter
// -----------------------------------------------------------------------------------------------------

TYPED_TEST_P(PmapConformance, NothingMappedFaults) {
  EXPECT_EQ(this->m.load(this->a, 0), std::nullopt);
  EXPECT_FALSE(this->m.store(this->a, 0, 1));
  EXPECT_EQ(this->m.load(this->a, 63), std::nullopt);
}

TYPED_TEST_P(PmapConformance, ReadMappingReadsAndRefusesStores) {
  auto& m = this->m;
  m.fill(this->frame(0), 42);
  ASSERT_EQ(m.enter(this->a, 5, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(this->a, 5), 42);
  EXPECT_EQ(m.load(this->a, 5, 4095), 42);
  EXPECT_FALSE(m.store(this->a, 5, 1));
  EXPECT_EQ(m.peek(this->frame(0)), 42);
  EXPECT_EQ(m.load(this->a, 4), std::nullopt);
  EXPECT_EQ(m.load(this->a, 6), std::nullopt);
}

TYPED_TEST_P(PmapConformance, WriteMappingStoresIntoTheFrame) {
  auto& m = this->m;
  m.fill(this->frame(0), 42);
  ASSERT_EQ(m.enter(this->a, 5, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_TRUE(m.store(this->a, 5, 43, 17));
  EXPECT_EQ(m.load(this->a, 5, 17), 43);
  EXPECT_EQ(m.load(this->a, 5, 18), 42);
  ASSERT_FALSE(m.remove_all({this->frame(0)}));
  EXPECT_EQ(m.peek(this->frame(0), 17), 43);
  EXPECT_EQ(m.peek(this->frame(0), 16), 42);
}

TYPED_TEST_P(PmapConformance, ExecuteIsAcceptedWithReadAndWrite) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  m.fill(this->frame(1), 2);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead | Prot::kExecute), 1u);
  ASSERT_EQ(m.enter(this->a, 1, {this->frame(1)}, Prot::kAll, Access::kWrite), 1u);
  EXPECT_EQ(m.load(this->a, 0), 1);
  EXPECT_FALSE(m.store(this->a, 0, 9));
  EXPECT_TRUE(m.store(this->a, 1, 9));
}

TYPED_TEST_P(PmapConformance, EntersLeadingFramesOfASpan) {
  auto& m = this->m;
  // Neighbours in the span that are no neighbours in memory, and some that may be.
  const std::vector<FrameNumber> span = {this->frame(9), this->frame(3), this->frame(4), this->frame(5),
                                         this->frame(1)};
  for (std::size_t i = 0; i < span.size(); ++i) m.fill(span[i], static_cast<std::uint8_t>(100 + i));
  const std::uint64_t n = m.enter(this->a, 10, span, Prot::kReadWrite, Access::kWrite);
  ASSERT_GE(n, 1u);
  ASSERT_LE(n, span.size());
  for (std::size_t i = 0; i < span.size(); ++i) {
    const auto seen = m.load(this->a, 10 + i);
    if (i < n) {
      EXPECT_EQ(seen, 100 + i);
    } else {
      EXPECT_EQ(seen, std::nullopt);
    }
  }
  EXPECT_EQ(m.load(this->a, 9), std::nullopt);
  EXPECT_EQ(m.load(this->a, 10 + span.size()), std::nullopt);
}

TYPED_TEST_P(PmapConformance, ReadOnlySpanRefusesStores) {
  auto& m = this->m;
  std::vector<FrameNumber> span(m.granted.begin(), m.granted.begin() + 16);
  for (std::size_t i = 0; i < span.size(); ++i) m.fill(span[i], static_cast<std::uint8_t>(i));
  const std::uint64_t n = m.enter(this->a, 0, span, Prot::kRead);
  ASSERT_GE(n, 1u);
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_EQ(m.load(this->a, i), i);
    EXPECT_FALSE(m.store(this->a, i, 0xee));
    EXPECT_EQ(m.load(this->a, i), i);
  }
}

TYPED_TEST_P(PmapConformance, EnterReplacesAnotherFrame) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  m.fill(this->frame(1), 2);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 3, 8));
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(1)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(this->a, 0), 2);
  EXPECT_EQ(m.load(this->a, 0, 8), 2);
  EXPECT_FALSE(m.store(this->a, 0, 4)) << "the old mapping's write access survived";
  EXPECT_TRUE(m.known_modified(this->frame(0)));
  EXPECT_EQ(m.peek(this->frame(0), 8), 3);
}

TYPED_TEST_P(PmapConformance, SpanReplacesWhatIsThere) {
  auto& m = this->m;
  for (std::size_t i = 0; i < 8; ++i) m.fill(this->frame(i), static_cast<std::uint8_t>(i));
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(m.enter(this->a, i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite), 1u);
    ASSERT_TRUE(m.store(this->a, i, static_cast<std::uint8_t>(50 + i), 5));
  }
  const std::uint64_t n =
      m.enter(this->a, 0, {this->frame(4), this->frame(5), this->frame(6), this->frame(7)}, Prot::kReadWrite);
  ASSERT_GE(n, 1u);
  for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(m.load(this->a, i, 5), 4 + i);
  for (std::size_t i = 0; i < n; ++i) {
    EXPECT_TRUE(m.known_modified(this->frame(i)));
    EXPECT_EQ(m.peek(this->frame(i), 5), 50 + i);
  }
}

TYPED_TEST_P(PmapConformance, SameFrameAgainUpgrades) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_FALSE(m.store(this->a, 0, 2));
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_TRUE(m.store(this->a, 0, 2));
  EXPECT_EQ(m.load(this->a, 0), 2);
  EXPECT_EQ(m.load(this->a, 0, 1), 1);
}

TYPED_TEST_P(PmapConformance, SameFrameAgainDowngradesAndKeepsModified) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 2));
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_FALSE(m.store(this->a, 0, 3));
  EXPECT_EQ(m.load(this->a, 0), 2);
  EXPECT_TRUE(m.known_modified(this->frame(0)));
}

TYPED_TEST_P(PmapConformance, ContentsFollowTheFrameToAnotherAddress) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 2, 10));
  ASSERT_EQ(m.enter(this->a, 1, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_EQ(m.load(this->a, 1, 10), 2);
  ASSERT_TRUE(m.store(this->a, 1, 3, 11));
  // The first mapping is gone, or it shows the same memory.
  const auto first = m.load(this->a, 0, 11);
  if (first.has_value()) {
    EXPECT_EQ(first, 3);
  }
  ASSERT_FALSE(m.remove_all({this->frame(0)}));
  EXPECT_EQ(m.load(this->a, 0), std::nullopt);
  EXPECT_EQ(m.load(this->a, 1), std::nullopt);
  EXPECT_EQ(m.peek(this->frame(0), 10), 2);
  EXPECT_EQ(m.peek(this->frame(0), 11), 3);
  EXPECT_TRUE(m.known_modified(this->frame(0)));
}

TYPED_TEST_P(PmapConformance, TwoSpacesShareAFrame) {
  auto& m = this->m;
  TestSpace b = m.space();
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  ASSERT_EQ(m.enter(b, 7, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(b, 7), 1);
  const auto other = m.load(this->a, 0);
  if (other.has_value()) {
    EXPECT_EQ(other, 1);
  }
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 9));
  const auto seen = m.load(b, 7);
  if (seen.has_value()) {
    EXPECT_EQ(seen, 9);
  }
  EXPECT_FALSE(m.store(b, 7, 5));
  ASSERT_FALSE(m.remove_all({this->frame(0)}));
  EXPECT_EQ(m.load(this->a, 0), std::nullopt);
  EXPECT_EQ(m.load(b, 7), std::nullopt);
  EXPECT_EQ(m.peek(this->frame(0)), 9);
}

TYPED_TEST_P(PmapConformance, SpacesAreSeparate) {
  auto& m = this->m;
  TestSpace b = m.space();
  m.fill(this->frame(0), 1);
  m.fill(this->frame(1), 2);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_EQ(m.enter(b, 0, {this->frame(1)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_TRUE(m.store(this->a, 0, 3));
  EXPECT_EQ(m.load(b, 0), 2);
  b.pmap->remove(m.pages(b, 0, 64));
  EXPECT_EQ(m.load(b, 0), std::nullopt);
  EXPECT_EQ(m.load(this->a, 0), 3);
}

TYPED_TEST_P(PmapConformance, DestroyingAPmapReportsAndFreesItsFrames) {
  auto& m = this->m;
  {
    TestSpace b = m.space();
    ASSERT_EQ(m.enter(b, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
    ASSERT_TRUE(m.store(b, 0, 3));
  }
  EXPECT_TRUE(m.sink.take_modified(this->frame(0)));
  EXPECT_EQ(m.peek(this->frame(0)), 3);
  m.machine.phys().zero({this->frame(0), PageCount{1}});
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(this->a, 0), 0);
}

TYPED_TEST_P(PmapConformance, WiredMappingsStayWhileOthersCome) {
  auto& m = this->m;
  m.fill(this->frame(0), 77);
  ASSERT_EQ(m.enter(this->a, 63, {this->frame(0)}, Prot::kReadWrite, Access::kWrite, Wiring::kWired), 1u);
  for (std::size_t round = 0; round < 4; ++round) {
    for (std::size_t i = 1; i < 60; ++i) {
      (void)m.enter(this->a, i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite);
      EXPECT_EQ(m.load(this->a, 63), 77);
    }
  }
  EXPECT_TRUE(m.store(this->a, 63, 78));
  this->a.pmap->remove(m.pages(this->a, 63, 1));
  EXPECT_EQ(m.load(this->a, 63), std::nullopt);
  EXPECT_EQ(m.peek(this->frame(0)), 78);
}

// ---- remove, protect
// -------------------------------------------------------------------------------------------

TYPED_TEST_P(PmapConformance, RemoveTakesExactlyTheRange) {
  auto& m = this->m;
  for (std::size_t i = 0; i < 8; ++i) {
    m.fill(this->frame(i), static_cast<std::uint8_t>(i + 1));
    ASSERT_EQ(m.enter(this->a, 2 * i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite), 1u);
    ASSERT_TRUE(m.store(this->a, 2 * i, static_cast<std::uint8_t>(i + 101), 1));
  }
  this->a.pmap->remove(m.pages(this->a, 3, 8));  // pages 4, 6, 8, 10; holes between them
  for (std::size_t i = 0; i < 8; ++i) {
    if (i >= 2 && i <= 5) {
      EXPECT_EQ(m.load(this->a, 2 * i), std::nullopt);
      EXPECT_TRUE(m.known_modified(this->frame(i)));
      EXPECT_EQ(m.peek(this->frame(i), 1), i + 101);
    } else {
      EXPECT_EQ(m.load(this->a, 2 * i, 1), i + 101);
    }
  }
}

TYPED_TEST_P(PmapConformance, RemoveOfNothingIsFine) {
  auto& m = this->m;
  this->a.pmap->remove(m.pages(this->a, 0, 64));
  this->a.pmap->remove(m.pages(this->a, 5, 0));
  this->a.pmap->protect(m.pages(this->a, 0, 64), Prot::kRead);
  EXPECT_FALSE(m.remove_all({this->frame(0), this->frame(1)}));
  m.machine.pmaps().remove_write(this->frame(0));
  m.machine.pmaps().clear_modify(this->frame(0));
  EXPECT_FALSE(m.machine.pmaps().is_modified(this->frame(0)));
  EXPECT_EQ(m.machine.pmaps().ts_referenced(this->frame(0)), 0u);
}

TYPED_TEST_P(PmapConformance, ProtectTakesWriteAwayAndKeepsContents) {
  auto& m = this->m;
  for (std::size_t i = 0; i < 4; ++i) {
    m.fill(this->frame(i), static_cast<std::uint8_t>(i));
    ASSERT_EQ(m.enter(this->a, i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite), 1u);
    ASSERT_TRUE(m.store(this->a, i, static_cast<std::uint8_t>(20 + i), 3));
  }
  this->a.pmap->protect(m.pages(this->a, 1, 2), Prot::kRead);
  for (std::size_t i = 0; i < 4; ++i) {
    const bool inside = i == 1 || i == 2;
    EXPECT_EQ(m.store(this->a, i, 99, 4), !inside);
    const auto seen = m.load(this->a, i, 3);
    if (!inside || seen.has_value()) {
      EXPECT_EQ(seen, 20 + i);
    }
    EXPECT_TRUE(m.known_modified(this->frame(i)));
    ASSERT_FALSE(m.remove_all({this->frame(i)}));
    EXPECT_EQ(m.peek(this->frame(i), 3), 20 + i);
    EXPECT_EQ(m.peek(this->frame(i), 4), inside ? i : 99);
  }
}

TYPED_TEST_P(PmapConformance, ProtectNoneRemoves) {
  auto& m = this->m;
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 5));
  this->a.pmap->protect(m.pages(this->a, 0, 1), Prot::kNone);
  EXPECT_EQ(m.load(this->a, 0), std::nullopt);
  EXPECT_FALSE(m.store(this->a, 0, 6));
  EXPECT_TRUE(m.known_modified(this->frame(0)));
  EXPECT_EQ(m.peek(this->frame(0)), 5);
}

TYPED_TEST_P(PmapConformance, ProtectGrantsNothing) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kRead), 1u);
  this->a.pmap->protect(m.pages(this->a, 0, 2), Prot::kReadWrite);
  EXPECT_FALSE(m.store(this->a, 0, 2));
  EXPECT_EQ(m.load(this->a, 1), std::nullopt);
  EXPECT_EQ(m.peek(this->frame(0)), 1);
}

TYPED_TEST_P(PmapConformance, RemoveAllTakesBatches) {
  auto& m = this->m;
  std::vector<FrameNumber> batch;
  for (std::size_t i = 0; i < 32; ++i) {
    m.fill(this->frame(i), static_cast<std::uint8_t>(i));
    batch.push_back(this->frame(i));
    if (i % 3 == 0) continue;  // some are not mapped
    ASSERT_EQ(m.enter(this->a, 40 - i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite), 1u);
    if (i % 3 == 1) {
      ASSERT_TRUE(m.store(this->a, 40 - i, static_cast<std::uint8_t>(100 + i), 1));
    }
  }
  ASSERT_EQ(m.enter(this->a, 50, {this->frame(40)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_FALSE(m.remove_all(batch));
  for (std::size_t i = 0; i < 32; ++i) {
    EXPECT_EQ(m.load(this->a, 40 - i), std::nullopt);
    EXPECT_EQ(m.peek(this->frame(i)), i);
    EXPECT_EQ(m.peek(this->frame(i), 1), i % 3 == 1 ? 100 + i : i);
    if (i % 3 == 1) {
      EXPECT_TRUE(m.sink.take_modified(this->frame(i)));
    }
    EXPECT_FALSE(m.machine.pmaps().is_modified(this->frame(i)));
  }
  EXPECT_TRUE(m.store(this->a, 50, 1)) << "a frame outside the batch lost its mapping";
}

TYPED_TEST_P(PmapConformance, RemoveAllRefusesPinnedFramesOnly) {
  if constexpr (requires(TypeParam & t, FrameNumber f) {
                  t.pin(f);
                  t.unpin(f);
                }) {
    auto& m = this->m;
    std::vector<FrameNumber> batch = {this->frame(0), this->frame(1), this->frame(2)};
    for (std::size_t i = 0; i < 3; ++i) {
      m.fill(batch[i], static_cast<std::uint8_t>(i + 1));
      ASSERT_EQ(m.enter(this->a, i, {batch[i]}, Prot::kReadWrite, Access::kWrite), 1u);
    }
    m.machine.pin(batch[1]);
    std::array<bool, 3> refused{true, false, true};
    m.machine.pmaps().remove_all(batch, refused);
    EXPECT_EQ(refused, (std::array<bool, 3>{false, true, false}));
    EXPECT_EQ(m.load(this->a, 0), std::nullopt);
    EXPECT_EQ(m.load(this->a, 1), 2);
    EXPECT_EQ(m.load(this->a, 2), std::nullopt);
    m.machine.unpin(batch[1]);
    EXPECT_FALSE(m.remove_all(batch));
    EXPECT_EQ(m.load(this->a, 1), std::nullopt);
  } else {
    GTEST_SKIP() << "this machine has no pin()";
  }
}

TYPED_TEST_P(PmapConformance, DiscardAllTakesMappingsAndLeavesFramesUsable) {
  // Scattered over two spaces, mapped in every way, and some not at all. Neighbours keep what they have.
  auto& m = this->m;
  TestSpace b = m.space();
  std::vector<FrameNumber> doomed;
  for (std::size_t i = 0; i < 30; ++i) {
    m.fill(this->frame(i), static_cast<std::uint8_t>(i + 1));
    TestSpace& s = i % 2 == 0 ? this->a : b;
    const Prot prot = i % 3 == 0 ? Prot::kRead : Prot::kReadWrite;
    if (i % 5 != 4) {
      ASSERT_EQ(m.enter(s, 63 - i, {this->frame(i)}, prot), 1u);
    }
    if (i % 4 != 3) doomed.push_back(this->frame(i));
  }
  std::vector<char> storage(doomed.size(), 1);
  m.machine.pmaps().discard_all(doomed, {reinterpret_cast<bool*>(storage.data()), storage.size()});
  EXPECT_EQ(std::count(storage.begin(), storage.end(), 0), static_cast<std::ptrdiff_t>(doomed.size()));
  for (std::size_t i = 0; i < 30; ++i) {
    TestSpace& s = i % 2 == 0 ? this->a : b;
    if (i % 4 != 3) {
      EXPECT_EQ(m.load(s, 63 - i), std::nullopt);
      EXPECT_FALSE(m.store(s, 63 - i, 9));
    } else if (i % 5 != 4) {
      EXPECT_EQ(m.load(s, 63 - i), i + 1);
    } else {
      EXPECT_EQ(m.peek(this->frame(i)), i + 1);
    }
  }
  // In each way that gives a frame contents again.
  m.machine.phys().zero({doomed[0], PageCount{1}});
  EXPECT_EQ(m.peek(doomed[0], 77), 0);
  m.fill(doomed[1], 0x5a);
  m.machine.phys().copy(doomed[1], doomed[2]);
  m.machine.phys().copy(this->frame(3), doomed[3]);
  ASSERT_EQ(m.enter(b, 0, {doomed[2]}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_EQ(m.enter(b, 1, {doomed[3]}, Prot::kRead), 1u);
  EXPECT_EQ(m.load(b, 0, 4095), 0x5a);
  EXPECT_EQ(m.load(b, 1, 4095), 4);
  ASSERT_TRUE(m.store(b, 0, 1));
  EXPECT_TRUE(m.known_modified(doomed[2]));
}

TYPED_TEST_P(PmapConformance, RemoveWriteKeepsReading) {
  auto& m = this->m;
  m.fill(this->frame(0), 1);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 2));
  m.machine.pmaps().remove_write(this->frame(0));
  EXPECT_TRUE(m.known_modified(this->frame(0)));
  EXPECT_FALSE(m.store(this->a, 0, 3));
  const auto seen = m.load(this->a, 0);
  if (seen.has_value()) {
    EXPECT_EQ(seen, 2);
  }
  EXPECT_EQ(m.peek(this->frame(0)), 2);
  ASSERT_EQ(m.enter(this->a, 0, {this->frame(0)}, Prot::kReadWrite, Access::kWrite), 1u);
  EXPECT_TRUE(m.store(this->a, 0, 3));
  EXPECT_EQ(m.load(this->a, 0), 3);
}

// ---- modified and referenced
// -----------------------------------------------------------------------------------

TYPED_TEST_P(PmapConformance, CleanedFramesReportTheNextStore) {
  auto& m = this->m;
  PmapSystem& pmaps = m.machine.pmaps();
  const FrameNumber f = this->frame(0);
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(m.enter(this->a, 0, {f}, Prot::kReadWrite, Access::kWrite), 1u);
    ASSERT_TRUE(m.store(this->a, 0, static_cast<std::uint8_t>(round)));
    EXPECT_TRUE(m.known_modified(f));
    pmaps.remove_write(f);
    (void)m.sink.take_modified(f);
    pmaps.clear_modify(f);
    EXPECT_FALSE(pmaps.is_modified(f)) << "nothing can have written since";
    EXPECT_EQ(m.peek(f), round);
  }
}

TYPED_TEST_P(PmapConformance, ReadOnlyUseNeverLosesAnEarlierModification) {
  auto& m = this->m;
  const FrameNumber f = this->frame(0);
  ASSERT_EQ(m.enter(this->a, 0, {f}, Prot::kReadWrite, Access::kWrite), 1u);
  ASSERT_TRUE(m.store(this->a, 0, 5));
  ASSERT_EQ(m.enter(this->a, 0, {f}, Prot::kRead), 1u);
  ASSERT_EQ(m.enter(this->a, 1, {f}, Prot::kRead), 1u);
  (void)m.load(this->a, 1);
  ASSERT_FALSE(m.remove_all({f}));
  EXPECT_TRUE(m.sink.take_modified(f));
}

TYPED_TEST_P(PmapConformance, ReferenceBits) {
  auto& m = this->m;
  PmapSystem& pmaps = m.machine.pmaps();
  if (!pmaps.has_reference_bits()) GTEST_SKIP() << "this machine has no reference bits";
  const FrameNumber f = this->frame(0);
  ASSERT_EQ(m.enter(this->a, 0, {f}, Prot::kRead), 1u);
  (void)m.load(this->a, 0);
  EXPECT_GE(pmaps.ts_referenced(f), 1u);
  EXPECT_EQ(pmaps.ts_referenced(f), 0u);
  (void)m.load(this->a, 0);
  EXPECT_EQ(pmaps.ts_referenced(f), 1u);
  (void)m.load(this->a, 0);
  (void)m.sink.take_referenced(f);
  ASSERT_FALSE(m.remove_all({f}));
  EXPECT_TRUE(m.sink.take_referenced(f));
}

// ---- copy_from, threads, random
// --------------------------------------------------------------------------------

TYPED_TEST_P(PmapConformance, CopyFromNeverGrantsWriteOrWrongBytes) {
  auto& m = this->m;
  TestSpace b = m.space();
  if (!b.range.contains(this->a.range.start))
    GTEST_SKIP() << "this machine's spaces have no address in common";
  for (std::size_t i = 0; i < 8; ++i) {
    m.fill(this->frame(i), static_cast<std::uint8_t>(i));
    ASSERT_EQ(m.enter(this->a, i, {this->frame(i)}, Prot::kReadWrite, Access::kWrite), 1u);
  }
  b.pmap->copy_from(*this->a.pmap, m.pages(this->a, 2, 4));
  for (std::size_t i = 0; i < 8; ++i) {
    const auto seen = m.load(b, i);
    if (seen.has_value()) {
      EXPECT_EQ(seen, i);
      EXPECT_TRUE(i >= 2 && i < 6);
    }
    EXPECT_FALSE(m.store(b, i, 99));
    EXPECT_EQ(m.load(this->a, i), i);
  }
  for (std::size_t i = 0; i < 8; ++i) {
    ASSERT_FALSE(m.remove_all({this->frame(i)}));
    EXPECT_EQ(m.load(b, i), std::nullopt);
  }
}

TYPED_TEST_P(PmapConformance, RemoveAllIsAtomicAgainstAWriter) {
  // A thread stores 1, 2, 3 ... until it faults. What the frame holds after remove_all() is its last store.
  auto& m = this->m;
  const FrameNumber f = this->frame(0);
  constexpr int kRounds = 300;
  std::atomic<int> round{0};
  std::atomic<int> faulted{0};
  std::atomic<bool> over{false};
  std::atomic<std::uint32_t> last{0};
  std::thread writer([&] {
    std::uint32_t value = 0;
    for (int mine = 1; mine <= kRounds; ++mine) {
      while (round.load() < mine && !over.load()) std::this_thread::yield();
      if (over.load()) return;
      while (m.store(this->a, 0, static_cast<std::uint8_t>(value + 1))) last.store(++value);
      faulted.store(mine);
    }
  });
  for (int i = 1; i <= kRounds; ++i) {
    const std::uint32_t before = last.load();
    int tries = 0;
    while (m.enter(this->a, 0, {f}, Prot::kReadWrite, Access::kWrite) != 1 && ++tries < 100000) {
      std::this_thread::yield();
    }
    EXPECT_LT(tries, 100000) << "enter() never succeeds";
    if (tries == 100000) break;
    round.store(i);
    while (last.load() < before + 3) std::this_thread::yield();
    bool reported = m.sink.take_modified(f);
    if (i % 2 == 0) {
      EXPECT_FALSE(m.remove_all({f}));
    } else {
      m.machine.pmaps().remove_write(f);
    }
    while (faulted.load() < i) std::this_thread::yield();
    reported |= m.known_modified(f);
    EXPECT_TRUE(reported);
    EXPECT_EQ(m.peek(f), static_cast<std::uint8_t>(last.load()));
  }
  over.store(true);
  writer.join();
}

TYPED_TEST_P(PmapConformance, ThreadsOnSeparateFramesDoNotDisturbEachOther) {
  auto& m = this->m;
  constexpr int kThreads = 4;
  std::vector<TestSpace> spaces;
  for (int t = 0; t < kThreads / 2; ++t) spaces.push_back(m.space());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      TestSpace& s = spaces[static_cast<std::size_t>(t) / 2];  // two threads per space
      const std::uint64_t base = static_cast<std::uint64_t>(t % 2) * 32;
      for (std::uint64_t i = 0; i < 400; ++i) {
        const std::uint64_t k = i % 8;
        const FrameNumber f = m.granted[static_cast<std::size_t>(t) * 8 + k];
        const auto value = static_cast<std::uint8_t>(i / 8 + 1);
        // 0 is a legal answer while another thread works on the same pmap: the access would fault again.
        (void)m.enter(s, base + k, {f}, Prot::kReadWrite, Access::kWrite);
        const bool stored = m.store(s, base + k, value);
        const auto seen = m.load(s, base + k);
        if (stored && seen.has_value() && seen != value) ++wrong;
        if (i % 5 == 0) s.pmap->remove(m.pages(s, base + k, 1));
        if (i % 3 == 0 && m.remove_all({f})) ++wrong;
        if (i % 3 == 0 && stored && m.peek(f) != value) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

TYPED_TEST_P(PmapConformance, RandomOperationsAgainstAModel) {
  // Model: what each page may map at most, what each frame holds at one byte, which frames must count as
  // modified.
  auto& m = this->m;
  constexpr std::size_t kPages = 24;
  constexpr std::size_t kUsed = 16;
  struct Page {
    std::optional<std::size_t> frame;
    Prot prot = Prot::kNone;
  };
  struct Frame {
    std::uint8_t value = 0;
    bool modified = false;
  };
  std::vector<TestSpace> spaces;
  spaces.push_back(m.space(kPages));
  spaces.push_back(m.space(kPages));
  std::vector<std::array<Page, kPages>> pages(spaces.size());
  std::array<Frame, kUsed> frames;
  for (std::size_t i = 0; i < kUsed; ++i) m.fill(this->frame(i), 0);
  std::mt19937 random(20250101);
  const auto pick = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const auto forget_frame = [&](std::size_t f) {
    for (auto& space : pages) {
      for (Page& page : space) {
        if (page.frame == f) page = {};
      }
    }
  };
  for (int step = 0; step < 20000; ++step) {
    const std::size_t s = pick(spaces.size());
    const std::size_t p = pick(kPages);
    switch (pick(10)) {
      case 0:
      case 1: {
        const std::size_t n = 1 + pick(std::min<std::size_t>(3, kPages - p));
        const Prot prot = pick(2) == 0 ? Prot::kRead : Prot::kReadWrite;
        std::vector<std::size_t> chosen;
        std::vector<FrameNumber> numbers;
        for (std::size_t i = 0; i < n; ++i) {
          std::size_t f = pick(kUsed);
          while (std::find(chosen.begin(), chosen.end(), f) != chosen.end()) f = (f + 1) % kUsed;
          chosen.push_back(f);
          numbers.push_back(this->frame(f));
        }
        const std::uint64_t done = m.enter(spaces[s], p, numbers, prot, Access::kRead);
        ASSERT_GE(done, 1u);
        for (std::size_t i = 0; i < done; ++i) pages[s][p + i] = {chosen[i], prot};
        break;
      }
      case 2: {
        const Page& page = pages[s][p];
        const auto seen = m.load(spaces[s], p, 33);
        if (seen.has_value()) {
          ASSERT_TRUE(page.frame.has_value())
              << "step " << step << ": a load succeeded where nothing is mapped";
          ASSERT_EQ(*seen, frames[*page.frame].value) << "step " << step;
        }
        break;
      }
      case 3:
      case 4: {
        const Page& page = pages[s][p];
        const auto value = static_cast<std::uint8_t>(random());
        if (m.store(spaces[s], p, value, 33)) {
          ASSERT_TRUE(page.frame.has_value()) << "step " << step;
          ASSERT_TRUE(allows(page.prot, Prot::kWrite))
              << "step " << step << ": a store passed a read-only mapping";
          frames[*page.frame] = {value, true};
        }
        break;
      }
      case 5: {
        const std::size_t n = 1 + pick(kPages - p);
        spaces[s].pmap->remove(m.pages(spaces[s], p, n));
        for (std::size_t i = p; i < p + n; ++i) pages[s][i] = {};
        break;
      }
      case 6: {
        const std::size_t n = 1 + pick(kPages - p);
        spaces[s].pmap->protect(m.pages(spaces[s], p, n), Prot::kRead);
        for (std::size_t i = p; i < p + n; ++i) pages[s][i].prot = pages[s][i].prot & Prot::kRead;
        break;
      }
      case 7: {
        const std::size_t f = pick(kUsed);
        ASSERT_FALSE(m.remove_all({this->frame(f)}));
        forget_frame(f);
        ASSERT_EQ(m.peek(this->frame(f), 33), frames[f].value) << "step " << step;
        break;
      }
      case 8: {  // laundering: write access away, contents read, bits cleared
        const std::size_t f = pick(kUsed);
        m.machine.pmaps().remove_write(this->frame(f));
        for (auto& space : pages) {
          for (Page& page : space) {
            if (page.frame == f) page.prot = Prot::kRead;
          }
        }
        ASSERT_EQ(m.peek(this->frame(f), 33), frames[f].value) << "step " << step;
        const bool known = m.known_modified(this->frame(f));
        if (frames[f].modified) {
          ASSERT_TRUE(known) << "step " << step << ": a store was not reported";
        }
        m.machine.pmaps().clear_modify(this->frame(f));
        frames[f].modified = false;
        break;
      }
      case 9: {  // nobody needs the contents of some frames; they get others
        std::vector<FrameNumber> batch;
        for (std::size_t f = pick(3); f < kUsed; f += 1 + pick(6)) {
          batch.push_back(this->frame(f));
          forget_frame(f);
          frames[f].value = static_cast<std::uint8_t>(step);
        }
        std::array<bool, kUsed> refused{};
        m.machine.pmaps().discard_all(batch, std::span(refused).first(batch.size()));
        ASSERT_EQ(std::count(refused.begin(), refused.end(), true), 0);
        for (const FrameNumber f : batch) m.fill(f, static_cast<std::uint8_t>(step));
        break;
      }
    }
  }
  for (std::size_t f = 0; f < kUsed; ++f) {
    ASSERT_FALSE(m.remove_all({this->frame(f)}));
    EXPECT_EQ(m.peek(this->frame(f), 33), frames[f].value);
    if (frames[f].modified) {
      EXPECT_TRUE(m.sink.take_modified(this->frame(f)));
    }
  }
}

REGISTER_TYPED_TEST_SUITE_P(
    PmapConformance, GrantsDistinctFramesBelowTheLimit, RetiredFramesCanBeGrantedAgain,
    ZeroMakesWholeRunsReadAsZeros, ZeroAfterUse, CopyCopiesEveryByteAndLeavesTheSource,
    CopyFromAFrameThatIsMappedReadOnly, WithFramesGivesRunsInOrder, NothingMappedFaults,
    ReadMappingReadsAndRefusesStores, WriteMappingStoresIntoTheFrame, ExecuteIsAcceptedWithReadAndWrite,
    EntersLeadingFramesOfASpan, ReadOnlySpanRefusesStores, EnterReplacesAnotherFrame, SpanReplacesWhatIsThere,
    SameFrameAgainUpgrades, SameFrameAgainDowngradesAndKeepsModified, ContentsFollowTheFrameToAnotherAddress,
    TwoSpacesShareAFrame, SpacesAreSeparate, DestroyingAPmapReportsAndFreesItsFrames,
    WiredMappingsStayWhileOthersCome, RemoveTakesExactlyTheRange, RemoveOfNothingIsFine,
    ProtectTakesWriteAwayAndKeepsContents, ProtectNoneRemoves, ProtectGrantsNothing, RemoveAllTakesBatches,
    RemoveAllRefusesPinnedFramesOnly, DiscardAllTakesMappingsAndLeavesFramesUsable, RemoveWriteKeepsReading,
    CleanedFramesReportTheNextStore, ReadOnlyUseNeverLosesAnEarlierModification, ReferenceBits,
    CopyFromNeverGrantsWriteOrWrongBytes, RemoveAllIsAtomicAgainstAWriter,
    ThreadsOnSeparateFramesDoNotDisturbEachOther, RandomOperationsAgainstAModel);

}  // namespace enchilada
