// Files without a name, for swap: nothing is left behind however their users end.
#pragma once

namespace enchilada {

/// An unnamed file in the directory (O_TMPFILE; where the file system has none, a named one, unlinked at
/// once), close-on-exec, with O_DIRECT where it can be: *direct. Returns a descriptor, or -1 with errno set.
[[nodiscard]] int open_unnamed_file(const char* directory, bool* direct);

}  // namespace enchilada
