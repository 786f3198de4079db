// Blist: search by exact hints, and their upkeep. Layout and invariants are in the header.
#include "swap/blist.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace enchilada {
namespace {

using block_storage::divide_up;
using block_storage::inside;
using block_storage::kLine;
using block_storage::kNone;

constexpr std::uint64_t kAll = ~std::uint64_t{0};
constexpr std::uint64_t kMagic = 0x31747369'6c424e45;  // "ENBlist1"

constexpr std::uint64_t line_up(std::uint64_t n) {
  return divide_up(n, kLine) * kLine;
}

/// Bits [from, to) of a word, to <= 64, from < to.
constexpr std::uint64_t bits_between(std::uint64_t from, std::uint64_t to) {
  return (kAll << from) & (kAll >> (64 - to));
}

/// Calls use(leaf, mask) for each leaf that [first, first+count) touches.
template <class Use>
void for_each_leaf(std::uint64_t first, std::uint64_t count, Use use) {
  const std::uint64_t end = first + count;
  while (first < end) {
    const std::uint64_t leaf = first / 64;
    const std::uint64_t stop = std::min(end, (leaf + 1) * 64);
    use(leaf, bits_between(first % 64, stop - leaf * 64));
    first = stop;
  }
}

/// Which of 64 bytes are at most `most`: bit i for byte i.
std::uint64_t at_most(const std::uint8_t* line, unsigned most) {
  const __m128i want = _mm_set1_epi8(static_cast<char>(most));
  std::uint64_t mask = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const __m128i have = _mm_load_si128(reinterpret_cast<const __m128i*>(line) + i);
    const int hit = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(have, want), have));
    mask |= std::uint64_t{static_cast<std::uint32_t>(hit)} << (16 * i);
  }
  return mask;
}

std::uint8_t least(const std::uint8_t* line) {
  const __m128i* v = reinterpret_cast<const __m128i*>(line);
  __m128i m = _mm_min_epu8(_mm_min_epu8(_mm_load_si128(v), _mm_load_si128(v + 1)),
                           _mm_min_epu8(_mm_load_si128(v + 2), _mm_load_si128(v + 3)));
  m = _mm_min_epu8(m, _mm_srli_si128(m, 8));
  m = _mm_min_epu8(m, _mm_srli_si128(m, 4));
  m = _mm_min_epu8(m, _mm_srli_si128(m, 2));
  m = _mm_min_epu8(m, _mm_srli_si128(m, 1));
  return static_cast<std::uint8_t>(_mm_cvtsi128_si32(m) & 0xff);
}

__extension__ using Wide = unsigned __int128;

}  // namespace

struct alignas(kLine) Blist::Header {
  std::uint64_t magic;
  std::uint64_t blocks;
  std::uint64_t boundary;   // 0 = none
  std::uint64_t greatest;   // of all hints: no allocation is longer than a leaf or the boundary
  std::uint64_t available;  // from here on: changes
  std::uint64_t cursor;
  std::uint32_t levels;     // levels of hints; level 0 belongs to the leaves, the last has one node
  std::uint64_t leaves_at;  // offset of the bitmaps: 1 = allocated
  std::uint64_t hints_at[kMaxLevels];  // a byte each: greatest - hint
  std::uint64_t bytes;
};

std::size_t Blist::required_bytes(PageCount blocks) {
  std::uint64_t nodes = std::max<std::uint64_t>(1, divide_up(blocks.value(), kLeafBlocks));
  std::uint64_t bytes = sizeof(Header) + line_up(nodes * sizeof(std::uint64_t));
  for (;;) {
    bytes += line_up(nodes);
    if (nodes == 1) return bytes;
    nodes = divide_up(nodes, 64);
  }
}

Blist Blist::create(std::span<std::byte> storage, PageCount blocks, PageCount boundary) {
  block_storage::check_new(storage, required_bytes(blocks), blocks, boundary);
  auto* h = new (storage.data()) Header{};
  h->magic = kMagic;
  h->blocks = blocks.value();
  h->boundary = boundary.value();
  h->greatest = h->boundary == 0 ? kLeafBlocks : std::min(h->boundary, kLeafBlocks);
  std::uint64_t nodes = std::max<std::uint64_t>(1, divide_up(blocks.value(), kLeafBlocks));
  h->leaves_at = sizeof(Header);
  std::uint64_t at = h->leaves_at + line_up(nodes * sizeof(std::uint64_t));
  for (;;) {
    CHECK(h->levels < kMaxLevels);
    h->hints_at[h->levels++] = at;
    at += line_up(nodes);
    if (nodes == 1) break;
    nodes = divide_up(nodes, 64);
  }
  h->bytes = at;
  Blist list(h);
  list.mark_ends();
  return list;
}

