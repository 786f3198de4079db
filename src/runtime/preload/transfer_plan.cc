// Which transfers may wait, and what they get.
//
// Why so little for those that wait: the data may come from a thread that needs the frames that they hold.
// Regular files are not waited for by anybody else, so their pieces may be large. Nothing here waits itself:
// a call that may wait is made as the program made it, only shorter, so that interruption, time-outs and
// restarts stay the kernel's business.
#include "runtime/preload/transfer_plan.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>

#include "runtime/preload/live.h"
#include "runtime/preload/syscall_args.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"

namespace enchilada::runtime {
namespace {

/// As much as a pipe holds: more gains nothing, and PIPE_BUF, which must go in one piece, is less.
constexpr std::uint64_t kWaiting = std::uint64_t{64} << 10;

/// Descriptors whose transfers wait and may be cut: pipes, stream sockets and terminals. Others that wait
/// (datagrams, event descriptors, devices) carry messages, which must be taken in one piece.
bool waiting_stream(int fd) {
  struct stat st {};
  if (window_syscall(SYS_fstat, fd, as_long(&st)) != 0) return false;
  if (S_ISFIFO(st.st_mode)) return true;
  if (S_ISSOCK(st.st_mode)) {
    int type = 0;
    socklen_t size = sizeof(type);
    return window_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, as_long(&type), as_long(&size)) == 0 &&
           type == SOCK_STREAM;
  }
  termios terminal{};
  return S_ISCHR(st.st_mode) && window_syscall(SYS_ioctl, fd, TCGETS, as_long(&terminal)) == 0;
}

/// The flags of a socket call; of others none.
std::uint64_t message_flags(long nr, const std::uint64_t* args) {
  if (nr == SYS_recvfrom || nr == SYS_sendto) return args[3];
  return nr == SYS_recvmsg || nr == SYS_sendmsg ? args[2] : 0;
}

bool is_input(long nr) {
  const ArgKind kind = call_spec(nr).args[1].kind;
  return kind == ArgKind::kOut || kind == ArgKind::kIovOut || kind == ArgKind::kMsgOut;
}

/// At most `most`, and at most half of what is left of `share` beside that which is pinned already; at least
/// a page, for the call must be made.
std::uint64_t fair_piece(std::uint64_t most, std::uint64_t share) {
  const PinSet& pins = pin_set();
  if (pins.threads() * most <= share) return most;
  const std::uint64_t pinned = pins.pinned_bytes();
  const std::uint64_t left = share > pinned ? (share - pinned) / 2 & ~kPageMask : 0;
  return std::clamp(left, kPageSize, std::max(most, kPageSize));
}

}  // namespace

bool may_wait(long nr, const std::uint64_t* args) {
  if ((message_flags(nr, args) & MSG_DONTWAIT) != 0) return false;
  const auto fd = static_cast<int>(args[0]);
  const long flags = window_syscall(SYS_fcntl, fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) == 0 && waiting_stream(fd);
}

TransferPlan plan_transfer(long nr, const std::uint64_t* args, std::uint64_t length) {
  if (length <= kPageSize) return {kPageSize, false};
  const std::uint64_t ram = live().tree().config().ram_frames << kPageShift;
  const std::uint64_t waiting = fair_piece(std::min(kWaiting, live().pin_limit()), ram / 8);
  const std::uint64_t moving = fair_piece(live().pin_limit(), ram / 2);
  if (length <= std::min(waiting, moving)) return {length, false};
  if (!may_wait(nr, args)) return {moving, false};
  // What is only peeked at would be there once more for the next piece.
  const bool whole = (message_flags(nr, args) & (MSG_WAITALL | MSG_PEEK)) == MSG_WAITALL;
  return {waiting, is_input(nr) && !whole};
}

}  // namespace enchilada::runtime
