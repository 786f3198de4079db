// Making system calls work on memory that may be paged out: pinning, transfers in pieces, interruptions.
#include "runtime/preload/user_syscall.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/single_threaded.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/check.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/process.h"
#include "runtime/preload/program_filter.h"
#include "runtime/preload/resource_limits.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/stack_switch.h"
#include "runtime/preload/syscall_args.h"
#include "runtime/preload/syscall_filter.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"
#include "runtime/preload/transfer_plan.h"

extern "C" {
extern const char enchilada_gadget_begin[], enchilada_gadget_end[], enchilada_gadget_target[];
extern const char enchilada_gadget_checked[], enchilada_gadget_checked_call[],
    enchilada_gadget_checked_done[], enchilada_gadget_checked_end[];
struct GadgetFrame;
__attribute__((visibility("hidden"))) void enchilada_call_done(GadgetFrame* frame);
}

/// What the user gadget pushed; see gadget.S.
struct GadgetFrame {
  std::uint64_t rbp, r9, r8, r10, rdx, rsi, rdi, rax, flags, resume;
};

namespace enchilada::runtime {
namespace {

using layout::in_window;

constexpr std::uint64_t kStringLimit = 2 * kPageSize;

bool fault_in(VirtAddr at, Access access) {
  if (on_managed_stack()) return off_managed_stack([=] { return long{fault_in(at, access)}; }) != 0;
  const SignalsBlocked blocked;
  return live().fault(at, access) == FaultResult::kResolved;
}

/// Pins and makes resident what one call needs.
class Pinner {
 public:
  explicit Pinner(ThreadRecord& thread, std::uint64_t key)
      : thread_(thread), key_(key), depth_(pin_set().depth(thread.pins)) {}

  [[nodiscard]] unsigned depth_before() const { return depth_; }

  /// Pins what is in the window of [address, address+length).
  void need(std::uint64_t address, std::uint64_t length, Access access) {
    if (length == 0 || !in_window(address)) return;
    const std::uint64_t end =
        std::min(address + std::min(length, live().pin_limit()), layout::kWindow.end.value());
    if (count_ == kMost) flush();
    items_[count_++] = {{VirtAddr{address}, VirtAddr{end}}, access};
  }

  /// Publishes the pins, then faults in what is not there. Stops quietly where the program has no memory: the
  /// call will answer EFAULT as it would natively.
  void flush() {
    VirtRange ranges[kMost];
    for (unsigned i = 0; i < count_; ++i) ranges[i] = items_[i].range;
    for (unsigned i = 0; i < count_; i += PinSet::kRanges) {
      pin_set().pin(thread_.pins, {ranges + i, std::min(PinSet::kRanges, count_ - i)}, key_);
    }
    for (unsigned i = 0; i < count_; ++i) make_resident(items_[i].range, items_[i].access);
    count_ = 0;
  }

  void string(std::uint64_t address) {
    if (!in_window(address)) return;
    need(address, kStringLimit, Access::kRead);
    --count_;  // resident only as far as the string goes
    pin_set().pin(thread_.pins, {&items_[count_].range, 1}, key_);
    for (std::uint64_t at = address; at < address + kStringLimit;) {
      const std::uint64_t page_end = (at | kPageMask) + 1;
      if (!make_resident({VirtAddr{at}, VirtAddr{page_end}}, Access::kRead)) return;
      for (; at < page_end; ++at) {
        if (*reinterpret_cast<const volatile char*>(at) == 0) return;
      }
    }
  }

 private:
  struct Item {
    VirtRange range;
    Access access;
  };

  static bool make_resident(VirtRange range, Access access) {
    const VirtRange pages{page_floor(range.start), page_ceil(range.end)};
    if (live().host().resident(pages, access)) return true;
    for (VirtAddr at = pages.start; at < pages.end; at = at + ByteCount{kPageSize}) {
      if (live().host().resident({at, at + ByteCount{kPageSize}}, access)) continue;
      if (!fault_in(at, access)) return false;
    }
    return true;
  }

