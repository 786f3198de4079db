// Replacement policies written to be read: a map of pages, standard lists, searches from one end to the
// other.
//
// The rules are those of src/lab/policies/README.md, the code shares nothing with the fast ones but
// constants. Invariant: what a policy here says is what a fast one has to say, hit by hit and victim by
// victim.
#pragma once

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "lab/policies/policy.h"
#include "lab/policies/simple_policies.h"
#include "vm/vm_page.h"
#include "vm/vm_thresholds.h"

namespace enchilada::lab::naive {

/// What a policy did, in order.
struct Event {
  char what;  // 'e' evicted, 'w' wrote
  std::uint32_t page;
  friend bool operator==(const Event&, const Event&) = default;
};

struct Recorder {
  std::vector<Event> events;
  std::uint64_t looks = 0;
  void evicted(std::uint32_t page) { events.push_back({'e', page}); }
  void wrote(std::uint32_t page) { events.push_back({'w', page}); }
  void looked() { ++looks; }
};

using Pages = std::list<std::uint32_t>;  // oldest first

struct Page {
  bool young = false;
  bool dirty = false;
  bool mapped = true;
  bool marked = false;  // what the policy likes
  unsigned age = 0;
};

class Policy {
 public:
  Policy(const Trace& trace, const PolicyOptions& options) : trace(trace), options(options) {}
  virtual ~Policy() = default;
  virtual bool touch(Reference ref) = 0;
  Recorder log;

 protected:
  const Trace& trace;
  PolicyOptions options;
  std::map<std::uint32_t, Page> memory;

  bool used(Reference ref) {
    const auto found = memory.find(ref.page());
    if (found == memory.end()) return false;
    found->second.young = true;
    found->second.dirty |= ref.is_write();
    return true;
  }
  void bring_in(Reference ref) {
    memory[ref.page()] = Page{};
    used(ref);
  }
  void evict(std::uint32_t page) {
    if (memory.at(page).dirty) log.wrote(page);
    memory.erase(page);
    log.evicted(page);
  }
  [[nodiscard]] bool full() const { return memory.size() == options.frames; }
};

class Queue : public Policy {  // fifo, clock, lru: the page in front is the next candidate
 public:
  Queue(const Trace& t, const PolicyOptions& o, bool second_chance, bool by_use)
      : Policy(t, o), second_chance_(second_chance), by_use_(by_use) {}
  bool touch(Reference ref) override {
    if (used(ref)) {
      if (by_use_) {
        queue_.remove(ref.page());
        queue_.push_back(ref.page());
      }
      return true;
    }
    while (full()) {
      const std::uint32_t page = queue_.front();
      queue_.pop_front();
      ++log.looks;
      if (second_chance_ && std::exchange(memory.at(page).young, false)) {
        queue_.push_back(page);
      } else {
        evict(page);
      }
    }
    bring_in(ref);
    memory.at(ref.page()).young = false;
    queue_.push_back(ref.page());
    return false;
  }

 private:
  bool second_chance_;
  bool by_use_;
  Pages queue_;
};

class RandomVictim : public Policy {
 public:
  RandomVictim(const Trace& t, const PolicyOptions& o) : Policy(t, o), random_(o.seed) {}
  bool touch(Reference ref) override {
    if (used(ref)) return true;
    if (!full()) {
      frames_.push_back(ref.page());
    } else {
      std::uint32_t& frame = frames_[random_.below(options.frames)];
      ++log.looks;
      evict(frame);
      frame = ref.page();
    }
    bring_in(ref);
    return false;
  }

 private:
  SmallRandom random_;
  std::vector<std::uint32_t> frames_;
};

class Farthest : public Policy {  // opt
 public:
  using Policy::Policy;
  bool touch(Reference ref) override {
    ++now_;
    if (used(ref)) return true;
    if (full()) {
      ++log.looks;
      std::uint32_t victim = 0;
      std::size_t farthest = 0;
      for (const auto& [page, state] : memory) {
        const std::size_t at = next_use(page);
        if (at >= farthest)
          std::tie(farthest, victim) = std::pair(at, page);  // the highest of those never used
      }
      evict(victim);
    }
    bring_in(ref);
    return false;
  }

