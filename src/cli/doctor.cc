// The doctor's findings, one line each: state, what, and what it means.
#include "cli/doctor.h"

#include <fmt/format.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "cli/swap_file.h"
#include "cli/system_info.h"
#include "cli/user_error.h"
#include "observe/run_report.h"
#include "pmap/host/host_features.h"
#include "swap/swap_place.h"

namespace enchilada::cli {
namespace {

enum class Finding { kGood, kNote, kBad };

class Sheet {
 public:
  void line(Finding finding, const char* what, const std::string& text) {
    const char* mark = finding == Finding::kGood ? "ok" : finding == Finding::kNote ? "note" : "BAD";
    fmt::print("  {:<5} {:<16} {}\n", mark, what, text);
    if (finding == Finding::kBad) usable_ = false;
  }
  [[nodiscard]] bool usable() const { return usable_; }

 private:
  bool usable_ = true;
};

void kernel_lines(const HostFeatures& host, Sheet* sheet) {
  sheet->line(Finding::kGood, "kernel", host.kernel);
  sheet->line(host.usable() ? Finding::kGood : Finding::kBad, "userfaultfd",
              host.usable() ? "works for this user, faults are handled in the thread that takes them"
                            : std::string(host.reason));
  if (!host.usable()) return;
  sheet->line(host.write_protect ? Finding::kGood : Finding::kBad, "write protection",
              host.write_protect ? "works" : "missing: a kernel from Linux 5.7 on is needed");
  sheet->line(host.pagemap ? Finding::kGood : Finding::kNote, "pagemap",
              host.pagemap ? "readable" : "not readable: less is known about which pages were written");
  if (host.move) {
    sheet->line(Finding::kGood, "transport", "move: frames are moved, not copied (UFFDIO_MOVE)");
  } else {
    sheet->line(Finding::kNote, "transport",
                "copy: this kernel has no UFFDIO_MOVE (Linux 6.8); correct, somewhat slower");
  }
}

void seccomp_line(Sheet* sheet) {
  const unsigned action = SECCOMP_RET_TRAP;
  const long answer = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action);
  sheet->line(
      answer == 0 ? Finding::kGood : Finding::kBad, "seccomp",
      answer == 0
          ? "filters with traps work: system calls on absent pages are caught"
          : fmt::format("SECCOMP_RET_TRAP is not available ({}): the kernel needs CONFIG_SECCOMP_FILTER",
                        std::strerror(errno)));
  const int mode = prctl(PR_GET_SECCOMP, 0, 0, 0, 0);
  if (mode == SECCOMP_MODE_FILTER) {
    sheet->line(Finding::kNote, "container",
                "a seccomp filter is already in force here (container or sandbox)");
  }
}

void io_uring_line(Sheet* sheet) {
  io_uring_params parameters{};
  const long fd = syscall(SYS_io_uring_setup, 1, &parameters);
  const int error = errno;
  sheet->line(fd >= 0 ? Finding::kGood : Finding::kNote, "io_uring",
              fd >= 0 ? "works: memory is reclaimed while a page is read"
                      : fmt::format("refused ({}; see kernel.io_uring_disabled): reads wait; correct, slower",
                                    std::strerror(error)));
  if (fd >= 0) close(static_cast<int>(fd));
}

void memfd_line(Sheet* sheet) {
  const int fd = memfd_create("enchilada-doctor", MFD_CLOEXEC);
  sheet->line(fd >= 0 ? Finding::kGood : Finding::kBad, "shared segment",
              fd >= 0 ? "memfd works" : fmt::format("memfd_create: {}", std::strerror(errno)));
  if (fd >= 0) close(fd);
}

std::string limit_text(rlim_t value) {
  return value == RLIM_INFINITY ? "unlimited" : human_bytes(value);
}

void limit_lines(Sheet* sheet) {
  struct rlimit limit {};
  getrlimit(RLIMIT_AS, &limit);
  // The window for managed memory is reserved address space; nothing of it is touched.
  sheet->line(
      limit.rlim_cur == RLIM_INFINITY ? Finding::kGood : Finding::kBad, "address space",
      limit.rlim_cur == RLIM_INFINITY
          ? "unlimited"
          : fmt::format("limited to {}: raise it with 'ulimit -v unlimited'", limit_text(limit.rlim_cur)));
  getrlimit(RLIMIT_NOFILE, &limit);
  sheet->line(limit.rlim_cur >= 64 ? Finding::kGood : Finding::kBad, "descriptors",
              fmt::format("{} (at most {})", limit.rlim_cur, limit.rlim_max));
  getrlimit(RLIMIT_FSIZE, &limit);
  sheet->line(limit.rlim_cur == RLIM_INFINITY ? Finding::kGood : Finding::kNote, "file size",
              limit.rlim_cur == RLIM_INFINITY ? "unlimited"
                                              : fmt::format("the swap file cannot grow beyond {} (ulimit -f)",
                                                            limit_text(limit.rlim_cur)));
}

void memory_lines(Sheet* sheet) {
  const std::uint64_t available = available_memory();
  sheet->line(Finding::kGood, "memory",
              fmt::format("{} available; --ram is {} when not given", human_bytes(available),
                          human_bytes(available / 2)));
  const std::uint64_t limit = cgroup_limit();
  sheet->line(Finding::kGood, "cgroup",
              limit == 0 ? "no memory limit" : fmt::format("limit {}", human_bytes(limit)));
  const std::string thp = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  sheet->line(Finding::kGood, "huge pages",
              thp.empty() ? "none" : fmt::format("{} (managed memory does not use them)", thp));
}

void swap_line(Sheet* sheet) {
  const std::string folder = default_swap_directory();
  const SwapPlace place = examine_swap_directory(folder);
  if (!place.usable) {
    sheet->line(Finding::kBad, "swap",
                fmt::format("no file can be made in {} ({}): use --swap DIRECTORY or ENCHILADA_SWAP_DIR",
                            folder, place.why));
    return;
  }
  const std::uint64_t size = default_swap_size(place.free_bytes);
  sheet->line(place.direct ? Finding::kGood : Finding::kNote, "swap",
              fmt::format("{}: {} free, up to {} are used, {}", folder, human_bytes(place.free_bytes),
                          human_bytes(size),
                          place.direct ? "direct I/O"
                                       : "buffered: this filesystem has no direct I/O, so the page "
                                         "cache holds a second copy"));
}

void library_line(Sheet* sheet) {
  try {
    sheet->line(Finding::kGood, "library", preload_library());
  } catch (const UserError& e) {
    sheet->line(Finding::kBad, "library", e.what());
  }
}

}  // namespace

int doctor_command() {
  Sheet sheet;
  fmt::print("enchilada doctor\n");
  kernel_lines(probe_host_features(), &sheet);
  seccomp_line(&sheet);
  io_uring_line(&sheet);
  memfd_line(&sheet);
  limit_lines(&sheet);
  memory_lines(&sheet);
  swap_line(&sheet);
  library_line(&sheet);
  fmt::print("{}\n",
             sheet.usable() ? "Programs can be run here." : "Programs cannot be run here: see BAD above.");
  return sheet.usable() ? 0 : 1;
}

}  // namespace enchilada::cli
