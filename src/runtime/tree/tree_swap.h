// TreeSwap: the tree's swap space as one process sees it, and how the two keep each other right.
//
// Invariant: the swap space's lock is signed with the slot that this process has at that moment (or as the
// launcher), so that nobody takes the lock from a living process or waits for a dead one.
#pragma once

#include <optional>

#include "runtime/tree/process_tree.h"
#include "swap/swap_geometry.h"
#include "swap/swap_space.h"

namespace enchilada {

static_assert(SwapSpace::kMaxHolders == kMaxProcesses && SwapSpace::kSupervisor == kLauncher.value());

/// How the launcher's swap files make up the linear block space.
inline SwapGeometry swap_geometry(const TreeConfig& config) {
  SwapGeometry geometry;
  geometry.slots = config.swap_file_count;
  for (unsigned i = 0; i < config.swap_file_count; ++i)
    geometry.device_pages[i] = config.swap_files[i].blocks;
  return geometry;
}

class TreeSwap {
 public:
  explicit TreeSwap(ProcessTree& tree) : tree_(tree) {}
  TreeSwap(const TreeSwap&) = delete;
  TreeSwap& operator=(const TreeSwap&) = delete;

  /// Attaches to the space and becomes the tree's drop holder: call it before claim_slot(). False: damaged
  /// storage.
  [[nodiscard]] bool attach() {
    space_ = SwapSpace::attach(tree_.swap_storage(), SwapSpace::kSupervisor, {&TreeSwap::alive, &tree_});
    if (space_.has_value()) tree_.set_drop_holder(&TreeSwap::drop, this);
    return space_.has_value();
  }
  /// Signs with the process's own slot from now on: after claim_slot() and after child_started().
  void sign() { space_->set_self(signature().value()); }
  [[nodiscard]] SwapSpace& space() { return *space_; }

 private:
  [[nodiscard]] ProcessSlot signature() const { return tree_.self() == kNoSlot ? kLauncher : tree_.self(); }
  static bool alive(void* tree, unsigned holder) {
    return static_cast<ProcessTree*>(tree)->holder_alive(ProcessSlot{holder});
  }
  static void drop(void* self, ProcessSlot slot) {
    auto* swap = static_cast<TreeSwap*>(self);
    swap->sign();
    swap->space_->drop_holder(slot.value());
  }

  ProcessTree& tree_;
  std::optional<SwapSpace> space_;
};

}  // namespace enchilada
