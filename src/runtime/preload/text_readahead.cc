// Counting major faults, and reading the list of mappings in small pieces. Invariants: see text_readahead.h.
#include "runtime/preload/text_readahead.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/monotonic_clock.h"
#include "runtime/preload/layout.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

constexpr std::uint32_t kLookEvery = 256;  // faults of ours
// So many reads of files in less than so much time: more than a program does that only starts.
constexpr std::uint64_t kMany = 100;
constexpr std::uint64_t kPeriodNs = 2'000'000'000;
constexpr std::uint64_t kAgainNs = 10'000'000'000;  // mappings may have come since

std::atomic<std::uint32_t> faults{0};
std::atomic<std::uint64_t> period_start{0};
std::atomic<std::uint64_t> period_major{0};
std::atomic<std::uint64_t> told{0};  // when the mappings were last told; 0 = never

std::uint64_t major_faults() {
  rusage usage{};
  raw_syscall(SYS_getrusage, RUSAGE_SELF, as_long(&usage));
  return static_cast<std::uint64_t>(usage.ru_majflt);
}

const char* parse_hex(const char* p, std::uint64_t* value) {
  for (*value = 0;; ++p) {
    const char c = *p;
    const unsigned digit = c >= '0' && c <= '9'   ? static_cast<unsigned>(c - '0')
                           : c >= 'a' && c <= 'f' ? static_cast<unsigned>(c - 'a' + 10)
                                                  : 16;
    if (digit == 16) return p;
    *value = *value << 4 | digit;
  }
}

/// A line of /proc/self/maps that is a mapping of a file which cannot be written, such as
/// "55d0e1a2c000-55d0e1b5f000 r-xp 0002c000 fe:00 1311768   /usr/bin/bash"
bool parse_text_mapping(const char* line, VirtRange* range) {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t skipped = 0;
  const char* p = parse_hex(line, &start);
  if (*p != '-') return false;
  p = parse_hex(p + 1, &end);
  if (p[0] != ' ' || p[1] != 'r' || p[2] != '-') return false;
  for (unsigned blanks = 0; *p != 0; ++p) {
    if (*p != ' ' || ++blanks < 4) continue;  // protection, offset, device
    parse_hex(p + 1, &skipped);
    break;
  }
  if (skipped == 0 || start >= end) return false;  // no inode (decimal, but only zero matters): no file
  *range = {VirtAddr{start}, VirtAddr{end}};
  return true;
}

void tell(const char* line) {
  VirtRange range;
  if (!parse_text_mapping(line, &range) || layout::kWindow.contains(range.start)) return;
  raw_syscall(SYS_madvise, static_cast<long>(range.start.value()), static_cast<long>(range.size().value()),
              MADV_RANDOM);
}

/// Every line of the list; of a long one (a long name) the beginning, which has all that counts.
void tell_all_mappings() {
  const long fd = raw_syscall(SYS_openat, AT_FDCWD, as_long("/proc/self/maps"), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char line[128];
  std::size_t n = 0;
  char piece[1024];
  for (long got; (got = raw_syscall(SYS_read, fd, as_long(piece), sizeof(piece))) > 0;) {
    for (long i = 0; i < got; ++i) {
      if (piece[i] == '\n') {
        line[n] = 0;
        tell(line);
        n = 0;
      } else if (n + 1 < sizeof(line)) {
        line[n++] = piece[i];
      }
    }
  }
  raw_syscall(SYS_close, fd);
}

}  // namespace

void watch_text_readahead() {
  if (faults.fetch_add(1, std::memory_order_relaxed) % kLookEvery != 0) return;
  const std::uint64_t now = monotonic_ns();
  const std::uint64_t major = major_faults();
  const std::uint64_t since = period_start.load(std::memory_order_relaxed);
  const std::uint64_t before = period_major.load(std::memory_order_relaxed);
  const bool over = now - since > kPeriodNs;
  const bool many = major >= before + kMany;  // not so after a fork: the sum starts again from zero
  if (!over && !many) return;
  period_start.store(now, std::memory_order_relaxed);
  period_major.store(major, std::memory_order_relaxed);
  if (over) return;
  std::uint64_t last = told.load(std::memory_order_relaxed);
  if (last != 0 && now - last < kAgainNs) return;
  if (told.compare_exchange_strong(last, now, std::memory_order_relaxed)) tell_all_mappings();
}

}  // namespace enchilada::runtime
