// ProcessTree: the memory that all processes of one `enchilada run` share, and the rules for sharing it.
//
// One RAM budget, one swap, one set of statistics for the tree. The segment is a memfd without a name, mapped
// at kTreeAddress in every process; it is gone when the last process is. Invariants:
//  - the charges of all slots plus the available frames are the budget, at every moment and after any kill
//  -9;
//  - no process waits for a dead one: a slot is a word that names its owner, and whoever needs something
//  takes over
//    what dead owners left (recover_dead);
//  - everything but create() is async-signal-safe: raw system calls, no malloc, no errno, no libc.
// Each process has one ProcessTree object in its own memory. Its local lock makes the threads of the process
// take turns; hold no other lock of rank kLeaf when calling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "base/units.h"
#include "runtime/tree/process_probe.h"
#include "runtime/tree/tree_layout.h"

namespace enchilada {

using ProcessSlot = Unit<struct ProcessSlotTag, std::uint32_t>;
inline constexpr ProcessSlot kNoSlot{~std::uint32_t{0}};
/// Never a process's home: who finds the table full recovers the dead under this one's name (see
/// find_free_or_recover).
inline constexpr ProcessSlot kRescueSlot{kMaxProcesses - 1};
/// Not a slot: the launcher, where locks in shared memory name their holder (SwapSpace::kSupervisor).
inline constexpr ProcessSlot kLauncher{kMaxProcesses};

/// Name of the environment variable that leads exec'd children to the segment.
inline constexpr char kTreeVariable[] = "ENCHILADA_TREE";
/// Behind its value: the limit on the address space that the next image shall believe to have, in bytes.
inline constexpr char kLimitMark = '/';

enum class [[nodiscard]] TreeStatus : std::uint8_t{
    kOk,
    kMalformed,     // the environment variable makes no sense
    kUnreachable,   // neither the inherited descriptor nor the launcher's lead to the segment
    kMismatch,      // another build's segment
    kAddressTaken,  // something lies at kTreeAddress
    kNoSlot,        // kMaxProcesses - 1 processes are alive already
    kNoRam,         // the budget cannot give the minimum now
    kLost,          // the slot was taken away: its owner was thought dead
    kNoNumber,      // in a PID namespace whose /proc does not show the tree
    kFileSize,      // RLIMIT_FSIZE is less than the segment takes
    kSystem,        // a system call failed
};
/// One clear line for a message.
const char* describe(TreeStatus status) noexcept;

/// What a fork needs (ProcessTree::begin_fork).
struct ForkTicket {
  TreeStatus status = TreeStatus::kOk;
  ProcessSlot child = kNoSlot;
  PageCount short_by;  // kNoRam: evict and give back as many frames, then try again
};

class ProcessTree {
 public:
  /// Called while a dead (or exec'd) process's slot is cleaned up: drop the holder's swap blocks. Must be
  /// idempotent. A lock that it takes is to be signed with self() as it is at that moment (TreeSwap does it
  /// right).
  using DropHolder = void (*)(void* context, ProcessSlot slot);

  constexpr ProcessTree() = default;
  ProcessTree(const ProcessTree&) = delete;
  ProcessTree& operator=(const ProcessTree&) = delete;

  // ---- The launcher ----
  /// Makes the segment, with an inheritable descriptor: `descriptor` if that is not negative.
  TreeStatus create(const TreeConfig& config, int descriptor) noexcept;
  /// Notes that the segment's descriptor was moved to another number (before any child is made).
  void set_descriptor(int descriptor) noexcept { header_->segment_descriptor = descriptor; }
  /// Writes the value of kTreeVariable. Returns its length; 0 when the buffer is too small (128 suffice).
  std::size_t environment(std::span<char> buffer) const noexcept;

