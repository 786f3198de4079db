// PageRing: a queue of pages whose entries lie side by side, so that a scan reads memory in order.
//
// For queues that pages leave at the front only, which is so wherever reference bits are read by a scan and
// not at the access. Invariant: at most as many pages as the limit given at the start.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace enchilada::lab {

class PageRing {
 public:
  explicit PageRing(std::uint32_t limit) : pages_(std::bit_ceil(std::uint64_t{limit} + 1)) {}
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(end_ - begin_); }
  void push_back(std::uint32_t page) { pages_[end_++ & mask()] = page; }
  std::uint32_t pop_front() { return pages_[begin_++ & mask()]; }
  /// The n-th from the front; nonsense, but readable, behind the end.
  [[nodiscard]] std::uint32_t peek(std::uint32_t n) const { return pages_[(begin_ + n) & mask()]; }

 private:
  [[nodiscard]] std::uint64_t mask() const { return pages_.size() - 1; }
  std::vector<std::uint32_t> pages_;
  std::uint64_t begin_ = 0;
  std::uint64_t end_ = 0;
};

}  // namespace enchilada::lab
