// FreeBSD's queues as the article has them: active pages with a count of use, inactive ones, and a cache
// queue of clean pages that are free for the taking and still know what they hold.
//
// Constants and thresholds are the engine's (vm/vm_page.h, vm/vm_thresholds.h). The daemon runs when free and
// cached pages fall below the wake-up threshold, and until they reach the target; passes follow each other at
// once. Invariants: frames in use and free ones are `frames`; a cached page is clean and not young.
#pragma once

#include <algorithm>
#include <vector>

#include "lab/policies/page_lists.h"
#include "lab/policies/page_ring.h"
#include "lab/policies/policy.h"
#include "vm/vm_page.h"
#include "vm/vm_thresholds.h"

namespace enchilada::lab {

class FreeBsdQueues {
 public:
  FreeBsdQueues(const Trace& trace, const PolicyOptions& options)
      : free_(options.frames),
        pages_(trace.pages),
        active_(std::min(options.frames, trace.pages)),
        inactive_(std::min(options.frames, trace.pages)),
        cache_(trace.pages) {
    const PageThresholds t = article_thresholds(PageCount{options.frames});
    const std::uint32_t half = std::max(options.frames / 2, 1u);
    const auto fitted = [half](std::uint64_t n) {
      return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(n, 1, half));
    };
    wakeup_ = fitted(t.wakeup);
    target_ = std::max(fitted(t.free_target + t.cache_min), wakeup_);
    inactive_target_ = static_cast<std::uint32_t>(t.inactive_target);
  }

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    const std::uint32_t page = ref.page();
    PageUse& use = pages_[page];
    const std::uint8_t queue = use.state & kQueueBits;
    if (queue == kActive || queue == kInactive) [[likely]] {
      note_access(&use.state, ref);
      return true;
    }
    if (queue == kCache) {
      cache_.remove(0, page);
    } else {
      take_frame(sink);
      use.act_count = 0;
    }
    activate(page, access_bits(ref));
    return queue == kCache;
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&pages_[page], 1); }

 private:
  enum Queue : std::uint8_t { kNone, kActive, kInactive, kCache };
  static constexpr std::uint8_t kQueueBits = 3;
  static constexpr std::uint8_t kSeenDirty = 4;  // WINATCFLS: met once by the inactive scan
  static constexpr std::uint32_t kAhead = 8;

  struct PageUse {
    std::uint8_t state = kNone;
    std::uint8_t act_count = 0;
  };

  [[nodiscard]] std::uint32_t available() const { return free_ + cache_.size(0); }

  template <class Sink>
  void take_frame(Sink& sink) {
    if (available() < wakeup_) page_out(sink);
    if (free_ > 0) {
      --free_;
      return;
    }
    const std::uint32_t victim = cache_.pop_front(0);
    evict(&pages_[victim].state, victim, sink);
  }

  void activate(std::uint32_t page, std::uint8_t bits) {
    pages_[page].act_count = std::max<std::uint8_t>(pages_[page].act_count, kActInit);
    pages_[page].state = static_cast<std::uint8_t>(kActive | bits);
    active_.push_back(page);
  }
  void deactivate(std::uint32_t page, std::uint8_t bits) {
    pages_[page].state = static_cast<std::uint8_t>(kInactive | bits);
    inactive_.push_back(page);
  }
  void cache(std::uint32_t page) {
    pages_[page].state = kCache;
    cache_.push_back(0, page);
  }
  /// The bit's answer counts and is taken back. One mapping a page: one reference at most.
  static bool test_and_age(PageUse* use) {
    if ((use->state & kYoungBit) == 0) return false;
    clear_bits(&use->state, kYoungBit);
    use->act_count = static_cast<std::uint8_t>(std::min(use->act_count + kActAdvance + 1, kActMax));
    return true;
  }

  template <class Sink>
  void page_out(Sink& sink) {
    for (bool again = false; available() < target_; again = true) {
      scan_inactive(again, sink);
      const std::uint32_t wanted = target_ + inactive_target_;
      const std::uint32_t there = available() + inactive_.size();
      if (there < wanted) scan_active(wanted - there, sink);
    }
  }

  template <class Sink>
  void scan_inactive(bool again, Sink& sink) {
    for (std::uint32_t n = inactive_.size(); n > 0 && available() < target_; --n) {
      prefetch(inactive_.peek(kAhead));
      const std::uint32_t page = inactive_.pop_front();
      PageUse& use = pages_[page];
      const std::uint8_t dirty = use.state & kDirtyBit;
      sink.looked();
      if (test_and_age(&use)) {
        activate(page, dirty);
      } else if (dirty == 0) {
        cache(page);
      } else if (!again && (use.state & kSeenDirty) == 0) {
        deactivate(page, static_cast<std::uint8_t>(dirty | kSeenDirty));
      } else {
        sink.wrote(page);
        deactivate(page, 0);
      }
    }
  }

  template <class Sink>
  void scan_active(std::uint32_t shortage, Sink& sink) {
    for (std::uint32_t n = active_.size(); n > 0 && shortage > 0; --n) {
      prefetch(active_.peek(kAhead));
      const std::uint32_t page = active_.pop_front();
      PageUse& use = pages_[page];
      sink.looked();
      if (!test_and_age(&use)) {
        use.act_count =
            static_cast<std::uint8_t>(use.act_count - std::min<unsigned>(use.act_count, kActDecline));
      }
      if (use.act_count > 0) {
        active_.push_back(page);
        continue;
      }
      --shortage;
      const std::uint8_t dirty = use.state & kDirtyBit;
      if (dirty != 0) {
        deactivate(page, dirty);
      } else {
        cache(page);
      }
    }
  }

  std::uint32_t free_;
  std::uint32_t wakeup_ = 1;
  std::uint32_t target_ = 1;
  std::uint32_t inactive_target_ = 0;
  std::vector<PageUse> pages_;
  PageRing active_;
  PageRing inactive_;
  PageLists<1> cache_;
};

}  // namespace enchilada::lab
