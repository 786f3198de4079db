// Probing the kernel for what the host pmap needs; see host_features.h.
#include "pmap/host/host_features.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include <cstddef>

#include "base/raw_syscall.h"
#include "pmap/host/uffd_abi.h"

namespace enchilada {
namespace {

template <std::size_t N>
void set_text(char (&to)[N], const char* from) {
  std::size_t i = 0;
  for (; i + 1 < N && from[i] != '\0'; ++i) to[i] = from[i];
  to[i] = '\0';
}

const char* why_no_userfaultfd(long error) {
  switch (-error) {
    case ENOSYS:
      return "userfaultfd(2) is missing: the kernel was built without CONFIG_USERFAULTFD, or a sandbox hides "
             "it";
    case EPERM:
      return "userfaultfd(2) is forbidden: a seccomp filter (container?) blocks it; allow it in the "
             "container's "
             "profile (vm.unprivileged_userfaultfd need not be set for user-mode-only use)";
    case EINVAL:
      return "userfaultfd(2) does not know UFFD_USER_MODE_ONLY: the kernel is older than 5.11";
    case EMFILE:
    case ENFILE:
      return "no free file descriptor for userfaultfd(2): raise the limit (ulimit -n)";
    default:
      return "userfaultfd(2) failed";
  }
}

void probe_userfaultfd(HostFeatures& f) {
  const long fd = raw_syscall(SYS_userfaultfd, O_CLOEXEC | uffd::kUserModeOnly);
  if (fd < 0) {
    f.error = static_cast<int>(-fd);
    set_text(f.reason, why_no_userfaultfd(fd));
    return;
  }
  uffd::Api api{uffd::kApi, 0, 0};
  const long result = raw_syscall(SYS_ioctl, fd, uffd::kIoctlApi, reinterpret_cast<long>(&api));
  raw_syscall(SYS_close, fd);
  if (result < 0) {
    f.error = static_cast<int>(-result);
    set_text(f.reason, "UFFDIO_API failed: a seccomp filter may block the ioctl");
    return;
  }
  f.userfaultfd = true;
  f.features = api.features;
  f.move = (api.features & uffd::kFeatureMove) != 0;
  f.sigbus = (api.features & uffd::kFeatureSigbus) != 0;
  f.write_protect = (api.features & uffd::kFeaturePagefaultFlagWp) != 0;
  if (!f.sigbus) {
    set_text(f.reason, "userfaultfd has no SIGBUS mode: the kernel is older than 4.14");
  } else if (!f.write_protect) {
    set_text(f.reason, "userfaultfd has no write protection: the kernel is older than 5.7 or not x86-64");
  } else if (!f.move) {
    set_text(f.reason, "no UFFDIO_MOVE (Linux 6.8): pages are copied instead of moved; works, but slower");
  }
}

}  // namespace

HostFeatures probe_host_features() noexcept {
  HostFeatures f;
  utsname name{};
  if (raw_syscall(SYS_uname, reinterpret_cast<long>(&name)) == 0) set_text(f.kernel, name.release);
  probe_userfaultfd(f);
  const long fd =
      raw_syscall(SYS_openat, AT_FDCWD, reinterpret_cast<long>("/proc/self/pagemap"), O_RDONLY | O_CLOEXEC);
  f.pagemap = fd >= 0;
  if (fd >= 0) raw_syscall(SYS_close, fd);
  return f;
}

}  // namespace enchilada