 private:
  [[nodiscard]] std::size_t next_use(std::uint32_t page) const {
    std::size_t at = now_;
    while (at < trace.refs.size() && trace.refs[at].page() != page) ++at;
    return at;
  }
  std::size_t now_ = 0;
};

class FreeBsd : public Policy {
 public:
  FreeBsd(const Trace& t, const PolicyOptions& o) : Policy(t, o) {
    const PageThresholds levels = article_thresholds(PageCount{o.frames});
    const std::uint64_t half = std::max(o.frames / 2, 1u);
    wakeup_ = std::clamp<std::uint64_t>(levels.wakeup, 1, half);
    target_ = std::max(std::clamp<std::uint64_t>(levels.free_target + levels.cache_min, 1, half), wakeup_);
    inactive_target_ = levels.inactive_target;
  }
  bool touch(Reference ref) override {
    const std::uint32_t page = ref.page();
    const auto cached = std::find(cache_.begin(), cache_.end(), page);
    if (cached != cache_.end()) {
      cache_.erase(cached);
      used(ref);
      activate(page);
      return true;
    }
    if (used(ref)) return true;
    if (available() < wakeup_) page_out();
    if (full()) {
      evict(cache_.front());
      cache_.pop_front();
    }
    bring_in(ref);
    activate(page);
    return false;
  }

 private:
  [[nodiscard]] std::uint64_t available() const { return options.frames - memory.size() + cache_.size(); }
  void activate(std::uint32_t page) {
    memory.at(page).age = std::max(memory.at(page).age, kActInit);
    memory.at(page).marked = false;
    active_.push_back(page);
  }
  bool was_used(Page& page) {
    ++log.looks;
    if (!std::exchange(page.young, false)) return false;
    page.age = std::min(page.age + 4, 64u);
    return true;
  }
  void page_out() {
    for (int pass = 0; available() < target_; ++pass) {
      for (std::size_t n = inactive_.size(); n > 0 && available() < target_; --n) look_at_inactive(pass);
      const std::uint64_t wanted = target_ + inactive_target_;
      std::uint64_t there = available() + inactive_.size();
      for (std::size_t n = active_.size(); n > 0 && there < wanted; --n) there += look_at_active();
    }
  }
  void look_at_inactive(int pass) {
    const std::uint32_t number = inactive_.front();
    Page& page = memory.at(number);
    inactive_.pop_front();
    if (was_used(page)) return activate(number);
    if (!page.dirty) return cache_.push_back(number);
    inactive_.push_back(number);
    if (pass == 0 && !page.marked) {
      page.marked = true;
      return;
    }
    page.dirty = page.marked = false;
    log.wrote(number);
  }
  unsigned look_at_active() {
    const std::uint32_t number = active_.front();
    Page& page = memory.at(number);
    active_.pop_front();
    if (!was_used(page) && page.age > 0) --page.age;
    (page.age > 0 ? active_ : page.dirty ? inactive_ : cache_).push_back(number);
    return page.age > 0 ? 0 : 1;
  }
  std::uint64_t wakeup_, target_, inactive_target_;
  Pages active_, inactive_, cache_;
};

/// The pages that are mapped, from the cursor on and once round.
inline std::vector<std::uint32_t> once_round(const std::map<std::uint32_t, Page>& memory,
                                             std::uint32_t cursor) {
  std::vector<std::uint32_t> before;
  std::vector<std::uint32_t> after;
  for (const auto& [number, page] : memory) {
    if (page.mapped) (number < cursor ? before : after).push_back(number);
  }
  after.insert(after.end(), before.begin(), before.end());
  return after;
}

class Aged24 : public Policy {  // 2.4.0
 public:
  using Policy::Policy;
  bool touch(Reference ref) override {
    const auto found = memory.find(ref.page());
    const bool hit = found != memory.end();
    if (hit && !found->second.mapped) {
      age_up(ref.page());
      found->second.mapped = true;
    }
    if (!hit) {
      if (full()) {
        if (clean_.empty()) refill();
        evict(clean_.front());
        clean_.pop_front();
      }
      bring_in(ref);
      memory.at(ref.page()).age = 2;
      active_.push_back(ref.page());
    }
    used(ref);
    return hit;
  }

