// PrioTree: a priority search tree over the mappings of a file: a heap by end, a radix tree by start.
//
// From the description of Linux's (2004, after McCreight 1985): the node with the largest end is on top;
// which side a node is on is decided by the bits of its start, from the highest on; when they are used up
// (equal starts), by the bits of its length (the overflow subtree). Mappings with equal ranges hang on one
// node. Invariants: a node's end is not below its children's; height <= bits of the start + bits of the
// length. Different from Linux's: the file's length says how many bits there are, so the tree never grows a
// level.
#pragma once

#include "lab/linux/linux_types.h"

namespace enchilada::lab {

struct PrioNode {
  PrioNode* left = nullptr;
  PrioNode* right = nullptr;
  PrioNode* parent = nullptr;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  Vma* vmas = nullptr;  // with this very range, by file_next
};

class PrioTree {
 public:
  explicit PrioTree(KernelMemory& memory) : memory_(memory) {}
  void insert(Vma& vma);
  void erase(Vma& vma);
  /// Calls visit(vma) for each mapping that covers the page, until it says false.
  void find(LinuxFile& file, PageIndex index, FunctionRef<bool(Vma&)> visit);
  /// Levels, and whether the invariants hold: for tests.
  [[nodiscard]] static int height(const LinuxFile& file);
  [[nodiscard]] static bool is_heap(const LinuxFile& file);

 private:
  struct Step;
  void look(const PrioNode& node);
  void place(LinuxFile& file, PrioNode* node);
  void take_out(LinuxFile& file, PrioNode* node);
  bool find_below(const PrioNode* node, Step step, std::uint64_t point, FunctionRef<bool(Vma&)> visit);

  KernelMemory& memory_;
};

}  // namespace enchilada::lab
