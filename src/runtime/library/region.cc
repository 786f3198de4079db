// The public classes: handles over VmInstance, RegionState and SnapshotState; arguments are checked here.
#include <fmt/format.h>

#include <algorithm>

#include "enchilada/enchilada.h"
#include "runtime/library/vm_instance.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

using library::RegionState;
using library::SnapshotState;
using library::VmInstance;

constexpr std::uint64_t kMostRegion = std::uint64_t{1} << 40;

Error closed(std::string_view what) {
  return {ErrorCode::kClosed, fmt::format("this {} was moved from", what)};
}

ByteCount whole_pages(std::uint64_t bytes) {
  return ByteCount{(bytes + kPageMask) & ~kPageMask};
}

/// A verdict of the map that says more than "an argument was wrong".
Error map_error(KernReturn verdict, std::string_view what) {
  switch (verdict) {
    case KernReturn::kResourceShortage:
      return {ErrorCode::kNoMemory, fmt::format("{}: the VM system's metadata is used up", what)};
    case KernReturn::kNoSpace:
      return {ErrorCode::kNoAddressSpace, fmt::format("{}: no addresses left", what)};
    default:
      return {ErrorCode::kPinned, fmt::format("{}: memory of the region is pinned; unpin it first", what)};
  }
}

/// [offset, offset + bytes) widened to pages; an error when it is not inside the region.
Expected<VirtRange> part_of(const RegionState* state, std::uint64_t offset, std::uint64_t bytes) {
  if (state == nullptr) return closed("region");
  if (offset > state->size.value() || bytes > state->size.value() - offset) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} bytes at {} are not inside a region of {} bytes", bytes, offset,
                             state->size.value())};
  }
  const VirtAddr from = state->start() + ByteCount{offset & ~kPageMask};
  const VirtAddr to = state->start() + whole_pages(offset + bytes);
  return VirtRange{from, to};
}

Status done_or(KernReturn verdict, std::string_view what) {
  if (verdict == KernReturn::kSuccess) return Done{};
  return map_error(verdict, what);
}

/// Takes addresses and lets `fill` map them; gives them back when that fails.
template <class Fill>
Expected<std::unique_ptr<RegionState>> make_region(const std::shared_ptr<VmInstance>& vm, ByteCount size,
                                                   ByteCount capacity, std::string_view what, Fill fill) {
  const VmInstance::Operation operation(*vm);
  const auto place = vm->reserve(capacity);
  if (!place)
    return Error{ErrorCode::kNoAddressSpace,
                 fmt::format("{}: no addresses left for {} bytes", what, capacity.value())};
  const KernReturn verdict = fill(place->start);
  if (verdict != KernReturn::kSuccess) {
    vm->release(*place);
    return map_error(verdict, what);
  }
  auto state = std::make_unique<RegionState>();
  state->vm = vm;
  state->id = vm->next_region();
  state->place = *place;
  state->size = size;
  return state;
}

KernReturn map_zeros(VmInstance& vm, VirtRange range) {
  VirtAddr at;
  return vm.map().map(
      {.length = range.size(), .hint = range.start, .placement = VmMap::MapRequest::Placement::kFixedReplace},
      &at);
}

KernReturn map_guard(VmInstance& vm, VirtRange range) {
  VirtAddr at;
  return vm.map().map({.length = range.size(),
                       .hint = range.start,
                       .kind = EntryKind::kGuard,
                       .placement = VmMap::MapRequest::Placement::kFixedReplace},
                      &at);
}

/// Makes the region so long; what is new is zero. Within an Operation.
KernReturn set_size(RegionState& region, ByteCount size) {
  KernReturn verdict = KernReturn::kSuccess;
  if (size > region.size) verdict = map_zeros(*region.vm, {region.range().end, region.start() + size});
  if (size < region.size) verdict = map_guard(*region.vm, {region.start() + size, region.range().end});
  if (verdict == KernReturn::kSuccess) region.size = size;
  return verdict;
}

Advice advice_of(Region::Advice advice) {
  switch (advice) {
    case Region::Advice::kNormal:
      return Advice::kNormal;
    case Region::Advice::kSequential:
      return Advice::kSequential;
    case Region::Advice::kRandom:
      return Advice::kRandom;
    case Region::Advice::kWillNeed:
      return Advice::kWillNeed;
    case Region::Advice::kDontNeed:
      return Advice::kDontNeed;
  }
  return Advice::kNormal;
}