  // ---- Joining ----
  /// `value` is the value of kTreeVariable. Maps the segment: by inherited descriptor, else through /proc of
  /// the launcher or of the parent. Idempotent after fork (the mapping is inherited).
  TreeStatus attach(const char* value) noexcept;
  [[nodiscard]] bool attached() const noexcept { return header_ != nullptr; }
  /// Swap's hook; set it before the first claim_slot().
  void set_drop_holder(DropHolder drop, void* context) noexcept {
    drop_ = drop;
    drop_context_ = context;
  }
  /// A slot for this process, charged with its guaranteed minimum. After exec: what the former image of this
  /// pid held is returned first. Waits a bounded time for RAM. On success self() is the slot, in state
  /// kAttaching.
  TreeStatus claim_slot() noexcept;
  /// The process is ready: kLive.
  void set_live() noexcept;
  /// kNoSlot: this is the launcher, or nothing has been claimed yet. Already set while claim_slot() recovers
  /// others.
  [[nodiscard]] ProcessSlot self() const noexcept { return self_; }
  /// Gives the slot up with all that it holds (a process that will not be managed after all). Not needed at
  /// exit: the dead are recovered by whoever is short, and by the launcher.
  void release_slot() noexcept;

  // ---- RAM ----
  /// Up to `frames` more for this process, at once; may be none. Never exceeds the budget.
  [[nodiscard]] PageCount take(PageCount frames) noexcept;
  /// The same, and when there is none: recovers the dead, asks siblings, waits up to timeout_ns for at least
  /// one.
  [[nodiscard]] PageCount take_or_wait(PageCount frames, std::uint64_t timeout_ns) noexcept;
  void give_back(PageCount frames) noexcept;
  /// Frames that siblings ask this process for: reclaim and give_back() soon. 0 = none.
  [[nodiscard]] PageCount wanted_back() const noexcept;
  /// The process cannot give more now: forget the requests.
  void decline_request() noexcept;
  /// For a helper thread: sleeps until somebody asks for frames, or the time is over (0 = none).
  void wait_for_request(std::uint64_t timeout_ns) noexcept;
  /// Another process is in the tree: somebody must then listen for requests here (a helper thread), also
  /// while this process sleeps. Later ones come only through this process's own fork, vfork or spawn.
  [[nodiscard]] bool has_siblings() const noexcept;
  /// The request word itself (a shared futex), for a raw helper thread.
  [[nodiscard]] std::atomic<std::uint32_t>& request_word() const noexcept;
  /// Asks siblings, idle and large ones first, for `frames` together. Returns how many were asked for.
  PageCount request_frames(PageCount frames) noexcept;

  // ---- Fork ----
  /// In the parent, engine quiesced, one fork at a time: reserves a slot for the child and charges it
  /// `frames` (used(): all that it will map) up front. On kNoRam evict, give back (one frame makes up for
  /// two), and try again.
  ForkTicket begin_fork(PageCount frames) noexcept;
  /// Where the kernel may store the child's pid (clone's CLONE_PARENT_SETTID): closes the last window in
  /// which the parent's death makes the child look as if it had never existed.
  [[nodiscard]] std::uint32_t* child_pid_word(ProcessSlot child) const noexcept;
  /// In the parent, with fork's answer. (Either side may be first; both must call.)
  void child_made(ProcessSlot child, std::uint32_t pid) noexcept;
  /// In the child, first thing: this object is now the child's. kLost: the parent died and the slot with its
  /// blocks is gone; the child cannot go on. State kAttaching until set_live().
  TreeStatus child_started(ProcessSlot child) noexcept;
  /// In the parent: the kernel's fork failed.
  void abort_fork(ProcessSlot child) noexcept;

  // ---- Exec ----
  /// Before execve (not in a vfork child, which has no slot) and after it failed.
  void begin_exec() noexcept;
  void exec_failed() noexcept;

  // ---- Who is not in it ----
  /// A program that cannot join is being executed; of the first one the name is kept. Async-signal-safe.
  void note_unmanaged(UnmanagedWhy why, const char* path) noexcept;
  /// That exec failed.
  void forget_unmanaged() noexcept { header_->unmanaged.fetch_sub(1); }
  /// This process ends itself and has said why.
  void note_given_up() noexcept { header_->given_up.fetch_add(1); }

