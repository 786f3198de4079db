// Every search structure that a map can have: the modes, and the list of the laboratory. Tests run over all.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "lab/baselines/map_list.h"
#include "vm/vm_map_index.h"

namespace enchilada::test {

struct NamedMapIndex {
  std::string name;  // as gtest wants it: letters, digits, '_'
  MapIndexFactory make;
};

inline std::vector<NamedMapIndex> all_map_indexes() {
  std::vector<NamedMapIndex> all;
  for (std::size_t i = 0; i < ModeOf<MapIndexMode>::kNames.size(); ++i) {
    std::string name(ModeOf<MapIndexMode>::kNames[i]);
    std::replace(name.begin(), name.end(), '-', '_');
    all.push_back({name, map_index_factory(static_cast<MapIndexMode>(i))});
  }
  all.push_back({"list", ListMapIndex::make});
  return all;
}

/// For INSTANTIATE_TEST_SUITE_P.
inline std::string name_of_index(const testing::TestParamInfo<NamedMapIndex>& info) {
  return info.param.name;
}
inline void PrintTo(const NamedMapIndex& index, std::ostream* out) {
  *out << index.name;
}

}  // namespace enchilada::test