  static constexpr unsigned kMost = 12;
  ThreadRecord& thread_;
  std::uint64_t key_;
  unsigned depth_;
  unsigned count_ = 0;
  Item items_[kMost];
};

void need_iov(Pinner& pinner, std::uint64_t array, std::uint64_t count, Access access) {
  constexpr std::uint64_t kIovLimit = 1024;
  count = std::min(count, kIovLimit);
  pinner.need(array, count * sizeof(iovec), Access::kRead);
  pinner.flush();
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t base = 0;
    std::uint64_t length = 0;
    if (!peek(array + i * 16, &base) || !peek(array + i * 16 + 8, &length)) return;
    pinner.need(base, length, access);
  }
}

void need_msg(Pinner& pinner, std::uint64_t address, Access access, std::uint64_t extra = 0) {
  pinner.need(address, sizeof(msghdr) + extra, Access::kWrite);
  pinner.flush();
  std::uint64_t words[sizeof(msghdr) / 8];
  for (std::size_t i = 0; i < sizeof(msghdr) / 8; ++i) {
    if (!peek(address + i * 8, &words[i])) return;
  }
  pinner.need(words[0], words[1] & 0xffff'ffff, access);  // msg_name, msg_namelen
  pinner.need(words[4], words[5], access);                // msg_control, msg_controllen
  need_iov(pinner, words[2], words[3], access);           // msg_iov, msg_iovlen
}

void need_mmsg(Pinner& pinner, std::uint64_t array, std::uint64_t count, Access access) {
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(count, 64); ++i) {
    need_msg(pinner, array + i * sizeof(mmsghdr), access, sizeof(mmsghdr) - sizeof(msghdr));
  }
}

/// A structure of unknown shape: itself, and whatever its words point to in the window.
void need_scan(Pinner& pinner, std::uint64_t address, std::uint64_t length) {
  pinner.need(address, length, Access::kWrite);
  pinner.flush();
  length = std::min<std::uint64_t>(length, kPageSize);
  unsigned found = 0;
  for (std::uint64_t at = address & ~std::uint64_t{7}; at + 8 <= address + length && found < 6; at += 8) {
    std::uint64_t word = 0;
    if (!peek(at, &word)) return;
    if (!in_window(word)) continue;
    ++found;
    pinner.need(word, kPageSize, Access::kWrite);
  }
}

void need_arg(Pinner& pinner, const ArgSpec& spec, const std::uint64_t* args, std::uint64_t value) {
  const std::uint64_t length =
      spec.length_arg >= 0 ? args[spec.length_arg] * spec.unit : std::uint64_t{spec.unit};
  switch (spec.kind) {
    case ArgKind::kNone:
      return;
    case ArgKind::kString:
      return pinner.string(value);
    case ArgKind::kIn:
      return pinner.need(value, length, Access::kRead);
    case ArgKind::kOut:
    case ArgKind::kInOut:
      return pinner.need(value, length, Access::kWrite);
    case ArgKind::kIovIn:
      return need_iov(pinner, value, args[spec.length_arg], Access::kRead);
    case ArgKind::kIovOut:
      return need_iov(pinner, value, args[spec.length_arg], Access::kWrite);
    case ArgKind::kMsgIn:
      return need_msg(pinner, value, Access::kRead);
    case ArgKind::kMsgOut:
      return need_msg(pinner, value, Access::kWrite);
    case ArgKind::kMmsgIn:
      return need_mmsg(pinner, value, args[spec.length_arg], Access::kRead);
    case ArgKind::kMmsgOut:
      return need_mmsg(pinner, value, args[spec.length_arg], Access::kWrite);
    case ArgKind::kScan:
    case ArgKind::kGuess:
      if (in_window(value) || spec.kind == ArgKind::kScan) need_scan(pinner, value, length);
      return;
  }
}

/// Pins of a thread before and after those of one call.
struct PinDepths {
  unsigned before;
  unsigned after;
};

/// Pins all that call nr needs.
PinDepths pin_call(ThreadRecord& thread, std::uint64_t nr, const std::uint64_t* args, std::uint64_t key) {
  Pinner pinner(thread, key);
  const CallSpec& spec = call_spec(static_cast<long>(nr));
  for (unsigned i = 0; i < 6; ++i) need_arg(pinner, spec.args[i], args, args[i]);
  pinner.flush();
  return {pinner.depth_before(), pin_set().depth(thread.pins)};
}

/// Splits a transfer that is larger than may be pinned, or shortens it.
void cut_into_pieces(PendingCall& call) {
  const CallSpec& spec = call_spec(static_cast<long>(call.nr));
  call.piece = call.left = call.done = 0;
  if (spec.transfer == Transfer::kWhole || !in_window(call.args[1])) return;
  const TransferPlan plan = plan_transfer(static_cast<long>(call.nr), call.args, call.args[2]);
  if (call.args[2] <= plan.piece) return;
  call.moves_offset = spec.transfer == Transfer::kStreamAt;
  call.piece = plan.piece;
  call.left = plan.short_answer ? 0 : call.args[2] - plan.piece;
  call.args[2] = plan.piece;
}

/// Advances to the next piece. False: the transfer is over (result is the answer for the program).
bool next_piece(PendingCall& call, long* result) {
  if (call.piece == 0) return false;
  if (*result < 0) {
    if (call.done != 0) *result = static_cast<long>(call.done);
    return false;
  }
  call.done += static_cast<std::uint64_t>(*result);
  if (static_cast<std::uint64_t>(*result) < call.piece || call.left == 0) {
    *result = static_cast<long>(call.done);
    return false;
  }
  call.args[1] += call.piece;
  if (call.moves_offset) call.args[3] += call.piece;
  call.piece = std::min(call.left, call.piece);
  call.left -= call.piece;
  call.args[2] = call.piece;
  return true;
}

std::uint64_t arg_of(const ucontext_t& context, unsigned i) {
  static constexpr int kRegisters[6] = {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8, REG_R9};
  return static_cast<std::uint64_t>(context.uc_mcontext.gregs[kRegisters[i]]);
}

bool is_vectored(long nr) {
  return nr == SYS_readv || nr == SYS_writev || nr == SYS_preadv || nr == SYS_pwritev || nr == SYS_preadv2 ||
         nr == SYS_pwritev2;
}

/// Where a vectored transfer stands: the element under way and how much of it is done.
struct VectorCursor {
  std::uint64_t array;
  std::uint64_t count;
  std::uint64_t element = 0;
  std::uint64_t done = 0;
};

/// The next piece of a vector: few elements, few bytes. Returns its bytes; *pieces is the number of elements,
/// 0 at the end. False: the array is not readable.
bool cut_vector(VectorCursor& cursor, std::uint64_t limit, iovec* out, unsigned most, unsigned* pieces,
                std::uint64_t* bytes) {
  *pieces = 0;
  *bytes = 0;
  while (cursor.element < cursor.count && *pieces < most && *bytes < limit) {
    std::uint64_t base = 0;
    std::uint64_t length = 0;
    const std::uint64_t at = cursor.array + cursor.element * sizeof(iovec);
    if (!peek(at, &base) || !peek(at + 8, &length)) return false;
    const std::uint64_t part = std::min(length - cursor.done, limit - *bytes);
    if (part != 0) out[(*pieces)++] = {reinterpret_cast<void*>(base + cursor.done), part};
    *bytes += part;
    cursor.done += part;
    if (cursor.done < length) continue;
    ++cursor.element;
    cursor.done = 0;
  }
  return true;
}

/// What a vector transfers; stops counting beyond what any plan allows.
std::uint64_t vector_bytes(std::uint64_t array, std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count && sum <= live().pin_limit(); ++i) {
    std::uint64_t length = 0;
    if (!peek(array + i * sizeof(iovec) + 8, &length)) break;
    sum += length;
  }
  return sum;
}

