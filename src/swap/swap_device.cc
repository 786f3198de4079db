// Swap devices: file, memory, and the one that fails on purpose.
#include "swap/swap_device.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/raw_syscall.h"
#include "swap/io_ring.h"

namespace enchilada {
namespace {

constexpr long kSysPread64 = 17;
constexpr long kSysPwrite64 = 18;
constexpr long kSysNanosleep = 35;
constexpr long kSysFallocate = 285;
constexpr long kSysPreadv = 295;
constexpr long kSysPwritev = 296;
constexpr long kEintr = -4;
constexpr long kEbadf = -9;
constexpr long kEagain = -11;
constexpr long kEnospc = -28;
constexpr long kEdquot = -122;
constexpr long kKeepSize = 1;  // FALLOC_FL_KEEP_SIZE
// How far space is reserved beyond a write: a quarter of what the file has, within these limits.
constexpr std::uint64_t kLeastAhead = std::uint64_t{4} << 20;
constexpr std::uint64_t kMostAhead = std::uint64_t{64} << 20;
constexpr std::size_t kMaxSlices = 64;  // of one system call; longer lists go in several

std::uint64_t total_bytes(std::span<const IoSlice> slices) {
  std::uint64_t sum = 0;
  for (const IoSlice& s : slices) sum += s.bytes;
  return sum;
}

bool within(std::uint64_t first, std::span<const IoSlice> slices, PageCount size) {
  const std::uint64_t bytes = total_bytes(slices);
  CHECK(bytes % kPageSize == 0, bytes);
  return first <= size.value() && bytes / kPageSize <= size.value() - first;
}

/// Drops the first `done` bytes of a list.
std::span<IoSlice> advance(std::span<IoSlice> slices, std::uint64_t done) {
  while (!slices.empty() && done >= slices.front().bytes) {
    done -= slices.front().bytes;
    slices = slices.subspan(1);
  }
  if (!slices.empty()) slices.front() = {slices.front().data + done, slices.front().bytes - done};
  return slices;
}

}  // namespace

FileSwapDevice::FileSwapDevice(int fd, ByteCount offset, PageCount size, Reopen reopen, IoRings* rings,
                               AsyncWrites* writes)
    : fd_(fd), offset_(offset.value()), size_(size), reopen_(reopen), rings_(rings), writes_(writes) {
  CHECK(offset.value() % kPageSize == 0, offset.value());
}

IoResult FileSwapDevice::read(std::uint64_t first, std::span<const IoSlice> to) {
  return transfer(false, first, to);
}
IoResult FileSwapDevice::write(std::uint64_t first, std::span<const IoSlice> from) {
  return transfer(true, first, from);
}

bool FileSwapDevice::begin_read(std::uint64_t first, const IoSlice& to, SwapRead& read) {
  if (rings_ == nullptr || !within(first, {&to, 1}, size_)) return false;
  read = {first, to, rings_->begin(fd(), to.data, to.bytes, offset_ + first * kPageSize)};
  if (read.ring == IoRings::kNone) return false;
  calls_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

/// Whatever does not go through a ring at once is read again the plain way, which knows what to do about it.
IoResult FileSwapDevice::finish_read(const SwapRead& read) {
  const long bytes = rings_->finish(read.ring);
  return bytes == static_cast<long>(read.to.bytes) ? IoResult::kOk : this->read(read.first, {&read.to, 1});
}

bool FileSwapDevice::begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) {
  if (writes_ == nullptr || !within(first, {&from, 1}, size_)) return false;
  const std::uint64_t at = offset_ + first * kPageSize;
  reserve(at, at + from.bytes);
  if (!writes_->begin(fd(), from.data, from.bytes, at, write)) return false;
  calls_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void FileSwapDevice::collect_writes() {
  if (writes_ != nullptr) writes_->collect();
}

void FileSwapDevice::finish_write(const AsyncWrite& write) {
  writes_->finish(write);
}

IoResult FileSwapDevice::transfer(bool writing, std::uint64_t first, std::span<const IoSlice> slices) {
  if (!within(first, slices, size_)) return IoResult::kError;
  std::uint64_t at = offset_ + first * kPageSize;
  if (writing) reserve(at, at + total_bytes(slices));
  while (!slices.empty()) {
    std::array<IoSlice, kMaxSlices> part;
    const std::size_t n = std::min(slices.size(), kMaxSlices);
    std::copy_n(slices.begin(), n, part.begin());
    const IoResult result = transfer_slices(writing, at, {part.data(), n});
    if (result != IoResult::kOk) return result;
    at += total_bytes(slices.first(n));
    slices = slices.subspan(n);
  }
  return IoResult::kOk;
}

/// A write where the file has no space yet makes the file system find some, and meanwhile ext4 lets nobody
/// read: with two threads the reads then waited 2.5 ms each, 40 % of their time. Where space is reserved, a
/// write needs only a shared lock. A file system that cannot, or is full, is not asked again.
void FileSwapDevice::reserve(std::uint64_t from, std::uint64_t to) {
  std::uint64_t have = reserved_.load(std::memory_order_relaxed);
  const std::uint64_t end = offset_ + size_.value() * kPageSize;
  if (to <= have || have >= end) return;
  from = std::max(from, have);
  const std::uint64_t upto = std::min(end, to + std::clamp(to / 4, kLeastAhead, kMostAhead));
  // Others go on writing meanwhile: at worst the old way.
  if (!reserved_.compare_exchange_strong(have, upto, std::memory_order_relaxed)) return;
  const long answer =
      raw_syscall(kSysFallocate, fd(), kKeepSize, static_cast<long>(from), static_cast<long>(upto - from));
  if (answer == 0) return;
  const bool again = answer == kEintr || answer == kEbadf;
  reserved_.store(again ? have : end, std::memory_order_relaxed);
}

/// The system-call loop: goes on after a short transfer or a signal, reopens once.
IoResult FileSwapDevice::transfer_slices(bool writing, std::uint64_t at, std::span<IoSlice> slices) {
  bool may_reopen = true;
  unsigned idle = 0;
  while (!slices.empty()) {
    const bool single = slices.size() == 1;
    const long nr = single ? (writing ? kSysPwrite64 : kSysPread64) : (writing ? kSysPwritev : kSysPreadv);
    const long a = reinterpret_cast<long>(single ? static_cast<void*>(slices.front().data) : slices.data());
    const long n = static_cast<long>(single ? slices.front().bytes : slices.size());
    calls_.fetch_add(1, std::memory_order_relaxed);
    const long answer = raw_syscall(nr, fd(), a, n, static_cast<long>(at));
    if (answer == kEintr || (answer == kEagain && ++idle < 1000)) continue;
    if (answer == kEbadf && may_reopen && reopen()) {
      may_reopen = false;
      continue;
    }
    if (answer < 0) return answer == kEnospc || answer == kEdquot ? IoResult::kNoSpace : IoResult::kError;
    // Direct I/O must go on at a page: what is beyond the last whole page is moved again.
    const std::uint64_t left = total_bytes(slices);
    std::uint64_t done = static_cast<std::uint64_t>(answer);
    if (done < left) done &= ~kPageMask;
    if (done == 0 && ++idle > 3) return IoResult::kError;  // the file ends here, or the disk is stuck
    at += done;
    slices = advance(slices, done);
  }
  return IoResult::kOk;
}

bool FileSwapDevice::reopen() {
  if (reopen_.open == nullptr) return false;
  const int fd = reopen_.open(reopen_.context);
  if (fd < 0) return false;
  fd_.store(fd, std::memory_order_relaxed);
  return true;
}

bool MemorySwapDevice::inside(std::uint64_t first, std::span<const IoSlice> slices) const {
  return within(first, slices, size());
}

IoResult MemorySwapDevice::read(std::uint64_t first, std::span<const IoSlice> to) {
  reads_.fetch_add(1, std::memory_order_relaxed);
  if (!inside(first, to)) return IoResult::kError;
  const std::byte* from = memory_.data() + first * kPageSize;
  for (const IoSlice& s : to) {
    std::memcpy(s.data, from, s.bytes);
    from += s.bytes;
  }
  return IoResult::kOk;
}

IoResult MemorySwapDevice::write(std::uint64_t first, std::span<const IoSlice> from) {
  writes_.fetch_add(1, std::memory_order_relaxed);
  if (!inside(first, from)) return IoResult::kError;
  std::byte* to = memory_.data() + first * kPageSize;
  for (const IoSlice& s : from) {
    std::memcpy(to, s.data, s.bytes);
    to += s.bytes;
  }
  return IoResult::kOk;
}

/// splitmix64 on an atomic counter: threads share it without a lock.
std::uint64_t FaultInjectingSwapDevice::next_random() {
  std::uint64_t z = random_.fetch_add(0x9e3779b97f4a7c15u, std::memory_order_relaxed);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

bool FaultInjectingSwapDevice::strikes(std::atomic<std::uint64_t>& countdown, std::uint32_t rate) {
  bool hit = rate != 0 && (next_random() & 0xffff) < rate;
  std::uint64_t n = countdown.load();
  while (n > 0 && !countdown.compare_exchange_weak(n, n - 1)) {
  }
  hit |= n == 1;
  if (hit) count_injected();
  return hit;
}

void FaultInjectingSwapDevice::wait() const {
  const std::uint64_t ns = delay_.load();
  if (ns == 0) return;
  const std::int64_t limit[2] = {static_cast<std::int64_t>(ns / 1'000'000'000),
                                 static_cast<std::int64_t>(ns % 1'000'000'000)};
  raw_syscall(kSysNanosleep, reinterpret_cast<long>(limit));
}

IoResult FaultInjectingSwapDevice::read(std::uint64_t first, std::span<const IoSlice> to) {
  wait();
  if (strikes(read_in_, read_rate_.load())) return IoResult::kError;
  const IoResult result = below_.read(first, to);
  if (result == IoResult::kOk && corrupt_.load() && !to.empty()) {
    count_injected();
    to.back().data[to.back().bytes - 1] ^= std::byte{1};
  }
  return result;
}

IoResult FaultInjectingSwapDevice::write(std::uint64_t first, std::span<const IoSlice> from) {
  wait();
  if (full_.load()) {
    count_injected();
    return IoResult::kNoSpace;
  }
  if (!strikes(write_in_, write_rate_.load())) return below_.write(first, from);
  if (short_.load() && !from.empty() && from.front().bytes >= 2 * kPageSize) {
    const IoSlice half{from.front().data, from.front().bytes / 2 & ~kPageMask};
    const IoResult ignored = below_.write(first, {&half, 1});
    static_cast<void>(ignored);
  }
  return IoResult::kError;
}

bool FaultInjectingSwapDevice::begin_write(std::uint64_t first, const IoSlice& from, AsyncWrite& write) {
  const unsigned looks = async_looks_.load();
  if (looks == 0) return false;
  const MutexLock guard(begun_lock_);
  for (Begun& begun : begun_) {
    if (begun.write != nullptr) continue;
    begun = {first, from, &write, looks};
    write.begin(from.bytes);
    return true;
  }
  return false;
}

void FaultInjectingSwapDevice::end(Begun& begun) {
  const IoResult result = write(begun.first, {&begun.from, 1});
  begun.write->end(result == IoResult::kOk ? static_cast<long>(begun.from.bytes) : -1);
  begun.write = nullptr;
}

void FaultInjectingSwapDevice::collect_writes() {
  const MutexLock guard(begun_lock_);
  for (Begun& begun : begun_) {
    if (begun.write != nullptr && --begun.looks == 0) end(begun);
  }
}

void FaultInjectingSwapDevice::finish_write(const AsyncWrite& write) {
  const MutexLock guard(begun_lock_);
  for (Begun& begun : begun_) {
    if (begun.write == &write) end(begun);
  }
}

}  // namespace enchilada
