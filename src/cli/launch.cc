// vfork (the child executes at once: no tables to copy), execve, waitpid. Not posix_spawn: glibc's leaves its
// two internal signals ignored in the program.
//
// The program stays in our process group, so the terminal's signals reach it directly; we outlive SIGINT and
// SIGQUIT to report, and stop and go on with it on SIGTSTP and SIGCONT, which need nothing. What is sent to
// us alone is passed on.
#include "cli/launch.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cli/user_error.h"

extern char** environ;

namespace enchilada::cli {
namespace {

volatile sig_atomic_t child_pid = 0;  // a handler has no other way to learn it

constexpr std::array kForwarded = {SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGINT, SIGQUIT};

void forward(int signal, siginfo_t* info, void* /*context*/) {
  const int error = errno;
  const bool from_terminal = info->si_code == SI_KERNEL;  // the child got it too
  if (child_pid > 0 && !from_terminal) kill(static_cast<pid_t>(child_pid), signal);
  errno = error;
}

/// Signal dispositions as they were, for the child.
class Forwarding {
 public:
  Forwarding() {
    struct sigaction action {};
    action.sa_sigaction = forward;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigfillset(&action.sa_mask);
    for (std::size_t i = 0; i < kForwarded.size(); ++i) {
      sigaction(kForwarded[i], nullptr, &before_[i]);
      // What nohup or a shell without job control ignores stays ignored.
      if (before_[i].sa_handler != SIG_IGN) sigaction(kForwarded[i], &action, nullptr);
    }
  }
  ~Forwarding() { restore(); }
  Forwarding(const Forwarding&) = delete;
  Forwarding& operator=(const Forwarding&) = delete;
  void restore() const {
    for (std::size_t i = 0; i < kForwarded.size(); ++i) sigaction(kForwarded[i], &before_[i], nullptr);
  }

 private:
  std::array<struct sigaction, kForwarded.size()> before_{};
};

std::vector<char*> pointers(const std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (const std::string& s : strings) result.push_back(const_cast<char*>(s.c_str()));
  result.push_back(nullptr);
  return result;
}

std::vector<std::string> environment_with(const std::vector<std::string>& variables) {
  std::vector<std::string> result = variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('=') + 1);
    bool replaced = false;
    for (const std::string& v : variables) replaced = replaced || v.starts_with(name);
    if (!replaced) result.emplace_back(text);
  }
  return result;
}

ChildEnd wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ChildEnd end;
  if (WIFSIGNALED(status)) {
    end.signal = WTERMSIG(status);
  } else {
    end.status = WEXITSTATUS(status);
  }
  return end;
}

}  // namespace

ChildEnd run_child(const std::string& path, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& variables) {
  const std::vector<std::string> environment = environment_with(variables);
  const std::vector<char*> argv = pointers(arguments);
  const std::vector<char*> envp = pointers(environment);
  sigset_t all;
  sigset_t mask;
  sigfillset(&all);
  // No signal may meet a handler without a child, or a child with our handler, which shares our memory.
  sigprocmask(SIG_BLOCK, &all, &mask);
  const Forwarding forwarding;
  volatile int exec_error = 0;  // the child writes it
  const pid_t child = vfork();
  if (child == 0) {
    forwarding.restore();
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execve(path.c_str(), argv.data(), envp.data());
    exec_error = errno;
    _exit(kStatusNotExecutable);
  }
  const int fork_error = errno;
  child_pid = child;
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  if (child < 0) throw UserError(fmt::format("fork: {}", std::strerror(fork_error)));
  const ChildEnd end = wait_for(child);
  child_pid = 0;
  if (const int error = exec_error; error != 0) {
    throw UserError(fmt::format("{}: {}", path, std::strerror(error)),
                    error == ENOENT ? kStatusNotFound : kStatusNotExecutable);
  }
  return end;
}

}  // namespace enchilada::cli
