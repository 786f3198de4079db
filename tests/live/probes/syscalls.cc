// Probes of system calls whose arguments lie in memory that is paged out: data, structures, paths, nested
// pointers.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "probe.h"

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

struct Pipe {
  int in = -1, out = -1;
  Pipe() {
    int ends[2];
    EXPECT(pipe(ends) == 0);
    in = ends[0];
    out = ends[1];
  }
};

std::string scratch_path(const char* stem) {
  return scratch_folder() + "/probe-" + stem + "-" + std::to_string(getpid());
}

struct Drain {  // a thread that reads a descriptor to its end and checks the pattern
  int fd;
  uint64_t seed;
  size_t total = 0;
  pthread_t thread{};
  static void* run(void* self_pointer) {
    auto* self = static_cast<Drain*>(self_pointer);
    std::vector<char> all;
    char part[65536];
    ssize_t n;
    while ((n = read(self->fd, part, sizeof part)) > 0) all.insert(all.end(), part, part + n);
    self->total = all.size();
    EXPECT(n == 0);
    EXPECT_PATTERN(all.data(), all.size(), self->seed);
    return nullptr;
  }
};

}  // namespace

PROBE(read_and_write_absent_pages) {
  const size_t bytes = ram();
  int fd = scratch_file();
  char* p = heap(bytes);
  fill(p, bytes, 1);
  push_out();
  EXPECT_EQ(write(fd, p, bytes), static_cast<ssize_t>(bytes));
  char* q = heap(bytes);
  push_out();
  EXPECT_EQ(pread(fd, q, bytes, 0), static_cast<ssize_t>(bytes));  // into pages that were never touched
  EXPECT_PATTERN(q, bytes, 1);
  memset(q, 0, bytes);
  push_out();
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(read(fd, q, bytes), static_cast<ssize_t>(bytes));  // into pages that are out
  EXPECT_PATTERN(q, bytes, 1);
  push_out();
  EXPECT_EQ(pwrite(fd, q + 4000, 8192, 777), 8192);
  char some[8192];
  EXPECT_EQ(pread(fd, some, 8192, 777), 8192);
  EXPECT(memcmp(some, q + 4000, 8192) == 0);
}

PROBE(read_hundred_megabytes_in_one_call) {
  const size_t bytes = std::max(100 * kMiB, 5 * ram());
  int fd = scratch_file();
  char* p = heap(bytes);
  fill(p, bytes, 2);
  EXPECT_EQ(write(fd, p, bytes), static_cast<ssize_t>(bytes));  // and out of the heap in one call
  char* q = map(bytes);
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(read(fd, q, bytes), static_cast<ssize_t>(bytes));
  EXPECT_PATTERN(q, bytes, 2);
  EXPECT_PATTERN(p, bytes, 2);
}

PROBE(write_64_megabytes_to_a_pipe) {
  const size_t bytes = std::max(64 * kMiB, 4 * ram());
  char* p = heap(bytes);
  fill(p, bytes, 3);
  Pipe pipe;
  Drain drain{pipe.in, 3};
  EXPECT(pthread_create(&drain.thread, nullptr, Drain::run, &drain) == 0);
  EXPECT_EQ(write(pipe.out, p, bytes), static_cast<ssize_t>(bytes));  // a blocking write takes all
  EXPECT(close(pipe.out) == 0);
  EXPECT(pthread_join(drain.thread, nullptr) == 0);
  EXPECT_EQ(drain.total, bytes);
  EXPECT_PATTERN(p, bytes, 3);
}

PROBE(big_transfers_over_a_socket) {
  const size_t bytes = 2 * ram();
  char* p = heap(bytes);
  fill(p, bytes, 4);
  int ends[2];
  EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Drain drain{ends[0], 4};
  EXPECT(pthread_create(&drain.thread, nullptr, Drain::run, &drain) == 0);
  for (size_t sent = 0; sent < bytes;) {
    ssize_t n = send(ends[1], p + sent, bytes - sent, 0);
    EXPECT(n > 0);
    sent += static_cast<size_t>(n);
  }
  EXPECT(close(ends[1]) == 0);
  EXPECT(pthread_join(drain.thread, nullptr) == 0);
  EXPECT_EQ(drain.total, bytes);
}

