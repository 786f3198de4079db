// Making the parts of a Vm, one after another, with a clear word when one cannot be had.
#include "runtime/library/vm_instance.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/monotonic_clock.h"
#include "pmap/host/host_features.h"
#include "swap/swap_place.h"
#include "vm/vm_fault.h"
#include "vm/vm_object.h"

namespace enchilada::library {
namespace {

constexpr std::uint64_t kHugePage = std::uint64_t{2} << 20;
constexpr std::uint64_t kLeastRam = std::uint64_t{1} << 20;
constexpr std::uint64_t kMostRam = std::uint64_t{1} << 42;  // 2^30 frames
constexpr ByteCount kWindow{std::uint64_t{2} << 40};        // addresses for all regions of one Vm
constexpr std::size_t kArena = std::size_t{64} << 30;       // addresses; touched bit by bit
constexpr int kLowestDescriptor = 100;                      // ours do not take the program's low numbers
constexpr std::uint64_t kLeastSwap = 2 * kPageSize;

Error system_error(std::string_view what) {
  return {ErrorCode::kSystem, fmt::format("{}: {}", what, std::strerror(errno))};
}

/// Where windows are looked for: above sanitizers' shadow memory, below PIE programs and libraries, so that
/// nothing that maps memory without asking for a place gets in between.
constexpr VirtRange kWindows{VirtAddr{0x1100'0000'0000}, VirtAddr{0x5000'0000'0000}};

/// The lowest addresses at or above `from` that are free just now; another thread may take them before we do.
std::optional<VirtAddr> free_addresses(VirtAddr from, ByteCount bytes) {
  for (VirtAddr at = from; at + bytes <= kWindows.end; at = at + kWindow) {
    void* const wanted = reinterpret_cast<void*>(at.value());
    void* const got = mmap(wanted, bytes.value(), PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) continue;
    munmap(got, bytes.value());
    if (got == wanted) return at;
  }
  return std::nullopt;
}

Expected<VmModes> modes_of(const std::vector<std::string>& settings) {
  VmModes modes;
  for (const std::string& setting : settings) {
    const std::size_t equals = std::min(setting.find('='), setting.size());
    const std::string_view name = std::string_view(setting).substr(0, equals);
    const std::string_view mode = std::string_view(setting).substr(std::min(equals + 1, setting.size()));
    if (modes.set_named(name, mode) != ModeVerdict::kOk) {
      return Error{
          ErrorCode::kInvalidArgument,
          fmt::format("setting '{}': no such mechanism or mode; `enchilada run --set help` lists them",
                      setting)};
    }
  }
  return modes;
}

Error host_error(HostError error) {
  switch (error) {
    case HostError::kNoUserfaultfd:
    case HostError::kNoMove:
      return {ErrorCode::kNotSupported, probe_host_features().reason};
    case HostError::kAddressTaken:
      return {ErrorCode::kNoAddressSpace, "no free range of addresses for managed memory"};
    case HostError::kNoMemory:
      return {ErrorCode::kNoMemory, "no memory for the tables of managed memory (RLIMIT_AS?)"};
    case HostError::kBadConfig:
      return {ErrorCode::kInvalidArgument, "the RAM budget is too small or too large"};
  }
  return {ErrorCode::kSystem, "unknown"};
}

}  // namespace

bool VmInstance::OwnMemory::map(std::size_t bytes) {
  void* const at =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return false;
  madvise(at, bytes, MADV_NOHUGEPAGE);
  madvise(at, bytes, MADV_DONTFORK);
  data_ = static_cast<std::byte*>(at);
  bytes_ = bytes;
  return true;
}

VmInstance::SwapFile::~SwapFile() {
  if (descriptor >= 0) close(descriptor);
}

Status VmInstance::open_swap(const std::vector<SwapPlace>& places) {
  if (places.size() > files_.size()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("at most {} swap files can be used", files_.size())};
  }
  for (const SwapPlace& place : places) {
    const std::string directory = place.directory.empty() ? default_swap_directory() : place.directory;
    SwapFile& file = files_[file_count_];
    bool direct = false;
    file.descriptor = open_unnamed_file(directory, &direct);
    if (file.descriptor < 0) return system_error(fmt::format("swap file in {}", directory));
    ++file_count_;
    struct statvfs fs {};
    const std::uint64_t free =
        fstatvfs(file.descriptor, &fs) == 0 ? std::uint64_t{fs.f_bavail} * fs.f_frsize : 0;
    file.bytes = place.bytes != 0 ? place.bytes & ~kPageMask : default_swap_size(free);
    if (file.bytes < kLeastSwap) {
      return Error{ErrorCode::kInvalidArgument,
                   fmt::format("swap file in {}: no room, or a size of nothing", directory)};
    }
    if (ftruncate(file.descriptor, static_cast<off_t>(file.bytes)) != 0) {
      return system_error(fmt::format("swap file in {} of {} bytes", directory, file.bytes));
    }
    file.descriptor = raise_descriptor(file.descriptor, kLowestDescriptor);
  }
  return Done{};
}

