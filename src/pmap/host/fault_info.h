// Reads what the kernel says about a memory fault out of a signal's arguments (x86-64).
#pragma once

#include <signal.h>
#include <ucontext.h>

#include "vm/vm_types.h"

namespace enchilada {

/// What the faulting instruction wanted: bit 1 of the page-fault error code is "write".
inline Access fault_access(const ucontext_t& context) {
  return (context.uc_mcontext.gregs[REG_ERR] & 2) != 0 ? Access::kWrite : Access::kRead;
}

/// The address that faulted (SIGBUS, SIGSEGV).
inline VirtAddr fault_address(const siginfo_t& info) {
  return VirtAddr{reinterpret_cast<std::uint64_t>(info.si_addr)};
}

/// Was it the fetch of an instruction?
inline bool fault_in_code(const ucontext_t& context) {
  constexpr greg_t kInstructionFetch = 0x10;  // of the error code (Intel SDM 3A, 4.7)
  return (context.uc_mcontext.gregs[REG_ERR] & kInstructionFetch) != 0;
}

}  // namespace enchilada
