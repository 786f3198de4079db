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

}  // namespace enchilada
