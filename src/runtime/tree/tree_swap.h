// TreeSwap: the tree's swap space and compressed store as one process sees them, and how they and the tree
// keep each other right.
//
// Invariant: their locks are signed with the slot that this process has at that moment (or as the launcher),
// so that nobody takes a lock from a living process or waits for a dead one.
#pragma once

#include <optional>

#include "runtime/tree/process_tree.h"
#include "swap/compressed_swap.h"
#include "swap/swap_geometry.h"
#include "swap/swap_space.h"

namespace enchilada {

static_assert(SwapSpace::kMaxHolders == kMaxProcesses && SwapSpace::kSupervisor == kLauncher.value());

/// How the launcher's swap files make up the linear block space.
inline SwapGeometry swap_geometry(const TreeConfig& config) {
  SwapGeometry geometry;
  geometry.slots = config.swap_file_count;
  geometry.reserved = 1;  // where the signature of a swap file lies
  for (unsigned i = 0; i < config.swap_file_count; ++i)
    geometry.device_pages[i] = config.swap_files[i].blocks;
  return geometry;
}

/// Pages that the tree's compressed store must be able to name.
inline PageCount compressed_numbers(const TreeConfig& config) {
  const SwapGeometry geometry = swap_geometry(config);
  return CompressedSwap::numbers(geometry.device_pages);
}

class TreeSwap {
 public:
  explicit TreeSwap(ProcessTree& tree) : tree_(tree) {}
  TreeSwap(const TreeSwap&) = delete;
  TreeSwap& operator=(const TreeSwap&) = delete;

  /// Formats the storage of both, as the tree's configuration says. The launcher, once.
  [[nodiscard]] bool create() {
    const TreeConfig& config = tree_.config();
    return SwapSpace::create(tree_.swap_storage(), swap_geometry(config),
                             config.modes.get<SwapAllocatorMode>()) &&
           (config.compressed_bytes == 0 ||
            CompressedStore::create(tree_.compressed_storage(), ByteCount{config.compressed_bytes},
                                    compressed_numbers(config)));
  }
  /// Attaches to both and becomes the tree's drop holder: call it before claim_slot(). False: damaged
  /// storage.
  [[nodiscard]] bool attach() {
    space_ = SwapSpace::attach(tree_.swap_storage(), SwapSpace::kSupervisor, {&TreeSwap::alive, &tree_});
    if (!space_.has_value()) return false;
    tree_.set_drop_holder(&TreeSwap::drop, this);
    if (tree_.config().compressed_bytes == 0) return true;
    store_ =
        CompressedStore::attach(tree_.compressed_storage(), kLauncher.value(), {&TreeSwap::alive, &tree_});
    return store_.has_value();
  }
  /// Signs with the process's own slot from now on: after claim_slot() and after child_started().
  void sign() {
    space_->set_self(signature().value());
    if (store_.has_value()) store_->set_self(signature().value());
  }
  [[nodiscard]] SwapSpace& space() { return *space_; }
  /// Null when the tree has none.
  [[nodiscard]] CompressedStore* compressed() { return store_.has_value() ? &*store_ : nullptr; }
  /// Does any process of the tree refer to this block? For CompressedSwap.
  [[nodiscard]] static bool wanted(void* self, DeviceBlock block) {
    const SwapSpace& space = *static_cast<TreeSwap*>(self)->space_;
    return space.count_of(space.geometry().linear(block)) != 0;
  }

 private:
  [[nodiscard]] ProcessSlot signature() const { return tree_.self() == kNoSlot ? kLauncher : tree_.self(); }
  static bool alive(void* tree, unsigned holder) {
    return static_cast<ProcessTree*>(tree)->holder_alive(ProcessSlot{holder});
  }
  static void drop(void* self, ProcessSlot slot) {
    auto* swap = static_cast<TreeSwap*>(self);
    swap->sign();
    swap->space_->drop_holder(slot.value());
    if (swap->store_.has_value()) swap->store_->drop_holder(slot.value());
  }

  ProcessTree& tree_;
  std::optional<SwapSpace> space_;
  std::optional<CompressedStore> store_;
};

}  // namespace enchilada
