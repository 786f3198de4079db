// Probes of loads, translation, pages, faults and locks. Invariants: see probes.h.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "lab/calibrate/probes.h"
#include "lab/calibrate/timing.h"

namespace enchilada::lab {
namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kPage = 4096;

/// Anonymous memory in small or, where the system likes, large pages.
class Memory {
 public:
  Memory(std::size_t bytes, int advice) : bytes_(bytes) {
    start_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ok()) (void)madvise(start_, bytes, advice);
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (ok()) munmap(start_, bytes_);
  }
  [[nodiscard]] bool ok() const { return start_ != MAP_FAILED; }
  [[nodiscard]] char* at(std::size_t offset) const { return static_cast<char*>(start_) + offset; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  void* start_;
};

/// Another thread of the process, busy or asleep: where there is none, libc and the kernel take short cuts.
class Bystander {
 public:
  explicit Bystander(bool busy) : thread_([this, busy] { stand(busy); }) {
    while (!runs_.load()) std::this_thread::yield();
  }
  Bystander(const Bystander&) = delete;
  Bystander& operator=(const Bystander&) = delete;
  ~Bystander() {
    stop_.store(true);
    stop_.notify_one();
    thread_.join();
  }

 private:
  void stand(bool busy) {
    runs_.store(true);
    if (!busy) stop_.wait(false);
    while (!stop_.load(std::memory_order_relaxed)) {
    }
  }

  std::atomic<bool> stop_{false};
  std::atomic<bool> runs_{false};
  std::thread thread_;
};

/// Where the i-th line of a ring lies: close together, or one in each page, at changing places in it.
std::size_t place_of(std::size_t i, bool page_each) {
  return page_each ? i * kPage + (i % (kPage / kLine)) * kLine : i * kLine;
}

/// Loads each address from the place that the last one gave, around a ring of `lines` in random order.
double chase(const Memory& memory, std::size_t lines, bool page_each) {
  std::vector<std::uint32_t> order(lines);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  const auto node = [&](std::size_t i) { return memory.at(place_of(order[i % lines], page_each)); };
  for (std::size_t i = 0; i < lines; ++i) {
    char* const next = node(i + 1);
    std::memcpy(node(i), &next, sizeof next);
  }
  const std::size_t loads = std::clamp<std::size_t>(lines, 1 << 18, 1 << 20);
  char* at = node(0);
  const auto round = [&] {
    for (std::size_t i = 0; i < loads; ++i) at = *reinterpret_cast<char* volatile*>(at);
  };
  round();  // the first brings in what fits
  return least_of(5, round) / static_cast<double>(loads);
}

}  // namespace

CacheSizes cache_sizes() {
  CacheSizes sizes;
  const auto take = [](int name, std::size_t* size) {
    const long said = sysconf(name);
    if (said > 0) *size = static_cast<std::size_t>(said);
  };
  take(_SC_LEVEL1_DCACHE_SIZE, &sizes.l1);
  take(_SC_LEVEL2_CACHE_SIZE, &sizes.l2);
  take(_SC_LEVEL3_CACHE_SIZE, &sizes.l3);
  return sizes;
}

std::optional<double> probe_load(std::size_t bytes) {
  const Memory memory(bytes, MADV_HUGEPAGE);
  if (!memory.ok()) return std::nullopt;
  return chase(memory, bytes / kLine, false);
}

std::optional<double> probe_translation(std::size_t pages) {
  const Memory sparse(pages * kPage, MADV_NOHUGEPAGE);
  const Memory dense(pages * kLine, MADV_NOHUGEPAGE);
  if (!sparse.ok() || !dense.ok()) return std::nullopt;
  return chase(sparse, pages, true) - chase(dense, pages, false);
}

std::optional<double> probe_zero_page() {
  const Memory memory(128 << 20, MADV_HUGEPAGE);
  if (!memory.ok()) return std::nullopt;
  const auto round = [&] {
    for (std::size_t at = 0; at < memory.bytes(); at += kPage) {
      std::memset(memory.at(at), 0, kPage);
      asm volatile("" : : "r"(memory.at(at)) : "memory");
    }
  };
  round();
  return least_of(3, round) / static_cast<double>(memory.bytes() / kPage);
}

std::optional<double> probe_copy_page() {
  const Memory memory(256 << 20, MADV_HUGEPAGE);
  if (!memory.ok()) return std::nullopt;
  const std::size_t half = memory.bytes() / 2;
  std::memset(memory.at(0), 1, memory.bytes());
  const auto round = [&] {
    for (std::size_t at = 0; at < half; at += kPage) {
      std::memcpy(memory.at(half + at), memory.at(at), kPage);
      asm volatile("" : : "r"(memory.at(half + at)) : "memory");
    }
  };
  return least_of(3, round) / static_cast<double>(half / kPage);
}

namespace {

/// Touches every page of fresh memory once.
template <typename Touch>
std::optional<double> probe_first_touch(Touch touch) {
  const Memory memory(16 << 20, MADV_NOHUGEPAGE);
  if (!memory.ok()) return std::nullopt;
  double least = 0;
  for (int i = 0; i < 4; ++i) {
    (void)madvise(memory.at(0), memory.bytes(), MADV_DONTNEED);
    const double ns = time_of([&] {
      for (std::size_t at = 0; at < memory.bytes(); at += kPage) touch(memory.at(at));
    });
    // The first round also makes the page tables.
    if (i == 1 || (i > 1 && ns < least)) least = ns;
  }
  return least / static_cast<double>(memory.bytes() / kPage);
}

}  // namespace

std::optional<double> probe_zero_fill_fault() {
  return probe_first_touch([](char* page) { *static_cast<volatile char*>(page) = 1; });
}

std::optional<double> probe_mapping_fault() {
  return probe_first_touch([](char* page) { (void)*static_cast<volatile char*>(page); });
}

double probe_lock_pair() {
  const Bystander bystander(false);
  std::mutex lock;
  constexpr int kPairs = 100'000;
  const double ns = least_of(5, [&] {
    for (int i = 0; i < kPairs; ++i) {
      const std::lock_guard guard(lock);
      asm volatile("" : : "r"(&lock) : "memory");
    }
  });
  return ns / kPairs;
}

double probe_allocation_pair() {
  const Bystander bystander(false);
  constexpr int kPairs = 100'000;
  const double ns = least_of(5, [&] {
    for (int i = 0; i < kPairs; ++i) {
      void* const block = std::malloc(kLine);
      asm volatile("" : : "r"(block) : "memory");
      std::free(block);
    }
  });
  return ns / kPairs;
}

std::optional<double> probe_protect(bool other_thread) {
  if (other_thread && std::thread::hardware_concurrency() < 2) return std::nullopt;
  const Memory memory(kPage, MADV_NOHUGEPAGE);
  if (!memory.ok()) return std::nullopt;
  std::optional<Bystander> bystander;
  if (other_thread) bystander.emplace(true);
  std::vector<double> samples;
  for (int i = 0; i < 2'000; ++i) {
    (void)mprotect(memory.at(0), kPage, PROT_READ | PROT_WRITE);
    *static_cast<volatile char*>(memory.at(0)) = 1;
    samples.push_back(time_of([&] { (void)mprotect(memory.at(0), kPage, PROT_READ); }));
  }
  return median_of(std::move(samples));
}

}  // namespace enchilada::lab
