// SwapPager: clusters out and in, metadata operations, process fork.
#include "swap/swap_pager.h"

#include <algorithm>
#include <cstring>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/check.h"
#include "swap/swap_pager_bounce.h"

namespace enchilada {
namespace {

constexpr PageIndex kLastIndex{~std::uint64_t{0}};

bool all_zero(const std::byte* page) {
  for (std::size_t at = 0; at < kPageSize; at += 64) {
    std::uint64_t words[8];
    std::memcpy(words, page + at, sizeof words);
    if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) != 0)
      return false;
  }
  return true;
}

/// Inclusive end of [first, first+count), saturating; count > 0.
PageIndex last_of(PageIndex first, PageCount count) {
  const std::uint64_t last = first.value() + count.value() - 1;
  return last < first.value() ? kLastIndex : PageIndex{last};
}

/// Calls use(position, run) for each maximal run of consecutive frame numbers.
template <class Use>
void for_each_frame_run(std::span<const FrameNumber> frames, Use use) {
  for (std::size_t i = 0; i < frames.size();) {
    std::size_t n = 1;
    while (i + n < frames.size() && frames[i + n] == frames[i] + PageCount{n}) ++n;
    use(i, FrameRun{frames[i], PageCount{n}});
    i += n;
  }
}

std::size_t metadata_size(const SwapPagerConfig& config) {
  if (config.metadata_bytes != 0) return config.metadata_bytes;
  // Half of the leaves are kept for moves; with 4 copies per leaf on average that is two leaves per 4 blocks.
  const std::uint64_t ideal = config.space.capacity().value() / 2 * 512 + (std::uint64_t{64} << 10);
  return std::min<std::uint64_t>(ideal, (config.arena.size() - config.arena.used()) / 4);
}

}  // namespace

SwapPager::SwapPager(const SwapPagerConfig& config)
    : space_(config.space),
      holder_(config.holder),
      geometry_(config.space.geometry()),
      phys_(config.phys),
      counters_(config.counters),
      on_damage_(config.on_damage),
      on_damage_context_(config.on_damage_context),
      meta_(config.meta_mode, config.arena, metadata_size(config)) {
  CHECK(config.devices.size() >= geometry_.slots, config.devices.size());
  for (unsigned i = 0; i < geometry_.slots; ++i) {
    devices_[i].store(config.devices[i]);
    if (config.devices[i] != nullptr && config.devices[i]->caches()) caches_.store(true);
  }
  static_assert(XXH_SECRET_DEFAULT_SIZE == 192);
  XXH3_generateSecret_fromSeed(secret_.data(), config.seed);
  take_buffers(config.arena, std::min(config.bounce_buffers, 32u));
}

void SwapPager::take_buffers(Arena& arena, unsigned wanted) {
  buffers_ = arena.allocate_array<Bounce>(wanted);
  if (buffers_ == nullptr) return;
  for (; buffer_count_ < wanted; ++buffer_count_) {
    auto* raw = static_cast<std::byte*>(arena.allocate((kClusterPages + 1) * kPageSize));
    if (raw == nullptr) break;
    Bounce* bounce = new (&buffers_[buffer_count_]) Bounce{};
    bounce->data = raw + (kPageSize - reinterpret_cast<std::uintptr_t>(raw) % kPageSize) % kPageSize;
    bounce->number = buffer_count_;
  }
  free_buffers_.store(usable_buffers());
}

Fingerprint SwapPager::fingerprint(const std::byte* page) const {
  const XXH128_hash_t hash = XXH3_128bits_withSecret(page, kPageSize, secret_.data(), secret_.size());
  return {hash.low64, hash.high64};
}

SwapPager::Bounce& SwapPager::acquire_bounce() {
  lock_order::assert_none_held();
  std::uint32_t free = free_buffers_.load(std::memory_order_relaxed);
  for (;;) {
    if (free == 0) {
      count(stats_.bounce_waits);
      buffer_waiters_.fetch_add(1);
      futex_wait(free_buffers_, 0);
      buffer_waiters_.fetch_sub(1);
      free = free_buffers_.load(std::memory_order_relaxed);
    } else if (free_buffers_.compare_exchange_weak(free, free & (free - 1), std::memory_order_acquire)) {
      return buffers_[__builtin_ctz(free)];
    }
  }
}

