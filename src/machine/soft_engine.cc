// The parts of a complete system, put together in the order in which they need each other.
#include "machine/soft_engine.h"

#include <array>
#include <cstdlib>

namespace enchilada {
namespace {

SwapGeometry geometry_of(const SoftEngineOptions& options) {
  CHECK(!options.swap_pages.empty() && options.swap_pages.size() <= SwapGeometry::kMaxDevices);
  SwapGeometry geometry;
  geometry.slots = static_cast<unsigned>(options.swap_pages.size());
  geometry.stripe = options.swap_stripe;
  for (std::size_t i = 0; i < options.swap_pages.size(); ++i)
    geometry.device_pages[i] = options.swap_pages[i];
  return geometry;
}

/// The modes of the engine are the machine's too.
SoftMachineOptions machine_of(const SoftEngineOptions& options) {
  SoftMachineOptions machine = options.machine;
  machine.pmap.modes = options.modes;
  return machine;
}

}  // namespace

ZeroedPages::ZeroedPages(std::size_t bytes) : bytes_(bytes), block_(std::calloc(bytes + kPageSize, 1)) {
  CHECK(block_ != nullptr, bytes);
  data_ = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(block_) + kPageMask) & ~kPageMask);
}

ZeroedPages::~ZeroedPages() {
  std::free(block_);
}

SoftEngine::SoftEngine(const SoftEngineOptions& options) : machine_(machine_of(options)) {
  const SwapGeometry geometry = geometry_of(options);
  const auto allocator = options.modes.get<SwapAllocatorMode>();
  space_memory_ = std::make_unique<ZeroedPages>(SwapSpace::required_bytes(geometry, allocator));
  CHECK(SwapSpace::create(space_memory_->span(), geometry, allocator));
  space_ = SwapSpace::attach(space_memory_->span(), 0, {});
  CHECK(space_.has_value());
  std::array<SwapDevice*, SwapGeometry::kMaxDevices> devices{};
  for (std::size_t i = 0; i < options.swap_pages.size(); ++i) {
    disks_.push_back(std::make_unique<Disk>(options.swap_pages[i], options.seed + i));
    Disk& disk = *disks_.back();
    disk.faults.set_async(options.async_looks);
    devices[i] = &disk.faults;
    if (machine_.hardware() != nullptr) devices[i] = &disk.timed.emplace(disk.faults, *machine_.hardware());
  }
  if (options.compressed_bytes != 0) {
    put_store_before(std::span(devices).first(options.swap_pages.size()), options);
  }
  pager_ = std::make_unique<SwapPager>(
      SwapPagerConfig{.space = *space_,
                      .holder = 0,
                      .devices = std::span<SwapDevice* const>(devices).first(options.swap_pages.size()),
                      .phys = machine_.memory(),
                      .counters = machine_.counters(),
                      .arena = machine_.arena(),
                      .seed = options.seed,
                      .bounce_buffers = options.bounce_buffers,
                      .metadata_bytes = options.swap_metadata_bytes,
                      .meta_mode = options.modes.get<SwapMetaMode>()});
  VmSystemConfig config = machine_.config(*pager_, options.tunables, options.modes);
  config.make_policy = options.make_policy;
  system_ = VmSystem::create(config);
  CHECK(system_ != nullptr);
}

void SoftEngine::put_store_before(std::span<SwapDevice*> devices, const SoftEngineOptions& options) {
  const PageCount numbers = CompressedSwap::numbers(options.swap_pages);
  const ByteCount ring{options.compressed_bytes};
  store_memory_ = std::make_unique<ZeroedPages>(CompressedStore::required_bytes(ring, numbers));
  CHECK(CompressedStore::create(store_memory_->span(), ring, numbers));
  store_ = CompressedStore::attach(store_memory_->span(), 0, {});
  compressed_ = std::make_unique<CompressedSwap>(
      CompressedSwapConfig{.store = *store_,
                           .below = devices,
                           .arena = machine_.arena(),
                           .wanted =
                               [](void* space, DeviceBlock block) {
                                 const auto& swap = *static_cast<SwapSpace*>(space);
                                 return swap.count_of(swap.geometry().linear(block)) != 0;
                               },
                           .wanted_context = &*space_,
                           .compression = options.modes.get<CompressionMode>()});
  CHECK(compressed_->ready());
  for (unsigned i = 0; i < devices.size(); ++i) devices[i] = compressed_->device(i);
}

SoftEngine::~SoftEngine() {
  system_.reset();
  file_pager_.reset();
  pager_.reset();
}

FilePager& SoftEngine::file_pager() {
  if (file_pager_ == nullptr) {
    file_pager_ = std::make_unique<FilePager>(machine_.memory(), machine_.counters(), machine_.arena());
    CHECK(file_pager_->ready());
  }
  return *file_pager_;
}

bool SoftEngine::swapon(unsigned slot) {
  SwapDevice* const front = compressed_ != nullptr ? compressed_->device(slot) : &disks_[slot]->faults;
  return pager_->add_device(slot, *front);
}

std::unique_ptr<VmMap> SoftEngine::create_map(PageCount pages) {
  constexpr VirtAddr kStart{std::uint64_t{16} << kPageShift};
  return VmMap::create(*system_, {kStart, kStart + to_bytes(pages)});
}

}  // namespace enchilada
