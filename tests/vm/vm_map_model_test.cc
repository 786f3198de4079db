// Random sequences of every map operation against a model that keeps one record per page.
// ENCHILADA_SEED=n replays one sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "map_indexes.h"
#include "map_machine.h"

namespace enchilada {
namespace {

using Placement = VmMap::MapRequest::Placement;
constexpr std::uint64_t kBase = std::uint64_t{1} << 32;
constexpr std::uint64_t kPages = 48;
using Cell =
    std::shared_ptr<std::uint64_t>;  // the word at the start of a page; shared where memory is shared

VirtRange pages(std::uint64_t first, std::uint64_t count) {
  return {VirtAddr{kBase + first * kPageSize}, VirtAddr{kBase + (first + count) * kPageSize}};
}

struct ModelPage {
  EntryKind kind = EntryKind::kObject;
  Prot prot = Prot::kNone;
  Prot max_prot = Prot::kNone;
  Inherit inherit = Inherit::kCopy;
  Advice advice = Advice::kNormal;
  bool shared = false;  // some other space shares (or shared) the page's memory
  Cell cell = std::make_shared<std::uint64_t>(0);
};
using Model = std::map<std::uint64_t, ModelPage>;

struct Space {
  std::unique_ptr<VmMap> map;
  Model model;
};

class Walk {
 public:
  Walk(std::uint64_t seed, std::uint32_t frames, MapIndexFactory index)
      : rng_(seed), machine_(frames, index) {
    spaces_.push_back({VmMap::create(*machine_.system, pages(0, kPages)), {}});
  }
  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) step(i);
    for (Space& s : spaces_) check_contents(s, kPages);
    while (!spaces_.empty()) {
      spaces_.pop_back();
      for (Space& s : spaces_) check_contents(s, kPages);
    }
    ASSERT_EQ(machine_.system->objects().live(), 0u);
  }

 private:
  std::uint64_t below(std::uint64_t n) { return rng_() % n; }
  Prot random_prot() {
    constexpr Prot kProts[] = {Prot::kNone, Prot::kRead, Prot::kReadWrite, Prot::kReadWrite,
                               Prot::kReadWrite};
    return kProts[below(std::size(kProts))];
  }
  void step(int i) {
    SCOPED_TRACE("step " + std::to_string(i));
    Space& s = spaces_[below(spaces_.size())];
    first_ = below(kPages);
    count_ = 1 + below(below(4) == 0 ? kPages - first_ : std::min<std::uint64_t>(8, kPages - first_));
    switch (below(16)) {
      case 0:
      case 1:
      case 2:
        map(s);
        break;
      case 3:
        remove(s);
        break;
      case 4:
      case 5:
        protect(s);
        break;
      case 6:
        inherit(s);
        break;
      case 7:
        advise(s);
        break;
      case 8:
        remap(s);
        break;
      case 9:
        fork(s);
        break;
      case 10:
        space(s);
        break;
      case 11:
        wire(s);
        break;
      default:
        touch(s);
    }
    if (testing::Test::HasFatalFailure()) return;
    for (Space& each : spaces_) check_entries(each);
    check_contents(spaces_[below(spaces_.size())], 3);
    machine_.system->validate();
  }

  bool covered(const Model& m, std::uint64_t first, std::uint64_t n) const {
    for (std::uint64_t p = first; p < first + n; ++p) {
      if (m.count(p) == 0) return false;
    }
    return true;
  }
  bool vacant(const Model& m, std::uint64_t first, std::uint64_t n) const {
    const auto it = m.lower_bound(first);
    return it == m.end() || it->first >= first + n;
  }
  std::optional<std::uint64_t> naive_space(const Model& m, std::uint64_t lowest, std::uint64_t n,
                                           std::uint64_t align) {
    for (std::uint64_t p = lowest; p + n <= kPages; ++p) {
      if ((kBase / kPageSize + p) % align == 0 && vacant(m, p, n)) return p;
    }
    return std::nullopt;
  }
  static void erase(Model& m, std::uint64_t first, std::uint64_t n) {
    m.erase(m.lower_bound(first), m.lower_bound(first + n));
  }

