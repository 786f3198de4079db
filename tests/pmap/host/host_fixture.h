// What the host tests share: a machine at the fixed addresses, accesses that may fault, and a fault
// handler. Invariant: one machine at a time in the process (its addresses are fixed); the SIGBUS handler is
// installed once.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "pmap/host/host_machine.h"

namespace enchilada {

/// One access; false when it faulted and nobody resolved the fault.
extern "C" int probe_load(const void* at, std::uint8_t* value);
extern "C" int probe_store(void* at, std::uint8_t value);

/// Called by the SIGBUS handler for faults that are no probe's. Returns true when the access may be tried
/// again.
using FaultHook = bool (*)(VirtAddr at, Access access);
void set_fault_hook(FaultHook hook);
/// SIGSEGV likewise (after a fork). Not called for probes.
void set_segv_hook(FaultHook hook);

/// A budget, pins and a machine.
class HostRig {
 public:
  static constexpr std::uint64_t kSpare = 64;  // credits beyond frames and copy slack
  explicit HostRig(PageCount frames, HostTransport transport)
      : budget(frames + PageCount{HostMachine::kCopySlack}), pins(PinSet::create()) {
    HostConfig config;
    config.frame_limit = frames;
    config.transport = transport;
    config.budget = &budget;
    config.pins = pins;
    config.lowest_descriptor = 500;
    auto made = HostMachine::create(config);
    if (!made.ok()) {
      ADD_FAILURE() << "no machine: error " << static_cast<int>(made.error());
      std::abort();
    }
    machine = *made;
    pmap = machine->create_pmap();
  }
  ~HostRig() {
    pmap.reset();
    HostMachine::destroy(machine);
    PinSet::destroy(pins);
  }
  HostRig(const HostRig&) = delete;
  HostRig& operator=(const HostRig&) = delete;

  void grow_all() {
    machine->grow(machine->frame_limit(), [](FrameRun) {});
  }
  [[nodiscard]] VirtAddr at(std::uint64_t page) const {
    return machine->window().start + ByteCount{page * kPageSize};
  }
  [[nodiscard]] VirtRange pages(std::uint64_t first, std::uint64_t n) const {
    return {at(first), at(first + n)};
  }
  template <class T = std::uint8_t>
  [[nodiscard]] T* ptr(std::uint64_t page, std::uint64_t byte = 0) const {
    return reinterpret_cast<T*>(at(page).value() + byte);
  }
  static std::vector<FrameNumber> run(std::uint32_t first, std::uint32_t n) {
    std::vector<FrameNumber> frames;
    for (std::uint32_t i = 0; i < n; ++i) frames.push_back(FrameNumber{first + i});
    return frames;
  }
  std::uint64_t enter(std::uint64_t page, const std::vector<FrameNumber>& frames,
                      Prot prot = Prot::kReadWrite) {
    return pmap->enter(at(page), frames, prot, Access::kWrite, Wiring::kNotWired).value();
  }
  /// How many were refused.
  std::uint64_t remove_all(const std::vector<FrameNumber>& frames) {
    std::array<bool, 4096> refused{};
    machine->remove_all(frames, std::span(refused).first(frames.size()));
    return static_cast<std::uint64_t>(std::count(refused.begin(), refused.end(), true));
  }
  std::uint64_t discard_all(const std::vector<FrameNumber>& frames) {
    std::array<bool, 4096> refused{};
    machine->discard_all(frames, std::span(refused).first(frames.size()));
    return static_cast<std::uint64_t>(std::count(refused.begin(), refused.end(), true));
  }
  void fill(FrameNumber frame, std::uint8_t value) {
    machine->with_frames({frame, PageCount{1}}, Access::kWrite, [value](std::byte* p) {
      for (std::uint64_t i = 0; i < kPageSize; ++i) p[i] = std::byte{value};
    });
  }
  std::uint8_t peek(FrameNumber frame, std::uint64_t byte = 0) {
    std::uint8_t value = 0;
    machine->with_frames({frame, PageCount{1}}, Access::kRead,
                         [&](std::byte* p) { value = static_cast<std::uint8_t>(p[byte]); });
    return value;
  }

  LocalRamBudget budget;
  PinSet* pins;
  HostMachine* machine = nullptr;
  std::unique_ptr<Pmap> pmap;
};

/// Tests that run over both transports.
class HostTest : public ::testing::TestWithParam<HostTransport> {};
inline std::string transport_name(const ::testing::TestParamInfo<HostTransport>& info) {
  return info.param == HostTransport::kMove ? "Move" : "Copy";
}
#define INSTANTIATE_HOST_TEST(Suite)                                                                        \
  INSTANTIATE_TEST_SUITE_P(Transport, Suite, ::testing::Values(HostTransport::kMove, HostTransport::kCopy), \
                           transport_name)

/// The smallest engine: frame i belongs to window page i. Faults map it (in the faulting thread), evict()
/// withdraws it; a busy flag a page keeps them apart, as the engine's busy word does.
class TinyEngine {
 public:
  TinyEngine(HostRig& rig, std::uint32_t pages);
  ~TinyEngine();
  /// Withdraws [first, first + n); returns how many were refused.
  std::uint64_t evict(std::uint32_t first, std::uint32_t n);
  /// Maps a page as the fault handler does.
  void fault_in(std::uint32_t page, Prot prot = Prot::kReadWrite);
  [[nodiscard]] std::uint64_t faults() const { return faults_.load(); }
  [[nodiscard]] std::uint64_t evicted() const { return evicted_.load(); }

 private:
  static bool on_fault(VirtAddr at, Access access);
  void busy(std::uint32_t page);
  void idle(std::uint32_t page) { busy_[page].store(0, std::memory_order_release); }
  HostRig& rig_;
  std::vector<std::atomic<std::uint32_t>> busy_;
  std::atomic<std::uint64_t> faults_{0};
  std::atomic<std::uint64_t> evicted_{0};
};

}  // namespace enchilada
