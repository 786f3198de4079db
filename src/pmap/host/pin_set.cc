// PinSet: the Dekker protocol between system calls and withdrawals. Invariants and protocol: pin_set.h.
//
// Why torn reads do no harm: a record that changes while a remover reads it was either popped (then any
// answer is right) or is being pushed, and then its pinner has not loaded `withdrawing_` yet, will see the
// remover there, and waits. The same holds for withdrawal slots that are used again while a pinner reads
// them.
#include "pmap/host/pin_set.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <new>

#include "base/check.h"
#include "base/raw_syscall.h"
#include "pmap/host/own_mapping.h"
#include "pmap/host/page_ops.h"

namespace enchilada {
namespace {

constexpr auto kSeq = std::memory_order_seq_cst;
constexpr auto kRelaxed = std::memory_order_relaxed;

void pause_or_yield(unsigned round) {
  if (round < 32) {
    cpu_relax();
  } else {
    raw_syscall(SYS_sched_yield);
  }
}

constexpr bool overlap(std::uint64_t a_start, std::uint64_t a_end, std::uint64_t b_start,
                       std::uint64_t b_end) {
  return a_start < b_end && b_start < a_end;
}

}  // namespace

struct PinSet::Memory {
  static constexpr std::uint64_t kHead =
      (sizeof(PinSet) + alignof(Thread) - 1) / alignof(Thread) * alignof(Thread);
  static constexpr std::uint64_t kSize = kHead + kThreads * sizeof(Thread);
};

PinSet* PinSet::create() noexcept {
  const long at = raw_syscall(SYS_mmap, 0, Memory::kSize, PROT_READ | PROT_WRITE, own_mapping_flags(), -1, 0);
  if (at < 0 && at > -4096) return nullptr;
  // Most programs have a few threads: a huge page would be zeroed for one record.
  raw_syscall(SYS_madvise, at, Memory::kSize, MADV_NOHUGEPAGE);
  return new (reinterpret_cast<void*>(at)) PinSet(reinterpret_cast<Thread*>(at + long{Memory::kHead}));
}

void PinSet::destroy(PinSet* pins) noexcept {
  if (pins == nullptr) return;
  raw_syscall(SYS_munmap, reinterpret_cast<long>(pins), Memory::kSize);
}

unsigned PinSet::register_thread() noexcept {
  for (unsigned i = 0; i < kThreads; ++i) {
    std::uint32_t expected = 0;
    if (threads_[i].taken.load(kRelaxed) != 0) continue;
    if (!threads_[i].taken.compare_exchange_strong(expected, 1, kSeq)) continue;
    std::uint32_t high = high_water_.load(kSeq);
    while (high < i + 1 && !high_water_.compare_exchange_weak(high, i + 1, kSeq)) {
    }
    return i;
  }
  return kNoThread;
}

void PinSet::unregister_thread(unsigned thread) noexcept {
  if (thread == kNoThread) return;
  unpin_to(thread, 0);
  threads_[thread].taken.store(0, kSeq);
}

unsigned PinSet::pin(unsigned thread, std::span<const VirtRange> ranges, std::uint64_t key) noexcept {
  if (thread == kNoThread) {
    everything_.fetch_add(1, kSeq);
    wait_for_withdrawals({}, true);
    return 0;
  }
  Thread& me = threads_[thread];
  // Claim the record first: a signal handler that pins between these two stores takes the next one.
  const std::uint32_t level = me.depth.load(kRelaxed);
  me.depth.store(level + 1, kSeq);
  if (level >= kDepth) {  // depth alone says "everything" (thread_overlaps)
    wait_for_withdrawals({}, true);
    return level;
  }
  Record& record = me.records[level];
  record.key.store(key, kRelaxed);
  const bool everything = ranges.size() > kRanges;
  if (!everything) {
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      record.ranges[i].start.store(page_floor(ranges[i].start).value(), kRelaxed);
      record.ranges[i].end.store(page_ceil(ranges[i].end).value(), kRelaxed);
    }
  }
  record.count.store(everything ? kEverything : static_cast<std::uint32_t>(ranges.size()), kSeq);
  wait_for_withdrawals(ranges, everything);
  return level;
}

void PinSet::unpin(unsigned thread) noexcept {
  if (thread == kNoThread) {
    everything_.fetch_sub(1, kSeq);
    return;
  }
  const std::uint32_t depth = threads_[thread].depth.load(kRelaxed);
  CHECK(depth > 0, thread);
  unpin_to(thread, depth - 1);
}

void PinSet::unpin_to(unsigned thread, unsigned depth) noexcept {
  if (thread == kNoThread) return;
  Thread& me = threads_[thread];
  for (std::uint32_t level = me.depth.load(kRelaxed); level > depth; --level) {
    if (level <= kDepth) me.records[level - 1].count.store(0, kSeq);
    me.depth.store(level - 1, kSeq);
  }
}

unsigned PinSet::depth(unsigned thread) const noexcept {
  return thread == kNoThread ? 0 : threads_[thread].depth.load(kRelaxed);
}

