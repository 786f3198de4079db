// libFuzzer: the input is a script of pmap operations on several address spaces in any mode of the page
// tables. Checked against a flat model by the law of the pmap: a mapping may be missing, but what is there
// shows the right frame with no more rights than it was given; what was written is known to the engine, or to
// a mapping; and all tables and pv lists agree (find_error()).
#include <array>
#include <atomic>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include "base/check.h"
#include "pmap/soft/soft_pmap.h"
#include "random_source.h"

namespace {

using namespace enchilada;
using model::Random;

constexpr std::uint64_t kFrames = 1100;  // two superpages and a little
constexpr std::uint64_t kPages = 1600;   // of each space: four leaf tables
constexpr std::size_t kMostSpaces = 4;
constexpr unsigned kMostSteps = 120;
constexpr std::size_t kArenaBytes = std::size_t{16} << 20;

struct Sink final : PageStateSink {
  void note_modified(FrameNumber frame) override { modified.at(frame.value()) = true; }
  void note_referenced(FrameNumber) override {}
  std::array<bool, kFrames> modified{};
};

struct Given {
  std::uint64_t frame = 0;
  bool writable = false;
};

struct Space {
  std::unique_ptr<SoftPmap> pmap;
  std::map<std::uint64_t, Given> pages;
};

SoftPmapOptions options_from(Random& script) {
  SoftPmapOptions o;
  o.table_pages = PageCount{script.between(24, 64)};
  o.modes.set(static_cast<PvMode>(script.below(2)))
      .set(static_cast<ForkTablesMode>(script.below(2)))
      .set(static_cast<SuperpagesMode>(script.below(2)))
      .set(static_cast<SharedTablesMode>(script.below(2)))
      .set(static_cast<PageTableMode>(script.one_in(4) ? 1 : 0));
  if (script.one_in(3)) o.pv_limit = script.between(200, 1200);
  return o;
}

class Run {
 public:
  Run(Random& script, std::byte* arena, std::byte* frames)
      : script_(script),
        arena_(arena, kArenaBytes),
        system_(arena_, frames, PageCount{kFrames}, options_from(script)) {
    system_.set_sink(sink_);
    add_space();
  }
  void run() {
    for (unsigned i = 0; i < kMostSteps && !script_.exhausted(); ++i) step();
    check();
    for (std::uint64_t f = 0; f < kFrames; ++f) {
      CHECK(!written_[f] || sink_.modified[f] || system_.is_modified(frame(f)), f);
    }
    spaces_.clear();
    CHECK(system_.pv_entries() == 0 && system_.table_bytes() == 0);
  }

 private:
  static FrameNumber frame(std::uint64_t n) { return FrameNumber{static_cast<std::uint32_t>(n)}; }
  static VirtAddr at(std::uint64_t page) { return VirtAddr{page << kPageShift}; }
  Space& some() { return spaces_[script_.below(spaces_.size())]; }
  VirtRange some_range(std::uint64_t* first, std::uint64_t* end) {
    *first = script_.below(kPages);
    *end = std::min(kPages, *first + 1 + (script_.one_in(3) ? script_.below(1100) : script_.below(12)));
    return {at(*first), at(*end)};
  }
  void add_space() {
    auto pmap = system_.create_pmap();
    CHECK(pmap != nullptr);
    spaces_.push_back({std::unique_ptr<SoftPmap>(static_cast<SoftPmap*>(pmap.release())), {}});
  }