void SwapPager::release_bounce(Bounce& bounce) {
  free_buffers_.fetch_or(1u << bounce.number);  // sequentially consistent: a waiter is seen or sees the bit
  if (buffer_waiters_.load() != 0) futex_wake(free_buffers_, 1);
}

SwapDevice* SwapPager::device_of(SwapBlock block, std::uint64_t* device_block) const {
  const DeviceBlock place = geometry_.locate(block);
  *device_block = place.block;
  return devices_[place.device];
}

/// Can one read fetch a's page and then b's? Zero markers follow each other: no read at all.
bool SwapPager::follows(SwapBlock a, SwapBlock b) const {
  if (a == kZeroBlock || b == kZeroBlock) return a == b;
  return b == a + PageCount{1} && geometry_.contiguous_with_next(a);
}

void SwapPager::damaged(SwapDamage::Kind kind, PageIndex index, SwapBlock block) {
  if (on_damage_ != nullptr) on_damage_(on_damage_context_, {kind, index, block});
}

void SwapPager::add_pages(PagerHandle& handle, std::int64_t change) {
  // The engine reads it as a hint without our lock.
  std::atomic_ref<std::uint64_t>(handle.pages)
      .fetch_add(static_cast<std::uint64_t>(change), std::memory_order_relaxed);
}

bool SwapPager::nearly_full() const {
  return marks_.note_free(space_.available(), space_.capacity()) != SwapLevel::kPlenty;
}

// ---- Page-out ----

/// One put of up to kClusterPages pages: snapshot, find space, write, install.
class SwapPager::PutCluster {
 public:
  PutCluster(SwapPager& pager, std::span<PutRequest> requests)
      : pager_(pager), requests_(requests), lease_(pager), bounce_(*lease_) {}

  void run() {
    load_old_copies();
    snapshot();
    const bool claimed = dirty_ > 0 && pager_.claim_behind();
    behind_ = claimed;
    write_dirty();
    if (bounce_.behind_n > 0) {
      lease_.leave();
    } else if (claimed) {
      pager_.unclaim_behind();
    }
    install();
  }

 private:
  [[nodiscard]] std::byte* slot(std::size_t i) const { return bounce_.slot(i); }

  void load_old_copies() {
    const ReadLock guard(pager_.meta_lock_);
    for (std::size_t i = 0; i < requests_.size(); ++i)
      bounce_.old[i] = pager_.meta_.get(*requests_[i].handle, requests_[i].index);
  }

  void snapshot() {
    std::array<FrameNumber, kClusterPages> frames;
    for (std::size_t i = 0; i < requests_.size(); ++i) frames[i] = requests_[i].frame;
    for_each_frame_run({frames.data(), requests_.size()}, [&](std::size_t at, FrameRun run) {
      pager_.phys_.with_frames(run, Access::kRead, [&](std::byte* bytes) {
        for (std::size_t i = 0; i < run.count.value(); ++i) judge(at + i, bytes + i * kPageSize);
      });
    });
  }

  /// Copies first and hashes the copy, so that what is written is what the fingerprint says. Only a page that
  /// must be written keeps its slot, so dirty pages lie together.
  void judge(std::size_t page, const std::byte* bytes) {
    const SwapCopy& old = bounce_.old[page];
    SwapCopy& now = bounce_.now[page];
    std::memcpy(slot(dirty_), bytes, kPageSize);
    now = {};
    requests_[page].verdict = PagerReturn::kOk;
    if (all_zero(slot(dirty_))) {
      now.block = kZeroBlock;
      if (old.block == kZeroBlock) requests_[page].verdict = PagerReturn::kClean;
      return;
    }
    now.print = pager_.fingerprint(slot(dirty_));
    if (old.on_device() && old.print == now.print) {
      now.block = old.block;
      requests_[page].verdict = PagerReturn::kClean;
      return;
    }
    bounce_.page_of[dirty_++] = static_cast<std::uint8_t>(page);
  }

