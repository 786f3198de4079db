// SwapPager: the pager of anonymous memory. Pages go to swap in clusters and come back in clusters.
//
// put: each page is copied to a bounce buffer, hashed (XXH3, 128 bits, secret from a random seed) and
// compared with its existing copy: equal => kClean without I/O; all zeros => a marker without a block; else
// NEW contiguous blocks, one write per run, and only then the metadata changes and the old blocks are
// released. Old blocks are never overwritten: a forked sibling may still read them. Where the device can, it
// goes on writing when put is over (swap_pager_bounce.h). get: one read per run of
// contiguous blocks, fingerprints verified. Invariants: a page's copy, if it has one, is what was put last
// and succeeded; a failed put leaves no copy (the frame holds the truth); blocks that this process references
// = blocks in its metadata, except inside put_pages and where one was given up while it was written; no lock
// is held across I/O; nothing is allocated after construction; async-signal-safe. Locks: meta_lock_ (rank
// kSwapSpace), under it the swap space's own (a leaf). Bounce buffers are waited for with no lock held.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "base/arena.h"
#include "base/mutex.h"
#include "swap/swap_device.h"
#include "swap/swap_marks.h"
#include "swap/swap_meta.h"
#include "swap/swap_space.h"
#include "vm/phys.h"
#include "vm/vm_meter.h"
#include "vm/vm_pager.h"

namespace enchilada {

/// A page whose copy cannot be given back.
struct SwapDamage {
  enum class Kind : std::uint8_t { kReadFailed, kFingerprint };
  Kind kind;
  PageIndex index;
  SwapBlock block;
};

struct SwapPagerConfig {
  SwapSpace& space;  // this process's view; the pager calls set_self on it after a fork
  unsigned holder;
  std::span<SwapDevice* const> devices;  // one per slot of the space's geometry; null where the slot is empty
  PhysicalMemory& phys;
  VmCounters& counters;
  Arena& arena;
  std::uint64_t seed;           // random; equal in all processes that share copies by fork
  unsigned bounce_buffers = 6;  // at most 32; all but two may be written behind
  std::size_t metadata_bytes =
      0;  // address space for metadata; 0 = by the space's size, at most a quarter of the arena
  SwapMetaMode meta_mode = SwapMetaMode::kTrie;
  void (*on_damage)(void* context,
                    const SwapDamage&) = nullptr;  // told in the faulting thread, maybe in a handler
  void* on_damage_context = nullptr;
};

/// What VmCounters has no name for.
struct SwapPagerStats {
  Counter zero_puts;        // pages stored as "all zeros"
  Counter zero_gets;        // pages brought back from that
  Counter fingerprint_bad;  // pages read that were not what had been written
  Counter no_space;         // pages refused because swap was full
  Counter no_metadata;      // pages refused because metadata was used up
  Counter bounce_waits;     // times that all bounce buffers were busy
  Counter write_errors;     // writes that failed
  Counter read_errors;
  Counter evacuated;  // pages that moved to another device, because theirs was to go
};

enum class [[nodiscard]] EvacuateResult : std::uint8_t{
    kDone,    // no copy of this object is there any more
    kNoRoom,  // other devices are full
    kError,   // a page cannot be read, or not be written elsewhere; its copy stays
};

class SwapPager final : public Pager {
 public:
  static constexpr std::size_t kClusterPages = 64;  // of one bounce buffer, so of one I/O

  static constexpr std::uint32_t kBuffersBehind = 2;  // written behind at a time, at most

  explicit SwapPager(const SwapPagerConfig& config);
  ~SwapPager() override { finish_writes(); }
  SwapPager(const SwapPager&) = delete;
  SwapPager& operator=(const SwapPager&) = delete;

  /// False when the arena was too small for the bounce buffers or any metadata; then every put answers kFail.
  [[nodiscard]] bool ready() const { return buffer_count_ > 0 && meta_.max_entries() >= 2; }

  [[nodiscard]] PagerRun has_page(const PagerHandle& handle, PageIndex index, PageCount max_before,
                                  PageCount max_after) override;
  PagerReturn get_pages(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames) override;
  PagerReturn get_pages_while(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames,
                              FunctionRef<void()> work) override;
  void put(std::span<PutRequest> requests) override;
  [[nodiscard]] bool put_would_wait() override;
  void evicting(std::span<PutRequest> requests) override;
  void forget(PagerHandle& handle, PageIndex first, PageCount count) override;
  void forget_all(PagerHandle& handle) override;
  void transfer(PagerHandle& source, PageIndex offset, PageCount size, PagerHandle& dest) override;
  void split(PagerHandle& source, PageIndex first, PageCount count, PagerHandle& dest) override;
  [[nodiscard]] bool find_least(const PagerHandle& handle, PageIndex from, PageIndex* found) override;
  [[nodiscard]] bool nearly_full() const override;

  /// Waits for what is written behind; before the space clones this holder, too, so that the child has little
  /// to write again.
  void finish_writes();
  /// Blocks that were given up while they were written, and are released when that is over.
  [[nodiscard]] PageCount given_up() const;

  /// Process fork, in this order: quiesce_for_fork (waits for I/O in flight, then holds the pager still),
  /// then SwapSpace::clone_holder(parent, child), the fork, and in the parent resume_after_fork, in the child
  /// on_process_fork_child. A child of a fork that was not quiesced may call on_process_fork_child too, if no
  /// other thread was inside the pager.
  void quiesce_for_fork();
  void resume_after_fork();
  void on_process_fork_child(unsigned new_holder);

