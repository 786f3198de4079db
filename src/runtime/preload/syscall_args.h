// What each system call's arguments point to: the table by which the SIGSYS handler knows what to make
// resident.
//
// Invariant: describing too much is harmless (a probe stops quietly at the first page that is not there),
// describing too little makes the kernel answer EFAULT. Calls that are not in the table get kGuess for every
// argument.
#pragma once

#include <cstdint>

namespace enchilada::runtime {

enum class ArgKind : std::uint8_t {
  kNone,
  kString,  // NUL-terminated, read by the kernel
  kIn,      // bytes that the kernel reads
  kOut,     // bytes that the kernel writes
  kInOut,
  kIovIn,  // array of iovec whose bytes the kernel reads; length in elements
  kIovOut,
  kMsgIn,   // msghdr, sendmsg
  kMsgOut,  // msghdr, recvmsg
  kMmsgIn,  // array of mmsghdr
  kMmsgOut,
  kScan,   // bytes read and written, and every word in them that points into the window too (ioctl)
  kGuess,  // not known: like kScan, for what the call could reach
};

struct ArgSpec {
  ArgKind kind = ArgKind::kNone;
  std::int8_t length_arg = -1;  // >= 0: length is args[length_arg] * unit
  std::uint16_t unit = 0;       // bytes, or bytes per element
};

/// How the call treats a transfer that is larger than may be pinned at once.
enum class Transfer : std::uint8_t {
  kWhole,     // pin what it says
  kStream,    // args[1] is a buffer of args[2] bytes which may be done in pieces (read, write, send, recv)
  kStreamAt,  // the same with a file offset in args[3]
};

struct CallSpec {
  ArgSpec args[6];
  Transfer transfer = Transfer::kWhole;
};

inline constexpr int kSyscallTableSize = 470;

/// The row of system call nr; a row of kGuess for numbers that the table does not know.
const CallSpec& call_spec(long nr);

/// Which of its six registers the call takes an address from (bit i: argument i); all six for numbers that
/// nobody here knows. Other registers hold leftovers, which may look like window addresses.
unsigned address_arguments(long nr);

}  // namespace enchilada::runtime
