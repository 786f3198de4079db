// Shootdown: whom one operation must tell that translations became invalid.
//
// An operation makes one, changes entries, and lets it go: then a single shoot-down is charged, with the
// number of address spaces that it reaches. Invariant: the sink hears of each range before the operation
// returns. A table that several spaces share names all of them (TableInfo::users).
#pragma once

#include "pmap/soft/soft_counts.h"
#include "pmap/soft/table_family.h"

namespace enchilada {

class Shootdown {
 public:
  explicit Shootdown(SoftCounts& counts) : counts_(counts) {}
  ~Shootdown() {
    if (targets_ == 0) return;
    counts_.note(PmapEvent::kShootdown);
    counts_.note(PmapEvent::kShootdownTarget, targets_);
  }
  Shootdown(const Shootdown&) = delete;
  Shootdown& operator=(const Shootdown&) = delete;

  /// `entries` translations in the range changed for these members.
  void add(const TableFamily& family, std::uint64_t members, VirtRange range, std::uint64_t entries = 1) {
    members &= ~family.cast_off;  // no CPU runs in them
    if (counts_.events == nullptr || members == 0) return;
    counts_.note(PmapEvent::kInvalidation, entries);
    std::array<SpaceId, TableFamily::kMembers> ids;
    std::size_t n = 0;
    family.for_each_member(members, [&](const SoftSpace& space) { ids[n++] = space.id; });
    for (std::size_t i = 0; i < n; ++i) count_target(ids[i]);
    counts_.events->invalidated(std::span(ids).first(n), range);
  }

 private:
  /// Each space counts once, as far as is remembered: a batch that reaches more spaces counts some again.
  void count_target(SpaceId id) {
    const std::size_t known = targets_ < seen_.size() ? targets_ : seen_.size();
    for (std::size_t i = 0; i < known; ++i) {
      if (seen_[i] == id) return;
    }
    if (known < seen_.size()) seen_[known] = id;
    ++targets_;
  }

  SoftCounts& counts_;
  std::array<SpaceId, 64> seen_;
  std::size_t targets_ = 0;
};

}  // namespace enchilada
