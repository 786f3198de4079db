// Replays scripts against an allocator of swap blocks, as FreeBSD's blist does when it is compiled alone:
//
//   print          the ranges that are free
//   stats          how fragmented they are, in Fibonacci's classes
//   alloc N [MAX]  N blocks in a row, up to MAX
//   free FIRST N   fill FIRST N   resize N
//   # a comment
//
// Usage: blist_replay [blist|blist-1999|list-3x] [BLOCKS [BOUNDARY]] < SCRIPT
// Every answer is compared with a plain bitmap. Prints a prompt with what is free of how many blocks, as the
// original. Status 1: an answer was wrong; 2: the script was.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "swap/free_ranges.h"

namespace enchilada {
namespace {

template <BlockAllocator A>
class Replay {
 public:
  Replay(std::uint64_t blocks, std::uint64_t boundary) : boundary_(boundary) { make(blocks); }

  /// False: no such command.
  bool run(const char* line) {
    char word[16] = {};
    unsigned long long a = 0;
    unsigned long long b = 0;
    const int n = std::sscanf(line, "%15s %llu %llu", word, &a, &b);
    const std::string_view command = n > 0 ? word : "#";
    if (command[0] == '#') return true;
    if (command == "print" && n == 1) return print();
    if (command == "stats" && n == 1) return stats();
    if (command == "alloc" && n >= 2 && a > 0) return alloc(a, n == 3 ? b : a);
    if (command == "free" && n == 3) return free(a, b);
    if (command == "fill" && n == 3) return fill(a, b);
    if (command == "resize" && n == 2 && a > 0 && a <= A::kMaxBlocks) return resize(a);
    return false;
  }
  void prompt() const {
    std::printf("%llu/%llu> ", static_cast<unsigned long long>(list_.available().value()),
                static_cast<unsigned long long>(free_.size()));
  }
  [[nodiscard]] bool good() const { return good_; }

 private:
  void make(std::uint64_t blocks) {
    const std::size_t bytes = A::required_bytes(PageCount{blocks});
    storage_.assign(bytes + 64, std::byte{0});
    const auto at = reinterpret_cast<std::uintptr_t>(storage_.data());
    list_ =
        A::create({storage_.data() + (64 - at % 64) % 64, bytes}, PageCount{blocks}, PageCount{boundary_});
    free_.assign(blocks, true);
  }
  void expect(bool right, const char* what) {
    if (right) return;
    good_ = false;
    std::printf("WRONG: %s\n", what);
  }
  [[nodiscard]] bool all(std::uint64_t first, std::uint64_t n, bool are) const {
    for (std::uint64_t i = first; i < first + n; ++i) {
      if (free_[i] != are) return false;
    }
    return true;
  }
  [[nodiscard]] bool inside(std::uint64_t first, std::uint64_t n) const {
    return first <= free_.size() && n <= free_.size() - first;
  }

  bool print() {
    for (std::uint64_t b = 0; b < free_.size();) {
      std::uint64_t end = b;
      while (end < free_.size() && list_.is_free(SwapBlock{static_cast<std::uint32_t>(end)})) ++end;
      if (end > b)
        std::printf("free %llu %llu\n", static_cast<unsigned long long>(b),
                    static_cast<unsigned long long>(end - b));
      b = end + 1;
    }
    expect(list_.verify(), "the list's own invariants");
    return true;
  }
  bool stats() {
    const FreeRanges f = free_ranges(list_);
    std::printf("%llu free ranges of %.1f blocks, the largest %llu\n",
                static_cast<unsigned long long>(f.ranges), f.average(),
                static_cast<unsigned long long>(f.largest));
    for (std::size_t c = 0; c < FreeRanges::kClasses; ++c) {
      if (f.histogram[c] == 0) continue;
      std::printf("  %10llu and more: %llu\n", static_cast<unsigned long long>(FreeRanges::class_floor(c)),
                  static_cast<unsigned long long>(f.histogram[c]));
    }
    expect(f.blocks == list_.available().value(), "the number of free blocks");
    return true;
  }
  bool alloc(std::uint64_t min, std::uint64_t max) {
    const BlockRun run = list_.allocate(PageCount{min}, PageCount{max});
    if (run.empty()) {
      std::printf("none\n");
      return true;
    }
    std::printf("%u %llu\n", run.first.value(), static_cast<unsigned long long>(run.count.value()));
    expect(inside(run.first.value(), run.count.value()) && all(run.first.value(), run.count.value(), true),
           "these blocks were not free");
    for (std::uint64_t i = 0; i < run.count.value(); ++i) free_[run.first.value() + i] = false;
    return true;
  }
  bool free(std::uint64_t first, std::uint64_t n) {
    if (!inside(first, n)) return false;
    const bool freed = list_.free(block_storage::run_at(first, n));
    if (!freed) std::printf("refused\n");
    expect(freed == (n == 0 || all(first, n, false)), "whether they could be freed");
    for (std::uint64_t i = first; freed && i < first + n; ++i) free_[i] = true;
    return true;
  }
  bool fill(std::uint64_t first, std::uint64_t n) {
    if (!inside(first, n)) return false;
    std::uint64_t were_free = 0;
    for (std::uint64_t i = first; i < first + n; ++i) {
      were_free += free_[i] ? 1 : 0;
      free_[i] = false;
    }
    const std::uint64_t said = list_.fill(block_storage::run_at(first, n)).value();
    std::printf("%llu were free\n", static_cast<unsigned long long>(said));
    expect(said == were_free, "how many were free");
    return true;
  }
  /// As blist_resize(): what there is stays as it is, what is new is free.
  bool resize(std::uint64_t blocks) {
    const std::vector<bool> old = free_;
    make(blocks);
    for (std::uint64_t b = 0; b < std::min<std::uint64_t>(old.size(), blocks); ++b) {
      if (old[b]) continue;
      list_.fill(block_storage::run_at(b, 1));
      free_[b] = false;
    }
    return true;
  }

  std::uint64_t boundary_;
  std::vector<std::byte> storage_;
  A list_;
  std::vector<bool> free_;
  bool good_ = true;
};

template <BlockAllocator A>
int replay(std::uint64_t blocks, std::uint64_t boundary) {
  Replay<A> list(blocks, boundary);
  char line[256];
  for (list.prompt(); std::fgets(line, sizeof line, stdin) != nullptr; list.prompt()) {
    if (list.run(line)) continue;
    std::fprintf(stderr, "blist_replay: not a command here: %s", line);
    return 2;
  }
  std::printf("\n");
  return list.good() ? 0 : 1;
}

}  // namespace
}  // namespace enchilada

int main(int argc, char** argv) {
  using namespace enchilada;
  const std::string_view mode = argc > 1 ? argv[1] : "blist";
  const std::uint64_t blocks = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 1024;
  const std::uint64_t boundary = argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 0;
  if (blocks == 0 || blocks > Blist::kMaxBlocks || (boundary & (boundary - 1)) != 0) {
    std::fprintf(stderr, "blist_replay: BLOCKS is 1 to 2^32 - 1, BOUNDARY 0 or a power of two\n");
    return 2;
  }
  if (mode == name_of(SwapAllocatorMode::kBlist)) return replay<Blist>(blocks, boundary);
  if (mode == name_of(SwapAllocatorMode::kBlist1999)) return replay<Blist1999>(blocks, boundary);
  if (mode == name_of(SwapAllocatorMode::kList3x)) return replay<SwapList3x>(blocks, boundary);
  std::fprintf(stderr, "usage: blist_replay [blist|blist-1999|list-3x] [BLOCKS [BOUNDARY]] < SCRIPT\n");
  return 2;
}
