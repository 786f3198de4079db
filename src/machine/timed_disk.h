// TimedDisk: a swap device with a head. A transfer that does not start where the last one ended pays for the
// way; each page pays for itself (CostModel::disk). Everybody waits for the disk: there is one request at a
// time. Invariant: what it stores is what the device below stores.
#pragma once

#include "machine/hardware.h"
#include "swap/swap_device.h"

namespace enchilada {

class TimedDisk final : public SwapDevice {
 public:
  TimedDisk(SwapDevice& below, Hardware& hardware) : below_(below), hardware_(hardware) {}

  using SwapDevice::read;
  using SwapDevice::write;
  [[nodiscard]] PageCount size() const override { return below_.size(); }
  IoResult read(std::uint64_t first, std::span<const IoSlice> to) override {
    move(first, to);
    return below_.read(first, to);
  }
  IoResult write(std::uint64_t first, std::span<const IoSlice> from) override {
    move(first, from);
    return below_.write(first, from);
  }
  [[nodiscard]] bool begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) override {
    if (!below_.begin_write(first, from, write)) return false;
    move(first, {&from, 1});
    return true;
  }
  void collect_writes() override { below_.collect_writes(); }
  void finish_write(const AsyncWrite& write) override { below_.finish_write(write); }

 private:
  void move(std::uint64_t first, std::span<const IoSlice> slices) {
    std::uint64_t bytes = 0;
    for (const IoSlice& slice : slices) bytes += slice.bytes;
    const PageCount pages = to_pages(ByteCount{bytes});
    hardware_.disk_transfer(first != head_, pages);
    head_ = first + pages.value();
  }

  SwapDevice& below_;
  Hardware& hardware_;
  std::uint64_t head_ = 0;
};

}  // namespace enchilada
