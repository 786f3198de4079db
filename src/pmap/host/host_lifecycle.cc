// HostMachine: creation, destruction, kernel fork, and the check of everything against the kernel's page
// tables. Invariant kept here: a process that has not called after_fork_child() cannot touch managed memory
// (rule 3).
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <new>
#include <optional>

#include "base/check.h"
#include "base/raw_syscall.h"
#include "pmap/host/host_features.h"
#include "pmap/host/host_machine.h"
#include "pmap/host/own_mapping.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

namespace enchilada {
namespace {

constexpr std::uint64_t kAlign = 2u << 20;  // so that runs of order 9 stay possible
constexpr std::uint64_t kMaxWindow = std::uint64_t{1} << 44;

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

long map_memory(std::uint64_t at, std::uint64_t size, int extra) {
  return raw_syscall(SYS_mmap, static_cast<long>(at), static_cast<long>(size), PROT_READ | PROT_WRITE,
                     own_mapping_flags() | extra, -1, 0);
}

void unmap(VirtRange range) {
  raw_syscall(SYS_munmap, static_cast<long>(range.start.value()), static_cast<long>(range.size().value()));
}

long advise(std::uint64_t at, std::uint64_t size, int advice) {
  return raw_syscall(SYS_madvise, static_cast<long>(at), static_cast<long>(size), advice);
}

/// Maps exactly there or not at all. Before 4.17 the kernel takes NOREPLACE for a mere hint.
std::optional<HostError> map_at(VirtRange range) {
  const auto start = static_cast<long>(range.start.value());
  const long at = map_memory(range.start.value(), range.size().value(), MAP_FIXED_NOREPLACE);
  if (at == -EEXIST) return HostError::kAddressTaken;
  if (at < 0 && at > -4096) return HostError::kNoMemory;
  if (at != start) {
    unmap(
        {VirtAddr{static_cast<std::uint64_t>(at)}, VirtAddr{static_cast<std::uint64_t>(at)} + range.size()});
    return HostError::kAddressTaken;
  }
  (void)advise(range.start.value(), range.size().value(),
               MADV_NOHUGEPAGE);  // EINVAL where THP is not built in
  return std::nullopt;
}

/// Keeps a mapping that the kernel would let grow from doing so (own_mapping_flags()). It stays for good:
/// what is there already guards as well.
void map_guard_below(VirtRange range) {
  if ((own_mapping_flags() & MAP_GROWSDOWN) == 0) return;
  raw_syscall(SYS_mmap, static_cast<long>(range.start.value() - kPageSize), static_cast<long>(kPageSize),
              PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

bool valid(const HostConfig& c) {
  const std::uint64_t window = c.window.end.value() - c.window.start.value();
  return c.budget != nullptr && !c.window.empty() && window <= kMaxWindow &&
         c.window.start.value() % kAlign == 0 && window % kAlign == 0 && c.pool.value() % kAlign == 0 &&
         c.frame_limit.value() > 0 && c.frame_limit.value() < WindowIndex::kLocked - 1;
}

std::int32_t current_pid() {
  return static_cast<std::int32_t>(raw_syscall(SYS_getpid));
}

}  // namespace

/// Everything but window and pool, in one mapping.
struct HostMachine::Tables {
  std::uint64_t size = 0;
  std::byte* self = nullptr;
  std::atomic<std::uint32_t>* slots = nullptr;
  std::atomic<std::uint64_t>* blocks = nullptr;
  std::atomic<std::uint64_t>* used_words = nullptr;
  std::atomic<std::uint64_t>* frames = nullptr;
  std::atomic<std::uint64_t>* granted = nullptr;
  std::atomic<std::uint64_t>* twins = nullptr;
  std::byte* zeros = nullptr;
  std::byte* bounce = nullptr;

  /// Lays the parts out and maps them; false when there is no address space.
  bool map(const HostConfig& config) {
    const std::uint64_t pages = config.window.size().value() >> kPageShift;
    const std::uint64_t limit = config.frame_limit.value();
    const std::uint64_t block_words = WindowIndex::words_for(WindowIndex::blocks_of(pages));
    constexpr unsigned kParts = 9;
    const std::uint64_t sizes[kParts] = {sizeof(HostMachine),
                                         pages * sizeof(std::uint32_t),
                                         block_words * sizeof(std::uint64_t),
                                         WindowIndex::words_for(block_words) * sizeof(std::uint64_t),
                                         limit * sizeof(std::uint64_t),
                                         WindowIndex::words_for(limit) * sizeof(std::uint64_t),
                                         WindowIndex::words_for(limit) * sizeof(std::uint64_t),
                                         kMaxRun << kPageShift,
                                         kBounces * kBounceRun << kPageShift};
    for (const std::uint64_t part : sizes) size += round_up(part, kPageSize);
    const long at = map_memory(0, size, 0);
    if (at < 0 && at > -4096) return false;
    (void)advise(static_cast<std::uint64_t>(at), size,
                 MADV_NOHUGEPAGE);  // sparse tables, and the real zero page
    (void)advise(static_cast<std::uint64_t>(at), size, MADV_DONTDUMP);
    auto* next = reinterpret_cast<std::byte*>(at);
    std::byte* parts[kParts];
    for (unsigned i = 0; i < kParts; ++i) {
      parts[i] = next;
      next += round_up(sizes[i], kPageSize);
    }
    self = parts[0];
    slots = reinterpret_cast<std::atomic<std::uint32_t>*>(parts[1]);
    blocks = reinterpret_cast<std::atomic<std::uint64_t>*>(parts[2]);
    used_words = reinterpret_cast<std::atomic<std::uint64_t>*>(parts[3]);
    frames = reinterpret_cast<std::atomic<std::uint64_t>*>(parts[4]);
    granted = reinterpret_cast<std::atomic<std::uint64_t>*>(parts[5]);
    twins = reinterpret_cast<std::atomic<std::uint64_t>*>(parts[6]);
    zeros = parts[7];
    bounce = parts[8];
    return true;
  }
  void unmap_all() const {
    const VirtAddr start{reinterpret_cast<std::uint64_t>(self)};
    unmap({start, start + ByteCount{size}});
  }
};

HostMachine::HostMachine(const HostConfig& config, const Tables& tables, bool use_move)
    : window_(config.window),
      pool_{config.pool, config.pool + ByteCount{round_up(config.frame_limit.value() << kPageShift, kAlign)}},
      index_(tables.slots, tables.blocks, tables.used_words, config.window.size().value() >> kPageShift),
      frames_(tables.frames, config.frame_limit),
      mover_({window_, pool_, tables.zeros, use_move, kCopySlack, tables.twins, config.window_syscall}),
      zeros_(tables.zeros),
      budget_(config.budget),
      pins_(config.pins),
      bounce_(tables.bounce),
      granted_(tables.granted),
      lowest_descriptor_(config.lowest_descriptor),
      own_bytes_(tables.size) {
  owner_pid_.store(current_pid(), std::memory_order_relaxed);
}

Result<HostMachine*, HostError> HostMachine::create(const HostConfig& config) noexcept {
  if (!valid(config)) return Unexpected{HostError::kBadConfig};
  bool use_move = config.transport == HostTransport::kMove;
  if (config.transport == HostTransport::kAuto) {
    const HostFeatures features = probe_host_features();
    if (!features.usable()) return Unexpected{HostError::kNoUserfaultfd};
    use_move = features.move;
  }

  Tables tables;
  if (!tables.map(config)) return Unexpected{HostError::kNoMemory};
  const PageCount slack = config.budget->take(PageCount{kCopySlack});
  Result<HostMachine*, HostError> result =
      slack.value() < kCopySlack ? Result<HostMachine*, HostError>{Unexpected{HostError::kNoMemory}}
                                 : start(config, tables, use_move);
  if (!result.ok()) {
    config.budget->give_back(slack);
    tables.unmap_all();
  }
  return result;
}

Result<HostMachine*, HostError> HostMachine::start(const HostConfig& config, const Tables& tables,
                                                   bool use_move) {
  auto* machine = new (tables.self) HostMachine(config, tables, use_move);
  if (const auto error = map_at(machine->window_)) return Unexpected{*error};
  if (const auto error = map_at(machine->pool_)) {
    unmap(machine->window_);
    return Unexpected{*error};
  }
  if (machine->mover_.open(config.lowest_descriptor) != 0) {
    unmap(machine->window_);
    unmap(machine->pool_);
    // Who asks for MOVE should know that it is there (processes start more often than they fail): why not is
    // asked only now.
    const bool no_move = config.transport == HostTransport::kMove && probe_host_features().usable();
    return Unexpected{no_move ? HostError::kNoMove : HostError::kNoUserfaultfd};
  }
  machine->mover_.forbid_fork();
  map_guard_below(machine->window_);
  // A core dump would walk the window page by page, for hours. The pool is dumped: what is home can be
  // found there.
  (void)advise(config.window.start.value(), config.window.size().value(), MADV_DONTDUMP);
  return machine;
}

void HostMachine::destroy(HostMachine* machine) noexcept {
  if (machine == nullptr) return;
  machine->mover_.close();
  unmap(machine->window_);
  unmap(machine->pool_);
  const std::uint64_t credits = kCopySlack + machine->granted_count_.load(std::memory_order_relaxed);
  machine->budget_->give_back(PageCount{credits});
  const VirtAddr self{reinterpret_cast<std::uint64_t>(machine)};
  const ByteCount size{machine->own_bytes_};
  machine->~HostMachine();
  unmap({self, self + size});
}

// --- fork ------------------------------------------------------------------------------------------------

void HostMachine::prepare_fork(bool guard) noexcept {
  fork_pending_.store(true, std::memory_order_seq_cst);
  forks_.fetch_add(1, std::memory_order_seq_cst);
  guarded_ = guard;
  if (guarded_) mover_.forbid_access();
  mover_.allow_fork();
}

void HostMachine::after_fork_parent() noexcept {
  mover_.forbid_fork();
  if (guarded_) mover_.allow_access();
  fork_pending_.store(false, std::memory_order_seq_cst);
}

bool HostMachine::in_fresh_child() const noexcept {
  return owner_pid_.load(std::memory_order_relaxed) != current_pid();
}

bool HostMachine::after_fork_child(unsigned survivor, VirtRange (*next_kernels)(VirtAddr)) noexcept {
  if (!in_fresh_child()) return true;
  mover_.close();
  if (mover_.open(lowest_descriptor_, next_kernels) != 0) return false;
  if (pins_ != nullptr) pins_->reset_after_fork(survivor);
  bounces_taken_.store(0, std::memory_order_relaxed);
  protect_again_after_fork();
  mover_.forbid_fork();
  if (guarded_) mover_.allow_access();
  owner_pid_.store(current_pid(), std::memory_order_relaxed);
  fork_pending_.store(false, std::memory_order_seq_cst);
  return true;
}

// The kernel drops userfaultfd write protection in the child (its VMA is not registered while page tables
// are copied), so every read-only mapping has to be protected again before anybody can write there.
void HostMachine::protect_again_after_fork() {
  constexpr std::uint64_t kBlock = WindowIndex::kBlockPages;
  const std::uint64_t blocks = index_.pages() / kBlock;
  const auto read_only = [this](std::uint64_t page) {
    const std::uint32_t slot = index_.peek(page);
    return slot != WindowIndex::kEmpty &&
           frames_.load(WindowIndex::frame_of(slot)).place == FramePlace::kReadOnly;
  };
  for (std::uint64_t b = index_.next_block(0, blocks); b < blocks; b = index_.next_block(b + 1, blocks)) {
    for (std::uint64_t page = b * kBlock; page < (b + 1) * kBlock;) {
      std::uint64_t n = 0;
      while (page + n < (b + 1) * kBlock && read_only(page + n)) ++n;
      if (n > 0) mover_.set_writable(address(page), n, false);
      page += n + 1;
    }
  }
}

// --- the check -------------------------------------------------------------------------------------------

bool HostMachine::check_consistency() const noexcept {
  for (std::uint32_t f = 0; f < frames_.limit().value(); ++f) {
    const FrameNumber frame{f};
    const FrameState state = frames_.load(frame);
    const bool at_home = mover_.present(home(frame));
    if (state.mapped()) {
      if (index_.peek(state.page) != WindowIndex::slot_of(frame)) return false;
      if ((at_home && !mover_.has_twin(home(frame))) || !mover_.present(address(state.page))) return false;
    } else if (at_home != (state.place == FramePlace::kHome)) {
      return false;
    }
    const bool granted = (granted_[f / 64].load(std::memory_order_relaxed) >> (f % 64) & 1) != 0;
    if (!granted && state.place != FramePlace::kUnpopulated) return false;
  }
  constexpr std::uint64_t kBlock = WindowIndex::kBlockPages;
  const std::uint64_t blocks = index_.pages() / kBlock;
  for (std::uint64_t b = index_.next_block(0, blocks); b < blocks; b = index_.next_block(b + 1, blocks)) {
    for (std::uint64_t page = b * kBlock; page < (b + 1) * kBlock; ++page) {
      const std::uint32_t slot = index_.peek(page);
      if ((slot & WindowIndex::kLocked) != 0) return false;
      if (slot == WindowIndex::kEmpty) continue;
      const FrameState state = frames_.load(WindowIndex::frame_of(slot));
      if (!state.mapped() || state.page != page) return false;
    }
  }
  return true;
}

}  // namespace enchilada