/// Sends the call to the user gadget: the handler returns into it.
void go_to_gadget(ucontext_t& context, std::uint64_t nr, const std::uint64_t* args) {
  auto* regs = context.uc_mcontext.gregs;
  ThreadRecord& thread = this_thread();
  const auto stack = static_cast<std::uint64_t>(regs[REG_RSP]);
  drop_abandoned_calls(thread, stack);
  CHECK(thread.calls < ThreadRecord::kMaxCalls);
  PendingCall& call = thread.call[thread.calls];
  call.stack = stack;
  call.resume = static_cast<std::uint64_t>(regs[REG_RIP]);
  call.nr = nr;
  std::copy(args, args + 6, call.args);
  call.given_nr = static_cast<std::uint64_t>(regs[REG_RAX]);
  std::copy(args, args + 6, call.given);
  cut_into_pieces(call);
  if (is_vectored(static_cast<long>(nr))) {  // made without libc: a short transfer is what it may get
    VectorCursor cursor{call.args[1], std::min<std::uint64_t>(call.args[2], 1024)};
    iovec pieces[12];
    unsigned n = 0;
    std::uint64_t bytes = 0;
    if (cut_vector(cursor, live().pin_limit(), pieces, 12, &n, &bytes) && cursor.element > 0)
      call.args[2] = cursor.element;
  }
  call.pin_depth = pin_call(thread, nr, call.args, 0).before;
  ++thread.calls;
  regs[REG_RAX] = static_cast<greg_t>(nr);
  regs[REG_RSI] = static_cast<greg_t>(call.args[1]);
  regs[REG_RDX] = static_cast<greg_t>(call.args[2]);
  regs[REG_RIP] = static_cast<greg_t>(kUserGadget);
}

