// The pre-copy policies: none, and one that follows the history.
#include "vm/vm_precopy.h"

#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_object.h"
#include "vm/vm_page.h"
#include "vm/vm_system.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kProbeEvery = 8;
constexpr std::size_t kMost = 64;  // pages of one fork or exec, on each side

class NoPreCopy final : public PreCopyPolicy {
 public:
  void copied(VmObject&, PageIndex, VmObject&, PageIndex) const override {}
  void after_fork(VmMap&, VmMap&) override {}
  void after_exec(VmMap&, std::span<const VirtRange>) override {}
};

/// Addresses that one side will be given copies of.
struct Wishes {
  std::array<VirtAddr, kMost> at;
  std::size_t n = 0;
  void add(VirtAddr va) {
    for (std::size_t i = 0; i < n; ++i) {
      if (at[i] == va) return;
    }
    if (n < kMost) at[n++] = va;
  }
};

/// Best effort: whoever cannot have a copy now will fault for it.
void make_copies(VmMap& map, const Wishes& wishes) {
  for (std::size_t i = 0; i < wishes.n; ++i) {
    if (vm_fault_ahead(map, wishes.at[i]) != FaultResult::kResolved) return;
  }
}

class HistoryPreCopy final : public PreCopyPolicy {
 public:
  HistoryPreCopy(bool at_fork, bool at_exec) : at_fork_(at_fork), at_exec_(at_exec) {}

  void copied(VmObject& top, PageIndex index, VmObject& source, PageIndex from) const override {
    top.copied.note(index);
    source.copied_from.note(from, &top);
  }

  void after_fork(VmMap& parent, VmMap& child) override {
    if (!at_fork_) return;
    const std::uint64_t round = round_.fetch_add(1, std::memory_order_relaxed);
    Wishes mine;
    Wishes childs;
    child.for_each_entry([&](const VmMap::EntryView& e) {
      if (!e.needs_copy || !allows(e.prot, Prot::kWrite)) return;
      WriteLock guard(e.object->lock);
      choose_written(child.system(), e, round, mine);
      choose_given(*e.object, 0, e, round, childs,
                   [&](PageIndex index) { return holds(child.system(), *e.object, index); });
      VmObject* const backing = e.object->backing;
      if (backing == nullptr) return;
      ReadLock backing_guard(backing->lock);
      choose_given(*backing, e.object->backing_offset.value(), e, round, childs,
                   [&](PageIndex index) { return holds(child.system(), *backing, index); });
    });
    make_copies(child, childs);
    make_copies(parent, mine);
  }

  void after_exec(VmMap& map, std::span<const VirtRange> hot) override {
    if (!at_exec_) return;
    const std::uint64_t round = round_.fetch_add(1, std::memory_order_relaxed);
    Wishes wishes;
    map.for_each_entry([&](const VmMap::EntryView& e) {
      if (!e.needs_copy || !allows(e.prot, Prot::kWrite)) return;
      ReadLock guard(e.object->lock);
      choose_given(*e.object, 0, e, round, wishes, [](PageIndex) { return true; });
    });
    for (const VirtRange range : hot) {
      for (VirtAddr va = range.start; va < range.end; va = va + ByteCount{kPageSize}) wishes.add(va);
    }
    make_copies(map, wishes);
  }

 private:
  /// The address in the entry of page `index` of an object whose page i + shift is page i of the entry's
  /// object; false when the entry does not show it, or when it is its turn to be left out.
  static bool place_of(PageIndex index, std::uint64_t shift, const VmMap::EntryView& e, std::uint64_t round,
                       VirtAddr* va) {
    const std::uint64_t first = e.offset.value() + shift;
    if (index.value() < first || index.value() - first >= to_pages(e.range.size()).value()) return false;
    *va = e.range.start + to_bytes(PageCount{index.value() - first});
    return (index.value() + round) % kProbeEvery != 0;
  }

  /// What the owner wrote since the last fork. What was copied for it then and is still unwritten was in
  /// vain.
  static void choose_written(VmSystem& system, const VmMap::EntryView& e, std::uint64_t round,
                             Wishes& wishes) {
    const CopyHistory history = e.object->copied;
    for (const auto& [index, by] : history.all()) {
      const FrameNumber frame = e.object->pages.find(index);
      Page* const page = frame != kNoFrame ? &system.page(frame) : nullptr;
      if (page != nullptr && page->has(Page::kPrecopied)) {
        const bool used = system.pmaps().is_modified(frame);
        page->clear(Page::kPrecopied);
        count(used ? system.counters().precopy_used : system.counters().precopy_vain);
        if (!used) {
          e.object->copied.forget(index);
          continue;
        }
      }
      VirtAddr va;
      if (holds(system, *e.object, index) && place_of(index, 0, e, round, &va)) wishes.add(va);
    }
  }

  /// Is page `index` the object's own, and anonymous? What comes from a file stays the file's until the
  /// program writes it: others' writes to the file would no longer be seen.
  static bool holds(VmSystem& system, const VmObject& object, PageIndex index) {
    if (!object.anonymous()) return false;
    return object.pages.find(index) != kNoFrame || system.objects().has_copy(object, index);
  }

  /// What others copied from the object, of those pages that are `wanted`.
  static void choose_given(const VmObject& object, std::uint64_t shift, const VmMap::EntryView& e,
                           std::uint64_t round, Wishes& wishes, FunctionRef<bool(PageIndex)> wanted) {
    for (const auto& [index, by] : object.copied_from.all()) {
      VirtAddr va;
      if (wanted(index) && place_of(index, shift, e, round, &va)) wishes.add(va);
    }
  }

  bool at_fork_;
  bool at_exec_;
  std::atomic<std::uint64_t> round_{0};
};

}  // namespace

std::unique_ptr<PreCopyPolicy> make_precopy(PreCopyMode mode) {
  switch (mode) {
    case PreCopyMode::kOff:
      return std::make_unique<NoPreCopy>();
    case PreCopyMode::kFork:
      return std::make_unique<HistoryPreCopy>(true, false);
    case PreCopyMode::kExec:
      return std::make_unique<HistoryPreCopy>(false, true);
    case PreCopyMode::kBoth:
      return std::make_unique<HistoryPreCopy>(true, true);
  }
  return nullptr;
}

}  // namespace enchilada
