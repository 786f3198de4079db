// ForkPolicy: what of the parent's mappings the child gets at fork. A seam: nothing is always right (the law
// of the pmap), and then each costs the child one soft fault.
#pragma once

#include <memory>

#include "pmap/soft/page_tables.h"

namespace enchilada {

class ForkPolicy {
 public:
  virtual ~ForkPolicy() = default;
  /// `child` is empty or was given other ranges of the same parent; nobody else knows it. Nothing is locked.
  virtual void fork(SoftSpace& parent, SoftSpace& child, VirtRange range) = 0;
  /// The same with both locked exclusively.
  virtual void give(SoftSpace& parent, SoftSpace& child, VirtRange range) = 0;
};

/// Whoever keeps the families: one has lost its only member to another.
class FamilyKeeper {
 public:
  virtual void abandon(TableFamily& family) = 0;

 protected:
  ~FamilyKeeper() = default;
};

/// By the modes in shared.options.
std::unique_ptr<ForkPolicy> make_fork_policy(SoftShared& shared, PageTables& tables, FamilyKeeper& keeper);

}  // namespace enchilada
