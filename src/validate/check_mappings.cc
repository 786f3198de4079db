// Mappings: what the page tables say is what a fault would find, with no more rights than the entry gives.
#include <set>

#include "pmap/soft/soft_pmap.h"
#include "validate/problems.h"
#include "vm/vm_object.h"
#include "vm/vm_pager.h"

namespace enchilada {
namespace {

/// Where the page at (object, index) is: the first object of the chain that has it, in memory or in the
/// store.
struct Location {
  const VmObject* object = nullptr;  // null: nowhere, it would read as zeros
  FrameNumber frame = kNoFrame;      // kNoFrame: only in the store
};

Location locate(const VmObject& top, PageIndex index) {
  for (const VmObject* object = &top; object != nullptr; object = object->backing) {
    const FrameNumber frame = object->pages.find(index);
    if (frame != kNoFrame) return {object, frame};
    PageIndex copy;
    if (object->pager->find_least(object->handle, index, &copy) && copy == index) return {object, kNoFrame};
    index = index + object->backing_offset;
  }
  return {};
}

void check_mapping(VmSystem& system, const VmMap::EntryView& entry, const SoftMapping& mapping,
                   Report& report) {
  const unsigned long long va = mapping.va.value();
  const unsigned frame = mapping.frame.value();
  if (entry.object == nullptr) {
    report.add("%llx maps frame %u, but its entry has no object", va, frame);
    return;
  }
  const Location place = locate(*entry.object, entry.offset + to_pages(mapping.va - entry.range.start));
  if (place.frame != mapping.frame) {
    report.add("%llx maps frame %u, but a fault would find %d (object %p)", va, frame,
               static_cast<int>(place.frame.value()), name_of(place.object));
    return;
  }
  const Page& page = system.page(mapping.frame);
  if (!page.has(Page::kMapped)) report.add("%llx maps frame %u, which is marked as not mapped", va, frame);
  if (page.queue() == PageQueue::kCache)
    report.add("%llx maps frame %u, which is on the cache queue", va, frame);
  if (entry.prot == Prot::kNone) report.add("%llx is mapped, but no access is allowed", va);
  if (mapping.wired && !page.is_wired()) report.add("%llx: wired mapping of frame %u, not wired", va, frame);
  if (!mapping.writable) return;
  if (!allows(entry.prot, Prot::kWrite)) report.add("%llx is writable, its entry is not", va);
  if (entry.needs_copy) report.add("%llx is writable, but its entry awaits a copy", va);
  if (place.object != entry.object) report.add("%llx is writable and maps a backing object's page", va);
}

void check_map(VmSystem& system, VmMap& map, std::set<std::uint32_t>& mapped, Report& report) {
  auto& pmap = static_cast<SoftPmap&>(map.pmap());
  std::vector<VmMap::EntryView> entries;
  map.for_each_entry([&](const VmMap::EntryView& entry) { entries.push_back(entry); });
  pmap.for_each_mapping([&](const SoftMapping& mapping) {
    mapped.insert(mapping.frame.value());
    for (const VmMap::EntryView& entry : entries) {
      if (entry.range.contains(mapping.va)) return check_mapping(system, entry, mapping, report);
    }
    report.add("%llx maps frame %u, but no entry is there", number(mapping.va.value()),
               mapping.frame.value());
  });
}

}  // namespace

void check_mappings(const Whole& whole, Problems& problems) {
  Report report(problems);
  if (const char* error = whole.pmaps->find_error(); error != nullptr) report.add("page tables: %s", error);
  std::set<std::uint32_t> mapped;
  for (VmMap* map : whole.maps) check_map(whole.system, *map, mapped, report);
  for (const std::uint32_t frame : mapped) {
    const Page& page = whole.system.page(FrameNumber{frame});
    if (page.object == nullptr) report.add("frame %u is mapped, but in no object", frame);
  }
}

}  // namespace enchilada
