// The kernel's read-ahead of the program's own files (its text and its libraries) while memory is short.
//
// A fault in mapped text reads what the disk's read-ahead says around it, megabytes on some machines. Where
// the page cache has little room (a memory cgroup a little larger than --ram), each such read drives out the
// text that the next instruction needs: a compiler in 40M took 89 s instead of 12 s. So when a process that
// pages also keeps reading its files anew, its read-only file mappings are told to read single pages
// (MADV_RANDOM). Invariant: nothing is held while it looks; no allocation, async-signal-safe.
#pragma once

namespace enchilada::runtime {

/// After each fault that the engine has resolved, outside of all locks.
void watch_text_readahead();

}  // namespace enchilada::runtime