Status VmInstance::make_machine(std::uint64_t ram_bytes) {
  const PageCount frames{ram_bytes / kPageSize};
  budget_.emplace(frames + PageCount{HostMachine::kCopySlack});
  HostConfig config;
  config.frame_limit = frames;
  config.budget = &*budget_;
  config.lowest_descriptor = kLowestDescriptor;
  Error last{ErrorCode::kNoAddressSpace, "no free range of addresses for managed memory (RLIMIT_AS?)"};
  const ByteCount pool{(ram_bytes + kHugePage - 1) & ~(kHugePage - 1)};
  const ByteCount all = kWindow + ByteCount{kHugePage} + pool;
  VirtAddr from = kWindows.start;
  while (const auto at = free_addresses(from, all)) {
    config.window = {*at, *at + kWindow};
    config.pool = config.window.end + ByteCount{kHugePage};
    const auto made = HostMachine::create(config);
    if (made.ok()) {
      host_ = made.value();
      window_ = config.window;
      return Done{};
    }
    last = host_error(made.error());
    if (made.error() != HostError::kAddressTaken) break;
    from = *at + kWindow;
  }
  return last;
}

Status VmInstance::make_engine(const VmModes& modes) {
  SwapGeometry geometry;
  geometry.slots = std::max(1u, file_count_);
  for (unsigned i = 0; i < file_count_; ++i) geometry.device_pages[i] = files_[i].bytes / kPageSize;
  if (file_count_ == 0) geometry.device_pages[0] = 1;  // a space without a device: all of it is reserved
  geometry.reserved = 1;
  if (!geometry.valid()) return Error{ErrorCode::kInvalidArgument, "together the swap files are too large"};
  const auto allocator = modes.get<SwapAllocatorMode>();
  if (!space_memory_.map(SwapSpace::required_bytes(geometry, allocator)) || !arena_memory_.map(kArena)) {
    return Error{ErrorCode::kNoMemory, "no address space for the VM system's tables (RLIMIT_AS?)"};
  }
  if (!SwapSpace::create(space_memory_.span(), geometry, allocator)) {
    return Error{ErrorCode::kInvalidArgument, "the swap files are too small"};
  }
  space_ = SwapSpace::attach(space_memory_.span(), 0, {});
  arena_.emplace(arena_memory_.span().data(), arena_memory_.span().size());
  counters_ = std::make_unique<VmCounters>();
  rings_.emplace(IoRings::Config{.lowest_descriptor = kLowestDescriptor});
  writes_.emplace();
  for (unsigned i = 0; i < file_count_; ++i) {
    devices_[i].emplace(files_[i].descriptor, ByteCount{0}, PageCount{files_[i].bytes / kPageSize},
                        FileSwapDevice::Reopen{nullptr, nullptr}, &*rings_, &*writes_);
    device_list_[i] = &*devices_[i];
  }
  pager_ = std::make_unique<SwapPager>(SwapPagerConfig{.space = *space_,
                                                       .holder = 0,
                                                       .devices = {device_list_.data(), file_count_},
                                                       .phys = *host_,
                                                       .counters = *counters_,
                                                       .arena = *arena_,
                                                       .seed = monotonic_ns() | 1,
                                                       .meta_mode = modes.get<SwapMetaMode>()});
  if (!pager_->ready()) return Error{ErrorCode::kNoMemory, "no memory for swap's buffers"};
  system_ = VmSystem::create({*host_, *host_, *pager_, clock_, *counters_, *arena_, {}, modes});
  if (system_ == nullptr) return Error{ErrorCode::kNoMemory, "no memory for the page array"};
  map_ = VmMap::create(*system_, window_);
  if (map_ == nullptr) return Error{ErrorCode::kNoMemory, "no memory for the address map"};
  return Done{};
}

