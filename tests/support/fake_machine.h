// FakeMachine: a machine in one header for tests of the engine: frames in a byte array, mappings in
// std::maps, swap in a std::map with error injection, a clock that tests set. It checks the preconditions
// that phys.h and pmap.h state. Options make it behave like the soft machine (reference and dirty bits) or
// like the host (neither, one address a frame). One lock around the mappings, held while the program touches
// bytes, so that eviction is atomic.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "support/mapped_memory.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_system.h"

namespace enchilada::test {

/// While one exists the thread is inside the fake machine, whose own allocations do not count.
struct InFake {
  static inline thread_local int depth = 0;
  InFake() { ++depth; }
  ~InFake() { --depth; }
};

struct FakeOptions {
  std::uint64_t limit = 256;   // frame numbers
  std::uint64_t budget = 256;  // frames that may be granted at a time
  bool reference_bits = true;  // false: like the host, also without dirty bits
  bool one_address = false;    // a frame is mapped at one address at a time
  std::uint64_t swap_pages = 1 << 20;
  std::uint64_t nearly_full_below = 0;
  bool swap_places = false;  // what is written later lies apart from what was written before
  VmTunables tunables{};
  VmModes modes{};
  std::size_t arena_bytes = std::size_t{64} << 20;
};

class FakeMemory final : public PhysicalMemory {
 public:
  explicit FakeMemory(const FakeOptions& o)
      : limit_(o.limit), budget_(o.budget), granted_(o.limit), bytes_(o.limit * kPageSize, std::byte{0xdb}) {}
  PageCount frame_limit() const override { return PageCount{limit_}; }
  PageCount grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) override {
    InFake in;
    std::vector<FrameRun> runs;
    std::uint64_t n = 0;
    {
      std::lock_guard guard(mutex_);
      for (std::uint32_t f = 0; f < limit_ && n < wanted.value() && in_use_ < budget_; ++f) {
        if (granted_[f]) continue;
        granted_[f] = true;
        ++in_use_;
        ++n;
        const bool joins = !runs.empty() && runs.back().first.value() + runs.back().count.value() == f;
        joins ? (void)++runs.back().count : runs.push_back({FrameNumber{f}, PageCount{1}});
      }
    }
    for (const FrameRun run : runs) sink(run);
    return PageCount{n};
  }
  void retire(FrameRun run) override {
    InFake in;
    std::lock_guard guard(mutex_);
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      ASSERT_TRUE(granted_[run.first.value() + i]);
      granted_[run.first.value() + i] = false;
      --in_use_;
    }
  }
  PageCount surplus_wanted() const override { return PageCount{surplus}; }
  void zero(FrameRun run) override { std::memset(at(run.first), 0, run.count.value() * kPageSize); }
  void copy(FrameNumber from, FrameNumber to) override { std::memcpy(at(to), at(from), kPageSize); }
  void with_frames(FrameRun run, Access, FunctionRef<void(std::byte*)> use) override { use(at(run.first)); }
  std::byte* at(FrameNumber frame) {
    EXPECT_LT(frame.value(), limit_);
    EXPECT_TRUE(granted_[frame.value()]) << frame.value();
    return bytes_.data() + frame.value() * kPageSize;
  }
  void set_budget(std::uint64_t n) {
    std::lock_guard guard(mutex_);
    budget_ = n;
  }
  std::uint64_t surplus = 0;

 private:
  std::mutex mutex_;
  const std::uint64_t limit_;
  std::uint64_t budget_;
  std::uint64_t in_use_ = 0;
  std::vector<std::atomic<bool>> granted_;
  std::vector<std::byte> bytes_;
};

class FakePmap;

