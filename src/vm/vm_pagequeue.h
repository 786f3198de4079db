// PageQueues: active, inactive, laundry, cache and limbo, as lists threaded through the page array.
//
// Invariants: a page's state names the queue whose list it is on; a page on cache is clean, unmapped, valid
// and not wired; no wired page is on a queue. Lock: one, rank kPageQueue, held for list surgery only; no
// other lock is taken under it. New pages go to the tail; the scans take from the head.
#pragma once

#include <array>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {

class PageQueues {
 public:
  explicit PageQueues(VmSystem& system);

  /// Puts pages (held busy, on any queue or none) at the tail of a queue; kNone takes them off.
  void move(std::span<const FrameNumber> frames, PageQueue to);
  void move(FrameNumber frame, PageQueue to) { move({&frame, 1}, to); }

  /// A fault used the page (busy, not wired): active with at least kActInit; from inactive, laundry or cache
  /// its use count rises by kActAdvance + 1. True when it was brought back from one of these.
  bool activate(Page& page);

  /// Takes pages from the head, makes them busy and puts them in out, in queue order; they are on no queue
  /// then. Pages that are busy go to the tail. Looks at most at out.size() + a few pages. `refused` counts
  /// the busy ones.
  std::size_t take(PageQueue from, std::span<FrameNumber> out, std::size_t* refused);

  [[nodiscard]] std::uint64_t length(PageQueue q) const {
    return lists_[static_cast<std::size_t>(q)].length.load(std::memory_order_relaxed);
  }
  /// Walks one queue from head to tail with the lock held.
  void for_each(PageQueue q, FunctionRef<void(FrameNumber, const Page&)> visit);
  /// Lists, lengths and states agree; cache pages are clean.
  void validate();

 private:
  struct List {
    std::uint32_t head;
    std::uint32_t tail;
    std::atomic<std::uint64_t> length{0};
  };
  void unlink(std::uint32_t frame, Page& page) REQUIRES(lock_);
  void append(std::uint32_t frame, Page& page, PageQueue to) REQUIRES(lock_);
  void publish() REQUIRES(lock_);

  VmSystem& system_;
  Mutex lock_{LockRank::kPageQueue};
  std::array<List, kPageQueues> lists_;  // links under lock_; lengths are read without it
};

}  // namespace enchilada
