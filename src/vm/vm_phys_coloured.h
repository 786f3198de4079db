// ColouredFrames (frame_order=coloured): the article's free lists, one for each page colour.
//
// A page gets a frame of colour (pindex + object's colour) mod colours, so that pages next to each other in
// an object lie next to each other in the cache; when there is none, of the farthest colour that has one.
// Invariants: a frame is on the list of its colour, frame number mod colours; a colour is in `some_` exactly
// when its list has a frame. Taking and putting a frame is O(1).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "vm/vm_colour.h"
#include "vm/vm_frame_order.h"

namespace enchilada {

class ColouredFrames final : public FrameOrder {
 public:
  explicit ColouredFrames(VmSystem& system);

  void take(const FrameWish& wish, std::span<FrameNumber> out) override;
  FrameRun take_run(PageCount most) override;
  void put(FrameRun run) override;
  [[nodiscard]] std::uint32_t base_colour(PageCount size) override;
  void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) override;
  void validate() override;

  [[nodiscard]] const ColourTable& table() const { return table_; }

 private:
  struct List {
    std::uint32_t head;
    std::uint32_t tail;
  };
  void unlink(std::uint32_t frame);
  std::uint32_t take_colour(std::uint32_t colour);

  VmSystem& system_;
  const std::uint64_t limit_;
  const ColourTable table_;
  ColourSet some_;
  std::uint32_t rover_ = 0;                    // colour of the next frame that is for nobody
  std::atomic<std::uint32_t> next_colour_{0};  // base colour of the next object
  std::array<List, kMaxColours> lists_;
};

}  // namespace enchilada
