// SwapHash: chains of entries, and how an order is found where there is none.
#include "swap/swap_hash.h"

#include <algorithm>

#include "base/check.h"

namespace enchilada {
namespace {

constexpr std::size_t kChunk = 32;  // entries per slab chunk

std::byte* take(Arena& arena, std::size_t bytes) {
  return static_cast<std::byte*>(bytes == 0 ? nullptr : arena.reserve(bytes));
}

}  // namespace

template <unsigned kPagesBits>
struct BasicSwapHash<kPagesBits>::Entry {
  Entry* next = nullptr;
  const void* object = nullptr;
  std::uint64_t key = 0;   // page index / pages of an entry
  std::uint32_t used = 0;  // blocks that exist
  std::array<SwapBlock, kPages> blocks{};
  std::array<Fingerprint, kPages> prints{};
};

template <unsigned kPagesBits>
BasicSwapHash<kPagesBits>::BasicSwapHash(Arena& arena, std::size_t bytes)
    : BasicSwapHash(take(arena, bytes), bytes, arena) {}

template <unsigned kPagesBits>
BasicSwapHash<kPagesBits>::BasicSwapHash(std::byte* memory, std::size_t bytes, Arena& parent)
    : memory_(memory, memory == nullptr ? 0 : bytes, &parent), zone_(memory_, kChunk) {
  constexpr std::size_t kChunkBytes = (sizeof(Entry) * kChunk + 63) / 64 * 64;
  const std::uint64_t most = memory_.size() / kChunkBytes * kChunk;
  if (most == 0) return;
  std::uint64_t n = 1;
  while (n < most / 8) n <<= 1;
  buckets_ = static_cast<Entry**>(memory_.reserve(n * sizeof(Entry*)));
  if (buckets_ == nullptr) return;
  bucket_mask_ = n - 1;
  max_entries_ = (memory_.size() - memory_.used()) / kChunkBytes * kChunk;
}

template <unsigned kPagesBits>
auto BasicSwapHash<kPagesBits>::bucket_of(const void* object, std::uint64_t key) const -> Entry** {
  return &buckets_[((key << kPagesBits) ^ reinterpret_cast<std::uintptr_t>(object)) & bucket_mask_];
}

template <unsigned kPagesBits>
auto BasicSwapHash<kPagesBits>::find(const void* object, const void* root, std::uint64_t key) const
    -> Entry* {
  if (root == nullptr) return nullptr;
  count(stats_.lookups);
  std::uint64_t probes = 0;
  Entry* e = *bucket_of(object, key);
  for (; e != nullptr; e = e->next) {
    ++probes;
    if (e->object == object && e->key == key) break;
  }
  count(stats_.probes, probes);
  return e;
}

/// The object's entry of the smallest key in [from, last].
template <unsigned kPagesBits>
auto BasicSwapHash<kPagesBits>::find_next(const void* object, const void* root, std::uint64_t from,
                                          std::uint64_t last) const -> Entry* {
  if (root == nullptr) return nullptr;
  const std::uint64_t span = last - from;
  for (std::uint64_t i = 0; i <= std::min(span, bucket_mask_); ++i) {
    if (Entry* e = find(object, root, from + i)) return e;
  }
  return span <= bucket_mask_ ? nullptr : least_of_all(object, from + bucket_mask_ + 1, last);
}

template <unsigned kPagesBits>
auto BasicSwapHash<kPagesBits>::least_of_all(const void* object, std::uint64_t from, std::uint64_t last) const
    -> Entry* {
  count(stats_.scans);
  Entry* least = nullptr;
  for (std::uint64_t b = 0; b <= bucket_mask_; ++b) {
    for (Entry* e = buckets_[b]; e != nullptr; e = e->next) {
      if (e->object != object || e->key < from || e->key > last) continue;
      if (least == nullptr || e->key < least->key) least = e;
    }
  }
  return least;
}

template <unsigned kPagesBits>
auto BasicSwapHash<kPagesBits>::create(const void* object, void*& root, std::uint64_t key,
                                       MetaPurpose purpose) -> Entry* {
  if (entry_count_ >= max_entries_ / 2) {
    count(purpose == MetaPurpose::kPut ? stats_.refused : stats_.dips);
    if (purpose == MetaPurpose::kPut || entry_count_ >= max_entries_) return nullptr;
  }
  Entry* e = zone_.create();
  CHECK(e != nullptr, entry_count_, max_entries_);
  ++entry_count_;
  e->object = object;
  e->key = key;
  e->blocks.fill(kNoBlock);
  Entry** const bucket = bucket_of(object, key);
  e->next = *bucket;
  *bucket = e;
  set_count(root, count_in(root) + 1);
  return e;
}

template <unsigned kPagesBits>
void BasicSwapHash<kPagesBits>::destroy(Entry* entry, void*& root) {
  Entry** at = bucket_of(entry->object, entry->key);
  while (*at != entry) at = &(*at)->next;
  *at = entry->next;
  zone_.destroy(entry);
  --entry_count_;
  set_count(root, count_in(root) - 1);
}

template <unsigned kPagesBits>
SwapCopy BasicSwapHash<kPagesBits>::get(const void* object, const void* root, PageIndex index) const {
  const Entry* e = find(object, root, index.value() >> kPagesBits);
  if (e == nullptr) return {};
  const std::uint64_t i = index.value() & kPagesMask;
  return {e->blocks[i], e->prints[i]};
}

template <unsigned kPagesBits>
bool BasicSwapHash<kPagesBits>::set(const void* object, void*& root, PageIndex index, const SwapCopy& copy,
                                    MetaPurpose purpose, SwapCopy* old) {
  const std::uint64_t key = index.value() >> kPagesBits;
  Entry* e = find(object, root, key);
  if (e == nullptr) e = create(object, root, key, purpose);
  if (e == nullptr) return false;
  const std::uint64_t i = index.value() & kPagesMask;
  *old = {e->blocks[i], e->prints[i]};
  if (!old->exists()) ++e->used;
  e->blocks[i] = copy.block;
  e->prints[i] = copy.print;
  return true;
}

template <unsigned kPagesBits>
SwapCopy BasicSwapHash<kPagesBits>::remove(const void* object, void*& root, PageIndex index) {
  Entry* e = find(object, root, index.value() >> kPagesBits);
  if (e == nullptr) return {};
  const std::uint64_t i = index.value() & kPagesMask;
  const SwapCopy gone{e->blocks[i], e->prints[i]};
  e->blocks[i] = kNoBlock;
  if (gone.exists() && --e->used == 0) destroy(e, root);
  return gone;
}

template <unsigned kPagesBits>
bool BasicSwapHash<kPagesBits>::next(const void* object, const void* root, PageIndex first, PageIndex last,
                                     PageIndex* index, SwapCopy* copy) const {
  const std::uint64_t last_key = last.value() >> kPagesBits;
  for (std::uint64_t key = first.value() >> kPagesBits; first <= last;) {
    const Entry* e = find_next(object, root, key, last_key);
    if (e == nullptr) return false;
    for (std::uint64_t i = 0; i < kPages; ++i) {
      const PageIndex at{(e->key << kPagesBits) + i};
      if (at < first || at > last || e->blocks[i] == kNoBlock) continue;
      *index = at;
      *copy = {e->blocks[i], e->prints[i]};
      return true;
    }
    if (e->key == last_key) return false;
    key = e->key + 1;
  }
  return false;
}

template <unsigned kPagesBits>
SwapCopy BasicSwapHash<kPagesBits>::get(const PagerHandle& handle, PageIndex index) const {
  return get(&handle, handle.root, index);
}

template <unsigned kPagesBits>
bool BasicSwapHash<kPagesBits>::set(PagerHandle& handle, PageIndex index, const SwapCopy& copy,
                                    MetaPurpose purpose, SwapCopy* old) {
  return set(&handle, handle.root, index, copy, purpose, old);
}

template <unsigned kPagesBits>
void BasicSwapHash<kPagesBits>::remove_range(PagerHandle& handle, PageIndex first, PageIndex last,
                                             FunctionRef<void(PageIndex, const SwapCopy&)> use) {
  const std::uint64_t last_key = last.value() >> kPagesBits;
  for (std::uint64_t key = first.value() >> kPagesBits; first <= last;) {
    Entry* e = find_next(&handle, handle.root, key, last_key);
    if (e == nullptr) return;
    key = e->key;
    std::array<SwapCopy, kPages> gone{};
    for (std::uint64_t i = 0; i < kPages; ++i) {
      const PageIndex at{(key << kPagesBits) + i};
      if (at < first || at > last) continue;
      gone[i] = {e->blocks[i], e->prints[i]};
      if (gone[i].exists()) --e->used;
      e->blocks[i] = kNoBlock;
    }
    // Out of the table before the caller hears of it: a move needs the memory for its destination.
    if (e->used == 0) destroy(e, handle.root);
    for (std::uint64_t i = 0; i < kPages; ++i) {
      if (gone[i].exists()) use(PageIndex{(key << kPagesBits) + i}, gone[i]);
    }
    if (key == last_key) return;
    ++key;
  }
}

template <unsigned kPagesBits>
void BasicSwapHash<kPagesBits>::visit(const PagerHandle& handle, PageIndex first, PageIndex last,
                                      FunctionRef<bool(PageIndex, const SwapCopy&)> use) const {
  const std::uint64_t last_key = last.value() >> kPagesBits;
  // From the start on it is known when all has been seen.
  std::uint64_t left = first.value() == 0 ? count_in(handle.root) : ~std::uint64_t{0};
  for (std::uint64_t key = first.value() >> kPagesBits; first <= last && left > 0; --left) {
    const Entry* e = find_next(&handle, handle.root, key, last_key);
    if (e == nullptr) return;
    for (std::uint64_t i = 0; i < kPages; ++i) {
      const PageIndex at{(e->key << kPagesBits) + i};
      if (at < first || at > last || e->blocks[i] == kNoBlock) continue;
      if (!use(at, {e->blocks[i], e->prints[i]})) return;
    }
    if (e->key == last_key) return;
    key = e->key + 1;
  }
}

template <unsigned kPagesBits>
std::uint64_t BasicSwapHash<kPagesBits>::longest_chain() const {
  std::uint64_t longest = 0;
  for (std::uint64_t b = 0; buckets_ != nullptr && b <= bucket_mask_; ++b) {
    std::uint64_t n = 0;
    for (const Entry* e = buckets_[b]; e != nullptr; e = e->next) ++n;
    longest = std::max(longest, n);
  }
  return longest;
}

template <unsigned kPagesBits>
bool BasicSwapHash<kPagesBits>::verify(const PagerHandle& handle, std::uint64_t pages) const {
  if (!is_root(handle.root)) return false;
  std::uint64_t all = 0;
  std::uint64_t ours = 0;
  std::uint64_t blocks = 0;
  for (std::uint64_t b = 0; buckets_ != nullptr && b <= bucket_mask_; ++b) {
    for (const Entry* e = buckets_[b]; e != nullptr; e = e->next, ++all) {
      const auto used =
          std::count_if(e->blocks.begin(), e->blocks.end(), [](SwapBlock at) { return at != kNoBlock; });
      if (e->used == 0 || static_cast<std::uint64_t>(used) != e->used) return false;
      if (bucket_of(e->object, e->key) != &buckets_[b]) return false;
      if (e->object != &handle) continue;
      ++ours;
      blocks += e->used;
    }
  }
  return all == entry_count_ && ours == count_in(handle.root) && blocks == pages;
}

template class BasicSwapHash<0>;
template class BasicSwapHash<4>;

}  // namespace enchilada
