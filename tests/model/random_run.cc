// What happens at random, and how often.
#include "random_run.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <string_view>

#include "random_modes.h"
#include "vm/vm_object.h"
#include "vm/vm_pageout.h"
#include "vm/vm_phys.h"

namespace enchilada::model {

// ---- configuration
// -----------------------------------------------------------------------------------------------

namespace {

constexpr std::uint64_t kMostMaps = 6;
constexpr std::uint64_t kWiredShare = 5;  // one frame in so many may be wired

void choose_machine(Random& random, SoftEngineOptions& engine) {
  SoftMachineOptions& machine = engine.machine;
  const std::uint64_t frames = random.one_in(3) ? random.between(40, 80) : random.between(64, 256);
  machine.memory.frames = PageCount{frames};
  if (random.one_in(3)) {  // memory comes slowly and in pieces
    machine.memory.grant_at_most = PageCount{random.between(4, 40)};
    machine.memory.run_at_most = PageCount{random.between(1, 8)};
  }
  SoftPmapOptions& pmap = machine.pmap;
  switch (random.below(4)) {
    case 0:  // as on the host
      pmap.one_address = true;
      pmap.reference_bits = false;
      pmap.dirty_bits = false;
      break;
    case 1:
      pmap.reference_bits = false;
      break;
    default:
      break;
  }
  // Scarce, but enough for all that is ever wired: what is wired can never be thrown away.
  if (random.one_in(4)) pmap.pv_limit = frames / kWiredShare + random.between(8, 60);
  pmap.table_pages = PageCount{random.one_in(4) ? 5 * kMostMaps + random.below(8) : 64};
}

/// Any mode of the mechanisms that only page tables have.
void choose_page_tables(Random& random, RigConfig& config) {
  VmModes& modes = config.engine.modes;
  if (random.one_in(2)) modes.set(random.one_in(2) ? PvMode::kChunk : PvMode::kList);
  if (random.one_in(2)) modes.set(static_cast<ForkTablesMode>(random.below(3)));
  if (random.one_in(3)) modes.set(SuperpagesMode::kPromote);
  if (random.one_in(3)) modes.set(SharedTablesMode::kOn);
  if (random.one_in(6)) modes.set(PageTableMode::kHashed);
  config.rfork = random.one_in(4);
  // Chunks are limited as a whole, and each space may need one that is full of what is wired.
  SoftPmapOptions& pmap = config.engine.machine.pmap;
  if (pmap.pv_limit != 0 && modes.get<PvMode>() == PvMode::kChunk) pmap.pv_limit += 168 * (kMostMaps + 1);
}

void choose_swap(Random& random, RigConfig& config) {
  SoftEngineOptions& engine = config.engine;
  if (random.one_in(5)) {
    config.swap_may_fill = true;
    engine.swap_pages = {random.between(16, 400)};
  } else {
    engine.swap_pages.clear();
    for (std::uint64_t n = random.one_in(3) ? random.between(2, 4) : 1; n > 0; --n) {
      engine.swap_pages.push_back(8192);
    }
  }
  engine.swap_stripe = std::uint64_t{1} << random.between(2, 6);
  if (random.one_in(3)) engine.compressed_bytes = random.between(1, 3) * kPageSize;
  engine.swap_metadata_bytes = std::size_t{4} << 20;
  engine.bounce_buffers = static_cast<unsigned>(random.between(1, 5));
  engine.async_looks = static_cast<unsigned>(random.below(6));
  config.io_errors = random.one_in(4);
  config.metadata_may_end = random.one_in(10);
  config.metadata_left = random.between(4, 200) * 1024;
}

void choose_tunables(Random& random, VmTunables& tunables) {
  if (random.one_in(3)) return;
  const auto cluster = [&] { return PageCount{std::uint64_t{1} << random.below(7)}; };
  tunables.zero_fill_cluster = cluster();
  tunables.readahead_min = cluster();
  tunables.readahead_max = std::max(tunables.readahead_min, cluster());
  tunables.readahead_runs = static_cast<unsigned>(random.between(1, 9));
  tunables.pageout_cluster = cluster();
  tunables.withdraw_cluster = cluster();
  tunables.prefault_cluster = cluster();
  tunables.regroup_cluster = cluster();
}

}  // namespace

std::string describe(const VmModes& modes) {
  std::string text;
  for (std::size_t i = 0; i < kMechanisms.size(); ++i) {
    if (modes.number(i) == VmModes().number(i)) continue;
    text += ", ";
    text += kMechanisms[i].name;
    text += '=';
    text += kMechanisms[i].modes[modes.number(i)];
  }
  return text;
}

void override_modes(VmModes* modes) {
  const char* const wanted = std::getenv("ENCHILADA_SET");
  std::string_view rest = wanted == nullptr ? "" : wanted;
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    const std::size_t equals = std::min(one.find('='), one.size());
    const ModeVerdict verdict =
        modes->set_named(one.substr(0, equals), one.substr(std::min(equals + 1, one.size())));
    CHECK(verdict == ModeVerdict::kOk, equals);
  }
}

