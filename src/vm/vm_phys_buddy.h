// BuddyFrames (frame_order=buddy): a binary buddy allocator; frames come in as few runs as the free blocks
// allow. The order of live mode, where runs make moving cheap and a frame has no physical address of its own.
//
// Invariants: the first frame of a free block carries its order, the others kNotHead; no two free buddies of
// equal order exist unmerged.
#pragma once

#include <array>
#include <cstdint>

#include "vm/vm_frame_order.h"

namespace enchilada {

class BuddyFrames final : public FrameOrder {
 public:
  static constexpr unsigned kOrders = 10;  // blocks of 1 .. 512 frames

  explicit BuddyFrames(VmSystem& system);

  void take(const FrameWish& wish, std::span<FrameNumber> out) override;
  FrameRun take_run(PageCount most) override;
  void put(FrameRun run) override;
  [[nodiscard]] PageCount grow_batch() const override { return PageCount{64}; }
  void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) override;
  void validate() override;

  /// A whole block of this order, aligned; kNoFrame when there is none.
  FrameNumber take_block(unsigned order);
  [[nodiscard]] bool empty() const { return nonempty_ == 0; }

 private:
  void push_block(std::uint32_t first, unsigned order);
  void unlink_block(std::uint32_t first, unsigned order);
  void free_block(std::uint32_t first, unsigned order);

  VmSystem& system_;
  const std::uint64_t limit_;
  std::array<std::uint32_t, kOrders> head_;
  std::uint32_t nonempty_ = 0;  // bit per order
};

}  // namespace enchilada
