// Random operations on several address spaces in every mode, against a flat model and a full scan of all page
// tables after each step. ENCHILADA_SEED=n replays one seed, ENCHILADA_SEEDS=n sets how many are walked.
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

#include "soft_rig.h"

namespace enchilada {
namespace {

using namespace soft_rig;

constexpr std::uint64_t kManyFrames = 1100;  // 0..1023 are two superpages
constexpr std::size_t kMostSpaces = 5;
constexpr std::size_t kMostWired = 6;
// Four leaf tables; the last hangs under another branch.
constexpr std::uint64_t kTables[] = {0, 1, 2, 513};

struct Modelled {
  std::uint64_t frame = 0;
  bool writable = false;
  bool wired = false;
};

struct Process {
  std::unique_ptr<SoftPmap> pmap;
  std::map<std::uint64_t, Modelled> pages;
};

/// What all seeds together have made the pmap decide.
std::map<PmapEvent, std::uint64_t> totals;

class Run {
 public:
  Run(std::uint64_t seed, const SoftPmapOptions& options)
      : random_(seed), s_(options, kManyFrames, std::size_t{16} << 20) {
    processes_.push_back({s_.pmap(), {}});
  }

  void run(unsigned steps) {
    for (unsigned i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      step();
      if (!testing::Test::HasFailure()) check();
      if (testing::Test::HasFailure()) ADD_FAILURE() << "at step " << i << ", operation " << what_;
    }
    for (std::uint64_t f = 0; f < kManyFrames && !testing::Test::HasFailure(); ++f) check_modified(f);
    while (!processes_.empty()) processes_.pop_back();
    EXPECT_EQ(s_.system.pv_entries(), 0u);
    EXPECT_EQ(s_.system.table_bytes(), 0u);
    for (std::size_t e = 0; e < kPmapEventKinds; ++e) {
      totals[static_cast<PmapEvent>(e)] += s_.decided(static_cast<PmapEvent>(e));
    }
  }

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  Process& some() { return processes_[below(processes_.size())]; }
  std::uint64_t some_table() { return kTables[below(std::size(kTables))] * 512; }
  /// Few different pages, so that operations meet.
  std::uint64_t some_page() { return some_table() + below(6) * 100 + below(3); }
  VirtRange some_range() {
    if (one_in(3)) {
      const std::uint64_t first = some_table();
      return pages(first, first + 512 * (1 + below(3)));
    }
    const std::uint64_t first = some_page();
    return pages(first, first + 1 + below(one_in(4) ? 900 : 8));
  }
  std::size_t wired() const {
    std::size_t n = 0;
    for (const Process& p : processes_) {
      for (const auto& [number, m] : p.pages) n += m.wired;
    }
    return n;
  }

  void step() {
    switch (below(20)) {
      case 0:
      case 1:
      case 2:
        return enter_some();
      case 3:
        return fill_table();
      case 4:
      case 5:
      case 6:
      case 7:
        return touch_some();
      case 8:
        return sweep();
      case 9:
      case 10:
        return remove();
      case 11:
        return protect();
      case 12:
        return unmap_frame();
      case 13:
        return clean_frame();
      case 14:
        what_ = "ts_referenced";
        (void)s_.system.ts_referenced(frame(below(kManyFrames)));
        return;
      case 15:
      case 16:
        return fork();
      case 17:
        what_ = "exit";
        if (processes_.size() > 1)
          processes_.erase(processes_.begin() + static_cast<long>(below(processes_.size())));
        return;
      case 18:
        return drop();
      default:
        return unwire();
    }
  }

