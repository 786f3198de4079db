// WindowIndex: waiting for slots, and skipping empty blocks. Keeps the invariants of window_index.h.
#include "pmap/host/window_index.h"

#include <sys/syscall.h>
#include <time.h>

#include "base/raw_syscall.h"
#include "pmap/host/page_ops.h"

namespace enchilada {
namespace {

/// A slot is held for one kernel call (1 to 60 us): spin, then yield, then sleep (the holder may have lower
/// priority).
void wait_a_little(unsigned round) noexcept {
  if (round < 64) {
    cpu_relax();
  } else if (round < 512) {
    raw_syscall(SYS_sched_yield);
  } else {
    const timespec nap{0, 50'000};
    raw_syscall(SYS_nanosleep, reinterpret_cast<long>(&nap), 0);
  }
}

}  // namespace

std::uint32_t WindowIndex::settled(std::uint64_t page) const noexcept {
  for (unsigned round = 0;; ++round) {
    const std::uint32_t value = peek(page);
    if ((value & kLocked) == 0) return value;
    wait_a_little(round);
  }
}

std::uint32_t WindowIndex::lock(std::uint64_t page) noexcept {
  for (;;) {
    const std::uint32_t value = settled(page);
    if (try_lock_if(page, value)) return value;
  }
}

std::uint64_t WindowIndex::next_block(std::uint64_t block, std::uint64_t end) const noexcept {
  while (block < end) {
    const std::uint64_t used = used_words_[block >> 12].load(std::memory_order_seq_cst) >> (block >> 6 & 63);
    if (used == 0) {
      block = (block | 4095) + 1;
      continue;
    }
    if ((used & 1) == 0) {
      block = ((block >> 6) + static_cast<unsigned>(__builtin_ctzll(used))) << 6;
      continue;
    }
    const std::uint64_t word = blocks_[block >> 6].load(std::memory_order_seq_cst) >> (block & 63);
    if (word != 0) {
      block += static_cast<unsigned>(__builtin_ctzll(word));
      return block < end ? block : end;
    }
    block = (block | 63) + 1;
  }
  return end;
}

}  // namespace enchilada
