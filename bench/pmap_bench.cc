// The soft pmap's own costs, per mode: entering, walking, unmapping and removing 2^20 resident pages in
// random order; bytes of tables and pv entries for a mapping; forking by dropping, copying or sharing tables,
// with the faults that it costs the child afterwards. Anchors: an uncontended lock pair and a cache miss, in
// the same run.
#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <ctime>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "pmap/soft/soft_pmap.h"

namespace enchilada {
namespace {

constexpr std::uint64_t kPages = std::uint64_t{1} << 20;

struct NoSink final : PageStateSink {
  void note_modified(FrameNumber) override {}
  void note_referenced(FrameNumber) override {}
};

std::byte* lazily_zero(std::size_t bytes) {
  void* const p =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED, bytes);
  return static_cast<std::byte*>(p);
}

/// A pmap system over frames that nobody touches.
struct Machine {
  explicit Machine(const SoftPmapOptions& options)
      : frames(lazily_zero(kPages * kPageSize)),
        metadata(lazily_zero(kArenaBytes)),
        arena(metadata, kArenaBytes),
        system(arena, frames, PageCount{kPages}, options) {
    system.set_sink(sink);
  }
  ~Machine() {
    ::munmap(frames, kPages * kPageSize);
    ::munmap(metadata, kArenaBytes);
  }
  std::unique_ptr<SoftPmap> pmap() {
    return std::unique_ptr<SoftPmap>(static_cast<SoftPmap*>(system.create_pmap().release()));
  }

  static constexpr std::size_t kArenaBytes = std::size_t{1} << 30;
  std::byte* frames;
  std::byte* metadata;
  Arena arena;
  NoSink sink;
  SoftPmapSystem system;
};

SoftPmapOptions with(std::string_view mechanism, std::string_view mode) {
  SoftPmapOptions options;
  options.table_pages = PageCount{16384};
  if (!mechanism.empty()) CHECK(options.modes.set_named(mechanism, mode) == ModeVerdict::kOk);
  return options;
}

VirtAddr page(std::uint64_t n) {
  return VirtAddr{n << kPageShift};
}
FrameNumber frame(std::uint64_t n) {
  return FrameNumber{static_cast<std::uint32_t>(n)};
}
void enter(SoftPmap& p, std::uint64_t at, FrameNumber f, Prot prot = Prot::kReadWrite) {
  (void)p.enter(page(at), std::span(&f, 1), prot, Access::kRead, Wiring::kNotWired);
}
std::vector<std::uint32_t> shuffled(std::uint64_t n, unsigned seed) {
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(seed));
  return order;
}
/// CPU time of this thread: what others do on the machine is not charged, only what they do to its caches.
double cpu_seconds() {
  std::timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}
double seconds_of(FunctionRef<void()> work) {
  const double start = cpu_seconds();
  work();
  return cpu_seconds() - start;
}
double ns_each(FunctionRef<void()> work) {
  return seconds_of(work) * 1e9 / static_cast<double>(kPages);
}

/// Pages in random order; frames in order of the pages where `contiguous`, else at random.
void random_order(benchmark::State& state, SoftPmapOptions options, bool contiguous) {
  const auto order = shuffled(kPages, 1);
  const auto frames = contiguous ? std::vector<std::uint32_t>{} : shuffled(kPages, 2);
  const auto frame_at = [&](std::uint32_t at) { return frame(contiguous ? at : frames[at]); };
  for (auto _ : state) {
    Machine m(options);
    auto p = m.pmap();
    state.counters["enter_ns"] = ns_each([&] {
      for (const std::uint32_t at : order) {
        enter(*p, at, frame_at(at));
        (void)p->access(page(at), Access::kWrite, [](std::byte*) {});
      }
    });
    enter(*p, order.back(), frame_at(order.back()));
    if (contiguous) {  // the tables that were full before their last page was used
      for (std::uint64_t at = 0; at < kPages; at += x86::kSlots)
        enter(*p, at, frame_at(static_cast<std::uint32_t>(at)));
    }
    state.counters["table_B"] = static_cast<double>(m.system.table_bytes()) / kPages;
    state.counters["pv_B"] = static_cast<double>(m.system.pv_bytes()) / kPages;
    state.counters["promoted"] = static_cast<double>(m.system.decisions()[PmapEvent::kPromotion]);
    state.counters["walk_ns"] = ns_each([&] {
      for (const std::uint32_t at : order) (void)p->access(page(at), Access::kRead, [](std::byte*) {});
    });
    state.counters["reenter_ns"] = ns_each([&] {
      for (const std::uint32_t at : order) enter(*p, at, frame_at(at));
    });
    const double half = ns_each([&] {
      for (std::size_t i = 0; i < order.size() / 2; ++i) {
        const FrameNumber f = frame_at(order[i]);
        bool refused = false;
        m.system.remove_all(std::span(&f, 1), std::span(&refused, 1));
      }
    });
    state.counters["remove_all_ns"] = 2 * half;
    const double rest = ns_each([&] {
      for (std::size_t i = order.size() / 2; i < order.size(); ++i) {
        p->remove({page(order[i]), page(order[i] + std::uint64_t{1})});
      }
    });
    state.counters["remove_ns"] = 2 * rest;
  }
}

