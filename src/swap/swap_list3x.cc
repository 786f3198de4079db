// SwapList3x: walking, cutting and merging. Rules are in the header.
#include "swap/swap_list3x.h"

#include <algorithm>

namespace enchilada {
namespace {

using block_storage::inside;
using block_storage::run_at;

constexpr std::uint64_t kMagic = 0x78337473'694c6e45;  // "EnList3x"
constexpr std::uint64_t kBlocksPerNode = 16;
constexpr std::uint64_t kFewestNodes = 16;

}  // namespace

struct alignas(block_storage::kLine) SwapList3x::Header {
  std::uint64_t magic;
  std::uint64_t blocks;
  std::uint64_t boundary;  // 0 = none
  std::uint64_t bytes;
  std::uint64_t nodes;
  std::uint64_t available;  // from here on: changes
  std::uint64_t nodeless;
  std::uint64_t nodes_used;
  std::uint32_t head;       // of the holes
  std::uint32_t free_head;  // of nodes that were given back
  std::uint32_t fresh;      // nodes from here on were never used
};

std::size_t SwapList3x::bytes_with_nodes(std::uint64_t nodes) {
  return sizeof(Header) + nodes * sizeof(Node);
}

std::size_t SwapList3x::required_bytes(PageCount blocks) {
  return bytes_with_nodes(blocks.value() / kBlocksPerNode + kFewestNodes);
}

SwapList3x SwapList3x::create(std::span<std::byte> storage, PageCount blocks, PageCount boundary) {
  block_storage::check_new(storage, bytes_with_nodes(1), blocks, boundary);
  auto* h = new (storage.data()) Header{};
  h->magic = kMagic;
  h->blocks = blocks.value();
  h->boundary = boundary.value();
  h->nodes = std::min<std::uint64_t>((storage.size() - sizeof(Header)) / sizeof(Node), kNil);
  h->bytes = bytes_with_nodes(h->nodes);
  SwapList3x list(h);
  list.reset();
  return list;
}

SwapList3x SwapList3x::attach(std::span<std::byte> storage) {
  return SwapList3x(block_storage::header_of<Header>(storage, kMagic));
}

void SwapList3x::reset() {
  header_->nodes_used = 0;
  header_->fresh = 0;
  header_->head = kNil;
  header_->free_head = kNil;
  header_->available = 0;
  if (header_->blocks != 0) CHECK(insert(&header_->head, 0, header_->blocks));
}

PageCount SwapList3x::available() const {
  return PageCount{header_->available};
}
PageCount SwapList3x::size() const {
  return PageCount{header_->blocks};
}
PageCount SwapList3x::largest() const {
  const std::uint64_t most = header_->available;
  return PageCount{header_->boundary == 0 ? most : std::min(most, header_->boundary)};
}
std::uint64_t SwapList3x::nodeless() const {
  return header_->nodeless;
}
std::uint64_t SwapList3x::free_nodes() const {
  return header_->nodes - header_->nodes_used;
}

SwapList3x::Node& SwapList3x::node(std::uint32_t index) const {
  return reinterpret_cast<Node*>(header_ + 1)[index];
}

/// The link to the first hole that ends at the block, holds it, or lies behind it.
std::uint32_t* SwapList3x::reach(std::uint64_t block) const {
  std::uint32_t* link = &header_->head;
  while (*link != kNil && node(*link).end() < block) link = &node(*link).next;
  return link;
}

/// A new hole where the link points. False, and its blocks lost: there is no node.
bool SwapList3x::insert(std::uint32_t* link, std::uint64_t first, std::uint64_t count) {
  std::uint32_t index = header_->free_head;
  if (index != kNil) {
    header_->free_head = node(index).next;
  } else if (header_->fresh < header_->nodes) {
    index = header_->fresh++;
  } else {
    ++header_->nodeless;
    return false;
  }
  node(index) = {static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(count), *link};
  *link = index;
  ++header_->nodes_used;
  header_->available += count;
  return true;
}

/// Takes out the node that the link points to. Its blocks are counted by the caller.
void SwapList3x::remove(std::uint32_t* link) {
  const std::uint32_t index = *link;
  *link = node(index).next;
  node(index).next = header_->free_head;
  header_->free_head = index;
  --header_->nodes_used;
}

/// Takes a part of the hole that the link points to.
void SwapList3x::cut(std::uint32_t* link, std::uint64_t first, std::uint64_t count) {
  Node& hole = node(*link);
  const std::uint64_t before = first - hole.first;
  const std::uint64_t after = hole.end() - (first + count);
  header_->available -= count;
  if (before == 0 && after == 0) return remove(link);
  const auto keep = [&hole](std::uint64_t from, std::uint64_t n) {
    hole.first = static_cast<std::uint32_t>(from);
    hole.count = static_cast<std::uint32_t>(n);
  };
  if (after == 0) return keep(hole.first, before);
  if (before == 0) return keep(first + count, after);
  // The longer part stays in its node, so that the shorter one is lost if there is no other node.
  header_->available -= std::min(before, after);
  if (before >= after) {
    keep(hole.first, before);
    static_cast<void>(insert(&hole.next, first + count, after));
  } else {
    const std::uint64_t start = hole.first;
    keep(first + count, after);
    static_cast<void>(insert(link, start, before));
  }
}

BlockRun SwapList3x::allocate(PageCount min, PageCount /*max*/) {
  const std::uint64_t want = std::max<std::uint64_t>(1, min.value());
  if (want > largest().value()) return {};
  for (std::uint32_t* link = &header_->head; *link != kNil; link = &node(*link).next) {
    const Node& hole = node(*link);
    const std::uint64_t at = block_storage::uncrossed(hole.first, want, header_->boundary);
    if (at + want > hole.end()) continue;
    cut(link, at, want);
    return run_at(at, want);
  }
  return {};
}

bool SwapList3x::free(BlockRun run) {
  const std::uint64_t first = run.first.value();
  const std::uint64_t count = run.count.value();
  if (count == 0) return true;
  if (!inside(run, header_->blocks)) return false;
  const std::uint64_t end = first + count;
  std::uint32_t* link = reach(first);
  const bool joins = *link != kNil && node(*link).end() == first;
  std::uint32_t* behind = joins ? &node(*link).next : link;
  if (*behind != kNil && node(*behind).first < end) return false;
  const bool meets = *behind != kNil && node(*behind).first == end;
  if (!joins && !meets) {
    static_cast<void>(insert(link, first, count));
    return true;
  }
  header_->available += count;
  if (joins) {
    Node& hole = node(*link);
    hole.count += static_cast<std::uint32_t>(count);
    if (!meets) return true;
    hole.count += node(*behind).count;
    remove(behind);
  } else {
    Node& hole = node(*behind);
    hole.first = static_cast<std::uint32_t>(first);
    hole.count += static_cast<std::uint32_t>(count);
  }
  return true;
}

PageCount SwapList3x::fill(BlockRun run) {
  if (run.empty()) return PageCount{0};
  CHECK(inside(run, header_->blocks), run.first.value(), run.count.value());
  const std::uint64_t end = run.first.value() + run.count.value();
  std::uint64_t taken = 0;
  // A cut leaves at the link what is before the run or behind it, or the next hole.
  for (std::uint32_t* link = reach(run.first.value()); *link != kNil && node(*link).first < end;) {
    const Node& hole = node(*link);
    const std::uint64_t from = std::max<std::uint64_t>(hole.first, run.first.value());
    const std::uint64_t stop = std::min(hole.end(), end);
    if (from >= stop) {
      link = &node(*link).next;
      continue;
    }
    cut(link, from, stop - from);
    taken += stop - from;
  }
  return PageCount{taken};
}

bool SwapList3x::is_free(SwapBlock block) const {
  const std::uint32_t at = *reach(std::uint64_t{block.value()} + 1);
  return at != kNil && node(at).first <= block.value();
}

void SwapList3x::for_each_free(FunctionRef<void(BlockRun)> use) const {
  for (std::uint32_t at = header_->head; at != kNil; at = node(at).next) {
    use(run_at(node(at).first, node(at).count));
  }
}

bool SwapList3x::verify() const {
  std::uint64_t free = 0;
  std::uint64_t used = 0;
  std::uint64_t lowest = 0;  // where the next hole may start
  for (std::uint32_t at = header_->head; at != kNil; at = node(at).next) {
    if (node(at).count == 0 || node(at).first < lowest || ++used > header_->nodes) return false;
    free += node(at).count;
    lowest = node(at).end() + 1;
  }
  std::uint64_t spare = header_->nodes - header_->fresh;
  for (std::uint32_t at = header_->free_head; at != kNil; at = node(at).next) {
    if (++spare > header_->nodes) return false;
  }
  return free == header_->available && used == header_->nodes_used && used + spare == header_->nodes &&
         lowest <= header_->blocks + 1;
}

}  // namespace enchilada
