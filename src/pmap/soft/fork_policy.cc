// Forking page tables: not at all, by throwing the parent's away too, entry by entry, or by sharing them.
#include "pmap/soft/fork_policy.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace enchilada {
namespace {

/// The article's: the child starts with empty tables and faults its mappings in. O(1).
class DropAtFork : public ForkPolicy {
 public:
  explicit DropAtFork(SoftShared& shared) : shared_(shared) {}
  void fork(SoftSpace& parent, SoftSpace& child, VirtRange range) override {
    ReadLock guard(parent.family->lock);
    give(parent, child, range);
  }
  void give(SoftSpace& parent, SoftSpace& child, VirtRange /*range*/) override {
    const std::uint64_t before = child.owed;
    child.owed = std::max(before, parent.mappings);  // once, whatever the number of ranges
    shared_.counts.decide(PmapEvent::kForkDropped, child.owed - before);
  }

 private:
  SoftShared& shared_;
};

/// The law of the pmap taken at its word: the parent starts again as well, so nobody need take its right to
/// write from each entry. What its mappings knew is harvested as the page daemon comes by, or when they are
/// reaped.
class ThrowAtFork final : public DropAtFork {
 public:
  ThrowAtFork(SoftShared& shared, PageTables& tables, FamilyKeeper& keeper)
      : DropAtFork(shared), tables_(tables), keeper_(keeper) {}
  bool throw_away(SoftSpace& parent) override {
    WriteLock guard(parent.family->lock);
    if (parent.mappings == 0) return true;
    if (parent.wired != 0 || ~parent.family->slots == 0) return false;
    SoftSpace* const relic = keeper_.take_space();
    if (relic == nullptr) return false;
    if (tables_.cast_off(parent, *relic)) return true;
    keeper_.give_space(*relic);
    return false;
  }

 private:
  PageTables& tables_;
  FamilyKeeper& keeper_;
};

/// pmap_copy() of FreeBSD: entries are copied read-only, unwired and unmarked, while memory lasts.
class CopyAtFork final : public ForkPolicy {
 public:
  CopyAtFork(SoftShared& shared, PageTables& tables) : shared_(shared), tables_(tables) {}
  void fork(SoftSpace& parent, SoftSpace& child, VirtRange range) override NO_THREAD_SAFETY_ANALYSIS {
    WriteLock guard(child.family->lock);
    // While the source is locked no mapping of it can go, so a remove_all() under way will still find the
    // copies.
    if (!parent.family->lock.try_lock_shared()) return;
    give(parent, child, range);
    parent.family->lock.unlock_shared();
  }
  void give(SoftSpace& parent, SoftSpace& child, VirtRange range) override {
    bool room = true;
    std::uint64_t copied = 0;
    std::uint64_t dropped = 0;
    tables_.for_each(parent, range, [&](const SoftMapping& mapping) {
      room = room && tables_.enter(child, mapping.va, mapping.frame, Prot::kRead, Wiring::kNotWired) ==
                         EnterResult::kEntered;
      ++(room ? copied : dropped);
    });
    child.owed += dropped;
    shared_.counts.decide(PmapEvent::kForkCopied, copied);
    shared_.counts.decide(PmapEvent::kForkDropped, dropped);
  }

 private:
  SoftShared& shared_;
  PageTables& tables_;
};

/// Leaf tables are shared; what cannot be goes the other way.
class ShareAtFork final : public ForkPolicy {
 public:
  ShareAtFork(PageTables& tables, FamilyKeeper& keeper, std::unique_ptr<ForkPolicy> otherwise)
      : tables_(tables), keeper_(keeper), otherwise_(std::move(otherwise)) {}

  void fork(SoftSpace& parent, SoftSpace& child, VirtRange range) override NO_THREAD_SAFETY_ANALYSIS {
    TableFamily& before = *child.family;
    bool joined = false;
    {
      WriteLock guard(parent.family->lock);
      joined = &before == parent.family || join(parent, child);
      if (joined) give(parent, child, range);
    }
    if (!joined) return otherwise_->fork(parent, child, range);
    if (&before != child.family) keeper_.abandon(before);
  }
  void give(SoftSpace& parent, SoftSpace& child, VirtRange range) override {
    tables_.share_tables(parent, child, range,
                         [&](VirtRange piece) { otherwise_->give(parent, child, piece); });
  }

 private:
  /// The child, empty and known to nobody else, becomes one of the parent's family, if there is room.
  static bool join(SoftSpace& parent, SoftSpace& child) {
    TableFamily& family = *parent.family;
    if (~family.slots == 0 || child.mappings != 0) return false;
    child.family->slots = 0;
    child.slot = static_cast<unsigned>(std::countr_zero(~family.slots));
    child.family = &family;
    family.members[child.slot] = &child;
    family.slots |= child.bit();
    return true;
  }

  PageTables& tables_;
  FamilyKeeper& keeper_;
  std::unique_ptr<ForkPolicy> otherwise_;
};

std::unique_ptr<ForkPolicy> make_unshared(SoftShared& shared, PageTables& tables, FamilyKeeper& keeper) {
  switch (shared.options.modes.get<ForkTablesMode>()) {
    case ForkTablesMode::kDrop:
      return std::make_unique<DropAtFork>(shared);
    case ForkTablesMode::kThrow:
      return std::make_unique<ThrowAtFork>(shared, tables, keeper);
    case ForkTablesMode::kCopy:
      return std::make_unique<CopyAtFork>(shared, tables);
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<ForkPolicy> make_fork_policy(SoftShared& shared, PageTables& tables, FamilyKeeper& keeper) {
  auto alone = make_unshared(shared, tables, keeper);
  switch (shared.options.modes.get<SharedTablesMode>()) {
    case SharedTablesMode::kOff:
      return alone;
    case SharedTablesMode::kOn:
      return std::make_unique<ShareAtFork>(tables, keeper, std::move(alone));
  }
  return nullptr;
}

}  // namespace enchilada
