// The anchors: FIFO, random, LRU, CLOCK. Invariant: each follows its textbook; README.md has the strings.
#pragma once

#include <vector>

#include "lab/policies/page_lists.h"
#include "lab/policies/policy.h"

namespace enchilada::lab {

inline constexpr std::uint8_t kInMemory = 1;

/// Pages in a row of frames; each of the three below says which frame is next to be taken.
class FrameRow {
 public:
  FrameRow(const Trace& trace, const PolicyOptions& options) : limit_(options.frames), state_(trace.pages) {
    frames_.reserve(limit_ < trace.pages ? limit_ : trace.pages);
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

 protected:
  /// The page is in memory, and knows now that it was touched.
  bool hits(Reference ref) {
    std::uint8_t& state = state_[ref.page()];
    if (state == 0) return false;
    note_access(&state, ref);
    return true;
  }
  [[nodiscard]] bool has_room() const { return frames_.size() < limit_; }
  void take_new(Reference ref) {
    frames_.push_back(ref.page());
    state_[ref.page()] = bits_of_new(ref);
  }
  template <class Sink>
  void take_over(std::uint32_t frame, Reference ref, Sink& sink) {
    sink.looked();
    evict(&state_[frames_[frame]], frames_[frame], sink);
    frames_[frame] = ref.page();
    state_[ref.page()] = bits_of_new(ref);
  }
  /// A page that has just come is not young: CLOCK gives its second chance to the second reference.
  static std::uint8_t bits_of_new(Reference ref) {
    return static_cast<std::uint8_t>(kInMemory | (access_bits(ref) & kDirtyBit));
  }

  std::uint32_t limit_;
  std::vector<std::uint8_t> state_;
  std::vector<std::uint32_t> frames_;
};

class Fifo : public FrameRow {
 public:
  using FrameRow::FrameRow;
  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    if (hits(ref)) return true;
    if (has_room()) {
      take_new(ref);
      return false;
    }
    take_over(oldest_, ref, sink);
    if (++oldest_ == limit_) oldest_ = 0;
    return false;
  }

 private:
  std::uint32_t oldest_ = 0;
};

/// xorshift64*: the same victims for the same seed everywhere.
class SmallRandom {
 public:
  explicit SmallRandom(std::uint64_t seed) : x_(seed * 2 + 1) {}
  std::uint32_t below(std::uint32_t n) {
    x_ ^= x_ >> 12;
    x_ ^= x_ << 25;
    x_ ^= x_ >> 27;
    return static_cast<std::uint32_t>(((x_ * 0x2545'f491'4f6c'dd1dULL >> 32) * n) >> 32);
  }

 private:
  std::uint64_t x_;
};

class Random : public FrameRow {
 public:
  Random(const Trace& trace, const PolicyOptions& options)
      : FrameRow(trace, options), random_(options.seed) {}
  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    if (hits(ref)) return true;
    if (has_room()) {
      take_new(ref);
    } else {
      take_over(random_.below(limit_), ref, sink);
    }
    return false;
  }

 private:
  SmallRandom random_;
};

class Clock : public FrameRow {
 public:
  using FrameRow::FrameRow;
  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    if (hits(ref)) return true;
    if (has_room()) {
      take_new(ref);
      return false;
    }
    while ((state_[frames_[hand_]] & kYoungBit) != 0) {
      sink.looked();
      clear_bits(&state_[frames_[hand_]], kYoungBit);
      advance();
    }
    take_over(hand_, ref, sink);
    advance();
    return false;
  }

 private:
  void advance() {
    if (++hand_ == limit_) hand_ = 0;
  }
  std::uint32_t hand_ = 0;
};

class Lru {
 public:
  Lru(const Trace& trace, const PolicyOptions& options)
      : limit_(options.frames), state_(trace.pages), order_(trace.pages) {}
  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    const std::uint32_t page = ref.page();
    std::uint8_t& state = state_[page];
    const bool hit = state != 0;
    state = static_cast<std::uint8_t>(state | kInMemory | access_bits(ref));
    if (hit) {
      if (order_.back(0) != page) order_.rotate(0, page);
      return true;
    }
    if (order_.size(0) == limit_) {
      sink.looked();
      const std::uint32_t victim = order_.pop_front(0);
      evict(&state_[victim], victim, sink);
    }
    order_.push_back(0, page);
    return false;
  }
  void prefetch(std::uint32_t page) const {
    __builtin_prefetch(&state_[page], 1);
    order_.prefetch(page);
  }

 private:
  std::uint32_t limit_;
  std::vector<std::uint8_t> state_;
  PageLists<1> order_;
};

}  // namespace enchilada::lab
