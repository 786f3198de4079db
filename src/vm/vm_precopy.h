// Pre-copy: copying, at fork or exec, the pages that are most likely to be written, before the faults come.
//
// The article (section 5) names it and leaves it: "Pre-copying pages on exec or fork is an area that could
// use more study." What is likely is taken from history: an object remembers the last pages that its owner
// copied or moved up (CopyHistory VmObject::copied), and those that others copied from it
// (VmObject::copied_from). At the next fork the parent gets what its owner wrote after the last one, the
// child what the last children wrote; at exec a program gets what earlier runs wrote of the file's data, and
// what its loader says is always written (the first page of BSS, the top of the stack). One candidate in
// eight is left out each time, in turn, so that pages which are not written any more are found out.
//
// Invariants: nothing depends on a page's being pre-copied; a page that was is marked (Page::kPrecopied)
// until its mapping reports a write (counted as used) or it leaves memory or is forked again without one (in
// vain).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class VmMap;
class VmObject;

/// The last few different copies that were noted; a hint.
class CopyHistory {
 public:
  static constexpr std::size_t kMost = 16;
  struct Copy {
    PageIndex index;
    const VmObject* by = nullptr;  // who copied, never looked into: it may be gone
    bool operator==(const Copy&) const = default;
  };
  void note(PageIndex index, const VmObject* by = nullptr) {
    const Copy copy{index, by};
    for (std::size_t i = 0; i < used_; ++i) {
      if (copies_[i] == copy) return;
    }
    copies_[next_] = copy;
    next_ = static_cast<std::uint8_t>((next_ + 1u) % kMost);
    if (used_ < kMost) ++used_;
  }
  void forget(PageIndex index) {
    for (std::size_t i = 0; i < used_; ++i) {
      if (copies_[i].index != index) continue;
      copies_[i] = copies_[--used_];
      next_ = used_;
      return;
    }
  }
  void clear() { used_ = next_ = 0; }
  [[nodiscard]] std::span<const Copy> all() const { return {copies_.data(), used_}; }

 private:
  std::array<Copy, kMost> copies_;
  std::uint8_t used_ = 0;
  std::uint8_t next_ = 0;
};

class PreCopyPolicy {
 public:
  virtual ~PreCopyPolicy() = default;
  /// Page `index` of `top` is being copied, or moved up, from page `from` of `source`. Both objects are
  /// locked exclusively.
  virtual void copied(VmObject& top, PageIndex index, VmObject& source, PageIndex from) const = 0;
  /// `child` has just been forked of `parent`; no lock held, nobody else knows the child.
  virtual void after_fork(VmMap& parent, VmMap& child) = 0;
  /// `map` has just got a program; `hot`: ranges that its start always writes. No lock held.
  virtual void after_exec(VmMap& map, std::span<const VirtRange> hot) = 0;
};

[[nodiscard]] std::unique_ptr<PreCopyPolicy> make_precopy(PreCopyMode mode);

}  // namespace enchilada
