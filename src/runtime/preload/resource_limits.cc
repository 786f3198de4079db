// What the program set, and the rules by which it may.
#include "runtime/preload/resource_limits.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>

#include "pmap/host/own_mapping.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/user_syscall.h"

namespace enchilada::runtime {
namespace {

constexpr std::uint64_t kUnset = ~std::uint64_t{0} - 1;
std::atomic<std::uint64_t> file_soft{kUnset};
std::atomic<std::uint64_t> file_hard{kUnset};

/// As a pair of words: struct rlimit, and what the system calls take.
struct Limit {
  std::uint64_t soft;
  std::uint64_t hard;
};

long read_limit(int resource, Limit* limit) {
  const long result = raw_syscall(SYS_prlimit64, 0, resource, 0, as_long(limit));
  if (result != 0) return result;
  if (resource != RLIMIT_FSIZE) {
    if (address_limit() < limit->soft) limit->soft = address_limit();
    return 0;
  }
  // The launcher may have raised the soft limit for the swap files.
  const std::uint64_t given = live().tree().config().file_size_limit;
  if (given < limit->soft) limit->soft = given;
  if (file_soft.load() != kUnset) *limit = {file_soft.load(), file_hard.load()};
  return 0;
}

long write_limit(int resource, const Limit& limit) {
  // Where the process started with a limit on data, the kernel does not count what is ours: it may have the
  // new one, for what is not managed.
  if (resource == RLIMIT_DATA && kernel_data_limit() != ~std::uint64_t{0}) {
    const long result = raw_syscall(SYS_prlimit64, 0, resource, as_long(&limit), 0);
    if (result == 0) set_data_limit(limit.soft);
    return result;
  }
  if (resource != RLIMIT_FSIZE) {
    set_address_limit(limit.soft);
    return 0;
  }
  Limit now{};
  const long result = read_limit(resource, &now);
  if (result != 0) return result;
  if (limit.soft > limit.hard) return -EINVAL;
  if (limit.hard > now.hard && raw_syscall(SYS_geteuid) != 0) return -EPERM;
  file_hard.store(limit.hard);
  file_soft.store(limit.soft);
  return 0;
}

/// wanted, then old, may be null; both may be managed memory.
long change_limit(int resource, std::uint64_t wanted, std::uint64_t old) {
  Limit before{};
  Limit after{};
  if (wanted != 0 && (!peek(wanted, &after.soft) || !peek(wanted + 8, &after.hard))) return -EFAULT;
  long result = read_limit(resource, &before);
  if (result == 0 && wanted != 0) result = write_limit(resource, after);
  if (result != 0 || old == 0) return result;
  auto* to = reinterpret_cast<char*>(old);
  if (!enchilada_probe_write(to) || !enchilada_probe_write(to + sizeof(before) - 1)) return -EFAULT;
  __builtin_memcpy(to, &before, sizeof(before));
  return 0;
}

bool on_paper(long resource) {
  return resource == RLIMIT_AS || resource == RLIMIT_DATA || resource == RLIMIT_FSIZE;
}

}  // namespace

bool answer_limit_call(long nr, const long (&args)[6], long* result) {
  if (nr != SYS_getrlimit && nr != SYS_setrlimit && nr != SYS_prlimit64) return false;
  if (!live().ready()) return false;
  const auto word = [&args](int i) { return static_cast<std::uint64_t>(args[i]); };
  if (nr == SYS_prlimit64) {
    if (!on_paper(args[1]) || (args[0] != 0 && args[0] != raw_syscall(SYS_getpid))) return false;
    *result = change_limit(static_cast<int>(args[1]), word(2), word(3));
    return true;
  }
  if (!on_paper(args[0])) return false;
  const bool sets = nr == SYS_setrlimit;
  if (args[1] == 0) {
    *result = -EFAULT;
  } else {
    *result = change_limit(static_cast<int>(args[0]), sets ? word(1) : 0, sets ? 0 : word(1));
  }
  return true;
}

}  // namespace enchilada::runtime