  /// As a fault does it: the mapping that the model says, with one frame or with neighbours.
  void fault(Process& p, std::uint64_t number) {
    const Modelled& m = p.pages.at(number);
    ASSERT_EQ(
        soft_rig::enter(*p.pmap, page(number), frame(m.frame), m.writable ? Prot::kReadWrite : Prot::kRead,
                        m.wired ? Wiring::kWired : Wiring::kNotWired),
        1u);
  }
  void touch(Process& p, std::uint64_t number, bool writes) {
    const auto it = p.pages.find(number);
    const bool expected = it != p.pages.end() && (!writes || it->second.writable);
    std::uint8_t seen = 0;
    const auto value = static_cast<std::uint8_t>(random_());
    const auto use = [&](std::byte* b) {
      seen = static_cast<std::uint8_t>(*b);
      if (writes) *b = static_cast<std::byte>(value);
    };
    const Access access = writes ? Access::kWrite : Access::kRead;
    bool done = p.pmap->access(page(number), access, use);
    if (!done && expected) {
      ASSERT_NO_FATAL_FAILURE(fault(p, number));
      done = p.pmap->access(page(number), access, use);
      if (!done) {  // the high-water mark may take what was entered just now, if another enter comes: none
                    // does
        ADD_FAILURE() << "page " << number << " faults again";
      }
    }
    ASSERT_EQ(done, expected) << "page " << number << (writes ? " write" : " read");
    if (!done) return;
    ASSERT_EQ(seen, values_[it->second.frame]) << "page " << number;
    if (!writes) return;
    values_[it->second.frame] = value;
    modified_[it->second.frame] = true;
  }

  void enter_some() {
    what_ = "enter";
    Process& p = some();
    const std::uint64_t number = some_page();
    const std::uint64_t n = 1 + below(4);
    const bool writable = one_in(2);
    const bool wires = n == 1 && one_in(6) && wired() < kMostWired;
    std::vector<FrameNumber> frames;
    const std::uint64_t first = below(kManyFrames - 4);
    for (std::uint64_t i = 0; i < n; ++i) frames.push_back(frame(one_in(8) ? 1024 + i : first + i));
    for (std::uint64_t i = 0; i < n; ++i) {
      const auto it = p.pages.find(number + i);
      if (it != p.pages.end() && it->second.wired) return;  // the engine does not replace what is wired
    }
    const std::uint64_t done = p.pmap
                                   ->enter(page(number), frames, writable ? Prot::kReadWrite : Prot::kRead,
                                           Access::kRead, wires ? Wiring::kWired : Wiring::kNotWired)
                                   .value();
    ASSERT_GE(done, 1u);
    for (std::uint64_t i = 0; i < n; ++i) {
      if (i < done) {
        p.pages[number + i] = {frames[i].value(), writable, wires};
      } else if (const auto it = p.pages.find(number + i); it != p.pages.end()) {
        p.pmap->remove(pages(number + i, number + i + 1));
        p.pages.erase(it);
      }
    }
  }

  /// A whole leaf table of neighbouring frames, all used: what may become a superpage.
  void fill_table() {
    what_ = "fill a table";
    Process& p = some();
    const std::uint64_t first = some_table();
    const std::uint64_t from = one_in(6) ? below(500) : below(2) * 512;
    for (std::uint64_t i = 0; i < 512; ++i) {
      const auto it = p.pages.find(first + i);
      if (it != p.pages.end() && it->second.wired) return;
    }
    const bool writable = !one_in(3);
    for (std::uint64_t i = 0; i < 512; ++i) p.pages[first + i] = {from + i, writable, false};
    p.pmap->remove(pages(first, first + 512));
    const bool dirties = writable && !one_in(3);
    for (std::uint64_t i = 0; i < 512; ++i) ASSERT_NO_FATAL_FAILURE(touch(p, first + i, dirties));
    ASSERT_NO_FATAL_FAILURE(fault(p, first + below(512)));
  }

  void touch_some() {
    what_ = "access";
    for (std::uint64_t n = 1 + below(6); n > 0; --n) {
      ASSERT_NO_FATAL_FAILURE(touch(some(), one_in(4) ? some_table() + below(512) : some_page(), one_in(2)));
    }
  }
  void sweep() {
    what_ = "sweep";
    Process& p = some();
    const std::uint64_t first = some_table() + below(2) * 256;
    const bool writes = one_in(2);
    for (std::uint64_t i = 0; i < 256; ++i) ASSERT_NO_FATAL_FAILURE(touch(p, first + i, writes));
  }