  // ---- The dead ----
  /// Cleans up after every process that is gone. Returns how many slots became free. Any process may call it.
  std::uint32_t recover_dead() noexcept;
  /// For locks in shared memory that name their holder by slot (RobustMutex): can this holder still let go?
  /// False for a slot under recovery: its former owner is dead. kLauncher asks for the launcher.
  [[nodiscard]] bool holder_alive(ProcessSlot slot) noexcept;

  // ---- What is in it ----
  [[nodiscard]] const TreeConfig& config() const noexcept { return header_->config; }
  [[nodiscard]] std::span<std::byte> swap_storage() const noexcept;
  /// Memory for the CompressedStore; empty when the tree has none.
  [[nodiscard]] std::span<std::byte> compressed_storage() const noexcept;
  /// Statistics of this process; they outlive it. Only after claim_slot() or child_started().
  [[nodiscard]] VmCounters& counters() const noexcept;
  [[nodiscard]] PageCount available() const noexcept;
  [[nodiscard]] PageCount charged(ProcessSlot slot) const noexcept;
  /// Frames that this process has taken and not given back: what a forked child must be charged.
  [[nodiscard]] PageCount used() const noexcept;
  [[nodiscard]] const TreeHeader& header() const noexcept { return *header_; }
  [[nodiscard]] const TreeSlot& slot(ProcessSlot index) const noexcept;
  /// Another descriptor for one of the launcher's (segment or swap file) that this process has lost; -1 if
  /// impossible.
  [[nodiscard]] int reopen(int launcher_descriptor, int flags) const noexcept;

 private:
  TreeSlot& at(ProcessSlot index) const noexcept;
  [[nodiscard]] std::uint32_t slots_used() const noexcept;
  bool map_segment(int descriptor, std::uint64_t nonce, std::uint64_t bytes, TreeStatus* why) noexcept;
  bool try_claim(ProcessSlot index, SlotState state) noexcept;
  ProcessSlot find_free(SlotState state) noexcept;
  ProcessSlot find_free_or_recover(SlotState state) noexcept;
  void identify(ProcessSlot index) noexcept;
  void identify(ProcessSlot index, const ProcessProbe& me) noexcept;
  void adopt_identity(ProcessSlot index) noexcept;
  bool recover_former_image(const ProcessProbe& me) noexcept;
  bool charge_at_least(ProcessSlot index, std::uint64_t least, std::uint64_t timeout_ns) noexcept;
  // The caller owns the slot: it is the process itself under lock_, or it has reserved or is recovering it.
  std::uint64_t raise_charge(ProcessSlot index, std::uint64_t frames) noexcept;
  void lower_charge(ProcessSlot index, std::uint64_t frames) noexcept;
  void resolve_journal(ProcessSlot index) noexcept;
  void settle(std::uint64_t budget_word) noexcept;
  void empty_slot(ProcessSlot index, std::uint64_t owner_word) noexcept;
  void drop_holdings(ProcessSlot index) noexcept;
  bool recover_slot(ProcessSlot index) noexcept;
  [[nodiscard]] bool owner_is_gone(ProcessSlot index, std::uint64_t owner_word) noexcept;
  [[nodiscard]] bool fork_is_lost(TreeSlot& slot) noexcept;
  void recover_dead_now_and_then() noexcept;
  [[nodiscard]] std::uint64_t could_give(ProcessSlot victim, std::uint64_t my_charge, std::uint64_t frames,
                                         std::uint64_t now) noexcept;
  void fold_counters(TreeSlot& slot) noexcept;
  void announce_return() noexcept;

  TreeHeader* header_ = nullptr;
  ProcessSlot self_ = kNoSlot;
  PidView view_;
  std::uint64_t fork_word_ = 0;  // owner word of the slot reserved by begin_fork(); the child inherits it
  DropHolder drop_ = nullptr;
  void* drop_context_ = nullptr;
  Mutex lock_{LockRank::kLeaf};  // the threads of this process take turns at its journal
};

}  // namespace enchilada
