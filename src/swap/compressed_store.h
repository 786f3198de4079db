// CompressedStore: packed pages in a ring of memory that the processes ("holders") of one tree share.
//
// A page's bytes are appended at the head; whoever needs room takes the oldest from the tail (drain): what
// was used since goes round once more (second chance), what a device has too, or nobody wants, is forgotten,
// and the rest is written to its place on a device. A page is named by its number. A word per number says
// where its entry is, 0 = not here, so the device has it. Invariants: an entry's bytes never change while it
// lies between tail and head; a number's word is set last on the way in, and cleared on the way out only when
// the device has the page: a kill -9 at any instruction loses nothing. Only who holds the drain lock moves
// the tail, and so may read entries there at leisure. After drop() of a number has returned, nobody writes
// that page to a device until it is put again. Locks: the drain lock, under it the ring's (a leaf); both
// robust. No allocation, async-signal-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/function_ref.h"
#include "base/robust_mutex.h"
#include "base/units.h"

namespace enchilada {

/// Number of a page in a CompressedStore.
using PackedNumber = Unit<struct PackedNumberTag, std::uint32_t>;

class CompressedStore {
 public:
  /// Pages that one drain() takes out at most.
  static constexpr std::size_t kDrainPages = 64;
  /// The smallest ring: any page fits that shrinks at all.
  static constexpr ByteCount kSmallest{kPageSize};

  /// Does the process in this holder slot still live? Asked only while waiting for a lock. Null = all live.
  struct Liveness {
    bool (*alive)(void* context, unsigned holder) = nullptr;
    void* context = nullptr;
  };
  /// An entry at the tail.
  struct Aged {
    PackedNumber number;
    std::span<const std::byte> packed;
  };
  struct Stats {
    std::uint64_t pages = 0;    // entries, those included that nobody wants any more
    std::uint64_t bytes = 0;    // of the ring in use
    std::uint64_t touched = 0;  // bytes of the ring that cost memory
    std::uint64_t put = 0;      // since creation: pages put
    std::uint64_t packed = 0;   // bytes that these took
    std::uint64_t got = 0;      // pages read
    std::uint64_t moved = 0;    // to a device
    std::uint64_t left = 0;     // forgotten at the tail: the device had them
    std::uint64_t stale = 0;    // found unwanted at the tail
    std::uint64_t rounds = 0;   // second chances
  };

  [[nodiscard]] static std::size_t required_bytes(ByteCount ring, PageCount numbers);
  /// Formats zeroed storage, aligned to a page. False when it is too small or the sizes make no sense.
  [[nodiscard]] static bool create(std::span<std::byte> storage, ByteCount ring, PageCount numbers);
  /// This process's view; `self` is its holder slot and signs the locks.
  [[nodiscard]] static std::optional<CompressedStore> attach(std::span<std::byte> storage, unsigned self,
                                                             Liveness alive);
  /// In the child of a process fork.
  void set_self(unsigned holder) { self_ = holder; }
  /// Takes the locks away from a holder whose process is dead. Must come before the slot is used again.
  void drop_holder(unsigned holder);

  /// The page is `packed` from now on; `backed`: the device has the same. False: no room; nothing was
  /// changed.
  [[nodiscard]] bool put(PackedNumber number, std::span<const std::byte> packed, bool backed);
  /// The page was used: it goes round once more. False: it is not here.
  bool touch(PackedNumber number);
  /// What the ring has of this page is not wanted any more: it will be on the device. Waits for a drain that
  /// is just writing it.
  void drop(PackedNumber number);
  /// Calls use() with the page's bytes, under the ring's lock. False: it is not here.
  [[nodiscard]] bool get(PackedNumber number, FunctionRef<void(std::span<const std::byte>)> use);
  /// Is it here? A glance.
  [[nodiscard]] bool has(PackedNumber number) const;

  /// Makes room at the tail. Up to kDrainPages entries that only the ring has, and that wanted() does not
  /// disown, are given to write(), which answers whether they are safely elsewhere now. Both are called with
  /// the drain lock held. False: they are not, and no room was made.
  [[nodiscard]] bool drain(FunctionRef<bool(PackedNumber)> wanted,
                           FunctionRef<bool(std::span<const Aged>)> write);

  /// Is there room for a few dozen pages no more? A glance.
  [[nodiscard]] bool full() const;
  [[nodiscard]] ByteCount ring() const;
  [[nodiscard]] Stats stats() const;
  /// All entries and words, the slow way. The store is at rest.
  [[nodiscard]] bool verify() const;

 private:
  struct Header;
  struct Entry;
  struct Batch;
  class Section;  // holds the ring's lock
  class Drain;    // holds the drain lock

  CompressedStore(Header* header, unsigned self, Liveness alive)
      : header_(header), self_(self), alive_(alive) {}
  [[nodiscard]] std::uint32_t* words() const;
  [[nodiscard]] std::byte* at(std::uint64_t position) const;
  [[nodiscard]] Entry* entry(std::uint64_t position) const;
  [[nodiscard]] Entry* used_entry(PackedNumber number);
  [[nodiscard]] std::uint32_t word_of(std::uint64_t position) const;
  [[nodiscard]] bool here(const Entry& entry, std::uint64_t position) const;
  [[nodiscard]] bool being_drained(PackedNumber number) const;
  void collect(Batch& batch, FunctionRef<bool(PackedNumber)> wanted);
  void announce(Batch& batch);
  void settle(const Batch& batch, bool written);
  void forget(PackedNumber number, std::uint64_t position);
  [[nodiscard]] bool append(PackedNumber number, std::span<const std::byte> packed, bool backed,
                            std::uint64_t limit);
  [[nodiscard]] bool go_round(const Entry& entry, std::uint64_t position);
  [[nodiscard]] std::uint64_t reserve() const;
  [[nodiscard]] bool lock_alive(std::uint32_t id) const;

  Header* header_;
  unsigned self_;
  Liveness alive_;
};

}  // namespace enchilada
