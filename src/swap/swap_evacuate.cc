// SwapPager, leaving a device: copies that lie on one that closes go to another. Invariants: a copy's old
// block is released only when the new one is written and in the metadata, and only if the copy is still the
// one that was read; no lock is held across I/O. Who reads the old block meanwhile finds it as it was: nobody
// gets it until the device is open again.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "swap/swap_pager.h"
#include "swap/swap_pager_bounce.h"

namespace enchilada {

/// Up to kClusterPages copies of one object.
class SwapPager::MoveCluster {
 public:
  MoveCluster(SwapPager& pager, PagerHandle& handle, unsigned device)
      : pager_(pager), handle_(handle), device_(device), lease_(pager), bounce_(*lease_) {}

  /// Moves what it finds from `from` on; `*next`: where to go on. *none: nothing was found.
  EvacuateResult run(PageIndex from, PageIndex* next, bool* none) {
    collect(from);
    *none = n_ == 0;
    if (n_ == 0) return EvacuateResult::kDone;
    *next = index_[n_ - 1] + PageCount{1};
    if (!read()) return EvacuateResult::kError;
    const EvacuateResult result = write();
    install();
    return result;
  }

 private:
  [[nodiscard]] std::byte* slot(std::size_t i) const { return bounce_.slot(i); }

  void collect(PageIndex from) {
    const ReadLock guard(pager_.meta_lock_);
    pager_.meta_.visit(handle_, from, PageIndex{~std::uint64_t{0}}, [&](PageIndex at, const SwapCopy& copy) {
      if (copy.on_device() && pager_.geometry_.locate(copy.block).device == device_) {
        index_[n_] = at;
        bounce_.old[n_] = copy;
        bounce_.now[n_] = {};
        take_from_behind(n_++);
      }
      return n_ < kClusterPages;
    });
  }

  /// What is still being written is in the buffer that it is written from.
  void take_from_behind(std::size_t i) NO_THREAD_SAFETY_ANALYSIS {  // under collect()'s lock
    std::size_t slot_there = 0;
    const Bounce* const there = pager_.behind_with(bounce_.old[i].block, &slot_there);
    if (there == nullptr) return;
    std::memcpy(slot(i), there->slot(slot_there), kPageSize);
    here_ |= std::uint64_t{1} << i;
  }

  [[nodiscard]] bool is_here(std::size_t i) const { return (here_ >> i & 1) != 0; }

  bool read() {
    for (std::size_t at = 0; at < n_;) {
      std::size_t n = 1;
      while (at + n < n_ && is_here(at) == is_here(at + n) &&
             pager_.follows(bounce_.old[at + n - 1].block, bounce_.old[at + n].block))
        ++n;
      std::uint64_t block = 0;
      SwapDevice* const device = pager_.device_of(bounce_.old[at].block, &block);
      CHECK(device != nullptr, bounce_.old[at].block.value());
      if (!is_here(at) && device->read(block, slot(at), PageCount{n}) != IoResult::kOk) {
        count(pager_.stats_.read_errors);
        count(pager_.counters_.io_errors);
        return false;
      }
      at += n;
    }
    for (std::size_t i = 0; i < n_; ++i) {
      if (pager_.fingerprint(slot(i)) == bounce_.old[i].print) continue;
      count(pager_.stats_.fingerprint_bad);
      count(pager_.counters_.io_errors);
      return false;
    }
    return true;
  }

  EvacuateResult write() {
    for (std::size_t at = 0; at < n_;) {
      const BlockRun run = pager_.space_.allocate(pager_.holder_, PageCount{n_ - at});
      if (run.empty()) return EvacuateResult::kNoRoom;
      std::uint64_t block = 0;
      SwapDevice* const device = pager_.device_of(run.first, &block);
      CHECK(device != nullptr, run.first.value());
      const IoResult result = device->write(block, slot(at), run.count);
      if (result != IoResult::kOk) {
        pager_.space_.release(pager_.holder_, run);
        pager_.count_failed_write(result, run.count);
        return result == IoResult::kNoSpace ? EvacuateResult::kNoRoom : EvacuateResult::kError;
      }
      for (std::size_t i = 0; i < run.count.value(); ++i)
        bounce_.now[at + i] = {run.first + PageCount{i}, bounce_.old[at + i].print};
      at += run.count.value();
    }
    return EvacuateResult::kDone;
  }

  void install() {
    const WriteLock guard(pager_.meta_lock_);
    Releaser releaser(pager_);
    for (std::size_t i = 0; i < n_ && bounce_.now[i].exists(); ++i) {
      if (pager_.meta_.get(handle_, index_[i]).block != bounce_.old[i].block) {
        releaser.add(bounce_.now[i].block);  // it is not there any more, or newer
        continue;
      }
      SwapCopy old;
      const bool set = pager_.meta_.set(handle_, index_[i], bounce_.now[i], MetaPurpose::kMove, &old);
      CHECK(set && old == bounce_.old[i], index_[i].value());
      releaser.add(old.block);
      count(pager_.stats_.evacuated);
    }
  }

  SwapPager& pager_;
  PagerHandle& handle_;
  unsigned device_;
  BounceLease lease_;
  Bounce& bounce_;
  std::array<PageIndex, kClusterPages> index_;
  std::size_t n_ = 0;
  std::uint64_t here_ = 0;  // by page: in the buffer already
};

EvacuateResult SwapPager::evacuate(PagerHandle& handle, unsigned device) {
  PageIndex at{0};
  for (bool none = false; !none;) {
    const EvacuateResult result = MoveCluster(*this, handle, device).run(at, &at, &none);
    if (result != EvacuateResult::kDone) return result;
  }
  return EvacuateResult::kDone;
}

bool SwapPager::find_on_device(const PagerHandle& handle, unsigned device, PageIndex from, PageIndex* found) {
  const ReadLock guard(meta_lock_);
  bool any = false;
  meta_.visit(handle, from, PageIndex{~std::uint64_t{0}}, [&](PageIndex at, const SwapCopy& copy) {
    any = copy.on_device() && geometry_.locate(copy.block).device == device;
    *found = at;
    return !any;
  });
  return any;
}

bool SwapPager::add_device(unsigned slot, SwapDevice& device) {
  if (slot >= geometry_.slots || devices_[slot].load() != nullptr) return false;
  devices_[slot].store(&device);
  if (device.caches()) caches_.store(true);
  if (space_.open_device(slot, device.size())) return true;
  devices_[slot].store(nullptr);
  return false;
}

/// Every operation holds a buffer, so whatever began before this is over afterwards.
void SwapPager::await_operations() {
  finish_writes();
  for (unsigned i = 0; i < buffer_count_; ++i) {
    if (take_buffer(i)) release_bounce(buffers_[i]);
  }
}

bool SwapPager::remove_device(unsigned slot) {
  await_operations();
  if (!space_.finish_close(slot)) return false;
  await_operations();  // reads of blocks that were given up just before
  devices_[slot].store(nullptr);
  return true;
}

}  // namespace enchilada