long trapped_sigprocmask(ucontext_t& context) {
  const auto* set = reinterpret_cast<const std::uint64_t*>(arg_of(context, 1));
  auto* old = reinterpret_cast<std::uint64_t*>(arg_of(context, 2));
  std::uint64_t wanted = 0;
  std::uint64_t before = 0;
  std::uint64_t mask;
  __builtin_memcpy(&mask, &context.uc_sigmask, sizeof(mask));
  if (set != nullptr && !peek(reinterpret_cast<std::uint64_t>(set), &wanted)) return -EFAULT;
  const long result = apply_sigprocmask(static_cast<int>(arg_of(context, 0)),
                                        set != nullptr ? &wanted : nullptr, &before, &mask);
  if (result < 0) return result;
  __builtin_memcpy(&context.uc_sigmask, &mask, sizeof(mask));
  if (old != nullptr) {
    if (!enchilada_probe_write(old)) return -EFAULT;
    *old = before;
  }
  return 0;
}

/// Calls that the engine answers itself. False: an ordinary call.
bool emulate(ucontext_t& context, long nr, long* result) {
  long a[6];
  for (unsigned i = 0; i < 6; ++i) a[i] = static_cast<long>(arg_of(context, i));
  if (answer_memory_call(nr, a, result) || answer_limit_call(nr, a, result)) return true;
  if (answer_filter_call(nr, a, result)) return true;
  switch (nr) {
    case SYS_mbind:
    case SYS_move_pages:
      *result = 0;
      return true;
    case SYS_rt_sigprocmask:
      *result = trapped_sigprocmask(context);
      return true;
    case SYS_rt_sigaction:
      *result = call_sigaction(static_cast<int>(a[0]), reinterpret_cast<const KernelSigaction*>(a[1]),
                               reinterpret_cast<KernelSigaction*>(a[2]));
      return true;
    case SYS_sigaltstack:
      *result = call_sigaltstack(reinterpret_cast<const stack_t*>(a[0]), reinterpret_cast<stack_t*>(a[1]),
                                 static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]));
      return true;
    case SYS_execve:
      *result = call_execve(reinterpret_cast<const char*>(a[0]), reinterpret_cast<char* const*>(a[1]),
                            reinterpret_cast<char* const*>(a[2]));
      return true;
    case SYS_clone:
    case SYS_clone3:
      *result = -EINVAL;
      return true;  // a stack or structure that may be paged out: see clone()
    default:
      return false;
  }
}

}  // namespace

bool points_into_window(long a, long b, long c, long d, long e, long f) {
  return in_window(static_cast<std::uint64_t>(a)) || in_window(static_cast<std::uint64_t>(b)) ||
         in_window(static_cast<std::uint64_t>(c)) || in_window(static_cast<std::uint64_t>(d)) ||
         in_window(static_cast<std::uint64_t>(e)) || in_window(static_cast<std::uint64_t>(f));
}

bool peek(std::uint64_t address, std::uint64_t* word) {
  const auto* first = reinterpret_cast<const char*>(address);
  if (!enchilada_probe_read(first) || !enchilada_probe_read(first + 7)) return false;
  __builtin_memcpy(word, first, 8);
  return true;
}

