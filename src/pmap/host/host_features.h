// What this kernel offers for the host pmap, and why not when it does not: for `enchilada doctor` and for
// choosing the transport. Probing changes nothing in the process.
#pragma once

#include <cstdint>

namespace enchilada {

struct HostFeatures {
  bool userfaultfd =
      false;          // userfaultfd(UFFD_USER_MODE_ONLY) works and has SIGBUS mode and write protection
  bool move = false;  // UFFDIO_MOVE (Linux 6.8)
  bool write_protect = false;  // UFFDIO_WRITEPROTECT on anonymous memory (Linux 5.7)
  bool sigbus = false;         // faults delivered as SIGBUS to the faulting thread (Linux 4.14)
  bool pagemap = false;        // /proc/self/pagemap can be read
  std::uint64_t features = 0;  // UFFD_FEATURE_* bits that the kernel names
  int error = 0;               // errno of the step that failed, 0 when all is well
  char kernel[128] = {};       // uname release
  char reason[256] = {};       // one line: what is missing, why, and what to change; empty when nothing is
  [[nodiscard]] bool usable() const { return userfaultfd && write_protect && sigbus; }
};

/// Asks the kernel. Needs no privilege. No malloc.
[[nodiscard]] HostFeatures probe_host_features() noexcept;

}  // namespace enchilada
