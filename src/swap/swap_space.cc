// SwapSpace: storage layout, operations, and the rebuild after a death inside the lock.
#include "swap/swap_space.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/robust_mutex.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kMagic = 0x32306361'70537745;
constexpr std::uint64_t kChunkBlocks = 32768;  // blocks whose bitmap is one page
constexpr std::uint64_t kChunkWords = kChunkBlocks / 64;

using block_storage::divide_up;
using block_storage::for_each_run;
using block_storage::run_at;

constexpr std::uint64_t page_up(std::uint64_t n) {
  return divide_up(n, kPageSize) * kPageSize;
}

/// Calls use(word index, mask) for the words that a run touches.
template <class Use>
void for_each_mask(BlockRun run, Use use) {
  std::uint64_t at = run.first.value();
  const std::uint64_t end = at + run.count.value();
  while (at < end) {
    const std::uint64_t word = at / 64;
    const std::uint64_t stop = std::min(end, (word + 1) * 64);
    use(word, (~std::uint64_t{0} << (at % 64)) & (~std::uint64_t{0} >> (64 - (stop - word * 64))));
    at = stop;
  }
}

/// The process may be killed between any two stores; others then see those before and not those after. x86
/// keeps the order of stores, this keeps the compiler's.
void order_stores() {
  std::atomic_thread_fence(std::memory_order_release);
}

}  // namespace

struct SwapSpace::Header {
  std::uint64_t magic;
  SwapGeometry geometry;
  std::uint64_t blocks;  // linear, holes included
  std::uint64_t chunks;
  std::uint64_t chunk_words;  // words of a set of chunks
  // Of each slot's device: its blocks, 0 = absent. Written with the lock held, `closing` too (a bit each).
  std::array<std::atomic<std::uint64_t>, SwapGeometry::kMaxDevices> pages;
  std::atomic<std::uint32_t> closing;
  std::atomic<std::uint64_t> capacity;
  std::uint64_t reached;  // blocks from here on were never given out; only a hint
  std::uint64_t allocator_at, allocator_bytes;
  SwapAllocatorMode mode;
  std::uint64_t touched_at, summary_at, counts_at, bitmaps_at, bitmap_bytes;
  std::uint64_t bytes;
  alignas(64) RobustMutex lock;
  std::uint64_t held;          // blocks with a count
  std::uint64_t held_closing;  // of these, on a closing device
  std::atomic<std::uint64_t> used;
  std::atomic<std::uint64_t> free;  // blocks that the allocator has
  std::atomic<std::uint64_t> peak;
  std::atomic<std::uint64_t> rebuilds;
  std::atomic<std::uint64_t> lost;
  std::atomic<std::uint64_t> nodeless;
  std::atomic<std::uint64_t> recounts;

  void lay_out(const SwapGeometry& g, SwapAllocatorMode m) {
    geometry = g;
    mode = m;
    blocks = g.linear_blocks();
    chunks = divide_up(blocks, kChunkBlocks);
    chunk_words = divide_up(chunks, 64);
    allocator_at = page_up(sizeof(Header));
    allocator_bytes = SwapAllocator::required_bytes(mode, PageCount{blocks});
    touched_at = page_up(allocator_at + allocator_bytes);
    summary_at = touched_at + chunk_words * 8;
    counts_at = page_up(summary_at + kMaxHolders * chunk_words * 8);
    bitmaps_at = page_up(counts_at + chunks * kChunkBlocks * sizeof(std::uint16_t));
    bitmap_bytes = chunks * kPageSize;
    bytes = bitmaps_at + kMaxHolders * bitmap_bytes;
  }
};

/// What verify() has counted.
struct SwapSpace::Tally {
  std::uint64_t held = 0;
  std::uint64_t held_closing = 0;
  std::uint64_t free = 0;  // usable, without a count, whether or not the allocator knows
};

