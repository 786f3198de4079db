// HostFile: short and interrupted system calls are continued; the end of the file where there should be bytes
// is an error.
#include "pager/host_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace enchilada {
namespace {

/// Calls `step(done)`, which moves some bytes or answers -1, until `bytes` are moved.
template <class Step>
bool move_all(std::size_t bytes, Step step) {
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t n = step(done);
    if (n > 0) {
      done += static_cast<std::size_t>(n);
    } else if (n == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::optional<HostFile> HostFile::attach(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return HostFile(descriptor, static_cast<std::uint64_t>(status.st_size));
}

bool HostFile::read(ByteCount offset, std::span<std::byte> bytes) {
  return move_all(bytes.size(), [&](std::size_t done) {
    return pread(descriptor_, bytes.data() + done, bytes.size() - done,
                 static_cast<off_t>(offset.value() + done));
  });
}

bool HostFile::write(ByteCount offset, std::span<const std::byte> bytes) {
  return move_all(bytes.size(), [&](std::size_t done) {
    return pwrite(descriptor_, bytes.data() + done, bytes.size() - done,
                  static_cast<off_t>(offset.value() + done));
  });
}

bool HostFile::resize(ByteCount size) {
  if (ftruncate(descriptor_, static_cast<off_t>(size.value())) != 0) return false;
  size_.store(size.value(), std::memory_order_relaxed);
  return true;
}

}  // namespace enchilada
