// RandomWorkload: random sequences of everything that programs do, from one seed, for any design.
//
// It knows what each process has mapped, so that most calls are about something that is there; the choices do
// not depend on the design, so that the same seed is the same program everywhere. Invariant: deterministic.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "lab/vm_design.h"

namespace enchilada::lab {

/// splitmix64: small, fast, and the same everywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du) {}
  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// 0 .. n-1
  std::uint64_t below(std::uint64_t n) { return bits() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

 private:
  std::uint64_t state_;
};

enum class Call : std::uint8_t {
  kRead,
  kWrite,
  kMap,
  kUnmap,
  kProtect,
  kDiscard,
  kRemap,
  kFork,
  kExec,
  kExit,
  kSpawn,
  kReclaim
};

/// One call, with what it needs; unused members are zero.
struct Step {
  Call call = Call::kRead;
  ProcessId process;
  VirtRange range;  // kRead, kWrite: start is the address
  VirtAddr to;      // kRemap
  Prot prot = Prot::kReadWrite;
  std::optional<FileId> file;
  PageIndex offset;
  bool shared = false;
  std::uint64_t value = 0;  // kWrite: what is written; kReclaim: pages
};

struct WorkloadShape {
  std::uint64_t pages = 64;  // of the part of each address space that is used
  std::uint64_t files = 2;
  std::uint64_t file_pages = 24;
  std::size_t processes = 6;  // at most
};

/// Draws steps. It must be told of processes that come: fork and spawn say their number in `made`.
class RandomWorkload {
 public:
  static constexpr VirtAddr kBase{std::uint64_t{1} << 30};

  RandomWorkload(std::uint64_t seed, const WorkloadShape& shape) : random_(seed), shape_(shape) {}
  [[nodiscard]] Step next();
  void made(ProcessId process) { processes_.push_back(process); }
  [[nodiscard]] std::size_t live() const { return processes_.size(); }

 private:
  [[nodiscard]] VirtRange some_range();
  [[nodiscard]] Prot some_prot();

  Random random_;
  WorkloadShape shape_;
  std::vector<ProcessId> processes_;
};

}  // namespace enchilada::lab
