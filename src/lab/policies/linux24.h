// Linux 2.4.0 and 2.4.10: reference bits come from a walk over page tables, not from the lists.
//
// One process maps all pages; the walk goes round by page number. A page whose mapping the walk has taken
// away is mapped again by the next touch (a minor fault, no I/O). Invariants: only unmapped pages leave
// memory; a page on inactive_clean is clean and unmapped.
#pragma once

#include <algorithm>
#include <vector>

#include "lab/policies/page_lists.h"
#include "lab/policies/policy.h"

namespace enchilada::lab {

/// Where the walk over the page tables is; swap_out of both.
class TableWalk {
 public:
  explicit TableWalk(std::uint32_t pages) : pages_(pages) {}
  /// Calls `visit` with pages that are mapped, `entries` of them or until it returns false.
  template <class Visit>
  void walk(const std::vector<std::uint8_t>& state, std::uint8_t mapped, std::uint32_t entries,
            Visit&& visit) {
    for (std::uint32_t seen = 0; entries > 0 && seen < pages_; ++seen) {
      const std::uint32_t page = cursor_;
      if (++cursor_ == pages_) cursor_ = 0;
      if ((state[page] & mapped) == 0) continue;
      --entries;
      if (!visit(page)) return;
    }
  }

 private:
  std::uint32_t pages_;
  std::uint32_t cursor_ = 0;
};

/// What both keep: lists of pages (number 0: no list), and whether the walk has left a page its mapping.
template <std::uint32_t kLists>
class MappedPages {
 public:
  MappedPages(const Trace& trace, const PolicyOptions& options)
      : free_(options.frames), state_(trace.pages), lists_(trace.pages), tables_(trace.pages) {}
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

 protected:
  static constexpr std::uint8_t kListBits = 3;
  static constexpr std::uint8_t kMapped = 4;

  /// The access finds a mapping: only the hardware hears of it.
  bool through_mapping(Reference ref) {
    std::uint8_t& state = state_[ref.page()];
    if ((state & kMapped) == 0) return false;
    note_access(&state, ref);
    return true;
  }
  void map(Reference ref) {
    state_[ref.page()] |= kMapped;
    note_access(&state_[ref.page()], ref);
  }
  [[nodiscard]] std::uint8_t list_of(std::uint32_t page) const { return state_[page] & kListBits; }
  void enqueue(std::uint32_t page, std::uint8_t list) {
    state_[page] = static_cast<std::uint8_t>((state_[page] & ~kListBits) | list);
    lists_.push_back(list, page);
  }
  void requeue(std::uint32_t page, std::uint8_t list) {
    lists_.remove(list_of(page), page);
    enqueue(page, list);
  }

  std::uint32_t free_;
  std::vector<std::uint8_t> state_;
  PageLists<kLists> lists_;
  TableWalk tables_;
};

class Linux240 : public MappedPages<4> {
 public:
  static constexpr unsigned kAgeStart = 2;
  static constexpr unsigned kAgeAdvance = 3;
  static constexpr unsigned kAgeMax = 64;

  Linux240(const Trace& trace, const PolicyOptions& options)
      : MappedPages(trace, options), goal_(std::clamp(options.frames / 32, 1u, 32u)), age_(trace.pages) {}

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    if (through_mapping(ref)) [[likely]]
      return true;
    const std::uint32_t page = ref.page();
    const bool hit = state_[page] != 0;
    if (hit) {
      age_up(page);
    } else {
      take_frame(sink);
      age_[page] = kAgeStart;
      enqueue(page, kActive);
    }
    map(ref);
    ++mapped_;
    return hit;
  }

 private:
  enum List : std::uint8_t { kNone, kActive, kInactiveDirty, kInactiveClean };
  static constexpr unsigned kPriority = 6;

  /// age_page_up: an inactive page becomes active by it.
  void age_up(std::uint32_t page) {
    if (list_of(page) != kActive) {
      requeue(page, kActive);
      age_[page] = static_cast<std::uint8_t>(std::max<unsigned>(age_[page], kAgeStart));
    }
    age_[page] = static_cast<std::uint8_t>(std::min(age_[page] + kAgeAdvance, kAgeMax));
  }

  template <class Sink>
  void take_frame(Sink& sink) {
    if (free_ > 0) {
      --free_;
      return;
    }
    if (lists_.size(kInactiveClean) == 0) refill(sink);
    const std::uint32_t victim = lists_.pop_front(kInactiveClean);
    evict(&state_[victim], victim, sink);
  }

  template <class Sink>
  void refill(Sink& sink) {
    for (unsigned priority = kPriority;; priority -= priority > 0 ? 1 : 0) {
      launder(sink);
      if (lists_.size(kInactiveClean) >= goal_) return;
      scan_active((lists_.size(kActive) >> priority) + 1, sink);
      swap_out((mapped_ >> priority) + 1, sink);
      // What is in memory may be less than the goal.
      if (lists_.size(kActive) == 0 && lists_.size(kInactiveDirty) == 0) return;
    }
  }