class SwapSpace::Section {
 public:
  explicit Section(const SwapSpace& space) NO_THREAD_SAFETY_ANALYSIS : space_(const_cast<SwapSpace&>(space)) {
    const auto alive = [this](std::uint32_t id) {
      return space_.alive_.alive == nullptr || space_.alive_.alive(space_.alive_.context, id - 1);
    };
    const auto outcome = space_.header_->lock.lock(space_.self_ + 1, alive);
    if (outcome == RobustMutex::Outcome::kInherited) space_.rebuild();
  }
  ~Section() NO_THREAD_SAFETY_ANALYSIS {
    space_.publish_usage();
    space_.header_->lock.unlock(space_.self_ + 1);
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

 private:
  SwapSpace& space_;
};

std::size_t SwapSpace::required_bytes(const SwapGeometry& geometry, SwapAllocatorMode mode) {
  Header h{};
  h.lay_out(geometry, mode);
  return h.bytes;
}

bool SwapSpace::create(std::span<std::byte> storage, const SwapGeometry& geometry, SwapAllocatorMode mode) {
  if (!geometry.valid() || storage.size() < required_bytes(geometry, mode)) return false;
  if (reinterpret_cast<std::uintptr_t>(storage.data()) % kPageSize != 0) return false;
  auto* h = new (storage.data()) Header{};
  h->lay_out(geometry, mode);
  SwapSpace space(h, kSupervisor, {});
  space.allocator_ = SwapAllocator::create(mode, {space.at(h->allocator_at), h->allocator_bytes},
                                           PageCount{h->blocks}, PageCount{geometry.boundary()});
  for (unsigned i = 0; i < geometry.slots; ++i) h->pages[i].store(geometry.device_pages[i]);
  space.fill_holes();
  space.count_capacity();
  space.publish_usage();
  order_stores();
  h->magic = kMagic;
  return geometry.usable_blocks() > 0;
}

std::optional<SwapSpace> SwapSpace::attach(std::span<std::byte> storage, unsigned self, Liveness alive) {
  auto* h = reinterpret_cast<Header*>(storage.data());
  if (storage.size() < sizeof(Header) || h->magic != kMagic || h->bytes > storage.size()) return std::nullopt;
  if (self > kSupervisor) return std::nullopt;
  SwapSpace space(h, self, alive);
  space.allocator_ = SwapAllocator::attach(h->mode, {space.at(h->allocator_at), h->allocator_bytes});
  return space;
}

SwapSpace::SwapSpace(Header* header, unsigned self, Liveness alive)
    : header_(header), self_(self), alive_(alive) {}

std::byte* SwapSpace::at(std::uint64_t offset) const {
  return reinterpret_cast<std::byte*>(header_) + offset;
}
std::uint16_t* SwapSpace::counts() const {
  return reinterpret_cast<std::uint16_t*>(at(header_->counts_at));
}
std::uint64_t* SwapSpace::touched() const {
  return reinterpret_cast<std::uint64_t*>(at(header_->touched_at));
}
std::uint64_t* SwapSpace::summary(unsigned holder) const {
  return reinterpret_cast<std::uint64_t*>(at(header_->summary_at)) + holder * header_->chunk_words;
}
std::uint64_t* SwapSpace::bitmap(unsigned holder) const {
  CHECK(holder < kMaxHolders, holder);
  return reinterpret_cast<std::uint64_t*>(at(header_->bitmaps_at + holder * header_->bitmap_bytes));
}

/// Calls use(chunk) for every chunk of a set.
template <class Use>
void SwapSpace::for_each_chunk(const std::uint64_t* chunks, Use use) const {
  for (std::uint64_t word = 0; word < header_->chunk_words; ++word) {
    for (std::uint64_t bits = chunks[word]; bits != 0; bits &= bits - 1) {
      use(word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
    }
  }
}

/// Calls use(word index) for every word of a holder's bitmap that is not empty.
template <class Use>
void SwapSpace::for_each_word(unsigned holder, Use use) const {
  const std::uint64_t* bits = bitmap(holder);
  for_each_chunk(summary(holder), [&](std::uint64_t chunk) {
    for (std::uint64_t w = chunk * kChunkWords; w < (chunk + 1) * kChunkWords; ++w) {
      if (bits[w] != 0) use(w);
    }
  });
}

/// Sets the holder's bits: the summary first, so that a bit is never where nobody looks for it.
void SwapSpace::mark(unsigned holder, BlockRun run) {
  std::uint64_t* bits = bitmap(holder);
  for_each_mask(run, [&](std::uint64_t word, std::uint64_t mask) {
    CHECK((bits[word] & mask) == 0, holder, word * 64);
    const std::uint64_t chunk = word / kChunkWords;
    summary(holder)[chunk / 64] |= std::uint64_t{1} << (chunk % 64);
    order_stores();
    bits[word] |= mask;
  });
}

void SwapSpace::unmark(unsigned holder, BlockRun run) {
  std::uint64_t* bits = bitmap(holder);
  for_each_mask(run, [&](std::uint64_t word, std::uint64_t mask) {
    CHECK((bits[word] & mask) == mask, holder, word * 64);
    bits[word] &= ~mask;
  });
}

void SwapSpace::add_counts(BlockRun run) {
  for (std::uint64_t b = run.first.value(); b < run.first.value() + run.count.value(); ++b) {
    const std::uint64_t chunk = b / kChunkBlocks;
    touched()[chunk / 64] |= std::uint64_t{1} << (chunk % 64);
    order_stores();
    if (counts()[b]++ != 0) continue;
    ++header_->held;
    if (is_closing(b)) ++header_->held_closing;
  }
}

/// Blocks that nobody references any more: the allocator's again, but for those of a closing device.
void SwapSpace::give_back(BlockRun run) {
  if (header_->closing.load(std::memory_order_relaxed) == 0) {
    CHECK(allocator_.free(run), run.first.value());
    return;
  }
  for (std::uint64_t b = run.first.value(); b < run.first.value() + run.count.value(); ++b) {
    if (is_closing(b)) {
      --header_->held_closing;
    } else {
      CHECK(allocator_.free(run_at(b, 1)), b);
    }
  }
}

/// One reference less for each block; those that reach zero go back to the allocator, run by run.
void SwapSpace::drop_counts(BlockRun run) {
  std::uint64_t free_from = run.first.value();
  const std::uint64_t end = free_from + run.count.value();
  for (std::uint64_t b = run.first.value(); b < end; ++b) {
    CHECK(counts()[b] > 0, b);
    if (--counts()[b] == 0) {
      --header_->held;
      continue;
    }
    give_back(run_at(free_from, b - free_from));
    free_from = b + 1;
  }
  give_back(run_at(free_from, end - free_from));
}

BlockRun SwapSpace::take(PageCount max) {
  const bool from_start = allocator_.cursor().value() == 0;
  const BlockRun run = allocator_.allocate_longest(max);
  if (run.empty() || from_start || run.first.value() < header_->reached) return run;
  // Nothing was written here so far. Turns round first: a block that was is cheaper to write again (to a new
  // one a file system must give space, and meanwhile lets nobody read), and the file grows no more than it
  // must.
  CHECK(allocator_.free(run), run.first.value());
  allocator_.rewind();
  return allocator_.allocate_longest(max);
}

BlockRun SwapSpace::allocate(unsigned holder, PageCount max) {
  CHECK(holder < kMaxHolders, holder);
  const Section section(*this);
  BlockRun run = take(max);
  if (run.empty() && header_->held - header_->held_closing < capacity().value()) {
    // Not full: the allocator has lost track of what is free.
    make_allocator_anew();
    header_->recounts.fetch_add(1, std::memory_order_relaxed);
    run = take(max);
  }
  if (run.empty()) return run;
  header_->reached = std::max(header_->reached, std::uint64_t{run.first.value()} + run.count.value());
  add_counts(run);
  mark(holder, run);
  return run;
}

void SwapSpace::reference(unsigned holder, BlockRun run) {
  const Section section(*this);
  for (std::uint64_t b = run.first.value(); b < run.first.value() + run.count.value(); ++b) {
    CHECK(b < header_->blocks && counts()[b] > 0, b);
  }
  mark(holder, run);
  add_counts(run);
}

void SwapSpace::release(unsigned holder, BlockRun run) {
  if (run.empty()) return;
  const Section section(*this);
  CHECK(std::uint64_t{run.first.value()} + run.count.value() <= header_->blocks, run.first.value());
  unmark(holder, run);
  drop_counts(run);
}

void SwapSpace::clone_holder(unsigned from, unsigned to) {
  CHECK(from < kMaxHolders && to < kMaxHolders && from != to, from, to);
  const Section section(*this);
  bool empty = true;
  for_each_word(to, [&](std::uint64_t) { empty = false; });
  CHECK(empty, to);
  const std::uint64_t* source = bitmap(from);
  for_each_word(from, [&](std::uint64_t word) {
    for_each_run(source[word], word * 64, [&](BlockRun run) {
      mark(to, run);
      add_counts(run);
    });
  });
}

void SwapSpace::drop_holder(unsigned holder) {
  CHECK(holder < kMaxHolders, holder);
  const Section section(*this);
  std::uint64_t* bits = bitmap(holder);
  for_each_word(holder, [&](std::uint64_t word) {
    const std::uint64_t gone = bits[word];
    bits[word] = 0;
    for_each_run(gone, word * 64, [&](BlockRun run) { drop_counts(run); });
  });
  order_stores();
  std::memset(summary(holder), 0, header_->chunk_words * sizeof(std::uint64_t));
}

/// Calls use(run) for the blocks [from, to) of a device, stripe by stripe.
template <class Use>
void SwapSpace::for_each_stripe(unsigned device, std::uint64_t from, std::uint64_t to, Use use) const {
  const SwapGeometry& g = header_->geometry;
  const std::uint64_t step = g.slots == 1 ? header_->blocks : g.stripe;
  while (from < to) {
    const std::uint64_t stop = std::min(to, (from / step + 1) * step);
    use(BlockRun{g.linear({device, from}), PageCount{stop - from}});
    from = stop;
  }
}

/// Blocks of the device from the first on that may be given out; 0 when it is absent or closing.
std::uint64_t SwapSpace::open_pages(unsigned device) const {
  const bool closing = (header_->closing.load(std::memory_order_relaxed) >> device & 1) != 0;
  return closing ? 0 : header_->pages[device].load(std::memory_order_relaxed);
}

/// Takes from a fresh allocator all blocks that have no device behind them, or one that is closing.
void SwapSpace::fill_holes() {
  const SwapGeometry& g = header_->geometry;
  const std::uint64_t end = header_->blocks / g.slots;  // of each device's share
  for (unsigned device = 0; device < g.slots; ++device) {
    const std::uint64_t first = std::min(g.reserved, end);
    const auto fill = [&](BlockRun run) { allocator_.fill(run); };
    for_each_stripe(device, 0, first, fill);
    for_each_stripe(device, std::max(first, open_pages(device)), end, fill);
  }
}

void SwapSpace::count_capacity() {
  const SwapGeometry& g = header_->geometry;
  std::uint64_t sum = 0;
  for (unsigned i = 0; i < g.slots; ++i) sum += open_pages(i) - std::min(open_pages(i), g.reserved);
  header_->capacity.store(sum, std::memory_order_relaxed);
}

bool SwapSpace::is_closing(std::uint64_t block) const {
  const std::uint32_t closing = header_->closing.load(std::memory_order_relaxed);
  if (closing == 0) return false;
  return (closing >> header_->geometry.locate(SwapBlock{static_cast<std::uint32_t>(block)}).device & 1) != 0;
}

// ---- Devices that come and go. Each change of state is one store; what follows from it is derived, and is
// derived anew by rebuild() when a process dies in between.

bool SwapSpace::open_device(unsigned device, PageCount pages) {
  const SwapGeometry& g = header_->geometry;
  if (device >= g.slots || pages.value() == 0 || pages.value() > g.device_room()) return false;
  const Section section(*this);
  if (header_->pages[device].load() != 0) return false;
  header_->pages[device].store(pages.value());
  count_capacity();
  make_allocator_anew();
  return true;
}

bool SwapSpace::begin_close(unsigned device) {
  if (device >= header_->geometry.slots) return false;
  const Section section(*this);
  const std::uint64_t pages = open_pages(device);
  if (pages == 0) return false;
  header_->closing.fetch_or(1u << device);
  count_capacity();
  for_each_stripe(device, 0, pages, [&](BlockRun run) {
    allocator_.fill(run);
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      if (counts()[run.first.value() + i] != 0) ++header_->held_closing;
    }
  });
  return true;
}

void SwapSpace::cancel_close(unsigned device) {
  const Section section(*this);
  header_->closing.fetch_and(~(1u << device));
  count_capacity();
  for_each_stripe(device, 0, open_pages(device), [&](BlockRun run) {
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      if (counts()[run.first.value() + i] != 0) --header_->held_closing;
    }
  });
  make_allocator_anew();
}