RigConfig config_of(std::uint64_t seed) {
  Random random(seed);
  RigConfig config = choose_config(random);
  config.seed = seed;
  config.engine.seed = seed + 1;
  return config;
}

RigConfig choose_config(Random& random) {
  RigConfig config;
  config.map_pages = random.between(48, 320);
  config.max_maps = random.between(1, kMostMaps);
  config.engine.machine.arena_bytes = std::size_t{12} << 20;
  choose_machine(random, config.engine);
  choose_swap(random, config);
  choose_tunables(random, config.engine.tunables);
  config.max_wired = config.engine.machine.memory.frames.value() / kWiredShare;
  config.least_frames = std::max<std::uint64_t>(32, config.engine.machine.memory.frames.value() / 2);
  config.sharing = !random.one_in(3);
  config.pins = !config.sharing && random.one_in(2);
  if (random.one_in(3)) {  // asked last, so that what a seed stood for before it still does
    config.engine.modes.set(random.one_in(2) ? SwapAllocatorMode::kBlist1999 : SwapAllocatorMode::kList3x);
  }
  if (random.one_in(2)) {
    choose_page_modes(random, config.engine.modes);
    config.time_flies = random.one_in(2);
  }
  if (random.one_in(3)) {
    config.engine.modes.set(random.one_in(2) ? SwapMetaMode::kHash : SwapMetaMode::kArray3x);
  }
  if (config.engine.compressed_bytes != 0 && random.one_in(3)) {
    config.engine.modes.set(CompressionMode::kZstd);
    config.engine.machine.arena_bytes += std::size_t{2} << 20;  // its workspaces
  }
  config.engine.modes.set(static_cast<FrameOrderMode>(random.below(3)));
  // Small, so that these machines hold many of them.
  config.engine.tunables.reservation_order = static_cast<unsigned>(random.between(1, 5));
  config.engine.tunables.colour_cache = to_bytes(PageCount{std::uint64_t{1} << random.between(0, 8)});
  config.files = config.pins ? 0 : random.below(3);  // a pinned page outlives a truncation for a while
  config.engine.modes.set(static_cast<CollapseMode>(random.below(3)))
      .set(static_cast<CowMoveMode>(random.below(2)))
      .set(static_cast<DeadPagesMode>(random.below(2)));
  choose_page_tables(random, config);
  if (random.one_in(3)) {
    config.engine.modes.set(static_cast<MapIndexMode>(random.below(ModeOf<MapIndexMode>::kNames.size())));
  }
  if (random.one_in(2)) {
    config.engine.modes.set(static_cast<PrefaultMode>(random.below(4)))
        .set(static_cast<ReadAheadMode>(random.below(3)))
        .set(static_cast<PreZeroMode>(random.below(3)))
        .set(static_cast<PreCopyMode>(random.below(4)));
  }
  return config;
}

