// HostMachine: frames (PhysicalMemory): granting, retiring, zeroing, copying, and access to their bytes.
// Invariant kept here: populated frames <= granted frames <= credits taken from the budget.
#include <sys/syscall.h>

#include "base/check.h"
#include "base/raw_syscall.h"
#include "pmap/host/host_machine.h"
#include "pmap/host/page_ops.h"

namespace enchilada {
namespace {

std::byte* as_bytes(VirtAddr at) {
  return reinterpret_cast<std::byte*>(at.value());
}

/// The first run of ungranted frames in a word of the granted bitmap: at most `most`, or none.
struct BitRun {
  unsigned first = 0;
  unsigned count = 0;
};
BitRun first_clear_run(std::uint64_t word, std::uint64_t valid, std::uint64_t most) {
  const std::uint64_t clear = ~word & valid;
  if (clear == 0) return {};
  BitRun run{static_cast<unsigned>(__builtin_ctzll(clear)), 0};
  while (run.first + run.count < 64 && run.count < most && ((clear >> (run.first + run.count)) & 1) != 0)
    ++run.count;
  return run;
}

constexpr std::uint64_t mask_of(BitRun run) {
  return (run.count == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << run.count) - 1) << run.first;
}

}  // namespace

// --- granting --------------------------------------------------------------------------------------------

// Whole words (aligned runs of 64) first, lowest numbers first, then what is left of broken ones.
PageCount HostMachine::grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) {
  const std::uint64_t limit = frames_.limit().value();
  std::uint64_t left = budget_->take(wanted).value();
  const std::uint64_t taken = left;
  for (const bool whole : {true, false}) {
    for (std::uint64_t base = 0; base < limit && left > 0;) {
      BitRun run;
      {
        MutexLock guard(grant_lock_);
        if (base < grant_hint_) base = grant_hint_;  // every word below is full
        if (base >= limit) break;
        std::atomic<std::uint64_t>& word = granted_[base / 64];
        const std::uint64_t valid =
            limit - base >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (limit - base)) - 1;
        const std::uint64_t bits = word.load(std::memory_order_relaxed);
        if (bits == valid && base == grant_hint_) grant_hint_ += 64;
        if (!whole || (bits == 0 && left >= 64)) run = first_clear_run(bits, valid, left);
        if (run.count > 0) word.store(bits | mask_of(run), std::memory_order_relaxed);
      }
      if (run.count == 0) {
        base += 64;
        continue;
      }
      left -= run.count;
      granted_count_.fetch_add(run.count, std::memory_order_relaxed);
      sink({FrameNumber{static_cast<std::uint32_t>(base + run.first)}, PageCount{run.count}});
    }
  }
  if (left > 0) budget_->give_back(PageCount{left});
  return PageCount{taken - left};
}

void HostMachine::retire(FrameRun run) {
  if (run.count.value() == 0) return;
  CHECK(run.first.value() + run.count.value() <= frames_.limit().value(), run.first.value(),
        run.count.value());
  for (std::uint64_t i = 0; i < run.count.value(); ++i) bring_home(run.first + PageCount{i}, false);
  mover_.drop_home(home(run.first), run.count.value());
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    frames_.store(run.first + PageCount{i}, FramePlace::kUnpopulated);
  }
  {
    MutexLock guard(grant_lock_);
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      const std::uint64_t frame = run.first.value() + i;
      const std::uint64_t bit = std::uint64_t{1} << (frame & 63);
      CHECK((granted_[frame / 64].fetch_and(~bit, std::memory_order_relaxed) & bit) != 0, frame);
    }
    if (run.first.value() < grant_hint_) grant_hint_ = run.first.value() & ~std::uint64_t{63};
  }
  granted_count_.fetch_sub(run.count.value(), std::memory_order_relaxed);
  budget_->give_back(run.count);
}

// --- bytes -----------------------------------------------------------------------------------------------

