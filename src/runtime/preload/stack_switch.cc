// The change of stacks, and what must hold around it.
#include "runtime/preload/stack_switch.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "runtime/preload/signals.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/thread.h"

asm(R"(
        .text
        .globl enchilada_on_stack
        .hidden enchilada_on_stack
        .type enchilada_on_stack, @function
enchilada_on_stack:
        .cfi_startproc
        push    %rbp
        .cfi_def_cfa_offset 16
        .cfi_offset %rbp, -16
        mov     %rsp, %rbp
        .cfi_def_cfa_register %rbp
        mov     %rdx, %rsp
        mov     %rdi, %rax
        mov     %rsi, %rdi
        call    *%rax
        mov     %rbp, %rsp
        pop     %rbp
        .cfi_def_cfa %rsp, 8
        ret
        .cfi_endproc
        .size enchilada_on_stack, .-enchilada_on_stack
)");

namespace enchilada::runtime {
namespace {
constexpr std::uint64_t kProgramSignals = ~kOurs;  // in memory that stays: the kernel reads it
}  // namespace

long call_on_signal_stack(long (*function)(void*), void* argument) {
  ThreadRecord& thread = this_thread();
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&kProgramSignals), as_long(&thread.mask_place), 8);
  const std::uint64_t before = thread.mask_place;
  const long result = enchilada_on_stack(function, argument, thread.stack_top());
  thread.mask_place = before;
  raw_syscall(SYS_rt_sigprocmask, 2, as_long(&thread.mask_place), 0, 8);
  return result;
}

long call_on_spare_stack(long (*function)(void*), void* argument) {
  constexpr long kBytes = 512 << 10;
  const long low = raw_syscall(SYS_mmap, 0, kBytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (low < 0) return low;
  const long result = enchilada_on_stack(function, argument, reinterpret_cast<void*>(low + kBytes));
  raw_syscall(SYS_munmap, low, kBytes);
  return result;
}

}  // namespace enchilada::runtime
