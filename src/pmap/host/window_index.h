// WindowIndex: which frame is at which window page: the reverse of FrameTable, and the lock of each window
// page.
//
// One 32-bit slot a window page in an untouched NORESERVE mapping (costs memory only where the window is
// used), and one bit per 512 pages that says "something may be mapped there", so that removing a sparse
// terabyte is a short scan; and one bit per 64 of those that says "this word was ever used", so that the scan
// of the whole window that each forked child does (1 MiB of words, mostly never touched) is short, too.
// Invariants: slot = frame + 1, or 0; bit 31 = locked. A block's bit is set whenever one of its slots is
// not zero and not being filled just now: set after the slot is locked, cleared before the slots are
// scanned (see clear_block). A word's bit is set before the first bit of the word, and stays.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/units.h"

namespace enchilada {

class WindowIndex {
 public:
  static constexpr std::uint32_t kLocked = 1u << 31;
  static constexpr std::uint32_t kEmpty = 0;
  static constexpr std::uint64_t kBlockPages = 512;

  /// Words of a bitmap with a bit for each of `n`.
  [[nodiscard]] static constexpr std::uint64_t words_for(std::uint64_t n) { return (n + 63) / 64; }
  /// Bits of the two bitmaps of a window.
  [[nodiscard]] static constexpr std::uint64_t blocks_of(std::uint64_t pages) {
    return (pages + kBlockPages - 1) / kBlockPages;
  }
  /// Zeroed memory: one slot a page, one bit a block, one bit a word of those.
  WindowIndex(std::atomic<std::uint32_t>* slots, std::atomic<std::uint64_t>* blocks,
              std::atomic<std::uint64_t>* used_words, std::uint64_t pages)
      : slots_(slots), blocks_(blocks), used_words_(used_words), pages_(pages) {}

  [[nodiscard]] static std::uint32_t slot_of(FrameNumber f) { return f.value() + 1; }
  [[nodiscard]] static FrameNumber frame_of(std::uint32_t slot) { return FrameNumber{(slot & ~kLocked) - 1}; }
  [[nodiscard]] std::uint64_t pages() const { return pages_; }

  /// As it is, lock bit included.
  [[nodiscard]] std::uint32_t peek(std::uint64_t page) const {
    return slots_[page].load(std::memory_order_seq_cst);
  }
  /// Waits until it is not locked.
  [[nodiscard]] std::uint32_t settled(std::uint64_t page) const noexcept;
  /// Locks the page whatever is in it; returns what is in it. Waits.
  std::uint32_t lock(std::uint64_t page) noexcept;
  /// Locks the page if `expected` is in it and it is free.
  [[nodiscard]] bool try_lock_if(std::uint64_t page, std::uint32_t expected) {
    std::uint32_t value = expected;
    return slots_[page].compare_exchange_strong(value, expected | kLocked, std::memory_order_seq_cst);
  }
  /// Changes the content, keeping the lock.
  void set_locked(std::uint64_t page, std::uint32_t content) {
    slots_[page].store(content | kLocked, std::memory_order_relaxed);
  }
  /// What a page locked by the caller holds.
  [[nodiscard]] std::uint32_t content(std::uint64_t page) const {
    return slots_[page].load(std::memory_order_relaxed) & ~kLocked;
  }
  void unlock(std::uint64_t page) { slots_[page].store(content(page), std::memory_order_seq_cst); }

  /// Call with a slot of the block locked and about to be filled.
  void mark_block(std::uint64_t page) {
    const std::uint64_t block = page / kBlockPages;
    const std::uint64_t bit = std::uint64_t{1} << (block & 63);
    if ((blocks_[block >> 6].load(std::memory_order_seq_cst) & bit) == 0) {
      used_words_[block >> 12].fetch_or(std::uint64_t{1} << (block >> 6 & 63), std::memory_order_seq_cst);
      blocks_[block >> 6].fetch_or(bit, std::memory_order_seq_cst);
    }
  }
  /// Call before scanning (and emptying) all slots of the block. A slot that is being filled meanwhile is
  /// locked, so the scan waits for it, or is locked after the scan passed, and then marks the block again.
  void clear_block(std::uint64_t block) {
    blocks_[block >> 6].fetch_and(~(std::uint64_t{1} << (block & 63)), std::memory_order_seq_cst);
  }
  /// The first block >= `block` that may have mappings, or `end` (both block numbers).
  [[nodiscard]] std::uint64_t next_block(std::uint64_t block, std::uint64_t end) const noexcept;

 private:
  std::atomic<std::uint32_t>* slots_;
  std::atomic<std::uint64_t>* blocks_;
  std::atomic<std::uint64_t>* used_words_;
  std::uint64_t pages_;
};

}  // namespace enchilada