class FakePmaps final : public PmapSystem {
 public:
  explicit FakePmaps(const FakeOptions& o) : options(o), mappings(o.limit) {}
  std::unique_ptr<Pmap> create_pmap() override;
  void set_sink(PageStateSink& s) override { sink = &s; }
  bool has_reference_bits() const override { return options.reference_bits; }
  void remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) override;
  void remove_write(FrameNumber frame) override;
  unsigned ts_referenced(FrameNumber frame) override;
  bool is_modified(FrameNumber frame) override;
  void clear_modify(FrameNumber frame) override;
  void expect_busy(FrameNumber frame) {
    EXPECT_TRUE(system == nullptr || system->page(frame).is_busy()) << frame.value();
  }

  const FakeOptions options;
  std::mutex mutex;
  PageStateSink* sink = nullptr;
  VmSystem* system = nullptr;
  std::vector<std::set<std::pair<FakePmap*, std::uint64_t>>> mappings;  // by frame
  std::set<std::uint32_t> pinned;
  std::uint64_t enters = 0;
  std::uint64_t remove_alls = 0;
  std::uint64_t largest_remove = 0;
};

class FakePmap final : public Pmap {
 public:
  struct Pte {
    FrameNumber frame;
    Prot prot;
    bool referenced;
    bool modified;
    bool wired;
  };
  explicit FakePmap(FakePmaps& all) : all_(all) {}
  ~FakePmap() override { remove({VirtAddr{0}, VirtAddr{~std::uint64_t{0} & ~kPageMask}}); }
  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access,
                  Wiring wiring) override {
    InFake in;
    std::lock_guard guard(all_.mutex);
    ++all_.enters;
    for (const FrameNumber frame : frames) {
      all_.expect_busy(frame);
      const auto old = table.find(va.value());
      if (old != table.end() && old->second.frame == frame) {
        old->second.prot = prot;
      } else {
        if (old != table.end()) drop(old);
        if (all_.options.one_address) {
          while (!all_.mappings[frame.value()].empty()) {
            const auto [space, where] = *all_.mappings[frame.value()].begin();
            space->drop(space->table.find(where));
          }
        }
        table[va.value()] = Pte{frame, prot, false, false, wiring == Wiring::kWired};
        all_.mappings[frame.value()].insert({this, va.value()});
      }
      va = va + ByteCount{kPageSize};
    }
    return PageCount{frames.size()};
  }
  void remove(VirtRange range) override {
    InFake in;
    std::lock_guard guard(all_.mutex);
    for (auto it = table.lower_bound(range.start.value());
         it != table.end() && it->first < range.end.value();) {
      drop(it++);
    }
  }
  void protect(VirtRange range, Prot prot) override {
    if (prot == Prot::kNone) return remove(range);
    InFake in;
    std::lock_guard guard(all_.mutex);
    for (auto it = table.lower_bound(range.start.value()); it != table.end() && it->first < range.end.value();
         ++it) {
      note(it->second, false);
      it->second.prot = it->second.prot & prot;
    }
  }
  /// What a mapping knows goes to the engine.
  void note(const Pte& pte, bool references) {
    const bool maybe_modified = all_.options.reference_bits ? pte.modified : allows(pte.prot, Prot::kWrite);
    if (maybe_modified) all_.sink->note_modified(pte.frame);
    if (references && all_.options.reference_bits && pte.referenced) all_.sink->note_referenced(pte.frame);
  }
  void drop(std::map<std::uint64_t, Pte>::iterator it) {
    note(it->second, true);
    all_.mappings[it->second.frame.value()].erase({this, it->first});
    table.erase(it);
  }
  /// One access by the program, with the lock held; null: fault.
  Pte* access(VirtAddr va, Access how) {
    const auto it = table.find(page_floor(va).value());
    if (it == table.end() || !allows(it->second.prot, prot_for(how))) return nullptr;
    it->second.referenced = true;
    if (how == Access::kWrite) it->second.modified = true;
    return &it->second;
  }
  FakePmaps& all_;
  std::map<std::uint64_t, Pte> table;
};

inline std::unique_ptr<Pmap> FakePmaps::create_pmap() {
  return std::make_unique<FakePmap>(*this);
}

