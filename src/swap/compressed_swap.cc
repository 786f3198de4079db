// Compressing, and which page goes where. Invariants: see compressed_swap.h.
#include "swap/compressed_swap.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "base/mutex.h"

namespace enchilada {
namespace {

/// After so many pages in a row that did not shrink only one in kRetry is tried.
constexpr std::uint32_t kHopeless = 64;
constexpr std::uint32_t kRetry = 16;
constexpr std::uint64_t kBenchWaitNs = 20'000;

/// Pages of a write that begin_write() takes.
constexpr std::uint64_t kMostBegun = 64;

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

class CompressedSwap::BenchLease {
 public:
  BenchLease(Bench* benches, std::size_t n) {
    for (std::size_t i = 0; i < n && bench_ == nullptr; ++i) {
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
    : codec_(page_codec(config.compression)),
      store_(config.store),
      wanted_(config.wanted),
      wanted_context_(config.wanted_context) {
  CHECK(config.below.size() <= fronts_.size(), config.below.size());
  std::uint32_t next = 0;
  for (std::size_t i = 0; i < config.below.size(); ++i) {
    fronts_[i].swap = this;
    fronts_[i].below = config.below[i];
    fronts_[i].first_number = next;
    if (config.below[i] != nullptr) next += static_cast<std::uint32_t>(config.below[i]->size().value());
  }
  benches_ = make_benches(config.arena, kBenches, codec_.pack_bytes());
  unpack_benches_ = make_benches(config.arena, kUnpackBenches, codec_.unpack_bytes());
  if (benches_ == nullptr || unpack_benches_ == nullptr) return;
  auto* raw = static_cast<std::byte*>(config.arena.allocate((CompressedStore::kDrainPages + 1) * kPageSize));
  if (raw == nullptr) return;
  drain_pages_ = raw + (kPageSize - reinterpret_cast<std::uintptr_t>(raw) % kPageSize) % kPageSize;
}

CompressedSwap::Bench* CompressedSwap::make_benches(Arena& arena, std::size_t n,
                                                    std::size_t workspace_bytes) {
  Bench* const benches = arena.allocate_array<Bench>(n);
  if (benches == nullptr) return nullptr;
  for (std::size_t i = 0; i < n; ++i) {
    new (&benches[i]) Bench;
    if (workspace_bytes == 0) continue;
    benches[i].workspace = arena.allocate(workspace_bytes);
    if (benches[i].workspace == nullptr) return nullptr;
  }
  return benches;
}

/// A bench that nobody ever needs costs no memory.
void* CompressedSwap::pack_state(Bench& bench) const {
  if (bench.state == nullptr) bench.state = codec_.prepare_pack(bench.workspace);
  return bench.state;
}

void* CompressedSwap::unpack_state(Bench& bench) const {
  if (bench.state == nullptr) bench.state = codec_.prepare_unpack(bench.workspace);
  return bench.state;
}

void CompressedSwap::on_process_fork_child() {
  for (std::size_t i = 0; i < kBenches; ++i) benches_[i].busy.store(false, std::memory_order_relaxed);
  for (std::size_t i = 0; i < kUnpackBenches; ++i)
    unpack_benches_[i].busy.store(false, std::memory_order_relaxed);
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
    if (swap->store_.has(number(first + i))) return false;  // a glance: read() takes the lock once
  }
  return below->begin_read(first, to, read);
}

IoResult CompressedSwap::Front::finish_read(const SwapRead& read) {
  return below->finish_read(read);
}

/// What of a write goes to the device below, in as few calls as possible.
class CompressedSwap::Front::Rest {
 public:
  explicit Rest(Front& front) : front_(front) {}

  void add(std::uint64_t block, std::byte* page) {
    if (run_.add(block, page)) return;
    (void)finish();
    (void)run_.add(block, page);
  }
  IoResult finish() {
    if (run_.pages != 0 && result_ == IoResult::kOk) {
      for (std::uint64_t i = 0; i < run_.pages; ++i) front_.swap->store_.drop(front_.number(run_.first + i));
      const IoSlice slice = run_.slice();
      result_ = front_.below->write(run_.first, {&slice, 1});
    }
    run_ = {};
    return result_;
  }
  [[nodiscard]] bool failed() const { return result_ != IoResult::kOk; }

 private:
  Front& front_;
  Run run_;
  IoResult result_ = IoResult::kOk;
};

IoResult CompressedSwap::Front::write(std::uint64_t first, std::span<const IoSlice> from) {
  Rest rest(*this);
  for_each_page(first, from, [&](std::uint64_t block, std::byte* page) {
    if (!rest.failed() && !swap->compress(number(block), page, false, true)) rest.add(block, page);
  });
  return rest.finish();
}

/// What goes to the store is done at once. A run of which nothing does goes on by itself; of others the rest
/// is written here.
bool CompressedSwap::Front::begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) {
  const std::uint64_t pages = from.bytes / kPageSize;
  if (pages > kMostBegun) return false;
  std::uint64_t packed = 0;
  for (std::uint64_t i = 0; i < pages; ++i) {
    if (swap->compress(number(first + i), from.data + i * kPageSize, false, true))
      packed |= std::uint64_t{1} << i;
  }
  if (packed == 0) {
    for (std::uint64_t i = 0; i < pages; ++i) swap->store_.drop(number(first + i));
    if (below->begin_write(first, from, write)) return true;
  }
  Rest rest(*this);
  for (std::uint64_t i = 0; i < pages; ++i) {
    if ((packed >> i & 1) == 0) rest.add(first + i, from.data + i * kPageSize);
  }
  write.begin(from.bytes);
  write.end(rest.finish() == IoResult::kOk ? static_cast<long>(from.bytes) : -1);
  return true;
}

/// Compresses the page into the store. False: it is not there; the device must have it.
bool CompressedSwap::compress(PackedNumber number, const std::byte* page, bool backed, bool may_drain) {
  const std::uint32_t misses = misses_.load(std::memory_order_relaxed);
  if (misses >= kHopeless && misses % kRetry != 0) {
    misses_.store(misses + 1, std::memory_order_relaxed);
    return false;
  }
  const BenchLease lease(benches_, kBenches);
  Bench* const bench = lease.get();
  if (bench == nullptr) return false;
  // A page that shrinks less is not worth its memory.
  const std::size_t size = codec_.pack(pack_state(*bench), page, bench->packed);
  misses_.store(size > 0 ? 0 : misses + 1, std::memory_order_relaxed);
  if (size == 0) return false;
  const std::span<const std::byte> packed{bench->packed.data(), size};
  return store_.put(number, packed, backed) || (may_drain && drain() && store_.put(number, packed, backed));
}

/// The ring's lock is held for a copy of the packed bytes only: others may go on while this thread unpacks.
bool CompressedSwap::fetch(PackedNumber number, std::byte* page) {
  if (!store_.has(number)) return false;
  for (;;) {
    const BenchLease lease(unpack_benches_, kUnpackBenches - 1);
    Bench* const bench = lease.get();
    if (bench == nullptr) {  // those who have one need a few microseconds, and do no I/O
      const std::atomic<std::uint32_t> nobody{0};
      futex_wait(nobody, 0, kBenchWaitNs);
      continue;
    }
    std::size_t size = 0;
    if (!store_.get(number, [&](std::span<const std::byte> packed) {
          size = packed.size();
          std::memcpy(bench->packed.data(), packed.data(), size);
        }))
      return false;
    CHECK(codec_.unpack(unpack_state(*bench), {bench->packed.data(), size}, page), number.value());
    return true;
  }
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
  void* const state = unpack_state(unpack_benches_[kUnpackBenches - 1]);  // the drain lock's
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
      CHECK(codec_.unpack(state, sorted[from + n]->packed, drain_pages_ + n * kPageSize));
    }
    const IoSlice slice{drain_pages_, n * kPageSize};
    if (fronts_[place.device].below->write(place.block, {&slice, 1}) != IoResult::kOk) return false;
    from += n;
  }
  return true;
}

}  // namespace enchilada