  void write_dirty() {
    for (std::size_t at = 0; at < dirty_;) {
      BlockRun run = pager_.space_.allocate(pager_.holder_, PageCount{dirty_ - at});
      if (run.empty() && give_up_blocks())
        run = pager_.space_.allocate(pager_.holder_, PageCount{dirty_ - at});
      if (run.empty()) {
        fail(at, dirty_, PagerReturn::kFail);
        count(pager_.stats_.no_space, dirty_ - at);
        pager_.marks_.note_refusal();
        return;
      }
      write_run(at, run);
      at += run.count.value();
    }
  }

  /// Swap is full. Blocks that were given up while they were written come back, and the copies of the dirty
  /// pages are worthless now, so their blocks can take the new ones.
  bool give_up_blocks() {
    if (gave_up_blocks_) return false;
    gave_up_blocks_ = true;
    pager_.finish_writes();
    const WriteLock guard(pager_.meta_lock_);
    Releaser releaser(pager_);
    for (std::size_t i = 0; i < dirty_; ++i) static_cast<void>(remove(bounce_.page_of[i], releaser));
    return true;
  }

  void write_run(std::size_t at, BlockRun run) {
    std::uint64_t device_block = 0;
    SwapDevice* device = pager_.device_of(run.first, &device_block);
    CHECK(device != nullptr, run.first.value());
    IoResult result = IoResult::kOk;
    if (!begin_run(at, run, *device, device_block)) result = device->write(device_block, slot(at), run.count);
    if (result == IoResult::kOk) {
      count(pager_.counters_.swapout);
      count(pager_.counters_.swappgsout, run.count.value());
      for (std::size_t i = 0; i < run.count.value(); ++i)
        bounce_.now[bounce_.page_of[at + i]].block = run.first + PageCount{i};
      return;
    }
    pager_.space_.release(pager_.holder_, run);
    pager_.count_failed_write(result, run.count);
    fail(at, at + run.count.value(), result == IoResult::kNoSpace ? PagerReturn::kFail : PagerReturn::kError);
  }

  bool begin_run(std::size_t at, BlockRun run, SwapDevice& device, std::uint64_t device_block) {
    if (!behind_ || bounce_.behind_n == Bounce::kRunsBehind) return false;
    Bounce::Behind& b = bounce_.behind[bounce_.behind_n];
    behind_ = device.begin_write(device_block, {slot(at), to_bytes(run.count).value()}, b.write);
    if (!behind_) return false;
    b.run = run;
    b.slot = at;
    b.device = &device;
    b.device_block = device_block;
    ++bounce_.behind_n;
    count(pager_.counters_.swap_behind);
    return true;
  }

  void fail(std::size_t from, std::size_t to, PagerReturn verdict) {
    for (std::size_t i = from; i < to; ++i) requests_[bounce_.page_of[i]].verdict = verdict;
  }

  void install() {
    const WriteLock guard(pager_.meta_lock_);
    // From here on others look after the buffer, but they need the lock to be done with it.
    if (bounce_.behind_n > 0) pager_.behind_.fetch_or(1u << bounce_.number, std::memory_order_release);
    Releaser releaser(pager_);
    for (std::size_t page = 0; page < requests_.size(); ++page) install_page(page, releaser);
  }

  void install_page(std::size_t page, Releaser& releaser) REQUIRES(pager_.meta_lock_) {
    const SwapCopy& now = bounce_.now[page];
    if (requests_[page].verdict == PagerReturn::kClean) {
      // Nobody may have taken the copy away meanwhile; if somebody did, the page is dirty after all. To have
      // moved it to another device is no harm.
      const SwapCopy there = pager_.meta_.get(*requests_[page].handle, requests_[page].index);
      const bool zero = now.block == kZeroBlock;
      if (!there.exists() || (there.block == kZeroBlock) != zero || there.print != now.print)
        requests_[page].verdict = PagerReturn::kFail;
      else
        count(pager_.counters_.swap_clean);
      return;
    }
    if (requests_[page].verdict != PagerReturn::kOk) {
      remove(page, releaser);
      return;
    }
    SwapCopy old;
    if (!pager_.meta_.set(*requests_[page].handle, requests_[page].index, now, MetaPurpose::kPut, &old)) {
      releaser.add(now.block);
      requests_[page].verdict = PagerReturn::kFail;
      count(pager_.stats_.no_metadata);
      return;
    }
    releaser.add(old.block);
    if (!old.exists()) pager_.add_pages(*requests_[page].handle, 1);
    if (now.block == kZeroBlock) count(pager_.stats_.zero_puts);
  }

