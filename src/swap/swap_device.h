// SwapDevice: something with numbered page-sized blocks, and the devices that need no library.
//
// Invariants: a call moves whole blocks between one contiguous run of the device and buffers that the caller
// gives; it either moved all of them or failed as a whole (a failed write leaves the run's contents
// undefined). All are thread-safe, allocate nothing and call no libc: they run inside signal handlers.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/mutex.h"
#include "base/units.h"
#include "swap/async_writes.h"

namespace enchilada {

class IoRings;

enum class [[nodiscard]] IoResult : std::uint8_t{
    kOk,
    kError,    // the medium failed
    kNoSpace,  // write: the file system behind it is full
};

/// One piece of a transfer; same layout as the kernel's iovec.
struct IoSlice {
  std::byte* data;
  std::size_t bytes;
};

/// One read that was begun.
struct SwapRead {
  std::uint64_t first = 0;
  IoSlice to{};
  int ring = -1;  // the device's
};

class SwapDevice {
 public:
  virtual ~SwapDevice() = default;
  /// Size in blocks.
  [[nodiscard]] virtual PageCount size() const = 0;
  /// Reads the blocks from `first` on into the slices; the slices' bytes add up to whole pages.
  virtual IoResult read(std::uint64_t first, std::span<const IoSlice> to) = 0;
  virtual IoResult write(std::uint64_t first, std::span<const IoSlice> from) = 0;
  /// Starts a read that finish_read() waits for. False: not here, or not now; nothing has happened then.
  [[nodiscard]] virtual bool begin_read(std::uint64_t /*first*/, const IoSlice& /*to*/, SwapRead& /*read*/) {
    return false;
  }
  virtual IoResult finish_read(const SwapRead& read) { return this->read(read.first, {&read.to, 1}); }

  /// Starts a write that goes on by itself. False: not here, or not now; nothing has happened then. Until
  /// `write` has ended, the bytes stay the device's; how it ended must be looked at.
  [[nodiscard]] virtual bool begin_write(std::uint64_t /*first*/, const IoSlice& /*from*/,
                                         AsyncWrite& /*write*/) {
    return false;
  }
  /// Writes that have ended by now say so afterwards.
  virtual void collect_writes() {}
  /// Waits for one that was begun here.
  virtual void finish_write(const AsyncWrite& /*write*/) {}

  /// A device that holds pages in memory is told of clean pages that are about to be dropped. Does this one?
  [[nodiscard]] virtual bool caches() const { return false; }
  /// Makes room for some pages to be offered; may do I/O.
  virtual void make_room() {}
  /// Was this block in memory? Then it has just been used once more.
  virtual bool touch(std::uint64_t /*block*/) { return false; }
  /// `page` is what the block holds. No I/O. Nobody writes the block meanwhile.
  virtual void offer(std::uint64_t /*block*/, const std::byte* /*page*/) {}

  IoResult read(std::uint64_t first, std::byte* to, PageCount count) {
    const IoSlice slice{to, to_bytes(count).value()};
    return read(first, {&slice, 1});
  }
  IoResult write(std::uint64_t first, std::byte* from, PageCount count) {
    const IoSlice slice{from, to_bytes(count).value()};
    return write(first, {&slice, 1});
  }
};

/// A file or block device, by raw pread/pwrite. With O_DIRECT (the opener's choice) buffers must be
/// page-aligned.
class FileSwapDevice final : public SwapDevice {
 public:
  /// Called once per call when the descriptor turned out closed; returns a new one or -1.
  struct Reopen {
    int (*open)(void* context);
    void* context;
  };
  /// Blocks lie in the file from `offset` (page-aligned) on. The descriptor stays the caller's. Space in the
  /// file is asked for ahead of the writes, where the file system can (see reserve()).
  /// `rings` lets reads go on beside other work, `writes` writes; without them they do not.
  FileSwapDevice(int fd, ByteCount offset, PageCount size, Reopen reopen = {nullptr, nullptr},
                 IoRings* rings = nullptr, AsyncWrites* writes = nullptr);

  using SwapDevice::read;
  using SwapDevice::write;
  [[nodiscard]] PageCount size() const override { return size_; }
  IoResult read(std::uint64_t first, std::span<const IoSlice> to) override;
  IoResult write(std::uint64_t first, std::span<const IoSlice> from) override;
  [[nodiscard]] bool begin_read(std::uint64_t first, const IoSlice& to, SwapRead& read) override;
  IoResult finish_read(const SwapRead& read) override;
  [[nodiscard]] bool begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) override;
  void collect_writes() override;
  void finish_write(const AsyncWrite& write) override;
  [[nodiscard]] int fd() const { return fd_.load(std::memory_order_relaxed); }
  /// System calls made so far.
  [[nodiscard]] std::uint64_t calls() const { return calls_.load(std::memory_order_relaxed); }

