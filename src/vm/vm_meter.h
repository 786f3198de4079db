// Counters of one engine: FreeBSD's vmmeter names, plus a histogram of fault times.
//
// Plain memory that the creator of a VmSystem provides, so that live mode can put it into memory shared by
// the whole process tree and the counts outlive the process. Invariants: zero is a valid start; every field
// only grows, except those marked level; updates are relaxed atomics; all fields are 64-bit, so that two sets
// add up field by field.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

using Counter = std::atomic<std::uint64_t>;

inline void count(Counter& c, std::uint64_t n = 1) {
  c.fetch_add(n, std::memory_order_relaxed);
}

/// Log-linear histogram of nanoseconds: four buckets per power of two, 1 ns .. ~2^40 ns.
struct TimeHistogram {
  static constexpr std::size_t kBuckets = 160;
  std::array<Counter, kBuckets> buckets;
  Counter sum;
  Counter max;

  static constexpr std::size_t bucket_of(std::uint64_t ns) {
    if (ns < 4) return static_cast<std::size_t>(ns);
    const auto top = static_cast<std::size_t>(63 - __builtin_clzll(ns));
    const std::size_t b = top * 4 - 4 + ((ns >> (top - 2)) & 3);
    return b < kBuckets ? b : kBuckets - 1;
  }
  /// Smallest value that falls into bucket b.
  static constexpr std::uint64_t bucket_floor(std::size_t b) {
    if (b < 4) return b;
    const std::size_t top = b / 4 + 1;
    return (std::uint64_t{4} + b % 4) << (top - 2);
  }
  void add(std::uint64_t ns) {
    count(buckets[bucket_of(ns)]);
    count(sum, ns);
    std::uint64_t seen = max.load(std::memory_order_relaxed);
    while (seen < ns && !max.compare_exchange_weak(seen, ns, std::memory_order_relaxed)) {
    }
  }
};

struct VmCounters {
  // Faults
  Counter vm_faults;          // all
  Counter zfod;               // zero-fill faults
  Counter zfod_pages;         // pages zero-filled, with the neighbours filled in the same fault
  Counter ozfod;              // pages of them that had been zeroed before
  Counter prezeroed;          // frames zeroed in idle time
  Counter cow_faults;         // copied
  Counter cow_optim;          // moved instead of copied
  Counter io_faults;          // needed a page-in
  Counter soft_faults;        // page was resident, only the mapping was missing
  Counter reactivated;        // page was resident on inactive, laundry or cache
  Counter intrans;            // waited for a busy page
  Counter fault_restarts;     // dropped everything and started over
  Counter fault_errors;       // ended in a signal or an error
  Counter prefaulted;         // neighbours mapped in the same fault
  Counter prefaulted_at_map;  // pages mapped when their object was mapped
  Counter precopied;          // pages copied (or zero-filled) before a fault asked for them
  Counter precopy_used;       // of those, written afterwards
  Counter precopy_vain;       // of those, gone or forked again without a write
  // Paging; swap*, vnode* and io_errors are counted by the pager that does it
  Counter swapin;           // page-in operations
  Counter swappgsin;        // pages brought in
  Counter swapout;          // page-out operations
  Counter swappgsout;       // pages written
  Counter swap_clean;       // pages laundered without a write: the swap copy was still equal
  Counter swap_behind;      // write operations that went on after the page-out
  Counter swap_unread;      // pages brought back from such a write before it had ended
  Counter vnodein;          // reads of files
  Counter vnodepgsin;       // pages read from files
  Counter vnodeout;         // writes to files
  Counter vnodepgsout;      // pages written to files
  Counter regrouped;        // pages that gave up their swap copy to be stored beside their neighbours
  Counter readahead_pages;  // pages brought in beside the one that was asked for
  Counter readahead_hits;   // of those, pages that were used before they were reclaimed
  Counter readahead_waste;  // of those, pages that left memory without having been used
  Counter io_errors;
  // Page daemon
  Counter pdwakeups;     // reclaim runs
  Counter pdpages;       // pages looked at
  Counter deactivated;   // active -> inactive
  Counter dfree;         // pages freed by reclaim
  Counter laundered;     // pages cleaned
  Counter pdrefused;     // pages that were busy, wired or pinned
  Counter pdshortfalls;  // reclaim runs that missed their target
  // Choosing pages (docs/mechanisms/choosing-pages.md)
  Counter pdreferenced;  // pages that a scan found used
  Counter pdpasses;      // passes over the inactive queue
  Counter pdtolaundry;   // pages put on the laundry queue
  Counter pdtocache;     // pages put on the cache queue
  Counter pdtwice;       // dirty pages sent round the inactive queue once more
  Counter pdheaded;      // pages put before all others of the inactive queue
  Counter pdrefills;     // cache pages taken because an allocation found too few free ones
  Counter pdbackground;  // pages laundered while nothing waited for them
  Counter pdproactive;   // pages deactivated without a shortage
  Counter pdbehind;      // pages deactivated behind a stream
  Counter pdoomvotes;    // passes that freed nothing
  Counter pdoom;         // allocations that ended without a frame
  // Objects
  Counter object_collapses;       // backing objects merged into their only shadow
  Counter object_bypasses;        // backing objects that a shadow looks past from then on
  Counter object_shadows;         // shadow objects made
  Counter object_collapse_tries;  // times that either was looked into
  Counter object_collapse_moved;  // pages that a collapse moved up
  Counter object_collapse_freed;  // pages that a collapse freed: hidden, or outside what is seen
  Counter dead_pages_reclaimed;   // pages that nobody could reach any more, freed or given another use
  // Frame order (docs/mechanisms/page-colouring.md)
  Counter colour_hits;             // frames of the wanted colour
  Counter colour_misses;           // ... of another, because there was none
  Counter reservations_made;       // blocks reserved
  Counter reservations_full;       // times that one became fully used: a superpage
  Counter reservations_broken;     // ended with pages in it
  Counter reservations_reclaimed;  // ... because frames were short
  Counter reservations_moved;      // changed their object with their pages
  // Maps: what the index did, and the lookups that the hint before it did not answer
  Counter map_lookups;      // lookups by the index
  Counter map_nodes;        // nodes (entries, in a binary tree or list) that they looked at
  Counter map_inserts;      // entries put in
  Counter map_erases;       // entries taken out
  Counter map_rotations;    // of AVL, red-black and splay trees
  Counter map_node_splits;  // of the B-tree
  Counter map_node_merges;
  Counter map_settles;  // splays on behalf of a lookup that had gone too deep
  // Levels (not sums)
  Counter granted;         // level: frames the machine granted
  Counter free_count;      // level
  Counter active_count;    // level
  Counter inactive_count;  // level
  Counter laundry_count;   // level
  Counter cache_count;     // level
  Counter wire_count;      // level
  Counter dead_pages;      // level: pages of objects that nobody can reach, when last counted
  Counter peak_resident;   // level: largest number of frames in use
  Counter metadata_bytes;  // level: bytes of the engine's arena in use
  TimeHistogram fault_time;
};

/// Name and place of one counter, for exporters and for adding sets up.
struct CounterInfo {
  const char* name;
  Counter VmCounters::*field;
  bool level;
};
/// All counters of VmCounters but the histogram, in the order above.
extern const CounterInfo kCounterInfo[];
extern const std::size_t kCounterInfoCount;

}  // namespace enchilada
