// The vDSO's clock_gettime, looked up once. Invariants: see monotonic_clock.h.
#include "base/monotonic_clock.h"

#include <elf.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <cstddef>

#include "base/raw_syscall.h"

namespace enchilada {
namespace {

using ClockGettime = int (*)(clockid_t, timespec*);

struct DynamicTables {
  const Elf64_Sym* symbols = nullptr;
  const char* strings = nullptr;
  const std::uint32_t* hash = nullptr;
  std::uintptr_t bias = 0;  // added to addresses in the file
};

template <class T>
const T* at(std::uintptr_t address) {
  return reinterpret_cast<const T*>(address);
}

DynamicTables tables_of(std::uintptr_t image) noexcept {
  DynamicTables tables;
  const auto* header = at<Elf64_Ehdr>(image);
  const auto* segment = at<Elf64_Phdr>(image + header->e_phoff);
  const Elf64_Dyn* dynamic = nullptr;
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    if (segment[i].p_type == PT_LOAD) tables.bias = image + segment[i].p_offset - segment[i].p_vaddr;
    if (segment[i].p_type == PT_DYNAMIC) dynamic = at<Elf64_Dyn>(image + segment[i].p_offset);
  }
  for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; ++dynamic) {
    const std::uintptr_t value = tables.bias + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) tables.symbols = at<Elf64_Sym>(value);
    if (dynamic->d_tag == DT_STRTAB) tables.strings = at<char>(value);
    if (dynamic->d_tag == DT_GNU_HASH) tables.hash = at<std::uint32_t>(value);
  }
  return tables;
}

std::uint32_t gnu_hash(const char* name) noexcept {
  std::uint32_t hash = 5381;
  for (; *name != 0; ++name) hash = hash * 33 + static_cast<unsigned char>(*name);
  return hash;
}

bool equal(const char* a, const char* b) noexcept {
  while (*a != 0 && *a == *b) ++a, ++b;
  return *a == *b;
}

int by_syscall(clockid_t clock, timespec* time) {
  return static_cast<int>(raw_syscall(SYS_clock_gettime, clock, reinterpret_cast<long>(time)));
}

ClockGettime find_clock() noexcept {
  const std::uintptr_t image = getauxval(AT_SYSINFO_EHDR);
  void* const found = image != 0 ? find_in_vdso(image, "__vdso_clock_gettime") : nullptr;
  return found != nullptr ? reinterpret_cast<ClockGettime>(found) : by_syscall;
}

}  // namespace

void* find_in_vdso(std::uintptr_t image, const char* name) noexcept {
  const DynamicTables tables = tables_of(image);
  if (tables.hash == nullptr || tables.symbols == nullptr || tables.strings == nullptr) return nullptr;
  const std::uint32_t bucket_count = tables.hash[0];
  const std::uint32_t first_hashed = tables.hash[1];
  const std::uint32_t* const buckets =
      tables.hash + 4 + std::size_t{2} * tables.hash[2];  // after the Bloom filter
  const std::uint32_t* const chains = buckets + bucket_count;
  const std::uint32_t hash = gnu_hash(name);
  if (bucket_count == 0) return nullptr;
  std::uint32_t i = buckets[hash % bucket_count];
  if (i < first_hashed) return nullptr;
  for (;; ++i) {
    const std::uint32_t link = chains[i - first_hashed];
    const Elf64_Sym& symbol = tables.symbols[i];
    if ((link | 1) == (hash | 1) && equal(tables.strings + symbol.st_name, name)) {
      return reinterpret_cast<void*>(tables.bias + symbol.st_value);
    }
    if ((link & 1) != 0) return nullptr;  // the chain's end
  }
}

std::uint64_t monotonic_ns() noexcept {
  static constinit std::atomic<ClockGettime> clock{nullptr};
  ClockGettime read = clock.load(std::memory_order_relaxed);
  if (read == nullptr) {
    read = find_clock();
    clock.store(read, std::memory_order_relaxed);
  }
  timespec time{};
  if (read(CLOCK_MONOTONIC, &time) != 0) by_syscall(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace enchilada
