// MapMachine: the smallest complete machine for tests of the map: an array of frames, page tables that are
// std::maps, swap in memory. One lock around the mappings, so that threads may use it. Invariant: a page
// table entry never outlives remove(); bytes are reached only through an entry that allows it.
#pragma once

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/mapped_memory.h"
#include "support/sanitized.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_object.h"
#include "vm/vm_system.h"

namespace enchilada::test {

/// ENCHILADA_SEED replays one seed; ENCHILADA_SEEDS=a-b walks those; else `quick` seeds from 1 (fewer under a
/// sanitizer).
inline std::vector<std::uint64_t> seeds(std::uint64_t quick) {
  std::vector<std::uint64_t> all;
  if (const char* one = std::getenv("ENCHILADA_SEED")) return {std::strtoull(one, nullptr, 0)};
  std::uint64_t first = 1;
  std::uint64_t last = usual_rounds(quick);
  if (const char* range = std::getenv("ENCHILADA_SEEDS")) {
    char* rest = nullptr;
    first = last = std::strtoull(range, &rest, 0);
    if (*rest == '-') last = std::strtoull(rest + 1, nullptr, 0);
  }
  for (std::uint64_t i = first; i <= last; ++i) all.push_back(i);
  return all;
}

class MapPmap;

class MapPmaps final : public PmapSystem {
 public:
  std::unique_ptr<Pmap> create_pmap() override;
  void set_sink(PageStateSink& sink) override { sink_ = &sink; }
  bool has_reference_bits() const override { return true; }
  void remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) override;
  void remove_write(FrameNumber frame) override;
  unsigned ts_referenced(FrameNumber frame) override;
  bool is_modified(FrameNumber frame) override;
  void clear_modify(FrameNumber frame) override;

  std::mutex mutex_;
  std::set<MapPmap*> spaces_;
  PageStateSink* sink_ = nullptr;
  std::uint64_t calls = 0;  // of protect() and remove(): what the map asked for
};

class MapPmap final : public Pmap {
 public:
  struct Pte {
    FrameNumber frame;
    Prot prot;
    bool referenced;
    bool modified;
  };
  explicit MapPmap(MapPmaps& all) : all_(all) {
    std::lock_guard guard(all_.mutex_);
    all_.spaces_.insert(this);
  }
  ~MapPmap() override {
    std::lock_guard guard(all_.mutex_);
    all_.spaces_.erase(this);
  }
  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access access,
                  Wiring) override {
    std::lock_guard guard(all_.mutex_);
    for (const FrameNumber frame : frames) {
      auto it = table_.find(va.value());
      bool modified = false;
      if (it != table_.end() && it->second.frame != frame) drop(it);
      if (it != table_.end() && table_.count(va.value()) != 0) modified = table_.at(va.value()).modified;
      table_[va.value()] =
          Pte{frame, prot, true, modified || (access == Access::kWrite && frame == frames[0])};
      va = va + ByteCount{kPageSize};
    }
    return PageCount{frames.size()};
  }
  void remove(VirtRange range) override {
    std::lock_guard guard(all_.mutex_);
    ++all_.calls;
    remove_locked(range);
  }
  void protect(VirtRange range, Prot prot) override {
    std::lock_guard guard(all_.mutex_);
    ++all_.calls;
    if (prot == Prot::kNone) return remove_locked(range);
    for (auto it = table_.lower_bound(range.start.value());
         it != table_.end() && it->first < range.end.value(); ++it) {
      it->second.prot = it->second.prot & prot;
    }
  }
  /// One access by the program; false: fault.
  bool access(VirtAddr va, Access how, FrameNumber* frame) {
    auto it = table_.find(page_floor(va).value());
    if (it == table_.end() || !allows(it->second.prot, prot_for(how))) return false;
    it->second.referenced = true;
    if (how == Access::kWrite) it->second.modified = true;
    *frame = it->second.frame;
    return true;
  }
  void drop(std::map<std::uint64_t, Pte>::iterator it) {
    if (it->second.modified) all_.sink_->note_modified(it->second.frame);
    if (it->second.referenced) all_.sink_->note_referenced(it->second.frame);
    table_.erase(it);
  }
  void remove_locked(VirtRange range) {
    for (auto it = table_.lower_bound(range.start.value());
         it != table_.end() && it->first < range.end.value();) {
      drop(it++);
    }
  }
  std::size_t mapped(VirtRange range) {
    std::lock_guard guard(all_.mutex_);
    return static_cast<std::size_t>(
        std::distance(table_.lower_bound(range.start.value()), table_.lower_bound(range.end.value())));
  }

  MapPmaps& all_;
  std::map<std::uint64_t, Pte> table_;
};

