// The ring: entries in, entries out at the tail. Invariants: see compressed_store.h.
#include "swap/compressed_store.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <new>

#include "base/check.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kMagic = 0x3167'6e69'5243'6e45;  // "EnCRing1"
constexpr std::uint64_t kUnit = 8;                       // entries lie at multiples of this
constexpr std::uint32_t kFiller = ~std::uint32_t{0};     // number of an entry that only fills the ring's end
/// Bytes that one drain moves the tail by at most, so that nobody is kept for long.
constexpr std::uint64_t kDrainBytes = std::uint64_t{256} << 10;
/// Kept free for entries that go round while the tail has not moved yet.
constexpr std::uint64_t kReserve = std::uint64_t{64} << 10;

constexpr std::uint64_t round_up(std::uint64_t n, std::uint64_t to) {
  return (n + to - 1) / to * to;
}

std::uint64_t load(const std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(word)).load(std::memory_order_acquire);
}

void store(std::uint64_t& word, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(word).store(value, std::memory_order_release);
}

std::uint32_t load(const std::uint32_t& word) {
  return std::atomic_ref<std::uint32_t>(const_cast<std::uint32_t&>(word)).load(std::memory_order_acquire);
}

void store(std::uint32_t& word, std::uint32_t value) {
  std::atomic_ref<std::uint32_t>(word).store(value, std::memory_order_release);
}

}  // namespace

struct CompressedStore::Entry {
  static constexpr std::uint32_t kBacked = 1u << 31;   // the device has the page, too
  static constexpr std::uint32_t kTouched = 1u << 30;  // used since it was put; the only thing that changes

  std::uint32_t number;
  std::uint32_t word;  // flags, and the bytes of what follows

  [[nodiscard]] std::uint32_t bytes() const { return load(word) & ~(kBacked | kTouched); }
  [[nodiscard]] bool backed() const { return (load(word) & kBacked) != 0; }
  [[nodiscard]] bool touched() const { return (load(word) & kTouched) != 0; }
  [[nodiscard]] std::uint64_t size() const { return round_up(sizeof(Entry) + bytes(), kUnit); }
  [[nodiscard]] std::span<const std::byte> packed() const {
    return {reinterpret_cast<const std::byte*>(this + 1), bytes()};
  }
};

struct CompressedStore::Header {
  std::uint64_t magic;
  std::uint64_t ring_bytes;
  std::uint64_t numbers;
  std::uint64_t words_at, ring_at, bytes;
  alignas(64) RobustMutex lock;
  // Positions only grow; a position's place in the ring is its remainder.
  std::uint64_t head, tail;
  Stats stats;
  alignas(64) RobustMutex drain_lock{LockRank::kSwapDrain};
  std::uint32_t draining;  // of the following; changed with both locks held
  std::array<PackedNumber, kDrainPages> drained;

  void lay_out(ByteCount ring, PageCount count) {
    ring_bytes = ring.value() / kPageSize * kPageSize;
    numbers = count.value();
    words_at = round_up(sizeof(Header), kPageSize);
    ring_at = round_up(words_at + numbers * sizeof(std::uint32_t), kPageSize);
    bytes = ring_at + ring_bytes;
  }
};

/// The ring's lock. Who died inside it left nothing half done: see put().
class CompressedStore::Section {
 public:
  explicit Section(const CompressedStore& store) NO_THREAD_SAFETY_ANALYSIS : store_(store) {
    (void)store_.header_->lock.lock(store_.self_ + 1,
                                    [this](std::uint32_t id) { return store_.lock_alive(id); });
  }
  ~Section() NO_THREAD_SAFETY_ANALYSIS { store_.header_->lock.unlock(store_.self_ + 1); }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

 private:
  const CompressedStore& store_;
};

/// The drain lock. Who died inside it moved no tail, so what it may have written is written again.
class CompressedStore::Drain {
 public:
  explicit Drain(CompressedStore& store) NO_THREAD_SAFETY_ANALYSIS : store_(store) {
    const auto alive = [this](std::uint32_t id) { return store_.lock_alive(id); };
    if (store_.header_->drain_lock.lock(store_.self_ + 1, alive) == RobustMutex::Outcome::kInherited) {
      const Section section(store_);
      store_.header_->draining = 0;
    }
  }
  ~Drain() NO_THREAD_SAFETY_ANALYSIS { store_.header_->drain_lock.unlock(store_.self_ + 1); }
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;

 private:
  CompressedStore& store_;
};

bool CompressedStore::lock_alive(std::uint32_t id) const {
  return alive_.alive == nullptr || alive_.alive(alive_.context, id - 1);
}

std::size_t CompressedStore::required_bytes(ByteCount ring, PageCount numbers) {
  Header h{};
  h.lay_out(ring, numbers);
  return h.bytes;
}