PROBE(readv_and_writev) {
  const size_t count = 64, part = ram() / 64 / 4096 * 4096;
  auto* io = reinterpret_cast<iovec*>(heap(count * sizeof(iovec)));
  std::vector<char*> parts;
  for (size_t i = 0; i < count; i++) {
    parts.push_back(map(part));
    fill(parts[i], part, i);
    io[i] = {parts[i], part};
  }
  int fd = scratch_file();
  push_out();
  EXPECT_EQ(writev(fd, io, count), static_cast<ssize_t>(count * part));
  for (char* p : parts) memset(p, 0, part);
  std::reverse(io, io + count);
  push_out();
  EXPECT_EQ(preadv(fd, io, count, 0), static_cast<ssize_t>(count * part));
  for (size_t i = 0; i < count; i++) EXPECT_PATTERN(parts[i], part, count - 1 - i);
  iovec on_stack[3] = {
      {parts[0], part}, {parts[1], part}, {parts[2], part}};  // only the pointers inside are ours
  push_out();
  EXPECT_EQ(pwritev(fd, on_stack, 3, 0), static_cast<ssize_t>(3 * part));
  memset(parts[5], 0, part);
  push_out();
  on_stack[0].iov_base = parts[5];
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  EXPECT_EQ(readv(fd, on_stack, 1), static_cast<ssize_t>(part));
  EXPECT_PATTERN(parts[5], part, count - 1);
  push_out();
  EXPECT_EQ(preadv2(fd, on_stack, 1, 0, 0), static_cast<ssize_t>(part));
}

PROBE(messages_with_nested_pointers) {
  int ends[2];
  EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  auto* data = heap(60000);
  fill(data, 60000, 5);
  auto* io = on_heap(iovec{data, 60000});
  auto* message = on_heap(msghdr{});
  char* control = heap(CMSG_SPACE(sizeof(int)));
  memset(control, 0, CMSG_SPACE(sizeof(int)));
  message->msg_iov = io;
  message->msg_iovlen = 1;
  message->msg_control = control;
  message->msg_controllen = CMSG_SPACE(sizeof(int));
  cmsghdr* first = CMSG_FIRSTHDR(message);
  first->cmsg_level = SOL_SOCKET;
  first->cmsg_type = SCM_RIGHTS;
  first->cmsg_len = CMSG_LEN(sizeof(int));
  int passed = scratch_file();
  memcpy(CMSG_DATA(first), &passed, sizeof passed);
  push_out();
  EXPECT_EQ(sendmsg(ends[0], message, 0), 60000);
  memset(data, 0, 60000);
  memset(control, 0, CMSG_SPACE(sizeof(int)));
  push_out();
  EXPECT_EQ(recvmsg(ends[1], message, 0), 60000);
  EXPECT_PATTERN(data, 60000, 5);
  first = CMSG_FIRSTHDR(message);
  EXPECT(first && first->cmsg_type == SCM_RIGHTS);
  int got;
  memcpy(&got, CMSG_DATA(first), sizeof got);
  EXPECT(got > passed && fcntl(got, F_GETFD) >= 0);
  // Header on the stack, everything else on the heap; then several at once.
  msghdr here{};
  here.msg_iov = io;
  here.msg_iovlen = 1;
  push_out();
  EXPECT_EQ(sendmsg(ends[0], &here, 0), 60000);
  push_out();
  EXPECT_EQ(recv(ends[1], data, 60000, 0), 60000);
  EXPECT_PATTERN(data, 60000, 5);
  auto* several = reinterpret_cast<mmsghdr*>(heap(4 * sizeof(mmsghdr)));
  memset(several, 0, 4 * sizeof(mmsghdr));
  char* pieces[4];
  for (int i = 0; i < 4; i++) {
    pieces[i] = heap(8192);
    fill(pieces[i], 8192, static_cast<uint64_t>(i));
    several[i].msg_hdr.msg_iov = on_heap(iovec{pieces[i], 8192});
    several[i].msg_hdr.msg_iovlen = 1;
  }
  push_out();
  EXPECT_EQ(sendmmsg(ends[0], several, 4, 0), 4);
  for (char* piece : pieces) memset(piece, 0, 8192);
  push_out();
  EXPECT_EQ(recvmmsg(ends[1], several, 4, 0, on_heap(timespec{5, 0})), 4);
  for (int i = 0; i < 4; i++) {
    EXPECT_EQ(several[i].msg_len, 8192u);
    EXPECT_PATTERN(pieces[i], 8192, static_cast<uint64_t>(i));
  }
}

