// FrameMover: the kernel calls of both transports and what to do when they refuse. Keeps the invariants of
// frame_mover.h; the numbers of rules are those of live-runtime.md.
#include "pmap/host/frame_mover.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <algorithm>

#include "base/check.h"
#include "base/raw_syscall.h"
#include "pmap/host/own_mapping.h"
#include "pmap/host/page_ops.h"
#include "pmap/host/uffd_abi.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace enchilada {
namespace {

constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;  // pagemap: in memory
constexpr std::uint64_t kSwapped = std::uint64_t{1} << 62;  // pagemap: in the kernel's swap
constexpr unsigned kBusyTries = 64;  // yields before a page held for I/O counts as pinned

constexpr std::uint64_t bytes(std::uint64_t pages) {
  return pages << kPageShift;
}

long as_arg(const void* p) {
  return reinterpret_cast<long>(p);
}

void yield() {
  raw_syscall(SYS_sched_yield);
}

/// The folder whose link count tells how many threads this process has; -1 where /proc is none.
long open_tasks() {
  const long fd =
      raw_syscall(SYS_openat, AT_FDCWD, as_arg("/proc/self/task"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  struct statfs about;
  if (raw_syscall(SYS_fstatfs, fd, as_arg(&about)) == 0 && about.f_type == PROC_SUPER_MAGIC) return fd;
  raw_syscall(SYS_close, fd);
  return -1;
}

void bump(std::atomic<std::uint64_t>& counter, std::uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

}  // namespace

/// Room for up to `wanted` pages (at least one) to exist twice; waits for it. Keeps the bound on memory
/// hard.
class FrameMover::Slack {
 public:
  Slack(FrameMover& mover, std::uint64_t wanted) : mover_(mover) {
    for (;;) {
      std::uint64_t have = mover_.slack_free_.load(std::memory_order_relaxed);
      taken_ = have < wanted ? have : wanted;
      if (taken_ == 0) {
        if (mover_.give_twins_back() == 0) yield();
      } else if (mover_.slack_free_.compare_exchange_weak(have, have - taken_, std::memory_order_acquire)) {
        return;
      }
    }
  }
  ~Slack() { mover_.slack_free_.fetch_add(taken_, std::memory_order_release); }
  Slack(const Slack&) = delete;
  Slack& operator=(const Slack&) = delete;
  [[nodiscard]] std::uint64_t pages() const { return taken_; }
  /// So many of them are somebody else's now to give back.
  void hand_over(std::uint64_t pages) { taken_ -= pages; }

 private:
  FrameMover& mover_;
  std::uint64_t taken_ = 0;
};

FrameMover::FrameMover(const Setup& setup)
    : window_(setup.window),
      pool_(setup.pool),
      zeros_(setup.zeros),
      use_move_(setup.use_move),
      window_syscall_(setup.window_syscall),
      slack_free_(setup.copy_slack),
      twins_(setup.twin_bits, setup.pool.start) {}

long FrameMover::register_range(VirtRange range, std::uint64_t mode) noexcept {
  uffd::Register request{{range.start.value(), range.size().value()}, mode, 0};
  return raw_syscall(SYS_ioctl, fd_, uffd::kIoctlRegister, as_arg(&request));
}

/// All of the window but what the kernel has mappings of its own in: the kernel refuses to register a file's,
/// and of others the absent pages would be reported to us.
long FrameMover::register_window(VirtRange (*next_kernels)(VirtAddr)) noexcept {
  constexpr std::uint64_t kMode = uffd::kRegisterMissing | uffd::kRegisterWp;
  if (next_kernels == nullptr) return register_range(window_, kMode);
  for (VirtAddr at = window_.start; at < window_.end;) {
    const VirtRange theirs = next_kernels(at);
    const VirtAddr end = std::min(theirs.start, window_.end);
    if (at < end) {
      if (const long result = register_range({at, end}, kMode); result != 0) return result;
    }
    at = std::max(theirs.end, end);
  }
  return 0;
}

long FrameMover::open(int lowest, VirtRange (*next_kernels)(VirtAddr)) noexcept {
  const long fd = raw_syscall(SYS_userfaultfd, O_CLOEXEC | uffd::kUserModeOnly);
  if (fd < 0) return fd;
  fd_ = raise_descriptor(fd, lowest);
  uffd::Api api{uffd::kApi, uffd::kFeatureSigbus | uffd::kFeaturePagefaultFlagWp, 0};
  if (use_move_) api.features |= uffd::kFeatureMove;
  long result = raw_syscall(SYS_ioctl, fd_, uffd::kIoctlApi, as_arg(&api));
  if (result == 0) result = register_window(next_kernels);
  // The pool is not MISSING-registered, so that the kernel zero-fills a home slot when the engine touches
  // it.
  if (result == 0) result = register_range(pool_, uffd::kRegisterWp);
  if (result < 0) {
    close();
    return result;
  }
  // Of nothing at all, so it only says whether it would.
  drops_together_ = raw_syscall(SYS_process_madvise, uffd::kSelf, 0, 0, MADV_DONTNEED) == 0;
  const long pagemap = raw_syscall(SYS_openat, AT_FDCWD, as_arg("/proc/self/pagemap"), O_RDONLY | O_CLOEXEC);
  pagemap_ = pagemap < 0 ? -1 : raise_descriptor(pagemap, lowest);
  tasks_ = raise_descriptor(open_tasks(), lowest);
  asked_.store(0, std::memory_order_relaxed);
  return 0;
}

void FrameMover::close() noexcept {
  if (fd_ >= 0) raw_syscall(SYS_close, fd_);
  if (pagemap_ >= 0) raw_syscall(SYS_close, pagemap_);
  if (tasks_ >= 0) raw_syscall(SYS_close, tasks_);
  fd_ = pagemap_ = tasks_ = -1;
}

long FrameMover::call_on(std::uint64_t address, long nr, std::uint64_t b, std::uint64_t c) const noexcept {
  const auto a1 = static_cast<long>(address), a2 = static_cast<long>(b), a3 = static_cast<long>(c);
  return window_.contains(VirtAddr{address}) ? window_syscall_(nr, a1, a2, a3, 0, 0, 0)
                                             : raw_syscall(nr, a1, a2, a3);
}

void FrameMover::drop(std::uint64_t at, std::uint64_t pages) noexcept {
  bump(counters_.drops);
  long result = 0;
  while ((result = call_on(at, SYS_madvise, bytes(pages), MADV_DONTNEED)) == -EAGAIN) yield();
  CHECK(result == 0, at, static_cast<std::uint64_t>(-result));
}

// Presence. /proc may be missing in a container; mincore() then answers the same for memory that is not
// swapped out.
void FrameMover::read_presence(std::uint64_t at, std::uint64_t pages, bool* there) const noexcept {
  std::uint64_t entries[kMaxRun];
  const long want = static_cast<long>(pages * sizeof(std::uint64_t));
  const long offset = static_cast<long>((at >> kPageShift) * sizeof(std::uint64_t));
  if (pagemap_ >= 0 && raw_syscall(SYS_pread64, pagemap_, as_arg(entries), want, offset) == want) {
    for (std::uint64_t i = 0; i < pages; ++i) there[i] = (entries[i] & (kPresent | kSwapped)) != 0;
    return;
  }
  auto* vec = reinterpret_cast<unsigned char*>(entries);
  const long result = call_on(at, SYS_mincore, bytes(pages), reinterpret_cast<std::uint64_t>(vec));
  CHECK(result == 0, at, static_cast<std::uint64_t>(-result));
  for (std::uint64_t i = 0; i < pages; ++i) there[i] = (vec[i] & 1) != 0;
}

bool FrameMover::present(VirtAddr at) const noexcept {
  bool there = false;
  read_presence(at.value(), 1, &there);
  return there;
}

// Rule 2: after an error of MOVE only the page tables say what happened. Leading pages that are at dst and
// gone from src have moved.
std::uint64_t FrameMover::moved_prefix(std::uint64_t dst, std::uint64_t src,
                                       std::uint64_t pages) const noexcept {
  bool at_dst[kMaxRun];
  bool at_src[kMaxRun];
  read_presence(dst, pages, at_dst);
  read_presence(src, pages, at_src);
  std::uint64_t n = 0;
  while (n < pages && at_dst[n] && !at_src[n]) ++n;
  return n;
}

std::uint64_t FrameMover::move(std::uint64_t dst, std::uint64_t src, std::uint64_t pages, bool may_touch,
                               long& error) noexcept {
  std::uint64_t done = 0;
  unsigned touched = 0;  // tries on the page that stands first now
  error = 0;
  while (done < pages) {
    uffd::Move request{dst + bytes(done), src + bytes(done), bytes(pages - done), 0, 0};
    bump(counters_.moves);
    const long result = raw_syscall(SYS_ioctl, fd_, uffd::kIoctlMove, as_arg(&request));
    if (result == 0) return pages;
    bump(counters_.reconciled);
    const std::uint64_t moved = moved_prefix(request.dst, request.src, pages - done);
    done += moved;
    if (moved > 0) touched = 0;
    if (moved > 0 || done == pages) continue;
    if (result == -EAGAIN) {
      yield();
    } else if (result == -EEXIST && touched++ < 4) {
      // The caller holds the slot and nothing of ours is mapped there: a marker or a leftover (rule 13).
      drop(request.dst, 1);
    } else if (result == -EBUSY && may_touch && touched++ < 2) {
      // Shared with a forked process, even one that is gone: a write gives us a page of our own.
      touch_for_write(request.src);
      bump(counters_.unshared);
    } else {
      error = result;
      return done;
    }
  }
  return done;
}

std::uint64_t FrameMover::copy_in(std::uint64_t va, std::uint64_t from, std::uint64_t pages,
                                  bool writable) noexcept {
  std::uint64_t done = 0;
  unsigned dropped = 0;
  while (done < pages) {
    uffd::Copy request{va + bytes(done), from + bytes(done), bytes(pages - done),
                       writable ? 0 : uffd::kCopyWp, 0};
    bump(counters_.copies);
    const long result = raw_syscall(SYS_ioctl, fd_, uffd::kIoctlCopy, as_arg(&request));
    if (result == 0) return pages;
    if (request.copy > 0) {
      done += static_cast<std::uint64_t>(request.copy) >> kPageShift;
      dropped = 0;
    } else if (result == -EAGAIN) {
      yield();
    } else if (result == -EEXIST && dropped++ < 4) {
      drop(request.dst, 1);
    } else {
      return done;  // no memory (a cgroup's limit), or the process is going: the access faults again
    }
  }
  return done;
}

std::uint64_t FrameMover::enter_zero(VirtAddr va, std::uint64_t pages, bool writable) noexcept {
  std::uint64_t done = 0;
  while (done < pages) {
    const std::uint64_t n = pages - done < kMaxRun ? pages - done : kMaxRun;
    const std::uint64_t got =
        copy_in(va.value() + bytes(done), reinterpret_cast<std::uint64_t>(zeros_), n, writable);
    done += got;
    if (got < n) break;
  }
  return done;
}

std::uint64_t FrameMover::give_twins_back() noexcept {
  const std::uint64_t given = twins_.empty([this](std::span<const VirtAddr> pages) { drop_pages(pages); });
  slack_free_.fetch_add(given, std::memory_order_release);
  return given;
}

// COPY in write-protect mode is atomic; the home copy goes after it. Until then the page exists twice.
std::uint64_t FrameMover::enter_by_copy(std::uint64_t va, std::uint64_t home, std::uint64_t pages,
                                        bool writable) noexcept {
  std::uint64_t done = 0;
  while (done < pages) {
    Slack room(*this, pages - done < kCopyRun ? pages - done : kCopyRun);
    const std::uint64_t wanted = room.pages();
    const std::uint64_t got = copy_in(va + bytes(done), home + bytes(done), wanted, writable);
    if (!drops_together_) {
      if (got > 0) drop(home + bytes(done), got);
    } else if (got > 0) {
      while (!twins_.note(VirtAddr{home + bytes(done)}, got)) give_twins_back();
      room.hand_over(got);
    }
    done += got;
    if (got < wanted) break;
  }
  return done;
}

std::uint64_t FrameMover::enter(VirtAddr va, VirtAddr home, std::uint64_t pages, bool writable) noexcept {
  if (!use_move_ || !writable || (drops_together_ && pages < kMoveRun && many_threads())) {
    return enter_by_copy(va.value(), home.value(), pages, writable);
  }
  std::uint64_t done = 0;
  while (done < pages) {
    const std::uint64_t to = va.value() + bytes(done), from = home.value() + bytes(done);
    long error = 0;
    const std::uint64_t moved = move(to, from, pages - done, /*may_touch=*/true, error);
    done += moved;
    if (error == 0) continue;
    const std::uint64_t at = va.value() + bytes(done);
    // ENOENT: home has no memory, so it reads as zeros. Anything else (EBUSY: held for I/O; EINVAL: unlike
    // VMAs, rule 9): copy this one page and go on moving.
    const std::uint64_t got = error == -ENOENT ? enter_zero(VirtAddr{at}, 1, true)
                                               : enter_by_copy(at, home.value() + bytes(done), 1, true);
    bump(counters_.fallbacks);
    if (got == 0) break;
    ++done;
  }
  return done;
}

// Write protection first: racing writers fault and wait for the busy page, so what is copied is final (rule
// 1).
void FrameMover::leave_by_copy(std::uint64_t va, std::uint64_t home, std::uint64_t pages,
                               bool writable) noexcept {
  std::uint64_t done = 0;
  while (done < pages) {
    const Slack room(*this, pages - done < kCopyRun ? pages - done : kCopyRun);
    bool there[kMaxRun];
    read_presence(va + bytes(done), room.pages(), there);
    std::uint64_t n = 0;
    while (n < room.pages() && there[n]) ++n;
    if (n == 0) {  // somebody discarded the page behind our back: it reads as zeros (and must not fault here)
      ++done;
      continue;
    }
    if (writable) set_writable(VirtAddr{va + bytes(done)}, n, false);
    // COPY fills new home pages without zeroing them first.
    const std::uint64_t copied = copy_in(home + bytes(done), va + bytes(done), n, /*writable=*/true);
    for (std::uint64_t i = copied; i < n; ++i) copy_pages(home + bytes(done + i), va + bytes(done + i), 1);
    drop(va + bytes(done), n);
    done += n;
  }
}

std::uint64_t FrameMover::leave(VirtAddr va, VirtAddr home, std::uint64_t pages, bool writable,
                                bool patient) noexcept {
  settle_home(home, pages);
  if (!use_move_) {
    leave_by_copy(va.value(), home.value(), pages, writable);
    return pages;
  }
  std::uint64_t done = 0;
  unsigned tries = 0;
  while (done < pages) {
    long error = 0;
    const std::uint64_t moved = move(home.value() + bytes(done), va.value() + bytes(done), pages - done,
                                     /*may_touch=*/writable, error);
    done += moved;
    if (moved > 0) tries = 0;
    if (error == 0) continue;
    if (error == -ENOENT) {  // somebody discarded the page behind our back: it reads as zeros
      ++done;
      continue;
    }
    if (error == -EBUSY && writable &&
        tries++ < kBusyTries) {  // the kernel holds it for I/O; usually not for long
      yield();
      continue;
    }
    if (error == -EBUSY && writable && !patient) return done;
    bump(counters_.fallbacks);
    leave_by_copy(va.value() + bytes(done), home.value() + bytes(done), 1, writable);
    ++done;
  }
  return done;
}

/// Asked of the kernel once in a while: it only decides which way is cheaper.
bool FrameMover::many_threads() noexcept {
  constexpr std::uint32_t kAskEvery = 64;
  if (asked_.fetch_add(1, std::memory_order_relaxed) % kAskEvery == 0 && tasks_ >= 0) {
    struct stat status;
    // proc(5): the link count of /proc/PID/task is that of a folder without folders, and one for each thread.
    const bool one = raw_syscall(SYS_fstat, tasks_, as_arg(&status)) == 0 && status.st_nlink == 2 + 1;
    many_threads_.store(!one, std::memory_order_relaxed);
  }
  return many_threads_.load(std::memory_order_relaxed);
}

void FrameMover::set_writable(VirtAddr va, std::uint64_t pages, bool writable) noexcept {
  uffd::WriteProtect request{{va.value(), bytes(pages)}, writable ? 0 : uffd::kWriteProtectOn};
  bump(counters_.protects);
  long result = 0;
  while ((result = raw_syscall(SYS_ioctl, fd_, uffd::kIoctlWriteProtect, as_arg(&request))) == -EAGAIN)
    yield();
  CHECK(result == 0, va.value(), static_cast<std::uint64_t>(-result));
}

void FrameMover::drop_pages(std::span<const VirtAddr> pages) noexcept {
  CHECK(pages.size() <= kMaxDrops, pages.size());
  iovec runs[kMaxDrops];
  std::size_t n = 0;
  for (const VirtAddr page : pages) {
    void* const start = reinterpret_cast<void*>(page.value());
    if (n > 0 && static_cast<char*>(runs[n - 1].iov_base) + runs[n - 1].iov_len == start) {
      runs[n - 1].iov_len += kPageSize;
    } else {
      runs[n++] = {start, kPageSize};
    }
  }
  std::uint64_t dropped = 0;  // bytes, of the runs in their order
  if (drops_together_ && n > 1) {
    bump(counters_.drops);
    const long result =
        raw_syscall(SYS_process_madvise, uffd::kSelf, as_arg(runs), static_cast<long>(n), MADV_DONTNEED);
    if (result > 0) dropped = static_cast<std::uint64_t>(result);
  }
  // What it did not do: a filter may forbid it, a signal may cut it short.
  for (const iovec& run : std::span(runs).first(n)) {
    if (dropped < run.iov_len) {
      drop(reinterpret_cast<std::uint64_t>(run.iov_base), run.iov_len >> kPageShift);
      dropped = 0;
    } else {
      dropped -= run.iov_len;
    }
  }
}

void FrameMover::drop_home(VirtAddr home, std::uint64_t pages) noexcept {
  drop(home.value(), pages);
}

void FrameMover::populate_home(VirtAddr home, std::uint64_t pages) noexcept {
  if (pages > 1 && call_on(home.value(), SYS_madvise, bytes(pages), MADV_POPULATE_WRITE) == 0) return;
  for (std::uint64_t i = 0; i < pages; ++i) touch_for_write(home.value() + bytes(i));
}

void FrameMover::advise(VirtRange range, int advice) noexcept {
  const long result =
      call_on(range.start.value(), SYS_madvise, range.size().value(), static_cast<unsigned>(advice));
  CHECK(result == 0, range.start.value(), static_cast<std::uint64_t>(-result));
}

void FrameMover::allow_fork() noexcept {
  advise(window_, MADV_DOFORK);
  advise(pool_, MADV_DOFORK);
}

void FrameMover::forbid_fork() noexcept {
  advise(window_, MADV_DONTFORK);
  advise(pool_, MADV_DONTFORK);
}

void FrameMover::forbid_access() noexcept {
  const long result = call_on(window_.start.value(), SYS_mprotect, window_.size().value(), PROT_NONE);
  CHECK(result == 0, static_cast<std::uint64_t>(-result));
}

void FrameMover::allow_access() noexcept {
  const long result =
      call_on(window_.start.value(), SYS_mprotect, window_.size().value(), PROT_READ | PROT_WRITE);
  CHECK(result == 0, static_cast<std::uint64_t>(-result));
}

bool FrameMover::restore(VirtRange range) noexcept {
  const long at = window_syscall_(SYS_mmap, static_cast<long>(range.start.value()),
                                  static_cast<long>(range.size().value()), PROT_READ | PROT_WRITE,
                                  own_mapping_flags() | MAP_FIXED, -1, 0);
  if (at != static_cast<long>(range.start.value())) return false;
  advise(range, MADV_NOHUGEPAGE);
  advise(range, MADV_DONTFORK);
  return register_range(range, uffd::kRegisterMissing | uffd::kRegisterWp) == 0;
}

MoverStats FrameMover::stats() const {
  const auto get = [](const std::atomic<std::uint64_t>& c) { return c.load(std::memory_order_relaxed); };
  return {get(counters_.moves),      get(counters_.copies),   get(counters_.protects), get(counters_.drops),
          get(counters_.reconciled), get(counters_.unshared), get(counters_.fallbacks)};
}

}  // namespace enchilada