bool install_gadget() {
  const long at =
      raw_syscall(SYS_mmap, static_cast<long>(layout::kGadgetPage), static_cast<long>(kPageSize),
                  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != static_cast<long>(layout::kGadgetPage)) return false;
  auto* to = reinterpret_cast<char*>(at);
  const auto size = static_cast<std::size_t>(enchilada_gadget_end - enchilada_gadget_begin);
  for (std::size_t i = 0; i < size; ++i) to[i] = enchilada_gadget_begin[i];
  const auto target = reinterpret_cast<std::uint64_t>(&enchilada_call_done);
  __builtin_memcpy(to + (enchilada_gadget_target - enchilada_gadget_begin) - 8, &target, 8);
  return raw_syscall(SYS_mprotect, at, static_cast<long>(kPageSize), PROT_READ | PROT_EXEC) == 0;
}

bool handle_trapped_call(ucontext_t& context) {
  auto* regs = context.uc_mcontext.gregs;
  const long nr = static_cast<long>(regs[REG_RAX]);
  std::uint64_t args[6];
  for (unsigned i = 0; i < 6; ++i) args[i] = arg_of(context, i);
  if (answers_filter_question(nr, args)) {
    regs[REG_RAX] = -EINVAL;
    return true;
  }
  if (!live().ready()) {  // an inherited filter, and this process is not managed: the call cannot be about
                          // our memory
    regs[REG_RAX] =
        window_syscall(nr, static_cast<long>(args[0]), static_cast<long>(args[1]), static_cast<long>(args[2]),
                       static_cast<long>(args[3]), static_cast<long>(args[4]), static_cast<long>(args[5]));
    return true;
  }
  long result = 0;
  if (emulate(context, nr, &result)) {
    regs[REG_RAX] = result;
    return true;
  }
  // The pages would stay the pipe's while we recycle them (rule 10): copy instead.
  go_to_gadget(context, static_cast<std::uint64_t>(nr == SYS_vmsplice ? SYS_writev : nr), args);
  return true;
}

namespace {

std::uint64_t in_gadget_page(const char* label) {
  return layout::kGadgetPage + static_cast<std::uint64_t>(label - enchilada_gadget_begin);
}

/// The checked gadget, see gadget.S.
long checked_syscall(long nr, const std::uint64_t* args, const std::atomic<std::uint32_t>& counter,
                     std::uint32_t expected) {
  using Gadget = long (*)(long, long, long, long, long, long, long, const std::atomic<std::uint32_t>*, long);
  const auto gadget = reinterpret_cast<Gadget>(in_gadget_page(enchilada_gadget_checked));
  const auto arg = [args](unsigned i) { return static_cast<long>(args[i]); };
  return gadget(nr, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5), &counter, expected);
}

/// As if it returned from the checked gadget with `result`.
void return_from_gadget(ucontext_t& context, greg_t result) {
  auto* regs = context.uc_mcontext.gregs;
  regs[REG_RIP] = *reinterpret_cast<const greg_t*>(regs[REG_RSP]);
  regs[REG_RSP] += 8;
  regs[REG_RAX] = result;
}

/// A transfer that would wait now: natively a signal would have found the program waiting in it.
bool would_block(long nr, const std::uint64_t* args) {
  const CallSpec& spec = call_spec(nr);
  const ArgKind kind = spec.args[1].kind;
  const bool vector = nr == SYS_readv || nr == SYS_writev;
  if (spec.transfer != Transfer::kStream && !vector) return false;
  if ((nr == SYS_recvfrom || nr == SYS_sendto) && (args[3] & MSG_DONTWAIT) != 0) return false;
  const auto fd = static_cast<int>(args[0]);
  const long flags = raw_syscall(SYS_fcntl, fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) != 0) return false;
  const bool reads = kind == ArgKind::kOut || kind == ArgKind::kIovOut;
  pollfd wanted{fd, static_cast<short>(reads ? POLLIN : POLLOUT), 0};
  return window_syscall(SYS_poll, as_long(&wanted), 1, 0) == 0;
}

/// While it lives, cancellation takes effect at once, as inside libc's own cancellation points.
class Cancellable {
 public:
  explicit Cancellable(bool wanted) : active_(wanted && __libc_single_threaded == 0) {
    if (active_) pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &before_);
  }
  ~Cancellable() {
    if (active_) pthread_setcanceltype(before_, nullptr);
  }
  Cancellable(const Cancellable&) = delete;
  Cancellable& operator=(const Cancellable&) = delete;

 private:
  bool active_;
  int before_ = 0;
};