PROBE(paths_and_stat_structures) {
  char* path = heap_string(scratch_path("paths"));
  char* other = heap_string(scratch_path("other"));
  push_out();
  int fd = open(path, O_CREAT | O_RDWR | O_EXCL, 0600);
  EXPECT(fd >= 0);
  EXPECT_EQ(write(fd, path, 10), 10);
  auto* st = on_heap<struct stat>();
  push_out();
  EXPECT(stat(path, st) == 0 && st->st_size == 10);
  push_out();
  EXPECT(fstat(fd, st) == 0 && st->st_size == 10);
  auto* stx = on_heap<struct statx>();
  push_out();
  EXPECT(statx(AT_FDCWD, path, 0, STATX_SIZE, stx) == 0 && stx->stx_size == 10);
  EXPECT(access(path, R_OK) == 0);
  push_out();
  EXPECT(rename(path, other) == 0);
  EXPECT(symlink(other, path) == 0);
  char* link = heap(4096);
  push_out();
  EXPECT(readlink(path, link, 4096) == static_cast<ssize_t>(strlen(other)));
  EXPECT(memcmp(link, other, strlen(other)) == 0);
  push_out();
  char* real = realpath(path, nullptr);
  EXPECT(real != nullptr);
  auto* fs = on_heap<struct statvfs>();
  push_out();
  EXPECT(statvfs(other, fs) == 0 && fs->f_bsize > 0);
  EXPECT(getcwd(link, 4096) == link && link[0] == '/');
  auto* times = reinterpret_cast<timespec*>(heap(2 * sizeof(timespec)));
  times[0] = times[1] = {1000000000, 0};
  push_out();
  EXPECT(utimensat(AT_FDCWD, other, times, 0) == 0);
  EXPECT(stat(other, st) == 0 && st->st_mtim.tv_sec == 1000000000);
  push_out();
  EXPECT(unlink(path) == 0);
  EXPECT(unlink(other) == 0);
  errno = 0;
  push_out();
  EXPECT(open(path, O_RDONLY) == -1 && errno == ENOENT);
}

PROBE(directories) {
  std::string folder = scratch_path("dir");
  EXPECT(mkdir(folder.c_str(), 0700) == 0);
  for (int i = 0; i < 300; i++)
    EXPECT(close(creat((folder + "/entry" + std::to_string(i)).c_str(), 0600)) == 0);
  DIR* dir = opendir(folder.c_str());
  EXPECT(dir != nullptr);
  int seen = 0;
  while (dirent* entry = readdir(dir)) {
    seen += entry->d_name[0] != '.';
    if (seen % 100 == 50) push_out();
  }
  EXPECT_EQ(seen, 300);
  EXPECT(closedir(dir) == 0);
  int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  char* buffer = heap(65536);
  push_out();
  EXPECT(syscall(SYS_getdents64, fd, buffer, 65536) > 3000);
  for (int i = 0; i < 300; i++) EXPECT(unlink((folder + "/entry" + std::to_string(i)).c_str()) == 0);
  EXPECT(rmdir(folder.c_str()) == 0);
}

PROBE(getrandom_fills_the_heap) {
  const size_t bytes = 3 * kMiB;
  char* p = heap(bytes);
  memset(p, 0, bytes);
  push_out();
  for (size_t done = 0; done < bytes;) {
    ssize_t n = getrandom(p + done, bytes - done, 0);
    EXPECT(n > 0);
    done += static_cast<size_t>(n);
  }
  for (size_t i = 0; i < bytes; i += 4096) EXPECT(first_nonzero(p + i, 64) >= 0);
}