  void map(Space& s) {
    VmMap::MapRequest r{.length = ByteCount{count_ * kPageSize - below(kPageSize)}};
    r.prot = random_prot();
    r.max_prot = below(8) == 0 ? r.prot : Prot::kAll;
    constexpr Inherit kInherits[] = {Inherit::kCopy, Inherit::kCopy, Inherit::kShare, Inherit::kNone,
                                     Inherit::kZero};
    r.inherit = kInherits[below(std::size(kInherits))];
    constexpr EntryKind kKinds[] = {EntryKind::kGuard, EntryKind::kForeign};
    if (below(6) == 0) r.kind = kKinds[below(2)];
    r.placement = static_cast<Placement>(below(3));
    r.hint = pages(first_, 1).start;
    const std::uint64_t align = std::uint64_t{1} << below(3);
    std::optional<std::uint64_t> at = first_;
    if (r.placement == Placement::kAnywhere) {
      r.alignment = align * kPageSize;
      at = naive_space(s.model, first_, count_, align);
    } else if (r.placement == Placement::kFixedExclusive && !vacant(s.model, first_, count_)) {
      at.reset();
    }
    VirtAddr got;
    const KernReturn verdict = s.map->map(r, &got);
    ASSERT_EQ(verdict, at ? KernReturn::kSuccess : KernReturn::kNoSpace);
    if (!at) return;
    ASSERT_EQ(got, pages(*at, 1).start);
    erase(s.model, *at, count_);
    for (std::uint64_t p = *at; p < *at + count_; ++p) {
      ModelPage& m = s.model[p];
      m.kind = r.kind;
      m.prot = r.kind == EntryKind::kGuard ? Prot::kNone : r.prot;
      m.max_prot = r.kind == EntryKind::kGuard ? Prot::kNone : r.max_prot;
      m.inherit = r.inherit == Inherit::kZero && r.kind != EntryKind::kObject ? Inherit::kCopy : r.inherit;
    }
  }

  void remove(Space& s) {
    ASSERT_EQ(s.map->remove(pages(first_, count_)), KernReturn::kSuccess);
    erase(s.model, first_, count_);
  }

  void protect(Space& s) {
    const Prot prot = random_prot();
    KernReturn expected =
        covered(s.model, first_, count_) ? KernReturn::kSuccess : KernReturn::kInvalidAddress;
    for (std::uint64_t p = first_; expected == KernReturn::kSuccess && p < first_ + count_; ++p) {
      const ModelPage& m = s.model[p];
      if (m.kind == EntryKind::kObject && !allows(m.max_prot, prot))
        expected = KernReturn::kProtectionFailure;
    }
    ASSERT_EQ(s.map->protect(pages(first_, count_), prot), expected);
    if (expected != KernReturn::kSuccess) return;
    for (std::uint64_t p = first_; p < first_ + count_; ++p) {
      if (s.model[p].kind == EntryKind::kObject) s.model[p].prot = prot;
    }
  }

  // Memory that is being shared keeps its inheritance: FreeBSD's fork does not make a true copy of what a
  // third party still writes to, and neither do we.
  void inherit(Space& s) {
    for (auto it = s.model.lower_bound(first_); it != s.model.end() && it->first < first_ + count_; ++it) {
      if (it->second.shared) return;
    }
    const Inherit how = static_cast<Inherit>(below(4));
    ASSERT_EQ(s.map->inherit(pages(first_, count_), how), KernReturn::kSuccess);
    for (auto it = s.model.lower_bound(first_); it != s.model.end() && it->first < first_ + count_; ++it) {
      if (how != Inherit::kZero || it->second.kind == EntryKind::kObject) it->second.inherit = how;
    }
  }

  void advise(Space& s) {
    constexpr Advice kAdvice[] = {Advice::kNormal,   Advice::kSequential, Advice::kRandom, Advice::kWillNeed,
                                  Advice::kDontNeed, Advice::kDiscard,    Advice::kDiscard};
    const Advice advice = kAdvice[below(std::size(kAdvice))];
    ASSERT_EQ(s.map->advise(pages(first_, count_), advice), KernReturn::kSuccess);
    for (auto it = s.model.lower_bound(first_); it != s.model.end() && it->first < first_ + count_; ++it) {
      ModelPage& m = it->second;
      if (m.kind != EntryKind::kObject) continue;
      if (advice <= Advice::kRandom) m.advice = advice;
      if (advice == Advice::kDiscard && m.inherit != Inherit::kShare)
        m.cell = std::make_shared<std::uint64_t>(0);
    }
  }

