// SignalsBlocked: all signals blocked while in scope, by system calls and not by libc.
// Invariant: usable anywhere, also in signal handlers and in threads that libc does not know.
#pragma once

#include <cstdint>

#include "base/raw_syscall.h"

namespace enchilada {

/// The program's handlers must not run inside the engine.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    const std::uint64_t all = ~std::uint64_t{0};
    raw_syscall(kSysRtSigprocmask, kSetMask, reinterpret_cast<long>(&all), reinterpret_cast<long>(&saved_),
                sizeof(saved_));
  }
  ~SignalsBlocked() {
    raw_syscall(kSysRtSigprocmask, kSetMask, reinterpret_cast<long>(&saved_), 0, sizeof(saved_));
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  /// What was blocked before: bit n - 1 is signal n.
  [[nodiscard]] std::uint64_t saved() const { return saved_; }

 private:
  static constexpr long kSysRtSigprocmask = 14;
  static constexpr long kSetMask = 2;
  std::uint64_t saved_ = 0;
};

}  // namespace enchilada
