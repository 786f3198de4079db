// The priority search tree. Invariants: see prio_tree.h.
#include "lab/designs/objrmap/prio_tree.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "machine/kernel_memory.h"

namespace enchilada::lab {

/// Where a walk down is: which bit decides next, of what, and the least start below here.
struct PrioTree::Step {
  explicit Step(const LinuxFile& file)
      : bits(std::max(1, static_cast<int>(std::bit_width(file.pages.value() - 1)))), bit(bits - 1) {}
  int bits;
  int bit;
  bool overflow = false;    // starts are equal from here on: lengths decide
  std::uint64_t start = 0;  // the bits of the starts below here that are decided

  [[nodiscard]] bool goes_right(std::uint64_t first, std::uint64_t last) const {
    return (((overflow ? last - first : first) >> bit) & 1) != 0;
  }
  [[nodiscard]] Step down(bool right) const {
    Step next = *this;
    if (!overflow && right) next.start |= std::uint64_t{1} << bit;
    if (--next.bit < 0 && !overflow) {
      next.overflow = true;
      next.bit = bits - 1;
    }
    return next;
  }
};

void PrioTree::look(const PrioNode& node) {
  memory_.note(KernelEvent::kIndexNode);
  memory_.read(node.vmas->at);
}

void PrioTree::insert(Vma& vma) {
  auto* const node = new PrioNode;
  node->first = vma.offset.value();
  node->last = vma.last().value();
  node->vmas = &vma;
  vma.file_prev = vma.file_next = nullptr;
  vma.prio_node = node;
  place(*vma.file, node);
}

/// From the top down; a node that ends later pushes the one that is there down.
void PrioTree::place(LinuxFile& file, PrioNode* node) {
  PrioNode** link = &file.prio_root;
  PrioNode* parent = nullptr;
  for (Step step(file);;) {
    PrioNode* const here = *link;
    if (here == nullptr) {
      *link = node;
      node->parent = parent;
      node->left = node->right = nullptr;
      memory_.write(node->vmas->at);
      return;
    }
    look(*here);
    if (here->first == node->first && here->last == node->last) {
      Vma* const vma = node->vmas;
      vma->file_next = here->vmas->file_next;
      vma->file_prev = here->vmas;
      if (vma->file_next != nullptr) vma->file_next->file_prev = vma;
      here->vmas->file_next = vma;
      vma->prio_node = here;
      memory_.write(here->vmas->at);
      delete node;
      return;
    }
    PrioNode* stays = here;
    if (node->last > here->last) {
      node->left = here->left;
      node->right = here->right;
      node->parent = parent;
      if (node->left != nullptr) node->left->parent = node;
      if (node->right != nullptr) node->right->parent = node;
      *link = node;
      stays = node;
      node = here;
      memory_.write(stays->vmas->at);
    }
    const bool right = step.goes_right(node->first, node->last);
    parent = stays;
    link = right ? &stays->right : &stays->left;
    step = step.down(right);
  }
}

void PrioTree::erase(Vma& vma) {
  PrioNode* const node = vma.prio_node;
  look(*node);
  if (vma.file_prev != nullptr) vma.file_prev->file_next = vma.file_next;
  if (vma.file_next != nullptr) vma.file_next->file_prev = vma.file_prev;
  if (node->vmas == &vma) node->vmas = vma.file_next;
  vma.prio_node = nullptr;
  if (node->vmas != nullptr) return;
  take_out(*vma.file, node);
  delete node;
}

/// The child that ends later moves up, and so on down.
void PrioTree::take_out(LinuxFile& file, PrioNode* node) {
  for (;;) {
    PrioNode** const link = node->parent == nullptr      ? &file.prio_root
                            : node->parent->left == node ? &node->parent->left
                                                         : &node->parent->right;
    const bool right =
        node->left == nullptr || (node->right != nullptr && node->right->last > node->left->last);
    PrioNode* const heir = right ? node->right : node->left;
    if (heir == nullptr) {
      *link = nullptr;
      return;
    }
    look(*heir);
    // The two change places: the node goes on down in its heir's.
    PrioNode* const heir_left = heir->left;
    PrioNode* const heir_right = heir->right;
    *link = heir;
    heir->parent = node->parent;
    heir->left = right ? node->left : node;
    heir->right = right ? node : node->right;
    if (heir->left != nullptr) heir->left->parent = heir;
    if (heir->right != nullptr) heir->right->parent = heir;
    node->left = heir_left;
    node->right = heir_right;
    if (heir_left != nullptr) heir_left->parent = node;
    if (heir_right != nullptr) heir_right->parent = node;
  }
}

void PrioTree::find(LinuxFile& file, PageIndex index, FunctionRef<bool(Vma&)> visit) {
  (void)find_below(file.prio_root, Step(file), index.value(), visit);
}

bool PrioTree::find_below(const PrioNode* node, Step step, std::uint64_t point,
                          FunctionRef<bool(Vma&)> visit) {
  if (node == nullptr || step.start > point) return true;
  look(*node);
  if (node->last < point) return true;  // all below end earlier still
  if (node->first <= point) {
    Vma* next = nullptr;
    for (Vma* vma = node->vmas; vma != nullptr; vma = next) {
      next = vma->file_next;
      if (!visit(*vma)) return false;
    }
  }
  return find_below(node->left, step.down(false), point, visit) &&
         find_below(node->right, step.down(true), point, visit);
}

namespace {

int height_of(const PrioNode* node) {
  return node == nullptr ? 0 : 1 + std::max(height_of(node->left), height_of(node->right));
}

bool heap_below(const PrioNode* node) {
  if (node == nullptr) return true;
  for (const PrioNode* child : {node->left, node->right}) {
    if (child != nullptr && (child->last > node->last || child->parent != node)) return false;
  }
  return heap_below(node->left) && heap_below(node->right);
}

}  // namespace

int PrioTree::height(const LinuxFile& file) {
  return height_of(file.prio_root);
}

bool PrioTree::is_heap(const LinuxFile& file) {
  return heap_below(file.prio_root);
}

}  // namespace enchilada::lab