bool CompressedStore::create(std::span<std::byte> storage, ByteCount ring, PageCount numbers) {
  constexpr std::uint64_t kMostRing = kUnit * (std::uint64_t{kFiller} - 1);
  if (ring < kSmallest || ring.value() > kMostRing || numbers.value() >= kFiller) return false;
  if (storage.size() < required_bytes(ring, numbers)) return false;
  if (reinterpret_cast<std::uintptr_t>(storage.data()) % kPageSize != 0) return false;
  auto* h = new (storage.data()) Header{};
  h->lay_out(ring, numbers);
  store(h->magic, kMagic);
  return true;
}

std::optional<CompressedStore> CompressedStore::attach(std::span<std::byte> storage, unsigned self,
                                                       Liveness alive) {
  if (storage.size() < sizeof(Header)) return std::nullopt;
  auto* h = reinterpret_cast<Header*>(storage.data());
  if (load(h->magic) != kMagic || h->bytes > storage.size()) return std::nullopt;
  return CompressedStore(h, self, alive);
}

void CompressedStore::drop_holder(unsigned holder) {
  if (header_->lock.owner() == holder + 1) const Section section(*this);
  if (header_->drain_lock.owner() == holder + 1) const Drain drain(*this);
}

std::uint32_t* CompressedStore::words() const {
  return reinterpret_cast<std::uint32_t*>(reinterpret_cast<std::byte*>(header_) + header_->words_at);
}

std::byte* CompressedStore::at(std::uint64_t position) const {
  return reinterpret_cast<std::byte*>(header_) + header_->ring_at + position % header_->ring_bytes;
}

CompressedStore::Entry* CompressedStore::entry(std::uint64_t position) const {
  return reinterpret_cast<Entry*>(at(position));
}

std::uint32_t CompressedStore::word_of(std::uint64_t position) const {
  return static_cast<std::uint32_t>(position % header_->ring_bytes / kUnit + 1);
}

/// Is this entry what its page is now? Fillers and replaced entries are not.
bool CompressedStore::here(const Entry& entry, std::uint64_t position) const {
  return entry.number != kFiller && load(words()[entry.number]) == word_of(position);
}

bool CompressedStore::has(PackedNumber number) const {
  CHECK(number.value() < header_->numbers, number.value());
  return load(words()[number.value()]) != 0;
}

std::uint64_t CompressedStore::reserve() const {
  return std::min(kReserve, header_->ring_bytes / 8);
}

/// With the ring's lock held. The ring may be filled up to `limit` bytes.
bool CompressedStore::append(PackedNumber number, std::span<const std::byte> packed, bool backed,
                             std::uint64_t limit) {
  Header& h = *header_;
  const std::uint64_t size = round_up(sizeof(Entry) + packed.size(), kUnit);
  const std::uint64_t rest = h.ring_bytes - h.head % h.ring_bytes;
  const std::uint64_t filler = rest < size ? rest : 0;
  if (h.head + filler + size - load(h.tail) > limit) return false;
  if (filler != 0) {
    *entry(h.head) = {kFiller, static_cast<std::uint32_t>(filler - sizeof(Entry))};
    store(h.head, h.head + filler);
  }
  const std::uint64_t position = h.head;
  Entry* const e = entry(position);
  *e = {number.value(), static_cast<std::uint32_t>(packed.size()) | (backed ? Entry::kBacked : 0)};
  std::memcpy(e + 1, packed.data(), packed.size());
  store(h.head, position + size);
  store(words()[number.value()], word_of(position));
  return true;
}

bool CompressedStore::put(PackedNumber number, std::span<const std::byte> packed, bool backed) {
  CHECK(number.value() < header_->numbers, number.value());
  const Section section(*this);
  if (!append(number, packed, backed, header_->ring_bytes - reserve())) return false;
  ++header_->stats.put;
  header_->stats.packed += packed.size();
  return true;
}

/// With the ring's lock held: the page's entry, marked as used; null: it is not here.
CompressedStore::Entry* CompressedStore::used_entry(PackedNumber number) {
  const std::uint32_t word = words()[number.value()];
  if (word == 0) return nullptr;
  Entry* const e = entry(std::uint64_t{word - 1} * kUnit);
  DCHECK(e->number == number.value(), e->number);
  store(e->word, e->word | Entry::kTouched);
  return e;
}

bool CompressedStore::touch(PackedNumber number) {
  if (!has(number)) return false;
  const Section section(*this);
  return used_entry(number) != nullptr;
}

bool CompressedStore::being_drained(PackedNumber number) const {
  const auto* const end = header_->drained.begin() + load(header_->draining);
  return std::find(static_cast<const PackedNumber*>(header_->drained.begin()), end, number) != end;
}

void CompressedStore::drop(PackedNumber number) {
  if (!has(number) && load(header_->draining) == 0) return;
  bool wait = false;
  {
    const Section section(*this);
    store(words()[number.value()], 0);
    wait = being_drained(number);
  }
  if (wait) const Drain finished(*this);
}

bool CompressedStore::get(PackedNumber number, FunctionRef<void(std::span<const std::byte>)> use) {
  if (!has(number)) return false;
  const Section section(*this);
  const Entry* const e = used_entry(number);
  if (e == nullptr) return false;
  use(e->packed());
  ++header_->stats.got;
  return true;
}

