// Probes of the heap: what malloc and its family promise, in more memory than there is.
#include <dlfcn.h>
#include <malloc.h>

#include <memory>
#include <new>
#include <vector>

#include "probe.h"

using namespace probe;

namespace {

constexpr size_t kMiB = size_t{1} << 20;

void* volatile kept;  // keeps the compiler from taking an allocation away

}  // namespace

PROBE(huge_realloc_growth) {
  size_t bytes = 1000;
  char* p = heap(bytes);
  fill(p, bytes, 1);
  while (bytes < 4 * ram()) {
    const size_t more = bytes * 3 / 2 / 8 * 8;
    p = static_cast<char*>(realloc(p, more));
    EXPECT(p != nullptr);
    EXPECT_PATTERN(p, bytes, 1);
    bytes = more;
    fill(p, bytes, 1);
  }
  push_out();
  EXPECT_PATTERN(p, bytes, 1);
  p = static_cast<char*>(realloc(p, 5000));
  EXPECT_PATTERN(p, 5000, 1);
  free(p);
}

PROBE(calloc_is_zero) {
  for (int round = 0; round < 3; round++) {
    std::vector<char*> used;
    for (size_t size = 16; size <= 4 * kMiB; size *= 2) {
      for (int i = 0; i < 4; i++) {
        used.push_back(heap(size));
        fill(used.back(), size, size);
      }
    }
    for (char* p : used) free(p);
    std::vector<char*> fresh;
    for (size_t size = 16; size <= 4 * kMiB; size *= 2) {
      for (int i = 0; i < 4; i++) {
        fresh.push_back(static_cast<char*>(calloc(size / 8, 8)));
        EXPECT(fresh.back() != nullptr);
        EXPECT_ZEROS(fresh.back(), size);
      }
    }
    for (char* p : fresh) free(p);
  }
  auto* big = static_cast<char*>(calloc(1, 2 * ram()));
  EXPECT_ZEROS(big, 2 * ram());
  kept = big;
}

PROBE_CALM(aligned_allocation) {
  for (size_t alignment = 8; alignment <= 4 * kMiB; alignment *= 2) {
    void* a = nullptr;
    EXPECT_EQ(posix_memalign(&a, alignment, 3 * alignment), 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % alignment, 0u);
    fill(a, 3 * alignment, alignment);
    void* b = aligned_alloc(alignment, 2 * alignment);
    EXPECT(b != nullptr && reinterpret_cast<uintptr_t>(b) % alignment == 0);
    void* c = memalign(alignment, 100);
    EXPECT(c != nullptr && reinterpret_cast<uintptr_t>(c) % alignment == 0);
    EXPECT_PATTERN(a, 3 * alignment, alignment);
    free(c);
    free(a);
    free(b);
  }
  void* v = valloc(10);
  EXPECT(reinterpret_cast<uintptr_t>(v) % 4096 == 0);
  free(v);
  void* p = pvalloc(10);
  EXPECT(reinterpret_cast<uintptr_t>(p) % 4096 == 0 && malloc_usable_size(p) >= 4096);
  free(p);
  void* bad = nullptr;
  EXPECT_EQ(posix_memalign(&bad, 3, 10), EINVAL);
}

PROBE_CALM(usable_size) {
  for (size_t size = 1; size < 3 * kMiB; size = size * 5 / 3 + 1) {
    char* p = heap(size);
    const size_t usable = malloc_usable_size(p);
    EXPECT(usable >= size && usable < size * 2 + 64 * 1024);
    memset(p, 1, usable);  // all of it may be used
    char* q = heap(size);
    memset(q, 2, size);
    for (size_t i = 0; i < usable; i += 101) EXPECT(p[i] == 1);
    free(p);
    free(q);
  }
  EXPECT_EQ(malloc_usable_size(nullptr), 0u);
}

PROBE_CALM(edges) {
  free(nullptr);
  void* zero = malloc(0);
  EXPECT(zero != nullptr);
  free(zero);
  errno = 0;
  kept = malloc(size_t{1} << 62);
  EXPECT(kept == nullptr && errno == ENOMEM);
  errno = 0;
  kept = calloc(size_t{1} << 40, size_t{1} << 40);
  EXPECT(kept == nullptr && errno == ENOMEM);
  errno = 0;
  kept = reallocarray(nullptr, size_t{1} << 40, size_t{1} << 40);
  EXPECT(kept == nullptr && errno == ENOMEM);
  char* p = heap(100);
  errno = 77;
  free(p);
  EXPECT_EQ(errno, 77);
  bool threw = false;
  try {
    kept = ::operator new (size_t{1} << 62);
  } catch (const std::bad_alloc&) {
    threw = true;
  }
  EXPECT(threw);
  EXPECT(::operator new (size_t{1} << 62, std::nothrow) == nullptr);
  (void)mallopt(M_ARENA_MAX, 1);
  (void)malloc_trim(0);
  (void)mallinfo2();
}

PROBE_CALM(library_that_binds_deeply) {  // as PHP loads its extensions: it frees what the program allocated
  void* library = dlopen("libcrypt.so.1", RTLD_NOW | RTLD_DEEPBIND);
  EXPECT(library != nullptr);
  auto crypt =
      reinterpret_cast<char* (*)(const char*, const char*, void**, int*)>(dlsym(library, "crypt_ra"));
  EXPECT(crypt != nullptr);
  void* data = heap(16);
  int size = 16;
  EXPECT(crypt("phrase", "$6$salt", &data, &size) != nullptr);
  EXPECT(size > 16);  // it has called realloc
  free(data);
}

PROBE(many_small_objects) {
  struct Node {
    Node* next;
    uint64_t value;
    char rest[40];
  };
  Node* list = nullptr;
  const size_t count = 2 * ram() / sizeof(Node);
  for (size_t i = 0; i < count; i++) list = new Node{list, i * 31, {}};
  size_t seen = 0;
  for (Node* n = list; n; n = n->next) EXPECT(n->value == (count - ++seen) * 31);
  EXPECT_EQ(seen, count);
  while (list) {
    Node* next = list->next;
    delete list;
    list = next;
  }
  auto over_aligned = new (std::align_val_t{256}) char[1000];
  EXPECT(reinterpret_cast<uintptr_t>(over_aligned) % 256 == 0);
  ::operator delete[](over_aligned, std::align_val_t{256});
}

PROBE(churn_of_sizes) {
  std::vector<std::pair<char*, size_t>> live_ones(400);
  uint64_t random = 99;
  size_t held = 0;
  for (int i = 0; i < 60000; i++) {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    auto& [p, size] = live_ones[random >> 33 & 0xff];
    if (p) {
      EXPECT_PATTERN(p, size, reinterpret_cast<uintptr_t>(p) ^ size);
      free(p);
      held -= size;
      p = nullptr;
    }
    size = 8 * (1 + (random >> 45) % ((random & 15) == 0 ? 40000 : 200));
    if (held + size > 3 * ram()) continue;
    p = heap(size);
    held += size;
    fill(p, size, reinterpret_cast<uintptr_t>(p) ^ size);
  }
  push_out();
  for (auto& [p, size] : live_ones) {
    if (p) EXPECT_PATTERN(p, size, reinterpret_cast<uintptr_t>(p) ^ size);
  }
}