inline std::unique_ptr<Pmap> MapPmaps::create_pmap() {
  return std::make_unique<MapPmap>(*this);
}
inline void MapPmaps::remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) {
  std::lock_guard guard(mutex_);
  const std::set<FrameNumber> gone(frames.begin(), frames.end());
  for (bool& r : refused) r = false;
  for (MapPmap* space : spaces_) {
    for (auto it = space->table_.begin(); it != space->table_.end();) {
      const auto here = it++;
      if (gone.count(here->second.frame) != 0) space->drop(here);
    }
  }
}
inline void MapPmaps::remove_write(FrameNumber frame) {
  std::lock_guard guard(mutex_);
  for (MapPmap* space : spaces_) {
    for (auto& [va, pte] : space->table_) {
      if (pte.frame != frame) continue;
      pte.prot = without(pte.prot, Prot::kWrite);
      if (pte.modified) sink_->note_modified(frame);
    }
  }
}
inline unsigned MapPmaps::ts_referenced(FrameNumber frame) {
  std::lock_guard guard(mutex_);
  unsigned n = 0;
  for (MapPmap* space : spaces_) {
    for (auto& [va, pte] : space->table_) {
      if (pte.frame == frame && pte.referenced) {
        pte.referenced = false;
        ++n;
      }
    }
  }
  return n;
}
inline bool MapPmaps::is_modified(FrameNumber frame) {
  std::lock_guard guard(mutex_);
  for (MapPmap* space : spaces_) {
    for (auto& [va, pte] : space->table_) {
      if (pte.frame == frame && pte.modified) return true;
    }
  }
  return false;
}
inline void MapPmaps::clear_modify(FrameNumber frame) {
  std::lock_guard guard(mutex_);
  for (MapPmap* space : spaces_) {
    for (auto& [va, pte] : space->table_) {
      if (pte.frame == frame) pte.modified = false;
    }
  }
}

class MapPhys final : public PhysicalMemory {
 public:
  explicit MapPhys(std::uint32_t frames)
      : frames_(frames), words_(frames * kPageSize / sizeof(std::uint64_t)) {}
  PageCount frame_limit() const override { return PageCount{frames_}; }
  PageCount grow(PageCount, FunctionRef<void(FrameRun)> sink) override {
    {
      std::lock_guard guard(mutex_);
      if (granted_) return PageCount{0};
      granted_ = true;
    }
    sink(FrameRun{FrameNumber{0}, PageCount{frames_}});
    return PageCount{frames_};
  }
  void retire(FrameRun) override {}
  void zero(FrameRun run) override { std::memset(at(run.first), 0, run.count.value() * kPageSize); }
  // Word by word, as a processor would see it: wired memory is copied at fork while its owner may write to
  // it.
  void copy(FrameNumber from, FrameNumber to) override {
    for (std::uint64_t i = 0; i < kPageSize; i += sizeof(std::uint64_t)) {
      word(at(to) + i).store(word(at(from) + i).load(std::memory_order_relaxed), std::memory_order_relaxed);
    }
  }
  static std::atomic_ref<std::uint64_t> word(std::byte* p) {
    return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(p));
  }
  void with_frames(FrameRun run, Access, FunctionRef<void(std::byte*)> use) override { use(at(run.first)); }
  std::byte* at(FrameNumber frame) {
    return reinterpret_cast<std::byte*>(words_.data()) + frame.value() * kPageSize;
  }

 private:
  std::uint32_t frames_;
  std::vector<std::uint64_t> words_;
  std::mutex mutex_;
  bool granted_ = false;
};

class MapSwap final : public Pager {
 public:
  explicit MapSwap(MapPhys& phys) : phys_(phys) {}
  using Copy = std::array<std::byte, kPageSize>;
  using Store = std::map<std::uint64_t, std::unique_ptr<Copy>>;

