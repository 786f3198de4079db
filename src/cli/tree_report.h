// From the process tree's segment to a RunReport.
#pragma once

#include "observe/run_report.h"
#include "runtime/tree/process_tree.h"
#include "runtime/tree/tree_swap.h"

namespace enchilada::cli {

/// Counters and levels of the whole tree: ended processes and those still alive.
void gather(const ProcessTree& tree, TreeSwap& swap, RunReport* report);

}  // namespace enchilada::cli