 private:
  void age_up(std::uint32_t number) {
    Page& page = memory.at(number);
    if (std::find(active_.begin(), active_.end(), number) == active_.end()) {
      dirty_.remove(number);
      clean_.remove(number);
      active_.push_back(number);
      page.age = std::max(page.age, 2u);
    }
    page.age = std::min(page.age + 3, 64u);
  }
  void refill() {
    const std::size_t goal = std::clamp(options.frames / 32, 1u, 32u);
    for (unsigned priority = 6;; priority = priority == 0 ? 0 : priority - 1) {
      while (!dirty_.empty() && clean_.size() < goal) {
        ++log.looks;
        Page& page = memory.at(dirty_.front());
        if (std::exchange(page.dirty, false)) log.wrote(dirty_.front());
        clean_.splice(clean_.end(), dirty_, dirty_.begin());
      }
      if (clean_.size() >= goal || clean_.size() == memory.size()) return;
      for (std::size_t n = std::min((active_.size() >> priority) + 1, active_.size()); n > 0; --n) age_down();
      swap_out(priority);
    }
  }
  void age_down() {
    ++log.looks;
    Page& page = memory.at(active_.front());
    page.age /= 2;
    Pages& to = page.age == 0 && !page.mapped ? dirty_ : active_;
    to.splice(to.end(), active_, active_.begin());
  }
  void swap_out(unsigned priority) {
    const auto round = once_round(memory, cursor_);
    const std::size_t n = std::min((round.size() >> priority) + 1, round.size());
    for (std::size_t i = 0; i < n; ++i) {
      ++log.looks;
      Page& page = memory.at(round[i]);
      if (std::exchange(page.young, false)) {
        age_up(round[i]);
      } else if (page.age == 0) {
        page.mapped = false;
      }
    }
    // Entries that are passed over at the end of a round move the cursor too.
    if (n > 0 && n == (round.size() >> priority) + 1) cursor_ = (round[n - 1] + 1) % trace.pages;
  }
  std::uint32_t cursor_ = 0;
  Pages active_, dirty_, clean_;
};

class TwoLists24 : public Policy {  // 2.4.10
 public:
  using Policy::Policy;
  bool touch(Reference ref) override {
    const auto found = memory.find(ref.page());
    const bool hit = found != memory.end();
    if (!hit) {
      if (full()) free_some();
      bring_in(ref);
      inactive_.push_back(ref.page());
      mark(ref.page());
    } else if (!found->second.mapped) {
      mark(ref.page());
      found->second.mapped = true;
    }
    used(ref);
    return hit;
  }

 private:
  static bool has(const Pages& pages, std::uint32_t page) {
    return std::find(pages.begin(), pages.end(), page) != pages.end();
  }
  void mark(std::uint32_t number) {
    Page& page = memory.at(number);
    if (has(inactive_, number) && page.marked) {
      inactive_.remove(number);
      active_.push_back(number);
      page.marked = false;
    } else {
      page.marked = true;
    }
  }
  void free_some() {
    const std::size_t goal = options.frames - std::clamp(options.frames / 32, 1u, 32u);
    for (unsigned priority = 6; memory.size() > goal; priority = std::max(priority - 1, 1u)) {
      for (std::size_t n = active_.size(); n > 0 && inactive_.size() < 2 * active_.size(); --n) {
        ++log.looks;
        Page& page = memory.at(active_.front());
        if (page.marked) {
          page.marked = false;
          active_.splice(active_.end(), active_, active_.begin());
        } else {
          page.marked = true;
          inactive_.splice(inactive_.end(), active_, active_.begin());
        }
      }
      shrink(priority, goal);
    }
  }
  void shrink(unsigned priority, std::size_t goal) {
    const std::size_t most = inactive_.size() / priority + 1;
    const std::size_t mapped_allowed = std::min(std::size_t{32} << (10 - priority), most / 10);
    std::size_t mapped = 0;
    for (std::size_t n = std::min(most, inactive_.size()); n > 0 && memory.size() > goal; --n) {
      ++log.looks;
      const std::uint32_t number = inactive_.front();
      inactive_.pop_front();
      Page& page = memory.at(number);
      if (!page.mapped && !page.dirty) {
        evict(number);
        continue;
      }
      inactive_.push_back(number);
      if (page.mapped) {
        if (++mapped > mapped_allowed) return swap_out();
      } else {
        log.wrote(number);
        page.dirty = false;
      }
    }
  }
  void swap_out() {
    int taken = 0;
    for (const std::uint32_t number : once_round(memory, cursor_)) {
      ++log.looks;
      Page& page = memory.at(number);
      if (std::exchange(page.young, false)) {
        mark(number);
      } else if (has(inactive_, number)) {
        page.mapped = false;
        if (++taken == 32) {
          cursor_ = (number + 1) % trace.pages;
          return;
        }
      }
    }
  }
  std::uint32_t cursor_ = 0;
  Pages active_, inactive_;
};

class TwoLists26 : public Policy {
 public:
  TwoLists26(const Trace& t, const PolicyOptions& o, bool refault) : Policy(t, o), refault_(refault) {}
  bool touch(Reference ref) override {
    if (used(ref)) return true;
    if (full()) shrink_zone();
    bring_in(ref);
    const auto gone = gone_.find(ref.page());
    const bool early = gone != gone_.end() && evictions_ - gone->second <= active_.size();
    (!refault_ || early ? active_ : inactive_).push_back(ref.page());
    return false;
  }

