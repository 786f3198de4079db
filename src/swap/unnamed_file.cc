// Opening unnamed files.
#include "swap/unnamed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace enchilada {
namespace {

int open_with(const std::string& directory, int flags) {
  const int fd = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)) return fd;
  std::string name = directory + "/.enchilada-swap-XXXXXX";
  const int made = mkostemp(name.data(), O_CLOEXEC | flags);
  if (made >= 0) unlink(name.c_str());
  return made;
}

}  // namespace

int open_unnamed_file(const char* directory, bool* direct) {
  const int fd = open_with(directory, O_DIRECT);
  *direct = fd >= 0;
  return fd >= 0 || errno != EINVAL ? fd : open_with(directory, 0);
}

}  // namespace enchilada