PROBE(poll_select_epoll) {
  Pipe a, b;
  EXPECT_EQ(write(b.out, "x", 1), 1);
  auto* fds = reinterpret_cast<pollfd*>(heap(2 * sizeof(pollfd)));
  fds[0] = {a.in, POLLIN, 0};
  fds[1] = {b.in, POLLIN, 0};
  push_out();
  EXPECT_EQ(poll(fds, 2, 1000), 1);
  EXPECT(fds[0].revents == 0 && fds[1].revents == POLLIN);
  auto* set = on_heap(fd_set{});
  FD_ZERO(set);
  FD_SET(a.in, set);
  FD_SET(b.in, set);
  auto* wait = on_heap(timeval{1, 0});
  push_out();
  EXPECT_EQ(select(b.out + 1, set, nullptr, nullptr, wait), 1);
  EXPECT(!FD_ISSET(a.in, set) && FD_ISSET(b.in, set));
  FD_SET(b.in, set);
  auto* pwait = on_heap(timespec{1, 0});
  auto* mask = on_heap(sigset_t{});
  sigemptyset(mask);
  push_out();
  EXPECT_EQ(pselect(b.out + 1, set, nullptr, nullptr, pwait, mask), 1);
  int ep = epoll_create1(EPOLL_CLOEXEC);
  auto* event = on_heap(epoll_event{});
  for (int fd : {a.in, b.in}) {
    *event = {EPOLLIN, {.u64 = 1000u + static_cast<uint64_t>(fd)}};
    push_out();
    EXPECT(epoll_ctl(ep, EPOLL_CTL_ADD, fd, event) == 0);
  }
  auto* events = reinterpret_cast<epoll_event*>(heap(512 * sizeof(epoll_event)));
  push_out();
  EXPECT_EQ(epoll_wait(ep, events, 512, 1000), 1);
  EXPECT_EQ(uint64_t{events[0].data.u64}, 1000u + static_cast<uint64_t>(b.in));
  push_out();
  EXPECT_EQ(epoll_pwait(ep, events, 512, 1000, mask), 1);
}

PROBE(sendfile_splice_and_copies) {
  int from = scratch_file(), to = scratch_file();
  char* p = heap(kMiB);
  fill(p, kMiB, 6);
  EXPECT_EQ(write(from, p, kMiB), static_cast<ssize_t>(kMiB));
  auto* offset = on_heap(off_t{4096});
  push_out();
  EXPECT_EQ(sendfile(to, from, offset, kMiB - 4096), static_cast<ssize_t>(kMiB - 4096));
  EXPECT_EQ(*offset, static_cast<off_t>(kMiB));
  char* q = heap(kMiB);
  push_out();
  EXPECT_EQ(pread(to, q, kMiB, 0), static_cast<ssize_t>(kMiB - 4096));
  EXPECT(memcmp(q, p + 4096, kMiB - 4096) == 0);
  auto* in = on_heap(loff_t{0});
  auto* out = on_heap(loff_t{0});
  push_out();
  EXPECT(copy_file_range(from, in, to, out, 65536, 0) > 0);
  Pipe pipe;
  *in = 8192;
  push_out();
  EXPECT_EQ(splice(from, in, pipe.out, nullptr, 4096, 0), 4096);
  EXPECT_EQ(*in, 12288);
  push_out();
  EXPECT_EQ(read(pipe.in, q, 4096), 4096);
  EXPECT(memcmp(q, p + 8192, 4096) == 0);
}

PROBE(vmsplice_delivers_what_was_given) {
  Pipe pipe;
  char* p = map(16 * 4096);
  for (int round = 0; round < 20; round++) {
    fill(p, 8 * 4096, static_cast<uint64_t>(round));
    auto* io = on_heap(iovec{p, 8 * 4096});
    EXPECT_EQ(vmsplice(pipe.out, io, 1, 0), 8 * 4096);
    push_out();  // the page leaves while the pipe still refers to it
    static char got[8 * 4096];
    for (size_t n = 0; n < sizeof got;) {
      ssize_t part = read(pipe.in, got + n, sizeof got - n);
      EXPECT(part > 0);
      n += static_cast<size_t>(part);
    }
    EXPECT_PATTERN(got, sizeof got, static_cast<uint64_t>(round));
    free(io);
  }
}

PROBE_CALM(io_uring_is_refused) {
  io_uring_params params{};
  errno = 0;
  long fd = syscall(SYS_io_uring_setup, 4, &params);
  if (live()) EXPECT(fd == -1 && errno == ENOSYS);
  errno = 0;
  unsigned long context = 0;
  long aio = syscall(SYS_io_setup, 4, &context);
  if (live()) EXPECT(aio == -1 && errno == ENOSYS);
}

