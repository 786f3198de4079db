// libc's functions that fork inside, by symbol: with our own fork() the parent knows the child's pid, there
// is no fork on a stack that may be paged out, and too little --ram is an error and not the child's death.
#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <utmp.h>

#include <initializer_list>

#include "runtime/preload/export.h"

namespace {

/// Standard descriptors to /dev/null, if that is what its name says.
int point_at_null() {
  constexpr unsigned kMajor = 1;
  constexpr unsigned kMinor = 3;
  const int fd = open(_PATH_DEVNULL, O_RDWR);
  if (fd < 0) return -1;
  struct stat about;
  if (fstat(fd, &about) != 0 || !S_ISCHR(about.st_mode) || about.st_rdev != makedev(kMajor, kMinor)) {
    close(fd);
    errno = ENODEV;
    return -1;
  }
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(fd, standard);
  if (fd > STDERR_FILENO) close(fd);
  return 0;
}

}  // namespace

extern "C" {

ENCHILADA_EXPORT int forkpty(int* master, char* name, const termios* settings, const winsize* size) noexcept {
  int ours = -1;
  int terminal = -1;
  if (openpty(&ours, &terminal, name, settings, size) < 0) return -1;
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    close(ours);
    close(terminal);
    errno = error;
    return -1;
  }
  if (pid == 0) {
    close(ours);
    if (login_tty(terminal) != 0) _exit(1);
    return 0;
  }
  *master = ours;
  close(terminal);
  return pid;
}

ENCHILADA_EXPORT int daemon(int keep_folder, int keep_descriptors) noexcept {
  const pid_t pid = fork();
  if (pid < 0) return -1;
  if (pid > 0) _exit(0);
  if (setsid() < 0) return -1;
  if (keep_folder == 0) (void)!chdir("/");
  return keep_descriptors == 0 ? point_at_null() : 0;
}

}  // extern "C"
