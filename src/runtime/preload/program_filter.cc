// The instructions in front of a program's filter, and the gadget for its calls.
#include "runtime/preload/program_filter.h"

#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>
#include <iterator>

#include "runtime/preload/live.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/user_syscall.h"

extern "C" {
extern const Elf64_Ehdr __ehdr_start __attribute__((visibility("hidden")));
extern const char enchilada_gadget_begin[], enchilada_gadget_program[];
}

namespace enchilada::runtime {
namespace {

std::atomic<bool> filtered{false};

/// This library's code, as the loader mapped it.
VirtRange own_code() {
  const auto base = reinterpret_cast<std::uint64_t>(&__ehdr_start);
  const auto here = reinterpret_cast<std::uint64_t>(&own_code);
  const auto* header = reinterpret_cast<const Elf64_Phdr*>(base + __ehdr_start.e_phoff);
  for (unsigned i = 0; i < __ehdr_start.e_phnum; ++i) {
    const VirtAddr start{base + header[i].p_vaddr};
    const VirtAddr end = start + ByteCount{header[i].p_memsz};
    if (header[i].p_type == PT_LOAD && start.value() <= here && here < end.value()) return {start, end};
  }
  return {};
}

/// A program's filter behind ours, in memory that the kernel can read.
class CombinedFilter {
 public:
  /// Allows calls from [start, end): the instruction pointer that a filter sees is behind the instruction.
  void allow(VirtRange range) {
    constexpr std::uint64_t kHalf = std::uint64_t{1} << 32;
    for (std::uint64_t at = range.start.value(); at < range.end.value();) {
      const std::uint64_t next = std::min((at / kHalf + 1) * kHalf, range.end.value());
      allow_low(static_cast<std::uint32_t>(at >> 32), static_cast<std::uint32_t>(at),
                static_cast<std::uint32_t>(next - 1));
      at = next;
    }
  }

  /// The program's `count` instructions at `code`. -EFAULT: not readable.
  long append(std::uint64_t code, std::uint64_t count) {
    op(BPF_LD | BPF_IMM, 0);  // a filter begins with a zero in the accumulator
    if (count + size_ > std::size(code_)) return -ENOMEM;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t word = 0;
      static_assert(sizeof(word) == sizeof(sock_filter));
      if (!peek(code + i * sizeof(word), &word)) return -EFAULT;
      __builtin_memcpy(&code_[size_++], &word, sizeof(word));
    }
    program_ = {size_, code_};
    return 0;
  }

  [[nodiscard]] const sock_fprog* program() const { return &program_; }

 private:
  void op(std::uint16_t c, std::uint32_t k) { code_[size_++] = BPF_STMT(c, k); }
  void branch(std::uint16_t c, std::uint32_t k, std::uint8_t yes, std::uint8_t no) {
    code_[size_++] = BPF_JUMP(c, k, yes, no);
  }

  void allow_low(std::uint32_t high, std::uint32_t first, std::uint32_t last) {
    constexpr auto kPointer = static_cast<std::uint32_t>(offsetof(seccomp_data, instruction_pointer));
    op(BPF_LD | BPF_W | BPF_ABS, kPointer + 4);
    branch(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 4);
    op(BPF_LD | BPF_W | BPF_ABS, kPointer);
    branch(BPF_JMP | BPF_JGE | BPF_K, first, 0, 2);
    branch(BPF_JMP | BPF_JGT | BPF_K, last, 1, 0);
    op(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }

  sock_fprog program_;
  unsigned short size_;
  sock_filter code_[BPF_MAXINSNS];
};

long install(long nr, const long (&args)[6], std::uint64_t program, CombinedFilter& filter) {
  std::uint64_t count = 0;
  std::uint64_t code = 0;
  if (!peek(program, &count) || !peek(program + offsetof(sock_fprog, filter), &code)) return -EFAULT;
  count &= 0xffff;
  if (count == 0 || count > BPF_MAXINSNS) return -EINVAL;
  filter.allow(own_code());
  filter.allow({VirtAddr{layout::kGadgetPage}, VirtAddr{kUserGadget}});
  const long result = filter.append(code, count);
  if (result != 0) return result;
  return program_syscall(nr, args[0], args[1], as_long(filter.program()));
}

}  // namespace

bool answer_filter_call(long nr, const long (&args)[6], long* result) {
  const bool by_prctl = nr == SYS_prctl && args[0] == PR_SET_SECCOMP && args[1] == SECCOMP_MODE_FILTER;
  const bool by_seccomp = nr == SYS_seccomp && args[0] == SECCOMP_SET_MODE_FILTER;
  if ((!by_prctl && !by_seccomp) || !live().ready()) return false;
  const long at = raw_syscall(SYS_mmap, 0, sizeof(CombinedFilter), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at < 0) {
    *result = -ENOMEM;
    return true;
  }
  *result = install(nr, args, static_cast<std::uint64_t>(args[2]), *reinterpret_cast<CombinedFilter*>(at));
  if (*result >= 0) filtered.store(true);
  raw_syscall(SYS_munmap, at, sizeof(CombinedFilter));
  return true;
}

bool program_filtered() {
  return filtered.load(std::memory_order_relaxed);
}

long program_syscall(long nr, long a, long b, long c, long d, long e, long f) {
  if (!program_filtered()) return raw_syscall(nr, a, b, c, d, e, f);
  const auto gadget =
      layout::kGadgetPage + static_cast<std::uint64_t>(enchilada_gadget_program - enchilada_gadget_begin);
  return reinterpret_cast<SyscallFunction>(gadget)(nr, a, b, c, d, e, f);
}

}  // namespace enchilada::runtime