/// What one drain takes out.
struct CompressedStore::Batch {
  std::array<std::uint64_t, kDrainPages> positions;
  std::array<Aged, kDrainPages> entries;
  std::size_t n = 0;
  std::uint64_t left = 0;
  std::uint64_t stale = 0;
  std::uint64_t rounds = 0;
  std::uint64_t tail = 0;  // where it will be
};

/// Walks from the tail. Entries stay where they are: only we move the tail.
void CompressedStore::collect(Batch& batch, FunctionRef<bool(PackedNumber)> wanted) {
  const std::uint64_t begin = header_->tail;
  const std::uint64_t end =
      std::min(load(header_->head), begin + std::min(kDrainBytes, header_->ring_bytes / 2));
  std::uint64_t position = begin;
  for (; position < end && batch.n < kDrainPages; position += entry(position)->size()) {
    const Entry& e = *entry(position);
    if (e.number == kFiller) continue;
    const PackedNumber number{e.number};
    if (!here(e, position) || !wanted(number)) {
      forget(number, position);
      ++batch.stale;
    } else if (e.touched() && go_round(e, position)) {
      ++batch.rounds;
    } else if (e.backed()) {
      forget(number, position);
      ++batch.left;
    } else {
      batch.positions[batch.n] = position;
      batch.entries[batch.n++] = {number, e.packed()};
    }
  }
  batch.tail = position;
}

/// A copy at the head takes the entry's place. False: no room, or it is gone.
bool CompressedStore::go_round(const Entry& entry, std::uint64_t position) {
  const Section section(*this);
  return here(entry, position) &&
         append(PackedNumber{entry.number}, entry.packed(), entry.backed(), header_->ring_bytes);
}

/// From now on drop() waits for us. What was dropped before leaves the batch.
void CompressedStore::announce(Batch& batch) {
  const Section section(*this);
  std::size_t n = 0;
  for (std::size_t i = 0; i < batch.n; ++i) {
    if (load(words()[batch.entries[i].number.value()]) != word_of(batch.positions[i])) continue;
    batch.positions[n] = batch.positions[i];
    batch.entries[n] = batch.entries[i];
    header_->drained[n++] = batch.entries[i].number;
  }
  batch.stale += batch.n - n;
  batch.n = n;
  store(header_->draining, static_cast<std::uint32_t>(n));
}

void CompressedStore::settle(const Batch& batch, bool written) {
  const Section section(*this);
  Header& h = *header_;
  store(h.draining, 0);
  if (!written) return;
  for (std::size_t i = 0; i < batch.n; ++i) {
    std::uint32_t& word = words()[batch.entries[i].number.value()];
    if (word == word_of(batch.positions[i])) store(word, 0);
  }
  store(h.tail, batch.tail);
  h.stats.moved += batch.n;
  h.stats.left += batch.left;
  h.stats.stale += batch.stale;
  h.stats.rounds += batch.rounds;
}

bool CompressedStore::drain(FunctionRef<bool(PackedNumber)> wanted,
                            FunctionRef<bool(std::span<const Aged>)> write) {
  const Drain drain(*this);
  Batch batch;
  collect(batch, wanted);
  announce(batch);
  const bool written = batch.n == 0 || write({batch.entries.data(), batch.n});
  settle(batch, written);
  return written;
}

/// The page is not in this entry any more.
void CompressedStore::forget(PackedNumber number, std::uint64_t position) {
  std::uint32_t& word = words()[number.value()];
  if (load(word) != word_of(position)) return;
  const Section section(*this);
  if (word == word_of(position)) store(word, 0);
}

bool CompressedStore::full() const {
  const std::uint64_t used = load(header_->head) - load(header_->tail);
  return header_->ring_bytes - used < reserve() + std::min(kDrainBytes / 2, header_->ring_bytes / 4);
}

ByteCount CompressedStore::ring() const {
  return ByteCount{header_->ring_bytes};
}

CompressedStore::Stats CompressedStore::stats() const {
  const Section section(*this);
  Stats stats = header_->stats;
  stats.bytes = header_->head - header_->tail;
  stats.touched = std::min(header_->head, header_->ring_bytes);
  stats.pages = stats.put - stats.moved - stats.left - stats.stale;
  return stats;
}

bool CompressedStore::verify() const {
  const Section section(*this);
  const Header& h = *header_;
  if (h.head < h.tail || h.head - h.tail > h.ring_bytes || h.draining != 0) return false;
  std::uint64_t live = 0;
  std::uint64_t position = h.tail;
  while (position < h.head) {
    const Entry& e = *entry(position);
    if (e.number != kFiller && e.number >= h.numbers) return false;
    if (here(e, position)) ++live;
    position += e.size();
  }
  if (position != h.head) return false;
  std::uint64_t named = 0;
  for (std::uint64_t i = 0; i < h.numbers; ++i) named += words()[i] != 0 ? 1 : 0;
  return named == live;
}

}  // namespace enchilada
