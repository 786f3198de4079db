// HostMachine: this Linux process as a machine for the engine: frames that move, mappings that are places.
//
// One private anonymous mapping is the *window* (the addresses that the program uses), another one the
// *pool* (each frame's home slot, pool + frame * 4096, for ever). Entering a mapping moves the frame's page
// from home into the window (UFFDIO_MOVE), removing it moves it back; without UFFDIO_MOVE the bytes are
// copied under write protection. So a frame is mapped at one address at a time, and one object is both
// PhysicalMemory and PmapSystem.
//
// Invariants:
//  - A frame's bytes are in exactly one place: nowhere (unpopulated, reads as zero), home, or in the
//    window.
//  - Populated frames <= granted frames <= credits taken from the RamBudget: the hard bound on memory.
//    Copies make a page exist twice for a moment; the credits for that are set aside at creation
//    (kCopySlack).
//  - Eviction is atomic against writers (MOVE, or write protection before the copy; live-runtime.md, rule
//    1).
//  - A page that a system call uses (PinSet) is never withdrawn by remove_all() or discard_all(); remove(),
//    protect() and remove_write() are orders and do not ask.
//  - After creation: no malloc, no libc, no errno, no thread-local storage; usable in signal handlers (all
//    signals blocked) and in threads that libc does not know.
// Locking: a frame's state is the busy holder's, but remove() and protect() may send it home meanwhile;
// every change from or to "mapped" happens under the lock bit of the window page's slot (window_index.h).
// Slot locks are held for one kernel call and nothing is waited for while holding one, but further slots of
// the same run, upwards.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "base/mutex.h"
#include "base/result.h"
#include "pmap/host/frame_mover.h"
#include "pmap/host/frame_table.h"
#include "pmap/host/pin_set.h"
#include "pmap/host/ram_budget.h"
#include "pmap/host/window_index.h"
#include "vm/phys.h"
#include "vm/pmap.h"

namespace enchilada {

/// How bytes get into the window and back.
enum class HostTransport : std::uint8_t {
  kAuto,  // MOVE where the kernel has it
  kMove,  // creation fails where the kernel has no MOVE
  kCopy,  // COPY + WRITEPROTECT + DONTNEED: any kernel since 5.7
};

struct HostConfig {
  /// Addresses of the window: 2 MiB aligned, unused so far. At most 16 TiB.
  VirtRange window{VirtAddr{0x2000'0000'0000}, VirtAddr{0x3000'0000'0000}};
  /// Where home slots start (2 MiB aligned); frame_limit pages from here must be unused.
  VirtAddr pool{0x1f00'0000'0000};
  PageCount frame_limit;
  HostTransport transport = HostTransport::kAuto;
  RamBudget* budget = nullptr;  // required; outlives the machine
  PinSet* pins = nullptr;       // may be null: nothing is ever pinned; outlives the machine
  /// Makes the system calls whose argument registers are window addresses.
  SyscallFunction window_syscall = raw_syscall;
  /// The machine's descriptors are moved to numbers >= this, out of the program's sight.
  int lowest_descriptor = 3;
};

/// Why a machine could not be made.
enum class HostError : std::uint8_t {
  kNoUserfaultfd,  // see probe_host_features()
  kNoMove,         // transport kMove asked for, not offered
  kAddressTaken,   // window or pool overlap something
  kNoMemory,       // no address space for the tables, or the budget has not even the copy slack
  kBadConfig,
};

/// Counters since creation; relaxed, for statistics and tests.
struct HostStats {
  std::uint64_t pages_entered = 0;  // into the window, however
  std::uint64_t pages_left = 0;     // home again
  std::uint64_t pages_dropped = 0;  // discarded where they were
  std::uint64_t refused = 0;        // by pins
  std::uint64_t stolen = 0;         // a frame wanted at a second address
  MoverStats mover;
  std::uint64_t granted = 0;    // frames granted now
  std::uint64_t twins = 0;      // home slots whose memory is still to be given back, within the copy slack
  std::uint64_t populated = 0;  // frames with memory behind them now
};

class HostMachine;

/// The window's pmap. All pmaps of a HostMachine are views of the one window (a map uses its own part of
/// it): an address means the same in all of them. Destroying one removes what lies between the lowest and
/// the highest address that it ever entered, which the law of the pmap allows whoever else has mappings
/// there.
class HostPmap final : public Pmap {
 public:
  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot, Access access,
                  Wiring wiring) override;
  void remove(VirtRange range) override;
  void protect(VirtRange range, Prot prot) override;
  ~HostPmap() override;
  /// Lives inside the machine: deleting only hands the place back.
  static void operator delete(void*) {}

 private:
  friend class HostMachine;
  HostPmap(HostMachine& machine, unsigned place) : machine_(machine), place_(place) {}
  static void* operator new(std::size_t, void* where) { return where; }
  static void operator delete(void*, void*) {}
  void widen(VirtRange range);
  HostMachine& machine_;
  unsigned place_;
  std::atomic<std::uint64_t> lowest_{~std::uint64_t{0}};
  std::atomic<std::uint64_t> highest_{0};
};