/// One call made by a wrapper. Handlers may run at any time: what they interrupt while the call is being
/// prepared was, for the program, inside the call already.
class PreparedCall {
 public:
  PreparedCall(ThreadRecord& thread, std::uint64_t key, bool cancellable)
      : thread_(thread), key_(key), cancellable_(cancellable), seen_(interruptions()) {}

  /// `pin` makes resident what the call needs and returns the depths of the pins.
  template <class Pin>
  long make(long nr, const std::uint64_t* args, Pin pin) {
    for (;;) {
      drop_abandoned_pins(thread_, key_);
      const PinDepths depths = pin();
      const long result = try_once(nr, args, depths);
      pin_set().unpin_to(thread_.pins, depths.before);
      if (result != kRestart) return result;
    }
  }

 private:
  [[nodiscard]] std::uint32_t interruptions() const {
    return thread_.interruptions.load(std::memory_order_relaxed);
  }

  long try_once(long nr, const std::uint64_t* args, const PinDepths& depths) {
    const std::uint32_t now = interruptions();
    if (now != seen_) {
      seen_ = now;
      if (would_block(nr, args)) return -EINTR;
    }
    // A handler that went on on another stack may have taken our pins for abandoned ones.
    if (pin_set().depth(thread_.pins) != depths.after) return kRestart;
    const Cancellable cancellable(cancellable_);
    return checked_syscall(nr, args, thread_.interruptions, seen_);
  }

  ThreadRecord& thread_;
  std::uint64_t key_;
  bool cancellable_;
  std::uint32_t seen_;
};

constexpr unsigned kVectorPieces = 12;

/// The plan for a vector. One with more elements than are pinned at a time is like one with too many bytes.
TransferPlan plan_vector(long nr, const std::uint64_t* args, std::uint64_t array, std::uint64_t count) {
  const std::uint64_t bytes = vector_bytes(array, count);
  return plan_transfer(nr, args, count > kVectorPieces ? std::max(bytes, live().pin_limit() + 1) : bytes);
}

/// readv, writev and their kin in pieces that may be pinned (rule 8); stops at a short result.
long vectored_call(long nr, const std::uint64_t* given, bool cancellable) {
  ThreadRecord& thread = this_thread();
  const auto key = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  const Access access =
      nr == SYS_readv || nr == SYS_preadv || nr == SYS_preadv2 ? Access::kWrite : Access::kRead;
  const auto offset = static_cast<long>(given[3]);
  VectorCursor cursor{given[1], given[2]};
  const TransferPlan plan = plan_vector(nr, given, given[1], given[2]);
  PreparedCall call(thread, key, cancellable);
  long total = 0;
  for (;;) {
    iovec pieces[kVectorPieces];
    unsigned n = 0;
    std::uint64_t bytes = 0;
    if (!cut_vector(cursor, plan.piece, pieces, kVectorPieces, &n, &bytes))
      return total > 0 ? total : -EFAULT;
    if (n == 0 && total > 0) return total;
    const auto pin = [&] {
      Pinner pinner(thread, key);
      pinner.need(reinterpret_cast<std::uint64_t>(pieces), sizeof(pieces), Access::kRead);
      for (unsigned i = 0; i < n; ++i) {
        pinner.need(reinterpret_cast<std::uint64_t>(pieces[i].iov_base), pieces[i].iov_len, access);
      }
      pinner.flush();
      return PinDepths{pinner.depth_before(), pin_set().depth(thread.pins)};
    };
    const long at = offset == -1 ? -1 : offset + total;  // -1: the descriptor's own position (preadv2)
    const std::uint64_t args[6] = {
        given[0], reinterpret_cast<std::uint64_t>(pieces), n, static_cast<std::uint64_t>(at), 0, given[5]};
    const long result = call.make(nr, args, pin);
    if (result < 0) return total > 0 ? total : result;
    total += result;
    if (n == 0 || plan.short_answer || static_cast<std::uint64_t>(result) < bytes) return total;
  }
}

/// sendmsg and recvmsg of a stream that may wait, in pieces; name and control data go with the first.
class StreamMessage {
 public:
  StreamMessage(long nr, const std::uint64_t* given) : nr_(nr), given_(given) {}

