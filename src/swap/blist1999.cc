// Blist1999: recursion over the depth-first array. Layout and rules are in the header.
#include "swap/blist1999.h"

#include <algorithm>
#include <array>
#include <bit>

namespace enchilada {
namespace {

using block_storage::divide_up;
using block_storage::inside;
using block_storage::kNone;
using block_storage::run_at;

constexpr std::uint64_t kMagic = 0x39393174'736c6245;  // "Eblst199"
constexpr unsigned kFan = 16;
constexpr unsigned kLevels = 8;
constexpr std::uint32_t kAllBits = ~std::uint32_t{0};

/// By level: blocks under a node, and nodes of its subtree, itself included.
constexpr std::array<std::uint64_t, kLevels> kRadix = [] {
  std::array<std::uint64_t, kLevels> radix{Blist1999::kLeafBlocks};
  for (unsigned i = 1; i < kLevels; ++i) radix[i] = radix[i - 1] * kFan;
  return radix;
}();
constexpr std::array<std::uint64_t, kLevels> kNodes = [] {
  std::array<std::uint64_t, kLevels> nodes{1};
  for (unsigned i = 1; i < kLevels; ++i) nodes[i] = 1 + kFan * nodes[i - 1];
  return nodes;
}();
static_assert(kRadix[kLevels - 1] >= Blist1999::kMaxBlocks);

/// kRadix is two to the power of this: a division by what is only known at run time costs as much as a level.
constexpr unsigned shift_of(unsigned level) {
  return 5 + 4 * level;
}
static_assert(kRadix[kLevels - 1] == std::uint64_t{1} << shift_of(kLevels - 1));

unsigned levels_for(std::uint64_t blocks) {
  unsigned level = 0;
  while (kRadix[level] < blocks) ++level;
  return level;
}

/// Nodes for the first `blocks` of a subtree: what lies behind the last child, or its end mark, is not
/// there.
std::uint64_t nodes_for(unsigned level, std::uint64_t blocks) {
  if (level == 0 || blocks == kRadix[level]) return kNodes[level];
  const std::uint64_t below = kRadix[level - 1];
  const std::uint64_t children = divide_up(blocks, below);
  if (children < kFan) return 1 + children * kNodes[level - 1] + 1;
  return 1 + (kFan - 1) * kNodes[level - 1] + nodes_for(level - 1, blocks - (kFan - 1) * below);
}

/// `count` <= 32 bits from `from` on.
constexpr std::uint32_t leaf_mask(std::uint64_t from, std::uint64_t count) {
  return (kAllBits >> (Blist1999::kLeafBlocks - count)) << from;
}

}  // namespace

struct alignas(block_storage::kLine) Blist1999::Header {
  std::uint64_t magic;
  std::uint64_t blocks;
  std::uint64_t boundary;  // 0 when a leaf never crosses it
  std::uint64_t bytes;
  std::uint64_t available;  // changes
  std::uint32_t level;      // of the root
};

struct Blist1999::Audit {
  bool good = true;
  std::uint64_t free = 0;
  std::uint32_t longest = 0;
};

std::size_t Blist1999::required_bytes(PageCount blocks) {
  return sizeof(Header) + nodes_for(levels_for(blocks.value()), blocks.value()) * sizeof(Node);
}

Blist1999 Blist1999::create(std::span<std::byte> storage, PageCount blocks, PageCount boundary) {
  block_storage::check_new(storage, required_bytes(blocks), blocks, boundary);
  auto* h = new (storage.data()) Header{};
  h->magic = kMagic;
  h->blocks = blocks.value();
  h->boundary = boundary.value() < kLeafBlocks ? boundary.value() : 0;
  h->bytes = required_bytes(blocks);
  h->level = levels_for(blocks.value());
  Blist1999 list(h);
  list.reset();
  return list;
}

Blist1999 Blist1999::attach(std::span<std::byte> storage) {
  return Blist1999(block_storage::header_of<Header>(storage, kMagic));
}

void Blist1999::reset() {
  header_->available = header_->blocks;
  format(root(), header_->blocks);
}

PageCount Blist1999::available() const {
  return PageCount{header_->available};
}
PageCount Blist1999::size() const {
  return PageCount{header_->blocks};
}
PageCount Blist1999::largest() const {
  const std::uint64_t most = header_->boundary == 0 ? kLeafBlocks : header_->boundary;
  return PageCount{std::min({most, header_->available, std::uint64_t{root().node->hint}})};
}

Blist1999::Place Blist1999::root() const {
  return {reinterpret_cast<Node*>(header_ + 1), 0, header_->level};
}

inline Blist1999::Place Blist1999::child(Place parent, unsigned i) {
  const unsigned level = parent.level - 1;
  return {parent.node + 1 + i * kNodes[level], parent.first + i * kRadix[level], level};
}

/// Calls use(child) for each child that is there, until it answers false.
template <class Use>
void Blist1999::for_each_child(Place parent, Use use) {
  const unsigned level = parent.level - 1;
  Node* node = parent.node + 1;
  std::uint64_t first = parent.first;
  for (unsigned i = 0; i < kFan && node->hint != kEnd; ++i) {
    if (!use(Place{node, first, level})) return;
    node += kNodes[level];
    first += kRadix[level];
  }
}

/// Calls use(child, first, count) for the children's parts of a run, until it answers false.
template <class Use>
void Blist1999::for_each_part(Place parent, std::uint64_t first, std::uint64_t count, Use use) {
  const unsigned level = parent.level - 1;
  const std::uint64_t end = first + count;
  while (first < end) {
    const Place below = child(parent, static_cast<unsigned>((first - parent.first) >> shift_of(level)));
    const std::uint64_t stop = std::min(end, below.first + kRadix[level]);
    if (!use(below, first, stop - first)) return;
    first = stop;
  }
}

Blist1999::Node Blist1999::all_free(unsigned level) {
  if (level == 0) return {kAllBits, static_cast<std::uint32_t>(kLeafBlocks)};
  const auto radix = static_cast<std::uint32_t>(kRadix[level]);
  return {radix, radix};
}

/// Before anybody looks at the children of a meta: if it spoke for them, they now say the same.
void Blist1999::freshen_children(Place parent) {
  const std::uint32_t free = parent.node->free;
  if (free != 0 && free != kRadix[parent.level]) return;
  const Node fresh = free == 0 ? Node{0, 0} : all_free(parent.level - 1);
  for_each_child(parent, [&](Place below) {
    *below.node = fresh;
    return true;
  });
}

/// All `blocks` of a subtree free. Only the nodes on the way to a ragged end are written.
void Blist1999::format(Place place, std::uint64_t blocks) {
  if (blocks == kRadix[place.level]) {
    *place.node = all_free(place.level);
    return;
  }
  const auto count = static_cast<std::uint32_t>(blocks);
  if (place.level == 0) {
    *place.node = {blocks == 0 ? 0 : leaf_mask(0, blocks), count};
    return;
  }
  *place.node = {count, count};
  const std::uint64_t radix = kRadix[place.level - 1];
  unsigned i = 0;
  for (; blocks != 0; ++i) {
    const std::uint64_t part = std::min(blocks, radix);
    format(child(place, i), part);
    blocks -= part;
  }
  if (i < kFan) child(place, i).node->hint = kEnd;
}

BlockRun Blist1999::allocate(PageCount min, PageCount /*max*/) {
  const std::uint64_t want = std::max<std::uint64_t>(1, min.value());
  if (want > largest().value()) return {};
  const std::uint64_t at = take(root(), static_cast<std::uint32_t>(want));
  if (at == kNone) return {};
  header_->available -= want;
  return run_at(at, want);
}

std::uint64_t Blist1999::take(Place place, std::uint32_t n) {
  if (place.level == 0) return take_in_leaf(place, n);
  freshen_children(place);
  std::uint64_t at = kNone;
  for_each_child(place, [&](Place below) {
    if (below.node->hint >= n) at = take(below, n);
    return at == kNone;
  });
  if (at == kNone) {
    place.node->hint = n - 1;
    return kNone;
  }
  place.node->free -= n;
  place.node->hint = std::min(place.node->hint, place.node->free);
  return at;
}

/// As in 1999: the mask is tried at one bit after the other, from the first free one on.
std::uint64_t Blist1999::take_in_leaf(Place leaf, std::uint32_t n) {
  const std::uint32_t bits = leaf.node->free;
  for (auto from = static_cast<std::uint32_t>(std::countr_zero(bits)); from + n <= kLeafBlocks; ++from) {
    const std::uint32_t mask = leaf_mask(from, n);
    if ((bits & mask) != mask || block_storage::uncrossed(from, n, header_->boundary) != from) continue;
    leaf.node->free = bits & ~mask;
    return leaf.first + from;
  }
  leaf.node->hint = n - 1;
  return kNone;
}

bool Blist1999::none_free(Place place, std::uint64_t first, std::uint64_t count) {
  const std::uint32_t free = place.node->free;
  if (place.level == 0) return (free & leaf_mask(first - place.first, count)) == 0;
  if (free == 0) return true;
  bool none = free != kRadix[place.level];
  if (!none) return false;
  for_each_part(place, first, count, [&](Place below, std::uint64_t from, std::uint64_t n) {
    return none = none_free(below, from, n);
  });
  return none;
}

bool Blist1999::is_free(SwapBlock block) const {
  return block.value() < header_->blocks && !none_free(root(), block.value(), 1);
}

void Blist1999::for_each_free(FunctionRef<void(BlockRun)> use) const {
  visit_free(root(), use);
}

void Blist1999::visit_free(Place place, FunctionRef<void(BlockRun)> use) {
  const std::uint32_t free = place.node->free;
  if (place.level == 0) return block_storage::for_each_run(free, place.first, use);
  if (free == 0) return;
  if (free == kRadix[place.level]) return use(run_at(place.first, free));
  for_each_child(place, [use](Place below) {
    visit_free(below, use);
    return true;
  });
}

bool Blist1999::free(BlockRun run) {
  const std::uint64_t first = run.first.value();
  const std::uint64_t count = run.count.value();
  if (count == 0) return true;
  if (!inside(run, header_->blocks)) return false;
  // In one leaf, which is the rule, put() sees for itself before it changes anything.
  const bool one_leaf = first / kLeafBlocks == (first + count - 1) / kLeafBlocks;
  if (!one_leaf && !none_free(root(), first, count)) return false;
  if (!put(root(), first, count)) return false;
  header_->available += count;
  return true;
}

/// False, with nothing changed, when a run in a single leaf was not all allocated.
bool Blist1999::put(Place place, std::uint64_t first, std::uint64_t count) {
  Node& node = *place.node;
  if (place.level == 0) {
    const std::uint32_t mask = leaf_mask(first - place.first, count);
    if ((node.free & mask) != 0) return false;
    node.free |= mask;
    node.hint = static_cast<std::uint32_t>(kLeafBlocks);
    return true;
  }
  if (node.free == kRadix[place.level]) return false;
  if (count == kRadix[place.level]) {
    node = all_free(place.level);
    return true;
  }
  freshen_children(place);
  bool done = true;
  for_each_part(place, first, count, [&](Place below, std::uint64_t from, std::uint64_t n) {
    done = put(below, from, n);
    if (done) node.hint = std::max(node.hint, below.node->hint);
    return done;
  });
  if (!done) return false;
  node.free += static_cast<std::uint32_t>(count);
  if (node.free == kRadix[place.level]) node = all_free(place.level);
  return true;
}

PageCount Blist1999::fill(BlockRun run) {
  if (run.empty()) return PageCount{0};
  CHECK(inside(run, header_->blocks), run.first.value(), run.count.value());
  const std::uint64_t taken = fill(root(), run.first.value(), run.count.value());
  header_->available -= taken;
  return PageCount{taken};
}

std::uint64_t Blist1999::fill(Place place, std::uint64_t first, std::uint64_t count) {
  Node& node = *place.node;
  if (place.level == 0) {
    const std::uint32_t mask = leaf_mask(first - place.first, count);
    const std::uint32_t had = node.free & mask;
    node.free &= ~mask;
    return static_cast<std::uint64_t>(std::popcount(had));
  }
  std::uint64_t taken = 0;
  if (count == kRadix[place.level]) {
    taken = node.free;
  } else if (node.free != 0) {
    freshen_children(place);
    for_each_part(place, first, count, [&](Place below, std::uint64_t from, std::uint64_t n) {
      taken += fill(below, from, n);
      return true;
    });
  }
  node.free -= static_cast<std::uint32_t>(taken);
  node.hint = std::min(node.hint, node.free);
  return taken;
}

/// Longest allocation that a leaf with these bits has room for.
std::uint32_t Blist1999::longest_in(std::uint32_t bits) const {
  std::uint32_t longest = 0;
  std::uint32_t run = 0;
  for (std::uint32_t b = 0; b < kLeafBlocks; ++b) {
    if (header_->boundary != 0 && b % header_->boundary == 0) run = 0;
    run = (bits >> b & 1) != 0 ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

Blist1999::Audit Blist1999::audit(Place place) const {
  const Node node = *place.node;
  Audit sum;
  if (place.level == 0) {
    sum.free = static_cast<std::uint64_t>(std::popcount(node.free));
    sum.longest = longest_in(node.free);
  } else if (node.free == kRadix[place.level]) {
    sum = {.free = node.free, .longest = longest_in(kAllBits)};
  } else if (node.free != 0) {
    for_each_child(place, [&](Place below) {
      const Audit part = audit(below);
      sum.good = sum.good && part.good;
      sum.free += part.free;
      sum.longest = std::max(sum.longest, part.longest);
      return true;
    });
    sum.good = sum.good && sum.free == node.free;
  }
  sum.good = sum.good && node.hint >= sum.longest;
  return sum;
}

bool Blist1999::verify() const {
  const Audit whole = audit(root());
  return whole.good && whole.free == header_->available;
}

}  // namespace enchilada
