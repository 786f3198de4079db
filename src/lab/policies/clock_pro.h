// CLOCK-Pro (Jiang, Chen, Zhang 2005): LIRS on a clock. Hot pages, cold pages, and records of cold pages that
// have left memory, on one circle with three hands; how many frames are for cold pages adjusts itself.
//
// Invariants: pages in memory are `frames` at most, less what the records take when they are charged; records
// are `frames` at most; a record is in its test period; a hot page is not.
#pragma once

#include <algorithm>
#include <vector>

#include "lab/policies/page_lists.h"
#include "lab/policies/policy.h"

namespace enchilada::lab {

class ClockPro {
 public:
  ClockPro(const Trace& trace, const PolicyOptions& options)
      : frames_(options.frames),
        record_bytes_(options.record_bytes),
        cold_target_(1),
        state_(trace.pages),
        links_(trace.pages) {}

  template <class Sink>
  bool touch(Reference ref, Sink& sink) {
    const std::uint32_t page = ref.page();
    std::uint8_t& state = state_[page];
    if ((state & kResident) != 0) [[likely]] {
      note_access(&state, ref);
      return true;
    }
    while (resident() > 0 && resident() >= room()) run_cold_hand(sink);
    // The search for room may have ended this page's test period.
    const bool remembered = state != 0;
    if (remembered) {
      unlink(page);
      --records_;
      grow_cold_target();
    }
    const std::uint8_t dirty = access_bits(ref) & kDirtyBit;
    state = static_cast<std::uint8_t>(dirty | kResident | (remembered ? kHot : kTest));
    ++(remembered ? hot_ : cold_);
    link_at_head(page);
    demote_surplus(sink);
    return false;
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&state_[page], 1); }

  [[nodiscard]] std::uint32_t cold_target() const { return cold_target_; }

 private:
  static constexpr std::uint8_t kResident = 1;
  static constexpr std::uint8_t kHot = 2;
  static constexpr std::uint8_t kTest = 4;
  static constexpr std::uint32_t kPageBytes = 4096;

  [[nodiscard]] std::uint32_t resident() const { return hot_ + cold_; }
  [[nodiscard]] bool is(std::uint32_t page, std::uint8_t bit) const { return (state_[page] & bit) != 0; }
  void clear(std::uint32_t page, std::uint8_t bits) { clear_bits(&state_[page], bits); }
  /// Frames for pages: all, less what the records take.
  [[nodiscard]] std::uint32_t room() const {
    const std::uint64_t taken = (std::uint64_t{records_} * record_bytes_ + kPageBytes - 1) / kPageBytes;
    return taken + 1 < frames_ ? frames_ - static_cast<std::uint32_t>(taken) : 1;
  }
  void grow_cold_target() { cold_target_ = std::min(cold_target_ + 1, std::max(frames_ - 1, 1u)); }
  void shrink_cold_target() { cold_target_ = std::max(cold_target_ - 1, 1u); }

  /// The list's head is right behind the hot hand: that hand meets it last.
  void link_at_head(std::uint32_t page) {
    if (hot_hand_ == kNoPage) {
      links_.make_circle(page);
      hot_hand_ = cold_hand_ = test_hand_ = page;
      return;
    }
    links_.link_before(page, hot_hand_);
  }
  void unlink(std::uint32_t page) {
    const std::uint32_t after = links_.next(page);
    const std::uint32_t next = after == page ? kNoPage : after;
    for (std::uint32_t* const hand : {&hot_hand_, &cold_hand_, &test_hand_}) {
      if (*hand == page) *hand = next;
    }
    links_.unlink(page);
  }
  void to_head(std::uint32_t page) {
    unlink(page);
    link_at_head(page);
  }

  /// Looks at the cold page under the hand: it goes, or gets another chance. A record that is one too many
  /// makes the test hand run.
  template <class Sink>
  void run_cold_hand(Sink& sink) {
    while (cold_ == 0) run_hot_hand(sink);
    while (!is(cold_hand_, kResident) || is(cold_hand_, kHot)) cold_hand_ = links_.next(cold_hand_);
    const std::uint32_t page = cold_hand_;
    sink.looked();
    cold_hand_ = links_.next(page);
    if (is(page, kYoungBit)) {
      reward_cold(page, sink);
      return;
    }
    const bool in_test = is(page, kTest);
    evict(&state_[page], page, sink);
    --cold_;
    if (!in_test) {
      unlink(page);
      return;
    }
    state_[page] = kTest;
    ++records_;
    while (records_ > frames_) run_test_hand(sink);
  }
  /// A cold page was used: within its test period it turns hot, else a test period begins.
  template <class Sink>
  void reward_cold(std::uint32_t page, Sink& sink) {
    clear(page, kYoungBit);
    if (is(page, kTest)) {
      clear(page, kTest);
      state_[page] |= kHot;
      --cold_;
      ++hot_;
      grow_cold_target();
      to_head(page);
      demote_surplus(sink);
      return;
    }
    state_[page] |= kTest;
    to_head(page);
  }

  /// Hot pages have the frames that are not for cold ones.
  template <class Sink>
  void demote_surplus(Sink& sink) {
    while (hot_ > 0 && hot_ + cold_target_ > std::max(room(), cold_target_)) run_hot_hand(sink);
  }

  /// Up to the first hot page that was not used, which turns cold; cold pages on the way end their tests.
  template <class Sink>
  void run_hot_hand(Sink& sink) {
    for (;;) {
      const std::uint32_t page = hot_hand_;
      sink.looked();
      if (!is(page, kHot)) {
        hot_hand_ = links_.next(page);
        end_test(page);
        continue;
      }
      hot_hand_ = links_.next(page);
      if (is(page, kYoungBit)) {
        clear(page, kYoungBit);
        continue;
      }
      clear(page, kHot);
      --hot_;
      ++cold_;
      return;
    }
  }

  template <class Sink>
  void run_test_hand(Sink& sink) {
    const std::uint32_t page = test_hand_;
    sink.looked();
    test_hand_ = links_.next(page);
    if (!is(page, kHot)) end_test(page);
  }
  void end_test(std::uint32_t page) {
    if (!is(page, kTest)) return;
    shrink_cold_target();
    clear(page, kTest);
    if (is(page, kResident)) return;
    unlink(page);
    --records_;
  }

  std::uint32_t frames_;
  std::uint32_t record_bytes_;
  std::uint32_t cold_target_;  // m_c
  std::uint32_t hot_ = 0;
  std::uint32_t cold_ = 0;  // in memory
  std::uint32_t records_ = 0;
  std::uint32_t hot_hand_ = kNoPage;
  std::uint32_t cold_hand_ = kNoPage;
  std::uint32_t test_hand_ = kNoPage;
  std::vector<std::uint8_t> state_;
  PageLinks links_;
};

}  // namespace enchilada::lab
