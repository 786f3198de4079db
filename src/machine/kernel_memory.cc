// The account of kernel structures. Invariants: see kernel_memory.h.
#include "machine/kernel_memory.h"

#include <algorithm>

namespace enchilada {

PhysAddr KernelMemory::allocate(KernelType type, ByteCount bytes) {
  hardware_.note(KernelEvent::kAllocation, 1);
  add(type, bytes.value());
  const std::size_t size_class = class_of(bytes);
  if (free_.size() <= size_class) free_.resize(size_class + 1);
  std::vector<std::uint64_t>& free = free_[size_class];
  if (!free.empty()) {
    const PhysAddr at{free.back()};
    free.pop_back();
    return at;
  }
  const PhysAddr at{next_};
  next_ += size_class * kGrain;
  return at;
}

void KernelMemory::free(KernelType type, PhysAddr at, ByteCount bytes) {
  hardware_.note(KernelEvent::kFree, 1);
  subtract(type, bytes.value());
  free_[class_of(bytes)].push_back(at.value());
}

void KernelMemory::add(KernelType type, std::uint64_t bytes) {
  KernelAccount& account = accounts_[static_cast<std::size_t>(type)];
  ++account.live;
  account.bytes += bytes;
  account.peak_bytes = std::max(account.peak_bytes, account.bytes);
}

void KernelMemory::subtract(KernelType type, std::uint64_t bytes) {
  KernelAccount& account = accounts_[static_cast<std::size_t>(type)];
  CHECK(account.live > 0 && account.bytes >= bytes, account.live, account.bytes);
  --account.live;
  account.bytes -= bytes;
}

KernelLockHold::KernelLockHold(Hardware& hardware)
    : hardware_(hardware), cpu_(hardware.cpu()), since_(hardware.time_of(cpu_)) {
  hardware_.note(KernelEvent::kLock, 1);
}

KernelLockHold::~KernelLockHold() {
  hardware_.note_lock_held(Picoseconds{hardware_.time_of(cpu_).value() - since_.value()});
}

}  // namespace enchilada