void add_change(std::vector<PageRange>& changes, std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) return;
  if (!changes.empty() && changes.back().offset + changes.back().bytes == offset) {
    changes.back().bytes += bytes;
  } else {
    changes.push_back({offset, bytes});
  }
}

}  // namespace

// --- Vm
// -----------------------------------------------------------------------------------------------------

Vm::Vm(std::shared_ptr<VmInstance> instance) : instance_(std::move(instance)) {}
Vm::Vm(Vm&&) noexcept = default;
Vm& Vm::operator=(Vm&&) noexcept = default;
Vm::~Vm() = default;

Expected<Vm> Vm::create(const VmOptions& options) {
  auto made = VmInstance::create(options);
  if (!made) return made.error();
  return Vm(std::move(made.value()));
}

Expected<Region> Vm::map(std::uint64_t bytes, const RegionOptions& options) {
  if (instance_ == nullptr) return closed("Vm");
  if (bytes == 0 || bytes > kMostRegion || options.capacity > kMostRegion) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("a region of {} bytes: must be between 1 and {}", bytes, kMostRegion)};
  }
  const ByteCount size = whole_pages(bytes);
  const ByteCount capacity = std::max(size, whole_pages(options.capacity));
  auto state = make_region(instance_, size, capacity, "map", [&](VirtAddr at) {
    return map_zeros(*instance_, {at, at + size});
  });
  if (!state) return state.error();
  return Region(std::move(state.value()));
}

Expected<VmStatistics> Vm::statistics() const {
  if (instance_ == nullptr) return closed("Vm");
  const VmInstance::Operation operation(*instance_);
  return instance_->statistics();
}

// --- Region
// -------------------------------------------------------------------------------------------------

Region::Region(std::unique_ptr<RegionState> state) : state_(std::move(state)) {}
Region::Region(Region&&) noexcept = default;
Region& Region::operator=(Region&&) noexcept = default;
Region::~Region() = default;

std::byte* Region::data() const {
  return state_ == nullptr ? nullptr : reinterpret_cast<std::byte*>(state_->start().value());
}

std::uint64_t Region::size() const {
  return state_ == nullptr ? 0 : state_->size.value();
}

Expected<Snapshot> Region::snapshot() const {
  if (state_ == nullptr) return closed("region");
  auto snapshot = std::make_unique<SnapshotState>();
  {
    const VmInstance::Operation operation(*state_->vm);
    const KernReturn verdict = state_->vm->map().capture(state_->range(), &snapshot->image);
    if (verdict != KernReturn::kSuccess) return map_error(verdict, "snapshot");
  }
  snapshot->vm = state_->vm;
  snapshot->region = state_->id;
  snapshot->capacity = state_->capacity();
  return Snapshot(std::move(snapshot));
}

Expected<Region> Region::fork() const {
  auto moment = snapshot();
  if (!moment) return moment.error();
  return moment->branch();
}

Status Region::rollback(const Snapshot& snapshot) {
  if (state_ == nullptr) return closed("region");
  const SnapshotState* const saved = snapshot.state_.get();
  if (saved == nullptr) return closed("snapshot");
  if (saved->vm != state_->vm || saved->region != state_->id) {
    return Error{ErrorCode::kWrongVm,
                 "rollback: the snapshot is another region's; Snapshot::branch() maps it"};
  }
  const VmInstance::Operation operation(*state_->vm);
  const KernReturn verdict = state_->vm->map().restore(*saved->image, state_->start());
  if (verdict != KernReturn::kSuccess) return map_error(verdict, "rollback");
  state_->size =
      std::max(state_->size, saved->image->length());  // it is mapped; now cut off what was not there
  return done_or(set_size(*state_, saved->image->length()), "rollback");
}

Expected<std::vector<PageRange>> Region::diff(const Snapshot& snapshot) const {
  if (state_ == nullptr) return closed("region");
  const SnapshotState* const saved = snapshot.state_.get();
  if (saved == nullptr) return closed("snapshot");
  if (saved->vm != state_->vm || saved->region != state_->id) {
    return Error{ErrorCode::kWrongVm, "diff: the snapshot is another region's"};
  }
  std::vector<PageRange> changes;
  const std::uint64_t then = saved->image->length().value();
  const std::uint64_t now = state_->size.value();
  const std::uint64_t both = std::min(then, now);
  const VmInstance::Operation operation(*state_->vm);
  {
    const WriteLock at_rest(state_->vm->system().gate());
    state_->vm->map().for_each_change(*saved->image, state_->start(), [&](VirtRange run) {
      const std::uint64_t offset = (run.start - state_->start()).value();
      if (offset < both) add_change(changes, offset, std::min(run.size().value(), both - offset));
    });
  }
  add_change(changes, both, std::max(then, now) - both);
  return changes;
}