  void remap(Space& s) {
    const std::uint64_t extra = below(3);
    const std::uint64_t to = below(kPages);
    const bool keep = below(3) == 0;
    KernReturn expected = KernReturn::kSuccess;
    if (to + count_ + extra > kPages) {
      expected = KernReturn::kInvalidAddress;
    } else if (to < first_ + count_ && first_ < to + count_ + extra && (to != first_ || keep)) {
      expected = KernReturn::kInvalidArgument;
    } else if (!covered(s.model, first_, count_)) {
      expected = KernReturn::kInvalidAddress;
    } else {
      for (std::uint64_t p = first_; p < first_ + count_; ++p) {
        if (s.model[p].kind == EntryKind::kForeign) expected = KernReturn::kInvalidArgument;
      }
      if (expected == KernReturn::kSuccess && to == first_ && !vacant(s.model, first_ + count_, extra)) {
        expected = extra == 0 ? KernReturn::kSuccess : KernReturn::kNoSpace;
      }
    }
    ASSERT_EQ(s.map->remap(pages(first_, count_), pages(to, count_ + extra), keep), expected);
    if (expected == KernReturn::kSuccess) move_model(s.model, to, extra, keep);
  }
  void move_model(Model& m, std::uint64_t to, std::uint64_t extra, bool keep) {
    std::vector<ModelPage> moved;
    for (std::uint64_t p = first_; p < first_ + count_; ++p) moved.push_back(m[p]);
    ModelPage last = moved.back();
    if (to != first_) {
      erase(m, to, count_ + extra);
      if (!keep) erase(m, first_, count_);
    }
    for (std::uint64_t i = 0; i < count_; ++i) {
      if (keep) m[first_ + i].cell = std::make_shared<std::uint64_t>(0);
      if (keep) m[first_ + i].shared = false;
      m[to + i] = moved[i];
    }
    for (std::uint64_t i = count_; i < count_ + extra; ++i) {
      last.cell = std::make_shared<std::uint64_t>(0);
      last.shared = false;
      m[to + i] = last;
    }
  }

  void fork(Space& s) {
    if (spaces_.size() >= 4 || (spaces_.size() > 1 && below(3) == 0)) {
      spaces_.erase(spaces_.begin() + static_cast<std::ptrdiff_t>(below(spaces_.size())));
      return;
    }
    Space child{s.map->fork(), {}};
    ASSERT_NE(child.map, nullptr);
    for (auto& [p, page] : s.model) {
      if (page.inherit == Inherit::kNone) continue;
      ModelPage copy = page;
      if (page.inherit == Inherit::kShare && page.kind == EntryKind::kObject) {
        copy.shared = page.shared = true;
      } else {
        copy.cell = std::make_shared<std::uint64_t>(page.inherit == Inherit::kCopy ? *page.cell : 0);
        copy.shared = false;
      }
      child.model[p] = copy;
    }
    spaces_.push_back(std::move(child));
  }

  void space(Space& s) {
    const std::uint64_t align = std::uint64_t{1} << below(5);
    const auto expected = naive_space(s.model, first_, count_, align);
    const auto got =
        s.map->find_space(pages(first_, 1).start, ByteCount{count_ * kPageSize}, align * kPageSize);
    ASSERT_EQ(got.has_value(), expected.has_value());
    if (got) {
      ASSERT_EQ(*got, pages(*expected, 1).start);
    }
    ASSERT_EQ(s.map->is_free(pages(first_, count_)), vacant(s.model, first_, count_));
    ASSERT_EQ(s.map->is_covered(pages(first_, count_)), covered(s.model, first_, count_));
    Prot prot = Prot::kAll;
    for (std::uint64_t p = first_; p < first_ + count_; ++p) {
      prot = s.model.count(p) == 0 ? Prot::kNone : prot & s.model[p].prot;
    }
    ASSERT_EQ(s.map->check_protection(pages(first_, count_)), prot);
  }