/// One page mapped by 1, 3, 50 of 50 processes: the cost of unmapping follows the mappings.
void unmap_everywhere(benchmark::State& state, SoftPmapOptions options) {
  const auto mappers = static_cast<std::uint64_t>(state.range(0));
  Machine m(options);
  std::vector<std::unique_ptr<SoftPmap>> all;
  for (int i = 0; i < 50; ++i) {
    all.push_back(m.pmap());
    enter(*all.back(), 1, frame(1));
  }
  const FrameNumber f = frame(2);
  for (auto _ : state) {
    for (std::uint64_t i = 0; i < mappers; ++i) enter(*all[i], 2, f);
    bool refused = false;
    state.SetIterationTime(
        seconds_of([&] { m.system.remove_all(std::span(&f, 1), std::span(&refused, 1)); }));
  }
}

/// 1 GiB resident. The child then reads a share of it at random (per cent), and writes a page in a hundred.
void fork_tables(benchmark::State& state, SoftPmapOptions options) {
  constexpr std::uint64_t kResident = kPages / 4;
  const VirtRange all{page(0), page(kResident)};
  Machine m(options);
  auto parent = m.pmap();
  for (std::uint64_t i = 0; i < kResident; ++i) enter(*parent, i, frame(i));
  const auto order = shuffled(kResident, 3);
  const std::size_t touched = kResident * static_cast<std::size_t>(state.range(0)) / 100;
  for (auto _ : state) {
    const double refilling = seconds_of([&] {
      for (std::uint64_t i = 0; i < kResident; ++i) enter(*parent, i, frame(i));  // writable again
    });
    auto child = m.pmap();
    const double forking = seconds_of([&] {
      if (!parent->throw_away_for_fork()) parent->protect(all, Prot::kRead);
      child->copy_from(*parent, all);
    });
    state.counters["table_MB"] = static_cast<double>(m.system.table_bytes()) / 1e6;
    state.counters["pv_MB"] = static_cast<double>(m.system.pv_bytes()) / 1e6;
    std::uint64_t refaults = 0;
    const double touching = seconds_of([&] {
      for (std::size_t i = 0; i < touched; ++i) {
        const bool writes = i % 100 == 0;
        const Access how = writes ? Access::kWrite : Access::kRead;
        if (child->access(page(order[i]), how, [](std::byte*) {})) continue;
        ++refaults;
        enter(*child, order[i], frame(writes ? kResident + i : order[i]),
              writes ? Prot::kReadWrite : Prot::kRead);
        (void)child->access(page(order[i]), how, [](std::byte*) {});
      }
    });
    const double exiting = seconds_of([&] { child.reset(); });
    state.counters["fork_us"] = forking * 1e6;
    state.counters["touch_us"] = touching * 1e6;
    state.counters["exit_us"] = exiting * 1e6;
    state.counters["refill_us"] = refilling * 1e6;
    state.counters["refaults"] = static_cast<double>(refaults);
    state.SetIterationTime(forking + touching + exiting);
  }
}

void anchor_lock_pair(benchmark::State& state) {
  Mutex mutex;
  for (auto _ : state) {
    mutex.lock();
    benchmark::ClobberMemory();
    mutex.unlock();
  }
}

void anchor_cache_miss(benchmark::State& state) {
  constexpr std::size_t kLines = std::size_t{1} << 22;  // 256 MiB
  struct alignas(64) Line {
    std::uint32_t next;
  };
  std::vector<Line> lines(kLines);
  const auto order = shuffled(kLines, 4);
  for (std::size_t i = 0; i < kLines; ++i) lines[order[i]].next = order[(i + 1) % kLines];
  std::uint32_t at = 0;
  for (auto _ : state) benchmark::DoNotOptimize(at = lines[at].next);
}

void add(const std::string& name, const SoftPmapOptions& options, bool contiguous = false) {
  benchmark::RegisterBenchmark(("random_order/" + name).c_str(),
                               [=](benchmark::State& state) { random_order(state, options, contiguous); })
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}
void add_fork(const std::string& name, const SoftPmapOptions& options) {
  benchmark::RegisterBenchmark(("fork/" + name).c_str(),
                               [=](benchmark::State& state) { fork_tables(state, options); })
      ->Arg(0)
      ->Arg(10)
      ->Arg(100)
      ->Iterations(3)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}
void add_unmap(const std::string& name, const SoftPmapOptions& options) {
  benchmark::RegisterBenchmark(("unmap_everywhere/" + name).c_str(),
                               [=](benchmark::State& state) { unmap_everywhere(state, options); })
      ->Arg(1)
      ->Arg(3)
      ->Arg(50)
      ->UseManualTime()
      ->Iterations(20000)
      ->Unit(benchmark::kNanosecond);
}

}  // namespace
}  // namespace enchilada

int main(int argc, char** argv) {
  using namespace enchilada;
  benchmark::RegisterBenchmark("anchor/lock_pair", anchor_lock_pair);
  benchmark::RegisterBenchmark("anchor/cache_miss", anchor_cache_miss);
  add("pv=list", with("pv", "list"));
  add("pv=chunk", with("pv", "chunk"));
  add("page_table=hashed", with("page_table", "hashed"));
  add("contiguous,superpages=off", with("superpages", "off"), true);
  add("contiguous,superpages=promote", with("superpages", "promote"), true);
  add_unmap("pv=list", with("pv", "list"));
  add_unmap("pv=chunk", with("pv", "chunk"));
  add_unmap("page_table=hashed", with("page_table", "hashed"));
  add_fork("fork_tables=drop", with("fork_tables", "drop"));
  add_fork("fork_tables=throw", with("fork_tables", "throw"));
  add_fork("fork_tables=copy", with("fork_tables", "copy"));
  add_fork("shared_tables=on", with("shared_tables", "on"));
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