PROBE(bad_pointers_get_efault) {
  int fd = scratch_file();
  char* p = map(4 * 4096);
  fill(p, 4 * 4096, 7);
  EXPECT(munmap(p + 2 * 4096, 4096) == 0);
  push_out();
  errno = 0;
  EXPECT(write(fd, reinterpret_cast<void*>(8), 10) == -1 && errno == EFAULT);
  errno = 0;
  EXPECT(write(fd, p + 2 * 4096, 10) == -1 && errno == EFAULT);  // a hole
  EXPECT_EQ(write(fd, p + 4096, 2 * 4096), 4096);                // half good: what can be written is
  EXPECT(mprotect(p, 4096, PROT_READ) == 0);
  push_out();
  EXPECT_EQ(lseek(fd, 0, SEEK_SET), 0);
  errno = 0;
  EXPECT(read(fd, p, 4096) == -1 && errno == EFAULT);  // read-only memory cannot be read into
  EXPECT_EQ(pwrite(fd, p, 4096, 0), 4096);             // but written out
  EXPECT(mprotect(p, 4096, PROT_NONE) == 0);
  errno = 0;
  EXPECT(pwrite(fd, p, 4096, 0) == -1 && errno == EFAULT);
  errno = 0;
  EXPECT(open(p + 2 * 4096, O_RDONLY) == -1 && errno == EFAULT);
  EXPECT(mprotect(p, 4096, PROT_READ | PROT_WRITE) == 0);
  EXPECT_PATTERN(p, 4096, 7);
  char* last = map(2 * 4096);  // a string that ends exactly at the end of its mapping
  EXPECT(munmap(last + 4096, 4096) == 0);
  strcpy(last + 4096 - 10, "/dev/null");
  push_out();
  int null = open(last + 4096 - 10, O_RDONLY);
  EXPECT(null >= 0);
}

PROBE(direct_io_into_the_heap) {
  std::string path = scratch_path("direct");
  int fd = open(path.c_str(), O_CREAT | O_RDWR | O_DIRECT, 0600);
  if (fd < 0) return;  // no direct I/O on this file system
  EXPECT(unlink(path.c_str()) == 0);
  const size_t bytes = ram();
  auto* p = static_cast<char*>(aligned_alloc(4096, bytes));
  fill(p, bytes, 8);
  push_out();
  ssize_t n = write(fd, p, bytes);
  if (n < 0 && errno == EINVAL) return;
  EXPECT_EQ(n, static_cast<ssize_t>(bytes));
  memset(p, 0, bytes);
  push_out();
  EXPECT_EQ(pread(fd, p, bytes, 0), static_cast<ssize_t>(bytes));
  push_out();
  EXPECT_PATTERN(p, bytes, 8);
}

PROBE(small_structures_on_the_heap) {
  auto* name = on_heap(utsname{});
  auto* info = on_heap<struct sysinfo>();
  auto* usage = on_heap(rusage{});
  auto* limit = on_heap(rlimit{});
  auto* cpus = on_heap(cpu_set_t{});
  auto* nap = on_heap(timespec{0, 1000});
  auto* left = on_heap(timespec{});
  auto* time_now = on_heap(timespec{});
  auto* day = on_heap(timeval{});
  auto* ticks = on_heap(tms{});
  push_out();
  EXPECT(uname(name) == 0 && !strcmp(name->sysname, "Linux"));
  EXPECT(sysinfo(info) == 0 && info->totalram > 0);
  EXPECT(getrusage(RUSAGE_SELF, usage) == 0 && usage->ru_maxrss > 0);
  EXPECT(getrlimit(RLIMIT_STACK, limit) == 0 && limit->rlim_cur > 0);
  EXPECT(prlimit(0, RLIMIT_CORE, nullptr, limit) == 0 && limit->rlim_cur == 0);
  EXPECT(sched_getaffinity(0, sizeof *cpus, cpus) == 0 && CPU_COUNT(cpus) > 0);
  EXPECT(nanosleep(nap, left) == 0);
  EXPECT(clock_nanosleep(CLOCK_MONOTONIC, 0, nap, nullptr) == 0);
  EXPECT(clock_gettime(CLOCK_REALTIME, time_now) == 0 && time_now->tv_sec > 1600000000);
  EXPECT(gettimeofday(day, nullptr) == 0 && day->tv_sec > 1600000000);
  EXPECT(times(ticks) != static_cast<clock_t>(-1));
  push_out();
  EXPECT(syscall(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, time_now) == 0);
  char* thread_name = heap_string("enchanted");
  char* read_back = heap(16);
  push_out();
  EXPECT(prctl(PR_SET_NAME, thread_name) == 0);
  push_out();
  EXPECT(prctl(PR_GET_NAME, read_back) == 0 && !strcmp(read_back, "enchanted"));
  auto* groups = reinterpret_cast<gid_t*>(heap(65536 * sizeof(gid_t)));
  push_out();
  EXPECT(getgroups(65536, groups) >= 0);
  char* host = heap(256);
  push_out();
  EXPECT(gethostname(host, 256) == 0);
  auto* lock = on_heap<struct flock>();
  lock->l_type = F_WRLCK;
  int fd = scratch_file();
  push_out();
  EXPECT(fcntl(fd, F_SETLK, lock) == 0);
  EXPECT(fcntl(fd, F_GETLK, lock) == 0 && lock->l_type == F_UNLCK);
}

