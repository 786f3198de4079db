// PageDaemon: frees frames. Reference: freebsd-vm.md §1.8, §1.9.
//
// It has no thread of its own: whoever is short of frames runs it (a faulting thread, a helper thread, a
// test's step). One run at a time; a second caller waits for it instead of competing. A run gains at most
// what its PageoutTarget says, so that the fault that pays for it is not held up for long; the next fault
// that finds memory short pays for the next one. Which pages go is the ReplacementPolicy's (vm_queue_policy.h
// in FreeBSD's modes), what is done to them is in PageoutOps. Nothing moves while there is no shortage.
//
// Out of memory: a run that gains nothing has looked at everything, used pages too; the caller gets an error
// (FaultResult::kNoMemory), never a hang. The daemon itself needs no frame: with none free it can still write
// and free.
#pragma once

#include <memory>

#include "base/mutex.h"
#include "vm/vm_pageout_ops.h"
#include "vm/vm_pageout_target.h"
#include "vm/vm_replacement.h"
#include "vm/vm_system.h"
#include "vm/vm_use_hints.h"

namespace enchilada {

class PageDaemon {
 public:
  static constexpr std::size_t kBatch = PageoutRun::kBatch;
  static constexpr std::size_t kAhead = PageoutRun::kAhead;
  static constexpr std::uint64_t kLaunder = PageoutOps::kWrite;
  /// Frames that a step of give_back() tries to gain.
  static constexpr std::uint64_t kGoal = 64;

  explicit PageDaemon(VmSystem& system);

  /// Frees frames until the target is reached or nothing more can be done; first asks the machine for more
  /// frames. False: not one frame could be gained, the machine gave none, swap is full or failing and nothing
  /// clean. No lock held by the caller. at_least: how many pages the caller would like to see at hand, if
  /// that is more than the target.
  bool reclaim(PageCount at_least = PageCount{0});
  /// An allocation found too few free frames: takes pages off the cache queue where these count as free, else
  /// reclaims. False as reclaim().
  bool refill();
  /// A small run if pages at hand are below the target and nobody runs already: for a thread that has nothing
  /// to do until a device answers.
  void work_ahead();
  /// Pages on queues: neither free, nor wired, nor in anybody's hand.
  [[nodiscard]] std::uint64_t at_rest() const;
  /// After reclaim() has said false: did others use pages meanwhile, do they hold some now, or have they let
  /// go of some (at_rest() said `rested` before the run), so that trying again may help? Looks at every frame
  /// if need be: for who is about to give up.
  [[nodiscard]] bool worth_waiting(std::uint64_t rested);
  /// Work in the background that may be due, for modes that have such: a few times a second, by whoever has
  /// time. Without one it costs a look at a constant.
  void tick() {
    if (wants_ticks_) run_tick();
  }

  /// Pages out until at most `resident` frames are in use (a fork or a sibling needs them); frees are given
  /// back to the machine with retire(). Returns frames given back.
  PageCount shrink_to(PageCount resident);
  PageCount give_back(PageCount frames);

  /// Pages out all the pages of the range of an object that can be; best effort.
  void pageout_object(VmObject& object, PageIndex first, PageCount count);
  /// The pages of the range will not be used soon: MADV_DONTNEED in FreeBSD's sense, in the engine's mode.
  void unneeded(VmObject& object, PageIndex first, PageCount count);
  /// The pages of the range are put on inactive, contents kept.
  void deactivate_object(VmObject& object, PageIndex first, PageCount count);
  /// A stream has read its largest window (StreamRule).
  void stream_passed(VmObject& object, PageIndex window) { stream_rule_->passed(object, window); }

  /// One look at up to `pages` active pages; returns how many left the queue.
  std::size_t scan_active(std::size_t pages);
  [[nodiscard]] unsigned pressure() const { return policy_->pressure(); }

  /// Held during a run; a kernel fork takes it to be sure that no run is going on. Before all ranked locks.
  [[nodiscard]] Mutex& run_lock() RETURN_CAPABILITY(run_lock_) { return run_lock_; }

 private:
  bool take_from_cache();
  PageoutRun begin_run(std::uint64_t goal) const;
  void run_until(PageoutRun& run);
  void run_tick();
  void do_what_is_due();

  VmSystem& system_;
  Mutex run_lock_;
  PageoutOps ops_;
  std::unique_ptr<ReplacementPolicy> policy_;
  std::unique_ptr<PageoutTarget> target_;
  std::unique_ptr<StreamRule> stream_rule_;
  std::unique_ptr<UnneededRule> unneeded_rule_;
  const bool wants_ticks_;
  std::atomic<bool> transient_{false};
};

}  // namespace enchilada