 private:
  IoResult transfer(bool writing, std::uint64_t first, std::span<const IoSlice> slices);
  IoResult transfer_slices(bool writing, std::uint64_t at, std::span<IoSlice> slices);
  bool reopen();
  void reserve(std::uint64_t from, std::uint64_t to);

  std::atomic<int> fd_;
  std::uint64_t offset_;
  PageCount size_;
  Reopen reopen_;
  IoRings* rings_;
  AsyncWrites* writes_;
  std::atomic<std::uint64_t> calls_{0};
  std::atomic<std::uint64_t> reserved_{0};  // the file has space up to here, as far as we know
};

/// Blocks in memory that the caller owns: for tests and the laboratory.
class MemorySwapDevice final : public SwapDevice {
 public:
  explicit MemorySwapDevice(std::span<std::byte> memory) : memory_(memory) {}
  using SwapDevice::read;
  using SwapDevice::write;
  [[nodiscard]] PageCount size() const override { return PageCount{memory_.size() / kPageSize}; }
  IoResult read(std::uint64_t first, std::span<const IoSlice> to) override;
  IoResult write(std::uint64_t first, std::span<const IoSlice> from) override;
  [[nodiscard]] std::uint64_t reads() const { return reads_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t writes() const { return writes_.load(std::memory_order_relaxed); }

 private:
  [[nodiscard]] bool inside(std::uint64_t first, std::span<const IoSlice> slices) const;
  std::span<std::byte> memory_;
  std::atomic<std::uint64_t> reads_{0};
  std::atomic<std::uint64_t> writes_{0};
};

/// Another device, and its bad days. All knobs may be turned while it works.
class FaultInjectingSwapDevice final : public SwapDevice {
 public:
  explicit FaultInjectingSwapDevice(SwapDevice& below, std::uint64_t seed = 1)
      : below_(below), random_(seed) {}
  using SwapDevice::read;
  using SwapDevice::write;
  [[nodiscard]] PageCount size() const override { return below_.size(); }
  IoResult read(std::uint64_t first, std::span<const IoSlice> to) override;
  IoResult write(std::uint64_t first, std::span<const IoSlice> from) override;

  [[nodiscard]] bool begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) override;
  void collect_writes() override;
  void finish_write(const AsyncWrite& write) override;

  /// Writes that are begun take place, or fail, when they have been collected so often; 0 = none is begun.
  void set_async(unsigned looks) { async_looks_.store(looks); }
  /// The n-th read / write from now on (1 = the next) fails, once; 0 = none.
  void fail_read_in(std::uint64_t n) { read_in_.store(n); }
  void fail_write_in(std::uint64_t n) { write_in_.store(n); }
  /// This share of calls (of 65536) fails at random.
  void set_failure_rate(std::uint32_t reads, std::uint32_t writes) {
    read_rate_.store(reads);
    write_rate_.store(writes);
  }
  /// Writes fail with kNoSpace.
  void set_full(bool full) { full_.store(full); }
  /// A failing write first gets its first half onto the medium; a read that succeeds has its last bit flipped
  /// when `corrupt` is set.
  void set_short_writes(bool on) { short_.store(on); }
  void set_corrupt_reads(bool on) { corrupt_.store(on); }
  /// Every call takes this much longer.
  void set_delay(Nanoseconds delay) { delay_.store(delay.value()); }
  [[nodiscard]] std::uint64_t injected() const { return injected_.load(std::memory_order_relaxed); }

 private:
  struct Begun {
    std::uint64_t first = 0;
    IoSlice from{};
    AsyncWrite* write = nullptr;
    unsigned looks = 0;
  };
  void end(Begun& begun) REQUIRES(begun_lock_);
  bool strikes(std::atomic<std::uint64_t>& countdown, std::uint32_t rate);
  std::uint64_t next_random();
  void count_injected() { injected_.fetch_add(1, std::memory_order_relaxed); }
  void wait() const;

  SwapDevice& below_;
  std::atomic<std::uint64_t> random_;
  std::atomic<std::uint64_t> read_in_{0}, write_in_{0}, delay_{0}, injected_{0};
  std::atomic<std::uint32_t> read_rate_{0}, write_rate_{0};
  std::atomic<bool> full_{false}, short_{false}, corrupt_{false};
  std::atomic<unsigned> async_looks_{0};
  Mutex begun_lock_;
  std::array<Begun, 64> begun_ GUARDED_BY(begun_lock_){};
};

}  // namespace enchilada
