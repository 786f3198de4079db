// The handler, and the table of windows.
#include "runtime/library/fault_dispatch.h"

#include <signal.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>

#include "pmap/host/fault_info.h"

namespace enchilada::library {
namespace {

constexpr std::size_t kMostVms = 64;

// Mutable and global, because a signal handler belongs to the process: the one place of the library where it
// is so.
std::array<std::atomic<FaultTarget*>, kMostVms> targets{};
std::mutex targets_lock;
bool installed = false;  // targets_lock
struct sigaction previous {};

/// The fault is not ours: as if our handler had never been there.
void pass_on(int number, siginfo_t* info, void* context) {
  if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr) {
    previous.sa_sigaction(number, info, context);
    return;
  }
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
    return;
  }
  // Ignoring a fault of the processor's is the same as not handling it; the access is made again and ends the
  // program.
  struct sigaction fatal {};
  fatal.sa_handler = SIG_DFL;
  sigaction(number, &fatal, nullptr);
}

void on_sigbus(int number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const VirtAddr at = fault_address(*info);
  bool resolved = false;
  for (std::atomic<FaultTarget*>& slot : targets) {
    FaultTarget* const target = slot.load(std::memory_order_acquire);
    if (target == nullptr || !target->window().contains(at)) continue;
    resolved = target->resolve(at, fault_access(*static_cast<ucontext_t*>(context)));
    break;
  }
  if (!resolved) pass_on(number, info, context);
  errno = saved_errno;
}

void install() {
  struct sigaction action {};
  action.sa_sigaction = on_sigbus;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous);
  installed = true;
}

}  // namespace

bool add_fault_target(FaultTarget& target) {
  const std::lock_guard guard(targets_lock);
  for (std::atomic<FaultTarget*>& slot : targets) {
    if (slot.load(std::memory_order_relaxed) != nullptr) continue;
    slot.store(&target, std::memory_order_release);
    if (!installed) install();
    return true;
  }
  return false;
}

void remove_fault_target(FaultTarget& target) {
  const std::lock_guard guard(targets_lock);
  for (std::atomic<FaultTarget*>& slot : targets) {
    if (slot.load(std::memory_order_relaxed) == &target) slot.store(nullptr, std::memory_order_release);
  }
}

}  // namespace enchilada::library