  // Wired and let go within the step: what stays wired would only shrink this small machine's memory.
  void wire(Space& s) {
    bool possible = covered(s.model, first_, count_);
    for (std::uint64_t p = first_; possible && p < first_ + count_; ++p) {
      const ModelPage& m = s.model[p];
      possible = m.kind == EntryKind::kForeign || (m.kind == EntryKind::kObject && m.prot != Prot::kNone);
    }
    const WireKind kind = below(2) == 0 ? WireKind::kUser : WireKind::kSystem;
    ASSERT_EQ(s.map->wire(pages(first_, count_), kind),
              possible ? KernReturn::kSuccess : KernReturn::kInvalidAddress);
    if (!possible) return;
    s.map->validate();
    machine_.system->validate();
    check_contents(s, 3);
    switch (below(3)) {
      case 0:
        remove(s);
        break;
      case 1:
        fork(s);
        if (spaces_.empty()) break;
        for (Space& each : spaces_) (void)each.map->unwire(pages(0, kPages), kind);
        break;
      default:
        ASSERT_EQ(s.map->unwire(pages(first_, count_), kind), KernReturn::kSuccess);
    }
  }

  void touch(Space& s) {
    for (std::uint64_t p = first_; p < first_ + count_; ++p) {
      if (below(2) == 0) continue;
      const bool write = below(3) != 0;
      const std::uint64_t value = rng_();
      const auto it = s.model.find(p);
      FaultResult expected = FaultResult::kResolved;
      if (it == s.model.end() || it->second.kind != EntryKind::kObject) {
        expected = FaultResult::kNotMapped;
      } else if (write ? !allows(it->second.prot, Prot::kWrite) : it->second.prot == Prot::kNone) {
        expected = FaultResult::kProtection;
      }
      const std::uint64_t at = kBase + p * kPageSize;
      std::uint64_t seen = 0;
      ASSERT_EQ(write ? machine_.store(*s.map, at, value) : machine_.load(*s.map, at, &seen), expected);
      if (expected != FaultResult::kResolved) continue;
      if (write) *it->second.cell = value;
      if (!write) {
        ASSERT_EQ(seen, *it->second.cell) << "page " << p;
      }
    }
  }

  void check_entries(Space& s) {
    s.map->validate();
    auto it = s.model.begin();
    s.map->for_each_entry([&](const VmMap::EntryView& e) {
      for (VirtAddr at = e.range.start; at < e.range.end; at = at + ByteCount{kPageSize}, ++it) {
        ASSERT_NE(it, s.model.end());
        ASSERT_EQ(at, pages(it->first, 1).start);
        const ModelPage& m = it->second;
        ASSERT_TRUE(e.kind == m.kind && e.prot == m.prot && e.max_prot == m.max_prot &&
                    e.inherit == m.inherit && e.advice == m.advice)
            << "page " << it->first;
      }
    });
    ASSERT_EQ(it, s.model.end());
  }

  void check_contents(Space& s, std::uint64_t samples) {
    for (std::uint64_t i = 0; i < samples; ++i) {
      const auto it = s.model.find(samples == kPages ? i : below(kPages));
      if (it == s.model.end() || it->second.kind != EntryKind::kObject || it->second.prot == Prot::kNone)
        continue;
      std::uint64_t seen = 0;
      ASSERT_EQ(machine_.load(*s.map, kBase + it->first * kPageSize, &seen), FaultResult::kResolved);
      ASSERT_EQ(seen, *it->second.cell) << "page " << it->first;
    }
  }

  std::mt19937_64 rng_;
  test::MapMachine machine_;
  std::vector<Space> spaces_;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
};

void walk_seeds(std::uint64_t quick, std::uint32_t frames, int steps, MapIndexFactory index = nullptr) {
  for (const std::uint64_t seed : test::seeds(quick)) {
    SCOPED_TRACE("ENCHILADA_SEED=" + std::to_string(seed));
    Walk(seed, frames, index).run(steps);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(VmMapModel, RandomOperationsWithPlentyOfMemory) {
  walk_seeds(1000, 512, 80);
}

class VmMapModelOver : public testing::TestWithParam<test::NamedMapIndex> {};
INSTANTIATE_TEST_SUITE_P(EachIndex, VmMapModelOver, testing::ValuesIn(test::all_map_indexes()),
                         test::name_of_index);

TEST_P(VmMapModelOver, RandomOperations) {
  walk_seeds(150, 512, 80, GetParam().make);
}

TEST(VmMapModel, RandomOperationsInLittleMemory) {
  walk_seeds(200, 72, 150);
}

}  // namespace
}  // namespace enchilada
