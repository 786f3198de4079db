// The seccomp filter that traps system calls on window addresses. Invariant: it looks only at registers that
// the call takes an address from (syscall_args.h): others hold leftovers (the loader's string functions leave
// words that look like window addresses), and a trap before our handler is there, or in a call that never
// returns, is the end.
#include "runtime/preload/syscall_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <atomic>

#include "base/check.h"
#include "runtime/preload/layout.h"
#include "runtime/preload/syscall_args.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {
namespace {

constexpr std::uint16_t kJumpAlways = BPF_JMP | BPF_JA;
constexpr std::uint16_t kJumpEqual = BPF_JMP | BPF_JEQ | BPF_K;
constexpr std::uint16_t kJumpAtLeast = BPF_JMP | BPF_JGE | BPF_K;
constexpr std::uint16_t kReturn = BPF_RET | BPF_K;
constexpr unsigned kMasks = 64;

/// The program: a search tree over system call numbers whose leaves jump to one block for each set of
/// registers that must be looked at. A call that takes no address is let through on its number alone, which
/// the kernel then remembers (its action cache), and never runs the program for it again.
class FilterBuilder {
 public:
  [[nodiscard]] sock_fprog build() {
    load(offsetof(seccomp_data, arch));
    branch(kJumpEqual, AUDIT_ARCH_X86_64, 1, 0);
    op(kReturn, SECCOMP_RET_ALLOW);
    load(offsetof(seccomp_data, nr));
    // Rings bypass every check here; programs fall back to ordinary calls.
    branch(kJumpEqual, SYS_io_uring_setup, 1, 0);
    branch(kJumpEqual, SYS_io_setup, 0, 7);
    pass_gadget();
    op(kReturn, SECCOMP_RET_ERRNO | ENOSYS);
    find_ranges();
    tree(0, ranges_);
    for (unsigned mask = 0; mask < kMasks; ++mask) block(mask);
    CHECK(size_ < kMost);
    return {size_, code_};
  }

 private:
  static constexpr unsigned kMost = 2048;
  struct Range {
    std::uint32_t first;  // up to the next range
    unsigned mask;
  };

  void op(std::uint16_t c, std::uint32_t k) { code_[size_++] = BPF_STMT(c, k); }
  void branch(std::uint16_t c, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
    code_[size_++] = BPF_JUMP(c, k, yes, no);
  }
  void load(std::size_t offset) { op(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }

  void find_ranges() {
    for (std::uint32_t nr = 0; nr <= kSyscallTableSize; ++nr) {
      const unsigned mask = address_arguments(nr);
      if (nr == 0 || mask != table_[ranges_ - 1].mask) table_[ranges_++] = {nr, mask};
    }
  }

  /// The number is in the accumulator and in one of the ranges [from, to).
  void tree(unsigned from, unsigned to) {
    if (to - from == 1) {
      const unsigned mask = table_[from].mask;
      next_[size_] = last_[mask];  // a chain through the jumps that wait for the block's place
      last_[mask] = size_;
      op(kJumpAlways, 0);
      return;
    }
    const unsigned middle = (from + to) / 2;
    branch(kJumpAtLeast, table_[middle].first, 0, 1);
    const unsigned short right = size_;
    op(kJumpAlways, 0);
    tree(from, middle);
    code_[right].k = static_cast<std::uint32_t>(size_ - right - 1);
    tree(middle, to);
  }

  void block(unsigned mask) {
    if (last_[mask] == 0) return;
    for (unsigned short at = last_[mask]; at != 0; at = next_[at])
      code_[at].k = static_cast<std::uint32_t>(size_ - at - 1);
    if (mask != 0) pass_gadget();
    for (unsigned i = 0; i < 6; ++i) {
      if ((mask >> i & 1) != 0) trap_window_argument(offsetof(seccomp_data, args) + 8 * i);
    }
    op(kReturn, SECCOMP_RET_ALLOW);
  }

  /// The runtime's own calls come from the gadget page.
  void pass_gadget() {
    load(offsetof(seccomp_data, instruction_pointer) + 4);
    branch(kJumpEqual, static_cast<std::uint32_t>(layout::kGadgetPage >> 32), 0, 4);
    load(offsetof(seccomp_data, instruction_pointer));
    op(BPF_ALU | BPF_AND | BPF_K, ~static_cast<std::uint32_t>(kPageMask));
    branch(kJumpEqual, static_cast<std::uint32_t>(layout::kGadgetPage), 0, 1);
    op(kReturn, SECCOMP_RET_ALLOW);
  }

  void trap_window_argument(std::size_t offset) {
    load(offset + 4);
    branch(kJumpAtLeast, static_cast<std::uint32_t>(layout::kWindow.start.value() >> 32), 0, 2);
    branch(kJumpAtLeast, static_cast<std::uint32_t>(layout::kWindow.end.value() >> 32), 1, 0);
    op(kReturn, SECCOMP_RET_TRAP | kTrapMark);
  }

  sock_filter code_[kMost];
  unsigned short next_[kMost];
  unsigned short last_[kMasks] = {};
  Range table_[kSyscallTableSize + 1];
  unsigned short size_ = 0;
  unsigned ranges_ = 0;
};

/// Does a filter of ours trap window addresses already? A harmless call says so: madvise of the window with
/// advice that does not exist.
std::atomic<bool> trap_seen{false};
constexpr long kNoSuchAdvice = 0x7e57;

}  // namespace

const char* install_filter() {
  raw_syscall(SYS_madvise, static_cast<long>(layout::kWindow.start.value()), 0, kNoSuchAdvice);
  if (trap_seen.load()) return nullptr;
  static FilterBuilder filter;  // too large for a small stack; used once
  const sock_fprog program = filter.build();
  if (raw_syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    return "prctl(PR_SET_NO_NEW_PRIVS) is refused";
  if (raw_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, as_long(&program)) != 0) {
    return "seccomp filters are refused (CONFIG_SECCOMP_FILTER, or a container's own filter)";
  }
  return nullptr;
}

bool answers_filter_question(long nr, const std::uint64_t* args) {
  if (nr != SYS_madvise || args[2] != kNoSuchAdvice) return false;
  trap_seen.store(true);
  return true;
}

}  // namespace enchilada::runtime
