// ChargedMemory: a machine's frames, with the time that the engine's work on whole pages takes. Invariant:
// what it does with frames is what the memory below does.
#pragma once

#include "machine/hardware.h"
#include "vm/phys.h"

namespace enchilada {

class ChargedMemory final : public PhysicalMemory {
 public:
  ChargedMemory(PhysicalMemory& below, Hardware& hardware) : below_(below), hardware_(hardware) {}

  [[nodiscard]] PageCount frame_limit() const override { return below_.frame_limit(); }
  PageCount grow(PageCount wanted, FunctionRef<void(FrameRun)> sink) override {
    return below_.grow(wanted, sink);
  }
  void retire(FrameRun run) override { below_.retire(run); }
  [[nodiscard]] PageCount surplus_wanted() const override { return below_.surplus_wanted(); }
  void zero(FrameRun run) override {
    hardware_.pages_zeroed(run.count);
    below_.zero(run);
  }
  void copy(FrameNumber from, FrameNumber to) override {
    hardware_.pages_copied(PageCount{1});
    below_.copy(from, to);
  }
  void with_frames(FrameRun run, Access access, FunctionRef<void(std::byte*)> use) override {
    below_.with_frames(run, access, use);
  }

 private:
  PhysicalMemory& below_;
  Hardware& hardware_;
};

}  // namespace enchilada
