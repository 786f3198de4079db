// Input and output by symbol: the usual calls need no trap when their buffers are managed memory.
//
// A call without a window address goes to libc's own function (which is a cancellation point); one with goes
// through user_syscall(). What is not here is caught by the filter. Vectored calls must be here: their
// buffers hide behind an array that usually lies on the stack, where the filter does not see them.
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/next.h"
#include "runtime/preload/process.h"
#include "runtime/preload/program_filter.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/user_syscall.h"

using namespace enchilada::runtime;
using enchilada::layout::in_window;

namespace {

bool managed(const void* p) {
  return in_window(reinterpret_cast<std::uint64_t>(p)) && live().ready();
}

bool managed_iov(const iovec* iov, std::uint64_t n) {
  if (!live().ready()) return false;
  if (managed(iov)) return true;
  for (std::uint64_t i = 0; i < n && i < 1024; ++i) {
    if (managed(iov[i].iov_base)) return true;
  }
  return false;
}

bool managed_msg(const msghdr* message) {
  if (!live().ready() || message == nullptr) return false;
  return managed(message) || managed(message->msg_name) || managed(message->msg_control) ||
         managed_iov(message->msg_iov, message->msg_iovlen);
}

constexpr std::uint64_t kPage = enchilada::kPageSize;

template <class T>
long as_arg(T value) {
  if constexpr (std::is_null_pointer_v<T>) {
    return 0;
  } else if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<long>(value);
  } else {
    return static_cast<long>(value);
  }
}

template <class... Args>
long pinned_call(long nr, Args... args) {
  return with_errno(user_syscall(nr, as_arg(args)...));
}
/// Of a function that is a cancellation point.
template <class... Args>
long waiting_call(long nr, Args... args) {
  return with_errno(cancellable_syscall(nr, as_arg(args)...));
}

Next<ssize_t(int, void*, size_t)> next_read("read");
Next<ssize_t(int, const void*, size_t)> next_write("write");
Next<ssize_t(int, void*, size_t, off_t)> next_pread("pread64");
Next<ssize_t(int, const void*, size_t, off_t)> next_pwrite("pwrite64");
Next<ssize_t(int, void*, size_t, int)> next_recv("recv");
Next<ssize_t(int, const void*, size_t, int)> next_send("send");
Next<ssize_t(int, void*, size_t, int, sockaddr*, socklen_t*)> next_recvfrom("recvfrom");
Next<ssize_t(int, const void*, size_t, int, const sockaddr*, socklen_t)> next_sendto("sendto");
Next<ssize_t(int, const iovec*, int)> next_readv("readv");
Next<ssize_t(int, const iovec*, int)> next_writev("writev");
Next<ssize_t(int, const iovec*, int, off_t)> next_preadv("preadv64");
Next<ssize_t(int, const iovec*, int, off_t)> next_pwritev("pwritev64");
Next<ssize_t(int, const iovec*, int, off_t, int)> next_preadv2("preadv64v2");
Next<ssize_t(int, const iovec*, int, off_t, int)> next_pwritev2("pwritev64v2");
Next<ssize_t(int, msghdr*, int)> next_recvmsg("recvmsg");
Next<ssize_t(int, const msghdr*, int)> next_sendmsg("sendmsg");
Next<int(int, mmsghdr*, unsigned, int, timespec*)> next_recvmmsg("recvmmsg");
Next<int(int, mmsghdr*, unsigned, int)> next_sendmmsg("sendmmsg");
Next<ssize_t(int, const iovec*, size_t, unsigned)> next_vmsplice("vmsplice");
Next<int(int, int, int, const void*, socklen_t)> next_setsockopt("setsockopt");
Next<int(int, epoll_event*, int, int)> next_epoll_wait("epoll_wait");
Next<int(int, int, int, epoll_event*)> next_epoll_ctl("epoll_ctl");
Next<int(pollfd*, nfds_t, int)> next_poll("poll");

bool managed_mmsg(const mmsghdr* messages, unsigned n) {
  if (!live().ready()) return false;
  if (managed(messages)) return true;
  for (unsigned i = 0; i < n; ++i) {
    if (managed_msg(&messages[i].msg_hdr)) return true;
  }
  return false;
}

}  // namespace