  bool remove(std::size_t page, Releaser& releaser) REQUIRES(pager_.meta_lock_) {
    const SwapCopy old = pager_.meta_.remove(*requests_[page].handle, requests_[page].index);
    if (!old.exists()) return false;
    pager_.add_pages(*requests_[page].handle, -1);
    releaser.add(old.block);
    return true;
  }

  SwapPager& pager_;
  std::span<PutRequest> requests_;
  BounceLease lease_;
  Bounce& bounce_;
  std::size_t dirty_ = 0;  // slots in use: pages that must be written
  bool gave_up_blocks_ = false;
  bool behind_ = false;  // writes may go on when this is over
};

void SwapPager::put(std::span<PutRequest> requests) {
  if (!ready()) {
    for (PutRequest& request : requests) request.verdict = PagerReturn::kFail;
    return;
  }
  for (std::size_t at = 0; at < requests.size(); at += kClusterPages) {
    PutCluster(*this, requests.subspan(at, std::min(kClusterPages, requests.size() - at))).run();
  }
}

void SwapPager::count_failed_write(IoResult result, PageCount pages) {
  if (result == IoResult::kNoSpace) {
    count(stats_.no_space, pages.value());
    return;
  }
  count(stats_.write_errors);
  count(counters_.io_errors);
}

/// The device that would like to have the page in memory, and the page's block there; null: none.
SwapDevice* SwapPager::cache_of(const PutRequest& page, std::uint64_t* block) const {
  const SwapCopy copy = meta_.get(*page.handle, page.index);
  if (!copy.on_device()) return nullptr;
  SwapDevice* const device = device_of(copy.block, block);
  return device->caches() && !device->touch(*block) ? device : nullptr;
}

/// The metadata's lock is held while a page is offered, so that its block stays its own.
void SwapPager::evicting(std::span<PutRequest> requests) {
  if (!caches_.load(std::memory_order_relaxed) || !ready()) return;
  const BounceLease lease(*this);
  for (SwapDevice* device : devices_) {
    if (device != nullptr) device->make_room();
  }
  std::byte* const page = (*lease).data;
  std::uint64_t block = 0;
  for (const PutRequest& request : requests) {
    {
      const ReadLock guard(meta_lock_);
      if (cache_of(request, &block) == nullptr) continue;
    }
    phys_.with_frames({request.frame, PageCount{1}}, Access::kRead,
                      [page](std::byte* bytes) { std::memcpy(page, bytes, kPageSize); });
    const ReadLock guard(meta_lock_);
    SwapDevice* const device = cache_of(request, &block);
    if (device != nullptr) device->offer(block, page);
  }
}

// ---- Page-in ----

/// One get of up to kClusterPages pages: look up, read the runs, verify, copy into the frames.
class SwapPager::GetCluster {
 public:
  GetCluster(SwapPager& pager, const PagerHandle& handle, PageIndex first,
             std::span<const FrameNumber> frames, const FunctionRef<void()>* work)
      : pager_(pager),
        handle_(handle),
        first_(first),
        frames_(frames),
        work_(work),
        lease_(pager),
        bounce_(*lease_) {}

  PagerReturn run() {
    if (!look_up()) return PagerReturn::kFail;
    for (std::size_t at = 0; at < frames_.size();) {
      at = begin_reads(at);
      if (!finish_reads()) return PagerReturn::kError;
    }
    deliver();
    return PagerReturn::kOk;
  }

 private:
  [[nodiscard]] std::byte* slot(std::size_t i) const { return bounce_.slot(i); }

  bool look_up() {
    const ReadLock guard(pager_.meta_lock_);
    for (std::size_t i = 0; i < frames_.size(); ++i) {
      bounce_.now[i] = pager_.meta_.get(handle_, first_ + PageCount{i});
      if (!bounce_.now[i].exists()) return false;
      take_from_behind(i);
    }
    return true;
  }