bool SwapSpace::finish_close(unsigned device) {
  const Section section(*this);
  bool used = false;
  for_each_stripe(device, 0, header_->pages[device].load(), [&](BlockRun run) {
    for (std::uint64_t i = 0; i < run.count.value(); ++i) used |= counts()[run.first.value() + i] != 0;
  });
  if (used) return false;
  header_->pages[device].store(0);
  header_->closing.fetch_and(~(1u << device));
  return true;
}

PageCount SwapSpace::used_on(unsigned device) const {
  const Section section(*this);
  PageCount n;
  for_each_stripe(device, 0, header_->pages[device].load(), [&](BlockRun run) {
    for (std::uint64_t i = 0; i < run.count.value(); ++i) {
      if (counts()[run.first.value() + i] != 0) ++n;
    }
  });
  return n;
}

bool SwapSpace::closing(unsigned device) const {
  return (header_->closing.load(std::memory_order_relaxed) >> device & 1) != 0;
}
PageCount SwapSpace::device_pages(unsigned device) const {
  return PageCount{header_->pages[device].load(std::memory_order_relaxed)};
}

/// The process that had the lock died inside: counts and allocator are made anew from the bitmaps. Changes no
/// bitmap, so it may itself be interrupted by death and repeated by the next.
void SwapSpace::rebuild() {
  for_each_chunk(touched(), [&](std::uint64_t chunk) {
    std::memset(counts() + chunk * kChunkBlocks, 0, kChunkBlocks * sizeof(std::uint16_t));
  });
  header_->held = 0;
  header_->held_closing = 0;
  count_capacity();
  for (unsigned holder = 0; holder < kMaxHolders; ++holder) {
    for_each_word(holder, [&](std::uint64_t word) {
      for_each_run(bitmap(holder)[word], word * 64, [&](BlockRun run) { add_counts(run); });
    });
  }
  make_allocator_anew();
  header_->rebuilds.fetch_add(1, std::memory_order_relaxed);
}

