// RamBudget: how many frames this process may have populated; credits shared by a process tree.
//
// Invariant that the host machine keeps with it: populated frames <= granted frames <= credits taken. A
// credit is one page of RAM. Implementations are lock-free, never allocate, and may be called inside a
// signal handler.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

class RamBudget {
 public:
  /// Takes up to `wanted` credits; returns how many it got (possibly none). Thread-safe.
  [[nodiscard]] virtual PageCount take(PageCount wanted) = 0;
  /// Gives credits back. Thread-safe.
  virtual void give_back(PageCount credits) = 0;
  /// Credits that the tree would like to have back from this process now; 0 = none.
  [[nodiscard]] virtual PageCount wanted_back() const = 0;

 protected:
  ~RamBudget() = default;
};

/// A budget of one process: a counter. For tests, the library and a tree of one.
class LocalRamBudget final : public RamBudget {
 public:
  explicit LocalRamBudget(PageCount credits) : free_(credits.value()) {}

  [[nodiscard]] PageCount take(PageCount wanted) override {
    std::uint64_t have = free_.load(std::memory_order_relaxed);
    std::uint64_t got = 0;
    do {
      got = have < wanted.value() ? have : wanted.value();
      if (got == 0) return PageCount{0};
    } while (!free_.compare_exchange_weak(have, have - got, std::memory_order_acq_rel));
    return PageCount{got};
  }
  void give_back(PageCount credits) override { free_.fetch_add(credits.value(), std::memory_order_acq_rel); }
  [[nodiscard]] PageCount wanted_back() const override {
    return PageCount{wanted_back_.load(std::memory_order_relaxed)};
  }

  [[nodiscard]] PageCount free() const { return PageCount{free_.load(std::memory_order_relaxed)}; }
  void set_wanted_back(PageCount n) { wanted_back_.store(n.value(), std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> free_;
  std::atomic<std::uint64_t> wanted_back_{0};
};

}  // namespace enchilada