 private:
  void shrink_zone() {
    const std::size_t cluster = std::clamp(options.frames / 32, 1u, 32u);
    const std::size_t goal = options.frames - cluster;
    for (unsigned priority = 12; memory.size() > goal; priority = priority == 0 ? 0 : priority - 1) {
      active_due_ += (active_.size() >> priority) + 1;
      if (active_due_ >= cluster) {
        const std::size_t n = std::min(std::exchange(active_due_, 0), active_.size());
        for (std::size_t i = 0; i < n; ++i) look(active_, true);
      }
      inactive_due_ += (inactive_.size() >> priority) + 1;
      if (inactive_due_ >= cluster) {
        const std::size_t n = std::min(std::exchange(inactive_due_, 0), inactive_.size());
        for (std::size_t i = 0; i < n && memory.size() > goal; ++i) look(inactive_, false);
      }
    }
  }
  void look(Pages& from, bool is_active) {
    ++log.looks;
    const std::uint32_t page = from.front();
    from.pop_front();
    if (std::exchange(memory.at(page).young, false)) return active_.push_back(page);
    if (is_active) return inactive_.push_back(page);
    evict(page);
    gone_[page] = ++evictions_;
  }
  bool refault_;
  std::size_t active_due_ = 0, inactive_due_ = 0, evictions_ = 0;
  std::map<std::uint32_t, std::size_t> gone_;
  Pages active_, inactive_;
};

class Generations : public Policy {  // mglru; Page::age is the page's generation
 public:
  using Policy::Policy;
  bool touch(Reference ref) override {
    if (used(ref)) return true;
    while (full()) step();
    bring_in(ref);
    place(ref.page(), newest_);
    return false;
  }

 private:
  void place(std::uint32_t page, unsigned generation) {
    memory.at(page).age = generation;
    lists_[generation].push_back(page);
  }
  void step() {
    if (newest_ - oldest_ == 1) {
      for (auto& [number, page] : memory) {
        ++log.looks;
        if (std::exchange(page.young, false)) page.age = newest_;
      }
      ++newest_;
      return;
    }
    if (lists_[oldest_].empty()) {
      ++oldest_;
      return;
    }
    const std::uint32_t number = lists_[oldest_].front();
    lists_[oldest_].pop_front();
    ++log.looks;
    if (memory.at(number).young) {
      for (auto& [other, page] : memory) {
        if (other / 64 == number / 64 && std::exchange(page.young, false)) {
          page.age = newest_;
          ++log.looks;
        }
      }
    }
    if (memory.at(number).age != oldest_) return place(number, memory.at(number).age);
    evict(number);
  }
  unsigned oldest_ = 0, newest_ = 3;
  std::map<unsigned, Pages> lists_;
};

class HotAndCold : public Policy {  // clock-pro
 public:
  HotAndCold(const Trace& t, const PolicyOptions& o) : Policy(t, o) { hot_ = cold_ = test_ = circle_.end(); }
  bool touch(Reference ref) override {
    if (used(ref)) return true;
    while (!memory.empty() && memory.size() >= room()) run_cold();
    const auto record =
        std::find_if(circle_.begin(), circle_.end(), [&](const Node& n) { return n.page == ref.page(); });
    const bool remembered = record != circle_.end();
    if (remembered) {
      erase(record);
      more_cold();
    }
    bring_in(ref);
    memory.at(ref.page()).young = false;
    memory.at(ref.page()).dirty = ref.is_write();
    to_head({ref.page(), remembered, !remembered});
    demote();
    return false;
  }