/// One of the bounce buffers, for as long as this lives. Why bounce at all: see with_frames() in
/// host_machine.h.
class HostMachine::BounceHold {
 public:
  explicit BounceHold(HostMachine& machine) : machine_(machine) {
    for (;;) {
      std::uint32_t taken = machine_.bounces_taken_.load(std::memory_order_relaxed);
      place_ = static_cast<unsigned>(__builtin_ctz(~taken));
      if (place_ >= kBounces) {
        raw_syscall(SYS_sched_yield);
      } else if (machine_.bounces_taken_.compare_exchange_weak(taken, taken | (1u << place_),
                                                               std::memory_order_acquire)) {
        return;
      }
    }
  }
  ~BounceHold() { machine_.bounces_taken_.fetch_and(~(1u << place_), std::memory_order_release); }
  BounceHold(const BounceHold&) = delete;
  BounceHold& operator=(const BounceHold&) = delete;
  [[nodiscard]] std::byte* buffer() const { return machine_.bounce_ + place_ * (kBounceRun << kPageShift); }

 private:
  HostMachine& machine_;
  unsigned place_ = 0;
};

// Gives unpopulated frames of the run (none mapped) memory, so that their home slots can be used.
void HostMachine::populate(FrameRun run) {
  std::uint64_t i = 0;
  while (i < run.count.value()) {
    std::uint64_t n = 0;
    while (i + n < run.count.value() &&
           frames_.load(run.first + PageCount{i + n}).place == FramePlace::kUnpopulated) {
      ++n;
    }
    if (n > 0) mover_.populate_home(home(run.first + PageCount{i}), n);
    for (std::uint64_t k = 0; k < n; ++k) frames_.store(run.first + PageCount{i + k}, FramePlace::kHome);
    i += n + 1;
  }
}

void HostMachine::zero(FrameRun run) {
  std::uint64_t i = 0;
  while (i < run.count.value()) {
    const FrameNumber first = run.first + PageCount{i};
    bring_home(first, false);
    std::uint64_t n = 0;
    while (i + n < run.count.value() && frames_.load(first + PageCount{n}).place == FramePlace::kHome) ++n;
    if (n > 0) zero_pages(home(first).value(), n);
    i += n > 0 ? n : 1;  // unpopulated reads as zeros already
  }
}

// The bytes of the run, wherever they are, into `to`. The slot of a mapped page is locked while it is read,
// so that remove() cannot pull it away.
void HostMachine::gather(FrameRun run, std::byte* to) {
  const auto target = reinterpret_cast<std::uint64_t>(to);
  std::uint64_t i = 0;
  while (i < run.count.value()) {
    const FrameNumber frame = run.first + PageCount{i};
    const std::uint64_t at = target + (i << kPageShift);
    const FrameState state = frames_.load(frame);
    if (state.place == FramePlace::kUnpopulated) {
      zero_pages(at, 1);
    } else if (state.place == FramePlace::kHome) {
      copy_pages(at, home(frame).value(), 1);
    } else if (index_.try_lock_if(state.page, WindowIndex::slot_of(frame))) {
      copy_pages(at, address(state.page).value(), 1);
      index_.unlock(state.page);
    } else {
      (void)index_.settled(state.page);
      continue;
    }
    ++i;
  }
}

void HostMachine::copy(FrameNumber from, FrameNumber to) {
  bring_home(to, false);
  if (frames_.load(from).place == FramePlace::kUnpopulated) {
    zero({to, PageCount{1}});
    return;
  }
  frames_.store(to, FramePlace::kHome);  // an unpopulated slot gets its memory by being written
  gather({from, PageCount{1}}, as_bytes(home(to)));
}

void HostMachine::with_frames(FrameRun run, Access access, FunctionRef<void(std::byte*)> use) {
  bool mapped = false;
  bool empty = true;
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    if (access == Access::kWrite) bring_home(run.first + PageCount{i}, false);
    const FrameState state = frames_.load(run.first + PageCount{i});
    mapped = mapped || state.mapped();
    empty = empty && state.place == FramePlace::kUnpopulated;
  }
  if (access == Access::kRead && empty && run.count.value() <= kMaxRun) {
    use(const_cast<std::byte*>(zeros_));
  } else if (!mapped) {
    populate(run);
    use(as_bytes(home(run.first)));
  } else {
    CHECK(run.count.value() <= kBounceRun, run.count.value());
    const BounceHold hold(*this);
    gather(run, hold.buffer());
    use(hold.buffer());
    // Long runs are rare; short ones keep the buffer's first pages warm. Bounces are not in the budget.
    constexpr std::uint64_t kKept = 16;
    if (run.count.value() > kKept) {
      mover_.drop_home(VirtAddr{reinterpret_cast<std::uint64_t>(hold.buffer()) + (kKept << kPageShift)},
                       run.count.value() - kKept);
    }
  }
}

}  // namespace enchilada