Expected<std::shared_ptr<VmInstance>> VmInstance::create(const VmOptions& options) {
  if (options.ram_bytes < kLeastRam || options.ram_bytes > kMostRam) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("ram_bytes = {}: must be between {} and {}",
                                                          options.ram_bytes, kLeastRam, kMostRam)};
  }
  const HostFeatures features = probe_host_features();
  if (!features.usable()) return Error{ErrorCode::kNotSupported, features.reason};
  const Expected<VmModes> modes = modes_of(options.settings);
  if (!modes) return modes.error();
  std::shared_ptr<VmInstance> vm(new VmInstance);
  const SignalsBlocked blocked;
  if (const Status opened = vm->open_swap(options.swap); !opened) return opened.error();
  if (const Status made = vm->make_machine(options.ram_bytes & ~kPageMask); !made) return made.error();
  if (const Status made = vm->make_engine(modes.value()); !made) return made.error();
  vm->listening_ = add_fault_target(*vm);
  if (!vm->listening_) return Error{ErrorCode::kNoMemory, "too many Vms live in this process"};
  return vm;
}

VmInstance::~VmInstance() {
  const SignalsBlocked blocked;
  if (listening_) remove_fault_target(*this);
  map_.reset();
  system_.reset();
  pager_.reset();
  if (host_ != nullptr) HostMachine::destroy(host_);
}

std::optional<VirtRange> VmInstance::reserve(ByteCount capacity) {
  VirtAddr at;
  const ByteCount length = capacity + ByteCount{kPageSize};
  const KernReturn verdict =
      map_->map({.length = length, .alignment = kHugePage, .kind = EntryKind::kGuard}, &at);
  if (verdict != KernReturn::kSuccess) return std::nullopt;
  return VirtRange{at, at + length};
}

void VmInstance::release(VirtRange place) {
  (void)map_->remove(place);
}

VmStatistics VmInstance::statistics() {
  VmStatistics all;
  all.ram_bytes = to_bytes(host_->frame_limit()).value();
  const auto level = [](const Counter& c) { return c.load(std::memory_order_relaxed); };
  all.resident_bytes = (level(counters_->granted) - level(counters_->free_count)) * kPageSize;
  // Not what only waits for a write under way to end, its contents given up already.
  const PageCount used = space_->used();
  all.swap_used_bytes = to_bytes(used - std::min(used, pager_->given_up())).value();
  all.swap_bytes = to_bytes(space_->capacity()).value();
  all.metadata_bytes = arena_->touched();
  all.objects = system_->objects().live();
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    all.counters.emplace_back(kCounterInfo[i].name, level(counters_.get()->*kCounterInfo[i].field));
  }
  return all;
}

bool VmInstance::resolve(VirtAddr address, Access access) {
  const FaultResult result = vm_fault(*map_, address, access);
  switch (result) {
    case FaultResult::kResolved:
      return true;
    case FaultResult::kNotMapped:
    case FaultResult::kProtection:
    case FaultResult::kIoError:
    case FaultResult::kOutOfBounds:
    case FaultResult::kNoMemory:
      return false;
  }
  return false;
}

RegionState::~RegionState() {
  if (vm == nullptr) return;
  const VmInstance::Operation operation(*vm);
  vm->release(place);
}

SnapshotState::~SnapshotState() {
  if (vm == nullptr) return;
  const VmInstance::Operation operation(*vm);
  image.reset();
}

}  // namespace enchilada::library
