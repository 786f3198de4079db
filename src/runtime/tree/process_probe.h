// Is a process there, and is it still the same one? Read from /proc/PID/stat with raw system calls.
//
// Invariants: async-signal-safe (no malloc, no libc); when in doubt a process counts as alive, because taking
// a living process's slot away loses its data, while keeping a dead one's only delays its frames.
#pragma once

#include <array>
#include <cstdint>

namespace enchilada {

struct ProcessProbe {
  enum class Life : std::uint8_t { kGone, kAlive, kUnknown };
  Life life = Life::kUnknown;
  std::uint64_t start_time = 0;   // clock ticks since boot; 0 = not known
  std::uint64_t start_stack = 0;  // changes with exec; 0 = not known or not allowed to know
  std::array<char, 16> name{};
};

/// A zombie with no thread left counts as gone.
ProcessProbe probe_process(std::uint32_t pid) noexcept;
/// The same from the text of a stat file (for tests).
ProcessProbe parse_stat(const char* text, std::uint64_t length) noexcept;

std::uint32_t own_pid() noexcept;

/// Process numbers as the members of a tree use them: those of the launcher's PID namespace. A member in a
/// namespace below has another getpid() and cannot reach the others by kill(2), but the launcher's /proc
/// shows them all by the right numbers. Where it has another /proc, it knows nobody's number, not even its
/// own, and nobody is dead for it.
class PidView {
 public:
  /// The namespace (inode) and the /proc (device) of the calling process; 0 = not known.
  static std::uint64_t current_namespace() noexcept;
  static std::uint64_t current_proc() noexcept;

  /// Looks where this process is; at its start and after a fork.
  void look(std::uint64_t home_namespace, std::uint64_t home_proc) noexcept;
  /// This process is in another namespace than the launcher.
  [[nodiscard]] bool abroad() const noexcept { return abroad_; }
  /// The calling process (a vfork child has a number of its own); 0 = cannot be told.
  [[nodiscard]] std::uint32_t self() const noexcept;
  /// The number of a child that is `pid` here; 0 = cannot be told.
  [[nodiscard]] std::uint32_t of_child(std::uint32_t pid) const noexcept;
  /// probe_process() for a number of the tree.
  [[nodiscard]] ProcessProbe probe(std::uint32_t number) const noexcept;
  /// /proc is the launcher's now.
  [[nodiscard]] bool proc_is_home() const noexcept { return !abroad_ || current_proc() == home_proc_; }

 private:
  [[nodiscard]] long open_proc() const noexcept;
  [[nodiscard]] std::uint32_t number_of_caller() const noexcept;

  bool abroad_ = false;
  std::uint64_t home_proc_ = 0;
  std::uint32_t pid_ = 0;     // as getpid() says it
  std::uint32_t number_ = 0;  // as the tree does
};

}  // namespace enchilada
