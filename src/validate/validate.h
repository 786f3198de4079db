// Whole-structure checkers: walk an engine at rest and say what does not fit together.
//
// What each part can see of itself it checks itself (VmMap::validate(), VmSystem::validate(),
// SoftPmapSystem:: find_error()); here is what only the whole shows: every frame is in one place; page, radix
// tree and queue agree; references of objects are those that maps and shadows hold; every mapping shows the
// page that a fault would find; each swap block belongs to one page. Invariant: the engine is only looked at.
// It must be at rest: no thread in it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "vm/vm_map.h"
#include "vm/vm_system.h"

namespace enchilada {

class MapImage;
class SwapPager;
class SwapSpace;
class SoftPmapSystem;

/// What there is to look at. `maps` must be all maps of the engine. Null: that part is left out.
struct Whole {
  VmSystem& system;
  std::span<VmMap* const> maps;
  SoftPmapSystem* pmaps = nullptr;
  SwapPager* pager = nullptr;
  const SwapSpace* space = nullptr;           // of which this engine is the only user
  std::span<const MapImage* const> images{};  // all images of those maps
};

/// Each function adds one line per problem, at most about ten.
using Problems = std::vector<std::string>;

/// Frames: granted = free + in objects + in limbo; no frame in two places; queue, wiring and busy state fit.
void check_frames(const Whole& whole, Problems& problems);
/// Objects: pages lie where their radix tree says and below the object's size; shadow lists and backing
/// chains; references counted from maps and shadows.
void check_objects(const Whole& whole, Problems& problems);
/// Mappings: entry, right, page and frame of every valid page-table entry (soft pmaps only).
void check_mappings(const Whole& whole, Problems& problems);
/// Swap: each block belongs to one page of one object, and the space knows.
void check_swap(const Whole& whole, Problems& problems);

/// All of them, and the parts' own checks (which stop the program). Empty: all is well.
[[nodiscard]] Problems find_problems(const Whole& whole);
/// The problems as text, one per line.
[[nodiscard]] std::string to_text(const Problems& problems);

}  // namespace enchilada