  /// False: not one that need be cut, or not readable. The call is to be made as it is.
  bool plan() {
    auto* words = reinterpret_cast<std::uint64_t*>(&header_);
    for (std::size_t i = 0; i < sizeof(header_) / 8; ++i) {
      if (!peek(given_[1] + i * 8, &words[i])) return false;
    }
    const auto array = reinterpret_cast<std::uint64_t>(header_.msg_iov);
    if (header_.msg_iovlen > 1024) return false;
    const std::uint64_t bytes = vector_bytes(array, header_.msg_iovlen);
    plan_ = plan_transfer(nr_, given_, bytes);
    cursor_ = {array, header_.msg_iovlen};
    return bytes > plan_.piece && may_wait(nr_, given_);
  }

  long make(bool cancellable) {
    ThreadRecord& thread = this_thread();
    PreparedCall call(thread, reinterpret_cast<std::uint64_t>(this), cancellable);
    const std::uint64_t args[6] = {given_[0], reinterpret_cast<std::uint64_t>(&header_), given_[2]};
    long total = 0;
    for (;;) {
      unsigned n = 0;
      std::uint64_t bytes = 0;
      if (!cut_vector(cursor_, plan_.piece, pieces_, kVectorPieces, &n, &bytes))
        return total > 0 ? total : -EFAULT;
      if (n == 0 && total > 0) return total;
      header_.msg_iov = pieces_;
      header_.msg_iovlen = n;
      const long result = call.make(nr_, args, [&] { return pin(thread); });
      if (result < 0) return total > 0 ? total : result;
      if (total == 0) report();
      total += result;
      header_.msg_controllen = 0;
      if (plan_.short_answer || static_cast<std::uint64_t>(result) < bytes) return total;
    }
  }

 private:
  PinDepths pin(ThreadRecord& thread) {
    const Access access = nr_ == SYS_recvmsg ? Access::kWrite : Access::kRead;
    Pinner pinner(thread, reinterpret_cast<std::uint64_t>(this));
    pinner.need(reinterpret_cast<std::uint64_t>(this), sizeof(*this), Access::kWrite);
    need_msg(pinner, reinterpret_cast<std::uint64_t>(&header_), access);
    pinner.flush();
    return {pinner.depth_before(), pin_set().depth(thread.pins)};
  }

  /// What the kernel answers in the header.
  void report() {
    if (nr_ != SYS_recvmsg) return;
    auto* given = reinterpret_cast<msghdr*>(given_[1]);
    given->msg_namelen = header_.msg_namelen;
    given->msg_controllen = header_.msg_controllen;
    given->msg_flags = header_.msg_flags;
  }

  long nr_;
  const std::uint64_t* given_;
  msghdr header_{};
  iovec pieces_[kVectorPieces] = {};
  TransferPlan plan_{};
  VectorCursor cursor_{};
};

long made_by_wrapper(long nr, const std::uint64_t* args, bool cancellable) {
  if (is_vectored(nr) && args[2] <= 1024) return vectored_call(nr, args, cancellable);
  if (nr == SYS_sendmsg || nr == SYS_recvmsg) {
    StreamMessage message(nr, args);
    if (message.plan()) return message.make(cancellable);
  }
  ThreadRecord& thread = this_thread();
  const auto key = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  PendingCall call;
  call.nr = static_cast<std::uint64_t>(nr);
  std::copy(args, args + 6, call.args);
  cut_into_pieces(call);
  PreparedCall prepared(thread, key, cancellable);
  long result = 0;
  do {
    result = prepared.make(nr, call.args, [&] { return pin_call(thread, call.nr, call.args, key); });
  } while (next_piece(call, &result));
  return result;
}

struct CallArguments {
  std::uint64_t words[6];
};
CallArguments arguments(long a, long b, long c, long d, long e, long f) {
  const auto u = [](long value) { return static_cast<std::uint64_t>(value); };
  return {{u(a), u(b), u(c), u(d), u(e), u(f)}};
}

PendingCall* pending_call(ThreadRecord& thread, std::uint64_t stack) {
  for (unsigned i = thread.calls; i > 0; --i) {
    if (thread.call[i - 1].stack == stack) return &thread.call[i - 1];
  }
  return nullptr;
}

void retire(ThreadRecord& thread, const PendingCall& call) {
  pin_set().unpin_to(thread.pins, call.pin_depth);
  thread.calls = static_cast<unsigned>(&call - thread.call);
}

