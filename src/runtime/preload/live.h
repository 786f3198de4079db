// Live: the one engine instance of a managed process, and everything that it is made of.
//
// Life: kUntouched -> (first interposed call, or the constructor) kStarting -> kReady, or kPassive when this
// process is not to be managed (no tree in the environment). A forked child keeps its copy and continues it
// (process.cc). Invariants: nothing of it lies in the window; whoever enters the engine has all signals
// blocked (EngineSection) so that no handler of the program can run inside; fork holds `gate` exclusively,
// everything else shared, so a fork never sees a page busy or an I/O under way.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>

#include "base/arena.h"
#include "base/mutex.h"
#include "pmap/host/host_clock.h"
#include "pmap/host/host_machine.h"
#include "runtime/preload/layout.h"
#include "runtime/tree/process_tree.h"
#include "runtime/tree/tree_ram_budget.h"
#include "runtime/tree/tree_swap.h"
#include "swap/io_ring.h"
#include "swap/swap_device.h"
#include "swap/swap_pager.h"
#include "swap/swap_space.h"
#include "vm/vm_fault.h"
#include "vm/vm_map.h"
#include "vm/vm_pageout.h"
#include "vm/vm_system.h"

namespace enchilada::runtime {

enum class LiveState : std::uint32_t { kUntouched, kStarting, kReady, kPassive };

class Live {
 public:
  constexpr Live() = default;

  [[nodiscard]] LiveState state() const { return state_.load(std::memory_order_acquire); }
  [[nodiscard]] bool ready() const { return state() == LiveState::kReady; }

  /// Brings the process under management, once; every interposed function calls it first. Cheap when done.
  void start() {
    if (__builtin_expect(state_.load(std::memory_order_acquire) <= LiveState::kStarting, 0)) start_slow();
  }

  [[nodiscard]] VmMap& map() { return *map_; }
  [[nodiscard]] VmSystem& system() { return *system_; }
  [[nodiscard]] HostMachine& host() { return *host_; }
  [[nodiscard]] ProcessTree& tree() { return tree_; }
  [[nodiscard]] SwapPager& pager() { return *pager_; }
  [[nodiscard]] SwapSpace& swap_space() { return tree_swap_->space(); }
  [[nodiscard]] SharedMutex& gate() { return gate_; }
  [[nodiscard]] std::uint32_t pid() const { return pid_; }

  /// A page fault of the program (or of a probe). Waits for siblings' memory when there is none; ends the
  /// program with a message when nothing can help any more.
  FaultResult fault(VirtAddr address, Access access);

  /// At most so many bytes may be pinned by one system call; larger transfers go in pieces.
  [[nodiscard]] std::uint64_t pin_limit() const { return pin_limit_; }

  /// Engine and swap go on as this forked child's (process.cc has done the machine's and the tree's part).
  void become_child(ProcessSlot slot);
  /// SIGSEGV on window addresses while somebody forks: waits until that is over. True: try again.
  bool wait_for_fork();
  /// The address is a kernel mapping that the program put into the window.
  [[nodiscard]] bool is_foreign(VirtAddr address) const;

  /// What exec'd children need in their environment.
  [[nodiscard]] const char* preload_path() const { return preload_path_; }
  [[nodiscard]] const char* tree_variable() const { return tree_variable_; }  // "ENCHILADA_TREE=..."

 private:
  void start_slow();
  void build(const char* tree_value);
  void join_swap();
  void compress_swap(unsigned devices);
  void make_machine();
  void make_engine();
  void map_counters(ProcessSlot slot);
  [[noreturn]] void out_of_memory();

  std::atomic<LiveState> state_{LiveState::kUntouched};
  std::uint32_t pid_ = 0;
  std::uint64_t pin_limit_ = 0;
  SharedMutex gate_{LockRank::kNone};
  ProcessTree tree_;
  Arena* arena_ = nullptr;
  TreeRamBudget* budget_ = nullptr;
  HostClock* clock_ = nullptr;
  HostMachine* host_ = nullptr;
  TreeSwap* tree_swap_ = nullptr;
  IoRings* rings_ = nullptr;
  AsyncWrites* writes_ = nullptr;
  SwapDevice* swap_devices_[kMaxSwapFiles] = {};
  CompressedSwap* compressed_ = nullptr;
  SwapPager* pager_ = nullptr;
  VmSystem* system_ = nullptr;
  VmMap* map_ = nullptr;
  VmCounters* counters_ = nullptr;
  char preload_path_[1024] = {};
  char tree_variable_[256] = {};
};

/// The instance; constant-initialised, so that it exists before any constructor has run.
Live& live();

/// Prints "enchilada: ..." on standard error in one write; parts are concatenated. Async-signal-safe.
void complain(std::initializer_list<const char*> parts);
/// For what stops the start of a program: exit status 2.
[[noreturn]] void give_up(std::initializer_list<const char*> parts);
/// For what stops a running program: it ends as the kernel's OOM killer would end it.
[[noreturn]] void give_up_killed(std::initializer_list<const char*> parts);

}  // namespace enchilada::runtime
