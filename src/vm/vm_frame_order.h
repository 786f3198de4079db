// FrameOrder: in which order free frames are handed out. The seam behind VmPhys; the modes of `frame_order`.
//
// VmPhys counts frames and keeps their Pages' states; a FrameOrder knows only which frames are free and which
// of them suits best. Invariants: every call but base_colour() is made with VmPhys's lock held, so an
// implementation needs no lock; it allocates nothing after it was made; a frame that is put is in state kFree
// with order kNotHead, and is again when it is taken (in between its order and links are the
// implementation's). Asked for frames, it gives them as long as any is free, whatever the wish.
#pragma once

#include <memory>
#include <span>

#include "base/function_ref.h"
#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmObject;
class VmSystem;

/// What frames are for: the pages from `first` on of an object, mapped from `va` on. They are preferences,
/// not conditions. The object is locked exclusively; none: for nobody in particular.
struct FrameWish {
  VmObject* object = nullptr;
  PageIndex first;
  VirtAddr va;
};

class FrameOrder {
 public:
  virtual ~FrameOrder() = default;

  /// Takes out.size() frames; so many are free. out[i] is for page wish.first + i.
  virtual void take(const FrameWish& wish, std::span<FrameNumber> out) = 0;
  /// Takes a run for no object, at most `most` frames, as long as can be had; count 0 when nothing is free.
  virtual FrameRun take_run(PageCount most) = 0;
  /// These frames are free from now on.
  virtual void put(FrameRun run) = 0;

  /// So many frames are asked of the machine at a time, at least. Who chooses among frames wants to see all.
  [[nodiscard]] virtual PageCount grow_batch() const { return PageCount{~std::uint32_t{0}}; }

  /// Colour of the first page of a new object of so many pages. Any thread, no lock.
  [[nodiscard]] virtual std::uint32_t base_colour(PageCount size) {
    (void)size;
    return 0;
  }

  /// Does it want to hear renamed() and object_gone()?
  [[nodiscard]] virtual bool follows_objects() const { return false; }
  /// The page in `frame` was page `before` of `from` and is now page `now` of `to`. Both objects are locked.
  virtual void renamed(FrameNumber frame, const VmObject& from, PageIndex before, VmObject& to,
                       PageIndex now) {
    (void)frame, (void)from, (void)before, (void)to, (void)now;
  }
  /// The object has no pages and goes.
  virtual void object_gone(VmObject& object) { (void)object; }

  /// Calls visit(order, first frame) for pieces (powers of two, aligned) that make up all free frames.
  virtual void for_each_block(FunctionRef<void(unsigned, FrameNumber)> visit) = 0;
  /// Checks its own invariants; stops the program when one is broken.
  virtual void validate() = 0;
};

/// The class of the mode; null when the arena is too small for what it keeps.
[[nodiscard]] std::unique_ptr<FrameOrder> make_frame_order(VmSystem& system, FrameOrderMode mode);

}  // namespace enchilada
