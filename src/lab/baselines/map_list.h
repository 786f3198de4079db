// ListMapIndex: no index at all: the list of entries is walked, from the entry found last or from the start.
//
// What FreeBSD had until 4.x and the mail of 2000 complains of ("O(N)" maps): right for the handful of
// entries that most programs have, and it loses everywhere else. Stands behind VmSystemConfig::map_index, not
// behind a mode. Invariants: MapIndex's; the map's own neighbour links are all there is.
#pragma once

#include <atomic>

#include "vm/vm_map_index.h"

namespace enchilada {

class ListMapIndex final : public MapIndex {
 public:
  static std::unique_ptr<MapIndex> make(const MapIndexParts&) { return std::make_unique<ListMapIndex>(); }

  void insert(MapEntry* entry) override;
  void erase(MapEntry* entry) override;
  void gap_changed(MapEntry*) override {}
  [[nodiscard]] MapEntry* find_at_or_before(VirtAddr address, std::uint64_t* visited) const override;
  [[nodiscard]] MapEntry* next_gap(MapEntry* entry, std::uint64_t length) const override;
  std::size_t validate() const override;

 private:
  MapEntry* header_ = nullptr;                    // the first one that came
  mutable std::atomic<MapEntry*> hint_{nullptr};  // lookups under the shared lock race to set it
};

}  // namespace enchilada
