// PageQueues: active, inactive, laundry, cache and limbo, as lists threaded through the page array.
//
// Invariants: a page's state names the queue whose list it is on; a page on cache is clean, unmapped, valid
// and not wired; no wired page is on a queue. Lock: one, rank kPageQueue, held for list surgery only; no
// other lock is taken under it. New pages go to the tail; the scans take from the head.
//
// A list has three marks, each a place between two pages and kept as the page behind it: what goes first is
// put before `ordinary`, in order of arrival (FreeBSD's head-of-inactive marker); the hands of a clock are
// `hand`, before the page to be looked at next, and `stop`, before the first page that came after the
// revolution had begun.
#pragma once

#include <array>
#include <span>

#include "base/function_ref.h"
#include "base/mutex.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {

/// Is told that a fault found a page in use. The page is busy; called under no lock of the queues.
class PageUseObserver {
 public:
  virtual void used(Page& page) = 0;

 protected:
  ~PageUseObserver() = default;
};

class PageQueues {
 public:
  explicit PageQueues(VmSystem& system);

  /// Puts pages (held busy, on any queue or none) at the tail of a queue; kNone takes them off.
  void move(std::span<const FrameNumber> frames, PageQueue to);
  void move(FrameNumber frame, PageQueue to) { move({&frame, 1}, to); }

  /// Puts pages before all that came by move(), behind those that came this way before.
  void move_first(std::span<const FrameNumber> frames, PageQueue to);

  /// A fault used the page (busy, not wired): active with at least kActInit; from inactive, laundry or cache
  /// its use count rises by kActAdvance + 1. True when it was brought back from one of these.
  bool activate(Page& page);

  /// Takes pages from the head, makes them busy and puts them in out, in queue order; they are on no queue
  /// then. Pages that are busy go to the tail. Looks at most at out.size() + a few pages. `refused` counts
  /// the busy ones.
  std::size_t take(PageQueue from, std::span<FrameNumber> out, std::size_t* refused);

  /// Makes the next pages before the hand busy and leaves them where they are; the hand passes them. Ends
  /// where a revolution does: pages that came since it began are looked at in the next one. `refused` as in
  /// take().
  std::size_t look(PageQueue at, std::span<FrameNumber> out, std::size_t* refused);

  /// Who wants to hear of each use that a fault sees; null = nobody. Set while nothing runs.
  void set_observer(PageUseObserver* observer) { observer_ = observer; }

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
    std::uint32_t ordinary;
    std::uint32_t hand;
    std::uint32_t stop;
    std::atomic<std::uint64_t> length{0};
  };
  void unlink(std::uint32_t frame, Page& page) REQUIRES(lock_);
  void append(std::uint32_t frame, Page& page, PageQueue to) REQUIRES(lock_);
  void insert_before(std::uint32_t frame, Page& page, PageQueue to, std::uint32_t before) REQUIRES(lock_);
  void publish() REQUIRES(lock_);

  VmSystem& system_;
  PageUseObserver* observer_ = nullptr;
  Mutex lock_{LockRank::kPageQueue};
  std::array<List, kPageQueues> lists_;  // links under lock_; lengths are read without it
};

}  // namespace enchilada
