// LinuxDisk: a disk of the simulated machine for the pages of a file, or of swap. Invariant: what is read is
// what was written last, zeros before that; each transfer is charged to the machine.
#pragma once

#include "machine/soft_engine.h"
#include "machine/timed_disk.h"

namespace enchilada::lab {

class LinuxDisk {
 public:
  LinuxDisk(PageCount pages, Hardware& hardware)
      : memory_(to_bytes(pages).value()), device_(memory_.span()), timed_(device_, hardware) {}
  void read(std::uint64_t block, std::byte* to) {
    CHECK(timed_.SwapDevice::read(block, to, PageCount{1}) == IoResult::kOk, block);
  }
  void write(std::uint64_t block, std::byte* from) {
    CHECK(timed_.SwapDevice::write(block, from, PageCount{1}) == IoResult::kOk, block);
  }

 private:
  ZeroedPages memory_;
  MemorySwapDevice device_;
  TimedDisk timed_;
};

}  // namespace enchilada::lab