 private:
  struct Node {
    std::uint32_t page;
    bool hot;
    bool test;
  };
  using Circle = std::list<Node>;
  using At = Circle::iterator;

  [[nodiscard]] std::size_t count(bool hot) const {
    return static_cast<std::size_t>(std::count_if(circle_.begin(), circle_.end(), [&](const Node& n) {
      return memory.count(n.page) == 1 && n.hot == hot;
    }));
  }
  [[nodiscard]] std::size_t records() const { return circle_.size() - memory.size(); }
  [[nodiscard]] std::size_t room() const {
    const std::size_t taken = (records() * options.record_bytes + 4095) / 4096;
    return taken + 1 < options.frames ? options.frames - taken : 1;
  }
  void more_cold() { target_ = std::min<std::size_t>(target_ + 1, std::max(options.frames - 1, 1u)); }
  At after(At at) { return ++at == circle_.end() ? circle_.begin() : at; }
  void erase(At at) {
    for (At* hand : {&hot_, &cold_, &test_}) {
      if (*hand == at) *hand = circle_.size() == 1 ? circle_.end() : after(at);
    }
    circle_.erase(at);
  }
  /// Right before the hot hand.
  void to_head(Node node) {
    const bool first = circle_.empty();
    const At at = circle_.insert(hot_, node);
    if (first) hot_ = cold_ = test_ = at;
  }
  void demote() {
    while (count(true) > 0 && count(true) + target_ > std::max(room(), target_)) run_hot();
  }
  void end_test(At at) {
    if (!at->test) return;
    at->test = false;
    target_ = std::max<std::size_t>(target_ - 1, 1);
    if (memory.count(at->page) == 0) erase(at);
  }
  void run_hot() {
    for (;;) {
      const At at = hot_;
      ++log.looks;
      hot_ = after(at);
      if (!at->hot) {
        end_test(at);
      } else if (!std::exchange(memory.at(at->page).young, false)) {
        at->hot = false;
        return;
      }
    }
  }
  void run_cold() {
    while (count(false) == 0) run_hot();
    while (memory.count(cold_->page) == 0 || cold_->hot) cold_ = after(cold_);
    const At at = cold_;
    ++log.looks;
    cold_ = after(at);
    if (std::exchange(memory.at(at->page).young, false)) {
      const bool promoted = at->test;
      const Node node{at->page, promoted, !promoted};
      if (promoted) more_cold();
      erase(at);
      to_head(node);
      if (promoted) demote();
      return;
    }
    evict(at->page);
    if (!at->test) return erase(at);
    while (records() > options.frames) {
      const At tested = test_;
      ++log.looks;
      test_ = after(tested);
      if (!tested->hot) end_test(tested);
    }
  }
  Circle circle_;
  At hot_, cold_, test_;
  std::size_t target_ = 1;
};

inline std::unique_ptr<Policy> make(std::string_view name, const Trace& t, const PolicyOptions& o) {
  if (name == "opt") return std::make_unique<Farthest>(t, o);
  if (name == "lru") return std::make_unique<Queue>(t, o, false, true);
  if (name == "clock") return std::make_unique<Queue>(t, o, true, false);
  if (name == "fifo") return std::make_unique<Queue>(t, o, false, false);
  if (name == "random") return std::make_unique<RandomVictim>(t, o);
  if (name == "freebsd") return std::make_unique<FreeBsd>(t, o);
  if (name == "linux-2.4.0") return std::make_unique<Aged24>(t, o);
  if (name == "linux-2.4.10") return std::make_unique<TwoLists24>(t, o);
  if (name == "linux-2.6") return std::make_unique<TwoLists26>(t, o, false);
  if (name == "linux-refault") return std::make_unique<TwoLists26>(t, o, true);
  if (name == "mglru") return std::make_unique<Generations>(t, o);
  if (name == "clock-pro") return std::make_unique<HotAndCold>(t, o);
  return nullptr;
}

}  // namespace enchilada::lab::naive
