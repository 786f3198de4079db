// objrmap with its three indexes. Invariants: see objrmap.h.
#include "lab/designs/objrmap/objrmap.h"

#include "lab/designs/objrmap/prio_tree.h"
#include "lab/designs/pte_chains/pte_chains.h"

namespace enchilada::lab {

void ObjRmap::linked(Vma& vma) {
  if (vma.file == nullptr) return;
  const KernelLockHold lock(memory_.hardware());
  memory_.grow(KernelType::kFileLinks, index_->bytes_per_vma());
  index_->insert(vma);
}

void ObjRmap::unlinked(Vma& vma) {
  if (vma.file == nullptr) return;
  const KernelLockHold lock(memory_.hardware());
  index_->erase(vma);
  memory_.shrink(KernelType::kFileLinks, index_->bytes_per_vma());
}

void ObjRmap::before_resize(Vma& vma) {
  if (vma.file == nullptr || !index_->by_range()) return;
  index_->erase(vma);
}

void ObjRmap::after_resize(Vma& vma) {
  if (vma.file == nullptr || !index_->by_range()) return;
  index_->insert(vma);
}

void ObjRmap::locate(LinuxPage& page, std::vector<Place>* found) {
  if (page.mapcount == 0) return;
  const KernelLockHold lock(memory_.hardware());
  index_->find(*page.file, page.index, [&](Vma& vma) {
    memory_.note(KernelEvent::kVmaVisit);
    memory_.read(vma.at);
    if (vma.mm->rss != 0) (void)look_in(vma, page, found);
    return found->size() < page.mapcount;
  });
}

namespace {

/// 2003's: all mappings of a file in a list.
class FileList final : public FileIndex {
 public:
  using FileIndex::FileIndex;
  void insert(Vma& vma) override {
    vma.file_prev = nullptr;
    vma.file_next = vma.file->first;
    if (vma.file->first != nullptr) {
      vma.file->first->file_prev = &vma;
      memory_.write(vma.file->first->at);
    }
    vma.file->first = &vma;
    memory_.write(vma.at);
  }
  void erase(Vma& vma) override {
    (vma.file_prev != nullptr ? vma.file_prev->file_next : vma.file->first) = vma.file_next;
    if (vma.file_next != nullptr) vma.file_next->file_prev = vma.file_prev;
    memory_.write(vma.at);
  }
  void find(LinuxFile& file, PageIndex /*index*/, FunctionRef<bool(Vma&)> visit) override {
    for (Vma* vma = file.first; vma != nullptr; vma = vma->file_next) {
      if (!visit(*vma)) return;
    }
  }
  bool by_range() const override { return false; }
  ByteCount bytes_per_vma() const override { return ByteCount{2 * sizeof(void*)}; }
};

class FilePrioTree final : public FileIndex {
 public:
  explicit FilePrioTree(KernelMemory& memory) : FileIndex(memory), tree_(memory) {}
  void insert(Vma& vma) override { tree_.insert(vma); }
  void erase(Vma& vma) override { tree_.erase(vma); }
  void find(LinuxFile& file, PageIndex index, FunctionRef<bool(Vma&)> visit) override {
    tree_.find(file, index, visit);
  }
  bool by_range() const override { return true; }
  /// Left, right, parent, and the pointer between a node's VMAs: the list's 16 bytes and as much again.
  ByteCount bytes_per_vma() const override { return ByteCount{4 * sizeof(void*)}; }

 private:
  PrioTree tree_;
};

class FileIntervalTree final : public FileIndex {
 public:
  using FileIndex::FileIndex;
  void insert(Vma& vma) override {
    vma.file->intervals.insert(vma.file_interval, vma, vma.offset, vma.last(), looker());
    memory_.write(vma.at);
  }
  void erase(Vma& vma) override {
    vma.file->intervals.erase(vma.file_interval, looker());
    memory_.write(vma.at);
  }
  void find(LinuxFile& file, PageIndex index, FunctionRef<bool(Vma&)> visit) override {
    file.intervals.stab(index, looker(), visit);
  }
  bool by_range() const override { return true; }
  /// Three pointers of a red-black node, and the largest end below.
  ByteCount bytes_per_vma() const override { return ByteCount{4 * sizeof(void*)}; }

 private:
  struct Looker {
    KernelMemory& memory;
    void operator()(const IntervalNode<Vma>& node) const {
      memory.note(KernelEvent::kIndexNode);
      memory.read(node.owner->at);
    }
  };
  Looker& looker() { return looker_; }
  Looker looker_{memory_};
};

template <class Index>
std::shared_ptr<ReverseMap> make_objects(const LinuxCore& core) {
  return std::make_shared<ObjRmap>(core, std::make_unique<Index>(core.memory));
}

LinuxParts partial(const LinuxCore& core, std::shared_ptr<ReverseMap> file) {
  return {std::move(file), std::make_shared<PteChains>(core), std::make_unique<SecondChance>()};
}

}  // namespace

std::shared_ptr<ReverseMap> make_file_list(const LinuxCore& core) {
  return make_objects<FileList>(core);
}
std::shared_ptr<ReverseMap> make_file_prio_tree(const LinuxCore& core) {
  return make_objects<FilePrioTree>(core);
}
std::shared_ptr<ReverseMap> make_file_interval_tree(const LinuxCore& core) {
  return make_objects<FileIntervalTree>(core);
}
LinuxParts make_objrmap_list(const LinuxCore& core) {
  return partial(core, make_file_list(core));
}
LinuxParts make_objrmap_prio(const LinuxCore& core) {
  return partial(core, make_file_prio_tree(core));
}
LinuxParts make_objrmap_interval(const LinuxCore& core) {
  return partial(core, make_file_interval_tree(core));
}

}  // namespace enchilada::lab