  PagerRun has_page(const PagerHandle& h, PageIndex index, PageCount before, PageCount after) override {
    std::lock_guard guard(mutex_);
    const Store* s = store(h);
    PagerRun run;
    if (s == nullptr || s->count(index.value()) == 0) return run;
    run.present = true;
    while (run.before < before && index.value() > run.before.value() &&
           s->count(index.value() - run.before.value() - 1) != 0) {
      ++run.before;
    }
    while (run.after < after && s->count(index.value() + run.after.value() + 1) != 0) ++run.after;
    return run;
  }
  PagerReturn get_pages(PagerHandle& h, PageIndex first, std::span<const FrameNumber> frames) override {
    std::lock_guard guard(mutex_);
    const Store* s = store(h);
    for (std::size_t i = 0; i < frames.size(); ++i) {
      if (s == nullptr || s->count(first.value() + i) == 0) return PagerReturn::kFail;
      std::memcpy(phys_.at(frames[i]), s->at(first.value() + i)->data(), kPageSize);
    }
    return PagerReturn::kOk;
  }
  void put(std::span<PutRequest> requests) override {
    std::lock_guard guard(mutex_);
    for (PutRequest& r : requests) {
      if (r.handle->root == nullptr) r.handle->root = new Store;
      auto copy = std::make_unique<Copy>();
      std::memcpy(copy->data(), phys_.at(r.frame), kPageSize);
      (*store(*r.handle))[r.index.value()] = std::move(copy);
      r.verdict = PagerReturn::kOk;
      settle(*r.handle);
    }
  }
  void forget(PagerHandle& h, PageIndex first, PageCount count) override {
    std::lock_guard guard(mutex_);
    if (h.root == nullptr) return;
    Store& s = *store(h);
    s.erase(s.lower_bound(first.value()), s.lower_bound(first.value() + count.value()));
    settle(h);
  }
  void forget_all(PagerHandle& h) override {
    std::lock_guard guard(mutex_);
    if (h.root != nullptr) store(h)->clear();
    settle(h);
  }
  void transfer(PagerHandle& from, PageIndex offset, PageCount size, PagerHandle& to) override {
    std::lock_guard guard(mutex_);
    move(from, offset, size, to);
    if (from.root != nullptr) store(from)->clear();
    settle(from);
  }
  void split(PagerHandle& from, PageIndex first, PageCount count, PagerHandle& to) override {
    std::lock_guard guard(mutex_);
    move(from, first, count, to);
    settle(from);
  }
  bool find_least(const PagerHandle& h, PageIndex from, PageIndex* found) override {
    std::lock_guard guard(mutex_);
    const Store* s = store(h);
    if (s == nullptr) return false;
    const auto it = s->lower_bound(from.value());
    if (it == s->end()) return false;
    *found = PageIndex{it->first};
    return true;
  }

 private:
  static Store* store(const PagerHandle& h) { return static_cast<Store*>(h.root); }
  static void settle(PagerHandle& h) {
    if (h.root != nullptr && store(h)->empty()) {
      delete store(h);
      h.root = nullptr;
    }
    // A hint that the engine reads without a lock.
    const std::uint64_t pages = h.root == nullptr ? 0 : store(h)->size();
    std::atomic_ref(h.pages).store(pages, std::memory_order_relaxed);
  }
  static void move(PagerHandle& from, PageIndex first, PageCount count, PagerHandle& to) {
    if (from.root == nullptr) return;
    if (to.root == nullptr) to.root = new Store;
    Store& s = *store(from);
    for (auto it = s.lower_bound(first.value());
         it != s.end() && it->first < first.value() + count.value();) {
      store(to)->try_emplace(it->first - first.value(), std::move(it->second));
      it = s.erase(it);
    }
    settle(to);
  }
  MapPhys& phys_;
  std::mutex mutex_;
};

class MapClock final : public Clock {
 public:
  Nanoseconds now() override { return Nanoseconds{now_.fetch_add(1000)}; }

 private:
  std::atomic<std::uint64_t> now_{1};
};

/// A machine and an engine on it.
class MapMachine {
 public:
  /// map_index: null for the default mode's.
  explicit MapMachine(std::uint32_t frames = 256, MapIndexFactory map_index = nullptr,
                      std::size_t arena_bytes = std::size_t{8} << 20)
      : phys(frames),
        swap(phys),
        memory_(arena_bytes),
        arena(memory_.data(), arena_bytes),
        counters(std::make_unique<VmCounters>()),
        system(VmSystem::create({.phys = phys,
                                 .pmaps = pmaps,
                                 .swap = swap,
                                 .clock = clock,
                                 .counters = *counters,
                                 .arena = arena,
                                 .map_index = map_index})) {}

  /// The program reads or writes one 64-bit word, faulting as often as needed.
  FaultResult load(VmMap& map, std::uint64_t address, std::uint64_t* value) {
    return access(map, address, Access::kRead, value);
  }
  FaultResult store(VmMap& map, std::uint64_t address, std::uint64_t value) {
    return access(map, address, Access::kWrite, &value);
  }
  FaultResult access(VmMap& map, std::uint64_t address, Access how, std::uint64_t* value) {
    for (;;) {
      {
        std::lock_guard guard(pmaps.mutex_);
        FrameNumber frame;
        if (static_cast<MapPmap&>(map.pmap()).access(VirtAddr{address}, how, &frame)) {
          const auto word = MapPhys::word(phys.at(frame) + (address & kPageMask & ~std::uint64_t{7}));
          if (how == Access::kWrite) word.store(*value, std::memory_order_relaxed);
          if (how == Access::kRead) *value = word.load(std::memory_order_relaxed);
          return FaultResult::kResolved;
        }
      }
      const FaultResult result = vm_fault(map, VirtAddr{address}, how);
      if (result != FaultResult::kResolved) return result;
    }
  }

  MapPmaps pmaps;
  MapPhys phys;
  MapSwap swap;
  MapClock clock;
  MappedMemory memory_;
  Arena arena;
  std::unique_ptr<VmCounters> counters;
  std::unique_ptr<VmSystem> system;
};

}  // namespace enchilada::test