inline void FakePmaps::remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  InFake in;
  std::lock_guard guard(mutex);
  ++remove_alls;
  largest_remove = std::max<std::uint64_t>(largest_remove, frames.size());
  for (std::size_t i = 0; i < frames.size(); ++i) {
    const std::uint32_t f = frames[i].value();
    expect_busy(frames[i]);
    refused[i] = pinned.count(f) != 0;
    while (!refused[i] && !mappings[f].empty()) {
      const auto [space, va] = *mappings[f].begin();
      space->drop(space->table.find(va));
    }
  }
}
inline void FakePmaps::remove_write(FrameNumber frame) {
  InFake in;
  std::lock_guard guard(mutex);
  for (const auto& [space, va] : mappings[frame.value()]) {
    space->note(space->table[va], false);
    space->table[va].prot = without(space->table[va].prot, Prot::kWrite);
  }
}
inline unsigned FakePmaps::ts_referenced(FrameNumber frame) {
  InFake in;
  std::lock_guard guard(mutex);
  unsigned n = 0;
  for (const auto& [space, va] : mappings[frame.value()]) {
    if (n < 5 && std::exchange(space->table[va].referenced, false)) ++n;
  }
  return options.reference_bits ? n : 0;
}
inline bool FakePmaps::is_modified(FrameNumber frame) {
  InFake in;
  std::lock_guard guard(mutex);
  for (const auto& [space, va] : mappings[frame.value()]) {
    if (space->table[va].modified) return true;
  }
  return false;
}
inline void FakePmaps::clear_modify(FrameNumber frame) {
  InFake in;
  std::lock_guard guard(mutex);
  for (const auto& [space, va] : mappings[frame.value()]) space->table[va].modified = false;
}

/// Swap in memory. A handle's root is the number of its store.
class FakePager final : public Pager {
 public:
  using Data = std::vector<std::byte>;
  FakePager(FakeMemory& memory, const FakeOptions& o)
      : capacity(o.swap_pages),
        nearly_full_below_(o.nearly_full_below),
        places_(o.swap_places),
        memory_(memory) {}

