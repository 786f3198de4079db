// Trace: a reference string over dense page numbers, as replacement policies read it.
//
// Four bytes a reference: what a replay waits for is memory. Invariant: every page number is below `pages`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace enchilada::lab {

inline constexpr std::uint32_t kNoPage = 0x7fff'ffff;

class Reference {
 public:
  constexpr Reference() = default;
  constexpr Reference(std::uint32_t page, bool write) : bits_(page | (write ? kWrite : 0)) {}
  [[nodiscard]] constexpr std::uint32_t page() const { return bits_ & ~kWrite; }
  [[nodiscard]] constexpr bool is_write() const { return (bits_ & kWrite) != 0; }
  friend constexpr bool operator==(Reference, Reference) = default;

 private:
  static constexpr std::uint32_t kWrite = 0x8000'0000;
  std::uint32_t bits_ = 0;
};

struct Trace {
  std::string name;
  std::uint32_t pages = 0;
  std::vector<Reference> refs;
};

/// Pages that the trace touches: what every policy has to bring in at least once.
inline std::uint64_t distinct_pages(const Trace& trace) {
  std::vector<bool> seen(trace.pages);
  std::uint64_t n = 0;
  for (const Reference ref : trace.refs) {
    if (!seen[ref.page()]) ++n;
    seen[ref.page()] = true;
  }
  return n;
}

}  // namespace enchilada::lab
