// VmSystem: puts the parts together and knows the thresholds. Invariant: after create() nothing here
// allocates.
#include "vm/vm_system.h"

#include <algorithm>

#include "vm/vm_map_index.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_pageout.h"
#include "vm/vm_pagequeue.h"
#include "vm/vm_phys.h"
#include "vm/vm_precopy.h"
#include "vm/vm_prefault.h"
#include "vm/vm_prezero.h"
#include "vm/vm_readahead.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kMaxCluster = 64;  // what one bitmap word and the fault's arrays hold

PageCount clamp_cluster(PageCount n) {
  return PageCount{std::clamp<std::uint64_t>(n.value(), 1, kMaxCluster)};
}

void clamp_tunables(VmTunables& t) {
  t.zero_fill_cluster = clamp_cluster(t.zero_fill_cluster);
  t.readahead_max = clamp_cluster(t.readahead_max);
  t.readahead_min = std::min(clamp_cluster(t.readahead_min), t.readahead_max);
  t.readahead_runs = std::clamp(t.readahead_runs, 1u, static_cast<unsigned>(kMaxCluster));
  t.pageout_cluster = clamp_cluster(t.pageout_cluster);
  t.withdraw_cluster = clamp_cluster(t.withdraw_cluster);
  t.prefault_cluster = clamp_cluster(t.prefault_cluster);
  t.regroup_cluster = clamp_cluster(t.regroup_cluster);
}

}  // namespace

VmSystem::VmSystem(const VmSystemConfig& config)
    : config_(config), threshold_rule_(threshold_rule(config.modes.get<ThresholdMode>())) {
  clamp_tunables(config_.tunables);
  if (config_.map_index == nullptr) config_.map_index = map_index_factory(config_.modes.get<MapIndexMode>());
  set_granted(PageCount{0});
}

VmSystem::~VmSystem() = default;

std::unique_ptr<VmSystem> VmSystem::create(const VmSystemConfig& config) {
  std::unique_ptr<VmSystem> system(new VmSystem(config));
  // Zeroed memory is an array of valid Pages; constructing them would touch memory of frames that may never
  // come.
  // VmPhys counts their memory as frames are granted.
  system->pages_ = static_cast<Page*>(config.arena.reserve(config.phys.frame_limit().value() * sizeof(Page)));
  if (system->pages_ == nullptr) return nullptr;
  system->prefault_ = make_prefault(config.modes.get<PrefaultMode>(), system->tunables());
  system->readahead_ = make_readahead(config.modes.get<ReadAheadMode>(), system->tunables());
  system->prezero_ = make_prezero(config.modes.get<PreZeroMode>(), *system);
  system->precopy_ = make_precopy(config.modes.get<PreCopyMode>());
  std::unique_ptr<FrameOrder> order = make_frame_order(*system, config.modes.get<FrameOrderMode>());
  if (order == nullptr) return nullptr;
  system->free_frames_ = std::make_unique<VmPhys>(*system, std::move(order));
  system->queues_ = std::make_unique<PageQueues>(*system);
  system->objects_ = std::make_unique<VmObjectZone>(*system);
  system->daemon_ = std::make_unique<PageDaemon>(*system);
  if (!system->objects_->reserve()) return nullptr;
  config.pmaps.set_sink(*system);
  return system;
}

PageCount VmSystem::idle() {
  return prezero_->step();
}

Page& VmSystem::page(FrameNumber frame) const {
  DCHECK(frame.value() < config_.phys.frame_limit().value(), frame.value());
  return pages_[frame.value()];
}

FrameNumber VmSystem::frame_of(const Page& page) const {
  return FrameNumber{static_cast<std::uint32_t>(&page - pages_)};
}

void VmSystem::set_granted(PageCount granted) {
  PageThresholds t = threshold_rule_(granted);
  const VmTunables& told = config_.tunables;
  if (told.free_target.value() != 0) t.free_target = told.free_target.value();
  if (told.free_min.value() != 0) {
    t.free_min = told.free_min.value();
  } else if (told.free_target.value() != 0) {
    t.free_min = std::max<std::uint64_t>(t.free_target / 4, 2);
  }
  if (told.free_min.value() != 0 || told.free_target.value() != 0) t.wakeup = t.free_min;
  t.free_target = std::max(t.free_target, t.free_min);
  t.free_reserved = std::min(t.free_reserved, t.free_min);  // or reclaim would stop before a program gets any
  thresholds_.set(t);
}

std::uint64_t VmSystem::at_hand() const {
  return free_frames_->free_count() + (cache_counts() ? queues_->length(PageQueue::kCache) : 0);
}

bool VmSystem::is_short() const {
  return at_hand() < std::max(free_min(), thresholds_.at(&PageThresholds::wakeup));
}

PageCount VmSystem::grow(PageCount wanted) {
  const PageCount ask = std::max(wanted, free_frames_->grow_batch());
  const PageCount got = config_.phys.grow(ask, [this](FrameRun run) { free_frames_->add(run); });
  may_grow_.store(got.value() != 0, std::memory_order_relaxed);
  return got;
}

void VmSystem::for_each_page(FunctionRef<void(FrameNumber, Page&)> visit) {
  const std::uint64_t limit = config_.phys.frame_limit().value();
  for (std::uint64_t i = 0; i < limit; ++i) visit(FrameNumber{static_cast<std::uint32_t>(i)}, pages_[i]);
}

void VmSystem::validate() {
  free_frames_->validate();
  queues_->validate();
  objects_->validate();
}

void VmSystem::note_modified(FrameNumber frame) {
  Page& modified = page(frame);
  modified.set_dirty(true);
  if (!modified.has(Page::kPrecopied)) return;
  modified.clear(Page::kPrecopied);
  count(counters().precopy_used);
}

void VmSystem::note_referenced(FrameNumber frame) {
  page(frame).set_referenced();
}

}  // namespace enchilada
