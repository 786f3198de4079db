// PageoutOps: what is done to pages on their way out, whatever policy has chosen them: seeing whether they
// are used, unmapping, writing in clusters, freeing. Reference: freebsd-vm.md §1.6, §1.9.
//
// Invariants: nothing is allocated; no lock is held during I/O; pages in I/O are busy, unmapped and on no
// queue, so that eviction is atomic against writers; a page whose write failed stays dirty, in its object, on
// active; a page taken from a queue is busy until it is on a queue again or free. Lock: the daemon's run lock
// unless said otherwise.
#pragma once

#include <array>
#include <memory>
#include <span>

#include "base/function_ref.h"
#include "vm/vm_clean_rule.h"
#include "vm/vm_pager.h"
#include "vm/vm_reference_collector.h"
#include "vm/vm_replacement.h"
#include "vm/vm_system.h"

namespace enchilada {

class VmObject;

class PageoutOps {
 public:
  /// Pages of one write at most.
  static constexpr std::size_t kWrite = 64;

  /// What becomes of a page that has just been written.
  enum class AfterWrite : std::uint8_t {
    kDrop,          // it was chosen to leave: freed or on the cache queue
    kInactiveTail,  // it goes round the inactive queue once more
    kInactiveFirst  // it goes before all others of that queue
  };
  /// Where a page is put that is thought to be of little use.
  enum class Aside : std::uint8_t { kStay, kInactiveTail, kInactiveFirst, kLaundry };

  /// Idle pages from inactive: unmapped, busy, on no queue.
  struct Idle {
    std::array<FrameNumber, PageoutRun::kBatch> clean;
    std::array<FrameNumber, PageoutRun::kBatch> dirty;
    std::size_t clean_n = 0;
    std::size_t dirty_n = 0;
    [[nodiscard]] std::span<const FrameNumber> clean_ones() const { return {clean.data(), clean_n}; }
    [[nodiscard]] std::span<const FrameNumber> dirty_ones() const { return {dirty.data(), dirty_n}; }
  };

  explicit PageoutOps(VmSystem& system);

  [[nodiscard]] VmSystem& system() const { return system_; }
  [[nodiscard]] const ReferenceCollector& collector() const { return *collector_; }
  /// Who is told of pages that leave; set once.
  void set_policy(ReplacementPolicy& policy) { policy_ = &policy; }

  // --- Single pages, busy.
  /// Uses since the last look.
  [[nodiscard]] unsigned references(Page& page, FrameNumber frame);
  /// A page on no queue turned out to be in use: back to active, not busy any more.
  void reactivate(FrameNumber frame, unsigned refs);

  // --- Batches of at most 64, busy, on no queue.
  /// Removes all mappings. Pinned ones count as used and leave the batch; returns what remains, in order.
  std::size_t unmap(std::span<FrameNumber> frames, std::size_t n);
  /// Clean and unmapped: freed, or on the cache queue, as the engine's mode says.
  void drop_clean(std::span<const FrameNumber> frames, PageoutRun& run);
  /// Puts them at a queue's tail and lets go of them.
  void put(std::span<const FrameNumber> frames, PageQueue to);
  /// Pages that are suspected of being idle (victims[0, n)): unmapped, with neighbours whose count is at most
  /// `idle_enough`, where only that shows whether they are used. Returns how many there are now.
  std::size_t withdraw(std::span<FrameNumber> victims, std::size_t n, unsigned idle_enough);
  /// Swap is short: pages that stay in memory need no copy there. They are dirty then, whatever they were.
  void forget_copies(std::span<const FrameNumber> frames);

  // --- Queues.
  /// Takes a batch from the head of inactive; what is used goes back to active.
  void take_idle(PageoutRun& run, Idle* idle);
  /// Frees up to `most` pages of the cache queue.
  void free_cache(PageoutRun& run, std::uint64_t most);
  /// Frees what the machine has let go of meanwhile.
  void free_limbo(PageoutRun& run);
  /// One write's worth of laundry: clusters of neighbours around its oldest pages (at most `heads` of these),
  /// from any objects. Returns pages written.
  std::size_t launder(PageoutRun& run, AfterWrite after, std::size_t heads = kWrite);
  /// A write now would make nobody wait, and is worth while.
  [[nodiscard]] bool worth_laundering(const PageoutRun& run);

  // --- Ranges of objects. The object is referenced and unlocked.
  /// Out at once, whatever queue they are on; best effort.
  void page_out(VmObject& object, PageIndex first, PageCount count, PageoutRun& run);
  /// Moves resident pages that are on a queue, with their use forgotten. Any thread, no lock held. Returns
  /// how many moved.
  std::uint64_t set_aside(VmObject& object, PageIndex first, PageCount count,
                          FunctionRef<Aside(const Page&)> place);

 private:
  struct Batch;
  void tell_leaving(std::span<const FrameNumber> frames);
  std::size_t add_idle_neighbours(std::span<FrameNumber> victims, std::size_t n, unsigned idle_enough);
  void gather(Batch& batch, FrameNumber head);
  void gather_any(Batch& batch, VmObject& object, PageIndex* at, PageIndex end);
  void gather_queued(Batch& batch, VmObject& object, PageIndex* at, PageIndex end);
  bool join(const VmObject& object, PageIndex index, FrameNumber* frame);
  void hold(Batch& batch, VmObject& object);
  void let_go(Batch& batch);
  std::size_t write(Batch& batch, PageoutRun& run, AfterWrite after);
  void store(std::span<PutRequest> requests);
  void regroup(std::span<const PutRequest> leaving);
  void regroup_run(const PutRequest& first, PageCount count);
  std::size_t settle(std::span<const PutRequest> written, PageoutRun& run, AfterWrite after);
  void place_written(std::span<const FrameNumber> clean, PageoutRun& run, AfterWrite after);

  VmSystem& system_;
  std::unique_ptr<ReferenceCollector> collector_;
  const CleanRule clean_rule_;
  ReplacementPolicy* policy_ = nullptr;
};

}  // namespace enchilada
