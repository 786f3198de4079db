// PageLists: a few doubly linked lists over the same pages, with links of 32 bits in one array.
//
// Front is the oldest. Invariant: a page is on one list at most; which one, its owner knows.
#pragma once

#include <cstdint>
#include <vector>

namespace enchilada::lab {

template <std::uint32_t kLists>
class PageLists {
 public:
  explicit PageLists(std::uint32_t pages) : pages_(pages), links_(pages + kLists) {
    for (std::uint32_t list = 0; list < kLists; ++list)
      links_[pages_ + list] = {pages_ + list, pages_ + list};
  }
  [[nodiscard]] std::uint32_t size(std::uint32_t list) const { return size_[list]; }
  /// Of a list that is not empty.
  [[nodiscard]] std::uint32_t front(std::uint32_t list) const { return links_[pages_ + list].next; }
  [[nodiscard]] std::uint32_t back(std::uint32_t list) const { return links_[pages_ + list].before; }

  void push_back(std::uint32_t list, std::uint32_t page) {
    ++size_[list];
    link(page, pages_ + list);
  }
  void remove(std::uint32_t list, std::uint32_t page) {
    --size_[list];
    unlink(page);
  }
  std::uint32_t pop_front(std::uint32_t list) {
    const std::uint32_t page = front(list);
    remove(list, page);
    return page;
  }
  /// The page becomes its list's youngest.
  void rotate(std::uint32_t list, std::uint32_t page) {
    unlink(page);
    link(page, pages_ + list);
  }
  void move(std::uint32_t from, std::uint32_t to, std::uint32_t page) {
    remove(from, page);
    push_back(to, page);
  }
  void prefetch(std::uint32_t page) const { __builtin_prefetch(&links_[page], 1); }

 private:
  struct Links {
    std::uint32_t before;
    std::uint32_t next;
  };
  void link(std::uint32_t page, std::uint32_t head) {
    const std::uint32_t last = links_[head].before;
    links_[page] = {last, head};
    links_[last].next = page;
    links_[head].before = page;
  }
  void unlink(std::uint32_t page) {
    const Links at = links_[page];
    links_[at.before].next = at.next;
    links_[at.next].before = at.before;
  }

  std::uint32_t pages_;
  std::vector<Links> links_;
  std::uint32_t size_[kLists] = {};
};

}  // namespace enchilada::lab
