// Foreign ranges: kernel mappings (files, shared memory, executable code) at addresses inside the window.
//
// The program put them there with MAP_FIXED, or made managed memory executable. The engine's map holds a
// kForeign entry for each, so the addresses stay taken; the mapping itself is the kernel's. Invariant: a
// range is in the table if and only if the kernel mapping at it is not the window's own. Callers are inside
// the engine (gate held).
#pragma once

#include "base/units.h"

namespace enchilada::runtime {

/// mmap(MAP_FIXED) of something that is not managed over window addresses. Answers as mmap.
long install_foreign(VirtRange range, int prot, int flags, int fd, std::uint64_t offset);

/// The range is about to be managed memory (or free) again: takes the kernel's mappings out of it.
void release_foreign(VirtRange range);

[[nodiscard]] bool has_foreign(VirtRange range);
/// The first foreign range that ends above `from`; one at the end of the address space if there is none.
[[nodiscard]] VirtRange next_foreign(VirtAddr from);
/// Every page of it is foreign.
[[nodiscard]] bool only_foreign(VirtRange range);
/// After a kernel mprotect over a mixed range: notes the foreign parts' new protection and makes the window's
/// own parts read-write again.
void note_foreign_protection(VirtRange range, int prot);
/// After the whole window was PROT_NONE for a fork: the foreign ranges' own protections again.
void reapply_foreign_protection();

}  // namespace enchilada::runtime
