// RunReport: the figures of one finished (or running) process tree, and the two ways of telling them.
//
// Plain numbers, gathered by the caller. Invariant: text and JSON are made from the same report, so they
// never disagree; neither changes anything.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "vm/vm_meter.h"

namespace enchilada {

/// Copy of VmCounters in plain integers, in the order of kCounterInfo; several sets can be added.
struct CounterTotals {
  std::vector<std::uint64_t> values;
  std::array<std::uint64_t, TimeHistogram::kBuckets> buckets{};
  std::uint64_t time_sum = 0;
  std::uint64_t time_max = 0;

  CounterTotals();
  /// Adds one process's counters. Of the levels, metadata_bytes adds up, the others keep the largest.
  void add(const VmCounters& counters);
  [[nodiscard]] std::uint64_t get(Counter VmCounters::*field) const;
  /// Nanoseconds below which `share` (0..1) of the timed faults ended: the upper end of the bucket, at most
  /// the maximum.
  [[nodiscard]] std::uint64_t percentile(double share) const;
  [[nodiscard]] std::uint64_t timed_faults() const;
};

/// The tree's compressed store (all zero without one).
struct CompressedReport {
  std::uint64_t limit_bytes = 0;    // its part of --ram
  std::uint64_t touched_bytes = 0;  // of that, ever used
  std::uint64_t pages_in = 0;       // pages that were compressed
  std::uint64_t packed_bytes = 0;   // what these took
  std::uint64_t pages_out = 0;      // page-ins that it answered
  std::uint64_t written_back = 0;   // pages that it passed on to swap
};

struct RunReport {
  std::string program;
  int exit_status = 0;
  int signal = 0;  // that ended the program, 0 = none
  double seconds = 0;
  std::uint64_t processes = 0;  // managed ones, all that ever were
  std::uint64_t processes_alive = 0;
  std::uint64_t unmanaged = 0;  // programs that were executed and could not be managed
  std::string unmanaged_first;  // one of them, and why
  std::uint64_t ram_bytes = 0;
  std::uint64_t peak_resident_bytes = 0;
  std::uint64_t resident_bytes = 0;
  std::uint64_t swap_bytes = 0;
  std::uint64_t swap_used_bytes = 0;
  std::uint64_t swap_peak_bytes = 0;
  std::string swap_allocator;         // its mode's name
  std::uint64_t swap_lost_bytes = 0;  // neither free nor in use: the allocator lost track of them
  std::uint64_t swap_nodeless = 0;    // times that it lost some
  std::uint64_t swap_recounts = 0;    // times that they were looked for, and found
  std::uint64_t segment_bytes = 0;    // of the tree's shared segment, really in memory
  CompressedReport compressed;
  std::string transport;
  std::vector<std::string> swap_files;
  CounterTotals counters;

  /// Largest amount of memory that the VM system held for the program: in frames and in swap.
  [[nodiscard]] std::uint64_t managed_bytes() const { return peak_resident_bytes + swap_peak_bytes; }
  /// What the VM system itself uses.
  [[nodiscard]] std::uint64_t own_bytes() const;
};

/// The summary: lines of text, each ended by a newline.
std::string summary_text(const RunReport& report);
/// The same with all counters; docs/stats.md describes it.
std::string summary_json(const RunReport& report);

/// "1.5 MiB", "64 KiB", "12 B".
std::string human_bytes(std::uint64_t bytes);
/// "1.3 us", "140 us", "2.3 ms", "12.0 s".
std::string human_time(std::uint64_t nanoseconds);
/// "1,234,567".
std::string human_count(std::uint64_t n);

}  // namespace enchilada
