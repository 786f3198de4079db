// Signal handlers, probes and the tiny engine of the host tests.
#include "host_fixture.h"

#include <sys/syscall.h>

#include <cstdlib>

#include "base/raw_syscall.h"
#include "pmap/host/fault_info.h"

// A probe's one access has a known address: the handler sends a thread that faults there to probe_failed.
asm(R"(
.text
.globl probe_load
.type probe_load,@function
probe_load:
probe_load_access:
  movzbl (%rdi), %eax
  movb %al, (%rsi)
  movl $1, %eax
  ret
.globl probe_store
.type probe_store,@function
probe_store:
probe_store_access:
  movb %sil, (%rdi)
  movl $1, %eax
  ret
probe_failed:
  xorl %eax, %eax
  ret
)");
extern "C" const char probe_load_access[], probe_store_access[], probe_failed[];

namespace enchilada {
namespace {

std::atomic<FaultHook> bus_hook{nullptr};
std::atomic<FaultHook> segv_hook{nullptr};
std::atomic<TinyEngine*> the_engine{nullptr};

void on_signal(int number, siginfo_t* info, void* context) {
  auto& uc = *static_cast<ucontext_t*>(context);
  auto& rip = uc.uc_mcontext.gregs[REG_RIP];
  if (number == SIGBUS && (rip == reinterpret_cast<greg_t>(probe_load_access) ||
                           rip == reinterpret_cast<greg_t>(probe_store_access))) {
    rip = reinterpret_cast<greg_t>(probe_failed);
    return;
  }
  const FaultHook hook = (number == SIGBUS ? bus_hook : segv_hook).load();
  if (hook != nullptr && hook(fault_address(*info), fault_access(uc))) return;
  signal(number, SIG_DFL);
}

const bool installed = [] {
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO;
  sigfillset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
  sigaction(SIGSEGV, &action, nullptr);
  return true;
}();

}  // namespace

void set_fault_hook(FaultHook hook) {
  bus_hook.store(hook);
}
void set_segv_hook(FaultHook hook) {
  segv_hook.store(hook);
}

TinyEngine::TinyEngine(HostRig& rig, std::uint32_t pages) : rig_(rig), busy_(pages) {
  (void)installed;
  the_engine.store(this);
  set_fault_hook(on_fault);
}
TinyEngine::~TinyEngine() {
  set_fault_hook(nullptr);
  the_engine.store(nullptr);
}

void TinyEngine::busy(std::uint32_t page) {
  std::uint32_t expected = 0;
  while (!busy_[page].compare_exchange_weak(expected, 1, std::memory_order_acquire)) {
    expected = 0;
    raw_syscall(kSysSchedYield);
  }
}

void TinyEngine::fault_in(std::uint32_t page, Prot prot) {
  busy(page);
  const FrameNumber frame{page};
  rig_.machine->enter(rig_.at(page), {&frame, 1}, prot);
  idle(page);
}

bool TinyEngine::on_fault(VirtAddr at, Access) {
  TinyEngine* engine = the_engine.load();
  if (engine == nullptr || !engine->rig_.machine->window().contains(at)) return false;
  const std::uint64_t page = (at - engine->rig_.at(0)).value() >> kPageShift;
  if (page >= engine->busy_.size()) return false;
  engine->faults_.fetch_add(1);
  engine->fault_in(static_cast<std::uint32_t>(page));
  return true;
}

std::uint64_t TinyEngine::evict(std::uint32_t first, std::uint32_t n) {
  std::uint32_t mapped = 0;  // taking what is absent would only keep the busy flags from those who fault
  for (std::uint32_t i = 0; i < n; ++i)
    mapped += rig_.machine->frame_at(rig_.at(first + i)) != kNoFrame ? 1 : 0;
  if (mapped * 2 < n) {
    raw_syscall(kSysSchedYield);
    return 0;
  }
  for (std::uint32_t i = 0; i < n; ++i) busy(first + i);
  const std::uint64_t refused = rig_.remove_all(HostRig::run(first, n));
  evicted_.fetch_add(mapped - refused);
  for (std::uint32_t i = 0; i < n; ++i) idle(first + i);
  return refused;
}

}  // namespace enchilada
