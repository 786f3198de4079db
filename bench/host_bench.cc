// What the host machine's primitives cost a page: enter and remove_all of runs, both transports, alone and
// with another thread running in the process (each revocation then shoots down its TLB; DESIGN.md §6).
// Arguments: transport (1 move, 2 copy), pages of a run, other threads running.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "pmap/host/host_machine.h"

namespace enchilada {
namespace {

class Rig {
 public:
  static constexpr std::uint32_t kFrames = 8192;
  Rig(HostTransport transport, bool with_pins)
      : budget(PageCount{kFrames} + PageCount{HostMachine::kCopySlack}),
        pins(with_pins ? PinSet::create() : nullptr) {
    HostConfig config;
    config.frame_limit = PageCount{kFrames};
    config.transport = transport;
    config.budget = &budget;
    config.pins = pins;
    machine = HostMachine::create(config).value();
    machine->grow(PageCount{kFrames}, [](FrameRun) {});
    for (std::uint32_t f = 0; f < kFrames; f += 64) enter(f, 64);
    for (std::uint32_t f = 0; f < kFrames; f += 64) leave(f, 64);
  }
  ~Rig() {
    HostMachine::destroy(machine);
    if (pins != nullptr) PinSet::destroy(pins);
  }
  void enter(std::uint32_t first, std::uint32_t n, Prot prot = Prot::kReadWrite) {
    FrameNumber frames[64];
    for (std::uint32_t i = 0; i < n; ++i) frames[i] = FrameNumber{first + i};
    const VirtAddr va = machine->window().start + to_bytes(PageCount{first});
    benchmark::DoNotOptimize(machine->enter(va, {frames, n}, prot));
  }
  void leave(std::uint32_t first, std::uint32_t n) {
    FrameNumber frames[64];
    bool refused[64];
    for (std::uint32_t i = 0; i < n; ++i) frames[i] = FrameNumber{first + i};
    machine->remove_all({frames, n}, {refused, n});
  }
  LocalRamBudget budget;
  PinSet* pins;
  HostMachine* machine = nullptr;
};

/// Threads that do nothing but run in this address space.
class Company {
 public:
  explicit Company(std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      threads_.emplace_back([this] {
        while (!stop_.load(std::memory_order_relaxed)) {
        }
      });
    }
  }
  ~Company() {
    stop_ = true;
    for (auto& t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

template <class Timed, class Untimed>
void measure(benchmark::State& state, Rig& rig, Timed timed, Untimed untimed, bool timed_first) {
  const auto n = static_cast<std::uint32_t>(state.range(1));
  const Company company(state.range(2));
  std::uint32_t at = 0;
  for (auto _ : state) {
    if (!timed_first) untimed(at, n);
    const auto start = std::chrono::steady_clock::now();
    timed(at, n);
    const auto end = std::chrono::steady_clock::now();
    if (timed_first) untimed(at, n);
    state.SetIterationTime(std::chrono::duration<double>(end - start).count());
    at = (at + 64) % Rig::kFrames;
  }
  (void)rig;
  state.counters["us/page"] = benchmark::Counter(static_cast<double>(state.iterations()) * n * 1e-6,
                                                 benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void enter_writable(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  measure(
      state, rig, [&](auto at, auto n) { rig.enter(at, n); }, [&](auto at, auto n) { rig.leave(at, n); },
      true);
}
void enter_read_only(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  measure(
      state, rig, [&](auto at, auto n) { rig.enter(at, n, Prot::kRead); },
      [&](auto at, auto n) { rig.leave(at, n); }, true);
}
void remove_all(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  measure(
      state, rig, [&](auto at, auto n) { rig.leave(at, n); }, [&](auto at, auto n) { rig.enter(at, n); },
      false);
}
void protect(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  const auto range = [&](auto at, auto n) {
    const VirtAddr va = rig.machine->window().start + to_bytes(PageCount{at});
    return VirtRange{va, va + to_bytes(PageCount{n})};
  };
  measure(
      state, rig, [&](auto at, auto n) { rig.machine->protect(range(at, n), Prot::kRead); },
      [&](auto at, auto n) { rig.enter(at, n); }, false);
}
void unprotect(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  const auto range = [&](auto at, auto n) {
    const VirtAddr va = rig.machine->window().start + to_bytes(PageCount{at});
    return VirtRange{va, va + to_bytes(PageCount{n})};
  };
  for (std::uint32_t f = 0; f < Rig::kFrames; f += 64) rig.enter(f, 64, Prot::kRead);
  measure(
      state, rig, [&](auto at, auto n) { rig.enter(at, n); },
      [&](auto at, auto n) { rig.machine->protect(range(at, n), Prot::kRead); }, true);
}
/// Fresh frames: retired, granted again, entered.
void enter_fresh(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  const auto retire = [&](auto at, auto n) {
    rig.leave(at, n);
    rig.machine->retire({FrameNumber{at}, PageCount{n}});
    rig.machine->grow(PageCount{n}, [](FrameRun) {});
  };
  for (std::uint32_t f = 0; f < Rig::kFrames; f += 64) retire(f, 64u);
  measure(
      state, rig, [&](auto at, auto n) { rig.enter(at, n); }, retire, true);
}
void zero_home(benchmark::State& state) {
  Rig rig(static_cast<HostTransport>(state.range(0)), true);
  measure(
      state, rig,
      [&](auto at, auto n) {
        rig.machine->zero({FrameNumber{at}, PageCount{n}});
      },
      [](auto, auto) {}, true);
}

void shapes(benchmark::internal::Benchmark* b) {
  for (const int transport : {1, 2}) {
    for (const int n : {1, 16, 64}) {
      for (const int others : {0, 1}) b->Args({transport, n, others});
    }
  }
  b->UseManualTime()->Unit(benchmark::kMicrosecond)->MinTime(0.05);
}
BENCHMARK(enter_writable)->Apply(shapes);
BENCHMARK(remove_all)->Apply(shapes);
BENCHMARK(enter_read_only)->Apply(shapes);
BENCHMARK(protect)->Apply(shapes);
BENCHMARK(unprotect)->Apply(shapes);
BENCHMARK(enter_fresh)->Apply(shapes);
BENCHMARK(zero_home)->Apply(shapes);

/// A pin and its release, nobody withdrawing.
void pin_unpin(benchmark::State& state) {
  PinSet* pins = PinSet::create();
  const unsigned me = pins->register_thread();
  const VirtRange range{VirtAddr{0x2000'0000'0000}, VirtAddr{0x2000'0000'1000}};
  for (auto _ : state) {
    pins->pin(me, {&range, 1});
    pins->unpin(me);
  }
  PinSet::destroy(pins);
}
BENCHMARK(pin_unpin);

}  // namespace
}  // namespace enchilada
