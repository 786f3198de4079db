// mmap and its family by symbol.
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <type_traits>

#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/next.h"
#include "runtime/preload/resource_limits.h"

using namespace enchilada::runtime;

namespace {
template <class T>
long as_word(T value) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<long>(value);
  } else {
    return static_cast<long>(value);
  }
}
std::uint64_t word(const void* p) {
  return reinterpret_cast<std::uint64_t>(p);
}

/// A system call on limits that we answer. False: the kernel's.
template <class... Args>
bool answered(int* answer, long nr, Args... args) {
  const long words[6] = {as_word(args)...};
  long result = 0;
  if (!answer_limit_call(nr, words, &result)) return false;
  *answer = static_cast<int>(with_errno(result));
  return true;
}

Next<int(int, rlimit*)> next_getrlimit("getrlimit");
Next<int(int, const rlimit*)> next_setrlimit("setrlimit");
Next<int(pid_t, int, const rlimit*, rlimit*)> next_prlimit("prlimit");
}  // namespace

extern "C" {

ENCHILADA_EXPORT void* mmap(void* address, size_t length, int prot, int flags, int fd,
                            off_t offset) noexcept {
  live().start();
  return reinterpret_cast<void*>(
      with_errno(call_mmap(word(address), length, prot, flags, fd, static_cast<std::uint64_t>(offset))));
}
ENCHILADA_EXPORT void* mmap64(void* address, size_t length, int prot, int flags, int fd,
                              off64_t offset) noexcept {
  return mmap(address, length, prot, flags, fd, offset);
}
ENCHILADA_EXPORT int munmap(void* address, size_t length) noexcept {
  return static_cast<int>(with_errno(call_munmap(word(address), length)));
}
ENCHILADA_EXPORT int mprotect(void* address, size_t length, int prot) noexcept {
  return static_cast<int>(with_errno(call_mprotect(word(address), length, prot)));
}
ENCHILADA_EXPORT int madvise(void* address, size_t length, int advice) noexcept {
  return static_cast<int>(with_errno(call_madvise(word(address), length, advice)));
}
ENCHILADA_EXPORT int posix_madvise(void* address, size_t length, int advice) noexcept {
  if (advice == POSIX_MADV_DONTNEED) return 0;  // POSIX's keeps the contents
  return static_cast<int>(-call_madvise(word(address), length, advice));
}
ENCHILADA_EXPORT void* mremap(void* address, size_t old_length, size_t new_length, int flags, ...) noexcept {
  va_list more;
  va_start(more, flags);
  void* target = (flags & MREMAP_FIXED) != 0 ? va_arg(more, void*) : nullptr;
  va_end(more);
  return reinterpret_cast<void*>(
      with_errno(call_mremap(word(address), old_length, new_length, flags, word(target))));
}
ENCHILADA_EXPORT int mincore(void* address, size_t length, unsigned char* vec) noexcept {
  return static_cast<int>(with_errno(call_mincore(word(address), length, vec)));
}
ENCHILADA_EXPORT int mlock(const void* address, size_t length) noexcept {
  return static_cast<int>(with_errno(call_mlock(word(address), length)));
}
ENCHILADA_EXPORT int mlock2(const void* address, size_t length, unsigned int) noexcept {
  return static_cast<int>(with_errno(call_mlock(word(address), length)));
}
ENCHILADA_EXPORT int munlock(const void* address, size_t length) noexcept {
  return static_cast<int>(with_errno(call_munlock(word(address), length)));
}
ENCHILADA_EXPORT int mlockall(int flags) noexcept {
  return static_cast<int>(with_errno(call_mlockall(flags)));
}
ENCHILADA_EXPORT int munlockall() noexcept {
  return static_cast<int>(with_errno(call_munlockall()));
}
ENCHILADA_EXPORT int msync(void* address, size_t length, int flags) {
  return static_cast<int>(with_errno(call_msync(word(address), length, flags)));
}

ENCHILADA_EXPORT int brk(void* end) noexcept {
  live().start();
  if (call_brk(word(end)) == word(end)) return 0;
  errno = ENOMEM;
  return -1;
}
ENCHILADA_EXPORT void* sbrk(intptr_t increment) noexcept {
  live().start();
  const std::uint64_t now = call_brk(0);
  if (increment == 0) return reinterpret_cast<void*>(now);
  const std::uint64_t wanted = now + static_cast<std::uint64_t>(increment);
  if (call_brk(wanted) == wanted) return reinterpret_cast<void*>(now);
  errno = ENOMEM;
  return reinterpret_cast<void*>(-1);
}

ENCHILADA_EXPORT int getrlimit(__rlimit_resource_t resource, rlimit* limit) noexcept {
  int answer = 0;
  if (answered(&answer, SYS_getrlimit, resource, limit)) return answer;
  return next_getrlimit(static_cast<int>(resource), limit);
}
ENCHILADA_EXPORT int getrlimit64(__rlimit_resource_t resource, rlimit64* limit) noexcept {
  return getrlimit(resource, reinterpret_cast<rlimit*>(limit));
}
ENCHILADA_EXPORT int setrlimit(__rlimit_resource_t resource, const rlimit* limit) noexcept {
  int answer = 0;
  if (answered(&answer, SYS_setrlimit, resource, limit)) return answer;
  return next_setrlimit(static_cast<int>(resource), limit);
}
ENCHILADA_EXPORT int setrlimit64(__rlimit_resource_t resource, const rlimit64* limit) noexcept {
  return setrlimit(resource, reinterpret_cast<const rlimit*>(limit));
}
ENCHILADA_EXPORT int prlimit(pid_t pid, __rlimit_resource resource, const rlimit* limit,
                             rlimit* old) noexcept {
  int answer = 0;
  if (answered(&answer, SYS_prlimit64, pid, resource, limit, old)) return answer;
  return next_prlimit(pid, static_cast<int>(resource), limit, old);
}
ENCHILADA_EXPORT int prlimit64(pid_t pid, __rlimit_resource resource, const rlimit64* limit,
                               rlimit64* old) noexcept {
  return prlimit(pid, resource, reinterpret_cast<const rlimit*>(limit), reinterpret_cast<rlimit*>(old));
}

}  // extern "C"
