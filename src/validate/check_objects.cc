// Objects: pages, chains and references, counted from the outside.
#include <map>

#include "validate/problems.h"
#include "vm/vm_map_image.h"
#include "vm/vm_object.h"

namespace enchilada {
namespace {

struct Seen {
  std::uint64_t from_maps = 0;
  std::uint64_t as_backing = 0;
};

std::uint64_t count_pages(VmSystem& system, const VmObject& object, Report& report) {
  std::uint64_t n = 0;
  VmRadix::Item item;
  for (PageIndex at; object.pages.find_least(at, &item); at = item.index + PageCount{1}) {
    ++n;
    const Page& page = system.page(item.frame);
    if (page.object != &object || page.pindex != item.index) {
      report.add("object %p has frame %u at %llu, which says object %p, %llu", name_of(&object),
                 item.frame.value(), number(item.index.value()), name_of(page.object),
                 number(page.pindex.value()));
    }
    if (item.index.value() >= object.size.value()) {
      report.add("object %p: page %llu beyond its size %llu", name_of(&object), number(item.index.value()),
                 number(object.size.value()));
    }
  }
  return n;
}

/// A chain longer than there are objects has a cycle.
void check_chain(const VmObject& object, std::size_t objects, Report& report) {
  std::size_t depth = 0;
  for (const VmObject* o = &object; o != nullptr; o = o->backing) {
    if (++depth > objects) {
      report.add("object %p: its backing chain has a cycle or leaves the zone", name_of(&object));
      return;
    }
  }
}

void check_references(const VmObject& object, const Seen& seen, Report& report) {
  if (object.shadow_count != seen.as_backing || object.shadows.size() != seen.as_backing) {
    report.add("object %p: shadow_count %u, list of %zu, but %llu objects shadow it", name_of(&object),
               object.shadow_count, object.shadows.size(), number(seen.as_backing));
  }
  const std::uint64_t known = seen.from_maps + seen.as_backing;
  // Files and frames that stay have other users too.
  if (object.anonymous() ? object.refs() != known : object.refs() < known) {
    report.add("object %p: ref_count %u, but %llu entries (images' too) and %llu shadows", name_of(&object),
               object.refs(), number(seen.from_maps), number(seen.as_backing));
  }
  if (!object.anonymous() && (object.backing != nullptr || object.one_mapping())) {
    report.add("object %p: not anonymous, but with a backing object or ONEMAPPING", name_of(&object));
  }
  if (object.kind == ObjectKind::kFile && object.size.value() != object.copies()) {
    report.add("file %p: size %llu, but its pager has %llu pages", name_of(&object),
               number(object.size.value()), number(object.copies()));
  }
  const bool fixed = object.kind == ObjectKind::kDevice || object.kind == ObjectKind::kPhysical;
  if (fixed && object.pages.count() != object.size.value()) {
    report.add("object %p: %llu of %llu frames that should stay are there", name_of(&object),
               number(object.pages.count()), number(object.size.value()));
  }
  if (object.pager == nullptr) report.add("object %p: no pager", name_of(&object));
  if (object.paging()) report.add("object %p: paging in progress at rest", name_of(&object));
  if (object.dead()) report.add("object %p: dead, but still in the zone's list", name_of(&object));
}

}  // namespace

void check_objects(const Whole& whole, Problems& problems) {
  Report report(problems);
  std::map<const VmObject*, Seen> objects;
  whole.system.objects().for_each([&](VmObject& object) { objects[&object]; });
  for (const auto& [object, seen] : objects) {
    if (object->backing == nullptr) continue;
    const auto backing = objects.find(object->backing);
    if (backing == objects.end()) {
      report.add("object %p: its backing object is gone", name_of(object));
    } else {
      ++backing->second.as_backing;
    }
  }
  for (VmMap* map : whole.maps) {
    map->for_each_entry([&](const VmMap::EntryView& entry) {
      if (entry.object == nullptr) return;
      const auto found = objects.find(entry.object);
      if (found == objects.end()) {
        report.add("an entry at %llx maps an object that is gone", number(entry.range.start.value()));
        return;
      }
      ++found->second.from_maps;
      if (!entry.object->anonymous()) return;  // a mapping may reach beyond a file's end
      if (entry.offset.value() + to_pages(entry.range.size()).value() > entry.object->size.value()) {
        report.add("an entry at %llx reaches beyond its object's end", number(entry.range.start.value()));
      }
    });
  }
  for (const MapImage* image : whole.images) {
    image->for_each_object([&](VmObject& object) {
      const auto found = objects.find(&object);
      if (found == objects.end()) {
        report.add("an image refers to an object that is gone: %p", name_of(&object));
      } else {
        ++found->second.from_maps;
      }
    });
  }
  std::uint64_t resident = 0;
  for (const auto& [object, seen] : objects) {
    const std::uint64_t pages = count_pages(whole.system, *object, report);
    if (pages != object->pages.count()) {
      report.add("object %p: %llu pages, count says %llu", name_of(object), number(pages),
                 number(object->pages.count()));
    }
    resident += pages;
    check_chain(*object, objects.size(), report);
    check_references(*object, seen, report);
  }
  std::uint64_t owned = 0;
  whole.system.for_each_page([&](FrameNumber, Page& page) { owned += page.object != nullptr ? 1 : 0; });
  if (owned != resident) {
    report.add("%llu pages say that they are in objects, objects have %llu", number(owned), number(resident));
  }
}

}  // namespace enchilada