  void remove() {
    what_ = "remove";
    Process& p = some();
    const VirtRange range = some_range();
    p.pmap->remove(range);
    p.pages.erase(p.pages.lower_bound(range.start.value() / kPageSize),
                  p.pages.lower_bound(range.end.value() / kPageSize));
  }
  static void take_write(Process& p, VirtRange range) {
    for (auto& [number, m] : p.pages) {
      if (range.contains(page(number))) m.writable = false;
    }
  }
  void protect() {
    what_ = "protect";
    Process& p = some();
    const VirtRange range = some_range();
    p.pmap->protect(range, Prot::kRead);
    take_write(p, range);
  }
  void unmap_frame() {
    what_ = "unmap a frame";
    const std::uint64_t f = below(kManyFrames);
    remove_all(s_, frame(f));
    for (Process& p : processes_) std::erase_if(p.pages, [&](const auto& e) { return e.second.frame == f; });
    unsigned left = 0;
    s_.system.for_each_mapping_of(frame(f), [&](VirtAddr, bool) { ++left; });
    EXPECT_EQ(left, 0u);
  }
  void check_modified(std::uint64_t f) {
    if (modified_[f]) {
      EXPECT_TRUE(s_.sink.modified[f] != 0 || s_.system.is_modified(frame(f)))
          << "frame " << f << ": a store was lost";
    }
  }
  void clean_frame() {
    what_ = "clean a frame";
    const std::uint64_t f = below(kManyFrames);
    s_.system.remove_write(frame(f));
    for (Process& p : processes_) {
      for (auto& [number, m] : p.pages) m.writable = m.writable && m.frame != f;
    }
    check_modified(f);
    s_.sink.modified[f] = 0;
    s_.system.clear_modify(frame(f));
    modified_[f] = false;
    EXPECT_FALSE(s_.system.is_modified(frame(f))) << "nobody can have written since";
  }

  void fork() {
    what_ = "fork";
    if (processes_.size() == kMostSpaces) return;
    Process& parent = some();
    Process child{s_.pmap(), {}};
    // As the engine does it: everything, or with holes that the child does not inherit.
    std::vector<VirtRange> inherited = {pages(0, 600 * 512)};
    if (one_in(3)) inherited = {pages(0, some_page()), some_range()};
    const bool thrown = parent.pmap->throw_away_for_fork();
    if (thrown) {
      EXPECT_EQ(parent.pmap->mappings(), 0u);
    }
    for (const VirtRange range : inherited) {
      if (!thrown) parent.pmap->protect(range, Prot::kRead);
      take_write(parent, range);
    }
    for (const VirtRange range : inherited) {
      if (range.end <= range.start) continue;
      child.pmap->copy_from(*parent.pmap, range);
      for (const auto& [number, m] : parent.pages) {
        if (range.contains(page(number))) child.pages[number] = {m.frame, false, false};
      }
    }
    processes_.push_back(std::move(child));
  }
  void drop() {
    what_ = "drop";
    Process& p = some();
    if (one_in(4)) return p.pmap->throw_away();
    const std::uint64_t n = 1 + below(4);
    p.pmap->drop_if([&](const SoftMapping&) { return one_in(n); });
  }
  void unwire() {
    what_ = "unwire";
    Process& p = some();
    const VirtRange range = some_range();
    p.pmap->unwire(range);
    for (auto& [number, m] : p.pages) m.wired = m.wired && !range.contains(page(number));
  }

