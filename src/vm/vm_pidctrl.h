// PidController: FreeBSD's controller of the page daemon, in integers (freebsd-vm.md §1.9; FreeBSD 12-14,
// subr_pidctrl.c, daemon form): how many pages to free now so that free pages stay near a set point, however
// fast they are taken.
//
// Time goes in intervals. In the first call of one, output = error/3 + integral/4 + derivative/8, where error
// = set point - input, the integral adds the errors of the intervals up and is kept within [0, 4 * set point
// * 4], and the derivative is the change since the last interval. Further calls in the same interval ask for
// what has come on top: the error counts what was already asked for as not done yet, and that is subtracted
// from the output. Invariants: never negative; idle for long = starts afresh from an integral of at most the
// bound. Not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

class PidController {
 public:
  static constexpr std::int64_t kProportional = 3;  // divisors
  static constexpr std::int64_t kIntegral = 4;
  static constexpr std::int64_t kDerivative = 8;
  static constexpr std::int64_t kBound = 4;

  explicit constexpr PidController(Nanoseconds interval) : interval_(interval) {}

  /// A call now is the first of an interval.
  [[nodiscard]] bool begins_interval(Nanoseconds now) const {
    return !started_ || now.value() - start_.value() >= interval_.value();
  }
  /// What to do now, in the input's unit.
  std::uint64_t output(std::uint64_t setpoint, std::uint64_t input, Nanoseconds now) {
    const auto goal = static_cast<std::int64_t>(setpoint);
    if (begins_interval(now)) begin(now);
    error_ = goal - static_cast<std::int64_t>(input) + issued_;
    integral_ = std::clamp<std::int64_t>(integral_before_ + error_, 0, kBound * goal * kIntegral);
    derivative_ = error_ - error_before_;
    const std::int64_t wanted =
        error_ / kProportional + integral_ / kIntegral + derivative_ / kDerivative - issued_;
    const std::int64_t now_due = std::max<std::int64_t>(wanted, 0);
    issued_ += now_due;
    return static_cast<std::uint64_t>(now_due);
  }
  [[nodiscard]] std::int64_t error() const { return error_; }
  [[nodiscard]] std::int64_t integral() const { return integral_; }
  [[nodiscard]] std::int64_t derivative() const { return derivative_; }

 private:
  void begin(Nanoseconds now) {
    started_ = true;
    start_ = now;
    error_before_ = error_;
    integral_before_ = integral_;
    issued_ = 0;
  }

  Nanoseconds interval_;
  Nanoseconds start_{0};
  bool started_ = false;
  std::int64_t error_ = 0;
  std::int64_t integral_ = 0;
  std::int64_t derivative_ = 0;
  std::int64_t error_before_ = 0;  // at the end of the last interval
  std::int64_t integral_before_ = 0;
  std::int64_t issued_ = 0;  // asked for in this interval
};

}  // namespace enchilada