/// Free is what is usable and has no count.
void SwapSpace::make_allocator_anew() {
  allocator_.reset();
  fill_holes();
  for_each_chunk(touched(), [&](std::uint64_t chunk) { fill_referenced(chunk); });
}

void SwapSpace::fill_referenced(std::uint64_t chunk) {
  const std::uint64_t end = std::min((chunk + 1) * kChunkBlocks, header_->blocks);
  for (std::uint64_t b = chunk * kChunkBlocks; b < end;) {
    std::uint64_t stop = b;
    while (stop < end && counts()[stop] != 0) ++stop;
    allocator_.fill(run_at(b, stop - b));
    b = stop + 1;
  }
}

void SwapSpace::publish_usage() {
  const std::uint64_t used = header_->held;
  const std::uint64_t free = allocator_.available().value();
  const std::uint64_t known = used - header_->held_closing + free;
  header_->lost.store(header_->capacity.load(std::memory_order_relaxed) - known, std::memory_order_relaxed);
  header_->free.store(free, std::memory_order_relaxed);
  header_->nodeless.store(allocator_.nodeless(), std::memory_order_relaxed);
  header_->used.store(used, std::memory_order_relaxed);
  if (used > header_->peak.load(std::memory_order_relaxed))
    header_->peak.store(used, std::memory_order_relaxed);
}

