// operator new of the runtime itself: the engine's few singletons must not lie in the window they manage.
// Kept local by exports.map: the program's own C++ code goes on using its libstdc++ and our malloc.
#include <cstdlib>
#include <new>

#include "runtime/preload/resident_heap.h"

using enchilada::runtime::resident_allocate;
using enchilada::runtime::resident_free;

void* operator new(std::size_t n) {
  void* p = resident_allocate(n);
  if (p == nullptr) std::abort();
  return p;
}
void* operator new(std::size_t n, std::align_val_t alignment) {
  void* p = resident_allocate(n, static_cast<std::size_t>(alignment));
  if (p == nullptr) std::abort();
  return p;
}
void operator delete(void* p) noexcept {
  resident_free(p);
}
void operator delete(void* p, std::size_t) noexcept {
  resident_free(p);
}
void operator delete(void* p, std::align_val_t) noexcept {
  resident_free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept {
  resident_free(p);
}
