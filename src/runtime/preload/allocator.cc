// The malloc family: mimalloc, whose memory comes from our mmap and so lies in the window.
//
// Exceptions go to the resident heap: calls from the dynamic loader (thread tables: freed with all signals
// blocked), the C library's stdio buffers and FILEs (its own system calls on them then need no trap, and
// fork's walk over them finds them resident), and whatever runs under ResidentMalloc.
#include <errno.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <malloc.h>
#include <mimalloc.h>
#include <string.h>
#include <sys/auxv.h>

#include <atomic>

#include "runtime/preload/export.h"
#include "runtime/preload/live.h"
#include "runtime/preload/resident_heap.h"
#include "runtime/preload/thread.h"

namespace enchilada::runtime {
namespace {

struct TextRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  [[nodiscard]] bool contains(const void* p) const {
    const auto a = reinterpret_cast<std::uint64_t>(p);
    return a >= start && a < end;
  }
};

std::atomic<bool> ranges_known{false};
TextRange loader_text;
TextRange libc_text;

TextRange text_of(std::uint64_t base) {
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(base);
  const auto* segments = reinterpret_cast<const ElfW(Phdr)*>(base + header->e_phoff);
  std::uint64_t end = base;
  for (unsigned i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type == PT_LOAD) end = base + segments[i].p_vaddr + segments[i].p_memsz;
  }
  return {base, end};
}

/// The object that contains an address, by walking back to its ELF header (page by page, within one mapping).
TextRange object_of(const void* address) {
  for (std::uint64_t at = reinterpret_cast<std::uint64_t>(address) & ~kPageMask;; at -= kPageSize) {
    if (memcmp(reinterpret_cast<const void*>(at), ELFMAG, SELFMAG) == 0) return text_of(at);
  }
}

void learn_ranges() {
  const std::uint64_t loader = getauxval(AT_BASE);
  if (loader != 0) loader_text = text_of(loader);
  libc_text = object_of(reinterpret_cast<const void*>(&gnu_get_libc_version));
  ranges_known.store(true, std::memory_order_release);
}

constexpr std::size_t kResidentBuffers = std::size_t{4} << 20;

bool stdio_size(std::size_t n) {
  return n == 4096 || n == 1024 || (n >= 400 && n <= 600) || (n > 32768 && n <= 33024) || n == 65536;
}

/// Should this allocation stay outside of the window?
bool wants_resident(const void* caller, std::size_t bytes) {
  if (__builtin_expect(!ranges_known.load(std::memory_order_acquire), 0)) learn_ranges();
  if (loader_text.contains(caller)) return true;
  if (libc_text.contains(caller) && stdio_size(bytes) && resident_heap_used() < kResidentBuffers) return true;
  const ThreadRecord* thread = known_thread();
  return thread != nullptr && thread->resident_malloc > 0;
}

void* or_errno(void* p) {
  if (p == nullptr) errno = ENOMEM;
  return p;
}

/// mimalloc 2.0.9 takes blocks of a power of two for aligned, which they are not when the first lies at 0x180
/// (alignments 256 and 512): an odd size makes it look.
std::size_t odd(std::size_t bytes) {
  return (bytes & (bytes - 1)) == 0 ? bytes + 1 : bytes;
}

void* resident_or_errno(std::size_t bytes, std::size_t alignment = 16) {
  void* p = resident_allocate(bytes, alignment);
  if (p == nullptr) errno = ENOMEM;
  return p;
}

}  // namespace
}  // namespace enchilada::runtime

using namespace enchilada::runtime;

extern "C" {

ENCHILADA_EXPORT void* malloc(std::size_t bytes) {
  if (wants_resident(__builtin_return_address(0), bytes)) return resident_or_errno(bytes);
  return or_errno(mi_malloc(bytes));
}

ENCHILADA_EXPORT void free(void* block) {
  if (is_resident(block)) return resident_free(block);
  mi_free(block);
}

ENCHILADA_EXPORT void cfree(void* block) {
  free(block);
}

ENCHILADA_EXPORT void* calloc(std::size_t n, std::size_t bytes) {
  std::size_t total = 0;
  if (!__builtin_mul_overflow(n, bytes, &total) && wants_resident(__builtin_return_address(0), total)) {
    void* p = resident_or_errno(total);
    if (p != nullptr) memset(p, 0, total);
    return p;
  }
  return or_errno(mi_calloc(n, bytes));
}

ENCHILADA_EXPORT void* realloc(void* block, std::size_t bytes) {
  if (block == nullptr && wants_resident(__builtin_return_address(0), bytes)) return resident_or_errno(bytes);
  if (!is_resident(block)) {
    void* p = mi_realloc(block, bytes);
    return bytes == 0 ? p : or_errno(p);
  }
  if (bytes == 0) {
    resident_free(block);
    return nullptr;
  }
  const bool stay = wants_resident(__builtin_return_address(0), bytes);
  void* p = stay ? resident_or_errno(bytes) : mi_malloc(bytes);
  if (p == nullptr) return nullptr;
  const std::size_t old = resident_size(block);
  memcpy(p, block, old < bytes ? old : bytes);
  resident_free(block);
  return p;
}

ENCHILADA_EXPORT void* reallocarray(void* block, std::size_t n, std::size_t bytes) {
  std::size_t total = 0;
  if (__builtin_mul_overflow(n, bytes, &total)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(block, total);
}

ENCHILADA_EXPORT void* memalign(std::size_t alignment, std::size_t bytes) {
  if (wants_resident(__builtin_return_address(0), bytes)) return resident_or_errno(bytes, alignment);
  return or_errno(mi_memalign(alignment, odd(bytes)));
}

ENCHILADA_EXPORT void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  if (wants_resident(__builtin_return_address(0), bytes)) return resident_or_errno(bytes, alignment);
  return or_errno(mi_memalign(alignment, odd(bytes)));
}

ENCHILADA_EXPORT int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  return mi_posix_memalign(block, alignment, odd(bytes));
}

ENCHILADA_EXPORT void* valloc(std::size_t bytes) {
  return or_errno(mi_valloc(bytes));
}
ENCHILADA_EXPORT void* pvalloc(std::size_t bytes) {
  return or_errno(mi_pvalloc(bytes));
}

ENCHILADA_EXPORT std::size_t malloc_usable_size(void* block) {
  if (block == nullptr) return 0;
  return is_resident(block) ? resident_size(block) : mi_usable_size(block);
}

ENCHILADA_EXPORT int malloc_trim(std::size_t) {
  mi_collect(false);
  return 1;
}

}  // extern "C"
