// CompressedSwap: swap devices with a CompressedStore in front of them.
//
// What shrinks to three quarters or less (page_codec.h) stays in memory; the rest, and the oldest when the
// ring is full, goes to its place on the device below. Blocks keep their numbers, so a page's place never
// changes and the store can be emptied at any time. Invariants: a read gives what was written last, wherever
// it is; a failed drain loses nothing, it only makes writes go to the device; a device block of nobody's
// (wanted) costs no I/O. No allocation after construction, async-signal-safe; all devices are thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/arena.h"
#include "swap/compressed_store.h"
#include "swap/page_codec.h"
#include "swap/swap_device.h"
#include "swap/swap_geometry.h"

namespace enchilada {

struct CompressedSwapConfig {
  CompressedStore& store;              // this process's view; made with numbers() of these devices
  std::span<SwapDevice* const> below;  // at most SwapGeometry::kMaxDevices
  Arena& arena;                        // for buffers; they outlive the object
  /// Does anybody still reference this block of a device? Null = always.
  bool (*wanted)(void* context, DeviceBlock block) = nullptr;
  void* wanted_context = nullptr;
  CompressionMode compression = CompressionMode::kLz4;  // of all who use this store
};

class CompressedSwap {
 public:
  /// How many numbers a store for such devices needs.
  [[nodiscard]] static PageCount numbers(std::span<const std::uint64_t> device_pages);

  explicit CompressedSwap(const CompressedSwapConfig& config);
  CompressedSwap(const CompressedSwap&) = delete;
  CompressedSwap& operator=(const CompressedSwap&) = delete;
  /// False when the arena was too small.
  [[nodiscard]] bool ready() const { return drain_pages_ != nullptr; }
  /// To be used instead of below[i]; null where that is.
  [[nodiscard]] SwapDevice* device(unsigned i) { return fronts_[i].below != nullptr ? &fronts_[i] : nullptr; }
  /// In the child of a process fork: no other thread is here any more.
  void on_process_fork_child();

 private:
  class Front final : public SwapDevice {
   public:
    using SwapDevice::read;
    using SwapDevice::write;
    [[nodiscard]] PageCount size() const override { return below->size(); }
    IoResult read(std::uint64_t first, std::span<const IoSlice> to) override;
    IoResult write(std::uint64_t first, std::span<const IoSlice> from) override;
    [[nodiscard]] bool begin_read(std::uint64_t first, const IoSlice& to, SwapRead& read) override;
    IoResult finish_read(const SwapRead& read) override;
    [[nodiscard]] bool begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) override;
    void collect_writes() override { below->collect_writes(); }
    void finish_write(const AsyncWrite& write) override { below->finish_write(write); }
    [[nodiscard]] bool caches() const override { return true; }
    void make_room() override { swap->make_room(); }
    bool touch(std::uint64_t block) override { return swap->store_.touch(number(block)); }
    void offer(std::uint64_t block, const std::byte* page) override {
      (void)swap->compress(number(block), page, true, false);
    }

    CompressedSwap* swap = nullptr;
    SwapDevice* below = nullptr;
    std::uint32_t first_number = 0;  // of its block 0

   private:
    class Rest;
    [[nodiscard]] PackedNumber number(std::uint64_t block) const {
      return PackedNumber{static_cast<std::uint32_t>(first_number + block)};
    }
  };
  /// What packing or unpacking one page needs.
  struct Bench {
    std::atomic<bool> busy{false};
    void* workspace = nullptr;
    void* state = nullptr;  // the codec's, once the bench was used
    std::array<std::byte, kPageSize / 4 * 3> packed;
  };
  class BenchLease;

  [[nodiscard]] bool compress(PackedNumber number, const std::byte* page, bool backed, bool may_drain);
  void make_room();
  [[nodiscard]] bool fetch(PackedNumber number, std::byte* page);
  [[nodiscard]] Bench* make_benches(Arena& arena, std::size_t n, std::size_t workspace_bytes);
  [[nodiscard]] void* pack_state(Bench& bench) const;
  [[nodiscard]] void* unpack_state(Bench& bench) const;
  [[nodiscard]] bool drain();
  [[nodiscard]] bool write_out(std::span<const CompressedStore::Aged> aged);
  [[nodiscard]] DeviceBlock place_of(PackedNumber number) const;
  [[nodiscard]] bool wanted(PackedNumber number) const;

  static constexpr std::size_t kBenches = 8;  // threads that pack at once; others write without trying
  static constexpr std::size_t kUnpackBenches =
      5;  // threads that unpack at once, others wait; the last: drain

  const PageCodec& codec_;
  CompressedStore& store_;
  bool (*wanted_)(void*, DeviceBlock);
  void* wanted_context_;
  std::array<Front, SwapGeometry::kMaxDevices> fronts_;
  std::atomic<std::uint32_t> misses_{0};  // pages in a row that did not shrink
  Bench* benches_ = nullptr;
  Bench* unpack_benches_ = nullptr;
  std::byte* drain_pages_ = nullptr;  // kDrainPages, page-aligned; the drain lock
};

}  // namespace enchilada
