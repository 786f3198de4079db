// ResidentMalloc: allocations of a libc function that must stay outside of the window.
#pragma once

#include "runtime/preload/live.h"
#include "runtime/preload/thread.h"

namespace enchilada::runtime {

/// While it lives, malloc of this thread gives memory that is never paged.
class ResidentMalloc {
 public:
  ResidentMalloc() : thread_(live().ready() ? &this_thread() : nullptr) {
    if (thread_ != nullptr) ++thread_->resident_malloc;
  }
  ~ResidentMalloc() {
    if (thread_ != nullptr) --thread_->resident_malloc;
  }
  ResidentMalloc(const ResidentMalloc&) = delete;
  ResidentMalloc& operator=(const ResidentMalloc&) = delete;

 private:
  ThreadRecord* thread_;
};

}  // namespace enchilada::runtime
