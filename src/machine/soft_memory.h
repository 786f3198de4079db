// SoftMemory: physical memory as an array of bytes, with real contents.
//
// Invariants: only granted frames, and a device's, may be touched (checked); a frame that is retired or not
// yet granted holds garbage, so that whoever relies on its contents is found out. Grants follow
// SoftMemoryOptions: all at once, or slowly and in scattered runs, as a host does whose siblings compete for
// memory. Thread-safe, but for the contents themselves, which the engine's busy pages guard.
#pragma once

#include <atomic>
#include <cstddef>

#include "base/arena.h"
#include "base/mutex.h"
#include "vm/phys.h"

namespace enchilada {

struct SoftMemoryOptions {
  PageCount frames{256};                       // frame numbers run below this
  PageCount device_frames{0};                  // the last of them: bytes that are there and never granted
  PageCount budget{~std::uint64_t{0}};         // frames granted at a time at most; set_budget() changes it
  PageCount grant_at_most{~std::uint64_t{0}};  // frames per call of grow()
  PageCount run_at_most{~std::uint64_t{0}};    // frames per granted run; less than all: runs come scattered
};

class SoftMemory final : public PhysicalMemory {
 public:
  /// `bytes`: options.frames pages. What is kept per frame comes from the arena.
  SoftMemory(Arena& arena, std::byte* bytes, const SoftMemoryOptions& options);

  [[nodiscard]] PageCount frame_limit() const override { return options_.frames; }
  PageCount grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) override;
  void retire(FrameRun run) override;
  [[nodiscard]] PageCount surplus_wanted() const override;
  void zero(FrameRun run) override;
  void copy(FrameNumber from, FrameNumber to) override;
  void with_frames(FrameRun run, Access access, FunctionRef<void(std::byte*)> use) override;

  /// How many frames may be granted. Below what is granted now, the difference is wanted back.
  void set_budget(PageCount frames) { budget_.store(frames.value(), std::memory_order_relaxed); }
  [[nodiscard]] PageCount budget() const { return PageCount{budget_.load(std::memory_order_relaxed)}; }
  [[nodiscard]] PageCount granted() const { return PageCount{granted_.load(std::memory_order_relaxed)}; }
  /// Has bytes: granted, or a device's.
  [[nodiscard]] bool is_granted(FrameNumber frame) const;
  [[nodiscard]] FrameRun device_frames() const;

 private:
  FrameRun next_run(PageCount at_most) REQUIRES(lock_);
  [[nodiscard]] std::byte* bytes_of(FrameRun run) const;

  const SoftMemoryOptions options_;
  std::byte* const bytes_;
  std::atomic<bool>* state_ = nullptr;  // per frame: granted
  std::atomic<std::uint64_t> budget_;
  std::atomic<std::uint64_t> granted_{0};
  Mutex lock_{LockRank::kLeaf};
  std::uint64_t next_ GUARDED_BY(lock_) = 0;  // where the search for frames to grant goes on
};

}  // namespace enchilada
