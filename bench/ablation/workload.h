// Workloads of the ablation: programs on the soft machine that say what they do page by page, the same each
// time. Invariant: a workload depends on nothing but the engine that it is given, so that what two modes cost
// can be compared count by count.
#pragma once

#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string_view>

#include "machine/soft_engine.h"

namespace enchilada::ablation {

inline constexpr std::uint64_t kFrames = 1024;  // of the machine on which all workloads run

/// One engine, and what programs do on it.
class Stage {
 public:
  explicit Stage(const VmModes& modes);

  struct Program {
    std::unique_ptr<VmMap> map;
    VirtAddr base{0};
  };
  /// An address space with `pages` of zero-fill memory.
  [[nodiscard]] Program start(std::uint64_t pages);
  [[nodiscard]] static Program fork(Program& parent);
  [[nodiscard]] static VirtRange range(const Program& p, std::uint64_t first, std::uint64_t pages);

  /// One access of page i; a write changes a byte of it.
  void read(Program& p, std::uint64_t i) { access(p, i, Access::kRead); }
  void write(Program& p, std::uint64_t i) { access(p, i, Access::kWrite); }
  void write_all(Program& p, std::uint64_t first, std::uint64_t pages);
  /// The machine is idle for a while.
  void think();
  void read_all(Program& p, std::uint64_t first, std::uint64_t pages);

  [[nodiscard]] SoftEngine& engine() { return engine_; }
  [[nodiscard]] std::uint64_t random(std::uint64_t below) { return rng_() % below; }

 private:
  void access(Program& p, std::uint64_t i, Access access);

  SoftEngine engine_;
  std::mt19937_64 rng_{1};
};

struct Workload {
  std::string_view name;
  std::string_view what;
  void (*run)(Stage& stage);
};

[[nodiscard]] std::span<const Workload> all_workloads();

}  // namespace enchilada::ablation
