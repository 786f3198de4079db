// Replay: a trace through a policy, by name. Invariants: the same trace, policy and options give the same
// counts; policies() has every policy, and only there is a name turned into a class.
#pragma once

#include <span>
#include <string_view>

#include "lab/policies/policy.h"

namespace enchilada::lab {

struct ReplayResult {
  std::uint64_t refs = 0;
  std::uint64_t misses = 0;
  PolicyCounts counts;
  double seconds = 0;  // of the thread's CPU time, the replay alone

  [[nodiscard]] double miss_ratio() const {
    return refs == 0 ? 0 : static_cast<double>(misses) / static_cast<double>(refs);
  }
};

/// Says of each reference whether it missed.
using MissLog = std::vector<bool>;

struct PolicyEntry {
  std::string_view name;
  std::string_view when;
  std::string_view what;
  ReplayResult (*replay)(const Trace& trace, const PolicyOptions& options, MissLog* log);
};

[[nodiscard]] std::span<const PolicyEntry> policies();
/// Null: there is no such policy.
[[nodiscard]] const PolicyEntry* find_policy(std::string_view name);
/// Of a policy that exists. The log is optional, and takes time.
[[nodiscard]] ReplayResult replay(std::string_view policy, const Trace& trace, const PolicyOptions& options,
                                  MissLog* log = nullptr);

}  // namespace enchilada::lab
