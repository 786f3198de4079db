// Making system calls work on memory that may be paged out: filter, pinning, transfers in pieces.
#include "runtime/preload/user_syscall.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

#include "base/check.h"
#include "runtime/preload/live.h"
#include "runtime/preload/memory_calls.h"
#include "runtime/preload/process.h"
#include "runtime/preload/signals.h"
#include "runtime/preload/syscall_args.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"

extern "C" {
extern const char enchilada_gadget_begin[], enchilada_gadget_end[], enchilada_gadget_target[];
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
      const SignalsBlocked blocked;
      if (live().fault(at, access) != FaultResult::kResolved) return false;
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

/// Pins all that call nr needs; returns the pin depth to go back to afterwards.
unsigned pin_call(ThreadRecord& thread, std::uint64_t nr, const std::uint64_t* args, std::uint64_t key) {
  Pinner pinner(thread, key);
  const CallSpec& spec = call_spec(static_cast<long>(nr));
  for (unsigned i = 0; i < 6; ++i) need_arg(pinner, spec.args[i], args, args[i]);
  pinner.flush();
  return pinner.depth_before();
}

/// Splits a transfer that is larger than may be pinned.
void cut_into_pieces(PendingCall& call) {
  const CallSpec& spec = call_spec(static_cast<long>(call.nr));
  call.piece = call.left = call.done = 0;
  const std::uint64_t limit = live().pin_limit();
  if (spec.transfer == Transfer::kWhole || !in_window(call.args[1]) || call.args[2] <= limit) return;
  call.moves_offset = spec.transfer == Transfer::kStreamAt;
  call.piece = limit;
  call.left = call.args[2] - limit;
  call.args[2] = limit;
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
  call.piece = std::min(call.left, live().pin_limit());
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
bool cut_vector(VectorCursor& cursor, iovec* out, unsigned most, unsigned* pieces, std::uint64_t* bytes) {
  *pieces = 0;
  *bytes = 0;
  const std::uint64_t limit = live().pin_limit();
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
  cut_into_pieces(call);
  if (is_vectored(static_cast<long>(nr))) {  // made without libc: a short transfer is what it may get
    VectorCursor cursor{call.args[1], std::min<std::uint64_t>(call.args[2], 1024)};
    iovec pieces[12];
    unsigned n = 0;
    std::uint64_t bytes = 0;
    if (cut_vector(cursor, pieces, 12, &n, &bytes) && cursor.element > 0) call.args[2] = cursor.element;
  }
  call.pin_depth = pin_call(thread, nr, call.args, 0);
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
  const std::uint64_t a = arg_of(context, 0);
  const std::uint64_t b = arg_of(context, 1);
  const std::uint64_t c = arg_of(context, 2);
  const std::uint64_t d = arg_of(context, 3);
  const std::uint64_t e = arg_of(context, 4);
  switch (nr) {
    case SYS_mmap:
      *result =
          call_mmap(a, b, static_cast<int>(c), static_cast<int>(d), static_cast<int>(e), arg_of(context, 5));
      return true;
    case SYS_munmap:
      *result = call_munmap(a, b);
      return true;
    case SYS_mprotect:
      *result = call_mprotect(a, b, static_cast<int>(c));
      return true;
    case SYS_madvise:
      *result = call_madvise(a, b, static_cast<int>(c));
      return true;
    case SYS_mremap:
      *result = call_mremap(a, b, c, static_cast<int>(d), e);
      return true;
    case SYS_mincore:
      *result = call_mincore(a, b, reinterpret_cast<unsigned char*>(c));
      return true;
    case SYS_mlock:
    case SYS_mlock2:
      *result = call_mlock(a, b);
      return true;
    case SYS_munlock:
      *result = call_munlock(a, b);
      return true;
    case SYS_msync:
      *result = call_msync(a, b, static_cast<int>(c));
      return true;
    case SYS_mbind:
    case SYS_move_pages:
      *result = 0;
      return true;
    case SYS_rt_sigprocmask:
      *result = trapped_sigprocmask(context);
      return true;
    case SYS_rt_sigaction:
      *result = call_sigaction(static_cast<int>(a), reinterpret_cast<const KernelSigaction*>(b),
                               reinterpret_cast<KernelSigaction*>(c));
      return true;
    case SYS_sigaltstack:
      *result = call_sigaltstack(reinterpret_cast<const stack_t*>(a), reinterpret_cast<stack_t*>(b));
      return true;
    case SYS_execve:
      *result = call_execve(reinterpret_cast<const char*>(a), reinterpret_cast<char* const*>(b),
                            reinterpret_cast<char* const*>(c));
      return true;
    case SYS_clone:
    case SYS_clone3:
      *result = -EINVAL;
      return true;  // a stack or structure that may be paged out: see clone()
    default:
      return false;
  }
}

struct FilterBuilder {
  sock_filter code[96];
  unsigned short size = 0;
  void op(std::uint16_t c, std::uint32_t k) { code[size++] = BPF_STMT(c, k); }
  void jump(std::uint16_t c, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
    code[size++] = BPF_JUMP(c, k, yes, no);
  }
  void load(std::size_t offset) { op(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
};

/// Four instructions: trap if the argument at `offset` is a window address, else go on (the accumulator is
/// lost).
void trap_window_argument(FilterBuilder& f, std::size_t offset) {
  f.load(offset + 4);
  f.jump(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(layout::kWindow.start.value() >> 32), 0, 2);
  f.jump(BPF_JMP | BPF_JGE | BPF_K, static_cast<std::uint32_t>(layout::kWindow.end.value() >> 32), 1, 0);
  f.op(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
}

void build_filter(FilterBuilder& f) {
  constexpr auto kAllow = BPF_RET | BPF_K;
  f.load(offsetof(seccomp_data, arch));
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.load(offsetof(seccomp_data, instruction_pointer) + 4);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(layout::kGadgetPage >> 32), 0, 4);
  f.load(offsetof(seccomp_data, instruction_pointer));
  f.op(BPF_ALU | BPF_AND | BPF_K, ~static_cast<std::uint32_t>(kPageMask));
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(layout::kGadgetPage), 0, 1);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.load(offsetof(seccomp_data, nr));
  // Rings bypass every check here; programs fall back to ordinary calls.
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 1, 0);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1);
  f.op(kAllow, SECCOMP_RET_ERRNO | ENOSYS);
  // Registers that a call does not read hold anything, window addresses too. For most calls a needless trap
  // only costs time; for those that return twice, or never, it would be fatal.
  for (const long nr : {SYS_fork, SYS_vfork, SYS_rt_sigreturn, SYS_exit, SYS_exit_group, SYS_close}) {
    f.jump(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(nr), 0, 1);
    f.op(kAllow, SECCOMP_RET_ALLOW);
  }
  constexpr auto kArgs = offsetof(seccomp_data, args);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 5);  // its structure
  trap_window_argument(f, kArgs);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  f.jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 5);  // its stack
  trap_window_argument(f, kArgs + 8);
  f.op(kAllow, SECCOMP_RET_ALLOW);
  for (std::size_t i = 0; i < 6; ++i) trap_window_argument(f, kArgs + 8 * i);
  f.op(kAllow, SECCOMP_RET_ALLOW);
}

