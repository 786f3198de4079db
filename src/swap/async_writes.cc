// Linux AIO by its system calls. Invariants: see async_writes.h.
#include "swap/async_writes.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <array>

#include "base/check.h"
#include "base/units.h"

namespace enchilada {
namespace {

/// The head of the kernel's ring of answers, mapped at the context's number (fs/aio.c, struct aio_ring;
/// libaio relies on it, too).
struct AnswerRing {
  std::uint32_t id;
  std::uint32_t entries;
  std::uint32_t head;
  std::uint32_t tail;
  std::uint32_t magic;
  std::uint32_t features[2];
  std::uint32_t header_bytes;
};
constexpr std::uint32_t kRingMagic = 0xa10a10a1;

/// The mapping would come along into forked children, where it is of no use.
void keep_from_children(std::uint64_t context) {
  const auto* ring = reinterpret_cast<const AnswerRing*>(context);
  if (ring->magic != kRingMagic) return;
  const std::uint64_t bytes = ring->header_bytes + std::uint64_t{ring->entries} * sizeof(io_event);
  raw_syscall(SYS_madvise, static_cast<long>(context), static_cast<long>((bytes + kPageMask) & ~kPageMask),
              MADV_DONTFORK);
}

}  // namespace

/// The process's context, made when first needed; kRefused where there is none to be had.
std::uint64_t AsyncWrites::context() {
  std::uint64_t made = context_.load(std::memory_order_acquire);
  if (made != kUnmade) return made;
  const MutexLock guard(lock_);
  if (made = context_.load(std::memory_order_relaxed); made != kUnmade) return made;
  aio_context_t fresh = 0;
  if (call_(SYS_io_setup, kMost, reinterpret_cast<long>(&fresh), 0, 0, 0, 0) == 0) {
    made = fresh;
    keep_from_children(made);
  } else {
    made = kRefused;
  }
  context_.store(made, std::memory_order_release);
  return made;
}

bool AsyncWrites::begin(int fd, const std::byte* from, std::size_t bytes, std::uint64_t offset,
                        AsyncWrite& write) {
  const std::uint64_t to = context();
  if (to == kRefused) return false;
  if (under_way_.fetch_add(1, std::memory_order_relaxed) < kMost) {
    iocb order{};
    order.aio_data = reinterpret_cast<std::uint64_t>(&write);
    order.aio_lio_opcode = IOCB_CMD_PWRITE;
    order.aio_fildes = static_cast<std::uint32_t>(fd);
    order.aio_buf = reinterpret_cast<std::uint64_t>(from);
    order.aio_nbytes = bytes;
    order.aio_offset = static_cast<std::int64_t>(offset);
    iocb* orders[1] = {&order};
    write.begin(bytes);
    if (raw_syscall(SYS_io_submit, static_cast<long>(to), 1, reinterpret_cast<long>(orders)) == 1)
      return true;
    write.end(-1);
  }
  under_way_.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

void AsyncWrites::fetch(bool wait) {
  std::array<io_event, kMost> answers;
  timespec no_time{};
  const std::uint64_t from = context_.load(std::memory_order_relaxed);
  const long n =
      raw_syscall(SYS_io_getevents, static_cast<long>(from), wait ? 1 : 0, kMost,
                  reinterpret_cast<long>(answers.data()), wait ? 0 : reinterpret_cast<long>(&no_time));
  CHECK(n >= 0 || n == -EINTR, static_cast<std::uint64_t>(n));
  for (long i = 0; i < n; ++i) {
    const io_event& answer = answers[static_cast<std::size_t>(i)];
    under_way_.fetch_sub(1, std::memory_order_relaxed);
    reinterpret_cast<AsyncWrite*>(answer.data)->end(static_cast<long>(answer.res));
  }
}

void AsyncWrites::collect() {
  if (under_way_.load(std::memory_order_relaxed) == 0 || !lock_.try_lock()) return;
  fetch(false);
  lock_.unlock();
}

void AsyncWrites::finish(const AsyncWrite& write) {
  const MutexLock guard(lock_);
  while (write.state() == AsyncWrite::State::kUnderWay) fetch(true);
}

void AsyncWrites::forget_after_fork() {
  context_.store(kUnmade, std::memory_order_relaxed);
  under_way_.store(0, std::memory_order_relaxed);
}

}  // namespace enchilada