Status Region::advise(std::uint64_t offset, std::uint64_t bytes, Advice advice) {
  const auto range = part_of(state_.get(), offset, bytes);
  if (!range) return range.error();
  if (range.value().empty()) return Done{};
  const VmInstance::Operation operation(*state_->vm);
  return done_or(state_->vm->map().advise(range.value(), advice_of(advice)), "advise");
}

Status Region::discard(std::uint64_t offset, std::uint64_t bytes) {
  if (((offset | bytes) & kPageMask) != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "discard: offset and size must be multiples of the page size, 4096"};
  }
  const auto range = part_of(state_.get(), offset, bytes);
  if (!range) return range.error();
  if (range.value().empty()) return Done{};
  const VmInstance::Operation operation(*state_->vm);
  return done_or(state_->vm->map().advise(range.value(), enchilada::Advice::kDiscard), "discard");
}

Status Region::pin(std::uint64_t offset, std::uint64_t bytes) {
  const auto range = part_of(state_.get(), offset, bytes);
  if (!range) return range.error();
  if (range.value().empty()) return Done{};
  const VmInstance::Operation operation(*state_->vm);
  if (state_->vm->map().wire(range.value()) == KernReturn::kSuccess) return Done{};
  return Error{ErrorCode::kNoMemory,
               "pin: that much cannot be resident at once; pin less, or give the Vm more RAM"};
}

Status Region::unpin(std::uint64_t offset, std::uint64_t bytes) {
  const auto range = part_of(state_.get(), offset, bytes);
  if (!range) return range.error();
  if (range.value().empty()) return Done{};
  const VmInstance::Operation operation(*state_->vm);
  return done_or(state_->vm->map().unwire(range.value()), "unpin");
}

Status Region::resize(std::uint64_t bytes) {
  if (state_ == nullptr) return closed("region");
  const ByteCount size = whole_pages(bytes);
  if (bytes == 0 || size > state_->capacity()) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("resize to {} bytes: must be between 1 and the capacity, {} (RegionOptions::capacity)",
                    bytes, state_->capacity().value())};
  }
  const VmInstance::Operation operation(*state_->vm);
  return done_or(set_size(*state_, size), "resize");
}

Expected<RegionStatistics> Region::statistics() const {
  if (state_ == nullptr) return closed("region");
  RegionStatistics all;
  all.bytes = state_->size.value();
  all.capacity = state_->capacity().value();
  VmInstance& vm = *state_->vm;
  const VmInstance::Operation operation(vm);
  for (VirtAddr at = state_->start(); at < state_->range().end; at = at + ByteCount{kPageSize}) {
    if (vm.host().frame_at(at) != kNoFrame) all.mapped_bytes += kPageSize;
  }
  vm.map().for_each_entry([&](const VmMap::EntryView& entry) {
    if (!entry.range.overlaps(state_->range())) return;
    ++all.entries;
    if (entry.object != nullptr) all.depth = std::max(all.depth, vm.system().objects().depth(*entry.object));
  });
  return all;
}

// --- Snapshot
// -----------------------------------------------------------------------------------------------

Snapshot::Snapshot(std::unique_ptr<SnapshotState> state) : state_(std::move(state)) {}
Snapshot::Snapshot(Snapshot&&) noexcept = default;
Snapshot& Snapshot::operator=(Snapshot&&) noexcept = default;
Snapshot::~Snapshot() = default;

std::uint64_t Snapshot::size() const {
  return state_ == nullptr ? 0 : state_->image->length().value();
}

Expected<Region> Snapshot::branch() const {
  if (state_ == nullptr) return closed("snapshot");
  auto state = make_region(state_->vm, state_->image->length(), state_->capacity, "branch",
                           [&](VirtAddr at) { return state_->vm->map().restore(*state_->image, at); });
  if (!state) return state.error();
  return Region(std::move(state.value()));
}

}  // namespace enchilada