/// Does a filter of ours trap window addresses already? A harmless call says so: madvise of the window with
/// advice that does not exist.
std::atomic<bool> trap_seen{false};
constexpr long kNoSuchAdvice = 0x7e57;

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

const char* install_filter() {
  raw_syscall(SYS_madvise, static_cast<long>(layout::kWindow.start.value()), 0, kNoSuchAdvice);
  if (trap_seen.load()) return nullptr;
  FilterBuilder filter;
  build_filter(filter);
  const sock_fprog program{filter.size, filter.code};
  if (raw_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return "prctl(PR_SET_NO_NEW_PRIVS) is refused";
  if (raw_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, as_long(&program)) != 0) {
    return "seccomp filters are refused (CONFIG_SECCOMP_FILTER, or a container's own filter)";
  }
  return nullptr;
}

bool handle_trapped_call(ucontext_t& context) {
  auto* regs = context.uc_mcontext.gregs;
  const long nr = static_cast<long>(regs[REG_RAX]);
  std::uint64_t args[6];
  for (unsigned i = 0; i < 6; ++i) args[i] = arg_of(context, i);
  if (nr == SYS_madvise && args[2] == kNoSuchAdvice) {
    trap_seen.store(true);
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

/// readv, writev and their kin in pieces that may be pinned (rule 8); stops at a short result.
long vectored_call(long nr, long fd, std::uint64_t array, std::uint64_t count, long offset, long flags) {
  constexpr unsigned kPieces = 12;
  ThreadRecord& thread = this_thread();
  const auto key = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  const bool reads = nr == SYS_readv || nr == SYS_preadv || nr == SYS_preadv2;
  VectorCursor cursor{array, count};
  long total = 0;
  for (;;) {
    iovec pieces[kPieces];
    unsigned n = 0;
    std::uint64_t bytes = 0;
    if (!cut_vector(cursor, pieces, kPieces, &n, &bytes)) return total > 0 ? total : -EFAULT;
    if (n == 0 && total > 0) return total;
    drop_abandoned_pins(thread, key);
    Pinner pinner(thread, key);
    for (unsigned i = 0; i < n; ++i) {
      pinner.need(reinterpret_cast<std::uint64_t>(pieces[i].iov_base), pieces[i].iov_len,
                  reads ? Access::kWrite : Access::kRead);
    }
    pinner.flush();
    const long at = offset == -1 ? -1 : offset + total;  // -1: the descriptor's own position (preadv2)
    const long result = window_syscall(nr, fd, as_long(pieces), n, at, 0, flags);
    pin_set().unpin_to(thread.pins, pinner.depth_before());
    if (result < 0) return total > 0 ? total : result;
    total += result;
    if (n == 0 || static_cast<std::uint64_t>(result) < bytes) return total;
  }
}

}  // namespace

long user_syscall(long nr, long a, long b, long c, long d, long e, long f) {
  if (is_vectored(nr) && c >= 0 && c <= 1024) {
    return vectored_call(nr, a, static_cast<std::uint64_t>(b), static_cast<std::uint64_t>(c), d, f);
  }
  ThreadRecord& thread = this_thread();
  PendingCall call;
  call.nr = static_cast<std::uint64_t>(nr);
  const long given[6] = {a, b, c, d, e, f};
  for (unsigned i = 0; i < 6; ++i) call.args[i] = static_cast<std::uint64_t>(given[i]);
  cut_into_pieces(call);
  long result = 0;
  do {
    const auto key = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    drop_abandoned_pins(thread, key);
    const unsigned depth = pin_call(thread, call.nr, call.args, key);
    result = window_syscall(nr, static_cast<long>(call.args[0]), static_cast<long>(call.args[1]),
                            static_cast<long>(call.args[2]), static_cast<long>(call.args[3]),
                            static_cast<long>(call.args[4]), static_cast<long>(call.args[5]));
    pin_set().unpin_to(thread.pins, depth);
  } while (next_piece(call, &result));
  return result;
}

}  // namespace enchilada::runtime

/// Runs on the program's stack after a call at the user gadget.
void enchilada_call_done(GadgetFrame* frame) {
  using namespace enchilada::runtime;
  ThreadRecord& thread = this_thread();
  const std::uint64_t stack = reinterpret_cast<std::uint64_t>(frame) + sizeof(GadgetFrame) + 128;
  unsigned i = thread.calls;
  while (i > 0 && thread.call[i - 1].stack != stack) --i;
  CHECK(i > 0, stack);
  PendingCall& call = thread.call[i - 1];
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
  frame->resume = call.resume;
  thread.calls = i - 1;
}