/// Interrupted at the system call of the user gadget: not begun, or about to be made again.
void leave_before_call(ThreadRecord& thread, const PendingCall& call, ucontext_t& context, bool restarts) {
  auto* regs = context.uc_mcontext.gregs;
  constexpr greg_t kSyscallBytes = 2;
  const auto resume = static_cast<greg_t>(call.resume);
  if (call.done != 0) {
    regs[REG_RAX] = static_cast<greg_t>(call.done);
    regs[REG_RIP] = resume;
  } else if (!restarts && would_block(static_cast<long>(call.nr), call.args)) {
    regs[REG_RAX] = -EINTR;
    regs[REG_RIP] = resume;
  } else {
    regs[REG_RAX] = static_cast<greg_t>(call.given_nr);
    regs[REG_RSI] = static_cast<greg_t>(call.given[1]);
    regs[REG_RDX] = static_cast<greg_t>(call.given[2]);
    regs[REG_R10] = static_cast<greg_t>(call.given[3]);
    regs[REG_RIP] = resume - kSyscallBytes;
  }
  retire(thread, call);
}

/// Interrupted right behind it.
void leave_after_call(ThreadRecord& thread, PendingCall& call, ucontext_t& context) {
  auto* regs = context.uc_mcontext.gregs;
  auto result = static_cast<long>(regs[REG_RAX]);
  PendingCall ahead = call;
  if (next_piece(ahead, &result)) return;  // more is to come: go on in the gadget afterwards
  regs[REG_RAX] = result;
  regs[REG_RSI] = static_cast<greg_t>(call.given[1]);
  regs[REG_RDX] = static_cast<greg_t>(call.given[2]);
  regs[REG_R10] = static_cast<greg_t>(call.given[3]);
  regs[REG_RIP] = static_cast<greg_t>(call.resume);
  retire(thread, call);
}

}  // namespace

void leave_gadget(ThreadRecord& thread, ucontext_t& context, bool restarts) {
  constexpr std::uint64_t kAfterUserCall = kUserGadget + 2;
  auto* regs = context.uc_mcontext.gregs;
  const auto rip = static_cast<std::uint64_t>(regs[REG_RIP]);
  if (rip < layout::kGadgetPage || rip >= layout::kGadgetPage + kPageSize) return;
  if (rip == kUserGadget || rip == kAfterUserCall) {
    PendingCall* call = pending_call(thread, static_cast<std::uint64_t>(regs[REG_RSP]));
    if (call == nullptr) return;
    return rip == kUserGadget ? leave_before_call(thread, *call, context, restarts)
                              : leave_after_call(thread, *call, context);
  }
  if (rip < in_gadget_page(enchilada_gadget_checked) || rip >= in_gadget_page(enchilada_gadget_checked_end)) {
    return;
  }
  const bool made = rip == in_gadget_page(enchilada_gadget_checked_done);
  return_from_gadget(context, made ? regs[REG_RAX] : kRestart);
}

long user_syscall(long nr, long a, long b, long c, long d, long e, long f) {
  return made_by_wrapper(nr, arguments(a, b, c, d, e, f).words, false);
}

long cancellable_syscall(long nr, long a, long b, long c, long d, long e, long f) {
  return made_by_wrapper(nr, arguments(a, b, c, d, e, f).words, true);
}

}  // namespace enchilada::runtime

/// Runs on the program's stack after a call at the user gadget.
void enchilada_call_done(GadgetFrame* frame) {
  using namespace enchilada::runtime;
  ThreadRecord& thread = this_thread();
  const std::uint64_t stack = reinterpret_cast<std::uint64_t>(frame) + sizeof(GadgetFrame) + 128;
  PendingCall* found = pending_call(thread, stack);
  CHECK(found != nullptr, stack);
  PendingCall& call = *found;
  pin_set().unpin_to(thread.pins, call.pin_depth);
  auto result = static_cast<long>(frame->rax);
  if (next_piece(call, &result)) {
    pin_call(thread, call.nr, call.args, 0);
    frame->rax = call.nr;
    frame->rsi = call.args[1];
    frame->rdx = call.args[2];
    frame->r10 = call.args[3];
    frame->resume = kUserGadget;
    return;
  }
  frame->rax = static_cast<std::uint64_t>(result);
  frame->rsi = call.given[1];
  frame->rdx = call.given[2];
  frame->r10 = call.given[3];
  frame->resume = call.resume;
  thread.calls = static_cast<unsigned>(found - thread.call);
}
