// Probes: what single things cost on the real machine, in nanoseconds.
//
// Each is the least of several rounds, since other work on the machine only ever adds. Invariant: a probe
// that is not possible here gives nothing, and never a guess.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace enchilada::lab {

/// Sizes of the caches, as the system says; guesses where it does not.
struct CacheSizes {
  std::size_t l1 = 32 << 10;
  std::size_t l2 = 512 << 10;
  std::size_t l3 = 8 << 20;
};
[[nodiscard]] CacheSizes cache_sizes();

/// A load that depends on the one before, at random in `bytes` of memory.
[[nodiscard]] std::optional<double> probe_load(std::size_t bytes);
/// The same with one line in each of `pages` small pages: what it takes more than loads of as many lines
/// close together.
[[nodiscard]] std::optional<double> probe_translation(std::size_t pages);
[[nodiscard]] std::optional<double> probe_zero_page();
[[nodiscard]] std::optional<double> probe_copy_page();
/// First write to a page of anonymous memory.
[[nodiscard]] std::optional<double> probe_zero_fill_fault();
/// First read of one: the system maps a page that is there already.
[[nodiscard]] std::optional<double> probe_mapping_fault();
[[nodiscard]] double probe_lock_pair();
[[nodiscard]] double probe_allocation_pair();
/// A page made read-only that was written; with another thread of the process running, on another CPU.
[[nodiscard]] std::optional<double> probe_protect(bool other_thread);

/// Reads of a file in `folder`, past the page cache.
struct DiskReads {
  std::optional<double> page;         // at random
  std::optional<double> sixteen;      // pages at once, at random
  std::optional<double> major_fault;  // of a mapping, at random
};
[[nodiscard]] DiskReads probe_disk(const std::string& folder);

}  // namespace enchilada::lab