  /// page_launder.
  template <class Sink>
  void launder(Sink& sink) {
    while (lists_.size(kInactiveDirty) > 0 && lists_.size(kInactiveClean) < goal_) {
      const std::uint32_t page = lists_.front(kInactiveDirty);
      sink.looked();
      if ((state_[page] & kDirtyBit) != 0) sink.wrote(page);
      clear_bits(&state_[page], kDirtyBit);
      requeue(page, kInactiveClean);
    }
  }

  /// refill_inactive_scan: the clock that ages down.
  template <class Sink>
  void scan_active(std::uint32_t n, Sink& sink) {
    for (n = std::min(n, lists_.size(kActive)); n > 0; --n) {
      const std::uint32_t page = lists_.front(kActive);
      sink.looked();
      age_[page] /= 2;
      requeue(page, age_[page] == 0 && (state_[page] & kMapped) == 0 ? kInactiveDirty : kActive);
    }
  }

  /// try_to_swap_out over the next entries: the clock that ages up.
  template <class Sink>
  void swap_out(std::uint32_t entries, Sink& sink) {
    tables_.walk(state_, kMapped, entries, [&](std::uint32_t page) {
      sink.looked();
      if ((state_[page] & kYoungBit) != 0) {
        clear_bits(&state_[page], kYoungBit);
        age_up(page);
      } else if (age_[page] == 0) {
        clear_bits(&state_[page], kMapped);
        --mapped_;
      }
      return true;
    });
  }

  std::uint32_t goal_;  // of inactive_clean
  std::uint32_t mapped_ = 0;
  std::vector<std::uint8_t> age_;
};

class Linux2410 : public MappedPages<3> {
 public:
  Linux2410(const Trace& trace, const PolicyOptions& options)
      : MappedPages(trace, options), cluster_(std::clamp(options.frames / 32, 1u, kCluster)) {}

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    if (through_mapping(ref)) [[likely]]
      return true;
    const std::uint32_t page = ref.page();
    const bool hit = state_[page] != 0;
    if (!hit) {
      take_frame(sink);
      enqueue(page, kInactive);
    }
    mark_accessed(page);
    map(ref);
    return hit;
  }

 private:
  enum List : std::uint8_t { kNone, kActive, kInactive };
  static constexpr std::uint8_t kReferenced = 8;  // PG_referenced
  static constexpr std::uint32_t kCluster = 32;
  static constexpr std::uint32_t kPriority = 6;

  void clear(std::uint32_t page, std::uint8_t bits) { clear_bits(&state_[page], bits); }

  /// mark_page_accessed: the second time, an inactive page becomes active.
  void mark_accessed(std::uint32_t page) {
    if (list_of(page) == kInactive && (state_[page] & kReferenced) != 0) {
      requeue(page, kActive);
      clear(page, kReferenced);
    } else {
      state_[page] |= kReferenced;
    }
  }

  /// try_to_free_pages: a cluster, harder and harder.
  template <class Sink>
  void take_frame(Sink& sink) {
    if (free_ == 0) {
      for (std::uint32_t priority = kPriority; free_<cluster_; priority -= priority> 1 ? 1 : 0) {
        refill_inactive(sink);
        shrink_cache(priority, sink);
      }
    }
    --free_;
  }

  template <class Sink>
  void refill_inactive(Sink& sink) {
    for (std::uint32_t n = lists_.size(kActive); n > 0 && lists_.size(kInactive) < 2 * lists_.size(kActive);
         --n) {
      const std::uint32_t page = lists_.front(kActive);
      sink.looked();
      if ((state_[page] & kReferenced) != 0) {
        clear(page, kReferenced);
        lists_.rotate(kActive, page);
        continue;
      }
      requeue(page, kInactive);
      state_[page] |= kReferenced;
    }
  }

  /// Mapped pages are passed over, and dirty ones written. Too many mapped ones: their mappings are taken
  /// away.
  template <class Sink>
  void shrink_cache(std::uint32_t priority, Sink& sink) {
    const std::uint32_t most = lists_.size(kInactive) / priority + 1;
    std::uint32_t mapped_left = std::min(kCluster << (10 - priority), most / 10);
    for (std::uint32_t n = std::min(most, lists_.size(kInactive)); n > 0 && free_ < cluster_; --n) {
      const std::uint32_t page = lists_.front(kInactive);
      sink.looked();
      if ((state_[page] & kMapped) != 0) {
        lists_.rotate(kInactive, page);
        if (mapped_left-- > 0) continue;
        swap_out(sink);
        return;
      }
      if ((state_[page] & kDirtyBit) != 0) {
        sink.wrote(page);
        clear(page, kDirtyBit);
        lists_.rotate(kInactive, page);
        continue;
      }
      lists_.remove(kInactive, page);
      evict(&state_[page], page, sink);
      ++free_;
    }
  }

  /// Until a cluster has lost its mappings, once round at most. Active pages keep theirs.
  template <class Sink>
  void swap_out(Sink& sink) {
    std::uint32_t left = kCluster;
    tables_.walk(state_, kMapped, ~0u, [&](std::uint32_t page) {
      sink.looked();
      if ((state_[page] & kYoungBit) != 0) {
        clear(page, kYoungBit);
        mark_accessed(page);
      } else if (list_of(page) == kInactive) {
        clear(page, kMapped);
        --left;
      }
      return left > 0;
    });
  }

  std::uint32_t cluster_;  // freed at a time
};

}  // namespace enchilada::lab
