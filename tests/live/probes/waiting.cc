// Probes of calls that wait: many threads in calls with large buffers must leave the others memory to run in.
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <atomic>
#include <vector>

#include "probe.h"

namespace {

constexpr size_t kBuffer = size_t{1} << 20;
constexpr int kThreads = 96;  // together six times what the managed run has

using Transfer = ssize_t (*)(int fd, char* buffer, size_t bytes);

struct Waiter {
  int fd[2];
  char* buffer;
  Transfer transfer;
  ssize_t result;
  pthread_t thread;
};

std::atomic<int> under_way;

template <auto call>
ssize_t plainly(int fd, char* at, size_t n) {
  return call(fd, at, n);
}
template <auto call>
ssize_t by_socket(int fd, char* at, size_t n) {
  return call(fd, at, n, 0);
}
template <auto call>
ssize_t by_vector(int fd, char* at, size_t n) {
  iovec parts[2] = {{at, n / 2}, {at + n / 2, n - n / 2}};
  return call(fd, parts, 2);
}
template <auto call>
ssize_t by_message(int fd, char* at, size_t n) {
  iovec part = {at, n};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return call(fd, &message, 0);
}
template <long nr>
ssize_t without_libc(int fd, char* at, size_t n) {
  ssize_t result;
  asm volatile("syscall" : "=a"(result) : "a"(nr), "D"(fd), "S"(at), "d"(n) : "rcx", "r11", "memory");
  return result;
}
ssize_t receive_all(int fd, char* at, size_t n) {
  return recv(fd, at, n, MSG_WAITALL);
}

void* wait_in_call(void* raw) {
  auto* w = static_cast<Waiter*>(raw);
  ++under_way;
  w->result = w->transfer(w->fd[0], w->buffer, kBuffer);
  return nullptr;
}

/// kThreads threads in calls of these kinds, by turns; `fd[0]` is their end. Sockets for the second half.
std::vector<Waiter> start(const Transfer (&kinds)[6], uint64_t seed) {
  std::vector<Waiter> waiters(kThreads);
  under_way = 0;
  for (int i = 0; i < kThreads; ++i) {
    Waiter& w = waiters[static_cast<size_t>(i)];
    w.transfer = kinds[i % 6];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, w.fd), 0);
    w.buffer = probe::map(kBuffer);
    probe::fill(w.buffer, kBuffer, seed + static_cast<uint64_t>(i));
  }
  for (Waiter& w : waiters) EXPECT_EQ(pthread_create(&w.thread, nullptr, wait_in_call, &w), 0);
  while (under_way != kThreads) usleep(1000);
  usleep(100'000);  // most of them wait by now
  return waiters;
}

void finish(std::vector<Waiter>& waiters) {
  for (Waiter& w : waiters) {
    close(w.fd[0]);
    close(w.fd[1]);
    munmap(w.buffer, kBuffer);
  }
}

}  // namespace

PROBE(threads_waiting_for_data_leave_memory_to_others) {
  auto waiters = start({plainly<read>, by_socket<recv>, by_vector<readv>, by_message<recvmsg>,
                        without_libc<SYS_read>, plainly<read>},
                       100);
  probe::push_out();
  for (Waiter& w : waiters) EXPECT_EQ(write(w.fd[1], "hello", 5), 5);
  for (size_t i = 0; i < waiters.size(); ++i) {
    Waiter& w = waiters[i];
    pthread_join(w.thread, nullptr);
    EXPECT_EQ(w.result, 5);
    EXPECT_EQ(memcmp(w.buffer, "hello", 5), 0);
    probe::fill(w.buffer, 8, 100 + i);  // the rest is as it was
    EXPECT_PATTERN(w.buffer, kBuffer, 100 + i);
  }
  finish(waiters);
}

PROBE(threads_waiting_for_room_leave_memory_to_others) {
  auto waiters = start({plainly<write>, by_socket<send>, by_vector<writev>, by_message<sendmsg>,
                        without_libc<SYS_write>, plainly<write>},
                       200);
  probe::push_out();
  char* got = probe::map(kBuffer);
  for (size_t i = 0; i < waiters.size(); ++i) {
    Waiter& w = waiters[i];
    EXPECT_EQ(recv(w.fd[1], got, kBuffer, MSG_WAITALL), (ssize_t)kBuffer);
    EXPECT_PATTERN(got, kBuffer, 200 + i);
    pthread_join(w.thread, nullptr);
    EXPECT_EQ(w.result, (ssize_t)kBuffer);
  }
  finish(waiters);
}

PROBE(threads_that_want_all_of_it_get_all_of_it) {
  auto waiters = start({receive_all, receive_all, receive_all, receive_all, receive_all, receive_all}, 300);
  probe::push_out();
  char* sent = probe::map(kBuffer);
  for (size_t i = 0; i < waiters.size(); ++i) {
    Waiter& w = waiters[i];
    probe::fill(sent, kBuffer, 400 + i);
    EXPECT_EQ(write(w.fd[1], sent, kBuffer), (ssize_t)kBuffer);
    pthread_join(w.thread, nullptr);
    EXPECT_EQ(w.result, (ssize_t)kBuffer);
    EXPECT_PATTERN(w.buffer, kBuffer, 400 + i);
  }
  finish(waiters);
}

PROBE(a_pipe_with_less_than_was_asked_for_answers_at_once) {
  int fd[2];
  EXPECT_EQ(pipe(fd), 0);
  const long room = fcntl(fd[1], F_SETPIPE_SZ, 256 << 10);
  const size_t held = room > 0 ? static_cast<size_t>(room) : 65536;
  char* buffer = probe::heap(4 * held);
  probe::push_out();
  // As much as one piece, or several: a call that went on to the next piece would wait for ever.
  for (const size_t bytes : {size_t{5}, size_t{4096}, size_t{65536}, held}) {
    probe::fill(buffer, bytes, bytes);
    EXPECT_EQ(write(fd[1], buffer, bytes), (ssize_t)bytes);
    memset(buffer, 0, bytes);
    size_t got = 0;
    while (got < bytes) {
      const ssize_t n = read(fd[0], buffer + got, 4 * held - got);
      EXPECT(n > 0);
      got += static_cast<size_t>(n);
    }
    EXPECT_EQ(got, bytes);
    EXPECT_PATTERN(buffer, bytes, bytes);  // whole words of it
  }
  close(fd[0]);
  close(fd[1]);
}

PROBE(many_threads_read_large_pieces_of_a_file) {
  static int file = probe::scratch_file();
  char* content = probe::map(kBuffer);
  probe::fill(content, kBuffer, 7);
  EXPECT_EQ(write(file, content, kBuffer), (ssize_t)kBuffer);
  std::vector<pthread_t> threads(kThreads);
  for (pthread_t& t : threads) {
    EXPECT_EQ(pthread_create(
                  &t, nullptr,
                  [](void*) -> void* {
                    char* at = probe::map(kBuffer);
                    for (int round = 0; round < 3; ++round) {
                      EXPECT_EQ(pread(file, at, kBuffer, 0), (ssize_t)kBuffer);
                      EXPECT_PATTERN(at, kBuffer, 7);
                    }
                    return nullptr;
                  },
                  nullptr),
              0);
  }
  for (pthread_t t : threads) pthread_join(t, nullptr);
}
