// BuddyFrames: a textbook buddy allocator (Knuth 2.5) with 32-bit links in the page array. Invariants: see
// vm_phys_buddy.h.
#include "vm/vm_phys_buddy.h"

#include <bit>

#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {
constexpr std::uint32_t kEnd = ~std::uint32_t{0};
}  // namespace

BuddyFrames::BuddyFrames(VmSystem& system) : system_(system), limit_(system.phys().frame_limit().value()) {
  head_.fill(kEnd);
}

void BuddyFrames::push_block(std::uint32_t first, unsigned order) {
  Page& page = system_.page(FrameNumber{first});
  page.order = static_cast<std::uint8_t>(order);
  page.prev = kEnd;
  page.next = head_[order];
  if (page.next != kEnd) system_.page(FrameNumber{page.next}).prev = first;
  head_[order] = first;
  nonempty_ |= 1u << order;
}

void BuddyFrames::unlink_block(std::uint32_t first, unsigned order) {
  Page& page = system_.page(FrameNumber{first});
  if (page.prev != kEnd) {
    system_.page(FrameNumber{page.prev}).next = page.next;
  } else {
    head_[order] = page.next;
    if (page.next == kEnd) nonempty_ &= ~(1u << order);
  }
  if (page.next != kEnd) system_.page(FrameNumber{page.next}).prev = page.prev;
  page.order = Page::kNotHead;
}

void BuddyFrames::free_block(std::uint32_t first, unsigned order) {
  while (order + 1 < kOrders) {
    const std::uint32_t buddy = first ^ (1u << order);
    if (std::uint64_t{buddy} + (1u << order) > limit_) break;
    const Page& other = system_.page(FrameNumber{buddy});
    if (other.queue() != PageQueue::kFree || other.order != order) break;
    unlink_block(buddy, order);
    first &= ~(1u << order);
    ++order;
  }
  push_block(first, order);
}

/// Frees a run of any length and alignment as the fewest aligned blocks.
void BuddyFrames::put(FrameRun run) {
  std::uint32_t first = run.first.value();
  std::uint64_t n = run.count.value();
  while (n > 0) {
    const auto align = static_cast<unsigned>(std::countr_zero(first | (1u << (kOrders - 1))));
    const auto fit = static_cast<unsigned>(std::bit_width(n) - 1);
    const unsigned order = align < fit ? align : fit;
    free_block(first, order);
    first += 1u << order;
    n -= std::uint64_t{1} << order;
  }
}

/// Takes the smallest block that holds `most`, else the largest; what is not wanted of it goes back.
FrameRun BuddyFrames::take_run(PageCount most) {
  if (nonempty_ == 0) return {};
  unsigned want = static_cast<unsigned>(std::bit_width(most.value() - 1));
  if (want >= kOrders) want = kOrders - 1;
  const std::uint32_t enough = nonempty_ >> want << want;
  const unsigned order = enough != 0 ? static_cast<unsigned>(std::countr_zero(enough))
                                     : static_cast<unsigned>(std::bit_width(nonempty_)) - 1;
  const FrameNumber first{head_[order]};
  unlink_block(first.value(), order);
  const std::uint64_t size = std::uint64_t{1} << order;
  const std::uint64_t n = size < most.value() ? size : most.value();
  put({first + PageCount{n}, PageCount{size - n}});
  return {first, PageCount{n}};
}

FrameNumber BuddyFrames::take_block(unsigned order) {
  if (nonempty_ >> order == 0) return kNoFrame;
  return take_run(PageCount{std::uint64_t{1} << order}).first;
}

void BuddyFrames::take(const FrameWish& /*wish*/, std::span<FrameNumber> out) {
  for (std::size_t n = 0; n < out.size();) {
    const FrameRun run = take_run(PageCount{out.size() - n});
    CHECK(run.count.value() != 0);
    for (std::uint64_t i = 0; i < run.count.value(); ++i) out[n++] = run.first + PageCount{i};
  }
}

void BuddyFrames::for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) {
  for (unsigned order = 0; order < kOrders; ++order) {
    for (std::uint32_t f = head_[order]; f != kEnd; f = system_.page(FrameNumber{f}).next) {
      visit(order, FrameNumber{f});
    }
  }
}

void BuddyFrames::validate() {
  for_each_block([&](unsigned order, FrameNumber first) {
    CHECK(system_.page(first).order == order, first.value(), order);
    for (std::uint32_t i = 1; i < (1u << order); ++i) {
      CHECK(system_.page(FrameNumber{first.value() + i}).order == Page::kNotHead, first.value() + i);
    }
    const std::uint32_t buddy = first.value() ^ (1u << order);
    if (order + 1 == kOrders || std::uint64_t{buddy} + (1u << order) > limit_) return;
    const Page& other = system_.page(FrameNumber{buddy});
    CHECK(other.queue() != PageQueue::kFree || other.order != order, first.value(), buddy);
  });
}

}  // namespace enchilada