std::string describe(const RigConfig& config) {
  const SoftEngineOptions& e = config.engine;
  char line[500];
  std::snprintf(
      line, sizeof(line),
      "%llu frames, %s%s%s%s, %zu swap devices of %llu pages (%s)%s%s, pv limit %zu, %llu "
      "tables%s%s%s%s%s%s, "
      "%zu files",
      static_cast<unsigned long long>(e.machine.memory.frames.value()),
      e.machine.pmap.reference_bits ? "reference bits" : "no reference bits",
      e.machine.pmap.dirty_bits ? "" : ", no dirty bits", e.machine.pmap.one_address ? ", one address" : "",
      e.machine.memory.run_at_most < e.machine.memory.frames ? ", scattered grants" : "", e.swap_pages.size(),
      static_cast<unsigned long long>(e.swap_pages[0]), name_of(e.modes.get<SwapAllocatorMode>()).data(),
      e.compressed_bytes != 0 ? " behind a compressed store" : "",
      e.async_looks != 0 && e.bounce_buffers > 2 ? ", written behind" : "", e.machine.pmap.pv_limit,
      static_cast<unsigned long long>(e.machine.pmap.table_pages.value()),
      config.io_errors ? ", I/O errors" : "", config.swap_may_fill ? ", swap may fill" : "",
      config.metadata_may_end ? ", little metadata" : "", config.pins ? ", pins" : "",
      config.sharing ? ", sharing" : "", config.rfork ? ", rfork" : "", config.files);
  return line + describe(e.modes);
}

// ---- choices
// -----------------------------------------------------------------------------------------------------

VirtRange RandomRun::some_range(const ModelMap& model, std::uint64_t longest) {
  const std::uint64_t pages = to_pages(model.bounds().size()).value();
  const std::uint64_t length = random_.between(1, std::min(longest, pages));
  const VirtAddr start = model.bounds().start + to_bytes(PageCount{random_.below(pages - length + 1)});
  return {start, start + to_bytes(PageCount{length})};
}

VirtAddr RandomRun::some_page(ModelMap& model) {
  if (model.pages().empty() || random_.one_in(40)) return some_range(model, 1).start;
  const std::uint64_t first = model.pages().begin()->first;
  const std::uint64_t last = model.pages().rbegin()->first;
  const auto it = model.pages().lower_bound(random_.between(first, last));
  return VirtAddr{it->first << kPageShift};
}

/// A range that begins at a mapped page and mostly stays within mapped ones.
VirtRange RandomRun::some_mapped_range(ModelMap& model, std::uint64_t longest) {
  if (model.pages().empty() || random_.one_in(10)) return some_range(model, longest);
  const VirtAddr start = some_page(model);
  VirtAddr end = start + ByteCount{kPageSize};
  for (std::uint64_t n = random_.below(longest); n > 0 && model.find(end) != nullptr; --n) {
    end = end + ByteCount{kPageSize};
  }
  return {start, end};
}

std::size_t RandomRun::wired_pages() const {
  std::size_t n = 0;
  for (const ModelRig::Process& p : rig_.processes()) n += p.model->wired_pages();
  return n;
}

// ---- steps
// -------------------------------------------------------------------------------------------------------

