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

}  // namespace

ZeroedPages::ZeroedPages(std::size_t bytes) : bytes_(bytes), block_(std::calloc(bytes + kPageSize, 1)) {
  CHECK(block_ != nullptr, bytes);
  data_ = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(block_) + kPageMask) & ~kPageMask);
}

ZeroedPages::~ZeroedPages() {
  std::free(block_);
}

SoftEngine::SoftEngine(const SoftEngineOptions& options) : machine_(options.machine) {
  const SwapGeometry geometry = geometry_of(options);
  space_memory_ = std::make_unique<ZeroedPages>(SwapSpace::required_bytes(geometry));
  CHECK(SwapSpace::create(space_memory_->span(), geometry));
  space_ = SwapSpace::attach(space_memory_->span(), 0, {});
  CHECK(space_.has_value());
  std::array<SwapDevice*, SwapGeometry::kMaxDevices> devices{};
  for (std::size_t i = 0; i < options.swap_pages.size(); ++i) {
    disks_.push_back(std::make_unique<Disk>(options.swap_pages[i], options.seed + i));
    devices[i] = &disks_.back()->faults;
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
                      .metadata_bytes = options.swap_metadata_bytes});
  system_ = VmSystem::create(machine_.config(*pager_, options.tunables));
  CHECK(system_ != nullptr);
}

SoftEngine::~SoftEngine() {
  system_.reset();
  pager_.reset();
}

std::unique_ptr<VmMap> SoftEngine::create_map(PageCount pages) {
  constexpr VirtAddr kStart{std::uint64_t{16} << kPageShift};
  return VmMap::create(*system_, {kStart, kStart + to_bytes(pages)});
}

}  // namespace enchilada
