// The resource limits that the program has only on paper: the kernel's would meet the engine itself.
//
// RLIMIT_AS and RLIMIT_DATA: the kernel counts the whole window; memory_calls.cc enforces the program's.
// RLIMIT_FSIZE: the kernel ends writes to the swap files too; the program's is remembered, not enforced.
#pragma once

namespace enchilada::runtime {

/// Answers getrlimit, setrlimit and prlimit of the calling process on these limits: *result is 0 or -errno.
/// False: another call, process or limit.
bool answer_limit_call(long nr, const long (&args)[6], long* result);

}  // namespace enchilada::runtime
