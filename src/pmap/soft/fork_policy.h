// ForkPolicy: what of the parent's mappings the child gets at fork. A seam: nothing is always right (the law
// of the pmap), and then each costs the child one soft fault. And what the parent keeps.
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
  /// Before a fork: throws all mappings of the parent away, in O(1). False: it keeps them, nothing was done.
  virtual bool throw_away(SoftSpace& parent) {
    (void)parent;
    return false;
  }
};

/// Whoever keeps families and spaces.
class FamilyKeeper {
 public:
  /// The family has lost its only member to another.
  virtual void abandon(TableFamily& family) = 0;
  /// An empty space that is of no family yet; nullptr: none to be had.
  virtual SoftSpace* take_space() = 0;
  /// It is empty, and no family knows it any more.
  virtual void give_space(SoftSpace& space) = 0;

 protected:
  ~FamilyKeeper() = default;
};

/// By the modes in shared.options.
std::unique_ptr<ForkPolicy> make_fork_policy(SoftShared& shared, PageTables& tables, FamilyKeeper& keeper);

}  // namespace enchilada