extern "C" {

ENCHILADA_EXPORT ssize_t read(int fd, void* buffer, size_t n) {
  if (!managed(buffer)) return next_read(fd, buffer, n);
  return waiting_call(SYS_read, fd, buffer, n);
}
ENCHILADA_EXPORT ssize_t __read_chk(int fd, void* buffer, size_t n, size_t room) {
  if (n > room) __builtin_trap();
  return read(fd, buffer, n);
}
ENCHILADA_EXPORT ssize_t write(int fd, const void* buffer, size_t n) {
  if (!managed(buffer)) return next_write(fd, buffer, n);
  return waiting_call(SYS_write, fd, buffer, n);
}
ENCHILADA_EXPORT ssize_t pread64(int fd, void* buffer, size_t n, off64_t offset) {
  if (!managed(buffer)) return next_pread(fd, buffer, n, offset);
  return waiting_call(SYS_pread64, fd, buffer, n, offset);
}
ENCHILADA_EXPORT ssize_t pread(int fd, void* buffer, size_t n, off_t offset) {
  return pread64(fd, buffer, n, offset);
}
ENCHILADA_EXPORT ssize_t pwrite64(int fd, const void* buffer, size_t n, off64_t offset) {
  if (!managed(buffer)) return next_pwrite(fd, buffer, n, offset);
  return waiting_call(SYS_pwrite64, fd, buffer, n, offset);
}
ENCHILADA_EXPORT ssize_t pwrite(int fd, const void* buffer, size_t n, off_t offset) {
  return pwrite64(fd, buffer, n, offset);
}
ENCHILADA_EXPORT ssize_t recv(int fd, void* buffer, size_t n, int flags) {
  if (!managed(buffer)) return next_recv(fd, buffer, n, flags);
  return waiting_call(SYS_recvfrom, fd, buffer, n, flags, nullptr, nullptr);
}
ENCHILADA_EXPORT ssize_t send(int fd, const void* buffer, size_t n, int flags) {
  if (!managed(buffer)) return next_send(fd, buffer, n, flags);
  return waiting_call(SYS_sendto, fd, buffer, n, flags, nullptr, 0);
}
ENCHILADA_EXPORT ssize_t recvfrom(int fd, void* buffer, size_t n, int flags, sockaddr* from,
                                  socklen_t* length) {
  if (!managed(buffer) && !managed(from) && !managed(length))
    return next_recvfrom(fd, buffer, n, flags, from, length);
  return waiting_call(SYS_recvfrom, fd, buffer, n, flags, from, length);
}
ENCHILADA_EXPORT ssize_t sendto(int fd, const void* buffer, size_t n, int flags, const sockaddr* to,
                                socklen_t length) {
  if (!managed(buffer) && !managed(to)) return next_sendto(fd, buffer, n, flags, to, length);
  return waiting_call(SYS_sendto, fd, buffer, n, flags, to, length);
}
ENCHILADA_EXPORT ssize_t readv(int fd, const iovec* iov, int n) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_readv(fd, iov, n);
  return waiting_call(SYS_readv, fd, iov, n);
}
ENCHILADA_EXPORT ssize_t writev(int fd, const iovec* iov, int n) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_writev(fd, iov, n);
  return waiting_call(SYS_writev, fd, iov, n);
}
ENCHILADA_EXPORT ssize_t preadv64(int fd, const iovec* iov, int n, off64_t offset) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_preadv(fd, iov, n, offset);
  return waiting_call(SYS_preadv, fd, iov, n, offset, 0);
}
ENCHILADA_EXPORT ssize_t preadv(int fd, const iovec* iov, int n, off_t offset) {
  return preadv64(fd, iov, n, offset);
}
ENCHILADA_EXPORT ssize_t pwritev64(int fd, const iovec* iov, int n, off64_t offset) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_pwritev(fd, iov, n, offset);
  return waiting_call(SYS_pwritev, fd, iov, n, offset, 0);
}
ENCHILADA_EXPORT ssize_t pwritev(int fd, const iovec* iov, int n, off_t offset) {
  return pwritev64(fd, iov, n, offset);
}
ENCHILADA_EXPORT ssize_t preadv64v2(int fd, const iovec* iov, int n, off64_t offset, int flags) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_preadv2(fd, iov, n, offset, flags);
  return waiting_call(SYS_preadv2, fd, iov, n, offset, 0, flags);
}
ENCHILADA_EXPORT ssize_t preadv2(int fd, const iovec* iov, int n, off_t offset, int flags) {
  return preadv64v2(fd, iov, n, offset, flags);
}
ENCHILADA_EXPORT ssize_t pwritev64v2(int fd, const iovec* iov, int n, off64_t offset, int flags) {
  if (!managed_iov(iov, static_cast<unsigned>(n))) return next_pwritev2(fd, iov, n, offset, flags);
  return waiting_call(SYS_pwritev2, fd, iov, n, offset, 0, flags);
}
ENCHILADA_EXPORT ssize_t pwritev2(int fd, const iovec* iov, int n, off_t offset, int flags) {
  return pwritev64v2(fd, iov, n, offset, flags);
}
ENCHILADA_EXPORT ssize_t recvmsg(int fd, msghdr* message, int flags) {
  if (!managed_msg(message)) return next_recvmsg(fd, message, flags);
  return waiting_call(SYS_recvmsg, fd, message, flags);
}
ENCHILADA_EXPORT ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  if (!managed_msg(message)) return next_sendmsg(fd, message, flags);
  return waiting_call(SYS_sendmsg, fd, message, flags);
}
ENCHILADA_EXPORT int recvmmsg(int fd, mmsghdr* messages, unsigned n, int flags, timespec* timeout) {
  if (!managed_mmsg(messages, n) && !managed(timeout)) return next_recvmmsg(fd, messages, n, flags, timeout);
  return static_cast<int>(waiting_call(SYS_recvmmsg, fd, messages, n, flags, timeout));
}
ENCHILADA_EXPORT int sendmmsg(int fd, mmsghdr* messages, unsigned n, int flags) {
  if (!managed_mmsg(messages, n)) return next_sendmmsg(fd, messages, n, flags);
  return static_cast<int>(waiting_call(SYS_sendmmsg, fd, messages, n, flags));
}
/// Pages in a pipe would go on being read after we recycled them (live-runtime.md rule 10): copy.
ENCHILADA_EXPORT ssize_t vmsplice(int fd, const iovec* iov, size_t n, unsigned flags) {
  if (!managed_iov(iov, n)) return next_vmsplice(fd, iov, n, flags);
  return waiting_call(SYS_writev, fd, iov, n);
}
ENCHILADA_EXPORT int setsockopt(int fd, int level, int option, const void* value, socklen_t length) noexcept {
  constexpr int kSoZerocopy = 60;
  if (live().ready() && level == SOL_SOCKET && option == kSoZerocopy) {  // rule 10 again
    errno = ENOTSUP;
    return -1;
  }
  if (!managed(value)) return next_setsockopt(fd, level, option, value, length);
  return static_cast<int>(pinned_call(SYS_setsockopt, fd, level, option, value, length));
}
ENCHILADA_EXPORT int epoll_wait(int fd, epoll_event* events, int n, int timeout) {
  if (!managed(events)) return next_epoll_wait(fd, events, n, timeout);
  return static_cast<int>(waiting_call(SYS_epoll_wait, fd, events, n, timeout));
}
ENCHILADA_EXPORT int epoll_ctl(int epoll, int op, int fd, epoll_event* event) noexcept {
  if (!managed(event)) return next_epoll_ctl(epoll, op, fd, event);
  return static_cast<int>(pinned_call(SYS_epoll_ctl, epoll, op, fd, event));
}
/// Structures of ioctl often lie on the stack and point to the heap, where the filter does not see it.
ENCHILADA_EXPORT int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list more;
  va_start(more, request);
  const auto argument = va_arg(more, std::uint64_t);
  va_end(more);
  constexpr std::uint64_t kStructure = 128;
  bool hidden = false;
  for (std::uint64_t at = argument;
       live().ready() && !hidden && argument >= kPage && at < argument + kStructure; at += 8) {
    std::uint64_t word = 0;
    if (!peek(at, &word)) break;
    hidden = in_window(word);
  }
  if (hidden || (in_window(argument) && live().ready()))
    return static_cast<int>(pinned_call(SYS_ioctl, fd, request, argument));
  return static_cast<int>(
      with_errno(program_syscall(SYS_ioctl, fd, static_cast<long>(request), static_cast<long>(argument))));
}
ENCHILADA_EXPORT int poll(pollfd* fds, nfds_t n, int timeout) {
  if (!managed(fds)) return next_poll(fds, n, timeout);
  return static_cast<int>(waiting_call(SYS_poll, fds, n, timeout));
}

}  // extern "C"
