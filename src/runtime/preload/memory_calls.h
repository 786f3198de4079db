// mmap and its family on managed memory: Linux's semantics on the engine's map.
//
// All answer as the kernel does: >= 0, or -errno. They may be called from wrappers (ordinary context) and
// from the SIGSYS handler. Calls that have nothing to do with the window are passed to the kernel.
#pragma once

#include <cstdint>

namespace enchilada::runtime {

long call_mmap(std::uint64_t address, std::uint64_t length, int prot, int flags, int fd,
               std::uint64_t offset);
long call_munmap(std::uint64_t address, std::uint64_t length);
long call_mprotect(std::uint64_t address, std::uint64_t length, int prot);
long call_madvise(std::uint64_t address, std::uint64_t length, int advice);
long call_mremap(std::uint64_t old_address, std::uint64_t old_length, std::uint64_t new_length, int flags,
                 std::uint64_t new_address);
long call_mincore(std::uint64_t address, std::uint64_t length, unsigned char* vec);
long call_mlock(std::uint64_t address, std::uint64_t length);
long call_munlock(std::uint64_t address, std::uint64_t length);
long call_mlockall(int flags);
long call_munlockall();
long call_msync(std::uint64_t address, std::uint64_t length, int flags);
/// The program break; 0 asks. Answers the break that is now in force, as the system call does.
std::uint64_t call_brk(std::uint64_t wanted);

/// Answers one of the above by its number: a system call that the program makes without libc. False: another
/// call.
bool answer_memory_call(long nr, const long (&args)[6], long* result);

/// The program's own RLIMIT_AS / RLIMIT_DATA: the kernel would count the window itself, so it never gets to
/// see them, and exec does not keep them: they go on in the environment, behind the tree's value and
/// kLimitMark. ~0 = unlimited.
void set_address_limit(std::uint64_t bytes);
std::uint64_t address_limit();
/// The RLIMIT_DATA that the process started with and the kernel keeps (own_mapping_flags()): it holds for
/// managed memory too. ~0 = unlimited.
void set_data_limit(std::uint64_t bytes);

}  // namespace enchilada::runtime
