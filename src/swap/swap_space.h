// SwapSpace: the linear block space of swap, shared by the processes ("holders") of one tree.
//
// It lives in memory that they share; an object of this class is one process's view of it. Ground truth is
// one bitmap per holder: the blocks that this process references. The 16-bit reference counts and the
// allocator (swap_allocator.h; which one is decided when the space is made) are derived from the bitmaps and
// rebuilt from them when a process died inside the lock. An allocator that loses blocks is made anew from the
// counts when it has nothing else left. Invariants: count[b] = number of holders whose bitmap has b; b is
// free in the allocator iff it is usable (its device is there and not closing), has
// count 0, and is none of those that the allocator lost; each
// operation changes only bitmaps of its own holder, of a child that does not run yet, or of a dead one, so a
// kill -9 at any instruction plus drop_holder() leaks nothing and frees nothing that is referenced.
// Devices come and go (swapon, swapoff): one that is closing has no free blocks, and what is given up there
// stays out of the allocator; its users must bring themselves into safety (swapoff.h).
// Memory of bitmaps and counts is touched lazily (a summary bit per 32768 blocks says where anything may be).
// Lock: one RobustMutex, a leaf. No allocation, async-signal-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/units.h"
#include "swap/swap_allocator.h"
#include "swap/swap_geometry.h"

namespace enchilada {

class SwapSpace {
 public:
  static constexpr unsigned kMaxHolders = 256;
  static constexpr unsigned kSupervisor =
      kMaxHolders;  // a process that drops the dead and holds nothing itself

  /// Does the process in this holder slot (or kSupervisor) still live? Asked only while waiting for the lock.
  /// A slot must not look alive again for a new process before drop_holder() of the old one.
  struct Liveness {
    bool (*alive)(void* context, unsigned holder) = nullptr;  // null = all live
    void* context = nullptr;
  };

  [[nodiscard]] static std::size_t required_bytes(const SwapGeometry& geometry,
                                                  SwapAllocatorMode mode = SwapAllocatorMode::kBlist);
  /// Formats zeroed storage, aligned to a page. False when the geometry is not valid or the storage too
  /// small.
  [[nodiscard]] static bool create(std::span<std::byte> storage, const SwapGeometry& geometry,
                                   SwapAllocatorMode mode = SwapAllocatorMode::kBlist);
  /// This process's view; `self` is its holder slot (or kSupervisor) and signs the lock.
  [[nodiscard]] static std::optional<SwapSpace> attach(std::span<std::byte> storage, unsigned self,
                                                       Liveness alive);
  /// In the child of a process fork: it signs with its own slot from now on.
  void set_self(unsigned holder) { self_ = holder; }

  /// As many contiguous blocks as the allocator finds, up to `max`, in one stripe, referenced by `holder`;
  /// empty when the space is full. (Blist finds the most that there are anywhere.) Of equally long runs one
  /// that was in use before is preferred.
  [[nodiscard]] BlockRun allocate(unsigned holder, PageCount max);
  /// One more reference to blocks that somebody else references already.
  void reference(unsigned holder, BlockRun run);
  /// Gives the holder's reference up; blocks that nobody references any more become free.
  void release(unsigned holder, BlockRun run);
  /// Process fork: `to` gets a reference to all that `from` references. `to` must hold nothing. Called by the
  /// parent before it forks; if the fork then fails or the child dies, drop_holder(to).
  void clone_holder(unsigned from, unsigned to);
  /// Gives up all that the holder references, because the process ended. Must come before the slot is used
  /// again.
  void drop_holder(unsigned holder);

  /// A device of `pages` blocks comes. False: the slot is not empty, or has no numbers for so many.
  [[nodiscard]] bool open_device(unsigned device, PageCount pages);
  /// From now on no block of this device is given to anybody. False: it is not there, or closing already.
  [[nodiscard]] bool begin_close(unsigned device);
  /// It stays after all.
  void cancel_close(unsigned device);
  /// It is gone, if nobody references any of its blocks; false: somebody does.
  [[nodiscard]] bool finish_close(unsigned device);
  /// Blocks of this device that somebody references. Slow.
  [[nodiscard]] PageCount used_on(unsigned device) const;
  [[nodiscard]] bool closing(unsigned device) const;
  /// Its blocks; 0: there is none.
  [[nodiscard]] PageCount device_pages(unsigned device) const;

  [[nodiscard]] PageCount used() const;       // blocks that somebody references; a glance, no lock
  [[nodiscard]] PageCount capacity() const;   // usable blocks, holes and closing devices not counted
  [[nodiscard]] PageCount available() const;  // blocks that the allocator has; a glance
  [[nodiscard]] PageCount lost() const;       // blocks that the allocator has no track of at present
  [[nodiscard]] PageCount peak() const;
  [[nodiscard]] std::uint64_t rebuilds() const;  // times that the lock was inherited from a dead process
  [[nodiscard]] std::uint64_t recounts() const;  // times that the allocator was made anew to find lost blocks
  [[nodiscard]] std::uint64_t nodeless() const;  // times that blocks were lost for want of a list's node
  /// As it was when the space was made: where a block lies, not which devices are there.
  [[nodiscard]] SwapGeometry geometry() const;
  [[nodiscard]] SwapAllocatorMode allocator_mode() const;

  [[nodiscard]] unsigned count_of(SwapBlock block) const;
  [[nodiscard]] bool holds(unsigned holder, SwapBlock block) const;
  /// All invariants above, the slow way. For tests and validation.
  [[nodiscard]] bool verify() const;

 private:
  struct Header;
  struct Tally;
  class Section;  // the lock, and the repair when it was inherited

  SwapSpace(Header* header, unsigned self, Liveness alive);
  [[nodiscard]] std::byte* at(std::uint64_t offset) const;
  [[nodiscard]] std::uint16_t* counts() const;
  [[nodiscard]] std::uint64_t* touched() const;                 // chunks whose counts were ever used
  [[nodiscard]] std::uint64_t* summary(unsigned holder) const;  // chunks in which the holder may have blocks
  [[nodiscard]] std::uint64_t* bitmap(unsigned holder) const;

  template <class Use>
  void for_each_chunk(const std::uint64_t* chunks, Use use) const;
  template <class Use>
  void for_each_word(unsigned holder, Use use) const;

  [[nodiscard]] BlockRun take(PageCount max);
  void mark(unsigned holder, BlockRun run);
  void unmark(unsigned holder, BlockRun run);
  void add_counts(BlockRun run);
  void drop_counts(BlockRun run);
  void fill_holes();
  [[nodiscard]] bool is_closing(std::uint64_t block) const;
  [[nodiscard]] std::uint64_t open_pages(unsigned device) const;
  void count_capacity();
  void give_back(BlockRun run);
  template <class Use>
  void for_each_stripe(unsigned device, std::uint64_t from, std::uint64_t to, Use use) const;
  void rebuild();
  void make_allocator_anew();
  void fill_referenced(std::uint64_t chunk);
  void publish_usage();
  [[nodiscard]] bool free_is_unused() const;
  [[nodiscard]] bool verify_counts(std::uint64_t chunk) const;
  [[nodiscard]] std::uint16_t counted(std::uint64_t block) const;
  [[nodiscard]] Tally count_blocks() const;

  Header* header_;
  SwapAllocator allocator_;
  unsigned self_;
  Liveness alive_;
};

}  // namespace enchilada