PageCount SwapSpace::used() const {
  return PageCount{header_->used.load(std::memory_order_relaxed)};
}
PageCount SwapSpace::capacity() const {
  return PageCount{header_->capacity.load(std::memory_order_relaxed)};
}
PageCount SwapSpace::available() const {
  return PageCount{header_->free.load(std::memory_order_relaxed)};
}
PageCount SwapSpace::peak() const {
  return PageCount{header_->peak.load(std::memory_order_relaxed)};
}
std::uint64_t SwapSpace::rebuilds() const {
  return header_->rebuilds.load(std::memory_order_relaxed);
}
PageCount SwapSpace::lost() const {
  return PageCount{header_->lost.load(std::memory_order_relaxed)};
}
std::uint64_t SwapSpace::nodeless() const {
  return header_->nodeless.load(std::memory_order_relaxed);
}
std::uint64_t SwapSpace::recounts() const {
  return header_->recounts.load(std::memory_order_relaxed);
}
SwapGeometry SwapSpace::geometry() const {
  return header_->geometry;
}
SwapAllocatorMode SwapSpace::allocator_mode() const {
  return header_->mode;
}

unsigned SwapSpace::count_of(SwapBlock block) const {
  CHECK(block.value() < header_->blocks, block.value());
  const Section section(*this);
  return counts()[block.value()];
}

bool SwapSpace::holds(unsigned holder, SwapBlock block) const {
  CHECK(block.value() < header_->blocks, block.value());
  const Section section(*this);
  return (bitmap(holder)[block.value() / 64] >> (block.value() % 64) & 1) != 0;
}

