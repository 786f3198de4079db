// Swap: blocks used = blocks that objects' metadata names, each named once.
#include <set>
#include <vector>

#include "swap/swap_pager.h"
#include "swap/swap_space.h"
#include "validate/problems.h"
#include "vm/vm_object.h"

namespace enchilada {

void check_swap(const Whole& whole, Problems& problems) {
  Report report(problems);
  std::set<std::uint32_t> blocks;
  std::vector<VmObject*> objects;  // first: the zone's lock comes after the pager's
  whole.system.objects().for_each([&](VmObject& object) {
    if (object.anonymous()) objects.push_back(&object);
  });
  for (VmObject* each : objects) {
    VmObject& object = *each;
    std::uint64_t copies = 0;
    whole.pager->visit(object.handle, [&](PageIndex index, const SwapCopy& copy) {
      ++copies;
      if (index.value() >= object.size.value()) {
        report.add("object %p: swap copy of page %llu beyond its size %llu", name_of(&object),
                   number(index.value()), number(object.size.value()));
      }
      if (copy.on_device() && !blocks.insert(copy.block.value()).second) {
        report.add("block %u belongs to two pages", copy.block.value());
      }
      return true;
    });
    if (copies != object.handle.pages) {
      report.add("object %p: %llu swap copies, its handle says %llu", name_of(&object), number(copies),
                 number(object.handle.pages));
    }
    if (!whole.pager->verify(object.handle))
      report.add("object %p: its swap metadata is broken", name_of(&object));
  }
  if (whole.space == nullptr) return;
  if (!whole.space->verify()) report.add("the swap space is broken");
  const std::uint64_t used = (whole.space->used() - whole.pager->given_up()).value();
  if (used != blocks.size()) {
    report.add("%llu swap blocks are used, objects name %zu", number(used), blocks.size());
  }
}

}  // namespace enchilada
