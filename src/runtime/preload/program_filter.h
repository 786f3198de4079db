// A seccomp filter that the program installs for itself.
//
// Of several filters the strictest verdict counts, so it would refuse the engine's calls as well. It is
// installed behind a few instructions that allow what the engine calls: what comes from this library's code,
// or from the engine's gadget. Invariant: while it is in force, what the runtime calls in the program's place
// goes through program_syscall(), or a gadget of the program's, and meets the filter.
#pragma once

namespace enchilada::runtime {

/// prctl(PR_SET_SECCOMP) or seccomp(SECCOMP_SET_MODE_FILTER). False: another call.
bool answer_filter_call(long nr, const long (&args)[6], long* result);

/// This process has a filter of the program's, so what it execs cannot be managed: the library would lie
/// elsewhere there, and its calls would be refused.
bool program_filtered();

/// A call of the program's made by a wrapper, no argument in managed memory.
long program_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);

}  // namespace enchilada::runtime