Blist Blist::attach(std::span<std::byte> storage) {
  return Blist(block_storage::header_of<Header>(storage, kMagic));
}

/// Makes zeroed leaves and hints a free list: what the last leaf and the last line of each level have too
/// many is never free.
void Blist::mark_ends() {
  header_->available = header_->blocks;
  header_->cursor = 0;
  std::uint64_t nodes = leaf_count();
  const std::uint64_t last = nodes - 1;
  for (unsigned level = 0; level < header_->levels; ++level) {
    std::memset(lacks(level) + nodes, static_cast<int>(header_->greatest), line_up(nodes) - nodes);
    nodes = divide_up(nodes, 64);
  }
  const std::uint64_t used = header_->blocks - last * kLeafBlocks;
  if (used == kLeafBlocks) return;
  taken()[last] = kAll << used;
  refresh(last, last);
}

inline std::uint64_t* Blist::taken() const {
  return reinterpret_cast<std::uint64_t*>(reinterpret_cast<std::byte*>(header_) + header_->leaves_at);
}
inline std::uint8_t* Blist::lacks(unsigned level) const {
  return reinterpret_cast<std::uint8_t*>(header_) + header_->hints_at[level];
}
inline std::uint64_t Blist::leaf_count() const {
  return std::max<std::uint64_t>(1, divide_up(header_->blocks, kLeafBlocks));
}

bool Blist::is_free(SwapBlock block) const {
  if (block.value() >= header_->blocks) return false;
  return (free_bits(block.value() / 64) >> (block.value() % 64) & 1) != 0;
}
void Blist::for_each_free(FunctionRef<void(BlockRun)> use) const {
  for (std::uint64_t leaf = 0; leaf < leaf_count(); ++leaf) {
    block_storage::for_each_run(free_bits(leaf), leaf * kLeafBlocks, use);
  }
}
PageCount Blist::available() const {
  return PageCount{header_->available};
}
PageCount Blist::size() const {
  return PageCount{header_->blocks};
}
SwapBlock Blist::cursor() const {
  return SwapBlock{static_cast<std::uint32_t>(header_->cursor)};
}
PageCount Blist::largest() const {
  return PageCount{header_->greatest - lacks(header_->levels - 1)[0]};
}

/// Bits at which an allocation of `length` (<= 64) may start when the boundary is shorter than a leaf.
inline std::uint64_t Blist::allowed_starts(std::uint64_t length) const {
  const std::uint64_t s = header_->boundary;
  if (s == 0 || s >= kLeafBlocks) return kAll;
  if (length > s) return 0;
  const std::uint64_t once_per_stripe = kAll / ((std::uint64_t{1} << s) - 1);
  return once_per_stripe * ((std::uint64_t{1} << (s - length + 1)) - 1);
}

/// Longest allocation inside one leaf, in O(log 64): run starts for lengths 1, 2, 4 …, then add lengths
/// downward.
inline unsigned Blist::longest_within(std::uint64_t bits) const {
  if (bits == 0) return 0;
  std::uint64_t starts[7];
  starts[0] = bits;
  unsigned k = 0;
  while (k < 6) {
    const std::uint64_t next = starts[k] & (starts[k] >> (1u << k)) & allowed_starts(std::uint64_t{2} << k);
    if (next == 0) break;
    starts[++k] = next;
  }
  unsigned length = 1u << k;
  if (length == kLeafBlocks) return length;
  std::uint64_t best = starts[k];
  while (k-- > 0) {
    const std::uint64_t longer = best & (starts[k] >> length) & allowed_starts(length + (1u << k));
    if (longer == 0) continue;
    best = longer;
    length += 1u << k;
  }
  return length;
}

/// May an allocation run from this leaf into the next one?
inline bool Blist::crosses(std::uint64_t leaf) const {
  if (leaf + 1 >= leaf_count()) return false;
  const std::uint64_t s = header_->boundary;
  return s == 0 || ((leaf + 1) * kLeafBlocks) % s != 0;
}

inline unsigned Blist::exact_hint(std::uint64_t leaf) const {
  const std::uint64_t bits = free_bits(leaf);
  const unsigned inside = longest_within(bits);
  if (inside == kLeafBlocks || (bits >> 63) == 0 || !crosses(leaf)) return inside;
  const int across = std::countl_one(bits) + std::countr_one(free_bits(leaf + 1));
  return std::max(inside, std::min(static_cast<unsigned>(across), static_cast<unsigned>(kLeafBlocks)));
}

