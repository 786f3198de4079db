// IoRings: reads that go on while the thread that asked for them does something else, by io_uring (liburing).
//
// Invariants: a ring has one user at a time, from begin() to finish(), so whoever waits finds its own answer;
// a process never touches a ring of another: fork does not pass them on (forget_after_fork()), and a vfork
// child, which has our memory but descriptors of its own, goes without. Nothing allocates, and whatever fails
// makes begin() answer "no": the caller then reads without a ring.
#pragma once

#include <liburing.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/raw_syscall.h"

namespace enchilada {

class IoRings {
 public:
  struct Config {
    SyscallFunction call = raw_syscall;  // makes the rings
    int lowest_descriptor = 0;           // descriptors of ours have numbers from here on
  };
  static constexpr int kNone = -1;

  explicit IoRings(Config config);
  IoRings(const IoRings&) = delete;
  IoRings& operator=(const IoRings&) = delete;

  /// Starts reading `bytes` at `offset`; returns what finish() wants. The buffer and the file stay the
  /// kernel's until then. kNone: no ring is free, or there are none here.
  [[nodiscard]] int begin(int fd, std::byte* to, std::size_t bytes, std::uint64_t offset);
  /// Waits; bytes read, or -errno.
  [[nodiscard]] long finish(int read);
  /// In the child of a process fork, where the parent's rings do not exist: makes new ones when they are
  /// needed.
  void forget_after_fork();

 private:
  enum class State : std::uint8_t { kUnmade, kFree, kBusy, kBroken };
  struct Ring {
    std::atomic<State> state{State::kUnmade};
    io_uring ring{};
  };
  static constexpr unsigned kRings = 8;  // reads under way at a time; further ones go without

  [[nodiscard]] bool claim(Ring& ring);
  [[nodiscard]] bool make(Ring& ring) const;
  [[nodiscard]] io_uring_cqe* look(Ring& ring);

  Config config_;
  long owner_;  // process
  std::array<Ring, kRings> rings_{};
  std::atomic<bool> looking_{false};  // somebody keeps a CPU busy waiting
  std::atomic<unsigned> sober_{0};    // so many answers are slept for: the CPUs are wanted
};

}  // namespace enchilada
