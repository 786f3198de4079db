// The policies. Invariants: see vm_collapse.h.
#include "vm/vm_collapse.h"

#include "vm/vm_object.h"

namespace enchilada {
namespace {

/// The article, and FreeBSD until about 1998: after every copy-on-write fault, whatever it costs, and when an
/// object loses a reference.
class ArticleCollapse final : public CollapsePolicy {
 public:
  [[nodiscard]] bool wants(CollapseMoment moment, VmObject&) const override {
    switch (moment) {
      case CollapseMoment::kDereference:
      case CollapseMoment::kCopy:
        return true;
      case CollapseMoment::kFork:
      case CollapseMoment::kRemoval:
      case CollapseMoment::kCoalesce:
        return false;
    }
    return false;
  }
};

/// FreeBSD 12 and 14: never in a fault.
class ModernCollapse final : public CollapsePolicy {
 public:
  [[nodiscard]] bool wants(CollapseMoment moment, VmObject&) const override {
    return moment != CollapseMoment::kCopy;
  }
};

/// After a copy only when the numbers of pages say that it may work; else as today, but not at removal.
class GuardedCollapse final : public CollapsePolicy {
 public:
  [[nodiscard]] bool wants(CollapseMoment moment, VmObject& object) const override {
    switch (moment) {
      case CollapseMoment::kCopy:
        return promising(object);
      case CollapseMoment::kDereference:
      case CollapseMoment::kFork:
      case CollapseMoment::kCoalesce:
        return true;
      case CollapseMoment::kRemoval:
        return false;
    }
    return false;
  }

 private:
  static bool promising(VmObject& object) {
    ReadLock guard(object.lock);
    VmObject* const backing = object.backing;
    if (backing == nullptr || !backing->anonymous()) return false;
    ReadLock backing_guard(backing->lock);
    const std::uint64_t have = object.pages.count() + object.copies();
    const std::uint64_t hidden = backing->pages.count() + backing->copies();
    const bool full = have >= object.size.value();
    return backing->refs() == 1 || full || (have >= hidden && have >= object.bypass_retry);
  }
};

}  // namespace

std::unique_ptr<CollapsePolicy> CollapsePolicy::make(CollapseMode mode) {
  switch (mode) {
    case CollapseMode::kGuarded:
      return std::make_unique<GuardedCollapse>();
    case CollapseMode::kArticle:
      return std::make_unique<ArticleCollapse>();
    case CollapseMode::kModern:
      return std::make_unique<ModernCollapse>();
  }
  return nullptr;
}

SourceFates SourceFates::of(CowMoveMode move, DeadPagesMode dead) {
  const SourceFate gone = move == CowMoveMode::kOn ? SourceFate::kMoves : SourceFate::kFreed;
  SourceFates fates{SourceFate::kStays, SourceFate::kStays};
  if (dead == DeadPagesMode::kReclaim) fates = {gone, gone};
  if (move == CowMoveMode::kOn) fates.last_owner = SourceFate::kMoves;
  return fates;
}

}  // namespace enchilada
