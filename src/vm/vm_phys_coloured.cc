// ColouredFrames: lists threaded through the page array; a frame is taken from the head and put at the tail
// of its colour's list, so that frames of one colour take turns (FreeBSD's free queues).
#include "vm/vm_phys_coloured.h"

#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {
constexpr std::uint32_t kEnd = ~std::uint32_t{0};
}  // namespace

ColouredFrames::ColouredFrames(VmSystem& system)
    : system_(system),
      limit_(system.phys().frame_limit().value()),
      table_(colour_table(system.tunables().colour_cache)),
      some_(table_.colours) {
  lists_.fill({kEnd, kEnd});
}

std::uint32_t ColouredFrames::base_colour(PageCount size) {
  const std::uint32_t step = colour_step(table_, size);
  return next_colour_.fetch_add(step, std::memory_order_relaxed) % table_.colours;
}

void ColouredFrames::put(FrameRun run) {
  for (std::uint64_t i = 0; i < run.count.value(); ++i) {
    const std::uint32_t frame = (run.first + PageCount{i}).value();
    const std::uint32_t colour = frame % table_.colours;
    List& list = lists_[colour];
    Page& page = system_.page(FrameNumber{frame});
    page.order = 0;
    page.next = kEnd;
    page.prev = list.tail;
    (list.tail != kEnd ? system_.page(FrameNumber{list.tail}).next : list.head) = frame;
    list.tail = frame;
    some_.insert(colour);
  }
}

void ColouredFrames::unlink(std::uint32_t frame) {
  const std::uint32_t colour = frame % table_.colours;
  List& list = lists_[colour];
  Page& page = system_.page(FrameNumber{frame});
  (page.prev != kEnd ? system_.page(FrameNumber{page.prev}).next : list.head) = page.next;
  (page.next != kEnd ? system_.page(FrameNumber{page.next}).prev : list.tail) = page.prev;
  page.order = Page::kNotHead;
  if (list.head == kEnd) some_.erase(colour);
}

/// A frame of the colour or of the one that the search finds instead; kEnd: none is free.
std::uint32_t ColouredFrames::take_colour(std::uint32_t colour) {
  const std::uint32_t found = some_.find(colour);
  if (found == kMaxColours) return kEnd;
  const std::uint32_t frame = lists_[found].head;
  unlink(frame);
  return frame;
}

void ColouredFrames::take(const FrameWish& wish, std::span<FrameNumber> out) {
  std::uint64_t hits = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint32_t colour = rover_;
    if (wish.object != nullptr) {
      colour =
          static_cast<std::uint32_t>((wish.first.value() + i + wish.object->base_colour()) % table_.colours);
    } else {
      rover_ = (rover_ + table_.prime2) % table_.colours;
    }
    const std::uint32_t frame = take_colour(colour);
    CHECK(frame != kEnd);
    out[i] = FrameNumber{frame};
    if (frame % table_.colours == colour) ++hits;
  }
  if (wish.object == nullptr) return;
  count(system_.counters().colour_hits, hits);
  count(system_.counters().colour_misses, out.size() - hits);
}

/// A frame and the free ones behind it. Runs are wanted when frames leave the engine, not on the fault path.
FrameRun ColouredFrames::take_run(PageCount most) {
  const std::uint32_t first = take_colour(rover_);
  if (first == kEnd) return {};
  rover_ = (rover_ + table_.prime2) % table_.colours;
  std::uint64_t n = 1;
  for (; n < most.value() && first + n < limit_; ++n) {
    const auto next = static_cast<std::uint32_t>(first + n);
    const Page& page = system_.page(FrameNumber{next});
    if (page.queue() != PageQueue::kFree || page.order != 0) break;
    unlink(next);
  }
  return {FrameNumber{first}, PageCount{n}};
}

void ColouredFrames::for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) {
  for (std::uint32_t colour = 0; colour < table_.colours; ++colour) {
    for (std::uint32_t f = lists_[colour].head; f != kEnd; f = system_.page(FrameNumber{f}).next) {
      visit(0, FrameNumber{f});
    }
  }
}

void ColouredFrames::validate() {
  for (std::uint32_t colour = 0; colour < table_.colours; ++colour) {
    const List& list = lists_[colour];
    CHECK(some_.contains(colour) == (list.head != kEnd), colour);
    std::uint32_t last = kEnd;
    for (std::uint32_t f = list.head; f != kEnd; f = system_.page(FrameNumber{f}).next) {
      CHECK(f % table_.colours == colour, f, colour);
      CHECK(system_.page(FrameNumber{f}).prev == last, f, colour);
      CHECK(system_.page(FrameNumber{f}).order == 0, f, colour);
      last = f;
    }
    CHECK(list.tail == last, colour);
  }
}

}  // namespace enchilada