std::uint64_t PinSet::key(unsigned thread, unsigned level) const noexcept {
  CHECK(thread < kThreads && level < kDepth, thread, level);
  return threads_[thread].records[level].key.load(kRelaxed);
}

void PinSet::wait_for_withdrawals(std::span<const VirtRange> ranges, bool everything) const noexcept {
  for (std::uint64_t mask = withdrawing_.load(kSeq); mask != 0; mask &= mask - 1) {
    const auto slot = static_cast<unsigned>(__builtin_ctzll(mask));
    const std::uint64_t bit = std::uint64_t{1} << slot;
    const auto conflicts = [&] {
      if ((withdrawing_.load(kSeq) & bit) == 0) return false;
      const std::uint64_t start = withdrawals_[slot].start.load(kSeq),
                          end = withdrawals_[slot].end.load(kSeq);
      if (everything) return true;
      for (const VirtRange& r : ranges) {
        if (overlap(page_floor(r.start).value(), page_ceil(r.end).value(), start, end)) return true;
      }
      return false;
    };
    for (unsigned round = 0; conflicts(); ++round) pause_or_yield(round);
  }
}

bool PinSet::thread_overlaps(const Thread& thread, std::uint64_t start, std::uint64_t end) const noexcept {
  const std::uint32_t depth = thread.depth.load(kSeq);
  if (depth > kDepth) return true;
  for (std::uint32_t level = 0; level < depth; ++level) {
    const Record& record = thread.records[level];
    const std::uint32_t count = record.count.load(kSeq);
    if (count == kEverything) return true;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (overlap(record.ranges[i].start.load(kRelaxed), record.ranges[i].end.load(kRelaxed), start, end))
        return true;
    }
  }
  return false;
}

bool PinSet::pinned(VirtRange range) const noexcept {
  if (everything_.load(kSeq) != 0) return true;
  const std::uint32_t high = high_water_.load(kSeq);
  for (std::uint32_t i = 0; i < high; ++i) {
    if (thread_overlaps(threads_[i], range.start.value(), range.end.value())) return true;
  }
  return false;
}

unsigned PinSet::threads() const noexcept {
  return high_water_.load(kRelaxed);
}

std::uint64_t PinSet::pinned_bytes() const noexcept {
  constexpr std::uint64_t kAll = ~std::uint64_t{0};
  if (everything_.load(kRelaxed) != 0) return kAll;
  std::uint64_t sum = 0;
  const std::uint32_t high = high_water_.load(kRelaxed);
  for (std::uint32_t i = 0; i < high; ++i) {
    const std::uint32_t depth = threads_[i].depth.load(kRelaxed);
    if (depth > kDepth) return kAll;
    for (std::uint32_t level = 0; level < depth; ++level) {
      const Record& record = threads_[i].records[level];
      const std::uint32_t count = record.count.load(std::memory_order_acquire);
      if (count == kEverything) return kAll;
      for (std::uint32_t r = 0; r < count; ++r) {
        const std::uint64_t start = record.ranges[r].start.load(kRelaxed);
        const std::uint64_t end = record.ranges[r].end.load(kRelaxed);
        if (end > start) sum += end - start;  // else it changes just now
      }
    }
  }
  return sum;
}

PinSet::Withdrawal::Withdrawal(PinSet& pins, VirtRange range) noexcept : pins_(pins), slot_(0) {
  for (unsigned round = 0;; ++round) {
    std::uint64_t claimed = pins_.claimed_.load(kRelaxed);
    if (~claimed != 0) {
      slot_ = static_cast<unsigned>(__builtin_ctzll(~claimed));
      if (pins_.claimed_.compare_exchange_weak(claimed, claimed | (std::uint64_t{1} << slot_), kSeq)) break;
    } else {
      pause_or_yield(round);
    }
  }
  pins_.withdrawals_[slot_].start.store(range.start.value(), kSeq);
  pins_.withdrawals_[slot_].end.store(range.end.value(), kSeq);
  pins_.withdrawing_.fetch_or(std::uint64_t{1} << slot_, kSeq);
  allowed_ = !pins_.pinned(range);
}

PinSet::Withdrawal::~Withdrawal() {
  const std::uint64_t bit = std::uint64_t{1} << slot_;
  pins_.withdrawing_.fetch_and(~bit, kSeq);
  pins_.claimed_.fetch_and(~bit, kSeq);
}

void PinSet::reset_after_fork(unsigned survivor) noexcept {
  withdrawing_.store(0, kSeq);
  claimed_.store(0, kSeq);
  everything_.store(0, kSeq);
  const std::uint32_t high = high_water_.load(kSeq);
  for (std::uint32_t i = 0; i < high; ++i) {
    if (i == survivor) continue;
    threads_[i].depth.store(0, kSeq);
    for (Record& record : threads_[i].records) record.count.store(0, kSeq);
    threads_[i].taken.store(0, kSeq);
  }
}

}  // namespace enchilada