class HostMachine final : public PhysicalMemory, public PmapSystem {
 public:
  /// Pages that may exist twice at a moment while they are copied; their credits are taken at creation.
  static constexpr std::uint64_t kCopySlack = 64;
  /// Longest run for with_frames(kRead) with mapped frames in it.
  static constexpr std::uint64_t kBounceRun = 512;

  /// In memory of its own; no malloc.
  [[nodiscard]] static Result<HostMachine*, HostError> create(const HostConfig& config) noexcept;
  /// Unmaps window, pool and tables, closes the descriptors, gives all credits back.
  static void destroy(HostMachine* machine) noexcept;

  // PhysicalMemory.
  [[nodiscard]] PageCount frame_limit() const override { return frames_.limit(); }
  PageCount grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) override;
  void retire(FrameRun run) override;
  [[nodiscard]] PageCount surplus_wanted() const override { return budget_->wanted_back(); }
  void zero(FrameRun run) override;
  void copy(FrameNumber from, FrameNumber to) override;
  /// kRead of frames that are in the window hands out a copy of them (a bounce buffer), so that the
  /// program's own munmap() cannot pull the bytes away; runs that are home are handed out in place. At most
  /// kBounceRun frames when some of them are mapped.
  void with_frames(FrameRun run, Access access, FunctionRef<void(std::byte*)> use) override;

  // PmapSystem.
  /// Any number up to kPmaps; all are views of the one window.
  [[nodiscard]] std::unique_ptr<Pmap> create_pmap() override;
  void set_sink(PageStateSink& sink) override { sink_ = &sink; }
  [[nodiscard]] bool has_reference_bits() const override { return false; }
  void remove_all(std::span<const FrameNumber> frames, std::span<bool> refused) override;
  /// Drops what is mapped in place, 64 pages with one flush, whatever the transport; the frames are then
  /// unpopulated.
  void discard_all(std::span<const FrameNumber> frames, std::span<bool> refused) override;
  void remove_write(FrameNumber frame) override;
  unsigned ts_referenced(FrameNumber) override { return 0; }
  /// A frame that is mapped writable counts as modified: there is no dirty bit (contents are compared
  /// above).
  [[nodiscard]] bool is_modified(FrameNumber frame) override;
  void clear_modify(FrameNumber) override {}

  // The window, for HostPmap (same contracts as Pmap; but entering a frame again where it is, read-only,
  // leaves a writable mapping that a system call has pinned as it is).
  PageCount enter(VirtAddr va, std::span<const FrameNumber> frames, Prot prot);
  void remove(VirtRange range);
  void protect(VirtRange range, Prot prot);

  // For the runtime.
  [[nodiscard]] VirtRange window() const { return window_; }
  [[nodiscard]] VirtRange pool() const { return pool_; }
  [[nodiscard]] HostTransport transport() const {
    return mover_.uses_move() ? HostTransport::kMove : HostTransport::kCopy;
  }
  /// Every page of the range is mapped now with the right that `access` needs. Stays true while the range
  /// is pinned (pin first, then ask; for what is not resident take the fault path), unless the program
  /// itself unmaps it.
  [[nodiscard]] bool resident(VirtRange range, Access access) const;
  /// The frame mapped at the address just now, or kNoFrame. A hint unless the caller holds the frame or the
  /// map.
  [[nodiscard]] FrameNumber frame_at(VirtAddr at) const {
    if (!window_.contains(at)) return kNoFrame;
    const std::uint32_t slot = index_.settled(page_of(at));
    return slot == WindowIndex::kEmpty ? kNoFrame : WindowIndex::frame_of(slot);
  }
  [[nodiscard]] HostStats stats() const;
  /// Descriptors that the program must not close; -1 = none.
  [[nodiscard]] std::array<int, 3> descriptors() const { return mover_.descriptors(); }
  void set_budget(RamBudget& budget) { budget_ = &budget; }
  void set_window_syscall(SyscallFunction call) { mover_.set_window_syscall(call); }
  /// Part of the window was covered by another mapping (a file, MAP_FIXED): makes it the window's own
  /// again, empty.
  [[nodiscard]] bool restore_window(VirtRange range) noexcept { return mover_.restore(range); }

  // Kernel fork (rule 3). The engine is quiescent and all its locks are the caller's.
  /// Lets the next fork copy window and pool. With `guard` it makes the window PROT_NONE, so that accesses
  /// in the child (and by other threads here) get SIGSEGV instead of silent zeros; SIGSEGV handlers of
  /// other threads wait (fork_pending()). The guard costs about 0.2 us a resident page each way; a caller
  /// whose child calls after_fork_child() before anything can touch the window, libc included, does
  /// without.
  void prepare_fork(bool guard = true) noexcept;
  void after_fork_parent() noexcept;
  /// In the child, before any other use of the machine: own userfaultfd, registrations, write protection
  /// (fork loses it), access. False when the kernel refuses; the child must then die. Idempotent.
  /// `survivor`: the calling thread's record in the PinSet.
  /// next_kernels: the first range that ends above an address and has mappings of the kernel's own (files,
  /// code) in the window; they are none of ours in the child either. Null: there are none.
  [[nodiscard]] bool after_fork_child(unsigned survivor = PinSet::kNoThread,
                                      VirtRange (*next_kernels)(VirtAddr) = nullptr) noexcept;
  /// Between prepare_fork() and after_fork_*().
  [[nodiscard]] bool fork_pending() const { return fork_pending_.load(std::memory_order_acquire); }
  /// Forks so far: a fault that an unfinished fork has caused may be looked at only when that is over.
  [[nodiscard]] std::uint32_t forks() const { return forks_.load(std::memory_order_acquire); }
  /// The calling process is a child that has not called after_fork_child() yet.
  [[nodiscard]] bool in_fresh_child() const noexcept;

  /// Compares frame states, slots and what the kernel says (pagemap); for tests, when quiet. True =
  /// consistent.
  [[nodiscard]] bool check_consistency() const noexcept;

 private:
  friend class HostPmap;
  static constexpr unsigned kPmaps = 64;
  static constexpr unsigned kBounces = 16;
  static constexpr std::uint64_t kMaxRun = FrameMover::kMaxRun;

  struct Tables;     // the memory that creation set aside
  class BounceHold;  // a bounce buffer taken for one call
  class RunLock;     // slots locked for one call

  HostMachine(const HostConfig& config, const Tables& tables, bool use_move);
  ~HostMachine() = default;
  static Result<HostMachine*, HostError> start(const HostConfig& config, const Tables& tables, bool use_move);

  [[nodiscard]] VirtAddr address(std::uint64_t page) const {
    return window_.start + to_bytes(PageCount{page});
  }
  [[nodiscard]] std::uint64_t page_of(VirtAddr va) const {
    return (va - window_.start).value() >> kPageShift;
  }
  [[nodiscard]] VirtRange pages_range(std::uint64_t page, std::uint64_t n) const {
    return {address(page), address(page + n)};
  }
  [[nodiscard]] VirtAddr home(FrameNumber f) const { return pool_.start + to_bytes(PageCount{f.value()}); }

  PageCount enter_chunk(std::uint64_t page, std::span<const FrameNumber> frames, bool writable);
  std::uint64_t enter_locked(std::uint64_t page, std::span<const FrameNumber> frames, bool writable);
  std::uint64_t reprotect_here(std::uint64_t page, std::span<const FrameNumber> frames, bool writable);
  std::uint64_t enter_absent(std::uint64_t page, std::span<const FrameNumber> frames, bool writable,
                             bool& all);
  bool bring_home(FrameNumber frame, bool ask_pins);
  void home_locked(std::uint64_t page, FrameNumber first, std::uint64_t n, bool* refused = nullptr);
  std::size_t withdraw_run(std::span<const FrameNumber> frames, std::span<bool> refused);
  void withdraw_locked(std::uint64_t page, FrameNumber first, std::uint64_t n, bool* refused);
  struct Scattered;  // frames of one discard_all(), with their slots locked
  std::size_t discard_some(std::span<const FrameNumber> frames, std::span<bool> refused);
  void refuse_pinned(Scattered& these, std::span<bool> refused);
  void drop_locked(const Scattered& these);
  void write_protect_locked(std::uint64_t page, std::uint64_t n);
  template <class Visit>
  void for_each_mapped_run(VirtRange range, bool empties, Visit visit);
  void populate(FrameRun run);
  void gather(FrameRun run, std::byte* to);
  void protect_again_after_fork();

  VirtRange window_;
  VirtRange pool_;
  WindowIndex index_;
  FrameTable frames_;
  FrameMover mover_;
  const std::byte* zeros_;
  RamBudget* budget_;
  PinSet* pins_;
  PageStateSink* sink_ = nullptr;
  std::byte* bounce_;
  std::atomic<std::uint32_t> bounces_taken_{0};

  Mutex grant_lock_{LockRank::kLeaf};
  std::atomic<std::uint64_t>* granted_;  // a bit a frame; changed under grant_lock_
  std::uint64_t grant_hint_ GUARDED_BY(grant_lock_) = 0;

  std::atomic<bool> fork_pending_{false};
  std::atomic<std::uint32_t> forks_{0};
  bool guarded_ = false;  // the window is PROT_NONE for a fork
  std::atomic<std::int32_t> owner_pid_{0};
  int lowest_descriptor_;

  std::atomic<std::uint64_t> granted_count_{0};
  std::atomic<std::uint64_t> pages_entered_{0};
  std::atomic<std::uint64_t> pages_left_{0};
  std::atomic<std::uint64_t> pages_dropped_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<std::uint64_t> stolen_{0};

  std::uint64_t own_bytes_;  // of the tables' mapping, this object included
  std::atomic<std::uint64_t> pmaps_taken_{0};
  alignas(HostPmap) std::byte pmap_places_[kPmaps][sizeof(HostPmap)];
};

}  // namespace enchilada