/// Free blocks from `at` on, up to `limit`, the boundary and the end.
inline std::uint64_t Blist::run_length(std::uint64_t at, std::uint64_t limit) const {
  const std::uint64_t s = header_->boundary;
  if (s != 0) limit = std::min(limit, s - at % s);
  limit = std::min(limit, header_->blocks - at);
  std::uint64_t length = 0;
  while (length < limit) {
    const std::uint64_t bit = (at + length) % 64;
    const auto ones = static_cast<std::uint64_t>(std::countr_one(free_bits((at + length) / 64) >> bit));
    length += ones;
    if (ones < 64 - bit) break;
  }
  return std::min(length, limit);
}

/// First block >= from_bit of the leaf at which `min` can be allocated; kNone if none.
inline std::uint64_t Blist::search_leaf(std::uint64_t leaf, unsigned from_bit, std::uint64_t min) const {
  const std::uint64_t bits = free_bits(leaf);
  if (min <= kLeafBlocks) {
    Wide starts = bits;
    if (crosses(leaf)) starts |= Wide{free_bits(leaf + 1)} << 64;
    for (std::uint64_t length = 1; length < min;) {
      const std::uint64_t step = std::min(length, min - length);
      starts &= starts >> step;
      length += step;
    }
    const std::uint64_t hit = static_cast<std::uint64_t>(starts) & (kAll << from_bit) & allowed_starts(min);
    return hit == 0 ? kNone : leaf * 64 + static_cast<unsigned>(std::countr_zero(hit));
  }
  // Longer than a leaf: only the run that reaches the leaf's end can be long enough.
  const auto tail = static_cast<unsigned>(std::countl_one(bits));
  if (tail == 0) return kNone;
  const std::uint64_t at = leaf * 64 + std::max(64 - tail, from_bit);
  return run_length(at, min) == min ? at : kNone;
}

/// Smallest leaf >= from whose hint is at least `need`: up until a line has one, then down. kNone if none.
std::uint64_t Blist::next_leaf(std::uint64_t from, unsigned need) const {
  std::uint64_t index = from;
  std::uint64_t nodes = leaf_count();
  const auto lack = static_cast<unsigned>(header_->greatest) - need;
  unsigned level = 0;
  for (;; ++level, nodes = divide_up(nodes, 64)) {
    if (level == header_->levels) return kNone;
    if (index < nodes) {
      const std::uint64_t hit = at_most(lacks(level) + index / 64 * 64, lack) & (kAll << (index % 64));
      if (hit != 0) {
        index = index / 64 * 64 + static_cast<unsigned>(std::countr_zero(hit));
        break;
      }
    }
    index = index / 64 + 1;
  }
  while (level-- > 0) {
    const std::uint64_t hit = at_most(lacks(level) + index * 64, lack);
    CHECK(hit != 0, level, index);
    index = index * 64 + static_cast<unsigned>(std::countr_zero(hit));
  }
  return index;
}

/// First block >= at where `min` can be allocated; kNone if none.
std::uint64_t Blist::search_from(std::uint64_t at, std::uint64_t min) const {
  const auto need = static_cast<unsigned>(std::min(min, kLeafBlocks));
  std::uint64_t leaf = at / 64;
  auto bit = static_cast<unsigned>(at % 64);
  if (bit == 0) leaf = next_leaf(leaf, need);
  while (leaf != kNone) {
    const std::uint64_t found = search_leaf(leaf, bit, min);
    if (found != kNone) return found;
    bit = 0;
    leaf = next_leaf(leaf + 1, need);
  }
  return kNone;
}

BlockRun Blist::allocate(PageCount min, PageCount max) {
  const std::uint64_t want = std::max<std::uint64_t>(1, min.value());
  if (want > header_->available || (header_->boundary != 0 && want > header_->boundary)) return {};
  std::uint64_t at = search_from(header_->cursor, want);
  // The blocks before the cursor, and runs across it, are looked at only once the rest has none.
  if (at == kNone && header_->cursor != 0) at = search_from(0, want);
  if (at == kNone) return {};
  const std::uint64_t count = run_length(at, std::max(want, max.value()));
  for_each_leaf(at, count, [&](std::uint64_t leaf, std::uint64_t mask) { taken()[leaf] |= mask; });
  header_->available -= count;
  refresh(at / 64, (at + count - 1) / 64);
  header_->cursor = at + count == header_->blocks ? 0 : at + count;
  return block_storage::run_at(at, count);
}

