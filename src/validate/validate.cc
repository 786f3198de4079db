// All checks in one call.
#include "validate/validate.h"

namespace enchilada {

Problems find_problems(const Whole& whole) {
  Problems problems;
  check_frames(whole, problems);
  check_objects(whole, problems);
  if (whole.pmaps != nullptr) check_mappings(whole, problems);
  if (whole.pager != nullptr) check_swap(whole, problems);
  if (!problems.empty())
    return problems;  // the parts' own checks would stop the program before these are shown
  for (VmMap* map : whole.maps) map->validate();
  whole.system.validate();
  return problems;
}

std::string to_text(const Problems& problems) {
  std::string text;
  for (const std::string& problem : problems) text += problem + "\n";
  return text;
}

}  // namespace enchilada
