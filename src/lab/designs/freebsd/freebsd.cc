// The engine behind the laboratory's interface. Invariants: see freebsd.h.
#include "lab/designs/freebsd/freebsd.h"

#include "vm/vm_map_entry.h"
#include "vm/vm_pageout.h"

namespace enchilada::lab {
namespace {

SoftEngineOptions engine_options(const DesignOptions& options, const VmModes& modes) {
  SoftEngineOptions engine;
  engine.machine.memory.frames = options.frames;
  engine.machine.pmap.table_pages = options.table_pages;
  engine.machine.pmap.pv_limit = options.pv_limit;
  engine.machine.hardware = options.hardware;
  // Address space only: pages of it cost memory when they are touched. A map entry is below 512 bytes.
  engine.machine.arena_bytes = (std::size_t{64} << 20) + options.frames.value() * 1024 +
                               (options.table_pages.value() + 1) * (kPageSize * 8 + 256) +
                               options.map_entries * 1024;
  engine.swap_pages = {options.swap.value()};
  engine.modes = modes;
  return engine;
}

constexpr VirtRange kEverywhere{VirtAddr{std::uint64_t{16} << kPageShift}, VirtAddr{std::uint64_t{1} << 47}};

}  // namespace

FreebsdVm::FreebsdVm(std::string_view name, const DesignOptions& options, const VmModes& modes)
    : name_(name), engine_(engine_options(options, modes)) {}

FreebsdVm::~FreebsdVm() {
  maps_.clear();
}

FileId FreebsdVm::create_file(PageCount pages) {
  File file;
  file.store = std::make_unique<MemoryFile>(to_bytes(pages));
  file.file = VmFile::open(engine_.system(), engine_.file_pager(), *file.store);
  CHECK(file.file != nullptr);
  files_.push_back(std::move(file));
  return FileId{static_cast<std::uint32_t>(files_.size() - 1)};
}

ProcessId FreebsdVm::adopt(std::unique_ptr<VmMap> map) {
  CHECK(map != nullptr);
  const ProcessId process{next_process_++};
  maps_[process.value()] = std::move(map);
  by_space_[pmap_of(process).id()] = process;
  return process;
}

void FreebsdVm::drop(ProcessId process) {
  by_space_.erase(pmap_of(process).id());
  maps_.at(process.value()).reset();
}

ProcessId FreebsdVm::spawn() {
  return adopt(VmMap::create(engine_.system(), kEverywhere));
}

ProcessId FreebsdVm::fork(ProcessId parent) {
  return adopt(map_of(parent).fork());
}

void FreebsdVm::exec(ProcessId process) {
  drop(process);
  maps_[process.value()] = VmMap::create(engine_.system(), kEverywhere);
  by_space_[pmap_of(process).id()] = process;
}

void FreebsdVm::exit(ProcessId process) {
  drop(process);
  maps_.erase(process.value());
}

bool FreebsdVm::map(ProcessId process, const MapCall& call) {
  if (call.pages.value() == 0 || !page_aligned(call.at)) return false;
  VmMap::MapRequest request;
  if (call.file.has_value()) {
    request = files_[call.file->value()].file->mapping(ByteCount{call.offset.value() << kPageShift},
                                                       to_bytes(call.pages), call.shared);
  }
  request.length = to_bytes(call.pages);
  request.hint = call.at;
  request.prot = call.prot;
  request.placement = VmMap::MapRequest::Placement::kFixedReplace;
  VirtAddr at;
  return map_of(process).map(request, &at) == KernReturn::kSuccess;
}

bool FreebsdVm::unmap(ProcessId process, VirtRange range) {
  return map_of(process).remove(range) == KernReturn::kSuccess;
}

bool FreebsdVm::protect(ProcessId process, VirtRange range, Prot prot) {
  return map_of(process).protect(range, prot) == KernReturn::kSuccess;
}

bool FreebsdVm::discard(ProcessId process, VirtRange range) {
  return map_of(process).advise(range, Advice::kDiscard) == KernReturn::kSuccess;
}

bool FreebsdVm::remap(ProcessId process, VirtRange from, VirtAddr to) {
  return map_of(process).remap(from, {to, to + from.size()}, false) == KernReturn::kSuccess;
}

bool FreebsdVm::access(ProcessId process, VirtAddr va, Access access, FunctionRef<void(std::byte*)> use) {
  const VmCounters& counters = engine_.machine().counters();
  const std::uint64_t faults = counters.vm_faults.load(std::memory_order_relaxed);
  const std::uint64_t major = counters.io_faults.load(std::memory_order_relaxed);
  const bool done = engine_.machine().touch(map_of(process), va, access, use) == FaultResult::kResolved;
  const std::uint64_t new_major = counters.io_faults.load(std::memory_order_relaxed) - major;
  const std::uint64_t new_faults = counters.vm_faults.load(std::memory_order_relaxed) - faults;
  if (new_major != 0) hardware().note(KernelEvent::kMajorFault, new_major);
  if (new_faults > new_major) hardware().note(KernelEvent::kMinorFault, new_faults - new_major);
  return done;
}

void FreebsdVm::reclaim(PageCount frames) {
  (void)engine_.system().daemon().reclaim(PageCount{engine_.system().at_hand()} + frames);
}

FrameNumber FreebsdVm::frame_at(ProcessId process, VirtAddr va) {
  return pmap_of(process).frame_at(page_floor(va));
}

void FreebsdVm::unmap_page(FrameNumber frame) {
  Page& page = engine_.system().page(frame);
  CHECK(page.try_busy(), frame.value());
  bool refused = false;
  engine_.system().pmaps().remove_all({&frame, 1}, {&refused, 1});
  page.unbusy();
}

unsigned FreebsdVm::referenced(FrameNumber frame) {
  Page& page = engine_.system().page(frame);
  CHECK(page.try_busy(), frame.value());
  const unsigned found = engine_.system().pmaps().ts_referenced(frame);
  page.unbusy();
  return found;
}

void FreebsdVm::for_each_mapping(FunctionRef<void(const Mapping&)> visit) {
  for (const auto& [id, map] : maps_) {
    const ProcessId process{id};
    pmap_of(process).for_each_mapping([&](const SoftMapping& mapping) {
      visit({process, mapping.va, mapping.frame});
    });
  }
}

void FreebsdVm::find_mappings(FrameNumber frame, FunctionRef<void(const Mapping&)> visit) {
  engine_.machine().pmaps().for_each_place_of(frame, [&](SpaceId space, VirtAddr va, bool) {
    visit({by_space_.at(space), va, frame});
  });
}

const char* FreebsdVm::find_error() {
  if (hardware().counts().stale != 0) return "a TLB kept what an entry no longer says";
  return engine_.machine().pmaps().find_error();
}

/// What lives now; the engine does not keep the most there was.
KernelAccounts FreebsdVm::accounts() {
  KernelAccounts accounts{};
  const auto set = [&](KernelType type, std::uint64_t live, std::uint64_t bytes) {
    accounts[static_cast<std::size_t>(type)] = {live, bytes, bytes};
  };
  SoftPmapSystem& pmaps = engine_.machine().pmaps();
  std::uint64_t entries = 0;
  for (const auto& [id, map] : maps_) entries += map->entry_count();
  set(KernelType::kVma, entries, entries * sizeof(MapEntry));
  set(KernelType::kPvEntry, pmaps.pv_entries(), pmaps.pv_bytes());
  set(KernelType::kPageTable, pmaps.table_bytes() / kPageSize, pmaps.table_bytes());
  return accounts;
}

}  // namespace enchilada::lab