  /// What is being written is fetched from the buffer that it is written from.
  void take_from_behind(std::size_t i) REQUIRES_SHARED(pager_.meta_lock_) {
    std::size_t slot_there = 0;
    const Bounce* const there = pager_.behind_with(bounce_.now[i].block, &slot_there);
    if (there == nullptr) return;
    std::memcpy(slot(i), there->slot(slot_there), kPageSize);
    here_ |= std::uint64_t{1} << i;
    count(pager_.counters_.swap_unread);
  }

  [[nodiscard]] bool is_here(std::size_t i) const { return (here_ >> i & 1) != 0; }
  [[nodiscard]] bool must_read(std::size_t i) const {
    return bounce_.now[i].block != kZeroBlock && !is_here(i);
  }

  [[nodiscard]] std::size_t run_length(std::size_t at) const {
    std::size_t n = 1;
    while (at + n < frames_.size() &&
           pager_.follows(bounce_.now[at + n - 1].block, bounce_.now[at + n].block) &&
           is_here(at) == is_here(at + n))
      ++n;
    return n;
  }

  /// One run of blocks that is read.
  struct Read {
    std::size_t at = 0;
    std::size_t n = 0;
    SwapDevice* device = nullptr;
    SwapRead order{};
    bool begun = false;
    IoResult result = IoResult::kOk;
  };
  static constexpr std::size_t kReads = 8;  // at a time

  /// Begins reads from page `at` on; the device may work on all of them at once. Returns where it stopped.
  std::size_t begin_reads(std::size_t at) {
    reads_n_ = 0;
    while (at < frames_.size() && reads_n_ < kReads) {
      const std::size_t n = run_length(at);
      if (must_read(at)) begin_read(reads_[reads_n_++], at, n);
      at += n;
    }
    return at;
  }

  void begin_read(Read& read, std::size_t at, std::size_t n) {
    read = {.at = at, .n = n};
    const SwapBlock block = bounce_.now[at].block;
    std::uint64_t device_block = 0;
    read.device = pager_.device_of(block, &device_block);
    CHECK(read.device != nullptr, block.value());
    const IoSlice to{slot(at), n * kPageSize};
    read.begun = read.device->begin_read(device_block, to, read.order);
    if (!read.begun) read.result = read.device->read(device_block, {&to, 1});
  }

  /// Waits for the reads, working meanwhile if there is something to wait for. False: one failed, or brought
  /// back what had not been written; nothing is under way any more.
  bool finish_reads() {
    const std::span<Read> reads(reads_.data(), reads_n_);
    work_meanwhile(reads);
    bool good = true;
    for (Read& read : reads) {
      if (read.begun) read.result = read.device->finish_read(read.order);
      good = judge(read) && good;
    }
    return good;
  }

  void work_meanwhile(std::span<const Read> reads) {
    const bool waiting = std::any_of(reads.begin(), reads.end(), [](const Read& r) { return r.begun; });
    // Work may need a second buffer.
    if (!waiting || work_ == nullptr || pager_.buffer_count_ < 2) return;
    (*std::exchange(work_, nullptr))();
  }

  bool judge(const Read& read) {
    if (read.result != IoResult::kOk) {
      count(pager_.stats_.read_errors);
      count(pager_.counters_.io_errors);
      pager_.damaged(SwapDamage::Kind::kReadFailed, first_ + PageCount{read.at}, bounce_.now[read.at].block);
      return false;
    }
    count(pager_.counters_.swapin);
    count(pager_.counters_.swappgsin, read.n);
    bool good = true;
    for (std::size_t i = read.at; i < read.at + read.n; ++i) good = verify(i) && good;
    return good;
  }

  bool verify(std::size_t i) {
    if (pager_.fingerprint(slot(i)) == bounce_.now[i].print) return true;
    count(pager_.stats_.fingerprint_bad);
    count(pager_.counters_.io_errors);
    pager_.damaged(SwapDamage::Kind::kFingerprint, first_ + PageCount{i}, bounce_.now[i].block);
    return false;
  }

  void deliver() {
    for_each_frame_run(frames_, [&](std::size_t at, FrameRun run) {
      pager_.phys_.with_frames(run, Access::kWrite, [&](std::byte* bytes) {
        for (std::size_t i = 0; i < run.count.value(); ++i) fill(at + i, bytes + i * kPageSize);
      });
    });
  }

