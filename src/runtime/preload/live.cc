// Building the live engine of a process, and its answers to faults.
#include "runtime/preload/live.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include <new>

#include "base/check.h"
#include "base/monotonic_clock.h"
#include "pmap/host/own_mapping.h"
#include "runtime/preload/foreign.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/process.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/syscall_filter.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/text_readahead.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/user_syscall.h"
#include "runtime/tree/process_probe.h"

extern "C" char** environ;

namespace enchilada::runtime {
namespace {

constinit Live instance;

/// Storage for an object that lives as long as the process, made at a time when malloc must not be called.
template <class T>
struct Place {
  alignas(T) std::byte bytes[sizeof(T)];
  template <class... Args>
  T* make(Args&&... args) {
    return new (bytes) T(std::forward<Args>(args)...);
  }
};
Place<Arena> arena_place;
Place<TreeRamBudget> budget_place;
Place<HostClock> clock_place;
Place<TreeSwap> tree_swap_place;
Place<IoRings> rings_place;
Place<AsyncWrites> writes_place;
Place<CompressedSwap> compressed_place;
Place<FileSwapDevice> swap_device_places[kMaxSwapFiles];
Place<SwapPager> pager_place;

const char* variable(const char* name) {
  for (char** e = environ; e != nullptr && *e != nullptr; ++e) {
    const char* text = *e;
    const char* n = name;
    while (*n != 0 && *text == *n) {
      ++text;
      ++n;
    }
    if (*n == 0 && *text == '=') return text + 1;
  }
  return nullptr;
}

void copy_text(char* to, std::size_t size, const char* from) {
  std::size_t i = 0;
  for (; i + 1 < size && from != nullptr && from[i] != 0; ++i) to[i] = from[i];
  to[i] = 0;
}

/// The address-space limit of the image before exec, or what the launcher found, stands behind the tree's
/// value: takes it off.
void take_address_limit(char* value) {
  while (*value != 0 && *value != kLimitMark) ++value;
  if (*value == 0) return;
  *value = 0;
  std::uint64_t bytes = 0;
  for (++value; *value >= '0' && *value <= '9'; ++value)
    bytes = bytes * 10 + static_cast<std::uint64_t>(*value - '0');
  set_address_limit(bytes);
}

/// Where the dynamic loader found this library: what LD_PRELOAD of children must name.
const char* own_path() {
  Dl_info info{};
  return dladdr(reinterpret_cast<const void*>(&own_path), &info) != 0 ? info.dli_fname : "";
}

/// One swap file of the tree; knows how to get its descriptor back.
struct SwapFileContext {
  ProcessTree* tree;
  unsigned index;
};
SwapFileContext swap_contexts[kMaxSwapFiles];

int reopen_swap(void* context) {
  const auto& file = *static_cast<SwapFileContext*>(context);
  return file.tree->reopen(file.tree->config().swap_files[file.index].descriptor, O_RDWR);
}

}  // namespace

Live& live() {
  return instance;
}

void complain(std::initializer_list<const char*> parts) {
  char line[512];
  std::size_t used = 0;
  const auto add = [&](const char* text) {
    for (; *text != 0 && used < sizeof(line) - 1; ++text) line[used++] = *text;
  };
  add("enchilada: ");
  for (const char* part : parts) add(part);
  line[used++] = '\n';
  raw_syscall(SYS_write, 2, as_long(line), static_cast<long>(used));
}

void give_up(std::initializer_list<const char*> parts) {
  complain(parts);
  if (live().tree().attached()) live().tree().note_given_up();
  for (;;) raw_syscall(SYS_exit_group, 2);
}

void give_up_killed(std::initializer_list<const char*> parts) {
  complain(parts);
  for (;;) raw_syscall(SYS_kill, raw_syscall(SYS_getpid), 9);
}

void Live::start_slow() {
  // Before libc has its environment only the dynamic loader runs; its memory is resident anyway.
  if (environ == nullptr) return;
  LiveState expected = LiveState::kUntouched;
  if (!state_.compare_exchange_strong(expected, LiveState::kStarting))
    return;  // the one who starts needs memory
  const char* tree = variable("ENCHILADA_TREE");
  if (tree == nullptr) {
    state_.store(LiveState::kPassive, std::memory_order_release);
    return;
  }
  copy_text(preload_path_, sizeof(preload_path_), own_path());
  copy_text(tree_variable_, sizeof(tree_variable_), "ENCHILADA_TREE=");
  copy_text(tree_variable_ + 15, sizeof(tree_variable_) - 15, tree);
  take_address_limit(tree_variable_ + 15);
  build(tree_variable_ + 15);
  state_.store(LiveState::kReady, std::memory_order_release);
  tree_.set_live();
  if (tree_.has_siblings()) listen_to_siblings();
}

void Live::build(const char* tree_value) {
  const TreeStatus attached = tree_.attach(tree_value);
  if (attached != TreeStatus::kOk) give_up({"cannot join the process tree: ", describe(attached)});
  if (!install_gadget()) give_up({"the address of the system-call gadget is taken (a sanitizer's program?)"});
  set_data_limit(kernel_data_limit());
  install_handlers();
  if (!create_pin_set()) give_up({"no address space for the runtime's tables (RLIMIT_AS, ulimit -v?)"});
  adopt_thread();
  // It says how much of it is touched (Arena::touched), page by page.
  if (!map_own_memory(layout::kArenaBase, layout::kArenaSize))
    give_up({"no address space for the engine (RLIMIT_AS, ulimit -v?)"});
  arena_ = arena_place.make(reinterpret_cast<std::byte*>(layout::kArenaBase), layout::kArenaSize);
  pid_ = own_pid();
  join_swap();
  make_machine();
  make_engine();
  if (const char* why = install_filter(); why != nullptr) give_up({why});
}

void Live::join_swap() {
  tree_swap_ = tree_swap_place.make(tree_);
  if (!tree_swap_->attach()) give_up({"the tree's swap space is damaged"});
  const TreeStatus claimed = tree_.claim_slot();
  if (claimed != TreeStatus::kOk) give_up({"cannot start one more process: ", describe(claimed)});
  tree_swap_->sign();
  const TreeConfig& config = tree_.config();
  IoRings::Config ring;
  ring.lowest_descriptor = config.swap_files[0].descriptor;
  ring.call = window_syscall;  // the filter lets nobody else make a ring
  rings_ = rings_place.make(ring);
  writes_ = writes_place.make(window_syscall);
  for (unsigned i = 0; i < config.swap_file_count; ++i) {
    swap_contexts[i] = {&tree_, i};
    swap_devices_[i] = swap_device_places[i].make(
        config.swap_files[i].descriptor, ByteCount{0}, PageCount{config.swap_files[i].blocks},
        FileSwapDevice::Reopen{reopen_swap, &swap_contexts[i]}, rings_, writes_);
  }
  if (tree_swap_->compressed() != nullptr) compress_swap(config.swap_file_count);
}

/// From here on pages go to the devices through the tree's compressed store.
void Live::compress_swap(unsigned devices) {
  compressed_ =
      compressed_place.make(CompressedSwapConfig{.store = *tree_swap_->compressed(),
                                                 .below = {swap_devices_, devices},
                                                 .arena = *arena_,
                                                 .wanted = &TreeSwap::wanted,
                                                 .wanted_context = tree_swap_,
                                                 .compression = tree_.config().modes.get<CompressionMode>()});
  if (!compressed_->ready()) give_up({"no memory for compressing"});
  for (unsigned i = 0; i < devices; ++i) swap_devices_[i] = compressed_->device(i);
}

void Live::make_machine() {
  const TreeConfig& config = tree_.config();
  budget_ = budget_place.make(tree_, note_frames_taken);
  HostConfig host;
  host.window = layout::kWindow;
  host.pool = VirtAddr{layout::kPoolBase};
  host.frame_limit = PageCount{config.ram_frames};
  host.transport = config.transport == TransportChoice::kCopy   ? HostTransport::kCopy
                   : config.transport == TransportChoice::kMove ? HostTransport::kMove
                                                                : HostTransport::kAuto;
  host.budget = budget_;
  host.pins = &pin_set();
  host.window_syscall = window_syscall;
  host.lowest_descriptor = config.swap_files[0].descriptor;
  const auto made = HostMachine::create(host);
  if (!made.ok()) {
    switch (made.error()) {
      case HostError::kNoUserfaultfd:
        give_up(
            {"userfaultfd is refused to this program (a sandbox, or valgrind?); `enchilada doctor` says "
             "whether it is to all"});
      case HostError::kNoMove:
        give_up({"this kernel has no UFFDIO_MOVE; leave the transport to enchilada"});
      case HostError::kAddressTaken:
        give_up({"the program's own mappings lie where managed memory must go"});
      case HostError::kNoMemory:
        give_up({"no memory to start in: --ram is too small, or RLIMIT_AS is set"});
      case HostError::kBadConfig:
        give_up({"internal error: bad host configuration"});
    }
  }
  host_ = made.value();
  clock_ = clock_place.make();
}

void Live::make_engine() {
  const TreeConfig& config = tree_.config();
  map_counters(tree_.self());
  pager_ = pager_place.make(SwapPagerConfig{.space = tree_swap_->space(),
                                            .holder = tree_.self().value(),
                                            .devices = {swap_devices_, config.swap_file_count},
                                            .phys = *host_,
                                            .counters = *counters_,
                                            .arena = *arena_,
                                            .seed = config.fingerprint_seed,
                                            .meta_mode = config.modes.get<SwapMetaMode>()});
  if (!pager_->ready()) give_up({"no memory for swap's buffers"});
  const VmSystemConfig system{*host_, *host_, *pager_, *clock_, *counters_, *arena_, {}, config.modes};
  auto engine = VmSystem::create(system);
  if (engine == nullptr) give_up({"no memory for the page array"});
  system_ = engine.release();
  auto map = VmMap::create(*system_, layout::kWindow);
  if (map == nullptr) give_up({"no memory for the address map"});
  map_ = map.release();
  constexpr std::uint64_t kMostPinned = std::uint64_t{8} << 20;
  const std::uint64_t eighth = (config.ram_frames << kPageShift) / 8;
  pin_limit_ = (eighth < kMostPinned ? eighth : kMostPinned) & ~kPageMask;
}

FaultResult Live::fault(VirtAddr address, Access access) {
  constexpr std::uint64_t kPatience = 30'000'000'000;
  constexpr std::uint64_t kPatienceWithDisk = 2'000'000'000;  // it may be full only for a moment
  const SwapPagerStats& swap = pager_->stats();
  const std::uint64_t refused = swap.no_space.load() + swap.write_errors.load();
  std::uint64_t waited_since = 0;
  for (;;) {
    gate_.lock_shared();
    const FaultResult result = vm_fault(*map_, address, access);
    gate_.unlock_shared();
    if (result != FaultResult::kNoMemory) {
      watch_text_readahead();
      return result;
    }
    // Everything of ours is pinned, or swap takes nothing. Siblings may have frames; a pin may end soon.
    const std::uint64_t now = monotonic_ns();
    if (waited_since == 0) waited_since = now;
    const bool refuses = swap.no_space.load() + swap.write_errors.load() != refused;
    const std::uint64_t patience = refuses ? kPatienceWithDisk : kPatience;
    if (swap_space().available().value() == 0 || now - waited_since > patience) out_of_memory();
    const PageCount got = tree_.take_or_wait(PageCount{16}, 10'000'000);
    if (got.value() != 0) tree_.give_back(got);  // the engine takes them through the machine
  }
}

void Live::out_of_memory() {
  if (swap_space().available().value() == 0) {
    give_up_killed(
        {"swap is full: the program cannot go on; give it more with --swap PATH:SIZE, or more --ram"});
  }
  if (pager_->stats().no_space.load() != 0) {
    give_up_killed(
        {"the disk that swap is on is full: the program cannot go on; make room there, or choose another "
         "with "
         "--swap"});
  }
  if (pager_->stats().write_errors.load() != 0) {
    give_up_killed(
        {"swap cannot be written (I/O errors): the program cannot go on; choose another with --swap"});
  }
  give_up_killed({"no memory can be freed: --ram is too small for what is pinned (mlock, calls that wait)"});
}

void Live::become_child(ProcessSlot slot) {
  pid_ = own_pid();
  tree_swap_->sign();
  rings_->forget_after_fork();
  writes_->forget_after_fork();
  if (compressed_ != nullptr) compressed_->on_process_fork_child();
  pager_->on_process_fork_child(slot.value());
  // Sums start at zero in the child's own set; levels go on from the parent's.
  VmCounters& after = tree_.counters();
  for (std::size_t i = 0; i < kCounterInfoCount; ++i) {
    if (!kCounterInfo[i].level) continue;
    (after.*kCounterInfo[i].field).store((counters_->*kCounterInfo[i].field).load());
  }
  map_counters(slot);
}

void Live::map_counters(ProcessSlot slot) {
  // A second mapping of the slot's page (old size 0 duplicates a shared mapping), at an address that stays
  // the same through forks, so that nobody who counts need know that the process has changed.
  const auto& page = tree_.slot(slot);
  const long at = raw_syscall(SYS_mremap, as_long(&page), 0, static_cast<long>(kPageSize),
                              MREMAP_MAYMOVE | MREMAP_FIXED, static_cast<long>(layout::kCountersPage));
  if (at != static_cast<long>(layout::kCountersPage)) give_up({"no address space for the counters"});
  counters_ = &reinterpret_cast<TreeSlot*>(at)->counters;
}

bool Live::wait_for_fork() {
  // Somebody forks: the window is PROT_NONE for a moment. The forking thread itself must not wait for itself.
  if (is_forking_thread()) {
    host_->after_fork_parent();
    return true;
  }
  gate_.lock_shared();
  gate_.unlock_shared();
  return true;
}

bool Live::is_foreign(VirtAddr address) const {
  return has_foreign({page_floor(address), page_floor(address) + ByteCount{kPageSize}});
}

}  // namespace enchilada::runtime