  /// The full scan: every mapping is one that the model allows, and the reverse map is the scan's inverse.
  void check() {
    const char* const error = s_.system.find_error();
    ASSERT_EQ(error, nullptr) << error;
    std::map<std::uint64_t, std::multiset<std::uint64_t>> scanned;
    for (Process& p : processes_) {
      std::size_t wired = 0;
      std::uint64_t count = 0;
      p.pmap->for_each_mapping([&](const SoftMapping& m) {
        const std::uint64_t number = m.va.value() / kPageSize;
        ++count;
        scanned[m.frame.value()].insert(number);
        const auto it = p.pages.find(number);
        if (it == p.pages.end()) {
          ADD_FAILURE() << "page " << number << " is mapped";
          return;
        }
        EXPECT_EQ(it->second.frame, m.frame.value()) << "page " << number;
        EXPECT_TRUE(it->second.writable || !m.writable) << "page " << number << " is writable";
        EXPECT_TRUE(it->second.wired || !m.wired) << "page " << number << " is wired";
        wired += m.wired;
      });
      EXPECT_EQ(count, p.pmap->mappings());
      std::size_t expected = 0;
      for (const auto& [number, m] : p.pages) expected += m.wired;
      EXPECT_EQ(wired, expected) << "wired mappings were thrown away";
    }
    for (std::uint64_t f = 0; f < kManyFrames; ++f) {
      std::multiset<std::uint64_t> reverse;
      s_.system.for_each_mapping_of(frame(f),
                                    [&](VirtAddr va, bool) { reverse.insert(va.value() / kPageSize); });
      const auto it = scanned.find(f);
      if (it == scanned.end() ? !reverse.empty() : reverse != it->second) {
        ADD_FAILURE() << "the reverse map of frame " << f << " differs from the scan";
        return;
      }
    }
  }

  std::mt19937_64 random_;
  Soft s_;
  std::vector<Process> processes_;
  std::array<std::uint8_t, kManyFrames> values_{};
  std::array<bool, kManyFrames> modified_{};
  const char* what_ = "";
};

SoftPmapOptions options_of(std::uint64_t seed) {
  std::mt19937_64 random(seed ^ 0x5eed);
  SoftPmapOptions options;
  const auto flip = [&] { return random() % 2 == 0; };
  options.modes.set(flip() ? PvMode::kList : PvMode::kChunk)
      .set(static_cast<ForkTablesMode>(random() % 3))
      .set(flip() ? SuperpagesMode::kOff : SuperpagesMode::kPromote)
      .set(flip() ? SharedTablesMode::kOff : SharedTablesMode::kOn)
      .set(random() % 4 == 0 ? PageTableMode::kHashed : PageTableMode::kRadix);
  if (random() % 3 == 0) options.pv_limit = 168 * (kMostSpaces + 1) + random() % 400;
  options.table_pages = PageCount{random() % 3 == 0 ? 4 * kMostSpaces + 8 + random() % 20 : 200};
  options.dirty_bits = random() % 6 != 0;
  options.reference_bits = options.dirty_bits && random() % 6 != 0;
  return options;
}

void run_seed(std::uint64_t seed) {
  const SoftPmapOptions options = options_of(seed);
  Run(seed, options).run(250);
  if (!testing::Test::HasFailure()) return;
  std::string modes;
  for (std::size_t i = 0; i < kMechanisms.size(); ++i) {
    if (kMechanisms[i].scope != ModeScope::kSoftMachineOnly) continue;
    modes.append(kMechanisms[i].name)
        .append("=")
        .append(kMechanisms[i].modes[options.modes.number(i)])
        .append(" ");
  }
  ADD_FAILURE() << "replay with ENCHILADA_SEED=" << seed << " (" << modes << "pv limit " << options.pv_limit
                << ", tables " << options.table_pages.value() << ", dirty bits " << options.dirty_bits << ")";
}

TEST(SoftPmapRandom, SeveralSpacesInEveryModeAgainstAModelAndAFullScan) {
  if (const char* const text = std::getenv("ENCHILADA_SEED"); text != nullptr) {
    return run_seed(std::strtoull(text, nullptr, 0));
  }
  const char* const text = std::getenv("ENCHILADA_SEEDS");
  constexpr std::uint64_t kUsual = 100;
  const std::uint64_t seeds = text != nullptr ? std::strtoull(text, nullptr, 0) : kUsual;
  for (std::uint64_t seed = 1; seed <= seeds && !HasFailure(); ++seed) run_seed(seed);
  if (seeds < kUsual) return;
  // A test that no longer reaches some decision is worth little.
  constexpr auto kFirst = static_cast<std::size_t>(PmapEvent::kPvHighWater);
  constexpr auto kEnd = static_cast<std::size_t>(PmapEvent::kHashProbe);
  for (std::size_t e = kFirst; e < kEnd; ++e) {
    EXPECT_NE(totals[static_cast<PmapEvent>(e)], 0u) << "decision " << e << " never happened";
  }
}

}  // namespace
}  // namespace enchilada
