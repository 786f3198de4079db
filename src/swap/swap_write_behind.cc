// SwapPager, writing behind: looking after buffers whose pages are gone from memory while the device still
// writes them. Invariants: a write that failed loses nothing, its buffer is kept, read from, and written
// again by whoever needs a buffer; no lock is held across I/O.
#include <algorithm>
#include <bit>

#include "swap/swap_pager.h"
#include "swap/swap_pager_bounce.h"

namespace enchilada {

/// The buffer that is written behind and has `block`; null: the block's contents are on the device.
SwapPager::Bounce* SwapPager::behind_with(SwapBlock block, std::size_t* slot) const {
  for (std::uint32_t left = behind_.load(std::memory_order_relaxed); left != 0; left &= left - 1) {
    Bounce& bounce = buffers_[std::countr_zero(left)];
    for (const Bounce::Behind& b : bounce.runs()) {
      if (block < b.run.first || block >= b.run.first + b.run.count) continue;
      *slot = b.slot + (block.value() - b.run.first.value());
      return &bounce;
    }
  }
  return nullptr;
}

/// Calls use(bounce) for each buffer written behind that nobody else looks after. It says whether the buffer
/// is done with.
template <class Use>
void SwapPager::for_each_behind(Use use) {
  for (std::uint32_t left = behind_.load(std::memory_order_acquire); left != 0; left &= left - 1) {
    Bounce& bounce = buffers_[std::countr_zero(left)];
    if (bounce.settling.exchange(true, std::memory_order_acquire)) continue;
    const std::uint32_t bit = 1u << bounce.number;
    const bool still = (behind_.load(std::memory_order_acquire) & bit) != 0;
    const bool done = still && use(bounce);
    bounce.settling.store(false, std::memory_order_release);
    if (!done) continue;
    unclaim_behind();
    release_bounce(bounce);
  }
}

void SwapPager::settle_writes() {
  if (behind_.load(std::memory_order_relaxed) == 0) return;
  for (SwapDevice* device : devices_) {
    if (device != nullptr) device->collect_writes();
  }
  for_each_behind([this](Bounce& bounce) { return !bounce.under_way() && settle(bounce); });
}

void SwapPager::finish_writes() {
  for_each_behind([this](Bounce& bounce) {
    await(bounce);
    return settle(bounce);
  });
}

void SwapPager::await(Bounce& bounce) {
  for (Bounce::Behind& b : bounce.runs()) {
    if (b.write.state() == AsyncWrite::State::kUnderWay) b.device->finish_write(b.write);
  }
}

/// All its writes have ended. Those that failed are done again, the plain way; where that fails, too, the
/// buffer stays. True: its pages are on the device, and it can be released.
bool SwapPager::settle(Bounce& bounce) {
  for (Bounce::Behind& b : bounce.runs()) {
    if (b.write.state() == AsyncWrite::State::kDone) continue;
    if (!wanted(bounce, b.slot, b.run.count)) continue;
    const IoResult result = b.device->write(b.device_block, bounce.slot(b.slot), b.run.count);
    if (result != IoResult::kOk) {
      count_failed_write(result, b.run.count);
      return false;
    }
    b.write.settle();
  }
  const WriteLock guard(meta_lock_);
  behind_.fetch_and(~(1u << bounce.number), std::memory_order_relaxed);
  Releaser releaser(*this);
  for (const Bounce::Behind& b : bounce.runs()) {
    for (std::size_t i = 0; i < b.run.count.value(); ++i) {
      if ((bounce.forgotten >> (b.slot + i) & 1) != 0) releaser.add(b.run.first + PageCount{i});
    }
  }
  bounce.behind_n = 0;
  bounce.forgotten = 0;
  return true;
}

/// Does anybody still want to read what these slots hold?
bool SwapPager::wanted(const Bounce& bounce, std::size_t slot, PageCount n) const {
  const ReadLock guard(meta_lock_);
  for (std::size_t i = slot; i < slot + n.value(); ++i) {
    if ((bounce.forgotten >> i & 1) == 0) return true;
  }
  return false;
}

PageCount SwapPager::given_up() const {
  const ReadLock guard(meta_lock_);
  PageCount blocks;
  for (std::uint32_t left = behind_.load(std::memory_order_relaxed); left != 0; left &= left - 1) {
    blocks = blocks +
             PageCount{static_cast<std::uint64_t>(std::popcount(buffers_[std::countr_zero(left)].forgotten))};
  }
  return blocks;
}

/// Two buffers are always left for reads and for writes that are waited for.
std::uint32_t SwapPager::most_behind() const {
  return std::min(kBuffersBehind, buffer_count_ > 2 ? buffer_count_ - 2 : 0);
}

bool SwapPager::put_would_wait() {
  if (most_behind() == 0 || behind_claims_.load(std::memory_order_relaxed) < most_behind()) return false;
  settle_writes();
  return behind_claims_.load(std::memory_order_relaxed) >= most_behind();
}

bool SwapPager::try_claim_behind() {
  std::uint32_t claims = behind_claims_.load(std::memory_order_relaxed);
  while (claims < most_behind()) {
    if (behind_claims_.compare_exchange_weak(claims, claims + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

void SwapPager::unclaim_behind() {
  behind_claims_.fetch_sub(1, std::memory_order_relaxed);
}

/// The right to write one more buffer behind; waits for the device to have done with another if need be.
/// False: those that are under way belong to others or do not get done.
bool SwapPager::claim_behind() {
  settle_writes();
  if (try_claim_behind()) return true;
  bool waited = false;
  for_each_behind([&](Bounce& bounce) {
    if (waited) return false;
    waited = true;
    await(bounce);
    return settle(bounce);
  });
  return try_claim_behind();
}

void SwapPager::forget_writes_after_fork() {
  behind_claims_.store(static_cast<std::uint32_t>(std::popcount(behind_.load())));
  for (std::uint32_t left = behind_.load(std::memory_order_relaxed); left != 0; left &= left - 1) {
    Bounce& bounce = buffers_[std::countr_zero(left)];
    bounce.settling.store(false, std::memory_order_relaxed);
    for (Bounce::Behind& b : bounce.runs()) {
      if (b.write.state() == AsyncWrite::State::kUnderWay) b.write.end(-1);
    }
  }
}

}  // namespace enchilada
