// Doubly linked list threaded through its elements (the TAILQ of BSD): no allocation, O(1) everything.
// Invariant: an element is on at most one list per link member; the list does not own its elements.
#pragma once

#include <cstddef>

#include "base/check.h"

namespace enchilada {

template <class T>
struct ListLink {
  T* next = nullptr;
  T* prev = nullptr;
};

template <class T, ListLink<T> T::*Link>
class IntrusiveList {
 public:
  [[nodiscard]] bool empty() const { return head_ == nullptr; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] T* front() const { return head_; }
  [[nodiscard]] T* back() const { return tail_; }
  static T* next(const T* e) { return (e->*Link).next; }
  static T* prev(const T* e) { return (e->*Link).prev; }

  void push_back(T* e) { insert_between(e, tail_, nullptr); }
  void push_front(T* e) { insert_between(e, nullptr, head_); }
  void insert_before(T* where, T* e) { insert_between(e, (where->*Link).prev, where); }
  void insert_after(T* where, T* e) { insert_between(e, where, (where->*Link).next); }
  void remove(T* e) {
    DCHECK(size_ > 0);
    T* const p = (e->*Link).prev;
    T* const n = (e->*Link).next;
    (p != nullptr ? (p->*Link).next : head_) = n;
    (n != nullptr ? (n->*Link).prev : tail_) = p;
    (e->*Link) = {};
    --size_;
  }
  T* pop_front() {
    T* const e = head_;
    if (e != nullptr) remove(e);
    return e;
  }

 private:
  void insert_between(T* e, T* p, T* n) {
    (e->*Link).prev = p;
    (e->*Link).next = n;
    (p != nullptr ? (p->*Link).next : head_) = e;
    (n != nullptr ? (n->*Link).prev : tail_) = e;
    ++size_;
  }
  T* head_ = nullptr;
  T* tail_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace enchilada
