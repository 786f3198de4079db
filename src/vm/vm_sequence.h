// SequenceTable: remembers the last few clusters of an object, so that faults that follow each other are
// recognised even when several streams run through one object (a malloc arena is one object). Invariant:
// hints only; any content is right. Lock: the object's, exclusively.
#pragma once

#include <array>
#include <cstdint>

#include "vm/vm_types.h"

namespace enchilada {

class SequenceTable {
 public:
  struct Sequence {
    PageIndex low;  // the last cluster, [low, high)
    PageIndex high;
    std::uint32_t window = 0;   // its width; 0 = entry unused
    std::uint32_t pending = 0;  // pages of it that nobody asked for and that are not confirmed yet
  };

  /// The sequence that a fault at `index` continues upwards or downwards; null when there is none.
  Sequence* continued_by(PageIndex index) {
    for (Sequence& s : sequences_) {
      if (s.window != 0 && (s.high == index || s.low == index + PageCount{1})) return &s;
    }
    return nullptr;
  }
  [[nodiscard]] const Sequence* continued_by(PageIndex index) const {
    return const_cast<SequenceTable*>(this)->continued_by(index);
  }
  /// Records a cluster: in the place of what it continues, else in that of the oldest.
  void record(Sequence* continued, const Sequence& cluster) {
    *(continued != nullptr ? continued : &sequences_[next_++ % sequences_.size()]) = cluster;
  }
  void clear() { *this = SequenceTable(); }

 private:
  std::array<Sequence, 4> sequences_;
  std::uint32_t next_ = 0;
};

}  // namespace enchilada