  void fill(std::size_t page, std::byte* bytes) {
    if (bounce_.now[page].block == kZeroBlock) {
      std::memset(bytes, 0, kPageSize);
      count(pager_.stats_.zero_gets);
    } else {
      std::memcpy(bytes, slot(page), kPageSize);
    }
  }

  SwapPager& pager_;
  const PagerHandle& handle_;
  PageIndex first_;
  std::span<const FrameNumber> frames_;
  const FunctionRef<void()>* work_;  // not done yet
  std::uint64_t here_ = 0;           // by page: in the buffer already
  std::array<Read, kReads> reads_;
  std::size_t reads_n_ = 0;
  BounceLease lease_;
  Bounce& bounce_;
};

PagerReturn SwapPager::get_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames) {
  return get(handle, first, frames, nullptr);
}

PagerReturn SwapPager::get_pages_while(PagerHandle& handle, PageIndex first,
                                       std::span<const FrameNumber> frames, FunctionRef<void()> work) {
  return get(handle, first, frames, &work);
}

PagerReturn SwapPager::get(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames,
                           const FunctionRef<void()>* work) {
  if (!ready()) return PagerReturn::kFail;
  for (std::size_t at = 0; at < frames.size(); at += kClusterPages) {
    const std::size_t n = std::min(kClusterPages, frames.size() - at);
    const PagerReturn result =
        GetCluster(*this, handle, first + PageCount{at}, frames.subspan(at, n), at == 0 ? work : nullptr)
            .run();
    if (result != PagerReturn::kOk) return result;
  }
  return PagerReturn::kOk;
}

// ---- Metadata ----

PagerRun SwapPager::has_page(const PagerHandle& handle, PageIndex index, PageCount max_before,
                             PageCount max_after) {
  const ReadLock guard(meta_lock_);
  const SwapCopy copy = meta_.get(handle, index);
  if (!copy.exists()) return {};
  return {true, run_before(handle, index, copy.block, max_before),
          run_after(handle, index, copy.block, max_after)};
}

PageCount SwapPager::run_before(const PagerHandle& handle, PageIndex index, SwapBlock block, PageCount max) {
  PageCount n;
  while (n < max && n.value() < index.value()) {
    const SwapCopy copy = meta_.get(handle, index - (n + PageCount{1}));
    if (!copy.exists() || !follows(copy.block, block)) break;
    block = copy.block;
    ++n;
  }
  return n;
}

PageCount SwapPager::run_after(const PagerHandle& handle, PageIndex index, SwapBlock block, PageCount max) {
  PageCount n;
  while (n < max) {
    const SwapCopy copy = meta_.get(handle, index + (n + PageCount{1}));
    if (!copy.exists() || !follows(block, copy.block)) break;
    block = copy.block;
    ++n;
  }
  return n;
}

void SwapPager::forget_range(PagerHandle& handle, PageIndex first, PageIndex last) {
  Releaser releaser(*this);
  std::int64_t gone = 0;
  meta_.remove_range(handle, first, last, [&](PageIndex, const SwapCopy& copy) {
    releaser.add(copy.block);
    ++gone;
  });
  add_pages(handle, -gone);
}

void SwapPager::forget(PagerHandle& handle, PageIndex first, PageCount count) {
  if (count.value() == 0) return;
  const WriteLock guard(meta_lock_);
  forget_range(handle, first, last_of(first, count));
}

void SwapPager::forget_all(PagerHandle& handle) {
  const WriteLock guard(meta_lock_);
  forget_range(handle, PageIndex{0}, kLastIndex);
}

/// Copies of source pages [first, last] become those of dest pages from 0 on, where dest has none.
void SwapPager::move_range(PagerHandle& source, PageIndex first, PageIndex last, PagerHandle& dest,
                           Releaser& releaser) {
  std::int64_t gone = 0;
  std::int64_t arrived = 0;
  meta_.remove_range(source, first, last, [&](PageIndex index, const SwapCopy& copy) {
    ++gone;
    const PageIndex to{index.value() - first.value()};
    if (meta_.get(dest, to).exists()) {
      releaser.add(copy.block);
      return;
    }
    SwapCopy none;
    const bool moved = meta_.set(dest, to, copy, MetaPurpose::kMove, &none);
    CHECK(moved, meta_.entries(), meta_.max_entries());  // some metadata are kept for this
    ++arrived;
  });
  add_pages(source, -gone);
  add_pages(dest, arrived);
}

