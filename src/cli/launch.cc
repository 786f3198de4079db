// fork, execve, waitpid.
//
// The program stays in our process group, so the terminal's signals reach it directly; we outlive SIGINT and
// SIGQUIT to report, and stop and go on with it on SIGTSTP and SIGCONT, which need nothing. What is sent to
// us alone is passed on.
#include "cli/launch.h"

#include <fcntl.h>
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
  void restore() {
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
  int report[2];  // execve closes it; on failure the child writes errno into it
  if (pipe2(report, O_CLOEXEC) != 0) {
    throw UserError(errno == EMFILE ? std::string("too many open files: raise the limit (ulimit -n)")
                                    : fmt::format("pipe: {}", std::strerror(errno)));
  }
  sigset_t all;
  sigset_t mask;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all,
              &mask);  // no signal may meet a handler without a child, or a child with our handler
  Forwarding forwarding;
  const pid_t child = fork();
  if (child == 0) {
    forwarding.restore();
    sigprocmask(SIG_SETMASK, &mask, nullptr);
    execve(path.c_str(), argv.data(), envp.data());
    const int error = errno;
    (void)!write(report[1], &error, sizeof(error));
    _exit(kStatusNotExecutable);
  }
  const int fork_error = errno;
  child_pid = child;
  sigprocmask(SIG_SETMASK, &mask, nullptr);
  close(report[1]);
  int error = 0;
  ssize_t got = 0;
  while (child > 0 && (got = read(report[0], &error, sizeof(error))) < 0 && errno == EINTR) {
  }
  close(report[0]);
  if (child < 0) throw UserError(fmt::format("fork: {}", std::strerror(fork_error)));
  const ChildEnd end = wait_for(child);
  child_pid = 0;
  if (got == static_cast<ssize_t>(sizeof(error))) {
    throw UserError(fmt::format("{}: {}", path, std::strerror(error)),
                    error == ENOENT ? kStatusNotFound : kStatusNotExecutable);
  }
  return end;
}

}  // namespace enchilada::cli
