// Sorts 64-bit numbers in anonymous memory with several threads and checks the result: the program that Linux
// kills in a memory cgroup although its swap is nearly empty.
//
// Usage: two_thread_sort SIZE_MIB [THREADS]. Standard output says only whether it is sorted; the times go to
// standard error.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

/// Quicksort that hands one side of each partition to another thread, while there are threads to spend.
void parallel_sort(std::uint64_t* low, std::uint64_t* high, std::size_t threads) {
  if (threads < 2 || high - low < 1000) {
    std::sort(low, high);
    return;
  }
  const std::uint64_t pivot = std::max({std::min(low[0], high[-1]), std::min(low[0], low[(high - low) / 2]),
                                        std::min(high[-1], low[(high - low) / 2])});
  std::uint64_t* middle = std::partition(low, high, [=](std::uint64_t v) { return v < pivot; });
  std::thread other(parallel_sort, low, middle, threads / 2);
  parallel_sort(middle, high, threads - threads / 2);
  other.join();
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1024;
  const std::size_t threads = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2;
  if (mib == 0 || threads == 0 || threads > 64) {
    std::fprintf(stderr, "usage: two_thread_sort SIZE_MIB [THREADS]\n");
    return 2;
  }
  const std::size_t count =
      std::bit_floor((mib << 20) / 8);  // a power of two: an odd factor then permutes the numbers
  void* base =
      mmap(nullptr, count * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  auto* numbers = static_cast<std::uint64_t*>(base);
  const double began = now();
  std::vector<std::thread> fillers;
  for (std::size_t t = 0; t < threads; t++) {
    fillers.emplace_back([=] {
      for (std::size_t i = count * t / threads; i < count * (t + 1) / threads; i++) {
        numbers[i] = i * 0x9E3779B97F4A7C15 % count;
      }
    });
  }
  for (auto& thread : fillers) thread.join();
  const double filled = now();
  parallel_sort(numbers, numbers + count, threads);
  const double sorted = now();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < count; i++) wrong += numbers[i] != i;
  std::printf("%zu numbers, %zu wrong\n", count, wrong);
  std::fprintf(stderr, "fill %.2f s, sort %.2f s, check %.2f s\n", filled - began, sorted - filled,
               now() - sorted);
  return wrong != 0 ? 1 : 0;
}
