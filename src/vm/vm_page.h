// Page: what the engine knows about one frame. One per frame, in an array in the arena, index = frame number.
//
// Invariants: zeroed memory is a valid Page of a frame that was never granted. object and pindex change only
// with the object's lock held exclusively *and* the page exclusively busy, so either of the two makes them
// stable. A page is in exactly one place: a free list, one paging queue, or none (wired, or busy and owned by
// a fault or the page daemon).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;

/// Where a page is. kLimbo: dead, but the machine still pins it; freed as soon as it lets go.
enum class PageQueue : std::uint8_t { kNone, kFree, kActive, kInactive, kLaundry, kCache, kLimbo };
inline constexpr std::size_t kPageQueues = 7;

/// Page-use history (freebsd-vm.md §1.8, FreeBSD's ACT_*).
inline constexpr unsigned kActInit = 5;
inline constexpr unsigned kActAdvance = 3;
inline constexpr unsigned kActDecline = 1;
inline constexpr unsigned kActMax = 64;

struct alignas(16) Page {
  // --- Busy word: bit 31 exclusive, bit 30 somebody sleeps, low bits shared holders. Try, sleep, look up
  // again.
  static constexpr std::uint32_t kExclusive = 1u << 31;
  static constexpr std::uint32_t kSleepers = 1u << 30;
  static constexpr std::uint32_t kSharers = kSleepers - 1;

  /// Takes the page exclusively; never sleeps.
  [[nodiscard]] bool try_busy() {
    std::uint32_t idle = 0;
    return busy.compare_exchange_strong(idle, kExclusive, std::memory_order_acquire);
  }
  /// Takes the page shared; never sleeps.
  [[nodiscard]] bool try_share();
  void unbusy();
  void unshare();
  /// Sleeps until the page is (probably) not busy. The caller holds nothing and must look the page up again.
  void wait_not_busy();
  [[nodiscard]] bool is_busy() const { return (busy.load(std::memory_order_relaxed) & ~kSleepers) != 0; }
  [[nodiscard]] bool is_exclusive() const { return (busy.load(std::memory_order_relaxed) & kExclusive) != 0; }

  // --- Packed state: bits 0-3 queue (changed under the queue or free-list lock), 4-11 act_count, 12
  // REFERENCED.
  static constexpr std::uint32_t kQueueMask = 0xf;
  static constexpr unsigned kActShift = 4;
  static constexpr std::uint32_t kActMask = 0xff << kActShift;
  static constexpr std::uint32_t kReferenced = 1u << 12;

  [[nodiscard]] PageQueue queue() const {
    return static_cast<PageQueue>(state.load(std::memory_order_relaxed) & kQueueMask);
  }
  void set_queue(PageQueue q) { replace_state(kQueueMask, static_cast<std::uint32_t>(q)); }
  [[nodiscard]] unsigned act_count() const {
    return (state.load(std::memory_order_relaxed) & kActMask) >> kActShift;
  }
  void set_act_count(unsigned n) { replace_state(kActMask, (n < kActMax ? n : kActMax) << kActShift); }
  void set_referenced() { state.fetch_or(kReferenced, std::memory_order_relaxed); }
  [[nodiscard]] bool referenced() const { return (state.load(std::memory_order_relaxed) & kReferenced) != 0; }
  [[nodiscard]] bool take_referenced() {
    return referenced() && (state.fetch_and(~kReferenced, std::memory_order_relaxed) & kReferenced) != 0;
  }
  /// Counts `references` seen since the last look: up by kActAdvance plus their number, or down by
  /// kActDecline.
  void age(unsigned references);

  // --- Flags.
  static constexpr std::uint8_t kMapped =
      1;  // entered since the last remove_all(): clear = surely not mapped
  static constexpr std::uint8_t kReadAhead = 2;  // brought in unasked and not used yet
  static constexpr std::uint8_t kWentRound = 4;  // dirty, once round the inactive queue (FreeBSD's WINATCFLS)
  static constexpr std::uint8_t kZeroed = 16;    // reads as zeros: free, or just taken for a zero-fill
  static constexpr std::uint8_t kPrecopied = 32;  // copied before a fault asked for it, and not written yet
  [[nodiscard]] bool has(std::uint8_t flag) const {
    return (flags.load(std::memory_order_relaxed) & flag) != 0;
  }
  void set(std::uint8_t flag) { flags.fetch_or(flag, std::memory_order_relaxed); }
  /// The busy holder is about to map it. Seldom news, and then there is nothing to write.
  void set_mapped() {
    if (!has(kMapped)) set(kMapped);
  }
  void clear(std::uint8_t flag) {
    flags.fetch_and(static_cast<std::uint8_t>(~flag), std::memory_order_relaxed);
  }

  [[nodiscard]] bool is_dirty() const { return dirty.load(std::memory_order_acquire) != 0; }
  void set_dirty(bool d) { dirty.store(d ? 1 : 0, std::memory_order_release); }
  [[nodiscard]] bool is_valid() const { return valid.load(std::memory_order_acquire) != 0; }
  void set_valid(bool v) { valid.store(v ? 1 : 0, std::memory_order_release); }
  [[nodiscard]] bool is_wired() const { return wire_count.load(std::memory_order_relaxed) != 0; }

  // What a fault on a resident page looks at comes first: 16 bytes that lie in one cache line wherever in the
  // array the page is.
  std::atomic<std::uint32_t> busy{0};
  std::atomic<std::uint32_t> state{0};
  std::atomic<std::uint32_t> wire_count{0};  // changed under page busy or the object's lock
  std::atomic<std::uint8_t> dirty{0};  // modified as far as the engine was told; a mapping may know more
  std::atomic<std::uint8_t> valid{0};  // contents are good; changed by the busy holder
  std::atomic<std::uint8_t> flags{0};
  std::uint8_t read_stamp = 0;  // kReadAhead: when it was read (NeighbourGuess); the busy holder's
  VmObject* object = nullptr;
  PageIndex pindex;
  std::uint32_t next = 0;  // list links, frame numbers: free list or paging queue
  std::uint32_t prev = 0;
  std::uint8_t order = 0;  // free: log2 of the block that starts here, or kNotHead (free-list lock)

  static constexpr std::uint8_t kNotHead = 0xff;

 private:
  void replace_state(std::uint32_t mask, std::uint32_t bits) {
    std::uint32_t old = state.load(std::memory_order_relaxed);
    while (!state.compare_exchange_weak(old, (old & ~mask) | bits, std::memory_order_relaxed)) {
    }
  }
};
static_assert(sizeof(Page) == 48 && offsetof(Page, object) == 16);

}  // namespace enchilada
