// PageDaemon: frees frames. Reference: freebsd-vm.md §1.8, §1.9.
//
// It has no thread of its own: whoever is short of frames runs it (a faulting thread, a helper thread, a
// test's step). One run at a time; a second caller waits for it instead of competing.
//
// The order of a run: cache pages (free at once), clean inactive pages, dirty ones by way of the laundry
// (clusters of neighbours, one write each), and a scan of the active queue that keeps about a third of the
// pages on inactive. Nothing moves while there is no shortage. A run gains at most a cluster's worth, so that
// the fault that pays for it is not held up; the next fault that finds memory short pays for the next one.
//
// Use without reference bits (a machine like the host): the active scan ages by time alone. A page whose use
// count has run out is *withdrawn*, that is unmapped together with its neighbours, and waits on inactive; a
// fault that finds it there proves use. Aging is accelerated under pressure: a page is a victim when its
// count is at most pressure(), which rises while scans find too few victims and falls when enough pages wait,
// so that a scan does bounded work also when all pages have high counts (the order among them still counts).
//
// Invariants: page-out allocates nothing; no lock is held during I/O; pages in I/O are busy, unmapped and on
// no queue, so that eviction is atomic against writers; a page whose write failed stays dirty, in its object,
// on active.
#pragma once

#include <span>

#include "base/mutex.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {

class PageDaemon {
 public:
  /// Pages of one scan step.
  static constexpr std::size_t kBatch = 32;
  /// Pages of a scan step, and frames to gain, while a device is at work: as much as one read takes.
  static constexpr std::size_t kAhead = 8;
  /// Dirty pages that make a write worth while if nobody waits for it.
  static constexpr std::size_t kLaunder = 64;
  /// Frames that one run tries to gain at most.
  static constexpr std::uint64_t kGoal = 64;
  /// Pages that a run looks at at most once it has gained anything.
  static constexpr std::uint64_t kBudget = 256;
  /// Fruitless looks after which also pages that were just used are victims.
  static constexpr std::uint64_t kRuthlessAfter = 512;

  explicit PageDaemon(VmSystem& system);

  /// Frees frames until free_target is reached or nothing more can be done; first asks the machine for more
  /// frames. False: not one frame could be gained (swap full or failing and nothing clean). No lock held by
  /// the caller.
  /// at_least: how many free frames the caller would like to see, if that is more than the target.
  bool reclaim(PageCount at_least = PageCount{0});
  /// A small run if free frames are below the target and nobody runs already: for a thread that has nothing
  /// to do until a device answers.
  void work_ahead();
  /// After reclaim() has said false: was something only busy just now, so that trying again later may help?
  [[nodiscard]] bool worth_waiting() const { return transient_.load(std::memory_order_relaxed); }

  /// Pages out until at most `resident` frames are in use (a fork or a sibling needs them); frees are given
  /// back to the machine with retire(). Returns frames given back.
  PageCount shrink_to(PageCount resident);
  PageCount give_back(PageCount frames);

  /// Moves all the pages of the range of an object towards eviction now (MADV_PAGEOUT); best effort.
  void pageout_object(VmObject& object, PageIndex first, PageCount count);
  /// The pages of the range will not be used soon: next victims, contents kept (MADV_DONTNEED in FreeBSD's
  /// sense).
  void deactivate_object(VmObject& object, PageIndex first, PageCount count);

  /// One step of the active scan over up to `pages` pages, as a run does it; returns how many left the queue.
  std::size_t scan_active(std::size_t pages);
  [[nodiscard]] unsigned pressure() const { return pressure_; }

  /// Held during a run; a kernel fork takes it to be sure that no run is going on. Before all ranked locks.
  [[nodiscard]] Mutex& run_lock() RETURN_CAPABILITY(run_lock_) { return run_lock_; }

 private:
  struct Run;
  struct Batch;
  void run_until(Run& run);
  bool step(Run& run);
  [[nodiscard]] bool worth_laundering(const Run& run);
  [[nodiscard]] std::uint64_t waiting() const;
  [[nodiscard]] std::uint64_t waiting_target() const;
  void free_cache(Run& run);
  void free_limbo(Run& run);
  void scan_inactive(Run& run);
  void launder(Run& run);
  void scan_active_step(Run& run);
  std::size_t age_batch(std::span<FrameNumber> batch, bool ruthless, std::span<FrameNumber> victims);
  std::size_t withdraw(std::span<FrameNumber> victims, std::size_t n);
  std::size_t add_idle_neighbours(std::span<FrameNumber> victims, std::size_t n);
  unsigned references(Page& page, FrameNumber frame);
  void reactivate(FrameNumber frame, unsigned refs);
  std::size_t unmap(std::span<FrameNumber> frames, std::size_t n);
  void tell_evicted(std::span<const FrameNumber> frames);
  void drop_clean(std::span<const FrameNumber> frames, Run& run);
  void gather(Batch& batch, FrameNumber head);
  void gather_any(Batch& batch, VmObject& object, PageIndex* at, PageIndex end);
  bool join(const VmObject& object, PageIndex index, FrameNumber* frame);
  void hold(Batch& batch, VmObject& object);
  void let_go(Batch& batch);
  void write(Batch& batch, Run& run);
  void put(std::span<PutRequest> requests);
  void regroup(std::span<const PutRequest> leaving);
  void regroup_run(const PutRequest& first, PageCount count);
  void settle(std::span<const PutRequest> written, Run& run);
  void forget_copies(std::span<const FrameNumber> frames);

  VmSystem& system_;
  Mutex run_lock_;
  unsigned pressure_ = 0;  // run lock
  std::atomic<bool> transient_{false};
};

}  // namespace enchilada
