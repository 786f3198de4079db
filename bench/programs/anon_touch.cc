// Touches anonymous memory page by page: in order and at random, reading and writing, with one thread or
// several. Every value read is checked. Prints one JSON object a phase, so that a benchmark can compare runs.
//
// Usage: anon_touch SIZE_MIB RANDOM_OPS [THREADS [CONTENT]]    CONTENT: random | half (half of each page
// zeros) | numbers
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t kPage = 4096, kWords = kPage / 8;
constexpr std::uint64_t kTag = 0xabcdef0123456789;

std::uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

struct Random {  // xorshift64*
  std::uint64_t state;
  explicit Random(std::uint64_t seed) : state(seed * 0x9E3779B97F4A7C15 + 1) {}
  std::uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1D;
  }
};

/// Times with 16 steps an octave: small enough to stay in the cache, no allocation while measuring.
class Times {
 public:
  void add(std::uint64_t ns) {
    buckets_[bucket(ns)]++;
    count_++;
  }
  void add(const Times& other) {
    for (std::size_t i = 0; i < buckets_.size(); i++) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
  }
  /// Microseconds, rounded down to the step.
  double quantile_us(double q) const {
    auto left = static_cast<std::uint64_t>(q * static_cast<double>(count_ ? count_ - 1 : 0));
    for (std::size_t i = 0; i < buckets_.size(); i++) {
      if (left < buckets_[i]) {
        return static_cast<double>(i < 16 ? i : (i % 16 + 16) << (i / 16 - 1)) / 1e3;
      }
      left -= buckets_[i];
    }
    return 0;
  }

 private:
  static std::size_t bucket(std::uint64_t ns) {
    if (ns < 16) return ns;
    const unsigned shift = 59u - static_cast<unsigned>(__builtin_clzll(ns));
    return (shift + 1) * 16 + (ns >> shift & 15);
  }
  std::array<std::uint64_t, 64 * 16> buckets_{};
  std::uint64_t count_ = 0;
};

struct Memory {
  char* base;
  std::size_t pages;
  volatile std::uint64_t* words(std::size_t page) const {
    return reinterpret_cast<volatile std::uint64_t*>(base + page * kPage);
  }
};

enum class Content { kRandom, kHalf, kNumbers };

void fill_page(std::uint64_t* page, std::uint64_t number, Content content, Random& random) {
  const std::size_t filled = content == Content::kHalf ? kWords / 2 : kWords;
  if (content == Content::kNumbers) {
    for (std::size_t i = 0; i < filled; i++) page[i] = number * kWords + i;
  } else {
    for (std::size_t i = 0; i < filled; i++) page[i] = random.next();
  }
  page[0] = number ^ kTag;
}

class Runner {
 public:
  Runner(Memory memory, std::size_t threads) : memory_(memory), threads_(threads) {}

  /// Runs `touch(thread, index, random)` `operations` times, split among the threads, and prints the phase.
  template <typename Touch>
  void phase(const char* name, std::size_t operations, Touch touch) {
    std::vector<Times> times(threads_);
    rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    const std::uint64_t began = now_ns();
    auto work = [&](std::size_t me) {
      Random random(42 + me);
      const std::size_t low = operations * me / threads_, high = operations * (me + 1) / threads_;
      std::uint64_t last = now_ns();
      for (std::size_t i = low; i < high; i++) {
        touch(me, i, random);
        const std::uint64_t t = now_ns();
        times[me].add(t - last);
        last = t;
      }
    };
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < threads_; i++) others.emplace_back(work, i);
    work(0);
    for (auto& thread : others) thread.join();
    const double ns = static_cast<double>(now_ns() - began);
    getrusage(RUSAGE_SELF, &after);
    for (std::size_t i = 1; i < threads_; i++) times[0].add(times[i]);
    std::printf(
        "{\"phase\": \"%s\", \"operations\": %zu, \"seconds\": %.4f, \"us_per_operation\": %.3f, \"p50_us\": "
        "%.2f, "
        "\"p99_us\": %.2f, \"p999_us\": %.2f, \"major_faults\": %ld, \"minor_faults\": %ld}\n",
        name, operations, ns / 1e9, ns / 1e3 / static_cast<double>(operations), times[0].quantile_us(0.5),
        times[0].quantile_us(0.99), times[0].quantile_us(0.999), after.ru_majflt - before.ru_majflt,
        after.ru_minflt - before.ru_minflt);
    std::fflush(stdout);
  }

  void check(std::size_t page) {
    if ((memory_.words(page)[0] ^ page) != kTag) wrong_++;
  }
  std::uint64_t wrong() const { return wrong_; }

 private:
  Memory memory_;
  std::size_t threads_;
  std::atomic<std::uint64_t> wrong_{0};
};

}  // namespace

int main(int argc, char** argv) {
  const std::size_t mib = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 1024;
  const std::size_t operations = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 100000;
  const std::size_t threads = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1;
  const std::string word = argc > 4 ? argv[4] : "random";
  const Content content = word == "half"      ? Content::kHalf
                          : word == "numbers" ? Content::kNumbers
                                              : Content::kRandom;
  if (mib == 0 || threads == 0 || threads > 64 || (content == Content::kRandom && word != "random")) {
    std::fprintf(stderr, "usage: anon_touch SIZE_MIB RANDOM_OPS [THREADS [random|half|numbers]]\n");
    return 2;
  }
  const std::size_t pages = (mib << 20) / kPage;
  void* base = mmap(nullptr, pages * kPage, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  madvise(base, pages * kPage, MADV_NOHUGEPAGE);
  const Memory memory{static_cast<char*>(base), pages};
  Runner runner(memory, threads);

  std::vector<std::uint64_t> scratch(threads * kWords);
  runner.phase("content", pages / 16,
               [&](std::size_t me, std::size_t i, Random& r) {  // what filling costs by itself
                 fill_page(&scratch[me * kWords], i, content, r);
                 asm volatile("" : : "r"(scratch.data()) : "memory");
               });
  runner.phase("fill", pages, [&](std::size_t, std::size_t i, Random& r) {
    fill_page(reinterpret_cast<std::uint64_t*>(memory.base + i * kPage), i, content, r);
  });
  runner.phase("sequential read", pages, [&](std::size_t, std::size_t i, Random&) { runner.check(i); });
  runner.phase("sequential write", pages,
               [&](std::size_t me, std::size_t i, Random&) { memory.words(i)[1 + me] = i; });
  runner.phase("random read", operations,
               [&](std::size_t, std::size_t, Random& r) { runner.check(r.next() % pages); });
  runner.phase("random write", operations,
               [&](std::size_t me, std::size_t i, Random& r) { memory.words(r.next() % pages)[1 + me] = i; });
  runner.phase("random 90/10", operations, [&](std::size_t me, std::size_t i, Random& r) {
    const std::uint64_t x = r.next();
    if (x % 10 != 0) {
      runner.check((x >> 8) % pages);
    } else {
      memory.words((x >> 8) % pages)[1 + me] = i;
    }
  });
  runner.phase("skewed read", operations,
               [&](std::size_t, std::size_t, Random& r) {  // 9 of 10 touches on a fifth
                 const std::uint64_t x = r.next();
                 runner.check((x >> 8) % (x % 10 != 0 ? pages / 5 : pages));
               });
  std::printf("{\"phase\": \"wrong values\", \"operations\": %llu}\n",
              static_cast<unsigned long long>(runner.wrong()));
  return runner.wrong() != 0 ? 1 : 0;
}
