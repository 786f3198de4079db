// Regions against fork(2): what a snapshot, a fork, a rollback and the first writes afterwards cost, for one
// region of fully resident memory, beside Linux's own fork() of a process with the same memory. One run, the
// same machine.
//
// Arguments are MiB. Invariant: memory is resident and was written before each measured step.
#include <benchmark/benchmark.h>
#include <enchilada/enchilada.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void touch(std::byte* at, std::uint64_t bytes, std::byte value) {
  for (std::uint64_t i = 0; i < bytes; i += kPage) at[i] = value;
}

/// A region of so many MiB, all of it written, and RAM for it three times.
struct Filled {
  explicit Filled(std::uint64_t mib) {
    enchilada::VmOptions options;
    options.ram_bytes = (3 * mib + 64) * kMiB;
    auto made = enchilada::Vm::create(options);
    if (!made) {
      std::fprintf(stderr, "%s\n", made.error().message.c_str());
      std::exit(1);
    }
    vm.emplace(std::move(made.value()));
    region.emplace(vm->map(mib * kMiB).value());
    touch(region->data(), region->size(), std::byte{1});
  }
  std::optional<enchilada::Vm> vm;
  std::optional<enchilada::Region> region;
};

/// Everything was written since the last: every page is to be protected.
void fork_after_writing_all(benchmark::State& state) {
  Filled filled(static_cast<std::uint64_t>(state.range(0)));
  for (auto _ : state) {
    const auto start = Clock::now();
    auto twin = filled.region->fork().value();
    state.SetIterationTime(seconds_since(start));
    state.PauseTiming();
    { const auto gone = std::move(twin); }
    touch(filled.region->data(), filled.region->size(), std::byte{2});
    state.ResumeTiming();
  }
}
BENCHMARK(fork_after_writing_all)
    ->Arg(64)
    ->Arg(1024)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(7);

void fork_again_after_100_writes(benchmark::State& state) {
  Filled filled(static_cast<std::uint64_t>(state.range(0)));
  const auto first = filled.region->fork().value();
  for (auto _ : state) {
    for (std::uint64_t i = 0; i < 100; ++i)
      filled.region->data()[i * 97 * kPage % filled.region->size()] = std::byte{3};
    const auto start = Clock::now();
    auto twin = filled.region->fork().value();
    state.SetIterationTime(seconds_since(start));
  }
}
BENCHMARK(fork_again_after_100_writes)
    ->Arg(64)
    ->Arg(1024)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(50);

void drop_snapshot_after_1000_writes(benchmark::State& state) {
  Filled filled(static_cast<std::uint64_t>(state.range(0)));
  for (auto _ : state) {
    std::optional<enchilada::Snapshot> mark(filled.region->snapshot().value());
    for (std::uint64_t i = 0; i < 1000; ++i) filled.region->data()[i * 7 * kPage] = std::byte{4};
    const auto start = Clock::now();
    mark.reset();
    state.SetIterationTime(seconds_since(start));
  }
}
BENCHMARK(drop_snapshot_after_1000_writes)
    ->Arg(64)
    ->Arg(1024)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(20);

/// The first write of a page under so many nested snapshots, one page written between each two of them. Every
/// 16th page is written, so that no fault brings in the page of another. Divide by the same under one.
void write_under_snapshots(benchmark::State& state) {
  Filled filled(64);
  std::byte* const at = filled.region->data();
  std::vector<enchilada::Snapshot> marks;
  for (std::int64_t i = 0; i < state.range(0); ++i) {
    marks.push_back(filled.region->snapshot().value());
    at[static_cast<std::uint64_t>(i) * kPage] = std::byte{7};
  }
  std::uint64_t page = 1024;
  for (auto _ : state) {
    const auto start = Clock::now();
    for (unsigned i = 0; i < 50; ++i, page += 16) at[page * kPage] = std::byte{8};
    state.SetIterationTime(seconds_since(start) / 50);
  }
}
BENCHMARK(write_under_snapshots)
    ->Arg(1)
    ->Arg(1000)
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond)
    ->Iterations(15);

