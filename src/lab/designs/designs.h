// The registry of designs: what the laboratory can run, by name. Invariant: names are unique; everything that
// walks designs (tests, experiments, the command) walks this.
#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "lab/vm_design.h"

namespace enchilada::lab {

struct DesignEntry {
  std::string_view name;
  std::string_view when;
  std::string_view what;
  std::unique_ptr<VmDesign> (*make)(std::string_view name, const DesignOptions& options);
};

[[nodiscard]] std::span<const DesignEntry> designs();
/// Null: no such design.
[[nodiscard]] const DesignEntry* find_design(std::string_view name);
/// For names that are known to exist.
[[nodiscard]] std::unique_ptr<VmDesign> make_design(std::string_view name, const DesignOptions& options);

}  // namespace enchilada::lab
