// Rings of one entry each, made when first needed. Invariants: see io_ring.h.
#include "swap/io_ring.h"

#include <sys/syscall.h>

namespace enchilada {
namespace {

// How long a finisher looks before it sleeps: about what a solid-state disk takes. A halted CPU costs more to
// wake (on a virtual machine 10 us and more) than the rest of the wait.
constexpr unsigned kLooks = 3000;

}  // namespace

IoRings::IoRings(Config config) : config_(config), owner_(raw_syscall(SYS_getpid)) {}

bool IoRings::claim(Ring& ring) {
  State state = ring.state.load(std::memory_order_relaxed);
  if (state != State::kFree && state != State::kUnmade) return false;
  if (!ring.state.compare_exchange_strong(state, State::kBusy, std::memory_order_acquire)) return false;
  if (state == State::kFree || make(ring)) return true;
  ring.state.store(State::kBroken, std::memory_order_release);
  return false;
}

bool IoRings::make(Ring& ring) const {
  io_uring_params params{};
  const int fd =
      raise_descriptor(config_.call(SYS_io_uring_setup, 1, reinterpret_cast<long>(&params), 0, 0, 0, 0),
                       config_.lowest_descriptor);
  if (fd < 0) return false;
  if (io_uring_queue_mmap(fd, &params, &ring.ring) != 0) {
    raw_syscall(SYS_close, fd);
    return false;
  }
  if (io_uring_ring_dontfork(&ring.ring) == 0) return true;
  io_uring_queue_exit(&ring.ring);
  return false;
}

IoRings::Pending IoRings::begin(int fd, std::byte* to, std::size_t bytes, std::uint64_t offset) {
  Pending read;
  if (raw_syscall(SYS_getpid) != owner_) return read;
  for (unsigned i = 0; i < kRings; ++i) {
    Ring& ring = rings_[i];
    if (!claim(ring)) continue;
    io_uring_sqe* const entry = io_uring_get_sqe(&ring.ring);
    if (entry != nullptr) io_uring_prep_read(entry, fd, to, static_cast<unsigned>(bytes), offset);
    if (entry == nullptr || io_uring_submit(&ring.ring) != 1) {
      // The program may have closed our descriptor. What is in the ring was not looked at, and never will be.
      ring.state.store(State::kBroken, std::memory_order_release);
      continue;
    }
    read.number_ = static_cast<int>(i);
    return read;
  }
  return read;
}

long IoRings::finish(Pending read) {
  Ring& ring = rings_[static_cast<unsigned>(read.number_)];
  io_uring_cqe* answer = nullptr;
  for (unsigned look = 0; look < kLooks; ++look) {
    if (io_uring_peek_cqe(&ring.ring, &answer) == 0) break;
    __builtin_ia32_pause();
  }
  State next = State::kFree;
  while (answer == nullptr) {
    const int result = io_uring_wait_cqe(&ring.ring, &answer);
    if (result == 0 || answer != nullptr) break;
    if (result == -EINTR || result == -EAGAIN) continue;
    // The descriptor is gone, but our mapping keeps the ring alive: the answer comes.
    next = State::kBroken;
    raw_syscall(kSysSchedYield);
    (void)io_uring_peek_cqe(&ring.ring, &answer);
  }
  const long bytes = answer->res;
  io_uring_cqe_seen(&ring.ring, answer);
  ring.state.store(next, std::memory_order_release);
  return bytes;
}

void IoRings::forget_after_fork() {
  owner_ = raw_syscall(SYS_getpid);
  for (Ring& ring : rings_) {
    if (ring.state.load(std::memory_order_relaxed) == State::kFree) raw_syscall(SYS_close, ring.ring.ring_fd);
    ring.state.store(State::kUnmade, std::memory_order_relaxed);
  }
}

}  // namespace enchilada