  PagerRun has_page(const PagerHandle& handle, PageIndex index, PageCount before, PageCount after) override {
    InFake in;
    std::lock_guard guard(mutex_);
    PagerRun run;
    const auto* pages = find(handle);
    if (pages == nullptr || pages->count(index.value()) == 0) return run;
    run.present = true;
    while (run.after < after && joined(*pages, index.value() + run.after.value())) ++run.after;
    while (run.before < before && index.value() > run.before.value() &&
           joined(*pages, index.value() - run.before.value() - 1)) {
      ++run.before;
    }
    return run;
  }
  PagerReturn get_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames) override {
    InFake in;
    std::lock_guard guard(mutex_);
    ++gets;
    auto* pages = find(handle);
    for (std::size_t i = 0; i < frames.size(); ++i) {
      if (bad_reads.count(first.value() + i) != 0) return PagerReturn::kError;
      if (pages == nullptr || pages->count(first.value() + i) == 0) return PagerReturn::kFail;
    }
    for (std::size_t i = 0; i < frames.size(); ++i) {
      EXPECT_TRUE(system == nullptr || system->page(frames[i]).is_exclusive());
      std::memcpy(memory_.at(frames[i]), pages->at(first.value() + i).bytes.data(), kPageSize);
    }
    if (counters != nullptr) {
      count(counters->swapin);
      count(counters->swappgsin, frames.size());
    }
    return PagerReturn::kOk;
  }
  void put(std::span<PutRequest> requests) override {
    InFake in;
    std::lock_guard guard(mutex_);
    ++puts;
    for (PutRequest& request : requests) {
      EXPECT_TRUE(system == nullptr || system->page(request.frame).is_exclusive());
      request.verdict = put_one(*request.handle, request.index.value(), memory_.at(request.frame));
      if (counters != nullptr && request.verdict == PagerReturn::kOk) count(counters->swappgsout);
      if (counters != nullptr && request.verdict == PagerReturn::kClean) count(counters->swap_clean);
    }
    if (counters != nullptr) count(counters->swapout);
  }
  void forget(PagerHandle& handle, PageIndex first, PageCount n) override {
    InFake in;
    std::lock_guard guard(mutex_);
    auto* pages = find(handle);
    if (pages == nullptr) return;
    auto it = pages->lower_bound(first.value());
    while (it != pages->end() && it->first - first.value() < n.value()) {
      it = pages->erase(it);
      --used;
    }
    set_count(handle, pages->size());
  }
  void forget_all(PagerHandle& handle) override {
    InFake in;
    std::lock_guard guard(mutex_);
    if (auto* pages = find(handle); pages != nullptr) {
      used -= pages->size();
      stores_.erase(id(handle));
    }
    handle = {};
  }
  void transfer(PagerHandle& source, PageIndex offset, PageCount size, PagerHandle& dest) override {
    InFake in;
    std::lock_guard guard(mutex_);
    auto* from = find(source);
    if (from == nullptr) return;
    auto& to = make(dest);
    for (auto& [index, data] : *from) {
      const bool inside = index >= offset.value() && index - offset.value() < size.value();
      if (!inside || !to.emplace(index - offset.value(), std::move(data)).second) --used;
    }
    stores_.erase(id(source));
    source = {};
    set_count(dest, to.size());
  }
  void split(PagerHandle& source, PageIndex first, PageCount n, PagerHandle& dest) override {
    InFake in;
    std::lock_guard guard(mutex_);
    auto* from = find(source);
    if (from == nullptr) return;
    auto& to = make(dest);
    from = find(source);
    for (auto it = from->lower_bound(first.value());
         it != from->end() && it->first - first.value() < n.value();) {
      to.emplace(it->first - first.value(), std::move(it->second));
      it = from->erase(it);
    }
    set_count(source, from->size());
    set_count(dest, to.size());
  }
  bool find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) override {
    InFake in;
    std::lock_guard guard(mutex_);
    const auto* pages = find(handle);
    if (pages == nullptr) return false;
    const auto it = pages->lower_bound(from.value());
    if (it == pages->end()) return false;
    *found = PageIndex{it->first};
    return true;
  }
  bool nearly_full() const override { return capacity - used.load() < nearly_full_below_; }

  std::atomic<std::uint64_t> capacity;
  std::atomic<std::uint64_t> used{0};
  VmCounters* counters = nullptr;  // a pager counts its own operations
  std::atomic<std::uint64_t> gets{0};
  std::atomic<std::uint64_t> puts{0};
  std::atomic<std::uint64_t> fail_writes{0};  // the next n pages written fail with kError
  std::set<std::uint64_t> bad_reads;          // page indexes that cannot be read
  VmSystem* system = nullptr;

 private:
  struct Copy {
    Data bytes;
    std::uint64_t place;
  };
  using Store = std::map<std::uint64_t, Copy>;
  /// One read can fetch page `index` and the one after it; `index` itself is there or also asked about.
  bool joined(const Store& pages, std::uint64_t index) const {
    const auto it = pages.find(index);
    const auto next = pages.find(index + 1);
    if (it == pages.end() || next == pages.end()) return false;
    return !places_ || next->second.place == it->second.place + 1;
  }
  static std::uintptr_t id(const PagerHandle& handle) {
    return reinterpret_cast<std::uintptr_t>(handle.root);
  }
  Store* find(const PagerHandle& handle) {
    const auto it = stores_.find(id(handle));
    return handle.root == nullptr || it == stores_.end() ? nullptr : &it->second;
  }
  /// The engine reads the count without a lock.
  static void set_count(PagerHandle& handle, std::uint64_t n) {
    std::atomic_ref<std::uint64_t>(handle.pages).store(n, std::memory_order_relaxed);
  }
  Store& make(PagerHandle& handle) {
    if (handle.root == nullptr) handle.root = reinterpret_cast<void*>(++last_id_);
    return stores_[id(handle)];
  }
  PagerReturn put_one(PagerHandle& handle, std::uint64_t index, const std::byte* bytes) {
    if (fail_writes > 0) {
      --fail_writes;
      if (counters != nullptr) count(counters->io_errors);
      return PagerReturn::kError;
    }
    auto& pages = make(handle);
    const auto it = pages.find(index);
    if (it != pages.end() && std::memcmp(it->second.bytes.data(), bytes, kPageSize) == 0)
      return PagerReturn::kClean;
    if (it == pages.end() && used >= capacity) return PagerReturn::kFail;
    if (it == pages.end()) ++used;
    pages[index] = {Data(bytes, bytes + kPageSize), next_place_++};
    set_count(handle, pages.size());
    return PagerReturn::kOk;
  }
  std::mutex mutex_;
  std::map<std::uintptr_t, Store> stores_;
  std::uintptr_t last_id_ = 0;
  std::uint64_t next_place_ = 0;
  const std::uint64_t nearly_full_below_;
  const bool places_;
  FakeMemory& memory_;
};