PROBE(ioctl_structures) {
  Pipe pipe;
  EXPECT_EQ(write(pipe.out, "12345", 5), 5);
  auto* count = on_heap(int{0});
  push_out();
  EXPECT(ioctl(pipe.in, FIONREAD, count) == 0 && *count == 5);
  *count = 1;
  push_out();
  EXPECT(ioctl(pipe.in, FIONBIO, count) == 0);
  int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal >= 0) {
    auto* size = on_heap(winsize{25, 81, 0, 0});
    push_out();
    EXPECT(ioctl(terminal, TIOCSWINSZ, size) == 0);
    *size = {};
    push_out();
    EXPECT(ioctl(terminal, TIOCGWINSZ, size) == 0 && size->ws_col == 81);
  }
  int net = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (net < 0) return;
  auto* list = on_heap(ifconf{});  // a pointer inside the structure: the kernel writes through it
  list->ifc_len = 64 * sizeof(ifreq);
  list->ifc_buf = heap(64 * sizeof(ifreq));
  memset(list->ifc_buf, 0xEE, 64 * sizeof(ifreq));
  push_out();
  EXPECT(ioctl(net, SIOCGIFCONF, list) == 0);
  EXPECT(list->ifc_len % static_cast<int>(sizeof(ifreq)) == 0);
  ifconf on_stack = {};
  on_stack.ifc_len = 64 * sizeof(ifreq);
  on_stack.ifc_buf = list->ifc_buf;
  push_out();
  EXPECT(ioctl(net, SIOCGIFCONF, &on_stack) == 0);
}

PROBE(sockets_with_heap_addresses) {
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
      client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  auto* address = on_heap(sockaddr_un{});
  address->sun_family = AF_UNIX;
  snprintf(address->sun_path + 1, 100, "enchilada-probe-%d", getpid());  // abstract: no file
  auto* size = on_heap(socklen_t{sizeof(sockaddr_un)});
  push_out();
  EXPECT(bind(server, reinterpret_cast<sockaddr*>(address), sizeof *address) == 0);
  EXPECT(listen(server, 5) == 0);
  push_out();
  EXPECT(connect(client, reinterpret_cast<sockaddr*>(address), sizeof *address) == 0);
  auto* peer = on_heap(sockaddr_un{});
  push_out();
  int conversation = accept4(server, reinterpret_cast<sockaddr*>(peer), size, SOCK_CLOEXEC);
  EXPECT(conversation >= 0 && peer->sun_family == AF_UNIX);
  *size = sizeof *peer;
  push_out();
  EXPECT(getsockname(server, reinterpret_cast<sockaddr*>(peer), size) == 0);
  EXPECT(memcmp(peer->sun_path, address->sun_path, 20) == 0);
  auto* option = on_heap(int{1});
  push_out();
  EXPECT(setsockopt(server, SOL_SOCKET, SO_REUSEADDR, option, sizeof *option) == 0);
  *size = sizeof *option;
  *option = 0;
  push_out();
  EXPECT(getsockopt(server, SOL_SOCKET, SO_TYPE, option, size) == 0 && *option == SOCK_STREAM);
  int pair[2];
  EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0);
  char* text = heap_string("to and from");
  push_out();
  EXPECT_EQ(sendto(pair[0], text, 12, 0, nullptr, 0), 12);
  memset(text, 0, 12);
  *size = sizeof *peer;
  push_out();
  EXPECT_EQ(recvfrom(pair[1], text, 12, 0, reinterpret_cast<sockaddr*>(peer), size), 12);
  EXPECT(!strcmp(text, "to and from"));
}