bool SwapSpace::verify() const {
  const Section section(*this);
  if (!allocator_.verify() || !free_is_unused()) return false;
  for (std::uint64_t chunk = 0; chunk < header_->chunks; ++chunk) {
    if (!verify_counts(chunk)) return false;
  }
  const Tally tally = count_blocks();
  return tally.held == header_->held && tally.held_closing == header_->held_closing &&
         tally.held - tally.held_closing + tally.free == header_->capacity.load() &&
         allocator_.available().value() <= tally.free;
}

/// What the allocator has is on a device that is open, and nobody's.
bool SwapSpace::free_is_unused() const {
  const SwapGeometry& g = header_->geometry;
  const std::uint64_t step = g.slots == 1 ? header_->blocks : g.stripe;
  bool good = true;
  std::uint64_t runs = 0;
  allocator_.for_each_free([&](BlockRun run) {
    runs += run.count.value();
    const std::uint64_t end = run.first.value() + run.count.value();
    good = good && end <= header_->blocks;
    for (std::uint64_t b = run.first.value(); good && b < end;) {
      const std::uint64_t stop = std::min(end, (b / step + 1) * step);
      const DeviceBlock place = g.locate(SwapBlock{static_cast<std::uint32_t>(b)});
      good = place.block >= g.reserved && place.block + (stop - b) <= open_pages(place.device);
      for (; b < stop; ++b) good = good && counted(b) == 0;
    }
  });
  return good && runs == allocator_.available().value();
}

/// The counts of a chunk say in how many bitmaps each block is.
bool SwapSpace::verify_counts(std::uint64_t chunk) const {
  const auto in_set = [&](const std::uint64_t* set) { return (set[chunk / 64] >> (chunk % 64) & 1) != 0; };
  std::array<const std::uint64_t*, kMaxHolders> bitmaps;
  std::size_t holders = 0;
  for (unsigned holder = 0; holder < kMaxHolders; ++holder) {
    if (in_set(summary(holder))) bitmaps[holders++] = bitmap(holder);
  }
  if (!in_set(touched())) {
    for (std::size_t i = 0; i < holders; ++i) {
      const std::uint64_t* const bits = bitmaps[i] + chunk * kChunkWords;
      if (std::any_of(bits, bits + kChunkWords, [](std::uint64_t word) { return word != 0; })) return false;
    }
    return true;
  }
  for (std::uint64_t word = chunk * kChunkWords; word < (chunk + 1) * kChunkWords; ++word) {
    std::array<std::uint16_t, 64> expected{};
    for (std::size_t i = 0; i < holders; ++i) {
      for (std::uint64_t bits = bitmaps[i][word]; bits != 0; bits &= bits - 1) {
        ++expected[static_cast<unsigned>(std::countr_zero(bits))];
      }
    }
    if (std::memcmp(expected.data(), counts() + word * 64, sizeof(expected)) != 0) return false;
  }
  return true;
}

std::uint16_t SwapSpace::counted(std::uint64_t block) const {
  const std::uint64_t chunk = block / kChunkBlocks;
  return (touched()[chunk / 64] >> (chunk % 64) & 1) != 0 ? counts()[block] : std::uint16_t{0};
}

/// Looks at every block. What has a count lies in a chunk that was touched.
SwapSpace::Tally SwapSpace::count_blocks() const {
  const SwapGeometry& g = header_->geometry;
  Tally tally;
  for_each_chunk(touched(), [&](std::uint64_t chunk) {
    const std::uint16_t* const counts_of_chunk = counts() + chunk * kChunkBlocks;
    for (std::uint64_t i = 0; i < kChunkBlocks; ++i) tally.held += counts_of_chunk[i] != 0 ? 1 : 0;
  });
  for (unsigned device = 0; device < g.slots; ++device) {
    const bool closing = (header_->closing.load(std::memory_order_relaxed) >> device & 1) != 0;
    std::uint64_t& sum = closing ? tally.held_closing : tally.free;
    const std::uint64_t pages = header_->pages[device].load(std::memory_order_relaxed);
    for_each_stripe(device, std::min(g.reserved, pages), pages, [&](BlockRun run) {
      for (std::uint64_t i = 0; i < run.count.value(); ++i) {
        sum += (counted(run.first.value() + i) != 0) == closing ? 1 : 0;
      }
    });
  }
  return tally;
}

}  // namespace enchilada
