// Next<F>: the function of the same name behind our interposed one (dlsym(RTLD_NEXT)), looked up once.
#pragma once

#include <dlfcn.h>
#include <errno.h>

#include <atomic>

#include "base/check.h"

namespace enchilada::runtime {

template <class F>
class Next;

template <class R, class... Args>
class Next<R(Args...)> {
 public:
  constexpr explicit Next(const char* name) : name_(name) {}
  R operator()(Args... args) { return get()(args...); }
  R (*get())(Args...) {
    void* f = function_.load(std::memory_order_acquire);
    if (f == nullptr) {
      f = dlsym(RTLD_NEXT, name_);
      CHECK(f != nullptr);
      function_.store(f, std::memory_order_release);
    }
    return reinterpret_cast<R (*)(Args...)>(f);
  }

 private:
  const char* name_;
  std::atomic<void*> function_{nullptr};
};

/// Turns the kernel's answer into libc's.
inline long with_errno(long answer) {
  if (answer >= 0 || answer < -4095) return answer;
  errno = static_cast<int>(-answer);
  return -1;
}

}  // namespace enchilada::runtime
