// The table of foreign ranges: a short sorted array; programs have none or a handful.
#include "runtime/preload/foreign.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>

#include "runtime/preload/live.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

struct ForeignRange {
  VirtRange range;
  int prot = 0;
};

constexpr std::size_t kMost = 4096;
ForeignRange table[kMost];
std::atomic<std::size_t> table_size{0};
Mutex table_lock;

/// Cuts `hole` out of the table. False: no room for the piece behind it.
bool cut(VirtRange hole) REQUIRES(table_lock) {
  std::size_t n = table_size.load();
  for (std::size_t i = 0; i < n;) {
    ForeignRange& f = table[i];
    if (!f.range.overlaps(hole)) {
      ++i;
      continue;
    }
    const VirtRange before{f.range.start, std::max(f.range.start, std::min(f.range.end, hole.start))};
    const VirtRange after{std::min(f.range.end, std::max(f.range.start, hole.end)), f.range.end};
    if (!before.empty() && !after.empty()) {
      if (n == kMost) return false;
      table[n++] = {after, f.prot};
      f.range = before;
      ++i;
    } else if (!before.empty() || !after.empty()) {
      f.range = before.empty() ? after : before;
      ++i;
    } else {
      f = table[--n];
    }
  }
  table_size.store(n);
  return true;
}

template <class Visit>
void for_each_overlap(VirtRange range, Visit visit) REQUIRES(table_lock) {
  for (std::size_t i = 0; i < table_size.load(); ++i) {
    if (table[i].range.overlaps(range)) {
      visit(table[i],
            VirtRange{std::max(table[i].range.start, range.start), std::min(table[i].range.end, range.end)});
    }
  }
}

void protect_kernel(VirtRange range, int prot) {
  window_syscall(SYS_mprotect, static_cast<long>(range.start.value()),
                 static_cast<long>(range.size().value()), prot);
}

}  // namespace

long install_foreign(VirtRange range, int prot, int flags, int fd, std::uint64_t offset) {
  {
    MutexLock guard(table_lock);
    if (table_size.load() + 2 > kMost) return -ENOMEM;
  }
  VmMap::MapRequest request;
  request.length = range.size();
  request.hint = range.start;
  request.kind = EntryKind::kForeign;
  request.placement = VmMap::MapRequest::Placement::kFixedReplace;
  VirtAddr address;
  if (live().map().map(request, &address) != KernReturn::kSuccess) return -ENOMEM;
  const long answer =
      window_syscall(SYS_mmap, static_cast<long>(range.start.value()),
                     static_cast<long>(range.size().value()), prot, flags, fd, static_cast<long>(offset));
  MutexLock guard(table_lock);
  const bool was_cut = cut(range);
  CHECK(was_cut);
  if (answer < 0) {
    // The kernel may have unmapped what was there: put the window's own mapping back and leave a hole.
    const bool restored = live().host().restore_window(range);
    CHECK(restored);
    (void)live().map().remove(range);
    return answer;
  }
  const std::size_t n = table_size.load();
  table[n] = {range, prot};
  table_size.store(n + 1);
  return answer;
}

void release_foreign(VirtRange range) {
  if (table_size.load(std::memory_order_relaxed) == 0) return;
  MutexLock guard(table_lock);
  for_each_overlap(range, [](const ForeignRange&, VirtRange part) {
    const bool restored = live().host().restore_window(part);
    CHECK(restored);
  });
  const bool was_cut = cut(range);
  CHECK(was_cut);
}

bool has_foreign(VirtRange range) {
  if (table_size.load(std::memory_order_relaxed) == 0) return false;
  MutexLock guard(table_lock);
  bool any = false;
  for_each_overlap(range, [&](const ForeignRange&, VirtRange) { any = true; });
  return any;
}

bool only_foreign(VirtRange range) {
  MutexLock guard(table_lock);
  std::uint64_t covered = 0;
  for_each_overlap(range, [&](const ForeignRange&, VirtRange part) { covered += part.size().value(); });
  return covered == range.size().value();
}

void note_foreign_protection(VirtRange range, int prot) {
  MutexLock guard(table_lock);
  // Pieces of foreign ranges get their own rows, so that one row has one protection.
  std::size_t pieces = 0;
  ForeignRange changed[64];
  for_each_overlap(range, [&](const ForeignRange&, VirtRange part) {
    if (pieces < 64) changed[pieces++] = {part, prot};
  });
  protect_kernel(range, PROT_READ | PROT_WRITE);
  for (std::size_t i = 0; i < pieces; ++i) {
    protect_kernel(changed[i].range, prot);
    if (!cut(changed[i].range)) return;
    const std::size_t n = table_size.load();
    if (n == kMost) return;
    table[n] = changed[i];
    table_size.store(n + 1);
  }
}

VirtRange next_foreign(VirtAddr from) {
  MutexLock guard(table_lock);
  VirtRange next{VirtAddr{~std::uint64_t{0}}, VirtAddr{~std::uint64_t{0}}};
  for (std::size_t i = 0; i < table_size.load(); ++i) {
    if (table[i].range.end > from && table[i].range.start < next.start) next = table[i].range;
  }
  return next;
}

void reapply_foreign_protection() {
  for (std::size_t i = 0; i < table_size.load(); ++i) protect_kernel(table[i].range, table[i].prot);
}

}  // namespace enchilada::runtime