PROBE(timers_events_and_inotify) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  auto* when = on_heap(itimerspec{{0, 0}, {0, 2000000}});
  auto* before = on_heap(itimerspec{});
  push_out();
  EXPECT(timerfd_settime(timer, 0, when, before) == 0);
  auto* count = on_heap(uint64_t{0});
  push_out();
  EXPECT(read(timer, count, 8) == 8 && *count == 1);
  int event = eventfd(0, EFD_CLOEXEC);
  *count = 41;
  push_out();
  EXPECT(write(event, count, 8) == 8);
  *count = 0;
  push_out();
  EXPECT(read(event, count, 8) == 8 && *count == 41);
  int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  char* folder = heap_string(scratch_folder());
  push_out();
  EXPECT(inotify_add_watch(watch, folder, IN_CREATE) >= 0);
  EXPECT(close(scratch_file()) == 0);
  char* events = heap(65536);
  push_out();
  EXPECT(read(watch, events, 65536) > 0);
  timer_t posix_timer;
  auto* notify = on_heap(sigevent{});
  notify->sigev_notify = SIGEV_NONE;
  auto* handle = on_heap(timer_t{});
  push_out();
  EXPECT(timer_create(CLOCK_MONOTONIC, notify, handle) == 0);
  posix_timer = *handle;
  push_out();
  EXPECT(timer_settime(posix_timer, 0, when, before) == 0);
  EXPECT(timer_gettime(posix_timer, before) == 0);
}

PROBE(system_v_messages_and_semaphores) {
  int queue = msgget(IPC_PRIVATE, 0600);
  if (queue < 0) return;
  struct Message {
    long type;
    char text[4096];
  };
  auto* message = on_heap(Message{3, {}});
  fill(message->text, 4096, 9);
  push_out();
  bool sent = msgsnd(queue, message, 4096, 0) == 0;
  memset(message, 0, sizeof *message);
  push_out();
  ssize_t got = msgrcv(queue, message, 4096, 3, 0);
  EXPECT(msgctl(queue, IPC_RMID, nullptr) == 0);
  EXPECT(sent && got == 4096 && message->type == 3);
  EXPECT_PATTERN(message->text, 4096, 9);
  int semaphore = semget(IPC_PRIVATE, 2, 0600);
  EXPECT(semaphore >= 0);
  auto* operations = reinterpret_cast<sembuf*>(heap(2 * sizeof(sembuf)));
  operations[0] = {0, 5, 0};
  operations[1] = {1, 7, 0};
  push_out();
  bool done = semop(semaphore, operations, 2) == 0;
  int value = semctl(semaphore, 1, GETVAL);
  EXPECT(semctl(semaphore, 0, IPC_RMID) == 0);
  EXPECT(done && value == 7);
}

PROBE(reading_another_process) {
  const std::size_t part = ram() / 8;  // both ends of it are held at once
  char* p = heap(part);
  fill(p, part, 10);
  char* q = heap(part);
  push_out();
  auto* local = on_heap(iovec{q, part});
  auto* remote = on_heap(iovec{p, part});
  push_out();
  ssize_t n = process_vm_readv(getpid(), local, 1, remote, 1, 0);
  if (n < 0 && (errno == EPERM || errno == ENOSYS)) return;
  EXPECT_EQ(n, static_cast<ssize_t>(part));
  EXPECT_PATTERN(q, part, 10);
}

PROBE(instruction_instead_of_libc) {
  // As Go and some C libraries do: the system-call instruction in the program's own text.
  const std::size_t part = ram() / 8;
  int fd = scratch_file();
  char* p = heap(part);
  fill(p, part, 11);
  push_out();
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_write), "D"(fd), "S"(p), "d"(part)
               : "rcx", "r11", "memory");
  EXPECT_EQ(result, static_cast<long>(part));
  memset(p, 0, part);
  push_out();
  register long offset asm("r10") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_pread64), "D"(fd), "S"(p), "d"(part), "r"(offset)
               : "rcx", "r11", "memory");
  EXPECT_EQ(result, static_cast<long>(part));
  EXPECT_PATTERN(p, part, 11);
  iovec* io = on_heap(iovec{p, part});
  push_out();
  asm volatile("syscall" : "=a"(result) : "a"(SYS_writev), "D"(fd), "S"(io), "d"(1) : "rcx", "r11", "memory");
  EXPECT_EQ(result, static_cast<long>(part));
}

