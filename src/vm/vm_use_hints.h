// What the engine is told about use to come, and what it makes of it: MADV_DONTNEED (UnneededRule), and a
// sequential stream that leaves pages behind (StreamRule). Reference: freebsd-vm.md §1.9, §1.10.
// Invariant: hints move pages between queues, never contents.
#pragma once

#include <memory>

#include "vm/vm_modes.h"
#include "vm/vm_types.h"

namespace enchilada {

class PageoutOps;
class VmObject;

class StreamRule {
 public:
  virtual ~StreamRule() = default;
  /// A stream through the object has read its largest window, which begins at `window`. No lock held; the
  /// object is kept by paging-in-progress.
  virtual void passed(VmObject& /*object*/, PageIndex /*window*/) {}
};

[[nodiscard]] std::unique_ptr<StreamRule> make_stream_rule(DropBehindMode mode, PageoutOps& ops);

class UnneededRule {
 public:
  virtual ~UnneededRule() = default;
  /// The pages of the range will not be used soon. No lock held but the daemon's run lock; the object is
  /// referenced.
  virtual void unneeded(VmObject& object, PageIndex first, PageCount count) = 0;
};

[[nodiscard]] std::unique_ptr<UnneededRule> make_unneeded_rule(DontNeedMode mode, PageoutOps& ops);

}  // namespace enchilada