inline bool Blist::none_free(std::uint64_t first, std::uint64_t count) const {
  std::uint64_t seen = 0;
  for_each_leaf(first, count,
                [&](std::uint64_t leaf, std::uint64_t mask) { seen |= free_bits(leaf) & mask; });
  return seen == 0;
}

bool Blist::free(BlockRun run) {
  const std::uint64_t first = run.first.value();
  const std::uint64_t count = run.count.value();
  if (count == 0) return true;
  if (!inside(run, header_->blocks) || !none_free(first, count)) return false;
  for_each_leaf(first, count, [&](std::uint64_t leaf, std::uint64_t mask) { taken()[leaf] &= ~mask; });
  header_->available += count;
  refresh(first / 64, (first + count - 1) / 64);
  return true;
}

PageCount Blist::fill(BlockRun run) {
  const std::uint64_t first = run.first.value();
  const std::uint64_t count = run.count.value();
  if (count == 0) return PageCount{0};
  CHECK(inside(run, header_->blocks), first, count);
  std::uint64_t were_free = 0;
  for_each_leaf(first, count, [&](std::uint64_t leaf, std::uint64_t mask) {
    were_free += static_cast<unsigned>(std::popcount(free_bits(leaf) & mask));
    taken()[leaf] |= mask;
  });
  header_->available -= were_free;
  if (were_free != 0) refresh(first / 64, (first + count - 1) / 64);
  return PageCount{were_free};
}

void Blist::rewind() {
  header_->cursor = 0;
}

void Blist::reset() {
  std::memset(taken(), 0, header_->bytes - header_->leaves_at);
  mark_ends();
}

/// Makes the hints exact again after the leaves [first, last] changed.
inline void Blist::refresh(std::uint64_t first_leaf, std::uint64_t last_leaf) {
  // The leaf before counts on our low bits: its last run may cross into us.
  if (first_leaf > 0 && (free_bits(first_leaf - 1) >> 63) != 0) --first_leaf;
  bool changed = false;
  for (std::uint64_t leaf = first_leaf; leaf <= last_leaf; ++leaf) {
    const auto lack = static_cast<std::uint8_t>(header_->greatest - exact_hint(leaf));
    changed |= lacks(0)[leaf] != lack;
    lacks(0)[leaf] = lack;
  }
  if (changed) refresh_metas(first_leaf, last_leaf);
}

void Blist::refresh_metas(std::uint64_t first_leaf, std::uint64_t last_leaf) {
  bool changed = true;
  for (unsigned level = 1; level < header_->levels && changed; ++level) {
    first_leaf /= 64;
    last_leaf /= 64;
    changed = false;
    for (std::uint64_t node = first_leaf; node <= last_leaf; ++node) {
      const std::uint8_t lack = least(lacks(level - 1) + node * 64);
      changed |= lacks(level)[node] != lack;
      lacks(level)[node] = lack;
    }
  }
}

Blist::Stats Blist::stats() const {
  Stats stats;
  std::uint64_t run = 0;
  for (std::uint64_t leaf = 0; leaf < leaf_count(); ++leaf) {
    std::uint64_t bits = free_bits(leaf);
    for (unsigned left = 64; left > 0;) {
      const auto ones = std::min(static_cast<unsigned>(std::countr_one(bits)), left);
      if (run == 0 && ones > 0) ++stats.free_runs;
      run += ones;
      stats.longest = std::max(stats.longest, run);
      left -= ones;
      if (left == 0) break;
      bits >>= ones;
      const auto zeros = std::min(static_cast<unsigned>(std::countr_zero(bits)), left);
      run = 0;
      left -= zeros;
      bits = zeros < 64 ? bits >> zeros : 0;
    }
  }
  return stats;
}

bool Blist::verify() const {
  std::uint64_t free = 0;
  std::uint64_t nodes = leaf_count();
  for (std::uint64_t leaf = 0; leaf < nodes; ++leaf) {
    free += static_cast<unsigned>(std::popcount(free_bits(leaf)));
    if (lacks(0)[leaf] + exact_hint(leaf) != header_->greatest) return false;
  }
  for (unsigned level = 1; level < header_->levels; ++level) {
    nodes = divide_up(nodes, 64);
    for (std::uint64_t node = 0; node < nodes; ++node) {
      if (lacks(level)[node] != least(lacks(level - 1) + node * 64)) return false;
    }
  }
  return free == header_->available && header_->cursor < std::max<std::uint64_t>(1, header_->blocks);
}

}  // namespace enchilada
