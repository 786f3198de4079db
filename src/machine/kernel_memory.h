// KernelMemory: where the data structures of a simulated kernel lie, and how many of each there are.
//
// It has no bytes: a structure is an ordinary C++ object of whoever simulates it, and gets a physical address
// here, so that looking at it goes through the simulated caches and costs what a miss costs. Invariants: two
// live structures do not overlap; live counts are what was allocated and not freed.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "machine/hardware.h"

namespace enchilada {

/// Kinds of structures, for the account of bytes.
enum class KernelType : std::uint8_t {
  kVma,
  kPteChain,      // blocks of PTE pointers
  kPagePointer,   // what each frame's descriptor has more than without the design
  kFileLinks,     // what a mapping needs to be in a file's index
  kAnonLinks,     // what a mapping needs to be found from anonymous pages
  kAnonVma,       // anon_vma, heads of bundles
  kAnonVmaChain,  // links between a mapping and an anon_vma
  kAnonMm,
  kPvEntry,
  kPageTable,
};
inline constexpr std::size_t kKernelTypes = static_cast<std::size_t>(KernelType::kPageTable) + 1;
inline constexpr std::array<std::string_view, kKernelTypes> kKernelTypeNames = {
    "vma",      "pte_chain",      "page_pointer", "file_links", "anon_links",
    "anon_vma", "anon_vma_chain", "anonmm",       "pv_entry",   "page_table"};

struct KernelAccount {
  std::uint64_t live = 0;
  std::uint64_t bytes = 0;
  std::uint64_t peak_bytes = 0;
};

class KernelMemory {
 public:
  static constexpr std::uint64_t kLine = 64;

  explicit KernelMemory(Hardware& hardware) : hardware_(hardware) {}

  /// Memory for one structure, of a size class of whole quarter lines.
  [[nodiscard]] PhysAddr allocate(KernelType type, ByteCount bytes);
  void free(KernelType type, PhysAddr at, ByteCount bytes);
  /// Part of another structure, which has the memory: counted only.
  void grow(KernelType type, ByteCount bytes) { add(type, bytes.value()); }
  void shrink(KernelType type, ByteCount bytes) { subtract(type, bytes.value()); }

  /// The kernel looks at, or changes, the line at an address.
  void read(PhysAddr at) {
    hardware_.note(KernelEvent::kLineRead, 1);
    hardware_.touch(at, false, Charge::kKernel);
  }
  void write(PhysAddr at) {
    hardware_.note(KernelEvent::kLineWritten, 1);
    hardware_.touch(at, true, Charge::kKernel);
  }
  void note(KernelEvent event, std::uint64_t n = 1) { hardware_.note(event, n); }
  [[nodiscard]] Hardware& hardware() { return hardware_; }
  [[nodiscard]] const KernelAccount& account(KernelType type) const {
    return accounts_[static_cast<std::size_t>(type)];
  }

 private:
  static constexpr std::uint64_t kStart = std::uint64_t{1} << 44;  // beyond all frames and page tables
  static constexpr std::uint64_t kGrain = 16;

  [[nodiscard]] static std::size_t class_of(ByteCount bytes) { return (bytes.value() + kGrain - 1) / kGrain; }
  void add(KernelType type, std::uint64_t bytes);
  void subtract(KernelType type, std::uint64_t bytes);

  Hardware& hardware_;
  std::uint64_t next_ = kStart;
  std::vector<std::vector<std::uint64_t>> free_;  // by size class
  std::array<KernelAccount, kKernelTypes> accounts_{};
};

/// A lock of the simulated kernel, for as long as this lives: counted, with the time that it was held. Nobody
/// waits for it: one CPU at a time runs.
class KernelLockHold {
 public:
  explicit KernelLockHold(Hardware& hardware);
  ~KernelLockHold();
  KernelLockHold(const KernelLockHold&) = delete;
  KernelLockHold& operator=(const KernelLockHold&) = delete;

 private:
  Hardware& hardware_;
  const unsigned cpu_;
  const Picoseconds since_;
};

}  // namespace enchilada
