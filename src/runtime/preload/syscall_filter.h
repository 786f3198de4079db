// The filter that traps the program's system calls on managed memory (live-runtime.md rule 4): only calls
// with a window address among their arguments, so that unmanaged exec'd children, which inherit it, live.
#pragma once

#include <cstdint>

namespace enchilada::runtime {

/// si_errno of our filter's SIGSYS: a filter of the program's may trap too.
inline constexpr int kTrapMark = 0x4e43;

/// Installs the filter unless an inherited one of ours is at work. nullptr, or why not.
const char* install_filter();
/// A trapped call is the question whether there is one: it is answered with -EINVAL.
bool answers_filter_question(long nr, const std::uint64_t* args);

}  // namespace enchilada::runtime
