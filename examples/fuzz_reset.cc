// A fuzzing loop whose target has a large state that took long to build: each input starts from the same
// checkpoint.
//
// The target is a hash table with open addressing. Its erase() closes the gap by moving later keys back, and
// has a bug: it looks only kReach slots ahead. An input is a list of commands; the table's own check after
// each erase says when a key can no longer be found. One side puts the table into a region and calls
// rollback() after each input; the other forks a process per input. Both must find the same bad inputs.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "example.h"

namespace {

using example::must;

constexpr std::uint64_t kReach = 12;
using Input = std::array<std::uint8_t, 96>;

/// The target: a table of keys over memory that somebody else owns. 0: free.
class Table {
 public:
  Table(void* memory, std::uint64_t bytes)
      : slots_(static_cast<std::uint64_t*>(memory)), count_(bytes / sizeof(std::uint64_t)) {}

  void insert(std::uint64_t key) {
    std::uint64_t at = home(key);
    while (slots_[at] != 0 && slots_[at] != key) at = after(at);
    slots_[at] = key;
  }
  [[nodiscard]] bool contains(std::uint64_t key) const {
    std::uint64_t at = home(key);
    while (slots_[at] != 0 && slots_[at] != key) at = after(at);
    return slots_[at] == key;
  }
  void erase(std::uint64_t key) {
    std::uint64_t hole = home(key);
    while (slots_[hole] != 0 && slots_[hole] != key) hole = after(hole);
    if (slots_[hole] == 0) return;
    std::uint64_t at = after(hole);
    for (std::uint64_t seen = 0; slots_[at] != 0 && seen < kReach;
         ++seen, at = after(at)) {  // the bug: < kReach
      if (distance(home(slots_[at]), at) < distance(hole, at)) continue;
      slots_[hole] = slots_[at];
      hole = at;
    }
    slots_[hole] = 0;
  }
  /// All keys that lie from the key's place on, up to the first free slot beyond the next, can be found.
  [[nodiscard]] bool intact_around(std::uint64_t key) const {
    std::uint64_t at = home(key);
    for (int holes = 0; holes < 3; at = after(at)) {
      if (slots_[at] == 0) {
        ++holes;
      } else if (!contains(slots_[at])) {
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] std::uint64_t slots() const { return count_; }
  [[nodiscard]] std::uint64_t key_at(std::uint64_t slot) const { return slots_[slot % count_]; }

 private:
  [[nodiscard]] std::uint64_t home(std::uint64_t key) const { return example::mix(key) % count_; }
  [[nodiscard]] std::uint64_t after(std::uint64_t at) const { return at + 1 == count_ ? 0 : at + 1; }
  [[nodiscard]] std::uint64_t distance(std::uint64_t from, std::uint64_t to) const {
    return to >= from ? to - from : to + count_ - from;
  }
  std::uint64_t* slots_;
  std::uint64_t count_;
};

void build(Table& table) {  // the expensive part: two thirds full
  example::Random random(1);
  for (std::uint64_t i = 0; i < table.slots() / 3 * 2; ++i) table.insert(random.next() | 1);
}

/// Runs one input against the table. False: the table is broken.
bool run_input(Table& table, const Input& input) {
  for (std::size_t i = 0; i + 8 <= input.size(); i += 8) {
    std::uint64_t argument = 0;
    std::memcpy(&argument, &input[i], sizeof(argument));
    if ((input[i] & 3) != 0) {
      table.insert(argument | 1);
      continue;
    }
    const std::uint64_t key = table.key_at(argument);  // an old one, or one of this input
    if (key == 0) continue;
    table.erase(key);
    if (!table.intact_around(key)) return false;
  }
  return true;
}

/// Input number i of the run: the same for both sides.
Input make_input(std::uint64_t i) {
  Input input;
  example::Random random(i << 20);
  for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random.next());
  return input;
}

struct Outcome {
  std::vector<std::uint64_t> bad;  // inputs
  double seconds = 0;
};

Outcome fuzz_with_rollback(std::uint64_t state_bytes, std::uint64_t inputs) {
  auto vm = must(enchilada::Vm::create({.ram_bytes = state_bytes + (std::uint64_t{64} << 20)}));
  auto region = must(vm.map(state_bytes));
  Table table(region.data(), state_bytes);
  build(table);
  const auto checkpoint = must(region.snapshot());
  Outcome outcome;
  const double start = example::now();
  for (std::uint64_t i = 0; i < inputs; ++i) {
    if (!run_input(table, make_input(i))) outcome.bad.push_back(i);
    must(region.rollback(checkpoint));
  }
  outcome.seconds = example::now() - start;
  return outcome;
}

Outcome fuzz_with_fork(std::uint64_t state_bytes, std::uint64_t inputs) {
  void* const memory = mmap(nullptr, state_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) example::fail_errno("mmap");
  madvise(memory, state_bytes, MADV_NOHUGEPAGE);  // 4 KiB pages on both sides
  Table table(memory, state_bytes);
  build(table);
  Outcome outcome;
  const double start = example::now();
  for (std::uint64_t i = 0; i < inputs; ++i) {
    const pid_t child = fork();
    if (child < 0) example::fail_errno("fork");
    if (child == 0) _exit(run_input(table, make_input(i)) ? 0 : 1);
    int status = 0;
    if (waitpid(child, &status, 0) != child) example::fail_errno("waitpid");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) outcome.bad.push_back(i);
  }
  outcome.seconds = example::now() - start;
  munmap(memory, state_bytes);
  return outcome;
}

void print(const char* name, const Outcome& outcome, std::uint64_t inputs) {
  std::printf("%-9s %8.0f inputs/s, %zu bad of %llu\n", name, static_cast<double>(inputs) / outcome.seconds,
              outcome.bad.size(), static_cast<unsigned long long>(inputs));
}

}  // namespace

int main(int argc, char** argv) {
  example::Options options(argc, argv, 1);
  const std::uint64_t state = options.size("--state", std::uint64_t{256} << 20) & ~std::uint64_t{4095};
  const std::uint64_t inputs = options.size("--inputs", 2000);
  options.done();
  if (state < 4096) example::fail("--state: at least 4K", 2);

  const Outcome forked = fuzz_with_fork(state, inputs);  // first: while this process has nothing else to copy
  const Outcome rolled = fuzz_with_rollback(state, inputs);
  print("fork", forked, inputs);
  print("rollback", rolled, inputs);
  if (forked.bad != rolled.bad) example::fail("the two sides disagree about which inputs are bad");
  if (rolled.bad.empty()) example::fail("no input has found the bug; try more");
  std::printf("rollback is %.1f times as fast; first bad input: %llu\n", forked.seconds / rolled.seconds,
              static_cast<unsigned long long>(rolled.bad.front()));
  return 0;
}