PROBE(waiting_with_heap_results) {
  auto* status = on_heap(int{0});
  auto* usage = on_heap(rusage{});
  auto* info = on_heap(siginfo_t{});
  for (int round = 0; round < 3; round++) {
    pid_t child = fork();
    if (child == 0) _exit(7);
    push_out();
    if (round == 0) {
      EXPECT(waitpid(child, status, 0) == child && WEXITSTATUS(*status) == 7);
    } else if (round == 1) {
      EXPECT(wait4(child, status, 0, usage) == child && WEXITSTATUS(*status) == 7);
    } else {
      EXPECT(waitid(P_PID, static_cast<id_t>(child), info, WEXITED) == 0);
      EXPECT(info->si_pid == child && info->si_status == 7);
    }
  }
}

PROBE(stdio_with_heap_buffers) {
  FILE* file = fdopen(scratch_file(), "w+");
  EXPECT(file != nullptr);
  char* buffer = heap(3 * kMiB);
  EXPECT(setvbuf(file, buffer, _IOFBF, 3 * kMiB) == 0);
  for (int i = 0; i < 200000; i++) {
    fprintf(file, "line %d\n", i);
    if (i % 50000 == 0) push_out();
  }
  EXPECT(fflush(file) == 0);
  rewind(file);
  char* line = nullptr;
  size_t room = 0;
  for (int i = 0; i < 200000; i++) {
    EXPECT(getline(&line, &room, file) > 0);
    if (i % 50000 == 1) push_out();
    if (i % 1000 == 0) EXPECT(atoi(line + 5) == i);
  }
  EXPECT(fclose(file) == 0);
  char* formatted = nullptr;
  EXPECT(asprintf(&formatted, "%s-%d", "heap", 42) == 7);
  push_out();
  EXPECT(!strcmp(formatted, "heap-42"));
}

/// Does this thread of ours sleep in system call `number` with `first` as its first argument?
static bool sleeps_in_call(pid_t thread, long number, const void* first) {
  const std::string path = "/proc/self/task/" + std::to_string(thread) + "/syscall";
  char text[500] = {};
  const int fd = open(path.c_str(), O_RDONLY);
  EXPECT(fd >= 0 && read(fd, text, sizeof text - 1) > 0 && close(fd) == 0);
  long seen = -1;
  unsigned long argument = 0;
  return sscanf(text, "%ld %lx", &seen, &argument) == 2 && seen == number &&
         argument == reinterpret_cast<uintptr_t>(first);
}

PROBE(futex_words_on_the_heap) {
  static int* word;
  static std::atomic<pid_t> sleeper;
  word = on_heap(int{0});
  pthread_t thread;
  for (int shared = 0; shared < 2; shared++) {
    static int wait_operation;
    wait_operation = shared ? FUTEX_WAIT : FUTEX_WAIT_PRIVATE;
    *word = 0;
    sleeper = 0;
    EXPECT(pthread_create(
               &thread, nullptr,
               [](void*) -> void* {
                 sleeper = gettid();
                 while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 0) {
                   syscall(SYS_futex, word, wait_operation, 0, nullptr, nullptr, 0);
                 }
                 return nullptr;
               },
               nullptr) == 0);
    while (sleeper == 0 || !sleeps_in_call(sleeper, SYS_futex, word)) usleep(1000);
    push_out();  // the word leaves while a thread sleeps on it
    __atomic_store_n(word, 1, __ATOMIC_RELEASE);
    push_out();  // and is out when it is to be woken
    long woken = syscall(SYS_futex, word, shared ? FUTEX_WAKE : FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    EXPECT_EQ(woken, 1);
    EXPECT(pthread_join(thread, nullptr) == 0);
  }
  *word = 5;
  push_out();
  errno = 0;
  EXPECT(syscall(SYS_futex, word, FUTEX_WAIT, 4, nullptr, nullptr, 0) == -1 && errno == EAGAIN);
  auto* limit = on_heap(timespec{0, 1000000});
  push_out();
  errno = 0;
  EXPECT(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 5, limit, nullptr, 0) == -1 && errno == ETIMEDOUT);
#ifdef SYS_futex_waitv
  struct Waiter {
    uint64_t value, address;
    uint32_t flags, reserved;
  };
  auto* waiter = on_heap(Waiter{4, reinterpret_cast<uintptr_t>(word), 2 /* 32 bits */, 0});
  push_out();
  errno = 0;
  EXPECT(syscall(SYS_futex_waitv, waiter, 1, 0, nullptr, CLOCK_MONOTONIC) == -1 &&
         (errno == EAGAIN || errno == ENOSYS));
#endif
}