void rollback_of_1000_pages(benchmark::State& state) {
  Filled filled(static_cast<std::uint64_t>(state.range(0)));
  const auto mark = filled.region->snapshot().value();
  for (auto _ : state) {
    for (std::uint64_t i = 0; i < 1000; ++i) filled.region->data()[i * 7 * kPage] = std::byte{5};
    const auto start = Clock::now();
    if (!filled.region->rollback(mark)) state.SkipWithError("rollback");
    state.SetIterationTime(seconds_since(start));
  }
}
BENCHMARK(rollback_of_1000_pages)
    ->Arg(64)
    ->Arg(1024)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(20);

/// The whole bill of a write after a fork: fault and copy, in order.
void copy_on_write_page(benchmark::State& state) {
  Filled filled(static_cast<std::uint64_t>(state.range(0)));
  for (auto _ : state) {
    const auto twin = filled.region->fork().value();
    const auto start = Clock::now();
    touch(filled.region->data(), filled.region->size(), std::byte{6});
    state.SetIterationTime(seconds_since(start) / static_cast<double>(filled.region->size() / kPage));
  }
}
BENCHMARK(copy_on_write_page)->Arg(64)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(7);

void first_touch_page(benchmark::State& state) {
  enchilada::VmOptions options;
  options.ram_bytes = 256 * kMiB;
  auto vm = enchilada::Vm::create(options).value();
  for (auto _ : state) {
    const auto region = vm.map(64 * kMiB).value();
    const auto start = Clock::now();
    touch(region.data(), region.size(), std::byte{1});
    state.SetIterationTime(seconds_since(start) / static_cast<double>(region.size() / kPage));
  }
}
BENCHMARK(first_touch_page)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(9);

// --- Linux's own, on plain memory

std::byte* plain_memory(std::uint64_t bytes, bool huge) {
  void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) std::abort();
  madvise(at, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  touch(static_cast<std::byte*>(at), bytes, std::byte{1});
  return static_cast<std::byte*>(at);
}

/// arg 1: in huge pages.
void linux_fork(benchmark::State& state) {
  const std::uint64_t bytes = static_cast<std::uint64_t>(state.range(0)) * kMiB;
  std::byte* const memory = plain_memory(bytes, state.range(1) != 0);
  for (auto _ : state) {
    const auto start = Clock::now();
    const pid_t child = fork();
    if (child == 0) _exit(0);
    state.SetIterationTime(seconds_since(start));
    waitpid(child, nullptr, 0);
  }
  munmap(memory, bytes);
}
BENCHMARK(linux_fork)
    ->Args({64, 0})
    ->Args({1024, 0})
    ->Args({1024, 1})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(15);

void linux_copy_on_write_page(benchmark::State& state) {
  const std::uint64_t bytes = 64 * kMiB;
  std::byte* const memory = plain_memory(bytes, false);
  for (auto _ : state) {
    const pid_t child = fork();
    if (child == 0) {
      pause();
      _exit(0);
    }
    const auto start = Clock::now();
    touch(memory, bytes, std::byte{6});
    state.SetIterationTime(seconds_since(start) / static_cast<double>(bytes / kPage));
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
  }
  munmap(memory, bytes);
}
BENCHMARK(linux_copy_on_write_page)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(7);

void linux_first_touch_page(benchmark::State& state) {
  const std::uint64_t bytes = 64 * kMiB;
  for (auto _ : state) {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    madvise(at, bytes, MADV_NOHUGEPAGE);
    const auto start = Clock::now();
    touch(static_cast<std::byte*>(at), bytes, std::byte{1});
    state.SetIterationTime(seconds_since(start) / static_cast<double>(bytes / kPage));
    munmap(at, bytes);
  }
}
BENCHMARK(linux_first_touch_page)->UseManualTime()->Unit(benchmark::kMicrosecond)->Iterations(9);

}  // namespace
