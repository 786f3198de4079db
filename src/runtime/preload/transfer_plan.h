// How much of one transfer (read, write, recv, send and their kin) is pinned at a time.
//
// Invariant: what all calls of the process pin leaves most of --ram to page in, also when every thread waits
// in a call: a call that may wait for its data or for room takes little, and less the more is pinned.
#pragma once

#include <cstdint>

namespace enchilada::runtime {

struct TransferPlan {
  std::uint64_t piece;  // bytes to pin at a time
  /// The call answers what is there, and waits only when nothing is: after one piece it is over. Going on
  /// could wait where the program's own call would have returned.
  bool short_answer;
};

/// For call nr with these arguments, about `length` bytes.
TransferPlan plan_transfer(long nr, const std::uint64_t* args, std::uint64_t length);

/// May the call wait on its descriptor?
bool may_wait(long nr, const std::uint64_t* args);

}  // namespace enchilada::runtime
