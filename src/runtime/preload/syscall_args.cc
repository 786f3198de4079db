// The table itself: x86-64 system calls by name, arguments in the kernel's order (man 2 pages).
#include "runtime/preload/syscall_args.h"

#include <sys/syscall.h>

#include <array>
#include <initializer_list>

namespace enchilada::runtime {
namespace {

constexpr ArgSpec none() {
  return {};
}
constexpr ArgSpec str() {
  return {ArgKind::kString, -1, 0};
}
constexpr ArgSpec in(std::uint16_t n) {
  return {ArgKind::kIn, -1, n};
}
constexpr ArgSpec out(std::uint16_t n) {
  return {ArgKind::kOut, -1, n};
}
constexpr ArgSpec inout(std::uint16_t n) {
  return {ArgKind::kInOut, -1, n};
}
constexpr ArgSpec in_len(std::int8_t arg, std::uint16_t unit = 1) {
  return {ArgKind::kIn, arg, unit};
}
constexpr ArgSpec out_len(std::int8_t arg, std::uint16_t unit = 1) {
  return {ArgKind::kOut, arg, unit};
}
constexpr ArgSpec inout_len(std::int8_t arg, std::uint16_t unit = 1) {
  return {ArgKind::kInOut, arg, unit};
}
constexpr ArgSpec special(ArgKind kind, std::int8_t arg = -1, std::uint16_t unit = 0) {
  return {kind, arg, unit};
}
constexpr ArgSpec guess() {
  return {ArgKind::kGuess, -1, 32768};
}

constexpr std::uint16_t kStat = 144;
constexpr std::uint16_t kTimespec = 16;
constexpr std::uint16_t kSockaddr = 128;
constexpr std::uint16_t kRusage = 144;
constexpr std::uint16_t kSiginfo = 128;

constexpr std::uint8_t kAllArguments = 0x3f;

struct Row {
  long nr;
  std::array<ArgSpec, 6> args;
  Transfer transfer = Transfer::kWhole;
};

constexpr Row kRows[] = {
    {SYS_read, {none(), out_len(2)}, Transfer::kStream},
    {SYS_write, {none(), in_len(2)}, Transfer::kStream},
    {SYS_pread64, {none(), out_len(2)}, Transfer::kStreamAt},
    {SYS_pwrite64, {none(), in_len(2)}, Transfer::kStreamAt},
    {SYS_sendto, {none(), in_len(2), none(), none(), in_len(5)}, Transfer::kStream},
    {SYS_recvfrom, {none(), out_len(2), none(), none(), out(kSockaddr), inout(4)}, Transfer::kStream},
    {SYS_readv, {none(), special(ArgKind::kIovOut, 2)}},
    {SYS_writev, {none(), special(ArgKind::kIovIn, 2)}},
    {SYS_preadv, {none(), special(ArgKind::kIovOut, 2)}},
    {SYS_pwritev, {none(), special(ArgKind::kIovIn, 2)}},
    {SYS_preadv2, {none(), special(ArgKind::kIovOut, 2)}},
    {SYS_pwritev2, {none(), special(ArgKind::kIovIn, 2)}},
    {SYS_sendmsg, {none(), special(ArgKind::kMsgIn)}},
    {SYS_recvmsg, {none(), special(ArgKind::kMsgOut)}},
    {SYS_sendmmsg, {none(), special(ArgKind::kMmsgIn, 2)}},
    {SYS_recvmmsg, {none(), special(ArgKind::kMmsgOut, 2), none(), none(), inout(kTimespec)}},
    {SYS_open, {str()}},
    {SYS_openat, {none(), str()}},
    {SYS_openat2, {none(), str(), in_len(3)}},
    {SYS_creat, {str()}},
    {SYS_stat, {str(), out(kStat)}},
    {SYS_lstat, {str(), out(kStat)}},
    {SYS_fstat, {none(), out(kStat)}},
    {SYS_newfstatat, {none(), str(), out(kStat)}},
    {SYS_statx, {none(), str(), none(), none(), out(256)}},
    {SYS_statfs, {str(), out(120)}},
    {SYS_fstatfs, {none(), out(120)}},
    {SYS_access, {str()}},
    {SYS_faccessat, {none(), str()}},
    {SYS_faccessat2, {none(), str()}},
    {SYS_poll, {inout_len(1, 8)}},
    {SYS_ppoll, {inout_len(1, 8), none(), inout(kTimespec), in(8)}},
    {SYS_select, {none(), inout(128), inout(128), inout(128), inout(16)}},
    {SYS_pselect6,
     {none(), inout(128), inout(128), inout(128), inout(kTimespec), special(ArgKind::kScan, -1, 16)}},
    {SYS_epoll_ctl, {none(), none(), none(), in(12)}},
    {SYS_epoll_wait, {none(), out_len(2, 12)}},
    {SYS_epoll_pwait, {none(), out_len(2, 12), none(), none(), in(8)}},
    {SYS_epoll_pwait2, {none(), out_len(2, 12), none(), in(kTimespec), in(8)}},
    {SYS_ioctl, {none(), none(), special(ArgKind::kScan, -1, 512)}},
    {SYS_fcntl, {none(), none(), inout(32)}},
    {SYS_pipe, {out(8)}},
    {SYS_pipe2, {out(8)}},
    {SYS_nanosleep, {in(kTimespec), out(kTimespec)}},
    {SYS_clock_nanosleep, {none(), none(), in(kTimespec), out(kTimespec)}},
    {SYS_clock_gettime, {none(), out(kTimespec)}},
    {SYS_clock_settime, {none(), in(kTimespec)}},
    {SYS_clock_getres, {none(), out(kTimespec)}},
    {SYS_clock_adjtime, {none(), inout(208)}},
    {SYS_adjtimex, {inout(208)}},
    {SYS_gettimeofday, {out(16), out(8)}},
    {SYS_settimeofday, {in(16), in(8)}},
    {SYS_time, {out(8)}},
    {SYS_times, {out(32)}},
    {SYS_getitimer, {none(), out(32)}},
    {SYS_setitimer, {none(), in(32), out(32)}},
    {SYS_timer_create, {none(), in(64), out(4)}},
    {SYS_timer_settime, {none(), none(), in(32), out(32)}},
    {SYS_timer_gettime, {none(), out(32)}},
    {SYS_timerfd_settime, {none(), none(), in(32), out(32)}},
    {SYS_timerfd_gettime, {none(), out(32)}},
    {SYS_sendfile, {none(), none(), inout(8)}},
    {SYS_splice, {none(), inout(8), none(), inout(8)}},
    {SYS_copy_file_range, {none(), inout(8), none(), inout(8)}},
    {SYS_connect, {none(), in_len(2)}},
    {SYS_bind, {none(), in_len(2)}},
    {SYS_accept, {none(), out(kSockaddr), inout(4)}},
    {SYS_accept4, {none(), out(kSockaddr), inout(4)}},
    {SYS_getsockname, {none(), out(kSockaddr), inout(4)}},
    {SYS_getpeername, {none(), out(kSockaddr), inout(4)}},
    {SYS_socketpair, {none(), none(), none(), out(8)}},
    {SYS_setsockopt, {none(), none(), none(), special(ArgKind::kScan, 4, 1)}},
    {SYS_getsockopt, {none(), none(), none(), out(1024), inout(4)}},
    {SYS_wait4, {none(), out(4), none(), out(kRusage)}},
    {SYS_waitid, {none(), none(), out(kSiginfo), none(), out(kRusage)}},
    {SYS_uname, {out(390)}},
    {SYS_getdents, {none(), out_len(2)}},
    {SYS_getdents64, {none(), out_len(2)}},
    {SYS_getcwd, {out_len(1)}},
    {SYS_chdir, {str()}},
    {SYS_rename, {str(), str()}},
    {SYS_renameat, {none(), str(), none(), str()}},
    {SYS_renameat2, {none(), str(), none(), str()}},
    {SYS_mkdir, {str()}},
    {SYS_mkdirat, {none(), str()}},
    {SYS_rmdir, {str()}},
    {SYS_link, {str(), str()}},
    {SYS_linkat, {none(), str(), none(), str()}},
    {SYS_unlink, {str()}},
    {SYS_unlinkat, {none(), str()}},
    {SYS_symlink, {str(), str()}},
    {SYS_symlinkat, {str(), none(), str()}},
    {SYS_readlink, {str(), out_len(2)}},
    {SYS_readlinkat, {none(), str(), out_len(3)}},
    {SYS_chmod, {str()}},
    {SYS_fchmodat, {none(), str()}},
    {SYS_chown, {str()}},
    {SYS_lchown, {str()}},
    {SYS_fchownat, {none(), str()}},
    {SYS_truncate, {str()}},
    {SYS_mknod, {str()}},
    {SYS_mknodat, {none(), str()}},
    {SYS_utime, {str(), in(16)}},
    {SYS_utimes, {str(), in(32)}},
    {SYS_utimensat, {none(), str(), in(32)}},
    {SYS_futimesat, {none(), str(), in(32)}},
    {SYS_chroot, {str()}},
    {SYS_mount, {str(), str(), str(), none(), str()}},
    {SYS_umount2, {str()}},
    {SYS_inotify_add_watch, {none(), str()}},
    {SYS_memfd_create, {str()}},
    {SYS_setxattr, {str(), str(), in_len(3)}},
    {SYS_lsetxattr, {str(), str(), in_len(3)}},
    {SYS_fsetxattr, {none(), str(), in_len(3)}},
    {SYS_getxattr, {str(), str(), out_len(3)}},
    {SYS_lgetxattr, {str(), str(), out_len(3)}},
    {SYS_fgetxattr, {none(), str(), out_len(3)}},
    {SYS_listxattr, {str(), out_len(2)}},
    {SYS_llistxattr, {str(), out_len(2)}},
    {SYS_flistxattr, {none(), out_len(2)}},
    {SYS_removexattr, {str(), str()}},
    {SYS_lremovexattr, {str(), str()}},
    {SYS_fremovexattr, {none(), str()}},
    {SYS_getrlimit, {none(), out(16)}},
    {SYS_setrlimit, {none(), in(16)}},
    {SYS_prlimit64, {none(), none(), in(16), out(16)}},
    {SYS_getrusage, {none(), out(kRusage)}},
    {SYS_sysinfo, {out(112)}},
    {SYS_getgroups, {none(), out_len(0, 4)}},
    {SYS_setgroups, {none(), in_len(0, 4)}},
    {SYS_getresuid, {out(4), out(4), out(4)}},
    {SYS_getresgid, {out(4), out(4), out(4)}},
    {SYS_sethostname, {in_len(1)}},
    {SYS_setdomainname, {in_len(1)}},
    {SYS_rt_sigpending, {out(8)}},
    {SYS_rt_sigtimedwait, {in(8), out(kSiginfo), in(kTimespec)}},
    {SYS_rt_sigqueueinfo, {none(), none(), in(kSiginfo)}},
    {SYS_rt_tgsigqueueinfo, {none(), none(), none(), in(kSiginfo)}},
    {SYS_pidfd_send_signal, {none(), none(), in(kSiginfo)}},
    {SYS_rt_sigsuspend, {in(8)}},
    {SYS_signalfd, {none(), in(8)}},
    {SYS_signalfd4, {none(), in(8)}},
    {SYS_sched_setparam, {none(), in(4)}},
    {SYS_sched_getparam, {none(), out(4)}},
    {SYS_sched_setscheduler, {none(), none(), in(4)}},
    {SYS_sched_rr_get_interval, {none(), out(kTimespec)}},
    {SYS_sched_setaffinity, {none(), none(), in_len(1)}},
    {SYS_sched_getaffinity, {none(), none(), out_len(1)}},
    {SYS_sched_setattr, {none(), in(64)}},
    {SYS_sched_getattr, {none(), out_len(2)}},
    {SYS_futex, {inout(4), none(), none(), in(kTimespec), inout(4)}},
    {SYS_getrandom, {out_len(1)}},
    {SYS_getcpu, {out(4), out(4)}},
    {SYS_name_to_handle_at, {none(), str(), inout(160), out(4)}},
    {SYS_open_by_handle_at, {none(), inout(160)}},
    {SYS_perf_event_open, {in(128)}},
    {SYS_syslog, {none(), out_len(2)}},
    {SYS_add_key, {str(), str(), in_len(3)}},
    {SYS_process_vm_readv, {none(), special(ArgKind::kIovOut, 2), none(), special(ArgKind::kIovIn, 4)}},
    {SYS_process_vm_writev, {none(), special(ArgKind::kIovIn, 2), none(), special(ArgKind::kIovOut, 4)}},
    {SYS_set_tid_address, {inout(4)}},
    {SYS_set_robust_list, {inout(24)}},
    {SYS_get_robust_list, {none(), out(8), out(8)}},
    {SYS_rseq, {inout(32)}},
};

/// Calls whose addresses are not just followed: they are answered by the runtime (memory, signals, exec), or
/// take effect in the caller's own memory.
struct Addresses {
  long nr;
  std::uint8_t arguments;  // bit i: argument i
};
constexpr Addresses kAddresses[] = {
    {SYS_mmap, 1},           {SYS_munmap, 1},       {SYS_mprotect, 1}, {SYS_madvise, 1},     {SYS_mremap, 17},
    {SYS_mincore, 5},        {SYS_mlock, 1},        {SYS_mlock2, 1},   {SYS_munlock, 1},     {SYS_msync, 1},
    {SYS_rt_sigprocmask, 6}, {SYS_rt_sigaction, 6}, {SYS_execve, 7},   {SYS_sigaltstack, 3}, {SYS_clone, 2},
    {SYS_clone3, 1},         {SYS_arch_prctl, 2},
};

/// Calls that take no address at all.
constexpr long kPlain[] = {
    SYS_close,
    SYS_close_range,
    SYS_lseek,
    SYS_dup,
    SYS_dup2,
    SYS_dup3,
    SYS_fsync,
    SYS_fdatasync,
    SYS_sync,
    SYS_syncfs,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_flock,
    SYS_fadvise64,
    SYS_readahead,
    SYS_fchmod,
    SYS_fchown,
    SYS_fchdir,
    SYS_umask,
    SYS_brk,
    SYS_sched_yield,
    SYS_getpid,
    SYS_gettid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getpgrp,
    SYS_getpgid,
    SYS_setpgid,
    SYS_getsid,
    SYS_setsid,
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_kill,
    SYS_tkill,
    SYS_tgkill,
    SYS_alarm,
    SYS_pause,
    SYS_socket,
    SYS_listen,
    SYS_shutdown,
    SYS_epoll_create,
    SYS_epoll_create1,
    SYS_eventfd,
    SYS_eventfd2,
    SYS_inotify_init,
    SYS_inotify_init1,
    SYS_inotify_rm_watch,
    SYS_getpriority,
    SYS_setpriority,
    SYS_personality,
    SYS_timer_delete,
    SYS_timerfd_create,
    SYS_timer_getoverrun,
    SYS_fork,
    SYS_vfork,
    SYS_rt_sigreturn,
    SYS_exit,
    SYS_exit_group,
    SYS_restart_syscall,
    SYS_membarrier,
    SYS_mlockall,
    SYS_munlockall,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
};

struct Table {
  std::array<CallSpec, kSyscallTableSize> rows{};
  std::array<std::uint8_t, kSyscallTableSize> addresses{};
  CallSpec unknown{};
  constexpr Table() {
    for (auto& arg : unknown.args) arg = guess();
    for (auto& row : rows) row = unknown;
    for (const Row& r : kRows) {
      CallSpec& row = rows[static_cast<std::size_t>(r.nr)];
      for (std::size_t i = 0; i < 6; ++i) row.args[i] = r.args[i];
      row.transfer = r.transfer;
    }
    addresses.fill(kAllArguments);
    for (const Row& r : kRows) {
      unsigned mask = 0;
      for (std::size_t i = 0; i < 6; ++i) mask |= (r.args[i].kind != ArgKind::kNone ? 1U : 0U) << i;
      addresses[static_cast<std::size_t>(r.nr)] = static_cast<std::uint8_t>(mask);
    }
    for (const Addresses& a : kAddresses) addresses[static_cast<std::size_t>(a.nr)] = a.arguments;
    for (const long nr : kPlain) addresses[static_cast<std::size_t>(nr)] = 0;
  }
};
constexpr Table kTable;

}  // namespace

const CallSpec& call_spec(long nr) {
  return nr >= 0 && nr < kSyscallTableSize ? kTable.rows[static_cast<std::size_t>(nr)] : kTable.unknown;
}

unsigned address_arguments(long nr) {
  return nr >= 0 && nr < kSyscallTableSize ? kTable.addresses[static_cast<std::size_t>(nr)] : kAllArguments;
}

}  // namespace enchilada::runtime
