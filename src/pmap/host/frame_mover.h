// FrameMover: gets the bytes of a run of pages into the window and back, by MOVE or by COPY. It knows
// addresses and the kernel, and nothing of frames' states.
//
// Invariants: the caller holds the slots of the window pages and (entering) the busy of the frames, so
// nobody else fills or empties these pages; the program's own reads and writes are the only races. Bytes
// are never in a place that the caller is not told about: after any error of MOVE the pagemap decides (rule
// 2). Never "MOVE, then protect" and never "protect an absent page" (DESIGN.md §6, rule 13).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "base/raw_syscall.h"
#include "base/units.h"
#include "pmap/host/home_twins.h"

namespace enchilada {

/// What the kernel was asked, since creation.
struct MoverStats {
  std::uint64_t moves = 0;
  std::uint64_t copies = 0;
  std::uint64_t protects = 0;
  std::uint64_t drops = 0;
  std::uint64_t reconciled = 0;  // MOVE errors that the pagemap had to decide
  std::uint64_t unshared = 0;    // pages made exclusive after a fork
  std::uint64_t fallbacks = 0;   // pages copied because MOVE would not
};

class FrameMover {
 public:
  static constexpr std::uint64_t kMaxRun = 128;  // pages of one call
  static constexpr std::uint64_t kCopyRun = 16;  // pages that exist twice in one call
  static constexpr std::size_t kMaxDrops = 64;   // pages of one drop_pages()
  /// With several threads, runs so long are moved in and shorter ones copied: a move must tell the other
  /// CPUs, a copy tells nobody. Per page the former is cheaper from about here on (bench/RESULTS.md).
  static constexpr std::uint64_t kMoveRun = 8;

  struct Setup {
    VirtRange window;
    VirtRange pool;
    const std::byte* zeros;  // kMaxRun pages, readable, never written
    bool use_move;
    std::uint64_t copy_slack;  // pages that may exist twice, all threads together; more than HomeTwins::kMost
    std::atomic<std::uint64_t>* twin_bits;  // zeroed, a bit a page of the pool
    SyscallFunction window_syscall = raw_syscall;
  };
  explicit FrameMover(const Setup& setup);
  FrameMover(const FrameMover&) = delete;
  FrameMover& operator=(const FrameMover&) = delete;

  /// Opens descriptors (>= lowest) and registers both mappings: 0 or -errno. Also in a forked child, after
  /// close().
  [[nodiscard]] long open(int lowest, VirtRange (*next_kernels)(VirtAddr) = nullptr) noexcept;
  /// Lets go of the descriptors without using them (in a forked child they still act on the parent, rule
  /// 3).
  void close() noexcept;

  /// Home -> window. Returns how many of the leading pages are there now (the rest are still home).
  [[nodiscard]] std::uint64_t enter(VirtAddr va, VirtAddr home, std::uint64_t pages, bool writable) noexcept;
  /// Fresh zero pages into the window; the home slots stay empty. Returns how many.
  [[nodiscard]] std::uint64_t enter_zero(VirtAddr va, std::uint64_t pages, bool writable) noexcept;
  /// Window -> home, whatever it takes: after it all pages are home. With `patient` false it gives up on
  /// pages that the kernel holds for I/O and returns how many leading pages are home.
  std::uint64_t leave(VirtAddr va, VirtAddr home, std::uint64_t pages, bool writable,
                      bool patient = true) noexcept;
  /// Changes write protection of pages that are all present.
  void set_writable(VirtAddr va, std::uint64_t pages, bool writable) noexcept;
  /// The home slots of frames in the window have no memory after this, even if it was still to be given
  /// back.
  void settle_home(VirtAddr home, std::uint64_t pages) noexcept {
    if (twins_.any(home, pages)) give_twins_back();
  }
  /// The slot's frame is in the window, and the memory that it left behind not given back yet.
  [[nodiscard]] bool has_twin(VirtAddr home) const noexcept { return twins_.any(home, 1); }
  /// Drops the memory of at most kMaxDrops pages, wherever they are. One call, and one flush of the CPUs'
  /// TLBs, for all of them where the kernel can; that flush is most of the cost of a page.
  void drop_pages(std::span<const VirtAddr> pages) noexcept;
  /// Drops the memory of home slots.
  void drop_home(VirtAddr home, std::uint64_t pages) noexcept;
  /// Gives empty home slots memory.
  void populate_home(VirtAddr home, std::uint64_t pages) noexcept;