  void step() {
    switch (script_.below(10)) {
      case 0:
      case 1:
        return enter();
      case 2:
        return fill_table();
      case 3:
      case 4:
        return access();
      case 5:
        return take_away();
      case 6:
        return fork_or_exit();
      case 7:
        return unmap_frames();
      case 8:
        system_.remove_write(frame(script_.below(kFrames)));
        return check();
      default:
        some().pmap->throw_away();
        return check();
    }
  }
  void enter_run(Space& s, std::uint64_t page, std::uint64_t first_frame, std::uint64_t n, bool writable) {
    std::vector<FrameNumber> frames;
    for (std::uint64_t i = 0; i < n; ++i) frames.push_back(frame(first_frame + i));
    const Prot prot = writable ? Prot::kReadWrite : Prot::kRead;
    const PageCount done = s.pmap->enter(at(page), frames, prot, Access::kRead, Wiring::kNotWired);
    for (std::uint64_t i = 0; i < done.value(); ++i) s.pages[page + i] = {first_frame + i, writable};
  }
  void enter() {
    const std::uint64_t n = script_.between(1, 16);
    enter_run(some(), script_.below(kPages - n), script_.below(kFrames - n), n, script_.one_in(2));
  }
  void fill_table() {
    Space& s = some();
    const std::uint64_t table = script_.below(3);
    const std::uint64_t first = script_.one_in(2) ? script_.below(2) * 512 : script_.below(kFrames - 512);
    const bool writable = script_.one_in(2);
    for (std::uint64_t i = 0; i < 512; i += 64) enter_run(s, table * 512 + i, first + i, 64, writable);
  }
  void access() {
    Space& s = some();
    for (std::uint64_t n = script_.between(1, 8); n > 0; --n) {
      const std::uint64_t page = script_.below(kPages);
      const bool writes = script_.one_in(2);
      if (!s.pmap->access(at(page), writes ? Access::kWrite : Access::kRead, [](std::byte*) {})) continue;
      const auto it = s.pages.find(page);
      CHECK(it != s.pages.end() && (!writes || it->second.writable), page);
      if (writes) written_[it->second.frame] = true;
    }
  }
  void take_away() {
    Space& s = some();
    std::uint64_t first = 0;
    std::uint64_t end = 0;
    const VirtRange range = some_range(&first, &end);
    if (script_.one_in(2)) {
      s.pmap->remove(range);
      s.pages.erase(s.pages.lower_bound(first), s.pages.lower_bound(end));
    } else {
      s.pmap->protect(range, Prot::kRead);
      for (auto it = s.pages.lower_bound(first); it != s.pages.end() && it->first < end; ++it) {
        it->second.writable = false;
      }
    }
    check();
  }
  /// As the engine does it: the parent loses the right to write, then the child gets what the mode gives.
  void fork_or_exit() {
    if (spaces_.size() >= kMostSpaces || (spaces_.size() > 1 && script_.one_in(2))) {
      spaces_.erase(spaces_.begin() + static_cast<std::ptrdiff_t>(script_.below(spaces_.size())));
      return check();
    }
    const std::size_t parent = script_.below(spaces_.size());
    add_space();
    Space& from = spaces_[parent];
    Space& child = spaces_.back();
    from.pmap->protect({at(0), at(kPages)}, Prot::kRead);
    for (auto& [page, given] : from.pages) given.writable = false;
    child.pmap->copy_from(*from.pmap, {at(0), at(kPages)});
    child.pages = from.pages;
    check();
  }
  void unmap_frames() {
    const std::uint64_t n = script_.between(1, 20);
    const std::uint64_t first = script_.below(kFrames - n);
    std::vector<FrameNumber> frames;
    for (std::uint64_t i = 0; i < n; ++i) frames.push_back(frame(first + i));
    std::array<bool, 20> refused{};
    system_.remove_all(frames, std::span(refused).first(n));
    for (Space& s : spaces_) {
      std::erase_if(s.pages, [&](const auto& item) {
        return item.second.frame >= first && item.second.frame < first + n;
      });
    }
    check();
  }
  /// What is mapped was given; the parts agree.
  void check() {
    for (const Space& s : spaces_) {
      s.pmap->for_each_mapping([&](const SoftMapping& mapping) {
        const auto it = s.pages.find(mapping.va.value() >> kPageShift);
        CHECK(it != s.pages.end() && it->second.frame == mapping.frame.value(), mapping.va.value());
        CHECK(!mapping.writable || it->second.writable, mapping.va.value());
      });
    }
    CHECK(system_.find_error() == nullptr);
  }

  Random& script_;
  Arena arena_;
  Sink sink_;
  SoftPmapSystem system_;
  std::vector<Space> spaces_;
  std::array<bool, kFrames> written_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Random script(std::span{data, size});
  auto* const arena = static_cast<std::byte*>(std::aligned_alloc(kPageSize, kArenaBytes));
  CHECK(arena != nullptr);
  std::fill_n(arena, kArenaBytes, std::byte{0});
  std::vector<std::byte> frames(kFrames * kPageSize);
  Run(script, arena, frames.data()).run();
  std::free(arena);
  return 0;
}
