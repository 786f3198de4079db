// Moving signal frames; see signal_frame.h.
#include "runtime/preload/signal_frame.h"

#include <string.h>
#include <sys/syscall.h>

#include <algorithm>
#include <atomic>

#include "base/check.h"
#include "runtime/preload/process.h"
#include "runtime/preload/syscalls.h"
#include "runtime/preload/user_syscall.h"

extern "C" {
void enchilada_moved_return();
__attribute__((visibility("hidden"))) std::uint64_t enchilada_room_for(const ucontext_t* moved);
__attribute__((visibility("hidden"))) std::uint64_t enchilada_move_back(const ucontext_t* moved);
__attribute__((visibility("hidden"))) extern const std::uint64_t enchilada_all_but_ours;
const std::uint64_t enchilada_all_but_ours = ~enchilada::runtime::kOurs;
}

// Where the program's handlers return to: the stack pointer is then at the ucontext. All signals are blocked
// first, with arguments that are not the program's memory, then the frame goes back to the signal stack, and
// the kernel gets it there. The registers are free: all are in the frame.
//
// Unwinders (exceptions, cancellation, backtraces) go from the handler to what it interrupted by the tables
// below, which say that each register is in the ucontext; they look one byte before the return address.
asm(R"(
        .text
        .globl enchilada_moved_return
        .hidden enchilada_moved_return
        .type enchilada_moved_return, @function
        .macro saved_register number, low, high
        .cfi_escape 0x10, \number, 3, 0x77, \low, \high
        .endm
        .cfi_startproc
        .cfi_signal_frame
        .cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 0x06
        saved_register 8, 0xa8, 0x00
        saved_register 9, 0xb0, 0x00
        saved_register 10, 0xb8, 0x00
        saved_register 11, 0xc0, 0x00
        saved_register 12, 0xc8, 0x00
        saved_register 13, 0xd0, 0x00
        saved_register 14, 0xd8, 0x00
        saved_register 15, 0xe0, 0x00
        saved_register 5, 0xe8, 0x00
        saved_register 4, 0xf0, 0x00
        saved_register 6, 0xf8, 0x00
        saved_register 3, 0x80, 0x01
        saved_register 1, 0x88, 0x01
        saved_register 0, 0x90, 0x01
        saved_register 2, 0x98, 0x01
        saved_register 7, 0xa0, 0x01
        saved_register 16, 0xa8, 0x01
        nop
enchilada_moved_return:
        mov     %rsp, %r12
        mov     $14, %eax               /* rt_sigprocmask(SIG_SETMASK, all, 0, 8) */
        mov     $2, %edi
        lea     enchilada_all_but_ours(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        xor     %r8d, %r8d
        xor     %r9d, %r9d
        syscall
        and     $-16, %rsp
        cld
        mov     %r12, %rdi
        call    enchilada_room_for
        mov     %rax, %rsp
        mov     %r12, %rdi
        call    enchilada_move_back
        mov     %rax, %rsp
        mov     $15, %eax
        syscall
        ud2
        .cfi_endproc
        .size enchilada_moved_return, .-enchilada_moved_return
)");

namespace enchilada::runtime {
namespace {

/// What the kernel writes for a signal; its extended registers (fpregs) lie above.
struct KernelFrame {
  std::uint64_t return_to;
  std::byte context[304];  // the kernel's part of ucontext_t
  siginfo_t info;
};
static_assert(sizeof(KernelFrame) == 440);

/// The same on the program's stack.
struct MovedFrame {
  KernelFrame kernel;
  std::uint64_t virtual_mask;  // as they were before the handler
  std::uint64_t handler_mask;
};

constexpr std::uint64_t kRedZone = 128;
constexpr std::uint64_t kMostRegisters = 32 << 10;  // AMX takes 11 KiB
constexpr std::uint64_t kDirection = 0x400, kTrap = 0x100, kResume = 0x10000;

KernelFrame& frame_of(ucontext_t& context) {
  return *reinterpret_cast<KernelFrame*>(reinterpret_cast<std::byte*>(&context) -
                                         offsetof(KernelFrame, context));
}
ucontext_t& context_of(KernelFrame& frame) {
  return *reinterpret_cast<ucontext_t*>(frame.context);
}

/// Bytes of the extended registers, by what the kernel notes in the part that the processor leaves alone.
std::uint64_t register_bytes(const void* registers) {
  constexpr std::uint64_t kLegacy = 512, kNote = 464;
  constexpr std::uint32_t kMagic = 0x46505853;  // FP_XSTATE_MAGIC1
  if (registers == nullptr) return 0;
  std::uint32_t note[2];
  memcpy(note, static_cast<const std::byte*>(registers) + kNote, sizeof(note));
  return note[0] == kMagic ? std::max<std::uint64_t>(note[1], kLegacy) : kLegacy;
}

struct Place {
  std::uint64_t registers;
  std::uint64_t frame;
};
/// Where a frame goes whose upper end may be at `top`: aligned as the kernel aligns.
Place place_below(std::uint64_t top, std::uint64_t registers, std::uint64_t frame_bytes) {
  Place place;
  place.registers = (top - registers) & ~std::uint64_t{63};
  place.frame = ((place.registers - frame_bytes) & ~std::uint64_t{15}) - 8;
  return place;
}

bool writable(std::uint64_t from, std::uint64_t to) {
  for (std::uint64_t at = from; at < to; at = (at | kPageMask) + 1) {
    if (!enchilada_probe_write(reinterpret_cast<void*>(at))) return false;
  }
  return true;
}

/// The program's stack for a handler; *low is where it must not go below.
std::uint64_t stack_for(const ThreadRecord& thread, std::uint64_t sp, bool wants_alternate,
                        std::uint64_t* low) {
  const stack_t& stack = thread.program_stack;
  const auto start = reinterpret_cast<std::uint64_t>(stack.ss_sp);
  *low = 0;
  if (on_program_stack(thread, sp)) {
    *low = start;
  } else if (wants_alternate && (stack.ss_flags & SS_DISABLE) == 0) {
    *low = start;
    return start + stack.ss_size;
  }
  return sp - kRedZone;
}

void copy_out(ThreadRecord& thread, ucontext_t& context, const Place& place, std::uint64_t registers) {
  auto* moved = reinterpret_cast<MovedFrame*>(place.frame);
  memcpy(reinterpret_cast<void*>(place.registers), context.uc_mcontext.fpregs, registers);
  moved->kernel = frame_of(context);
  moved->kernel.return_to = reinterpret_cast<std::uint64_t>(&enchilada_moved_return);
  ucontext_t& theirs = context_of(moved->kernel);
  if (registers != 0) theirs.uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(place.registers);
  theirs.uc_stack = thread.program_stack;
  moved->virtual_mask = thread.virtual_mask;
  moved->handler_mask = thread.handler_mask;
  if ((thread.program_stack.ss_flags & kAutoDisarm) != 0) {
    thread.program_stack = stack_t{};
    thread.program_stack.ss_flags = SS_DISABLE;
  }
}

/// The registers and the mask with which the kernel would start the handler, for rt_sigreturn to load.
void start_handler(int signal, ucontext_t& context, const Place& place, const KernelSigaction& action) {
  auto* regs = context.uc_mcontext.gregs;
  auto* moved = reinterpret_cast<MovedFrame*>(place.frame);
  regs[REG_RIP] = static_cast<greg_t>(action.handler);
  regs[REG_RSP] = static_cast<greg_t>(place.frame);
  regs[REG_RDI] = signal;
  regs[REG_RSI] = as_long(&moved->kernel.info);
  regs[REG_RDX] = as_long(&context_of(moved->kernel));
  regs[REG_RAX] = 0;
  regs[REG_EFL] &= ~static_cast<greg_t>(kDirection | kTrap | kResume);
  context.uc_mcontext.fpregs = nullptr;  // a handler starts with these as a program does
  std::uint64_t mask;
  memcpy(&mask, &context.uc_sigmask, sizeof(mask));
  mask = mask_in_handler(mask, signal, action);
  memcpy(&context.uc_sigmask, &mask, sizeof(mask));
}

}  // namespace

bool enter_handler(ThreadRecord& thread, int signal, ucontext_t& context, const KernelSigaction& action) {
  leave_gadget(thread, context, (action.flags & SA_RESTART) != 0);
  const std::uint64_t registers = register_bytes(context.uc_mcontext.fpregs);
  CHECK(registers <= kMostRegisters, registers);
  const auto sp = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
  std::uint64_t low = 0;
  const std::uint64_t top = stack_for(thread, sp, (action.flags & SA_ONSTACK) != 0, &low);
  const Place place = place_below(top, registers, sizeof(MovedFrame));
  if (place.frame < low || place.frame > top || !writable(place.frame, top)) return false;
  copy_out(thread, context, place, registers);
  start_handler(signal, context, place, action);
  thread.handler_mask |= own_mask_in_handler(signal, action);
  if ((action.flags & SA_RESTART) == 0) thread.interruptions.fetch_add(1, std::memory_order_relaxed);
  return true;
}

}  // namespace enchilada::runtime

/// Where on the signal stack a moved frame can go back to, with room for enchilada_move_back() below it.
std::uint64_t enchilada_room_for(const ucontext_t* moved) {
  using namespace enchilada::runtime;
  const std::uint64_t registers = register_bytes(moved->uc_mcontext.fpregs);
  if (registers > kMostRegisters) die_of(SIGSEGV);
  const auto top = reinterpret_cast<std::uint64_t>(this_thread().stack_top());
  return place_below(top, registers, sizeof(KernelFrame)).frame & ~std::uint64_t{15};
}

/// Copies the frame to the signal stack, with the values that are the kernel's. Returns the stack pointer for
/// rt_sigreturn.
std::uint64_t enchilada_move_back(const ucontext_t* moved) {
  using namespace enchilada::runtime;
  ThreadRecord& thread = this_thread();
  const auto* from = reinterpret_cast<const MovedFrame*>(&frame_of(*const_cast<ucontext_t*>(moved)));
  const void* their_registers = moved->uc_mcontext.fpregs;
  const std::uint64_t registers = register_bytes(their_registers);
  const Place place =
      place_below(reinterpret_cast<std::uint64_t>(thread.stack_top()), registers, sizeof(KernelFrame));
  auto* frame = reinterpret_cast<KernelFrame*>(place.frame);
  *frame = from->kernel;
  ucontext_t& context = context_of(*frame);
  if (registers != 0) {
    memcpy(reinterpret_cast<void*>(place.registers), their_registers, registers);
    context.uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(place.registers);
  }
  std::uint64_t mask;
  memcpy(&mask, &context.uc_sigmask, sizeof(mask));
  thread.virtual_mask = (from->virtual_mask | mask) & kOurs;
  thread.handler_mask = from->handler_mask;
  mask &= ~kOurs;
  memcpy(&context.uc_sigmask, &mask, sizeof(mask));
  const auto sp = static_cast<std::uint64_t>(context.uc_mcontext.gregs[REG_RSP]);
  const stack_t theirs = context.uc_stack;
  set_program_stack(thread, theirs, sp);  // what the kernel would refuse is ignored here too
  context.uc_stack = signal_stack(thread);
  raise_at_return(thread);
  return place.frame + offsetof(KernelFrame, context);
}