  // Fork (rule 3): VMA flags and protection of both mappings.
  void allow_fork() noexcept;
  void forbid_fork() noexcept;
  void forbid_access() noexcept;
  void allow_access() noexcept;
  /// Maps and registers part of the window anew (see HostMachine::restore_window).
  [[nodiscard]] bool restore(VirtRange range) noexcept;

  /// True when the kernel has a page (present or swapped out) at the address.
  [[nodiscard]] bool present(VirtAddr at) const noexcept;

  [[nodiscard]] bool uses_move() const { return use_move_; }
  [[nodiscard]] std::size_t twins() const noexcept { return twins_.size(); }
  /// What the program must not close; -1 = none.
  [[nodiscard]] std::array<int, 3> descriptors() const { return {fd_, pagemap_, tasks_}; }
  [[nodiscard]] MoverStats stats() const;
  void set_window_syscall(SyscallFunction call) { window_syscall_ = call; }

 private:
  struct Counters {
    std::atomic<std::uint64_t> moves{0}, copies{0}, protects{0}, drops{0}, reconciled{0}, unshared{0},
        fallbacks{0};
  };
  [[nodiscard]] bool many_threads() noexcept;
  class Slack;  // room for pages that exist twice
  std::uint64_t give_twins_back() noexcept;

  /// MOVE of as many leading pages as will; `error` says what stopped it (0: all moved). With `may_touch`
  /// the source may be written to (nothing changes) to make it exclusive after a fork.
  [[nodiscard]] std::uint64_t move(std::uint64_t dst, std::uint64_t src, std::uint64_t pages, bool may_touch,
                                   long& error) noexcept;
  [[nodiscard]] std::uint64_t moved_prefix(std::uint64_t dst, std::uint64_t src,
                                           std::uint64_t pages) const noexcept;
  [[nodiscard]] std::uint64_t copy_in(std::uint64_t va, std::uint64_t from, std::uint64_t pages,
                                      bool writable) noexcept;
  [[nodiscard]] std::uint64_t enter_by_copy(std::uint64_t va, std::uint64_t home, std::uint64_t pages,
                                            bool writable) noexcept;
  void leave_by_copy(std::uint64_t va, std::uint64_t home, std::uint64_t pages, bool writable) noexcept;
  void drop(std::uint64_t at, std::uint64_t pages) noexcept;
  void advise(VirtRange range, int advice) noexcept;
  [[nodiscard]] long register_range(VirtRange range, std::uint64_t mode) noexcept;
  [[nodiscard]] long register_window(VirtRange (*next_kernels)(VirtAddr)) noexcept;
  [[nodiscard]] long call_on(std::uint64_t address, long nr, std::uint64_t b, std::uint64_t c) const noexcept;
  void read_presence(std::uint64_t at, std::uint64_t pages, bool* there) const noexcept;

  VirtRange window_;
  VirtRange pool_;
  const std::byte* zeros_;
  bool use_move_;
  SyscallFunction window_syscall_;
  int fd_ = -1;
  int pagemap_ = -1;
  int tasks_ = -1;  // /proc/self/task: its link count tells the number of threads
  std::atomic<std::uint32_t> asked_{0};
  std::atomic<bool> many_threads_{true};
  bool drops_together_ = false;  // process_madvise(2) does MADV_DONTNEED to the calling process (Linux 6.13)
  std::atomic<std::uint64_t> slack_free_;
  HomeTwins twins_;
  Counters counters_;
};

}  // namespace enchilada