void RandomRun::run(unsigned steps) {
  for (unsigned i = 0; i < steps && rig_.ok() && !random_.exhausted(); ++i) {
    step();
    rig_.engine().machine().clock().advance(Nanoseconds{1000});
    if (rig_.config().time_flies && i % 8 == 0) {
      rig_.engine().machine().clock().advance(Nanoseconds{60'000'000'000});
      rig_.engine().system().daemon().tick();
    }
    if (i % rig_.config().validate_every == 0) rig_.validate();
    if (i % 16 == 0) rig_.check_wired();
  }
  quiet_disks();
  while (!pinned_.empty()) {
    rig_.engine().machine().pmaps().unpin(pinned_.back());
    pinned_.pop_back();
  }
  if (rig_.ok()) rig_.validate();
  if (rig_.ok()) rig_.check_all_contents();
  while (rig_.ok() && !rig_.processes().empty()) {
    rig_.exit(random_.below(rig_.processes().size()));
    rig_.validate();
  }
  if (rig_.ok()) rig_.check_nothing_left();
}

void RandomRun::run_on_maps(unsigned steps) {
  for (unsigned i = 0; i < steps && rig_.ok() && !random_.exhausted(); ++i) {
    if (!rig_.processes().empty()) operate_on_map();
  }
  if (rig_.ok()) rig_.validate();
  while (rig_.ok() && !rig_.processes().empty()) rig_.exit(0);
  if (rig_.ok()) rig_.check_nothing_left();
}

void RandomRun::step() {
  if (rig_.processes().empty()) return;
  switch (random_.below(rig_.files().empty() ? 20 : 22)) {
    case 20:
    case 21:
      return operate_on_file();
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
      return operate_on_map();
    case 8:
    case 9:
      return operate_on_engine();
    case 10:
    case 11:
      return sweep();
    default:
      return access();
  }
}

void RandomRun::access() {
  for (std::uint64_t n = random_.between(1, 6); n > 0 && rig_.ok(); --n) {
    ModelRig::Process& p = some_process();
    const VirtAddr page = some_page(*p.model);
    const std::size_t word = random_.below(kWords);
    if (random_.one_in(2)) {
      (void)rig_.store(p, page, word, random_.one_in(16) ? 0 : next_value_++);
    } else if (random_.one_in(4)) {
      (void)rig_.check_page(p, page);
    } else {
      (void)rig_.load(p, page, word);
    }
  }
}

/// Many neighbours one after the other, upwards or downwards: clusters, read-ahead, memory pressure.
void RandomRun::sweep() {
  ModelRig::Process& p = some_process();
  const VirtRange range = some_mapped_range(*p.model, 64);
  const bool down = random_.one_in(4);
  const bool writes = random_.one_in(2);
  const std::uint64_t pages = to_pages(range.size()).value();
  for (std::uint64_t i = 0; i < pages && rig_.ok(); ++i) {
    const VirtAddr page = range.start + to_bytes(PageCount{down ? pages - 1 - i : i});
    if (writes) {
      (void)rig_.store(p, page, random_.below(kWords), next_value_++);
    } else {
      (void)rig_.load(p, page, 0);
    }
  }
}

void RandomRun::operate_on_map() {
  ModelRig::Process& p = some_process();
  switch (random_.below(16)) {
    case 0:
    case 1:
    case 2:
      return map();
    case 3:
    case 4:
      (void)rig_.remove(p, random_.one_in(2) ? some_mapped_range(*p.model, 24) : some_range(*p.model, 24));
      return;
    case 5:
    case 6: {
      constexpr Prot kProts[] = {Prot::kNone,      Prot::kRead, Prot::kReadWrite,
                                 Prot::kReadWrite, Prot::kAll,  Prot::kWrite};
      (void)rig_.protect(p, some_mapped_range(*p.model, 32), kProts[random_.below(std::size(kProts))]);
      return;
    }
    case 7: {
      constexpr Inherit kHow[] = {Inherit::kCopy, Inherit::kCopy,  Inherit::kNone,
                                  Inherit::kZero, Inherit::kShare, Inherit::kShare};
      const VirtRange range = some_range(*p.model, 48);
      // Whether a fork copies what was inherited by sharing at once depends on who shares it still; of a
      // private mapping of a file that decides whether later changes of the file are seen.
      bool private_file = false;
      p.model->for_each(range, [&](const ModelPage& page) {
        private_file = private_file || (page.origin.file != nullptr && !page.origin.shared);
      });
      (void)rig_.inherit(p, range, kHow[random_.below(rig_.config().sharing && !private_file ? 6 : 4)]);
      return;
    }
    case 8:
    case 9:
      return advise();
    case 10:
    case 11:
      return remap();
    case 12:
      return wire();
    case 13:
    case 14:
      return fork_or_exit();
    default:
      return random_.one_in(2) ? invalid() : advise();
  }
}

void RandomRun::map() {
  ModelRig::Process& p = some_process();
  using Placement = VmMap::MapRequest::Placement;
  VmMap::MapRequest request;
  request.length = ByteCount{random_.between(1, random_.one_in(3) ? 60 : 12) * kPageSize - random_.below(3)};
  constexpr Placement kPlacements[] = {Placement::kAnywhere, Placement::kAnywhere, Placement::kFixedReplace,
                                       Placement::kFixedExclusive};
  request.placement = kPlacements[random_.below(4)];
  request.hint = some_range(*p.model, 1).start;
  if (random_.one_in(2) && request.placement == Placement::kAnywhere) request.hint = VirtAddr{0};
  if (random_.one_in(8)) request.prot = Prot::kRead;
  if (random_.one_in(16)) request.prot = Prot::kNone;
  if (random_.one_in(16)) request.max_prot = request.prot | Prot::kRead;
  if (random_.one_in(20)) request.kind = random_.one_in(2) ? EntryKind::kGuard : EntryKind::kForeign;
  if (random_.one_in(10)) request.inherit = static_cast<Inherit>(random_.below(4));
  if (!rig_.config().sharing && request.inherit == Inherit::kShare) request.inherit = Inherit::kCopy;
  if (request.kind == EntryKind::kGuard) request.max_prot = Prot::kAll;
  (void)rig_.map(p, request);
}

void RandomRun::map_file() {
  ModelRig::Process& p = some_process();
  ModelRig::File& file = rig_.files()[random_.below(rig_.files().size())];
  VmMap::MapRequest request;
  const std::uint64_t pages = file.model->pages.size() + 2;  // a little beyond the end
  const std::uint64_t first = random_.below(pages);
  request.length = to_bytes(PageCount{random_.between(1, std::min<std::uint64_t>(pages - first + 1, 60))});
  if (random_.one_in(3)) {
    request.placement = VmMap::MapRequest::Placement::kFixedReplace;
    request.hint = some_range(*p.model, 1).start;
  }
  if (random_.one_in(4)) request.prot = Prot::kRead;
  (void)rig_.map_file(p, file, first, rig_.config().sharing && random_.one_in(2), request);
}

/// msync, truncation and extension, a file that fails; most of all mappings of it.
void RandomRun::operate_on_file() {
  ModelRig::File& file = rig_.files()[random_.below(rig_.files().size())];
  ModelRig::Process& p = some_process();
  switch (random_.below(8)) {
    case 0:
    case 1:
      (void)rig_.sync(p, random_.one_in(4) ? some_range(*p.model, 24) : some_mapped_range(*p.model, 40),
                      {.wait = !random_.one_in(4), .invalidate = random_.one_in(3)});
      return;
    case 2: {
      const std::uint64_t most = 80 * kPageSize;
      (void)rig_.resize(file, random_.one_in(3)
                                  ? random_.below(most / 8) * 8
                                  : std::min(most, file.model->length + random_.below(600) * 8));
      return;
    }
    case 3: {
      if (!rig_.config().io_errors) return map_file();
      const auto rate = [&] {
        return random_.one_in(2) ? 0u : static_cast<std::uint32_t>(random_.below(400));
      };
      const std::uint32_t reads = rate();
      const std::uint32_t writes = rate();
      file.store->set_error_rates(reads, writes);
      rig_.note("a file fails %u reads, %u writes of 1000", reads, writes);
      return;
    }
    default:
      return map_file();
  }
}

void RandomRun::advise() {
  ModelRig::Process& p = some_process();
  constexpr Advice kAdvice[] = {Advice::kNormal,   Advice::kSequential, Advice::kRandom,
                                Advice::kWillNeed, Advice::kDontNeed,   Advice::kDontNeed,
                                Advice::kFree,     Advice::kDiscard,    Advice::kDiscard};
  (void)rig_.advise(p, some_mapped_range(*p.model, 40), kAdvice[random_.below(std::size(kAdvice))]);
}

void RandomRun::remap() {
  ModelRig::Process& p = some_process();
  const VirtRange from = some_mapped_range(*p.model, 24);
  const ByteCount grown = from.size() + to_bytes(PageCount{random_.one_in(2) ? 0 : random_.below(8)});
  VirtRange to{from.start, from.start + grown};
  if (!random_.one_in(3)) to.start = some_range(*p.model, 1).start;
  to.end = to.start + grown;
  (void)rig_.remap(p, from, to, random_.one_in(4));
}

void RandomRun::wire() {
  ModelRig::Process& p = some_process();
  const WireKind kind = random_.one_in(2) ? WireKind::kUser : WireKind::kSystem;
  const VirtRange range = some_mapped_range(*p.model, 8);
  const std::uint64_t pages = to_pages(range.size()).value();
  bool file = false;  // wiring private pages of a file makes copies, how many an I/O error decides
  p.model->for_each(range, [&](const ModelPage& page) { file = file || page.origin.file != nullptr; });
  if (!file && wired_pages() + pages <= rig_.config().max_wired && random_.one_in(2)) {
    (void)rig_.wire(p, range, kind);
  } else {
    (void)rig_.unwire(p, some_mapped_range(*p.model, 40), kind);
  }
}

void RandomRun::fork_or_exit() {
  const std::size_t n = rig_.processes().size();
  if (n < rig_.config().max_maps && !random_.one_in(3)) {
    if (rig_.config().rfork && random_.one_in(4)) return rig_.share(random_.below(n));
    (void)rig_.fork(random_.below(n));
  } else if (n > 1) {
    rig_.exit(random_.below(n));
  }
}

/// Arguments that must be refused and change nothing.
void RandomRun::invalid() {
  ModelRig::Process& p = some_process();
  VirtRange range = some_range(*p.model, 16);
  switch (random_.below(4)) {
    case 0:
      range.start = range.start + ByteCount{1};
      break;
    case 1:
      range.end = range.start;
      break;
    case 2:
      range.end = p.model->bounds().end + ByteCount{kPageSize};
      break;
    default:
      range.start = p.model->bounds().start - ByteCount{kPageSize};
      break;
  }
  switch (random_.below(5)) {
    case 0:
      (void)rig_.remove(p, range);
      return;
    case 1:
      (void)rig_.protect(p, range, Prot::kRead);
      return;
    case 2:
      (void)rig_.advise(p, range, Advice::kDiscard);
      return;
    case 3:
      (void)rig_.wire(p, range, WireKind::kUser);
      return;
    default:
      (void)rig_.remap(p, range, some_range(*p.model, 16), false);
      return;
  }
}

// ---- the engine and the machine
// ----------------------------------------------------------------------------------

void RandomRun::operate_on_engine() {
  VmSystem& system = rig_.engine().system();
  if (system.modes().get<PreZeroMode>() != PreZeroMode::kOff && random_.one_in(3)) {
    rig_.note("idle -> %llu zeroed", static_cast<unsigned long long>(system.idle().value()));
    return;
  }
  switch (random_.below(9)) {
    case 0:
    case 1:
      rig_.note("reclaim -> %d", system.daemon().reclaim() ? 1 : 0);
      return;
    case 2:
      rig_.note("scan active -> %zu", system.daemon().scan_active(random_.between(1, 40)));
      return;
    case 3:
    case 4:
      return drop_mappings();
    case 5:
      return resize();
    case 6:
      return trouble();
    case 7:
      return swap_devices();
    default:
      return pin();
  }
}

/// The law of the pmap: any unwired mapping may vanish at any time.
void RandomRun::drop_mappings() {
  auto& pmap = static_cast<SoftPmap&>(some_process().map->pmap());
  const std::uint64_t one_in = random_.between(1, 4);
  rig_.note("mappings dropped, one in %llu", static_cast<unsigned long long>(one_in));
  pmap.drop_if([&](const SoftMapping&) { return random_.one_in(one_in); });
}

void RandomRun::resize() {
  VmSystem& system = rig_.engine().system();
  SoftMemory& memory = rig_.engine().machine().memory();
  const std::uint64_t frames = memory.frame_limit().value();
  const std::uint64_t budget = random_.between(std::min(rig_.config().least_frames, frames), frames);
  memory.set_budget(PageCount{budget});
  PageCount moved;
  if (random_.one_in(3)) {
    moved = system.grow(PageCount{random_.between(1, 40)});
  } else if (random_.one_in(2)) {
    moved = system.daemon().give_back(memory.surplus_wanted());
  } else {
    moved = system.daemon().shrink_to(PageCount{random_.between(rig_.config().least_frames, frames)});
  }
  rig_.note("budget %llu, %llu frames came or went", static_cast<unsigned long long>(budget),
            static_cast<unsigned long long>(moved.value()));
}

void RandomRun::trouble() {
  if (!rig_.config().io_errors) return;
  FaultInjectingSwapDevice& disk = rig_.engine().disk(random_.below(rig_.engine().disks()));
  const auto rate = [&] {
    return random_.one_in(3) ? 0u
                             : static_cast<std::uint32_t>(random_.below(random_.one_in(4) ? 65536 : 8000));
  };
  const std::uint32_t reads = rate();
  const std::uint32_t writes = rate();
  disk.set_failure_rate(reads, writes);
  disk.set_full(random_.one_in(6));
  disk.set_short_writes(random_.one_in(2));
  disk.set_corrupt_reads(random_.one_in(8));
  rig_.note("disk fails %u reads, %u writes of 65536", reads, writes);
}

/// A device goes or comes. Whether it can go is swapoff's to say; where swap must suffice, another one stays.
void RandomRun::swap_devices() {
  const std::size_t n = rig_.engine().disks();
  const auto i = static_cast<unsigned>(random_.below(n));
  if (swapped_off_[i]) {
    const bool there = rig_.engine().swapon(i);
    rig_.note("swapon %u -> %d", i, there ? 1 : 0);
    if (!there) rig_.fail("a device could not come back");
    swapped_off_[i] = false;
    return;
  }
  const auto out = static_cast<std::size_t>(std::count(swapped_off_.begin(), swapped_off_.end(), true));
  if (out + 1 >= n && !rig_.config().swap_may_fill) return;
  const SwapoffResult result = rig_.engine().swapoff(i, {.force = random_.one_in(3), .rounds = 3});
  rig_.note("swapoff %u -> %d", i, static_cast<int>(result));
  swapped_off_[i] = result == SwapoffResult::kOk;
  if (swapped_off_[i] && rig_.engine().space().used_on(i).value() != 0) rig_.fail("a device went with pages");
}

void RandomRun::quiet_disks() {
  for (ModelRig::File& file : rig_.files()) file.store->set_error_rates(0, 0);
  for (std::size_t i = 0; i < rig_.engine().disks(); ++i) {
    FaultInjectingSwapDevice& disk = rig_.engine().disk(i);
    disk.set_failure_rate(0, 0);
    disk.set_full(false);
    disk.set_short_writes(false);
    disk.set_corrupt_reads(false);
  }
}

/// The machine uses a frame for a while: nobody may take its mappings away.
void RandomRun::pin() {
  if (!rig_.config().pins) return;
  SoftPmapSystem& pmaps = rig_.engine().machine().pmaps();
  if (pinned_.size() >= 3 || (!pinned_.empty() && random_.one_in(2))) {
    pmaps.unpin(pinned_.front());
    rig_.note("frame %u unpinned", pinned_.front().value());
    pinned_.erase(pinned_.begin());
    return;
  }
  std::vector<FrameNumber> mapped;
  static_cast<SoftPmap&>(some_process().map->pmap()).for_each_mapping([&](const SoftMapping& mapping) {
    mapped.push_back(mapping.frame);
  });
  if (mapped.empty()) return;
  pinned_.push_back(mapped[random_.below(mapped.size())]);
  pmaps.pin(pinned_.back());
  rig_.note("frame %u pinned", pinned_.back().value());
}

}  // namespace enchilada::model