class FakeClock final : public Clock {
 public:
  Nanoseconds now() override { return Nanoseconds{++time}; }
  std::atomic<std::uint64_t> time{0};
};

/// The whole machine with an engine on it.
class FakeMachine {
 public:
  explicit FakeMachine(const FakeOptions& o = {})
      : options(o), memory(o), pmaps(o), pager(memory, o), arena_memory(o.arena_bytes) {
    arena = std::make_unique<Arena>(arena_memory.data(), o.arena_bytes);
    system = VmSystem::create({memory, pmaps, pager, clock, counters, *arena, o.tunables, o.modes});
    EXPECT_NE(system, nullptr);
    pmaps.system = pager.system = system.get();
    pager.counters = &counters;
  }
  ~FakeMachine() { system->validate(); }

  /// One access by a program: faults until it succeeds or the engine says no.
  FaultResult access(VmMap& map, VirtAddr va, Access how, FunctionRef<void(std::byte*)> use) {
    auto& pmap = static_cast<FakePmap&>(map.pmap());
    for (int tries = 0; tries < 10000; ++tries) {
      {
        std::lock_guard guard(pmaps.mutex);
        if (FakePmap::Pte* pte = pmap.access(va, how)) {
          use(memory.at(pte->frame) + (va.value() & kPageMask));
          return FaultResult::kResolved;
        }
      }
      ++faults;
      const FaultResult result = vm_fault(map, va, how);
      if (result != FaultResult::kResolved) return result;
    }
    ADD_FAILURE() << "no progress at " << std::hex << va.value();
    return FaultResult::kNoMemory;
  }
  FaultResult write(VmMap& map, VirtAddr va, std::uint64_t value) {
    return access(map, va, Access::kWrite, [&](std::byte* p) { std::memcpy(p, &value, sizeof value); });
  }
  std::uint64_t read(VmMap& map, VirtAddr va) {
    std::uint64_t value = ~std::uint64_t{0};
    EXPECT_EQ(access(map, va, Access::kRead, [&](std::byte* p) { std::memcpy(&value, p, sizeof value); }),
              FaultResult::kResolved);
    return value;
  }
  std::unique_ptr<VmMap> make_map() {
    return VmMap::create(*system, {VirtAddr{1 << 20}, VirtAddr{1ull << 40}});
  }
  VirtAddr map_pages(VmMap& map, std::uint64_t pages, Inherit inherit = Inherit::kCopy) {
    VmMap::MapRequest request{
        .length = to_bytes(PageCount{pages}), .alignment = 64 * kPageSize, .inherit = inherit};
    VirtAddr at{0};
    EXPECT_EQ(map.map(request, &at), KernReturn::kSuccess);
    return at;
  }
  static VirtAddr page(VirtAddr base, std::uint64_t i) { return base + to_bytes(PageCount{i}); }
  std::uint64_t resident() const {
    return system->free_frames().granted() - system->free_frames().free_count();
  }
  static std::uint64_t get(const Counter& c) { return c.load(); }

  const FakeOptions options;
  FakeMemory memory;
  FakePmaps pmaps;
  FakePager pager;
  FakeClock clock;
  VmCounters counters{};
  MappedMemory arena_memory;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<VmSystem> system;
  std::atomic<std::uint64_t> faults{0};
};

}  // namespace enchilada::test
