// Compressing, and which page goes where. Invariants: see compressed_swap.h.
#include "swap/compressed_swap.h"

#include <lz4.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace enchilada {
namespace {

constexpr std::size_t kMostPacked = kPageSize / 4 * 3;  // a page that shrinks less is not worth its memory
/// After so many pages in a row that did not shrink only one in kRetry is tried.
constexpr std::uint32_t kHopeless = 64;
constexpr std::uint32_t kRetry = 16;

bool unpack(std::span<const std::byte> packed, std::byte* page) {
  return LZ4_decompress_safe(reinterpret_cast<const char*>(packed.data()), reinterpret_cast<char*>(page),
                             static_cast<int>(packed.size()), kPageSize) == kPageSize;
}

/// Calls use(block, page) for each page of a transfer.
template <class Use>
void for_each_page(std::uint64_t first, std::span<const IoSlice> slices, Use use) {
  for (const IoSlice& slice : slices) {
    CHECK(slice.bytes % kPageSize == 0, slice.bytes);
    for (std::size_t at = 0; at < slice.bytes; at += kPageSize) use(first++, slice.data + at);
  }
}

/// Consecutive pages of a transfer that lie one after the other in memory, too: one I/O.
struct Run {
  std::uint64_t first = 0;
  std::byte* data = nullptr;
  std::uint64_t pages = 0;

  [[nodiscard]] bool add(std::uint64_t block, std::byte* page) {
    if (pages == 0) *this = {block, page, 0};
    if (block != first + pages || page != data + pages * kPageSize) return false;
    ++pages;
    return true;
  }
  [[nodiscard]] IoSlice slice() const { return {data, pages * kPageSize}; }
};

}  // namespace

struct CompressedSwap::Bench {
  std::atomic<bool> busy{false};
  void* state = nullptr;  // LZ4's
  std::array<std::byte, kMostPacked> packed;
};

class CompressedSwap::BenchLease {
 public:
  explicit BenchLease(Bench* benches) {
    for (std::size_t i = 0; i < kBenches && bench_ == nullptr; ++i) {
      if (!benches[i].busy.exchange(true, std::memory_order_acquire)) bench_ = &benches[i];
    }
  }
  ~BenchLease() {
    if (bench_ != nullptr) bench_->busy.store(false, std::memory_order_release);
  }
  BenchLease(const BenchLease&) = delete;
  BenchLease& operator=(const BenchLease&) = delete;
  [[nodiscard]] Bench* get() const { return bench_; }

 private:
  Bench* bench_ = nullptr;
};

PageCount CompressedSwap::numbers(std::span<const std::uint64_t> device_pages) {
  PageCount sum;
  for (const std::uint64_t pages : device_pages) sum = sum + PageCount{pages};
  return sum;
}

CompressedSwap::CompressedSwap(const CompressedSwapConfig& config)
    : store_(config.store), wanted_(config.wanted), wanted_context_(config.wanted_context) {
  CHECK(config.below.size() <= fronts_.size(), config.below.size());
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < config.below.size(); ++i) {
    fronts_[i].swap = this;
    fronts_[i].below = config.below[i];
    fronts_[i].first_number = next;
    if (config.below[i] != nullptr) next += static_cast<std::uint32_t>(config.below[i]->size().value());
  }
  benches_ = config.arena.allocate_array<Bench>(kBenches);
  if (benches_ == nullptr) return;
  for (std::size_t i = 0; i < kBenches; ++i) {
    new (&benches_[i]) Bench;
    benches_[i].state = config.arena.allocate(static_cast<std::size_t>(LZ4_sizeofState()));
    if (benches_[i].state == nullptr) return;
  }
  auto* raw = static_cast<std::byte*>(config.arena.allocate((CompressedStore::kDrainPages + 1) * kPageSize));
  if (raw == nullptr) return;
  drain_pages_ = raw + (kPageSize - reinterpret_cast<std::uintptr_t>(raw) % kPageSize) % kPageSize;
}

void CompressedSwap::on_process_fork_child() {
  for (std::size_t i = 0; i < kBenches; ++i) benches_[i].busy.store(false, std::memory_order_relaxed);
}

IoResult CompressedSwap::Front::read(std::uint64_t first, std::span<const IoSlice> to) {
  IoResult result = IoResult::kOk;
  Run run;
  const auto flush = [&] {
    if (run.pages == 0 || result != IoResult::kOk) return;
    const IoSlice slice = run.slice();
    result = below->read(run.first, {&slice, 1});
    run = {};
  };
  for_each_page(first, to, [&](std::uint64_t block, std::byte* page) {
    if (swap->fetch(number(block), page)) return;
    if (run.add(block, page)) return;
    flush();
    (void)run.add(block, page);
  });
  flush();
  return result;
}

