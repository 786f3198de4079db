// ReservedFrames (frame_order=reservation): today's answer to colouring, FreeBSD's vm_reserv over the buddy.
//
// The first page of an object in an aligned range of 2^order pages reserves a whole aligned block of frames;
// the other pages of the range get theirs from it when they come. So neighbours are neighbours in physical
// memory: perfectly coloured, and a full block can be mapped by one superpage entry. When frames are short,
// the partly used reservation that has been left alone longest is broken: its unused frames become ordinary
// free ones. (reference/freebsd-vm.md §1.13 "Now".)
//
// Invariants: a block is reserved as a whole or not at all; a bit of `used` is set exactly when that frame is
// not free; a reservation has at least one used frame; it is on the queue of the partly used exactly when it
// also has a free one; it is found by its object and first index, of which there is one each; every
// reservation of an object is on the object's list. Reserved frames that are not used count as free.
#pragma once

#include <array>
#include <cstdint>

#include "vm/vm_frame_order.h"
#include "vm/vm_phys_buddy.h"

namespace enchilada {

class ReservedFrames final : public FrameOrder {
 public:
  static constexpr unsigned kMostOrder = 9;  // 512 pages: a superpage of x86-64

  explicit ReservedFrames(VmSystem& system);
  /// False: the arena is too small. Once, before use.
  [[nodiscard]] bool reserve_metadata();

  void take(const FrameWish& wish, std::span<FrameNumber> out) override;
  FrameRun take_run(PageCount most) override;
  void put(FrameRun run) override;
  [[nodiscard]] bool follows_objects() const override { return true; }
  void renamed(FrameNumber frame, const VmObject& from, PageIndex before, VmObject& to,
               PageIndex now) override;
  void object_gone(VmObject& object) override;
  void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) override;
  void validate() override;

  /// What is known of one reservation.
  struct View {
    const VmObject* object;
    PageIndex first;
    FrameNumber frame;  // of page `first`
    PageCount used;
  };
  void for_each_reservation(FunctionRef<void(const View&)> visit) const;
  [[nodiscard]] PageCount block_size() const { return PageCount{size_}; }

 private:
  static constexpr std::uint32_t kEnd = ~std::uint32_t{0};
  struct Reservation {
    VmObject* object = nullptr;  // null: this block is not reserved
    PageIndex first;             // page of its first frame; wraps when that would lie before page 0
    std::array<std::uint64_t, (1u << kMostOrder) / 64> used{};
    std::uint32_t used_count = 0;
    std::uint32_t queue_next = kEnd, queue_prev = kEnd;
    std::uint32_t hash_next = kEnd;
    std::uint32_t object_next = kEnd, object_prev = kEnd;
  };

  [[nodiscard]] PageIndex first_of(const VmObject& object, PageIndex index) const;
  [[nodiscard]] std::uint32_t bucket_of(const VmObject& object, PageIndex first) const;
  [[nodiscard]] std::uint32_t find(const VmObject& object, PageIndex first) const;
  [[nodiscard]] bool fits(const VmObject& object, PageIndex first, PageIndex index) const;
  std::uint32_t reserve(VmObject& object, PageIndex first);
  FrameNumber take_reserved(const FrameWish& wish, PageIndex index, VirtAddr va);
  FrameNumber take_plain();
  void use(std::uint32_t block, std::uint32_t slot);
  void unuse(std::uint32_t block, std::uint32_t slot);
  void break_up(std::uint32_t block);
  bool reclaim_oldest();
  void attach(std::uint32_t block, VmObject& object, PageIndex first);
  void detach(std::uint32_t block);
  void enqueue(std::uint32_t block);
  void dequeue(std::uint32_t block);
  void validate_block(std::uint32_t block);
  [[nodiscard]] FrameNumber frame_of(std::uint32_t block, std::uint32_t slot) const {
    return FrameNumber{(block << order_) + slot};
  }
  [[nodiscard]] bool is_used(const Reservation& r, std::uint32_t slot) const {
    return (r.used[slot / 64] >> (slot % 64) & 1) != 0;
  }

  VmSystem& system_;
  BuddyFrames buddy_;
  const unsigned order_;
  const std::uint32_t size_;
  const std::uint32_t blocks_;
  std::uint32_t buckets_;
  Reservation* reservations_ = nullptr;  // blocks_ of them
  std::uint32_t* heads_ = nullptr;       // buckets_ of them
  std::uint32_t oldest_ = kEnd, newest_ = kEnd;
};

}  // namespace enchilada
