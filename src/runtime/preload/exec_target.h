// What a program that is about to be executed will be: ours, or one that cannot join the tree.
#pragma once

#include "runtime/tree/tree_layout.h"

namespace enchilada::runtime {

/// Looks at the file, and at the interpreters of scripts. kNothing also for what will not run at all.
/// `scratch`: memory outside of the window, kTargetScratch bytes.
UnmanagedWhy judge_program(const char* path, char* scratch);
/// The same for a name that is looked for in `search_path`; nullptr: it is a path.
UnmanagedWhy judge_program_in_path(const char* name, const char* search_path, char* scratch);
inline constexpr unsigned long kTargetScratch = 8192;

}  // namespace enchilada::runtime