  /// Devices that come and go; the walk over all objects is swapoff's (swapoff.h). A device in an empty slot
  /// of the space: false when the slot is not empty, or has no numbers for so many blocks.
  [[nodiscard]] bool add_device(unsigned slot, SwapDevice& device);
  /// Moves the object's copies on a device that is closing (SwapSpace::begin_close) to others. The object
  /// cannot go away meanwhile (paging in progress); everything else may go on.
  EvacuateResult evacuate(PagerHandle& handle, unsigned device);
  /// The object's first page from `from` on with a copy on this device; false: none.
  [[nodiscard]] bool find_on_device(const PagerHandle& handle, unsigned device, PageIndex from,
                                    PageIndex* found);
  /// The end of a closing device of which no block is in use; false: some is. Afterwards nobody uses it.
  [[nodiscard]] bool remove_device(unsigned slot);
  [[nodiscard]] SwapSpace& space() const { return space_; }
  [[nodiscard]] const SwapMarks& marks() const { return marks_; }

  [[nodiscard]] const SwapPagerStats& stats() const { return stats_; }
  /// Of the metadata; entries() says how much of what was set aside for them is in use.
  [[nodiscard]] const SwapMetaStats& meta_stats() const { return meta_.stats(); }
  [[nodiscard]] std::uint64_t meta_entries() const;
  [[nodiscard]] std::uint64_t max_meta_entries() const { return meta_.max_entries(); }
  [[nodiscard]] unsigned holder() const { return holder_; }
  /// Calls use(index, copy) for each copy of an object: for validation. Under the lock.
  void visit(const PagerHandle& handle, FunctionRef<bool(PageIndex, const SwapCopy&)> use);
  /// Shape of one object's metadata, and that the space agrees that this process holds its blocks.
  [[nodiscard]] bool verify(const PagerHandle& handle);

 private:
  struct Bounce;      // a buffer and the state of the one operation that uses it
  class BounceLease;  // holds a Bounce for a scope
  class PutCluster;   // one put of up to kClusterPages
  class GetCluster;
  class MoveCluster;
  class Releaser;  // gathers blocks into runs and releases them

  [[nodiscard]] Bounce* behind_with(SwapBlock block, std::size_t* slot) const REQUIRES_SHARED(meta_lock_);
  template <class Use>
  void for_each_behind(Use use);
  void settle_writes();
  void await(Bounce& bounce);
  [[nodiscard]] bool settle(Bounce& bounce);
  [[nodiscard]] bool wanted(const Bounce& bounce, std::size_t slot, PageCount n) const;
  [[nodiscard]] bool claim_behind();
  [[nodiscard]] std::uint32_t most_behind() const;
  [[nodiscard]] bool try_claim_behind();
  void unclaim_behind();
  void forget_writes_after_fork();
  [[nodiscard]] std::uint32_t usable_buffers() const;
  [[nodiscard]] bool take_buffer(unsigned i);
  void count_failed_write(IoResult result, PageCount pages);
  [[nodiscard]] Fingerprint fingerprint(const std::byte* page) const;
  void await_operations();
  [[nodiscard]] Bounce& acquire_bounce();
  void release_bounce(Bounce& bounce);
  void take_buffers(Arena& arena, unsigned wanted);
  [[nodiscard]] SwapDevice* device_of(SwapBlock block, std::uint64_t* device_block) const;
  [[nodiscard]] bool follows(SwapBlock a, SwapBlock b) const;
  PagerReturn get(PagerHandle& handle, PageIndex first, std::span<const FrameNumber> frames,
                  const FunctionRef<void()>* work);
  [[nodiscard]] SwapDevice* cache_of(const PutRequest& page, std::uint64_t* block) const
      REQUIRES_SHARED(meta_lock_);
  void damaged(SwapDamage::Kind kind, PageIndex index, SwapBlock block);
  void add_pages(PagerHandle& handle, std::int64_t change) REQUIRES(meta_lock_);
  void forget_range(PagerHandle& handle, PageIndex first, PageIndex last) REQUIRES(meta_lock_);
  void move_range(PagerHandle& source, PageIndex first, PageIndex last, PagerHandle& dest, Releaser& releaser)
      REQUIRES(meta_lock_);
  [[nodiscard]] PageCount run_before(const PagerHandle& handle, PageIndex index, SwapBlock block,
                                     PageCount max) REQUIRES_SHARED(meta_lock_);
  [[nodiscard]] PageCount run_after(const PagerHandle& handle, PageIndex index, SwapBlock block,
                                    PageCount max) REQUIRES_SHARED(meta_lock_);

  SwapSpace& space_;
  unsigned holder_;
  std::array<std::atomic<SwapDevice*>, SwapGeometry::kMaxDevices> devices_{};
  SwapGeometry geometry_;
  std::atomic<bool> caches_{false};  // some device does
  PhysicalMemory& phys_;
  VmCounters& counters_;
  void (*on_damage_)(void*, const SwapDamage&);
  void* on_damage_context_;
  alignas(64) std::array<std::byte, 192> secret_{};  // XXH3's secret, made from the seed
  SwapPagerStats stats_{};

  mutable SharedMutex meta_lock_{LockRank::kSwapSpace};
  SwapMeta meta_;

  Bounce* buffers_ = nullptr;
  unsigned buffer_count_ = 0;
  std::atomic<std::uint32_t> free_buffers_{0};  // bit i: buffer i is free; waiters sleep on the word
  std::atomic<std::uint32_t> buffer_waiters_{0};
  std::atomic<std::uint32_t> behind_claims_{0};  // operations and buffers that count towards the limit
  std::atomic<std::uint32_t> behind_{0};  // bit i: buffer i is written behind; changes under meta_lock_
  bool quiesced_ = false;
  mutable SwapMarks marks_;
};

}  // namespace enchilada