void SwapPager::transfer(PagerHandle& source, PageIndex offset, PageCount size, PagerHandle& dest) {
  const WriteLock guard(meta_lock_);
  Releaser releaser(*this);
  if (size.value() != 0) move_range(source, offset, last_of(offset, size), dest, releaser);
  forget_range(source, PageIndex{0}, kLastIndex);
}

void SwapPager::split(PagerHandle& source, PageIndex first, PageCount count, PagerHandle& dest) {
  if (count.value() == 0) return;
  const WriteLock guard(meta_lock_);
  Releaser releaser(*this);
  move_range(source, first, last_of(first, count), dest, releaser);
}

std::uint64_t SwapPager::meta_entries() const {
  const ReadLock guard(meta_lock_);
  return meta_.entries();
}

bool SwapPager::find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) {
  const ReadLock guard(meta_lock_);
  bool any = false;
  meta_.visit(handle, from, kLastIndex, [&](PageIndex index, const SwapCopy&) {
    *found = index;
    any = true;
    return false;
  });
  return any;
}

void SwapPager::visit(const PagerHandle& handle, FunctionRef<bool(PageIndex, const SwapCopy&)> use) {
  const ReadLock guard(meta_lock_);
  meta_.visit(handle, PageIndex{0}, kLastIndex, use);
}

bool SwapPager::verify(const PagerHandle& handle) {
  const ReadLock guard(meta_lock_);
  bool held = true;
  meta_.visit(handle, PageIndex{0}, kLastIndex, [&](PageIndex, const SwapCopy& copy) {
    held = held && (!copy.on_device() || space_.holds(holder_, copy.block));
    return held;
  });
  return held && meta_.verify(handle, handle.pages);
}

// ---- Process fork ----

/// All buffers but those written behind.
std::uint32_t SwapPager::usable_buffers() const {
  const std::uint32_t all = buffer_count_ == 32 ? ~0u : (1u << buffer_count_) - 1;
  return all & ~behind_.load(std::memory_order_relaxed);
}

/// Waits for buffer i; false: its write behind does not get done.
bool SwapPager::take_buffer(unsigned i) {
  const std::uint32_t bit = 1u << i;
  for (;;) {
    const std::uint32_t free = free_buffers_.load();
    if ((free & bit) != 0) {
      if ((free_buffers_.fetch_and(~bit) & bit) != 0) return true;
      continue;
    }
    if ((usable_buffers() & bit) == 0) {
      finish_writes();
      if ((usable_buffers() & bit) == 0) return false;
      continue;
    }
    buffer_waiters_.fetch_add(1);
    futex_wait(free_buffers_, free, 1'000'000);
    buffer_waiters_.fetch_sub(1);
  }
}

void SwapPager::quiesce_for_fork() NO_THREAD_SAFETY_ANALYSIS {
  std::uint32_t taken = 0;
  for (;;) {
    // In order of number, so that two forking threads cannot each wait for the other's buffers.
    for (unsigned i = 0; i < buffer_count_; ++i) {
      if ((taken >> i & 1) == 0 && take_buffer(i)) taken |= 1u << i;
    }
    meta_lock_.lock();
    if (taken == usable_buffers()) break;  // else a buffer was settled meanwhile: it is still to be had
    meta_lock_.unlock();
  }
  quiesced_ = true;
}

void SwapPager::resume_after_fork() NO_THREAD_SAFETY_ANALYSIS {
  CHECK(quiesced_);
  quiesced_ = false;
  meta_lock_.unlock();
  free_buffers_.store(usable_buffers());
  futex_wake(free_buffers_, 1 << 30);
}

void SwapPager::on_process_fork_child(unsigned new_holder) {
  holder_ = new_holder;
  space_.set_self(new_holder);
  buffer_waiters_.store(0);  // they stayed behind in the parent
  forget_writes_after_fork();
  if (quiesced_) {
    resume_after_fork();
  } else {
    meta_lock_.reset_after_fork();
    free_buffers_.store(usable_buffers());
  }
}

}  // namespace enchilada
