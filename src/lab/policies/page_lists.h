// PageLinks: doubly linked circles of numbers, with links of 32 bits in one array. PageLists: a few lists
// over the same pages, each a circle with a head of its own.
//
// Front is the oldest. Invariant: a page is on one list at most; which one, its owner knows.
#pragma once

#include <cstdint>
#include <vector>

namespace enchilada::lab {

class PageLinks {
 public:
  explicit PageLinks(std::uint32_t numbers) : links_(numbers) {}
  [[nodiscard]] std::uint32_t before(std::uint32_t at) const { return links_[at].before; }
  [[nodiscard]] std::uint32_t next(std::uint32_t at) const { return links_[at].next; }
  void make_circle(std::uint32_t only) { links_[only] = {only, only}; }
  void link_before(std::uint32_t added, std::uint32_t at) {
    const std::uint32_t last = links_[at].before;
    links_[added] = {last, at};
    links_[last].next = added;
    links_[at].before = added;
  }
  void unlink(std::uint32_t gone) {
    const Links at = links_[gone];
    links_[at.before].next = at.next;
    links_[at.next].before = at.before;
  }
  void prefetch(std::uint32_t at) const { __builtin_prefetch(&links_[at], 1); }

 private:
  struct Links {
    std::uint32_t before = 0;
    std::uint32_t next = 0;
  };
  std::vector<Links> links_;
};

template <std::uint32_t kLists>
class PageLists {
 public:
  explicit PageLists(std::uint32_t pages) : pages_(pages), links_(pages + kLists) {
    for (std::uint32_t list = 0; list < kLists; ++list) links_.make_circle(pages_ + list);
  }
  [[nodiscard]] std::uint32_t size(std::uint32_t list) const { return size_[list]; }
  /// Of a list that is not empty.
  [[nodiscard]] std::uint32_t front(std::uint32_t list) const { return links_.next(pages_ + list); }
  [[nodiscard]] std::uint32_t back(std::uint32_t list) const { return links_.before(pages_ + list); }

  void push_back(std::uint32_t list, std::uint32_t page) {
    ++size_[list];
    links_.link_before(page, pages_ + list);
  }
  void remove(std::uint32_t list, std::uint32_t page) {
    --size_[list];
    links_.unlink(page);
  }
  std::uint32_t pop_front(std::uint32_t list) {
    const std::uint32_t page = front(list);
    remove(list, page);
    return page;
  }
  /// The page becomes its list's youngest.
  void rotate(std::uint32_t list, std::uint32_t page) {
    links_.unlink(page);
    links_.link_before(page, pages_ + list);
  }
  void move(std::uint32_t from, std::uint32_t to, std::uint32_t page) {
    remove(from, page);
    push_back(to, page);
  }
  void prefetch(std::uint32_t page) const { links_.prefetch(page); }

 private:
  std::uint32_t pages_;
  PageLinks links_;
  std::uint32_t size_[kLists] = {};
};

}  // namespace enchilada::lab
