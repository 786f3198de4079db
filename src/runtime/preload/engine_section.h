// EngineSection: ordinary code of the runtime inside the engine.
#pragma once

#include "runtime/preload/live.h"
#include "runtime/preload/syscalls.h"

namespace enchilada::runtime {

/// Enters the engine: the program's signal handlers stay out, forks wait. Not on a managed stack.
class EngineSection {
 public:
  EngineSection() { live().gate().lock_shared(); }
  ~EngineSection() { live().gate().unlock_shared(); }
  EngineSection(const EngineSection&) = delete;
  EngineSection& operator=(const EngineSection&) = delete;

 private:
  SignalsBlocked blocked_;
};

}  // namespace enchilada::runtime
