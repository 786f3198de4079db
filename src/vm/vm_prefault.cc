// The prefault policies, and prefaulting at map time.
#include "vm/vm_prefault.h"

#include <algorithm>
#include <array>
#include <span>

#include "vm/vm_map.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

constexpr unsigned kBack = 4;  // FreeBSD's PFBAK and PFFOR
constexpr unsigned kForward = 4;
constexpr PageCount kAtMapTime{96};  // MAX_INIT_PT
constexpr std::size_t kBatch = 16;

class NoPrefault final : public PrefaultPolicy {
 public:
  void grow(PageIndex, PageSpan, NeighbourRun&) const override {}
};

/// -1, +1, -2, +2 ... and an end at the first page that cannot come along; beyond the entry there is none.
class SpiralPrefault : public PrefaultPolicy {
 public:
  void grow(PageIndex, PageSpan, NeighbourRun& run) const override {
    for (unsigned i = 1; i <= std::max(kBack, kForward); ++i) {
      if (i <= kBack && run.grow_down() == Growth::kMissing) return;
      if (i <= kForward && run.grow_up() == Growth::kMissing) return;
    }
  }
};

class MapTimePrefault final : public SpiralPrefault {
 public:
  [[nodiscard]] PageCount at_map_time() const override { return kAtMapTime; }
};

/// The aligned cluster around the page, or the whole of what was read in one sequence.
class ClusterPrefault final : public PrefaultPolicy {
 public:
  explicit ClusterPrefault(std::uint64_t width) : width_(width) {}
  void grow(PageIndex at, PageSpan read, NeighbourRun& run) const override {
    std::uint64_t low = at.value() - at.value() % width_;
    std::uint64_t high = low + width_;
    if (read.contains(at)) {
      low = read.first.value();
      high = read.end.value();
    }
    for (std::uint64_t i = at.value(); i > low && run.grow_down() == Growth::kLonger;) --i;
    for (std::uint64_t i = at.value() + 1; i < high && run.grow_up() == Growth::kLonger;) ++i;
  }

 private:
  std::uint64_t width_;
};

/// A run of consecutive pages of one object, busy, about to be mapped read-only.
class QuickEntry {
 public:
  QuickEntry(VmMap& map, const MapLookup& look) : map_(map), look_(look) {}
  /// False: cannot come along; it is left alone.
  bool add(PageIndex index, FrameNumber frame) {
    Page& page = map_.system().page(frame);
    const auto idle = [&] {
      return page.is_valid() && !page.is_wired() &&
             (page.queue() == PageQueue::kActive || page.queue() == PageQueue::kInactive);
    };
    if (!idle() || !page.try_busy()) return false;
    if (!idle()) {
      page.unbusy();
      return false;
    }
    if (n_ == kBatch || (n_ > 0 && index != first_ + PageCount{n_})) flush();
    if (n_ == 0) first_ = index;
    frames_[n_++] = frame;
    return true;
  }
  void flush() {
    if (n_ == 0) return;
    const std::span<const FrameNumber> frames(frames_.data(), n_);
    for (const FrameNumber frame : frames) map_.system().page(frame).set_mapped();
    const VirtAddr va = look_.entry_range.start + to_bytes(first_ - look_.entry_first_index);
    const Prot prot = without(look_.prot, Prot::kWrite) | Prot::kRead;
    mapped_ += map_.pmap().enter(va, frames, prot, Access::kRead, Wiring::kNotWired).value();
    for (const FrameNumber frame : frames) map_.system().page(frame).unbusy();
    n_ = 0;
  }
  [[nodiscard]] std::uint64_t mapped() const { return mapped_; }

 private:
  VmMap& map_;
  const MapLookup& look_;
  std::array<FrameNumber, kBatch> frames_;
  std::size_t n_ = 0;
  PageIndex first_;
  std::uint64_t mapped_ = 0;
};

/// The part of one entry from `va` on. Map locked shared.
std::uint64_t prefault_entry(VmMap& map, const MapLookup& look, PageIndex end, std::uint64_t most) {
  VmObject& object = *look.object;
  QuickEntry run(map, look);
  std::uint64_t taken = 0;
  ReadLock guard(object.lock);
  VmRadix::Item item;
  for (PageIndex at = look.index; taken < most && object.pages.find_least(at, &item) && item.index < end;
       at = item.index + PageCount{1}) {
    if (run.add(item.index, item.frame)) ++taken;
  }
  run.flush();
  return run.mapped();
}

}  // namespace

std::unique_ptr<PrefaultPolicy> make_prefault(PrefaultMode mode, const VmTunables& tunables) {
  switch (mode) {
    case PrefaultMode::kOff:
      return std::make_unique<NoPrefault>();
    case PrefaultMode::kFault:
      return std::make_unique<SpiralPrefault>();
    case PrefaultMode::kMapAndFault:
      return std::make_unique<MapTimePrefault>();
    case PrefaultMode::kCluster:
      return std::make_unique<ClusterPrefault>(tunables.prefault_cluster.value());
  }
  return nullptr;
}

PageCount vm_prefault_map(VmMap& map, VirtRange range) {
  const std::uint64_t most = map.system().prefault().at_map_time().value();
  std::uint64_t mapped = 0;
  for (VirtAddr va = range.start; va < range.end && mapped < most;) {
    MapLookup look;
    if (map.lookup(va, Access::kRead, &look) != KernReturn::kSuccess) break;
    const VirtAddr stop = std::min(look.entry_range.end, range.end);
    mapped += prefault_entry(map, look, look.index + to_pages(stop - va), most - mapped);
    map.unlock_shared();
    va = stop;
  }
  if (mapped != 0) count(map.system().counters().prefaulted_at_map, mapped);
  return PageCount{mapped};
}

}  // namespace enchilada