/// Only what the device alone has. Pages that come into the store meanwhile are on the device all the same.
bool CompressedSwap::Front::begin_read(std::uint64_t first, const IoSlice& to, SwapRead& read) {
  for (std::uint64_t i = 0; i < to.bytes / kPageSize; ++i) {
    if (touch(first + i)) return false;
  }
  return below->begin_read(first, to, read);
}

IoResult CompressedSwap::Front::finish_read(const SwapRead& read) {
  return below->finish_read(read);
}

IoResult CompressedSwap::Front::write(std::uint64_t first, std::span<const IoSlice> from) {
  IoResult result = IoResult::kOk;
  Run run;
  const auto flush = [&] {
    if (run.pages == 0 || result != IoResult::kOk) return;
    for (std::uint64_t i = 0; i < run.pages; ++i) swap->store_.drop(number(run.first + i));
    const IoSlice slice = run.slice();
    result = below->write(run.first, {&slice, 1});
    run = {};
  };
  for_each_page(first, from, [&](std::uint64_t block, std::byte* page) {
    if (result != IoResult::kOk || swap->compress(number(block), page, false, true) || run.add(block, page))
      return;
    flush();
    (void)run.add(block, page);
  });
  flush();
  return result;
}

/// Compresses the page into the store. False: it is not there; the device must have it.
bool CompressedSwap::compress(PackedNumber number, const std::byte* page, bool backed, bool may_drain) {
  const std::uint32_t misses = misses_.load(std::memory_order_relaxed);
  if (misses >= kHopeless && misses % kRetry != 0) {
    misses_.store(misses + 1, std::memory_order_relaxed);
    return false;
  }
  const BenchLease lease(benches_);
  Bench* const bench = lease.get();
  if (bench == nullptr) return false;
  const int size =
      LZ4_compress_fast_extState(bench->state, reinterpret_cast<const char*>(page),
                                 reinterpret_cast<char*>(bench->packed.data()), kPageSize, kMostPacked, 1);
  misses_.store(size > 0 ? 0 : misses + 1, std::memory_order_relaxed);
  if (size <= 0) return false;
  const std::span<const std::byte> packed{bench->packed.data(), static_cast<std::size_t>(size)};
  return store_.put(number, packed, backed) || (may_drain && drain() && store_.put(number, packed, backed));
}

bool CompressedSwap::fetch(PackedNumber number, std::byte* page) {
  return store_.get(number, [page](std::span<const std::byte> packed) { CHECK(unpack(packed, page)); });
}

void CompressedSwap::make_room() {
  if (store_.full()) (void)drain();
}

bool CompressedSwap::drain() {
  return store_.drain([this](PackedNumber number) { return wanted(number); },
                      [this](std::span<const CompressedStore::Aged> aged) { return write_out(aged); });
}

DeviceBlock CompressedSwap::place_of(PackedNumber number) const {
  unsigned device = 0;
  for (unsigned i = 1; i < fronts_.size(); ++i) {
    if (fronts_[i].below != nullptr && fronts_[i].first_number <= number.value()) device = i;
  }
  return {device, number.value() - fronts_[device].first_number};
}

bool CompressedSwap::wanted(PackedNumber number) const {
  return wanted_ == nullptr || wanted_(wanted_context_, place_of(number));
}

/// Unpacks in the order of the places on the devices, so that neighbours become one write.
bool CompressedSwap::write_out(std::span<const CompressedStore::Aged> aged) {
  std::array<const CompressedStore::Aged*, CompressedStore::kDrainPages> sorted;
  for (std::size_t i = 0; i < aged.size(); ++i) sorted[i] = &aged[i];
  std::sort(sorted.begin(), sorted.begin() + aged.size(),
            [](const auto* a, const auto* b) { return a->number < b->number; });
  for (std::size_t from = 0; from < aged.size();) {
    const DeviceBlock place = place_of(sorted[from]->number);
    std::size_t n = 0;
    for (; from + n < aged.size(); ++n) {
      const DeviceBlock next = place_of(sorted[from + n]->number);
      if (next.device != place.device || next.block != place.block + n) break;
      CHECK(unpack(sorted[from + n]->packed, drain_pages_ + n * kPageSize));
    }
    const IoSlice slice{drain_pages_, n * kPageSize};
    if (fronts_[place.device].below->write(place.block, {&slice, 1}) != IoResult::kOk) return false;
    from += n;
  }
  return true;
}

}  // namespace enchilada
