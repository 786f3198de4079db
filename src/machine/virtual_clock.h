// VirtualClock: time that passes only when somebody says so. Invariant: it never goes back. Thread-safe.
#pragma once

#include <atomic>

#include "vm/clock.h"

namespace enchilada {

class VirtualClock final : public Clock {
 public:
  Nanoseconds now() override { return Nanoseconds{now_.load(std::memory_order_relaxed)}; }
  /// To this time, unless it is later already.
  void advance_to(Nanoseconds time) {
    std::uint64_t seen = now_.load(std::memory_order_relaxed);
    while (seen < time.value() &&
           !now_.compare_exchange_weak(seen, time.value(), std::memory_order_relaxed)) {
    }
  }
  void advance(Nanoseconds by) { now_.fetch_add(by.value(), std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> now_{0};
};

}  // namespace enchilada
